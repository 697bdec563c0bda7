//! What became of one request, said to whom asks.

use std::time::Duration;

use scale0_transport::Port;
use scale0_wire::{
    Explain, Flags, Hello, Hop, Kind, Message, Priority, Reason, RoutingHeader, What, Why, limits,
};

use crate::core::testing::{Peer, SHOP, Site, get, post};

const MS: Duration = Duration::from_millis(1);

/// The same request, and its account is asked for.
fn explained(mut request: Message) -> Message {
    request.header.flags = request.header.flags.with(Flags::EXPLAIN, true);
    request
}

/// What the next message tells: what happened, why or how far, and with whom.
#[track_caller]
fn account(site: &mut Site, frontend: Peer) -> Vec<(What, u32, u32, String)> {
    let message = site.hears(frontend, Kind::Explain);
    let hops = Explain::decode(&message.metadata).unwrap().hops;
    assert!(hops.is_sorted_by_key(|hop| hop.at_us));
    let told = hops.into_iter();
    told.map(
        |Hop {
             what, a, b, node, ..
         }| (what, a, b, node),
    )
    .collect()
}

fn hop(what: What, numbers: (u32, u32), peer: Option<Peer>) -> (What, u32, u32, String) {
    let node = peer.map(|peer| format!("node-{}", peer.instance));
    (what, numbers.0, numbers.1, node.unwrap_or_default())
}

fn because(why: Why, among: u32) -> (u32, u32) {
    (why.0.into(), among)
}

#[test]
fn who_asks_hears_of_a_loss_and_the_next_choice_before_the_head() {
    let mut site = Site::new();
    let first = site.backend(SHOP, 1);
    let second = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.say(frontend, explained(get(7)));
    site.is_asked(first);
    site.wait(3 * MS);
    site.cut(first);
    let asked = site.is_asked(second);
    site.wait(2 * MS);
    site.respond(second, asked);
    let message = site.next(frontend).unwrap();
    assert_eq!(
        (message.header.kind, message.header.correlation),
        (Kind::Explain, 7)
    );
    let hops = Explain::decode(&message.metadata).unwrap().hops;
    let times: Vec<_> = hops.iter().map(|hop| hop.at_us / 1_000).collect();
    assert_eq!(times, [0, 0, 3, 3, 5]);
    let told: Vec<_> = hops
        .into_iter()
        .map(|hop| (hop.what, hop.a, hop.b, hop.node))
        .collect();
    assert_eq!(
        told,
        [
            hop(What::ARRIVED, (0, 0), Some(frontend)),
            hop(What::CHOSEN, because(Why::LEAST, 2), Some(first)),
            hop(What::LOST, (0, 0), Some(first)),
            hop(What::CHOSEN, because(Why::ONLY, 1), Some(second)),
            hop(What::RESPONDED, (0, 0), Some(second)),
        ]
    );
    site.is_answered(frontend, 7);
    site.hears_nothing(frontend);
}

#[test]
fn an_account_tells_of_the_queue_of_refusals_and_of_failures() {
    let mut site = Site::new();
    let busy = site.busy_backend(SHOP);
    let other = site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let mut late = get(2);
    late.header.priority = Priority::Normal;
    site.say(frontend, explained(late));
    site.grant(busy, 2);
    site.hears(busy, Kind::Demand);
    site.is_asked(busy);
    let asked = site.is_asked(busy);
    site.reject(busy, asked, Reason::AppRefused);
    site.grant(other, 1);
    site.hears(other, Kind::Demand);
    let asked = site.is_asked(other);
    site.fail(other, asked, Reason::Cancelled);
    assert_eq!(
        account(&mut site, frontend),
        [
            hop(What::ARRIVED, (0, 0), Some(frontend)),
            hop(What::QUEUED, (1, 2), None),
            hop(What::CHOSEN, because(Why::CREDIT, 1), Some(busy)),
            hop(What::REJECTED, (Reason::AppRefused as u32, 0), Some(busy)),
            hop(What::QUEUED, (1, 1), None),
            hop(What::CHOSEN, because(Why::CREDIT, 1), Some(other)),
            hop(What::FAILED, (Reason::Cancelled as u32, 0), Some(other)),
        ]
    );
    site.is_failed(frontend, 2, Reason::Cancelled);
}

