//! What starts a broker, and what one has of it afterwards.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use scale0_transport::{
    Context, Endpoint, GateCounters, Gatekeeper, Hub, Port, Router, RouterOptions, ThreadWaker,
    TransportError,
};

use super::clock;
use super::run::SocketThread;
use super::station::{ShellCounters, Station};
use crate::core::{Broker, BrokerConfig, Counters, Event, Gauges, Rights, Snapshot};

/// What a broker's shell is told at its start.
#[derive(Clone, Debug)]
pub struct ShellConfig {
    /// Where it listens, and what comes in there. None: only peers of this process.
    pub listen: Vec<(Port, Endpoint)>,
    /// How its sockets are set up. With a secret key, only those get in to whom the rights of `broker` give something to do there; the
    /// port is filled in.
    pub options: RouterOptions,
    /// The core's settings.
    pub broker: BrokerConfig,
}

/// Why a broker did not start. Nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address is in use or not ours to take, or there are no sockets to be had.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The machine has no thread for it, or too many files are open.
    #[error("cannot start the broker's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Why a broker ended otherwise than by draining or being stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerFailed {
    /// A mistake of ours: its state meant nothing any more. Its peers have turned to other brokers; a new one may be started.
    #[error("the broker's core has panicked")]
    Panicked,
    /// The operating system could not wait for sockets any more.
    #[error("cannot wait for the broker's sockets: {0}")]
    Wait(#[from] io::Error),
}

/// A running broker. Dropped, it is stopped at once.
#[derive(Debug)]
pub struct BrokerHandle {
    station: Arc<Station>,
    thread: Option<JoinHandle<io::Result<()>>>,
    endpoints: Vec<(Port, String)>,
    /// Behind the thread: it outlives the sockets.
    gatekeeper: Option<Arc<Gatekeeper>>,
}

impl BrokerHandle {
    /// Binds, and starts a broker's thread.
    ///
    /// # Errors
    /// When an address is in use or not ours to take, or sockets or threads are not to be had.
    pub fn start(context: &Context, config: ShellConfig) -> Result<Self, StartError> {
        let waker = ThreadWaker::new()?;
        let gate = || config.broker.rights.as_ref().map(|rights| rights.gate());
        let gatekeeper = (config.options.secret_key.is_some())
            .then(|| Gatekeeper::start(context, gate().unwrap_or_default()))
            .transpose()?
            .map(Arc::new);
        let (mut routers, mut ports, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (port, endpoint)) in (0..=u8::MAX).zip(&config.listen) {
            let options = RouterOptions {
                port: Some(*port),
                ..config.options.clone()
            };
            let router = Router::bind(context, endpoint, number, &options)?;
            endpoints.push((*port, router.local_endpoint()));
            routers.push(router);
            ports.push(*port);
        }
        let broker = Broker::new(config.broker, clock::now());
        let station = Station::new(broker, waker);
        let sockets = SocketThread::new(Arc::clone(&station), routers, ports, gatekeeper.clone());
        let thread = Builder::new()
            .name("scale0-broker".to_owned())
            .spawn(move || sockets.run())?;
        Ok(Self {
            station,
            thread: Some(thread),
            endpoints,
            gatekeeper,
        })
    }

    /// For links of this process: see [`scale0_transport::Links::attach`].
    #[must_use]
    pub fn hub(&self) -> Arc<dyn Hub> {
        Arc::clone(&self.station) as Arc<dyn Hub>
    }

    /// Where it listens, with the ports that were free.
    #[must_use]
    pub fn endpoints(&self) -> &[(Port, String)] {
        &self.endpoints
    }

    /// How it stands, for people: nothing is routed while it is taken, which is some milliseconds at 1,000 backends with 200
    /// services.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.station.snapshot()
    }

    /// How it stands, for machines that ask often. Services come by name.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let mut gauges = self.station.gauges();
        gauges.services.sort_by(|a, b| a.name.cmp(&b.name));
        gauges
    }

    /// Whether it takes nothing new.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.station.is_draining()
    }

    /// What has happened so far, in the core and in the shell.
    #[must_use]
    pub fn counters(&self) -> (Counters, ShellCounters) {
        self.station.counters()
    }

    /// These rights hold from now on: at the next handshake, and for all who are here. Without a secret key nobody has proved a key, and
    /// nobody behind a socket has a right any more.
    pub fn change_rights(&self, rights: Rights) {
        // First the gate: who is sent away does not come in again.
        if let Some(gatekeeper) = &self.gatekeeper {
            gatekeeper.swap(rights.gate());
        }
        self.station.step(Event::Rights(Arc::new(rights)));
    }

    /// What was said to handshakes so far; nothing where there are no keys in use.
    #[must_use]
    pub fn gate_counters(&self) -> GateCounters {
        let gatekeeper = self.gatekeeper.as_ref();
        gatekeeper.map_or_else(GateCounters::default, |it| it.counters())
    }

    /// Takes nothing new from here on, finishes what there is within this time, and leaves. Returns at once; see
    /// [`join`](Self::join).
    pub fn drain(&self, timeout: Duration) {
        let until = clock::now() + timeout;
        self.station.step(Event::Drain { until });
    }

    /// Whether it has left, or has failed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.station.is_over()
    }

    /// Whether it has ended without having been told to.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let has_ended = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        self.station.has_failed() || (has_ended && !self.station.has_left())
    }

    /// Waits until it has left, which it does after [`drain`](Self::drain).
    ///
    /// # Errors
    /// When it failed instead.
    pub fn join(mut self) -> Result<(), BrokerFailed> {
        self.wait()
    }

    /// Ends it at once. What it had under way is lost to its peers.
    ///
    /// # Errors
    /// When it had failed before.
    pub fn stop(mut self) -> Result<(), BrokerFailed> {
        self.station.stop();
        self.wait()
    }

    fn wait(&mut self) -> Result<(), BrokerFailed> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        match thread.join() {
            Ok(_) | Err(_) if self.station.has_failed() => Err(BrokerFailed::Panicked),
            Ok(waited) => Ok(waited?),
            Err(_) => Err(BrokerFailed::Panicked),
        }
    }
}

impl Drop for BrokerHandle {
    fn drop(&mut self) {
        self.station.stop();
        // It was logged where it happened.
        let _ = self.wait();
    }
}
