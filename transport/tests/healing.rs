//! Links that are cut, and peers that take nothing in: when they are used again, and what they cost until then.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use scale0_transport::{Endpoint, Incoming, LinkOptions, RouterOptions, SendOutcome};
use support::{Bound, Dialling, context, local, message, narrow};

/// A listener whose queue is full: the kernel drops each SYN that comes for it, as a link does that is cut.
struct CutOff {
    listener: TcpListener,
    queued: Vec<TcpStream>,
}

impl CutOff {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queued.push(stream);
        }
        Self { listener, queued }
    }

    fn endpoint(&self) -> Endpoint {
        let address = self.listener.local_addr().unwrap();
        format!("tcp://{address}").parse().unwrap()
    }

    /// From here on whoever dials reaches `to`.
    fn heal(self, to: SocketAddr) {
        let queued: Vec<_> = self.queued.iter().map(TcpStream::local_addr).collect();
        let queued: io::Result<Vec<_>> = queued.into_iter().collect();
        let queued = queued.unwrap();
        thread::spawn(move || {
            // Nobody joins it: it goes with the test's process.
            while let Ok((near, from)) = self.listener.accept() {
                if !queued.contains(&from) {
                    relay(&near, &TcpStream::connect(to).unwrap());
                }
            }
        });
    }
}

fn relay(near: &TcpStream, far: &TcpStream) {
    for (from, to) in [(near, far), (far, near)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut from, &mut to));
    }
}

#[test]
fn a_link_that_heals_is_dialled_at_its_own_pace_and_not_at_the_kernels() {
    let bound = Bound::new(&context(), &local(), &RouterOptions::default());
    let broker = bound.router.local_endpoint();
    let broker = broker.strip_prefix("tcp://").unwrap().parse().unwrap();
    let cut = CutOff::new();
    let mut dialling = Dialling::new();
    let options = LinkOptions {
        connect: Duration::from_millis(100),
        ..LinkOptions::default()
    };
    let link = dialling
        .links
        .connect(&context(), &cut.endpoint(), &options)
        .unwrap();
    // Left to itself, the kernel has sent the second SYN by now, and sends the third in almost a second, or in two.
    let cut_for = Duration::from_millis(1050);
    assert_eq!(dialling.next_within(cut_for), None);
    cut.heal(broker);
    let up = dialling.next_within(Duration::from_millis(650));
    assert_eq!(up, Some((link, Incoming::Up)));
}

/// Short enough for a test.
const UNACKNOWLEDGED: Duration = Duration::from_millis(300);

/// A sender looks after so long whether there is room again, and so often.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 200;

#[test]
fn a_peer_that_takes_nothing_in_loses_its_connection_and_what_waits_for_it() {
    let options = RouterOptions {
        send_high_water_mark: 4,
        unacknowledged: UNACKNOWLEDGED,
        ..RouterOptions::default()
    };
    let mut bound = Bound::new(&context(), &local(), &options);
    let mut dialling = Dialling::new();
    let deaf = LinkOptions {
        receive_high_water_mark: 4,
        ..LinkOptions::default()
    };
    let link = dialling.connect_with(&context(), &bound.endpoint(), &deaf);
    dialling.send(link, &message(1, "here"));
    let (peer, _) = bound.next_message();
    let chunk = message(1, vec![0; 60_000]);
    let event = (0..LOOKS).find_map(|_| {
        // All that there is room for: libzmq's queue, and the kernel's on both sides.
        while bound.router.send(peer, &chunk) == SendOutcome::Sent {}
        bound.next_within(LOOK)
    });
    assert_eq!(event, Some((peer, Incoming::Down)));
}

#[test]
fn a_broker_that_takes_nothing_in_is_dialled_anew() {
    let (router, link) = narrow();
    let bound = Bound::new(&context(), &local(), &router);
    let options = LinkOptions {
        unacknowledged: UNACKNOWLEDGED,
        ..link
    };
    let mut dialling = Dialling::new();
    let link = dialling.connect_with(&context(), &bound.endpoint(), &options);
    let chunk = message(1, vec![0; 60_000]);
    let event = (0..LOOKS).find_map(|_| {
        while dialling.links.send(link, &chunk) == SendOutcome::Sent {}
        dialling.next_within(LOOK)
    });
    assert_eq!(event, Some((link, Incoming::Down)));
    assert_eq!(dialling.next(), (link, Incoming::Up));
}
