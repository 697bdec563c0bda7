//! On a runtime of several threads: sockets live on a thread of their own, handlers wherever the runtime puts them.

use std::fmt::Display;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body as HttpBody;
use scale0_transport::ThreadWaker;
use tokio::sync::oneshot;
use tower_service::Service;

use super::{Driver, Plan, Shutdown, watch};
use crate::backend::Controls;
use crate::exchange::Outbox;
use crate::session::Event;
use crate::{Body, Error};

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
    let waker = ThreadWaker::new()?;
    let outbox = Outbox::for_thread(waker.clone());
    controls.attach(&outbox);
    let mut driver = Driver::new(plan, outbox.clone())?;
    let (done, mut is_done) = oneshot::channel();
    let _cut = CutOnDrop(outbox.clone());
    std::thread::Builder::new()
        .name("scale0-backend".into())
        .spawn(move || {
            let result = drive(&mut driver, &waker);
            drop(driver);
            let _ = done.send(result);
        })?;
    tokio::select! {
        result = &mut is_done => result.map_err(|_| Error::Broken)?,
        () = watch(shutdown, outbox) => Ok(()),
    }
}

fn drive<S, B>(driver: &mut Driver<S>, waker: &ThreadWaker) -> Result<(), Error>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Display + Send,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Display + Send,
{
    loop {
        while driver.pass() {}
        if driver.is_gone() {
            return Ok(());
        }
        let deadline = driver.deadline();
        driver.links.wait(waker, deadline)?;
    }
}

/// Whoever no longer waits for the thread's end wants it to end.
struct CutOnDrop(Arc<Outbox>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.push(Event::Cut);
    }
}
