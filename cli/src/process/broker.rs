//! From the file's `[broker]` and `[[service]]` to a running broker.

use std::sync::Arc;

use anyhow::Context as _;
use scale0_broker::{BrokerConfig, BrokerHandle, QueueLimits, ServiceConfig, ShellConfig};
use scale0_transport::{Context, Endpoint, KeyPair, Port, RouterOptions};

use super::random;
use super::reload::rights;
use crate::config::{self, Config};

/// Binds its sockets and starts it.
pub(super) fn start(
    config: &Config,
    broker: &config::Broker,
    instance: u64,
    context: &Context,
    keys: Option<&KeyPair>,
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
        rights: keys.map(|_| Arc::new(rights(&config.security))),
        ..BrokerConfig::new(&config.node.name, &config.site.name, instance, random())
    };
    BrokerHandle::start(
        context,
        ShellConfig {
            listen,
            options: RouterOptions {
                secret_key: keys.map(|keys| keys.secret.clone()),
                ..RouterOptions::default()
            },
            broker: settings,
        },
    )
    .context("the broker cannot start")
}
