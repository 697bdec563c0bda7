//! Large content is not copied to be sent: libzmq holds the very bytes until the kernel has them, and no longer.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use scale0_transport::{Incoming, LinkOptions, RouterOptions, SendOutcome};
use support::{Bound, Dialling, context, local, message};

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

/// Sends until there is no room, to a router that does not receive yet. Returns how many were sent, and of how many the
/// bytes still exist.
fn fill(size: usize) -> (usize, usize) {
    let context = context();
    let options = RouterOptions {
        receive_high_water_mark: 4,
        ..RouterOptions::default()
    };
    let mut bound = Bound::new(&context, &local(), &options);
    let mut dialling = Dialling::new();
    let options = LinkOptions {
        send_high_water_mark: 256,
        ..LinkOptions::default()
    };
    let endpoint = bound.endpoint();
    let link = dialling
        .links
        .connect(&context, &endpoint, &options)
        .unwrap();
    assert_eq!(dialling.next(), (link, Incoming::Up));

    let alive = Arc::new(AtomicUsize::new(0));
    let mut sent = 0;
    loop {
        match dialling
            .links
            .send(link, &message(sent as u64, counted(size, &alive)))
        {
            SendOutcome::Sent => sent += 1,
            SendOutcome::Full => break,
            other => panic!("{other:?}"),
        }
    }
    let held = alive.load(Ordering::SeqCst);

    for correlation in 0..sent {
        let (_, received) = bound.next_message();
        assert_eq!(received, message(correlation as u64, vec![1; size]));
    }
    // What was received was sent; libzmq lets go of the last a moment later.
    while alive.load(Ordering::SeqCst) != 0 {
        std::thread::yield_now();
    }
    (sent, held)
}

#[test]
fn content_from_1_kib_on_is_held_not_copied_until_it_is_sent() {
    for size in [1_024, 60_000] {
        let (sent, held) = fill(size);
        assert!(
            200 < held,
            "of {sent} messages of {size} bytes {held} were held"
        );
    }
}

#[test]
fn shorter_content_is_copied() {
    let (_, held) = fill(1_023);
    assert_eq!(held, 0);
}
