//! Late requests are given to a second backend, if they ask for it.

use std::time::Duration;

use scale0_transport::Port;
use scale0_wire::{
    End, Explain, Flags, Hello, Kind, Message, Reason, RoutingHeader, VERSION, What, Why, limits,
};

use crate::core::testing::{Peer, SHOP, Site, about, chunk, get, response, upload};

const MS: Duration = Duration::from_millis(1);

/// What the shop's requests take; what takes longer than by a quarter is late.
const TAKES: Duration = Duration::from_millis(10);
const LATE: Duration = Duration::from_millis(13);

/// A request that may be given to a second backend.
fn hedged(correlation: u64) -> Message {
    let mut message = get(correlation);
    message.header.flags = message.header.flags.with(Flags::HEDGE, true);
    message
}

struct Shop {
    site: Site,
    backends: Vec<Peer>,
    frontend: Peer,
}

impl Shop {
    /// A shop of so many backends that has answered so many requests, within ten seconds.
    fn new(backends: usize, requests: u64) -> Self {
        let mut site = Site::new();
        let backends = (0..backends).map(|_| site.backend(SHOP, 4)).collect();
        let frontend = site.frontend();
        let mut shop = Self {
            site,
            backends,
            frontend,
        };
        for correlation in 1000..1000 + requests {
            shop.site.say(frontend, hedged(correlation));
            let (backend, asked) = shop.asked().unwrap();
            shop.site.wait(TAKES);
            shop.site.respond(backend, asked);
            shop.site.is_answered(frontend, correlation);
        }
        shop
    }

    /// The next backend that has been sent a request, and its number.
    fn asked(&mut self) -> Option<(Peer, u64)> {
        self.backends.iter().find_map(|&backend| {
            while let Some(message) = self.site.next(backend) {
                if message.header.kind == Kind::Request {
                    return Some((backend, message.header.correlation));
                }
            }
            None
        })
    }

    /// A request that is late, and with a second backend.
    fn late(&mut self, correlation: u64) -> [(Peer, u64); 2] {
        self.site.say(self.frontend, hedged(correlation));
        let first = self.asked().unwrap();
        self.site.wait(LATE);
        let second = self.asked().expect("a second backend");
        assert_ne!(first.0, second.0);
        [first, second]
    }

    fn is_cancelled(&mut self, backend: Peer, correlation: u64) {
        let cancel = self.site.hears(backend, Kind::Cancel);
        assert_eq!(cancel.header.correlation, correlation);
    }

    /// Hedged, won, cancelled, refused.
    fn counts(&self) -> [u64; 4] {
        let counters = self.site.broker.counters();
        [
            counters.hedged,
            counters.hedges_won,
            counters.hedges_cancelled,
            counters.hedges_refused,
        ]
    }
}

#[test]
fn a_late_request_is_answered_by_whichever_of_two_backends_is_first() {
    let mut shop = Shop::new(3, 200);
    let [(first, slow), (second, quick)] = shop.late(1);
    shop.site.respond(second, quick);
    shop.site.is_answered(shop.frontend, 1);
    shop.is_cancelled(first, slow);
    shop.site.respond(first, slow);

    let [(first, quick), (second, slow)] = shop.late(2);
    shop.site.say(first, response(quick, Flags(0)));
    shop.site.is_answered(shop.frontend, 2);
    shop.is_cancelled(second, slow);
    // What it had on the way reaches nobody.
    shop.site.say(second, response(slow, Flags(0)));
    shop.site.say(second, chunk(slow, 10));
    shop.site.fail(second, slow, Reason::Cancelled);
    shop.site.say(first, chunk(quick, 20));
    assert_eq!(
        shop.site.hears(shop.frontend, Kind::Chunk).content.len(),
        20
    );
    shop.site.complete(first, quick);
    shop.site.hears(shop.frontend, Kind::End);
    shop.site.hears_nothing(shop.frontend);
    assert_eq!(shop.counts(), [2, 1, 1, 0]);
    assert_eq!(shop.site.broker.snapshot(shop.site.now).abandoned, 0);
}

#[test]
fn the_account_of_a_request_with_two_backends_tells_of_both_whoever_is_first() {
    for copy_wins in [true, false] {
        let mut shop = Shop::new(3, 200);
        let mut request = hedged(1);
        request.header.flags = request.header.flags.with(Flags::EXPLAIN, true);
        shop.site.say(shop.frontend, request);
        let first = shop.asked().unwrap();
        shop.site.wait(LATE);
        let second = shop.asked().unwrap();
        let (winner, asked) = if copy_wins { second } else { first };
        shop.site.respond(winner, asked);
        let account = shop.site.hears(shop.frontend, Kind::Explain);
        shop.site.is_answered(shop.frontend, 1);
        let hops = Explain::decode(&account.metadata).unwrap().hops;
        let told: Vec<_> = hops.iter().map(|hop| (hop.what, &hop.node[..])).collect();
        let node = |peer: Peer| format!("node-{}", peer.instance);
        let (one, two) = (node(first.0), node(second.0));
        let responded = if copy_wins { &two } else { &one };
        assert_eq!(
            told[1..],
            [
                (What::CHOSEN, &one[..]),
                (What::CHOSEN, &two),
                (What::RESPONDED, responded)
            ]
        );
        assert_eq!(hops[2].a, u32::from(Why::HEDGE.0));
    }
}

