//! What passes messages between two ends and does nothing else: a broker is compared with it to see what its features cost.
//!
//! Each end has one peer at a time, which is learnt from what it says. All that one says goes to the other as it came: their windows and
//! their credit they keep among themselves.

use scale0_transport::{Arrival, PeerId, Router, SendOutcome, ThreadWaker, wait};

/// Frames of libzmq's, which are not looked into. Until a socket fails.
pub(crate) fn pass_on_frames(ends: &[zmq::Socket; 2]) -> zmq::Result<()> {
    for end in ends {
        // A peer that is gone is to be told from one that is here.
        end.set_router_mandatory(true)?;
    }
    let mut peers = [Vec::new(), Vec::new()];
    let (mut identity, mut frame) = (zmq::Message::new(), zmq::Message::new());
    loop {
        let mut items = ends.each_ref().map(|end| end.as_poll_item(zmq::POLLIN));
        zmq::poll(&mut items, -1)?;
        for (from, to) in [(0, 1), (1, 0)] {
            while ends[from].recv(&mut identity, zmq::DONTWAIT).is_ok() {
                ends[from].recv(&mut frame, 0)?;
                if peers[from] != identity[..] {
                    peers[from] = identity.to_vec();
                }
                while ends[to].send(&peers[to][..], zmq::SNDMORE).is_err() {
                    // Whoever comes says something.
                    peers[to] = ends[to].recv_bytes(0)?;
                    ends[to].recv_bytes(0)?;
                }
                ends[to].send(std::mem::replace(&mut frame, zmq::Message::new()), 0)?;
            }
        }
    }
}

/// Messages, each in the frame that it came in if it is short. Until nothing can be waited for.
pub(crate) fn pass_on_messages(mut ends: [Router; 2]) -> anyhow::Result<()> {
    let waker = ThreadWaker::new()?;
    let mut peers: [Option<PeerId>; 2] = [None, None];
    loop {
        wait(&ends, &waker, None)?;
        for (from, to) in [(0, 1), (1, 0)] {
            while let Some((peer, arrival)) = ends[from].receive_framed() {
                let Arrival::Message(message, mut frame) = arrival else {
                    continue;
                };
                peers[from] = Some(peer);
                while peers[to].is_none_or(|peer| {
                    ends[to].send_on(peer, &message, frame.take()) != SendOutcome::Sent
                }) {
                    wait(&ends[to..=to], &waker, None)?;
                    peers[to] = ends[to].receive().map(|(peer, _)| peer);
                }
            }
        }
    }
}
