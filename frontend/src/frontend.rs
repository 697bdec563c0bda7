//! A running frontend.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use scale0_cache::Cache;
use scale0_cache::purge::{Epoch, Purge, PurgeError};
use scale0_transport::TransportError;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{Semaphore, watch};

use crate::clock;
use crate::config::{Brokers, FrontendConfig};
use crate::counters::Counters;
use crate::dispatch::{Dispatcher, Wiring};
use crate::forwarded::{RequestIds, TrustedProxies};
use crate::listener::{self, DRAIN_GRACE, Door, DrainStage, Seat};
use crate::route::RouteTable;
use crate::session::{BrokerStatus, Lane, LaneConfig, LaneCounters};
use crate::socket::{Listener, Place};
use crate::threads::Threads;
use crate::watch::LOOK;
use crate::worker::{Seats, Shared, Worker};

/// Why a frontend cannot start. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no descriptor to be had for it.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The node's name cannot stand in `Via`.
    #[error("the node's name {name:?} is no token as RFC 9110 has it")]
    Name {
        /// The name.
        name: String,
    },
}

/// A running frontend; dropping it lets it run on, [`Frontend::drain`] and [`Frontend::stop`] end it.
pub struct Frontend {
    pub(crate) shared: Arc<Shared>,
    /// Where it listens, in the order in which it was told.
    places: Vec<Arc<Place>>,
    pub(crate) lanes: Arc<Vec<LaneView>>,
    drain: watch::Sender<DrainStage>,
    leave: watch::Sender<bool>,
    /// Listeners that are open.
    listening: Arc<AtomicUsize>,
}

/// What other threads see of one thread's lane.
#[derive(Debug, Default)]
pub(crate) struct LaneView {
    welcome: AtomicBool,
    gone: AtomicBool,
    pub(crate) connections: Arc<AtomicUsize>,
    /// As of the last look, at most [`LOOK`] ago.
    pub(crate) snapshot: Mutex<LaneSnapshot>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct LaneSnapshot {
    pub(crate) brokers: Vec<BrokerStatus>,
    pub(crate) streams: usize,
    pub(crate) counters: LaneCounters,
    pub(crate) backlog_dropped: u64,
    pub(crate) backstop_saves: u64,
    pub(crate) too_long: u64,
}

impl Frontend {
    /// Starts on these threads. It accepts connections from [`Frontend::open`] on.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: FrontendConfig, threads: &Threads) -> Result<Self, StartError> {
        let via = HeaderValue::try_from(format!("1.1 {}", config.node)).map_err(|_| {
            StartError::Name {
                name: config.node.clone(),
            }
        })?;
        let places = config.http.iter().map(|listener| {
            let address = listener.address();
            let place = Place::of(listener);
            place
                .map(Arc::new)
                .map_err(|error| StartError::Listen { address, error })
        });
        let places: Vec<Arc<Place>> = places.collect::<Result<_, _>>()?;
        let cache = match &config.store {
            None => Cache::new(config.cache),
            Some(store) => Cache::with_store(config.cache, store, clock::wall()),
        };
        cache.wait_until_open(STORE_OPENS_WITHIN);
        let shared = Arc::new(Shared {
            via,
            site: config.site,
            routes: RouteTable::new(config.routes, config.otherwise),
            trusted_proxies: TrustedProxies::new(config.trusted_proxies),
            request_ids: RequestIds::new(config.instance),
            cache: Arc::new(cache),
            access_log: config.access_log,
            counters: Counters::default(),
            debug_token: config.debug_token,
            long_streams: Seats::default(),
            limits: config.limits,
            node: config.node,
        });
        let (drain, draining) = watch::channel(DrainStage::Waiting);
        let (leave, leaving) = watch::channel(false);
        let lanes: Arc<Vec<LaneView>> =
            Arc::new((0..threads.len()).map(|_| LaneView::default()).collect());
        let permits = Arc::new(Semaphore::new(
            shared.limits.max_connections.min(Semaphore::MAX_PERMITS),
        ));

