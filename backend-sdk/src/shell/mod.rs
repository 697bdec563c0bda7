//! Runs a session: on a task where its runtime has one thread, on a thread of its own where handlers may run anywhere.

mod clock;
mod driver;
mod local;
mod thread;

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::exchange::Outbox;
use crate::session::Event;

pub(crate) use driver::{Driver, LinkPlan, Plan};
pub(crate) use local::run as run_here;
pub(crate) use thread::run as run_on_a_thread;

/// Is called with a broker's name.
pub(crate) type OnRegistered = Box<dyn Fn(&str) + Send>;

/// What ends a backend.
pub(crate) enum Shutdown {
    /// SIGTERM or Ctrl-C; the second of them at once.
    Signals,
    /// When this resolves.
    Future(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Waits for what ends the backend and tells its session; then for ever.
async fn watch(shutdown: Shutdown, outbox: Arc<Outbox>) {
    match shutdown {
        Shutdown::Future(future) => {
            future.await;
            outbox.push(Event::Drain);
        }
        Shutdown::Signals => {
            let signals = signal(SignalKind::terminate())
                .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
            match signals {
                Ok((mut terminate, mut interrupt)) => {
                    for event in [Event::Drain, Event::Cut] {
                        tokio::select! {
                            _ = terminate.recv() => {}
                            _ = interrupt.recv() => {}
                        }
                        outbox.push(event);
                    }
                }
                Err(error) => tracing::warn!(%error, "signals will not drain this backend"),
            }
        }
    }
    pending::<()>().await;
}
