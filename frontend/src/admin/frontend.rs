//! What a frontend tells about itself.

use scale0_cache::{Cache, Counted, StoreConfig, StoreState};
use serde_json::{Value, json};

use super::Kind::{Counter, Gauge};
use super::{Metrics, Source};
use crate::frontend::{Frontend, LaneSnapshot};
use crate::interim::Dropped;
use crate::session::{BrokerStatus, LaneCounters};

impl Source for Frontend {
    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn metrics(&self, metrics: &mut Metrics) {
        self.http_metrics(metrics);
        self.cache_metrics(metrics);
        for lane in self.snapshots() {
            lane_metrics(&lane, metrics);
        }
    }

    fn status(&self) -> (&'static str, Value) {
        let lanes = self.snapshots();
        let cache = &self.shared.cache;
        let counters: serde_json::Map<_, _> = cache
            .counters()
            .each()
            .map(|counted| (counted.name.to_owned(), counted.value.into()))
            .collect();
        let addresses: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        let status = json!({
            "http": addresses,
            "ready": Self::is_ready(self),
            "connections": self.connections(),
            "requests": self.shared.counters.requests.value(),
            "streams": lanes.iter().map(|lane| lane.streams).sum::<usize>(),
            "brokers": lanes.iter().enumerate().flat_map(|(lane, of)| of.brokers.iter().map(move |broker| broker_status(lane, broker))).collect::<Vec<_>>(),
            "cache": {
                "stored_responses": cache.memory_tier().len(),
                "stored_bytes": cache.memory_tier().bytes(),
                "flights": cache.flights(),
                "flight_bytes": cache.flight_bytes(),
                "store": store_status(cache),
                "counters": counters,
            },
        });
        ("frontend", status)
    }
}

impl Frontend {
    fn snapshots(&self) -> Vec<LaneSnapshot> {
        self.lanes
            .iter()
            .map(|lane| lane.snapshot.lock().clone())
            .collect()
    }

    fn http_metrics(&self, metrics: &mut Metrics) {
        let counters = &self.shared.counters;
        let mut add = |name, help, value| metrics.add(name, Counter, help, &[], value);
        add(
            "scale0_http_connections_total",
            "Connections accepted.",
            counters.connections.value(),
        );
        add(
            "scale0_http_accept_errors_total",
            "Connections that could not be accepted.",
            counters.accept_errors.value(),
        );
        add(
            "scale0_http_connection_errors_total",
            "Connections that ended in error.",
            counters.connection_errors.value(),
        );
        add(
            "scale0_http_requests_total",
            "Requests whose head was read.",
            counters.requests.value(),
        );
        add(
            "scale0_http_response_bytes_total",
            "Content sent to clients.",
            counters.response_bytes.value(),
        );
        add(
            "scale0_http_incomplete_responses_total",
            "Responses that did not reach their end.",
            counters.incomplete.value(),
        );
        add(
            "scale0_http_interims_total",
            "Interim responses passed on.",
            counters.interims.value(),
        );
        add(
            "scale0_http_tunnels_total",
            "Requests that switched protocols.",
            counters.tunnels.value(),
        );
        add(
            "scale0_http_explained_total",
            "Requests answered with their account, as their sender may ask for.",
            counters.explained.value(),
        );
        add(
            "scale0_http_explanations_refused_total",
            "Requests that asked for their account without the admin token.",
            counters.explanations_refused.value(),
        );
        add(
            "scale0_access_log_dropped_total",
            "Access log lines dropped because the writer was too slow, or could not write.",
            self.shared.access_log.dropped(),
        );
        for (digit, class) in ["other", "1xx", "2xx", "3xx", "4xx", "5xx"]
            .into_iter()
            .enumerate()
        {
            let value = counters.class(digit).value();
            metrics.add(
                "scale0_http_responses_total",
                Counter,
                "Responses by class of status.",
                &[("class", class)],
                value,
            );
        }
        for (reason, value) in counters.errors.each() {
            metrics.add(
                "scale0_http_errors_total",
                Counter,
                "Requests answered with an error of Scale0's own, by reason.",
                &[("reason", reason)],
                value,
            );
        }
        for why in Dropped::ALL {
            metrics.add(
                "scale0_http_interims_dropped_total",
                Counter,
                "Interim responses that were not passed on.",
                &[("why", why.name())],
                counters.interim_dropped(why).value(),
            );
        }
        for (why, counter) in [
            ("idle", &counters.too_slow_idle),
            ("head", &counters.too_slow_head),
            ("content", &counters.too_slow_content),
            ("reading", &counters.too_slow_reading),
        ] {
            let help = "Connections ended because the client was idle or too slow.";
            metrics.add(
                "scale0_http_too_slow_total",
                Counter,
                help,
                &[("why", why)],
                counter.value(),
            );
        }
        metrics.add(
            "scale0_http_connections",
            Gauge,
            "Open connections.",
            &[],
            self.connections() as u64,
        );
    }

