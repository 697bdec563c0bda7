//! What a broker is told at its start.

use std::sync::Arc;
use std::time::Duration;

use scale0_wire::limits;

use super::rights::Rights;
use super::service::Bounds;

/// A broker's settings. Plain values: any combination is valid.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// This node's name; frontends choose home brokers by it.
    pub node: String,
    /// This site's name.
    pub site: String,
    /// Drawn once per process.
    pub instance: u64,
    /// Drawn once per process and told to nobody: what peers choose cannot be chosen to collide in the broker's tables.
    pub hash_secret: u64,
    /// Services that are always known, and have bounds of their own.
    pub services: Vec<ServiceConfig>,
    /// Brokers to which peers are sent when this one leaves.
    pub others: Vec<Neighbour>,
    /// The longest a peer is left without hearing anything; a peer may ask for longer, up to [`limits::HEARTBEAT_MAX`].
    pub heartbeat: Duration,
    /// For how long a young broker holds requests for services that nobody has announced to it yet: those who offer them may
    /// still be on their way.
    pub hold: Duration,
    /// The queue of a service without bounds of its own.
    pub queue: QueueLimits,
    /// Bounds on what peers can make this broker hold.
    pub limits: BrokerLimits,
    /// What the owners of keys may do; whoever comes over a socket without a right to is sent away. None: there are no keys in use, and
    /// everybody may do everything. Peers of this process need no right.
    pub rights: Option<Arc<Rights>>,
}

impl BrokerConfig {
    /// Default settings for this node of this site. `instance` and `hash_secret` are to be drawn at random.
    #[must_use]
    pub fn new(node: &str, site: &str, instance: u64, hash_secret: u64) -> Self {
        Self {
            node: node.to_owned(),
            site: site.to_owned(),
            instance,
            hash_secret,
            services: Vec::new(),
            others: Vec::new(),
            heartbeat: limits::HEARTBEAT,
            hold: Duration::from_secs(10),
            queue: QueueLimits::default(),
            limits: BrokerLimits::default(),
            rights: None,
        }
    }
}

/// Another broker that works for the same backends and frontends. Peers dial it when this one leaves, if they do not know it and the
/// link on which they hear of it can be trusted; see `PROTOCOL.md`, "Sessions".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its node's name.
    pub node: String,
    /// Where it listens for frontends, as they are to dial it; at most [`limits::TEXT`] bytes. None: they are not told of it.
    pub frontends: Option<String>,
    /// Where it listens for backends, likewise.
    pub backends: Option<String>,
    /// Its public key, if it has one.
    pub key: Option<[u8; 32]>,
}

/// A service named in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its name, in lower case.
    pub name: String,
    /// Its queue.
    pub queue: QueueLimits,
    /// Backends, by process, that must have come since this broker's start before it is sent its first request; until then requests are
    /// held as if there were none. So the first to come of many is not sent what all of them are for. 0 and 1 are the same.
    pub min_backends: usize,
    /// Requests of this service that all backends work on at a time, as far as this broker sends them; more wait. None: what credit
    /// allows. For what stands behind them, a database for instance.
    pub outstanding: Option<usize>,
    /// Of what a backend lends this broker, the percentage that requests of this service may have where the backend offers other services
    /// too, 1 to 100. Below 100, a service with long requests leaves room for others at their shared backends; one may always be
    /// there.
    pub share_percent: u8,
}

impl ServiceConfig {
    /// A service with default bounds.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let Bounds {
            min_backends,
            share_percent,
            ..
        } = Bounds::default();
        Self {
            name: name.to_owned(),
            queue: QueueLimits::default(),
            min_backends,
            outstanding: None,
            share_percent,
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            min_backends: self.min_backends,
            outstanding: self.outstanding.unwrap_or(usize::MAX),
            share_percent: self.share_percent.clamp(1, 100),
        }
    }
}

/// What may wait for the backends of one service. Beyond either bound a request is refused at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests.
    pub requests: usize,
    /// Bytes of requests.
    pub bytes: usize,
}

impl Default for QueueLimits {
    /// A second's work of a site that answers a thousand requests a second; heads and small bodies of as many.
    fn default() -> Self {
        Self {
            requests: 1000,
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// Bounds on what peers can make a broker hold, each far above what honest ones need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Sessions of frontends and of backends, each: a node has one per runtime thread.
    pub sessions: usize,
    /// Services, known and awaited: each costs a few hundred bytes and a metric's label.
    pub services: usize,
    /// Services of one backend session: in its HELLO, and as it announces them. Beyond it they are refused, and counted.
    pub services_per_session: usize,
    /// Open requests of one frontend session: more than a runtime thread has connections.
    pub requests_per_session: usize,
    /// Event streams and tunnels, which outlive their credit.
    pub streams: usize,
    /// Bytes that wait for one peer whose connection window is used up. The stream that would exceed it is reset.
    pub bytes_per_peer: usize,
    /// Bytes of requests that wait in all queues together. A queue refuses what would make it longer than what the others leave free, so
    /// that one alone holds half of this at the most. Repeats count, and are never refused: they may go beyond it by `kept_bytes`.
    pub queued_bytes: usize,
    /// Bytes that wait for the connection windows of all peers together, shared in the same way.
    pub waiting_bytes: usize,
    /// Bytes of requests kept until their response's head, for a repeat. Beyond it requests are sent all the same, and not repeated.
    pub kept_bytes: usize,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            sessions: 16 * 1024,
            services: 16 * 1024,
            services_per_session: limits::SERVICES,
            requests_per_session: 64 * 1024,
            streams: 64 * 1024,
            bytes_per_peer: 4 * 1024 * 1024,
            queued_bytes: 128 * 1024 * 1024,
            waiting_bytes: 64 * 1024 * 1024,
            kept_bytes: 64 * 1024 * 1024,
        }
    }
}
