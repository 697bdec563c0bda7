//! From the file's `[broker]` and `[[service]]` to a running broker.

use anyhow::Context as _;
use scale0_broker::{BrokerConfig, BrokerHandle, QueueLimits, ServiceConfig, ShellConfig};
use scale0_transport::{Context, Endpoint, Port, RouterOptions};

use super::random;
use crate::config::{self, Config};

/// Binds its sockets and starts it.
pub(super) fn start(
    config: &Config,
    broker: &config::Broker,
    instance: u64,
    context: &Context,
) -> anyhow::Result<BrokerHandle> {
    let mut listen = Vec::new();
    for (port, endpoint) in [
        (Port::Frontends, &broker.frontends),
        (Port::Backends, &broker.backends),
        (Port::Peers, &broker.peers),
    ] {
        let endpoint: Endpoint = endpoint
            .to_string()
            .parse()
            .with_context(|| format!("broker: {endpoint}"))?;
        listen.push((port, endpoint));
    }
    let services = broker.services.iter().map(|service| ServiceConfig {
        queue: QueueLimits {
            requests: service.queue,
            bytes: usize::try_from(service.queue_bytes.bytes()).unwrap_or(usize::MAX),
        },
        ..ServiceConfig::new(&service.name.to_string())
    });
    let settings = BrokerConfig {
        services: services.collect(),
        hold: config.limits.hold,
        ..BrokerConfig::new(&config.node.name, &config.site.name, instance, random())
    };
    BrokerHandle::start(
        context,
        ShellConfig {
            listen,
            options: RouterOptions::default(),
            broker: settings,
        },
    )
    .context("the broker cannot start")
}
