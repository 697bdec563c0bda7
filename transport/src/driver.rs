//! The bridge to tokio, for one task of a current-thread runtime that owns all its links.

use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

use crate::clock;
use crate::io_thread::{BACKSTOP, Source};
use crate::link::Link;

impl Link {
    /// Whether there is news. After a no, news wakes the task.
    pub(crate) fn poll_news(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            if self.has_news() {
                return true;
            }
            // The question above has emptied the socket's mailbox, so that whatever comes now is a new edge to epoll.
            let Some(registration) = self.registration() else {
                return false;
            };
            match registration.poll_read_ready(cx) {
                Poll::Ready(Ok(mut guard)) => {
                    guard.clear_ready();
                    self.look_again();
                }
                // The runtime is shutting down; nobody waits any more.
                Poll::Ready(Err(_)) | Poll::Pending => return false,
            }
        }
    }

    /// The watched socket's descriptor as tokio knows it. `None`: it could not be registered; the backstop looks instead.
    #[expect(
        unsafe_code,
        reason = "ZMQ_FD is libzmq's descriptor, so nothing of the standard library can own it"
    )]
    fn registration(&mut self) -> Option<&AsyncFd<RawFd>> {
        if self.registration.is_none() {
            let descriptor = self.descriptor()?;
            // SAFETY: the descriptor is the watched socket's, which outlives its registration: `Link` drops `registration`
            // first, and sets it to `None` before it replaces a socket.
            match unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) } {
                Ok(registration) => self.registration = Some(registration),
                Err(error) => tracing::warn!(%error, "cannot register a socket with tokio"),
            }
        }
        self.registration.as_ref()
    }
}

/// Looks for news that nobody told of.
pub(crate) struct Backstop {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When there last was something to do. While there is, nothing can have been missed.
    busy_at: Instant,
}

impl Backstop {
    pub(crate) fn new() -> Self {
        Self {
            sleep: None,
            busy_at: clock::now(),
        }
    }

    pub(crate) fn busy(&mut self) {
        self.busy_at = clock::now();
    }

    /// Ready when it is time to look.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(BACKSTOP)));
        while sleep.as_mut().poll(cx).is_ready() {
            let quiet = clock::now().saturating_duration_since(self.busy_at);
            // It is not set anew for each message; so it may go off too early.
            let early = BACKSTOP.saturating_sub(quiet);
            let next = if early.is_zero() { BACKSTOP } else { early };
            sleep.as_mut().reset(tokio::time::Instant::now() + next);
            if early.is_zero() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
