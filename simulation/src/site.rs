//! Who is there, and how brokers are configured.

use std::sync::Arc;
use std::time::Duration;

use scale0_broker::{BrokerConfig, Neighbour, Right, Rights, ServiceConfig};
use scale0_transport::PublicKey;

pub(crate) const BROKERS: usize = 3;
pub(crate) const FRONTENDS: usize = 3;

/// What clients ask for.
pub(crate) const SERVICES: &[&str] = &["shop", "cart", "tiny"];

/// What several backends offer.
pub(crate) const REDUNDANT: &[&str] = &["shop", "cart"];

/// What a stranger may offer, and nobody asks for.
pub(crate) const EVIL: &str = "evil";

/// What a backend is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trade {
    pub(crate) services: &'static [&'static str],
    /// How many requests it works on at a time.
    pub(crate) capacity: u32,
}

const fn trade(services: &'static [&'static str], capacity: u32) -> Trade {
    Trade { services, capacity }
}

/// All backends: some work on fewer requests than there are brokers, and some for two services.
pub(crate) const BACKENDS: &[Trade] = &[
    trade(&["shop"], 1),
    trade(&["shop", "cart"], 4),
    trade(&["shop"], 16),
    trade(&["cart"], 2),
    trade(&["cart", "shop"], 8),
    trade(&["cart"], 64),
    trade(&["tiny"], 1),
];

/// Frontends, backends, and a stranger where there is one, in this order.
pub(crate) const NODES: usize = FRONTENDS + BACKENDS.len();

/// What a node is called.
pub(crate) fn node_name(node: usize) -> String {
    match node {
        0..FRONTENDS => format!("frontend-{node}"),
        FRONTENDS..NODES => format!("backend-{node}"),
        _ => format!("stranger-{node}"),
    }
}

pub(crate) fn broker_name(broker: usize) -> String {
    format!("broker-{broker}")
}

/// Which broker is there.
pub(crate) fn broker_at(endpoint: &str) -> usize {
    let number = endpoint.strip_prefix("sim://broker-");
    let number = number.and_then(|number| number.parse().ok());
    number.expect("an endpoint nobody has")
}

pub(crate) fn key(node: usize) -> PublicKey {
    PublicKey::from_bytes([u8::try_from(node + 1).expect("there are few nodes"); 32])
}

/// What everybody may do, but for one who may do nothing.
pub(crate) fn rights(but: Option<usize>) -> Arc<Rights> {
    let mut rights = Rights::new();
    for node in (0..=NODES + 1).filter(|node| Some(*node) != but) {
        let offers: &[&str] = match node {
            0..FRONTENDS => &[],
            FRONTENDS..NODES => BACKENDS[node - FRONTENDS].services,
            _ => &[EVIL],
        };
        let right = Right {
            name: node_name(node),
            asks: !(FRONTENDS..NODES).contains(&node),
            offers: offers.iter().map(|&name| name.to_owned()).collect(),
        };
        rights.allow(key(node), right);
    }
    Arc::new(rights)
}

/// How a broker is configured; where bounds are tight, they bind.
pub(crate) fn config(
    broker: usize,
    [instance, secret]: [u64; 2],
    has_keys: bool,
    is_tight: bool,
) -> BrokerConfig {
    let mut config = BrokerConfig::new(&broker_name(broker), "fra", instance, secret);
    if is_tight {
        config.queue.requests = 50;
        // Now the one bound binds, now the other: a request is 152 bytes.
        config.queue.bytes = 48 * 152;
        config.limits.queued_bytes = 120 * 152;
        config.limits.bytes_per_peer = 512 * 1024;
        config.limits.waiting_bytes = 768 * 1024;
    }
    config.hold = Duration::from_secs(2);
    config.services = vec![
        ServiceConfig {
            queue: config.queue,
            min_backends: 2,
            ..ServiceConfig::new("shop")
        },
        ServiceConfig {
            queue: config.queue,
            outstanding: Some(24),
            ..ServiceConfig::new("cart")
        },
    ];
    let others = (0..BROKERS).filter(|other| *other != broker);
    config.others = others
        .map(|other| Neighbour {
            node: broker_name(other),
            frontends: Some(format!("sim://broker-{other}")),
            backends: Some(format!("sim://broker-{other}")),
            key: None,
        })
        .collect();
    config.rights = has_keys.then(|| rights(None));
    config
}
