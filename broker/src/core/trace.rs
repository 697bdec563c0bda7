//! What became of one request, for whom asked.

use std::time::Instant;

use scale0_wire::{Explain, Hop, What, limits};

/// The account of one request. Boxed, and only where it was asked for.
#[derive(Debug)]
pub(crate) struct Trace {
    began: Instant,
    hops: Vec<Hop>,
    left_out: u32,
}

/// One is kept for saying how many are not told.
const MOST: usize = limits::HOPS - 1;

impl Trace {
    /// Of a request that has come from this node.
    pub(crate) fn begin(now: Instant, from: &str) -> Box<Self> {
        let mut trace = Self {
            began: now,
            hops: Vec::new(),
            left_out: 0,
        };
        trace.note(now, What::ARRIVED, (0, 0), from);
        Box::new(trace)
    }

    /// Something happened to it, at this node or with it.
    pub(crate) fn note(&mut self, now: Instant, what: What, (a, b): (u32, u32), node: &str) {
        if MOST <= self.hops.len() {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let at = now.saturating_duration_since(self.began).as_micros();
        self.hops.push(Hop {
            what,
            at_us: u32::try_from(at).unwrap_or(u32::MAX),
            a,
            b,
            node: node.to_owned(),
        });
    }

    /// What a backend says that has had it since then.
    pub(crate) fn take_in(&mut self, since: Instant, theirs: Explain, node: &str) {
        for hop in theirs.hops {
            let at = since + std::time::Duration::from_micros(hop.at_us.into());
            let node = match &hop.node[..] {
                "" => node,
                its_own => its_own,
            };
            self.note(at, hop.what, (hop.a, hop.b), node);
        }
    }

    /// All of it.
    pub(crate) fn tell(self) -> Explain {
        let mut hops = self.hops;
        if 0 < self.left_out {
            hops.push(Hop {
                what: What::LEFT_OUT,
                at_us: hops.last().map_or(0, |hop| hop.at_us),
                a: self.left_out,
                b: 0,
                node: String::new(),
            });
        }
        Explain { hops }
    }
}