    fn cache_metrics(&self, metrics: &mut Metrics) {
        let cache = &self.shared.cache;
        for Counted { name, help, value } in cache.counters().each() {
            let name = format!("scale0_cache_{name}_total");
            metrics.add(name, Counter, help, &[], value);
        }
        let mut gauge = |name, help, value: u64| metrics.add(name, Gauge, help, &[], value);
        gauge(
            "scale0_cache_stored_responses",
            "Responses in the memory tier.",
            cache.memory_tier().len() as u64,
        );
        gauge(
            "scale0_cache_stored_bytes",
            "Bytes of the memory tier in use.",
            cache.memory_tier().bytes(),
        );
        gauge(
            "scale0_cache_flights",
            "Fetches under way.",
            cache.flights() as u64,
        );
        gauge(
            "scale0_cache_flight_bytes",
            "Content that flights hold for their readers.",
            cache.flight_bytes() as u64,
        );
        if let Some(store) = cache.store_config() {
            store_metrics(cache, store, metrics);
        }
    }

    fn connections(&self) -> usize {
        self.lanes
            .iter()
            .map(|lane| lane.connections.load(std::sync::atomic::Ordering::Relaxed))
            .sum()
    }
}

fn store_metrics(cache: &Cache, store: &StoreConfig, metrics: &mut Metrics) {
    for Counted { name, help, value } in cache.store_counters() {
        let name = format!("scale0_store_{}_{name}_total", store.kind.name());
        metrics.add(name, Counter, help, &[], value);
    }
    let usage = cache.store_usage().unwrap_or_default();
    let mut gauge = |name, help, value: u64| metrics.add(name, Gauge, help, &[], value);
    gauge(
        "scale0_store_open",
        "Whether the store is open.",
        u64::from(cache.store_state() == StoreState::Open),
    );
    gauge(
        "scale0_store_records",
        "Records in the store: responses, and what tells variants apart.",
        usage.records,
    );
    gauge(
        "scale0_store_bytes",
        "Bytes of the store on the disk.",
        usage.bytes,
    );
    gauge(
        "scale0_store_capacity_bytes",
        "Bytes that the store may have on the disk.",
        store.capacity,
    );
    gauge(
        "scale0_store_memory_bytes",
        "Memory that the store's bookkeeping takes.",
        usage.memory,
    );
    gauge(
        "scale0_store_waiting_bytes",
        "Bytes that wait to be written to the disk.",
        cache.store_waiting() as u64,
    );
}

fn store_status(cache: &Cache) -> Value {
    let state = cache.store_state().name();
    let Some(store) = cache.store_config() else {
        return json!({ "kind": "none", "state": state });
    };
    let usage = cache.store_usage().unwrap_or_default();
    json!({
        "kind": store.kind.name(),
        "state": state,
        "path": store.path.display().to_string(),
        "records": usage.records,
        "bytes": usage.bytes,
        "capacity": store.capacity,
        "waiting": cache.store_waiting(),
    })
}

fn lane_metrics(lane: &LaneSnapshot, metrics: &mut Metrics) {
    let LaneCounters {
        repeated,
        refused_elsewhere,
        passed_by_silent,
        sessions_lost,
        silent,
        dropped_epoch,
        dropped_stream,
        dropped_protocol,
        malformed,
        unknown_kind,
        deadline,
        idle,
        ..
    } = lane.counters;
    let mut add = |why, value: u64| {
        let help = "Messages from brokers that were dropped, by reason.";
        metrics.add(
            "scale0_frontend_dropped_messages_total",
            Counter,
            help,
            &[("why", why)],
            value,
        );
    };
    add("epoch", dropped_epoch);
    add("stream", dropped_stream);
    add("protocol", dropped_protocol);
    add("malformed", malformed);
    add("unknown-kind", unknown_kind);
    let mut add = |name, help, value: u64| metrics.add(name, Counter, help, &[], value);
    add(
        "scale0_frontend_repeated_requests_total",
        "Requests sent to another broker after theirs was lost.",
        repeated,
    );
    add(
        "scale0_frontend_refused_elsewhere_total",
        "Requests sent to another broker after one had refused them.",
        refused_elsewhere,
    );
    add(
        "scale0_frontend_passed_by_silent_total",
        "Requests sent past a silent broker, to one that has spoken.",
        passed_by_silent,
    );
    add(
        "scale0_frontend_sessions_lost_total",
        "Sessions with brokers that ended.",
        sessions_lost,
    );
    add(
        "scale0_frontend_silent_brokers_total",
        "Brokers declared dead because they said nothing.",
        silent,
    );
    add(
        "scale0_frontend_deadlines_total",
        "Requests whose response did not begin in time.",
        deadline,
    );
    add(
        "scale0_frontend_idle_streams_total",
        "Responses that stopped moving.",
        idle,
    );
    add(
        "scale0_frontend_backlog_dropped_total",
        "Messages dropped because a broker stopped reading.",
        lane.backlog_dropped,
    );
    add(
        "scale0_frontend_too_long_total",
        "Messages of ours that were longer than the protocol allows.",
        lane.too_long,
    );
    add(
        "scale0_frontend_backstop_saves_total",
        "Messages that only the backstop timer found.",
        lane.backstop_saves,
    );
    metrics.add(
        "scale0_frontend_streams",
        Gauge,
        "Requests under way to brokers.",
        &[],
        lane.streams as u64,
    );
}

fn broker_status(lane: usize, broker: &BrokerStatus) -> Value {
    json!({
        "lane": lane,
        "node": broker.node,
        "state": broker.state,
        "outstanding": broker.outstanding,
        "round_trip_us": u64::try_from(broker.round_trip.as_micros()).unwrap_or(u64::MAX),
    })
}