        let mut doors = Vec::new();
        for index in 0..threads.len() {
            let (connections, accepted) = unbounded_channel();
            doors.push(Door {
                connections,
                count: Arc::clone(&lanes[index].connections),
            });
            let lane = LaneConfig {
                node: shared.node.clone(),
                instance: config.instance,
                lane: u16::try_from(index).unwrap_or(u16::MAX),
                // Sessions of one lane never share an epoch with those of another process, nor of a former life of this one.
                first_epoch: config.instance.rotate_left(32) ^ ((index as u64) << 48),
                max_streams: OPEN_REQUESTS,
                window_bytes: shared.limits.in_flight_bytes / threads.len() as u64,
            };
            let (shared, lanes, brokers) = (
                Arc::clone(&shared),
                Arc::clone(&lanes),
                config.brokers.clone(),
            );
            let (draining, leaving) = (draining.clone(), leaving.clone());
            threads.spawn(index, move || async move {
                let worker = Worker::new(shared, Dispatcher::new(Lane::new(lane, clock::now())));
                let mut wiring = Wiring::new(&brokers);
                if let Err(error) = worker.dispatcher.connect(&mut wiring, &brokers, index) {
                    tracing::error!(%error, "not all brokers can be dialled from this thread");
                }
                tokio::task::spawn_local(look(
                    Rc::clone(&worker),
                    Arc::clone(&lanes),
                    index,
                    draining,
                ));
                tokio::task::spawn_local(listener::serve(Rc::clone(&worker), accepted));
                drive(&worker, wiring, &lanes[index], leaving).await;
            });
        }
        let listening = Arc::new(AtomicUsize::new(0));
        let listeners = config.http.into_iter().zip(places.iter().cloned());
        let listeners: Vec<_> = listeners
            .map(|(listener, place)| (listener, place, Seat::take(&listening)))
            .collect();
        let accepting = (Arc::clone(&shared), permits);
        threads.spawn(0, move || async move {
            let doors = Rc::new(doors);
            let (shared, permits) = accepting;
            for (listener, place, seat) in listeners {
                let (doors, permits, shared) =
                    (Rc::clone(&doors), Arc::clone(&permits), Arc::clone(&shared));
                let draining = draining.clone();
                tokio::task::spawn_local(async move {
                    let _seat = seat;
                    listener::accept(listener, place, doors, permits, shared, draining).await;
                });
            }
        });
        Ok(Self {
            shared,
            places,
            lanes,
            drain,
            leave,
            listening,
        })
    }

    /// Where it listens; with the ports that were found for port 0.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.places.iter().map(|place| place.address).collect()
    }

    /// Begins to accept connections; before that they wait in the kernel's queues, or another process accepts them. Nothing
    /// happens the second time, or when it is to drain already.
    pub fn open(&self) {
        self.drain.send_if_modified(|stage| {
            let was_waiting = *stage == DrainStage::Waiting;
            if was_waiting {
                self.places.iter().for_each(|place| place.open());
                *stage = DrainStage::Serving;
            }
            was_waiting
        });
    }

    /// Descriptors of its sockets for another process, in the order in which it was told of them; `None` once it is to drain.
    ///
    /// # Errors
    /// When there are no descriptors to be had.
    pub fn listeners(&self) -> io::Result<Option<Vec<Listener>>> {
        self.places.iter().map(|place| place.spare()).collect()
    }

    /// Accepts nothing more from these of its sockets, which another process has now: who waits there is its own. Returns when
    /// that is so. All the rest is [`Frontend::drain`]'s, which has begun by this.
    pub async fn leave_to_successor(&self, sockets: &[usize]) {
        let taken = sockets.iter().filter_map(|&index| self.places.get(index));
        let taken: Vec<&Arc<Place>> = taken.collect();
        for place in &taken {
            place.has_successor();
        }
        self.drain.send_replace(DrainStage::Last);
        while !taken.iter().all(|place| place.is_left()) {
            tokio::time::sleep(CLOSED_LOOK).await;
        }
    }

    /// Whether it takes requests, or would if it were to, and some broker has said WELCOME on every thread.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.drain.borrow() <= DrainStage::Serving
            && self
                .lanes
                .iter()
                .all(|lane| lane.welcome.load(Ordering::Relaxed))
    }

    /// Purges from its cache; returns when that is on the disk, if the cache has one. Call it from a thread that may wait.
    ///
    /// # Errors
    /// The purges hold, but may be forgotten with the process.
    pub fn purge(&self, purges: &[Purge]) -> Result<Epoch, PurgeError> {
        self.shared.cache.purge(purges)
    }

    /// Takes nothing new, ends what is under way, and returns when that is done or `within` has passed. False: it was not
    /// done.
    ///
    /// # Cancel safety
    /// The drain goes on when this is dropped.
    pub async fn drain(&self, within: Duration) -> bool {
        self.drain.send_replace(DrainStage::Last);
        let closed = async {
            if tokio::time::timeout(DRAIN_GRACE, self.closed())
                .await
                .is_err()
            {
                self.drain.send_replace(DrainStage::Closing);
                self.closed().await;
            }
        };
        tokio::time::timeout(within, closed).await.is_ok()
    }

    /// Waits until nothing listens any more and no connection is open.
    async fn closed(&self) {
        let open = || {
            let connections = self
                .lanes
                .iter()
                .map(|lane| lane.connections.load(Ordering::Relaxed));
            connections.sum::<usize>() + self.listening.load(Ordering::Relaxed)
        };
        while 0 < open() {
            tokio::time::sleep(CLOSED_LOOK).await;
        }
    }

    /// Ends the sessions with the brokers, in order; what is still under way is lost.
    pub async fn stop(&self) {
        self.drain.send_replace(DrainStage::Closing);
        self.leave.send_replace(true);
        let gone = async {
            while !self
                .lanes
                .iter()
                .all(|lane| lane.gone.load(Ordering::Relaxed))
            {
                tokio::time::sleep(CLOSED_LOOK).await;
            }
        };
        if tokio::time::timeout(FAREWELL, gone).await.is_err() {
            tracing::warn!("a broker does not take our goodbye");
        }
        let cache = Arc::clone(&self.shared.cache);
        // A panic there was counted, and there is nothing left to save.
        _ = tokio::task::spawn_blocking(move || cache.close(LAST_WRITES)).await;
    }
}