#[test]
fn nothing_is_hedged_that_is_not_late_or_does_not_ask_for_it_or_may_not_run_twice() {
    let flagged = |mut message: Message| {
        message.header.flags = message.header.flags.with(Flags::HEDGE, true);
        message
    };
    let mut unsafe_ = hedged(1);
    unsafe_.header.flags = Flags::FINAL.with(Flags::HEDGE, true);
    let mut tunnel = hedged(1);
    tunnel.header.flags = tunnel.header.flags.with(Flags::UPGRADE, true);
    for request in [get(1), flagged(upload(1)), unsafe_, tunnel] {
        let mut shop = Shop::new(2, 100);
        shop.site.say(shop.frontend, request);
        shop.asked().unwrap();
        shop.site.wait(LATE * 20);
        assert_eq!(shop.asked(), None);
    }
    let mut shop = Shop::new(2, 100);
    shop.site.say(shop.frontend, hedged(1));
    shop.asked().unwrap();
    shop.site.wait(TAKES);
    assert_eq!(shop.asked(), None);
}

#[test]
fn nothing_is_hedged_before_it_is_known_what_late_is() {
    let mut shop = Shop::new(2, 20);
    shop.site.say(shop.frontend, hedged(1));
    shop.asked().unwrap();
    shop.site.wait(LATE * 100);
    assert_eq!(shop.asked(), None);
}

#[test]
fn no_more_than_one_request_in_fifty_is_hedged_however_many_are_late() {
    let mut shop = Shop::new(4, 150);
    let mut seconds = 0;
    for correlation in 1..=8 {
        shop.site.say(shop.frontend, hedged(correlation));
        let (backend, asked) = shop.asked().unwrap();
        shop.site.wait(LATE);
        if let Some((second, again)) = shop.asked() {
            seconds += 1;
            shop.site.respond(second, again);
        } else {
            shop.site.respond(backend, asked);
        }
        shop.site.is_answered(shop.frontend, correlation);
    }
    assert_eq!(seconds, 3);
    assert_eq!(shop.counts(), [3, 3, 0, 5]);
}

#[test]
fn a_request_is_hedged_once() {
    let mut shop = Shop::new(4, 200);
    let [(first, asked), _] = shop.late(1);
    shop.site.wait(LATE * 10);
    assert_eq!(shop.asked(), None);
    shop.site.respond(first, asked);
    shop.site.is_answered(shop.frontend, 1);
}

#[test]
fn a_hedge_takes_no_credit_that_others_wait_for_and_goes_to_no_process_twice() {
    // Nobody else has credit.
    let mut shop = Shop::new(1, 100);
    shop.site.say(shop.frontend, hedged(1));
    shop.asked().unwrap();
    let mut other = shop.site.peer(Port::Backends);
    other.instance = shop.backends[0].instance;
    let hello = Hello {
        oldest: VERSION,
        newest: VERSION,
        node: "node-1".to_owned(),
        instance: other.instance,
        lane: 1,
        heartbeat: limits::HEARTBEAT,
        window: limits::CONNECTION_WINDOW,
        capacity: 4,
        services: vec![SHOP.to_owned()],
    };
    let message = Message::new(RoutingHeader::new(Kind::Hello));
    shop.site.say(other, message.with_metadata(hello.encode()));
    shop.site.grant(other, 4);
    shop.backends.push(other);
    shop.site.wait(LATE);
    assert_eq!(shop.asked(), None, "the same process");

    let mut shop = Shop::new(2, 100);
    for correlation in 1..=12 {
        shop.site.say(shop.frontend, hedged(correlation));
    }
    let mut asked = 0;
    while shop.asked().is_some() {
        asked += 1;
    }
    assert_eq!(asked, 8);
    shop.site.wait(LATE);
    assert_eq!(shop.counts()[0], 0, "four wait");
}

#[test]
fn when_one_of_two_backends_is_lost_the_other_has_the_request() {
    for (lost, left) in [(0, 1), (1, 0)] {
        let mut shop = Shop::new(2, 100);
        let pair = shop.late(1);
        shop.site.cut(pair[lost].0);
        shop.site.hears_nothing(shop.frontend);
        shop.site.wait(LATE * 3);
        shop.site.respond(pair[left].0, pair[left].1);
        shop.site.is_answered(shop.frontend, 1);
        shop.site.hears_nothing(shop.frontend);
        assert_eq!(shop.site.broker.counters().repeated_after_loss, 0);
    }
}

