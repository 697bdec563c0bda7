//! What the roles of a process tell about themselves.

use std::sync::Arc;

use scale0_broker::BrokerHandle;
use scale0_frontend::admin::Kind::{Counter, Gauge};
use scale0_frontend::admin::{Metrics, Source};
use serde_json::{Value, json};

use super::backends::Backends;

/// A broker as `/metrics` and `/status` show it.
pub(super) struct OfBroker(pub(super) Arc<BrokerHandle>);

impl Source for OfBroker {
    fn is_ready(&self) -> bool {
        !self.0.is_over() && !self.0.is_draining()
    }

    fn metrics(&self, metrics: &mut Metrics) {
        let (counters, shell) = self.0.counters();
        let help = "See docs/metrics.md.";
        for (name, value) in counters.iter() {
            metrics.add(
                format!("scale0_broker_{name}_total"),
                Counter,
                help,
                &[],
                value,
            );
        }
        for (why, value) in counters.chosen.iter() {
            let help = "Requests sent to backends, by why it was this one.";
            metrics.add(
                "scale0_broker_chosen_total",
                Counter,
                help,
                &[("why", why)],
                value,
            );
        }
        for (reason, value) in counters.refused.iter() {
            let help = "Requests refused before they were started, by reason.";
            metrics.add(
                "scale0_broker_refused_total",
                Counter,
                help,
                &[("reason", reason.name())],
                value,
            );
        }
        for (reason, value) in counters.failed.iter() {
            let help = "Requests that failed after they may have been started, by reason.";
            metrics.add(
                "scale0_broker_failed_total",
                Counter,
                help,
                &[("reason", reason.name())],
                value,
            );
        }
        for (name, value) in [
            ("scale0_broker_sends_waited_total", shell.waited),
            ("scale0_broker_stuck_peers_total", shell.stuck),
            ("scale0_broker_too_long_total", shell.too_long),
            ("scale0_broker_detached_total", shell.detached),
            ("scale0_broker_backstop_saves_total", shell.backstop_saves),
            ("scale0_broker_foreign_total", shell.foreign),
            ("scale0_broker_sent_on_total", shell.sent_on),
            ("scale0_broker_muted_total", shell.muted),
        ] {
            metrics.add(name, Counter, help, &[], value);
        }
        let gate = self.0.gate_counters();
        let help = "Handshakes of those with an allowed key.";
        let admitted = "scale0_broker_handshakes_admitted_total";
        metrics.add(admitted, Counter, help, &[], gate.admitted);
        for (reason, value) in [
            ("unknown-key", gate.unknown_key),
            ("wrong-port", gate.wrong_port),
            ("quarantined", gate.quarantined),
            ("unencrypted", shell.handshakes_unencrypted),
            ("wrong-broker-key", shell.handshakes_wrong_key),
            ("unfinished", shell.handshakes_unfinished),
            ("broken", shell.handshakes_broken),
        ] {
            metrics.add(
                "scale0_broker_handshakes_refused_total",
                Counter,
                "Connections that did not come in, by reason.",
                &[("reason", reason)],
                value,
            );
        }
        let gauges = self.0.gauges();
        let mut add = |name, help, labels: &[(&str, &str)], value: usize| {
            metrics.add(name, Gauge, help, labels, value as u64);
        };
        add(
            "scale0_broker_open_requests",
            "Requests that a frontend waits for.",
            &[],
            gauges.open_requests,
        );
        add(
            "scale0_broker_streams",
            "Event streams and tunnels.",
            &[],
            gauges.streams,
        );
        add(
            "scale0_broker_all_queued_bytes",
            "Bytes of requests that wait for a backend, of all services together.",
            &[],
            gauges.queued_bytes,
        );
        add(
            "scale0_broker_waiting_bytes",
            "Bytes that wait for the connection windows of slow peers.",
            &[],
            gauges.waiting_bytes,
        );
        add(
            "scale0_broker_kept_bytes",
            "Bytes of requests kept for a repeat.",
            &[],
            gauges.kept_bytes,
        );
        add(
            "scale0_broker_backends",
            "Backend sessions.",
            &[],
            gauges.backends,
        );
        add(
            "scale0_broker_frontends",
            "Frontend sessions.",
            &[],
            gauges.frontends,
        );
        for service in gauges
            .services
            .iter()
            .filter(|service| !service.name.is_empty())
        {
            let labels = [("service", &*service.name)];
            add(
                "scale0_broker_queued_requests",
                "Requests that wait for a backend.",
                &labels,
                service.queued,
            );
            add(
                "scale0_broker_queued_bytes",
                "Bytes of requests that wait.",
                &labels,
                service.queued_bytes,
            );
            add(
                "scale0_broker_service_backends",
                "Backends that may be sent work of a service.",
                &labels,
                service.backends,
            );
        }
    }

    fn status(&self) -> (&'static str, Value) {
        let mut status = serde_json::to_value(self.0.snapshot()).unwrap_or_default();
        let endpoints: Vec<_> = self
            .0
            .endpoints()
            .iter()
            .map(|(port, at)| json!({ "port": format!("{port:?}").to_lowercase(), "endpoint": at }))
            .collect();
        if let Value::Object(fields) = &mut status {
            fields.insert("listen".into(), endpoints.into());
        }
        ("broker", status)
    }
}

/// Backends of this process as `/metrics` and `/status` show them.
pub(super) struct OfBackends(pub(super) Arc<Backends>);

impl Source for OfBackends {
    fn metrics(&self, metrics: &mut Metrics) {
        let labels = [("services", self.0.name.as_str())];
        for counters in &self.0.counters {
            for (name, value) in counters.each() {
                metrics.add(
                    format!("scale0_backend_{name}_total"),
                    Counter,
                    "See docs/metrics.md.",
                    &labels,
                    value,
                );
            }
        }
        if let Some(bridge) = &self.0.bridge {
            for (name, value) in bridge.counts().each() {
                metrics.add(
                    format!("scale0_bridge_{name}_total"),
                    Counter,
                    "See docs/metrics.md.",
                    &labels,
                    value,
                );
            }
            let up = u64::from(*bridge.any_up().borrow());
            metrics.add(
                "scale0_bridge_up",
                Gauge,
                "Whether any upstream is well.",
                &labels,
                up,
            );
            let idle = bridge.idle_connections() as u64;
            metrics.add(
                "scale0_bridge_idle_connections",
                Gauge,
                "Connections kept for the next requests.",
                &labels,
                idle,
            );
        }
    }

    fn status(&self) -> (&'static str, Value) {
        let requests: u64 = self
            .0
            .counters
            .iter()
            .map(|counters| counters.requests.get())
            .sum();
        let mut status =
            json!({ "services": self.0.name, "requests": requests, "running": self.0.running() });
        if let Some(bridge) = &self.0.bridge {
            status["up"] = (*bridge.any_up().borrow()).into();
            status["idle_connections"] = bridge.idle_connections().into();
        }
        (
            if self.0.bridge.is_some() {
                "bridge"
            } else {
                "backend"
            },
            status,
        )
    }
}