/// Requests that one thread has under way to brokers; more than it has connections, fewer than its session may have.
const OPEN_REQUESTS: usize = 32 * 1024;

/// How often a drain looks whether the last connection is closed, and the last goodbye said.
const CLOSED_LOOK: Duration = Duration::from_millis(5);

/// How long a start waits for the store: longer than a million records take, shorter than anybody's patience.
const STORE_OPENS_WITHIN: Duration = Duration::from_secs(3);

/// How long the store may take to write what it was given last.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// How long a goodbye may take; a broker that misses it notices the closed connection.
const FAREWELL: Duration = Duration::from_secs(1);

/// Moves messages until the process leaves.
async fn drive(
    worker: &Worker,
    wiring: Wiring,
    view: &LaneView,
    mut leaving: watch::Receiver<bool>,
) {
    let dispatcher = &worker.dispatcher;
    let left = async {
        // The sender is dropped only with the frontend: then there is nobody left to serve for.
        _ = leaving.wait_for(|leave| *leave).await;
        dispatcher.leave();
    };
    dispatcher
        .drive(wiring, left, |is_welcome| {
            view.welcome.store(is_welcome, Ordering::Relaxed);
        })
        .await;
    view.gone.store(true, Ordering::Relaxed);
}

/// Once in a while: ends connections that are too slow, and shows others how things stand.
async fn look(
    worker: Rc<Worker>,
    lanes: Arc<Vec<LaneView>>,
    index: usize,
    mut draining: watch::Receiver<DrainStage>,
) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = draining.changed() => {
                let stage = *draining.borrow_and_update();
                if DrainStage::Serving < stage && !worker.draining.replace(true) {
                    worker.dispatcher.drain();
                }
                if stage == DrainStage::Closing {
                    worker.closing.set(true);
                    worker.watch.wake();
                }
            }
        }
        let counters = &worker.shared.counters;
        worker
            .watch
            .look(clock::now(), &worker.shared.limits, |verdict| {
                counters.too_slow(verdict).add(1);
            });
        *lanes[index].snapshot.lock() = worker.dispatcher.snapshot();
    }
}

impl Dispatcher {
    /// Dials every broker from this thread.
    fn connect(
        &self,
        wiring: &mut Wiring,
        brokers: &Brokers,
        index: usize,
    ) -> Result<(), TransportError> {
        if let Some(hub) = &brokers.hub {
            let locality = u32::try_from(index).unwrap_or(u32::MAX);
            self.add_broker(wiring.attach(Arc::clone(hub), locality));
        }
        for endpoint in &brokers.endpoints {
            if let Some(link) = wiring.dial(endpoint)? {
                self.add_broker(link);
            }
        }
        Ok(())
    }
}
