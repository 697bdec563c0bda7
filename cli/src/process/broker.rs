//! From the file's `[broker]` and `[[service]]` to a running broker.

use std::sync::Arc;

use anyhow::Context as _;
use scale0_broker::{
    BrokerConfig, BrokerHandle, BrokerLimits, Neighbour, QueueLimits, ServiceConfig, ShellConfig,
};
use scale0_transport::{Context, Endpoint, KeyPair, Port, RouterOptions};

use super::random;
use super::reload::rights;
use crate::config::{self, ByteCount, Config};

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
    let rights = keys.map(|_| Arc::new(rights(&config.security)));
    let settings = BrokerConfig {
        rights,
        ..settings(config, broker, instance, random())
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

/// What the core is told, but for whom it lets in.
fn settings(
    config: &Config,
    broker: &config::Broker,
    instance: u64,
    hash_secret: u64,
) -> BrokerConfig {
    let services = broker.services.iter().map(|service| ServiceConfig {
        name: service.name.to_string(),
        queue: QueueLimits {
            requests: service.queue,
            bytes: bytes(service.queue_bytes),
        },
        min_backends: service.min_backends,
        outstanding: service.outstanding,
        share_percent: service.share.0,
    });
    let others = broker.others.iter().map(|other| Neighbour {
        node: other.node.to_string(),
        frontends: other.frontends.as_ref().map(ToString::to_string),
        backends: other.backends.as_ref().map(ToString::to_string),
        key: other.public_key.map(|key| *key.0.as_bytes()),
    });
    BrokerConfig {
        services: services.collect(),
        others: others.collect(),
        heartbeat: broker.heartbeat,
        hold: config.limits.hold,
        limits: BrokerLimits {
            queued_bytes: bytes(config.limits.queued_bytes),
            ..BrokerLimits::default()
        },
        ..BrokerConfig::new(&config.node.name, &config.site.name, instance, hash_secret)
    }
}

fn bytes(count: ByteCount) -> usize {
    usize::try_from(count.bytes()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scale0_transport::PublicKey;

    use super::*;
    use crate::config::Sources;

    #[test]
    fn a_broker_is_told_what_its_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scale0.toml");
        let key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
        let text = format!(
            r#"
[node]
name = "fra-1"
[limits]
hold = "2s"
queued_bytes = "32MiB"
[broker]
heartbeat = "5s"
others = {{ node = "fra-2", frontends = "tcp://10.0.0.6:5701", backends = "tcp://10.0.0.6:5702", public_key = "{key}" }}
[[service]]
name = "Api"
queue = 10
queue_bytes = "1MiB"
min_backends = 3
outstanding = 40
share = "50%"
[[service]]
name = "blog"
"#
        );
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&Sources {
            file: Some(file),
            ..Sources::default()
        });
        let config = config.unwrap();
        let told = settings(&config, config.broker.as_ref().unwrap(), 1, 2);
        assert_eq!((&told.node[..], told.instance), ("fra-1", 1));
        assert_eq!(told.heartbeat, Duration::from_secs(5));
        assert_eq!(told.hold, Duration::from_secs(2));
        assert_eq!(told.limits.queued_bytes, 32 << 20);
        let other = Neighbour {
            node: "fra-2".into(),
            frontends: Some("tcp://10.0.0.6:5701".into()),
            backends: Some("tcp://10.0.0.6:5702".into()),
            key: Some(*key.parse::<PublicKey>().unwrap().as_bytes()),
        };
        assert_eq!(told.others, [other]);
        let api = ServiceConfig {
            name: "api".into(),
            queue: QueueLimits {
                requests: 10,
                bytes: 1 << 20,
            },
            min_backends: 3,
            outstanding: Some(40),
            share_percent: 50,
        };
        let blog = ServiceConfig {
            min_backends: 1,
            ..ServiceConfig::new("blog")
        };
        assert_eq!(
            told.services,
            [api, blog],
            "what is not said is the broker's own default"
        );
    }
}
