use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use scale0_cache::{CacheConfig, StoreConfig};
use scale0_transport::{Context, Endpoint, Hub, LinkOptions};

use crate::access_log::AccessLog;
use crate::route::{Route, Rules};
use crate::socket::Listener;

/// Everything a frontend needs to know; whoever makes it has checked it.
pub struct FrontendConfig {
    /// The node's name: in `Via`, error answers, logs and towards brokers. An RFC 9110 token.
    pub node: String,
    /// The site's name, for logs.
    pub site: String,
    /// Drawn once per process.
    pub instance: u64,
    /// Where HTTP/1.1 and h2c are served.
    pub http: Vec<Listener>,
    /// Whom to believe about clients.
    pub trusted_proxies: Vec<IpNet>,
    /// In order; the first match wins.
    pub routes: Vec<Route>,
    /// What holds for requests that no route matches.
    pub otherwise: Rules,
    /// The brokers.
    pub brokers: Brokers,
    /// The cache and its flights.
    pub cache: CacheConfig,
    /// Where what it stores outlives the process.
    pub store: Option<StoreConfig>,
    /// What one client, and all of them, may take.
    pub limits: Limits,
    /// Where access log lines go.
    pub access_log: AccessLog,
    /// What a request's `Scale0-Debug` must be so that its response tells what became of it. None: no response does.
    pub debug_token: Option<String>,
}

/// How brokers are reached: over sockets, within the process, or both.
#[derive(Clone)]
pub struct Brokers {
    /// One DEALER per endpoint and thread.
    pub endpoints: Vec<Endpoint>,
    /// Of the sockets.
    pub options: LinkOptions,
    /// libzmq's context; needed when there are endpoints.
    pub context: Option<Context>,
    /// The broker of this very process.
    pub hub: Option<Arc<dyn Hub>>,
}

/// What one client, and all of them, may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Fields of a request's head.
    pub header_count: usize,
    /// Bytes of a request's content; 0: no limit.
    pub body_bytes: u64,
    /// How long a client may take to send a request's head, once it has begun.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub keepalive_timeout: Duration,
    /// Bytes per second that a client must send or read, over [`Self::header_timeout`]; 0: any.
    pub min_rate: u64,
    /// Upgraded connections and event streams at a time.
    pub max_streams: usize,
    /// Bytes on their way through, over all requests.
    pub in_flight_bytes: u64,
}
