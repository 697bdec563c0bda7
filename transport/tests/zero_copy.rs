//! Content that is sent by reference is held until the kernel has it, and no longer. That it is not copied is shown beside
//! the code that sends it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use scale0_transport::SendOutcome;
use support::{Bound, Dialling, context, local, message, narrow};

/// Content that is counted while it exists.
struct Counted {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

fn counted(size: usize, alive: &Arc<AtomicUsize>) -> Bytes {
    alive.fetch_add(1, Ordering::SeqCst);
    Bytes::from_owner(Counted {
        bytes: vec![1; size],
        alive: Arc::clone(alive),
    })
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn what_was_sent_by_reference_is_let_go_when_it_has_arrived_or_its_link_is_closed() {
    let (router, link) = narrow();
    let context = context();
    let mut bound = Bound::new(&context, &local(), &router);
    let mut dialling = Dialling::new();
    let link = dialling.connect_with(&context, &bound.endpoint(), &link);
    let alive = Arc::new(AtomicUsize::new(0));
    for size in [1_024, 60_000] {
        let sent = message(1, counted(size, &alive));
        dialling.send(link, &sent);
        assert_eq!(bound.next_message().1, sent);
    }
    until_none_is(&alive);

    // To a router that does not receive: libzmq holds them, until it need not send them any more.
    while dialling
        .links
        .send(link, &message(1, counted(60_000, &alive)))
        == SendOutcome::Sent
    {}
    dialling.links.close(link);
    until_none_is(&alive);
}

/// libzmq's I/O thread lets go a moment later.
fn until_none_is(alive: &AtomicUsize) {
    while alive.load(Ordering::SeqCst) != 0 {
        thread::yield_now();
    }
}
