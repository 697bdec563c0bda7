//! On a runtime of one thread: the session is driven by the task that serves, between the handlers it serves with. Nothing crosses
//! a thread, and whatever became ready in one turn of the runtime is dealt with in one pass.

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::time::Instant;
use tower_service::Service;

use super::{Driver, Plan, Shutdown, watch};
use crate::backend::Controls;
use crate::exchange::Outbox;
use crate::{Body, Error};

/// Passes in a row before others have their turn.
const PASSES: usize = 4;

pub(crate) async fn run<S, B>(
    plan: Plan<S>,
    shutdown: Shutdown,
    controls: Controls,
) -> Result<(), Error>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Display + Send,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Display + Send,
{
    let outbox = Outbox::for_task();
    controls.attach(&outbox);
    let mut driver = Driver::new(plan, outbox.clone())?;
    let mut shutdown = pin!(watch(shutdown, outbox));
    let mut timer = pin!(tokio::time::sleep_until(super::clock::now().into()));
    loop {
        let mut passes = 0;
        while driver.pass() {
            passes += 1;
            if PASSES <= passes {
                tokio::task::yield_now().await;
                passes = 0;
            }
        }
        if driver.is_gone() {
            return Ok(());
        }
        poll_fn(|cx| {
            let _: Poll<()> = shutdown.as_mut().poll(cx);
            let news = driver.outbox.poll(cx).is_ready() | driver.links.poll_ready(cx).is_ready();
            if news {
                return Poll::Ready(());
            }
            // Set anew only when it goes off or must go off earlier: deadlines move with every message, and mostly away.
            loop {
                let due = driver.deadline().map(Instant::from);
                if let Some(due) = due
                    && due < timer.deadline()
                {
                    timer.as_mut().reset(due);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                match due {
                    Some(due) if timer.deadline() < due => timer.as_mut().reset(due),
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }
}