#[test]
fn when_both_backends_are_lost_a_third_has_the_request_and_both_losses_count() {
    for order in [[0, 1], [1, 0]] {
        let mut shop = Shop::new(3, 150);
        let pair = shop.late(1);
        for index in order {
            shop.site.cut(pair[index].0);
        }
        let (third, _) = shop.asked().unwrap();
        assert!(pair.iter().all(|(backend, _)| *backend != third));
        shop.site.cut(third);
        let failure = shop.site.hears(shop.frontend, Kind::End);
        assert_eq!(failure.header.attempt, 3);
        shop.site.hears_nothing(shop.frontend);
    }
}

#[test]
fn when_one_of_two_backends_fails_or_refuses_the_other_may_still_answer() {
    for rejects in [false, true] {
        for (failing, left) in [(0, 1), (1, 0)] {
            let mut shop = Shop::new(2, 100);
            let pair = shop.late(1);
            let (backend, asked) = pair[failing];
            if rejects {
                shop.site.reject(backend, asked, Reason::AppRefused);
            } else {
                shop.site.fail(backend, asked, Reason::AppFailed);
            }
            shop.site.hears_nothing(shop.frontend);
            let (backend, asked) = pair[left];
            shop.site.fail(backend, asked, Reason::AppFailed);
            // Both have had it, so nobody is left.
            shop.site.is_failed(shop.frontend, 1, Reason::AppFailed);
            shop.site.hears_nothing(shop.frontend);
            assert_eq!(shop.asked(), None);
        }
    }
}

#[test]
fn a_second_backend_that_breaks_the_protocol_fails_nobody() {
    let mut shop = Shop::new(2, 100);
    let [(first, asked), (second, again)] = shop.late(1);
    shop.site.say(second, chunk(again, 10));
    shop.is_cancelled(second, again);
    shop.site.respond(first, asked);
    shop.site.is_answered(shop.frontend, 1);
    shop.site.hears_nothing(shop.frontend);
}

#[test]
fn what_ends_a_request_ends_it_at_both_backends_and_is_said_once() {
    type End = fn(&mut Shop);
    let ends: [End; 3] = [
        |shop| shop.site.cancel(shop.frontend, 1),
        |shop| shop.site.cut(shop.frontend),
        |shop| {
            shop.site.wait(Duration::from_secs(30));
            shop.site.is_failed(shop.frontend, 1, Reason::Deadline);
        },
    ];
    for end in ends {
        let mut shop = Shop::new(2, 100);
        let [(first, asked), (second, again)] = shop.late(1);
        end(&mut shop);
        shop.is_cancelled(first, asked);
        shop.is_cancelled(second, again);
        shop.site.hears_nothing(shop.frontend);
        shop.site.fail(first, asked, Reason::Cancelled);
        shop.site.fail(second, again, Reason::Cancelled);
        assert_eq!(shop.site.broker.snapshot(shop.site.now).abandoned, 0);
    }
}

#[test]
fn both_backends_hear_of_a_new_deadline_and_of_a_wider_window() {
    let mut shop = Shop::new(2, 100);
    let pair = shop.late(1);
    let mut update = about(Kind::Update, 1);
    (update.header.deadline_ms, update.header.waiters) = (50_000, 7);
    shop.site.say(shop.frontend, update);
    shop.site.window(shop.frontend, 1, 1 << 20);
    for (backend, asked) in pair {
        let update = shop.site.hears(backend, Kind::Update).header;
        assert_eq!(
            (update.correlation, update.deadline_ms, update.waiters),
            (asked, 50_000, 7)
        );
        let window = shop.site.hears(backend, Kind::Window).header;
        assert_eq!(window.correlation, asked);
    }
    // It holds for the one that goes on alone, too.
    shop.site.cut(pair[0].0);
    shop.site.wait(Duration::from_secs(49));
    shop.site.hears_nothing(shop.frontend);
    shop.site.wait(Duration::from_secs(1));
    shop.site.is_failed(shop.frontend, 1, Reason::Deadline);
}

#[test]
fn a_drain_that_is_over_gives_up_a_hedged_request_once() {
    let mut shop = Shop::new(2, 100);
    shop.late(1);
    let until = shop.site.now + MS * 500;
    shop.site.step(crate::core::Event::Drain { until });
    shop.site.hears(shop.frontend, Kind::Drain);
    shop.site.wait(MS * 500);
    let failure = shop.site.hears(shop.frontend, Kind::End);
    let said = End::decode(&failure.metadata).unwrap();
    assert!(
        matches!(
            said,
            End::Failed {
                reason: Reason::Draining,
                ..
            }
        ),
        "{said:?}"
    );
    assert_eq!(shop.site.broker.counters().given_up, 1);
}