#[test]
fn who_is_refused_is_told_what_came_before() {
    let mut site = Site::new();
    site.busy_backend(SHOP);
    let frontend = site.frontend();
    site.say(frontend, explained(post(1)));
    site.wait(Duration::from_secs(31));
    let arrived = hop(What::ARRIVED, (0, 0), Some(frontend));
    let queued = hop(What::QUEUED, (0, 1), None);
    assert_eq!(account(&mut site, frontend), [arrived, queued]);
    site.is_refused(frontend, 1, Reason::Deadline);
}

#[test]
fn a_frontend_of_the_older_version_is_told_nothing() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.peer(Port::Frontends);
    let hello = Hello {
        oldest: 1,
        newest: 1,
        node: "older".into(),
        instance: 77,
        lane: 0,
        heartbeat: limits::HEARTBEAT,
        window: limits::CONNECTION_WINDOW,
        capacity: 0,
        services: Vec::new(),
    };
    let message = Message::new(RoutingHeader::new(Kind::Hello));
    site.say(frontend, message.with_metadata(hello.encode()));
    site.hears(frontend, Kind::Welcome);
    let mut request = explained(get(1));
    request.set_version(1);
    site.say(frontend, request);
    let asked = site.is_asked(backend);
    site.respond(backend, asked);
    site.is_answered(frontend, 1);
}

#[test]
fn what_a_backend_tells_becomes_part_of_the_account_at_its_time() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 2);
    let frontend = site.frontend();
    site.get(frontend, 1);
    let unasked = site.is_asked(backend);
    site.say(frontend, explained(get(2)));
    let asked = site.is_asked(backend);
    site.wait(4 * MS);
    let hops = vec![Hop {
        what: What::STARTED,
        at_us: 1_500,
        a: 0,
        b: 0,
        node: String::new(),
    }];
    let theirs = Explain { hops }.encode();
    site.tell(backend, Kind::Explain, unasked, theirs.clone());
    site.tell(backend, Kind::Explain, asked, theirs);
    site.respond(backend, asked);
    let message = site.hears(frontend, Kind::Explain);
    let told = Explain::decode(&message.metadata).unwrap().hops;
    let node = format!("node-{}", backend.instance);
    let started = told.iter().find(|hop| hop.what == What::STARTED).unwrap();
    assert_eq!((started.at_us, &started.node), (1_500, &node));
    site.is_answered(frontend, 2);
}

#[test]
fn a_long_account_says_how_much_it_leaves_out() {
    let mut site = Site::new();
    let backend = site.backend(SHOP, 1);
    let frontend = site.frontend();
    site.say(frontend, explained(get(1)));
    let asked = site.is_asked(backend);
    let started = Hop {
        what: What::STARTED,
        at_us: 0,
        a: 0,
        b: 0,
        node: String::new(),
    };
    let theirs = Explain {
        hops: vec![started; 32],
    };
    site.tell(backend, Kind::Explain, asked, theirs.encode());
    site.respond(backend, asked);
    let told = account(&mut site, frontend);
    assert_eq!(told.len(), 32);
    // Of 32, and the answer, what lies beyond 31 with the first two.
    assert_eq!(told[31], hop(What::LEFT_OUT, (4, 0), None));
}

#[test]
fn so_many_accounts_are_written_at_a_time_and_who_leaves_makes_room() {
    let mut site = Site::with(|config| config.queue.requests = 5_000);
    let backend = site.busy_backend(SHOP);
    let frontend = site.frontend();
    for correlation in 1..=1_025 {
        site.say(frontend, explained(post(correlation)));
    }
    site.cancel(frontend, 1);
    site.say(frontend, explained(post(2_000)));
    site.grant(backend, 2_000);
    let mut accounts = 0;
    while let Some(message) = site.next(backend) {
        if message.header.kind == Kind::Request {
            site.respond(backend, message.header.correlation);
        }
    }
    let mut last = None;
    while let Some(message) = site.next(frontend) {
        accounts += usize::from(message.header.kind == Kind::Explain);
        last = Some(message.header.kind).filter(|_| message.header.correlation == 1_025);
        if let Some(kind) = last {
            assert_eq!(kind, Kind::Response, "it came when there was no room");
        }
    }
    assert_eq!(last, None, "others come behind it");
    assert_eq!(accounts, 1_024);
}
