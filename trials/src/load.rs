//! Clients that ask, and what became of each request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::Client;
use crate::ledger::Id;
use crate::outcomes::{Outcome, Outcomes};

/// What a POST carries: enough to be content, and little enough to be one message.
const CONTENT: Bytes = Bytes::from_static(&[b'.'; 256]);

/// How often an open loop looks how many requests are due. They go in the bunches that this makes of them.
const BEAT: Duration = Duration::from_millis(2);

/// Who asks, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// So many clients, each of which asks, once at least, and again when it has its answer.
    Closed {
        /// How many.
        clients: usize,
    },
    /// So many requests a second, whatever becomes of those before.
    Open {
        /// How many.
        per_second: f64,
    },
}

/// What runs under way and what is over.
#[derive(Debug)]
struct Shared {
    clients: Clients,
    outcomes: Mutex<Vec<Outcome>>,
}

/// Requests that are made until it is told to end.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Hands out loads whose requests have ids of their own, and whose times count from one moment.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    pages: Vec<SocketAddr>,
    host: &'static str,
    /// Of a hundred requests.
    posts: u64,
    /// Whether every second client opens a connection for each request.
    reconnect: bool,
    content: Bytes,
    epoch: Instant,
    number: Arc<AtomicU64>,
}

impl Clients {
    /// Clients of these frontends that ask for this host; so many of a hundred requests are POSTs.
    pub(crate) fn new(pages: Vec<SocketAddr>, host: &'static str, posts: u64) -> Self {
        Self {
            pages,
            host,
            posts,
            reconnect: false,
            content: CONTENT,
            epoch: Instant::now(),
            number: Arc::default(),
        }
    }

    /// The same clients, of which every second one opens a connection for each request.
    pub(crate) fn reconnecting(self) -> Self {
        Self {
            reconnect: true,
            ..self
        }
    }

    /// Others, who ask another host by POSTs that carry this.
    pub(crate) fn of(&self, host: &'static str, content: Bytes) -> Self {
        Self {
            host,
            content,
            posts: 100,
            ..self.clone()
        }
    }

    /// What has passed since these clients came to be: the time that outcomes are told in.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Begins to ask.
    pub(crate) fn start(&self, shape: Shape) -> Load {
        let shared = Arc::new(Shared {
            clients: self.clone(),
            outcomes: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        match shape {
            Shape::Closed { clients } => {
                for index in 0..clients {
                    tasks.spawn(closed(Arc::clone(&shared), index, stopped.clone()));
                }
            }
            Shape::Open { per_second } => {
                tasks.spawn(open(Arc::clone(&shared), per_second, stopped));
            }
        }
        Load {
            shared,
            stop,
            tasks,
        }
    }
}

impl Load {
    /// How many requests are over.
    pub(crate) fn done(&self) -> usize {
        self.shared.outcomes.lock().len()
    }

    /// Lets every client end its request; what became of all.
    pub(crate) async fn end(mut self) -> Outcomes {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        Outcomes::new(std::mem::take(&mut *self.shared.outcomes.lock()))
    }
}

impl Shared {
    fn next(&self) -> Id {
        let number = self.clients.number.fetch_add(1, Ordering::Relaxed);
        // A mix that does not make each client ask for one kind only.
        Id::new(number, number.wrapping_mul(61) % 100 < self.clients.posts)
    }

    fn client(&self, index: usize) -> Client {
        let pages = &self.clients.pages;
        let reconnects = self.clients.reconnect && index % 2 == 1;
        Client::new(pages[index % pages.len()], self.clients.host).reconnecting(reconnects)
    }

    async fn one(&self, client: &mut Client) {
        let id = self.next();
        let begun = self.clients.now();
        let content = if id.is_post() {
            self.clients.content.clone()
        } else {
            Bytes::new()
        };
        let asked = client.ask(&id.method(), &format!("/{id}"), content).await;
        let took = self.clients.now() - begun;
        let (result, retried) = match asked {
            Ok(answer) => {
                let is_own = answer.content == id.to_string();
                let result = if answer.status == StatusCode::OK && !is_own {
                    Err("200 with another's content".to_owned())
                } else {
                    Ok(answer.status.as_u16())
                };
                (result, answer.retried)
            }
            Err(error) => (Err(error), false),
        };
        self.outcomes.lock().push(Outcome {
            id,
            begun,
            took,
            result,
            retried,
        });
    }
}

async fn closed(shared: Arc<Shared>, index: usize, stopped: watch::Receiver<bool>) {
    let mut client = shared.client(index);
    loop {
        shared.one(&mut client).await;
        if *stopped.borrow() {
            return;
        }
        let broke = shared
            .outcomes
            .lock()
            .last()
            .is_some_and(|it| it.result.is_err());
        if broke {
            // Who is refused does not ask again at once, or one broken site is a million failures.
            tokio::time::sleep(BEAT).await;
        }
    }
}

/// Each request has a client to itself; those that have their answer wait for the next request.
async fn open(shared: Arc<Shared>, per_second: f64, stopped: watch::Receiver<bool>) {
    let resting: Arc<Mutex<VecDeque<Client>>> = Arc::default();
    let mut under_way = JoinSet::new();
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    let mut asked = 0_usize;
    while !*stopped.borrow() {
        beat.tick().await;
        while (asked as f64) < begun.elapsed().as_secs_f64() * per_second {
            let client = resting.lock().pop_front();
            let mut client = client.unwrap_or_else(|| shared.client(asked));
            asked += 1;
            let (shared, resting) = (Arc::clone(&shared), Arc::clone(&resting));
            under_way.spawn(async move {
                shared.one(&mut client).await;
                resting.lock().push_back(client);
            });
        }
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
}
