//! Who may do what, and who may not any more.

use std::sync::Arc;

use scale0_transport::{Port, PublicKey};
use scale0_wire::{Announce, Bye, Kind, Message, RoutingHeader};

use crate::core::testing::{Peer, SHOP, Site};
use crate::core::{Event, Right, Rights};

const SHOP_KEY: PublicKey = PublicKey::from_bytes([1; 32]);
const BLOG_KEY: PublicKey = PublicKey::from_bytes([2; 32]);
const PAGE_KEY: PublicKey = PublicKey::from_bytes([3; 32]);

fn offers(name: &str, services: &[&str]) -> Right {
    Right {
        name: name.to_owned(),
        offers: services.iter().map(|&name| name.to_owned()).collect(),
        ..Right::default()
    }
}

fn asks(name: &str) -> Right {
    Right {
        name: name.to_owned(),
        asks: true,
        ..Right::default()
    }
}

fn rights() -> Rights {
    let mut rights = Rights::new();
    rights.allow(SHOP_KEY, offers("shop-1", &[SHOP]));
    rights.allow(BLOG_KEY, offers("blog-1", &["blog", "news"]));
    rights.allow(PAGE_KEY, asks("page-1"));
    rights
}

fn site() -> Site {
    Site::with(|config| config.rights = Some(Arc::new(rights())))
}

impl Site {
    fn with_key(&mut self, port: Port, key: PublicKey) -> Peer {
        let peer = self.peer(port);
        self.step(Event::Proved { peer: peer.id, key });
        peer
    }

    fn offered(&self, name: &str) -> usize {
        let services = self.broker.snapshot(self.now).services;
        let of_it = services.iter().find(|service| &*service.name == name);
        of_it.map_or(0, |service| service.backends)
    }
}

#[test]
fn who_has_a_right_comes_in_and_is_called_by_its_keys_name() {
    let mut site = site();
    let backend = site.with_key(Port::Backends, SHOP_KEY);
    site.join(backend, &["SHOP"], 1);
    site.grant(backend, 1);
    let frontend = site.with_key(Port::Frontends, PAGE_KEY);
    site.join(frontend, &[], 0);
    site.get(frontend, 1);
    let asked = site.is_asked(backend);
    site.respond(backend, asked);
    site.is_answered(frontend, 1);
    let snapshot = site.broker.snapshot(site.now);
    let name = |key: &Option<String>| key.clone().unwrap_or_default();
    assert_eq!(name(&snapshot.backends[0].session.key), "shop-1");
    assert_eq!(name(&snapshot.frontends[0].session.key), "page-1");
}

#[test]
fn no_key_a_strange_key_and_a_key_for_something_else_open_no_session() {
    let mut site = site();
    let nobody = site.peer(Port::Backends);
    let stranger = site.with_key(Port::Backends, PublicKey::from_bytes([9; 32]));
    let thief = site.with_key(Port::Backends, BLOG_KEY);
    let page = site.with_key(Port::Backends, PAGE_KEY);
    for peer in [nobody, stranger, thief, page] {
        site.hello(peer, &[SHOP], 1);
        site.is_dismissed(peer, Bye::NotAllowed);
    }
    let shop = site.with_key(Port::Frontends, SHOP_KEY);
    site.hello(shop, &[], 0);
    site.is_dismissed(shop, Bye::NotAllowed);
    let counters = site.broker.counters();
    assert_eq!(
        (counters.sessions_not_allowed, counters.sessions_opened),
        (5, 0)
    );
    assert_eq!(site.offered(SHOP), 0);
}

#[test]
fn of_several_services_a_backend_offers_those_that_are_its_own() {
    let mut site = site();
    let thief = site.with_key(Port::Backends, BLOG_KEY);
    site.join(thief, &["blog", SHOP, "*"], 1);
    assert_eq!((site.offered("blog"), site.offered(SHOP)), (1, 0));
    let snapshot = site.broker.snapshot(site.now);
    let barred: Vec<&str> = snapshot.backends[0]
        .not_allowed
        .iter()
        .map(|it| &**it)
        .collect();
    assert_eq!(barred, ["*", SHOP]);
    assert_eq!(site.broker.counters().services_not_allowed, 2);
}

#[test]
fn a_service_that_was_barred_and_is_withdrawn_does_not_come_with_the_right_to_it() {
    let mut site = site();
    let blog = site.with_key(Port::Backends, BLOG_KEY);
    site.join(blog, &["blog", SHOP], 1);
    let announce = Announce {
        added: Vec::new(),
        withdrawn: vec!["Shop".to_owned()],
    };
    let message = Message::new(RoutingHeader::new(Kind::Announce));
    site.say(blog, message.with_metadata(announce.encode()));
    let mut more = rights();
    more.allow(BLOG_KEY, offers("blog-1", &["blog", SHOP]));
    site.step(Event::Rights(Arc::new(more)));
    assert_eq!((site.offered("blog"), site.offered(SHOP)), (1, 0));
}

#[test]
fn peers_of_this_process_need_no_right() {
    let mut site = site();
    let mut backend = site.peer(Port::Backends);
    backend.locality = Some(0);
    site.join(backend, &["anything"], 1);
    let mut changed = rights();
    changed.allow(SHOP_KEY, asks("shop-1"));
    site.step(Event::Rights(Arc::new(changed)));
    assert_eq!(site.offered("anything"), 1);
}

#[test]
fn who_knows_anothers_instance_and_lane_does_not_take_its_place() {
    let mut site = site();
    let blog = site.with_key(Port::Backends, BLOG_KEY);
    site.join(blog, &["blog"], 1);
    let mut thief = site.with_key(Port::Backends, SHOP_KEY);
    (thief.instance, thief.epoch) = (blog.instance, blog.epoch);
    site.join(thief, &[SHOP], 1);
    site.hears_nothing(blog);
    assert_eq!(site.broker.counters().sessions_replaced, 0);

    let mut again = site.with_key(Port::Backends, BLOG_KEY);
    again.instance = blog.instance;
    site.join(again, &["blog"], 1);
    site.is_dismissed(blog, Bye::Replaced);
}

#[test]
fn when_rights_change_sessions_without_one_end_and_others_stay() {
    let mut site = site();
    let shop = site.with_key(Port::Backends, SHOP_KEY);
    site.join(shop, &[SHOP], 1);
    site.grant(shop, 1);
    let blog = site.with_key(Port::Backends, BLOG_KEY);
    site.join(blog, &["blog"], 1);
    let page = site.with_key(Port::Frontends, PAGE_KEY);
    site.join(page, &[], 0);
    site.get(page, 1);
    let asked = site.is_asked(shop);

    let mut fewer = Rights::new();
    fewer.allow(SHOP_KEY, offers("shop-1", &[SHOP]));
    fewer.allow(PAGE_KEY, asks("page-1"));
    site.step(Event::Rights(Arc::new(fewer)));
    site.is_dismissed(blog, Bye::NotAllowed);
    assert_eq!(site.offered("blog"), 0);
    site.respond(shop, asked);
    site.is_answered(page, 1);

    // Its connection stands, and is of no use any more.
    site.hello(blog, &["blog"], 1);
    site.is_dismissed(blog, Bye::NotAllowed);
    assert_eq!(site.broker.counters().sessions_not_allowed, 2);
}

#[test]
fn a_service_is_withdrawn_with_the_right_to_it_and_comes_back_with_it() {
    let mut site = site();
    let blog = site.with_key(Port::Backends, BLOG_KEY);
    site.join(blog, &["blog", "news", SHOP], 2);
    site.grant(blog, 2);
    let page = site.with_key(Port::Frontends, PAGE_KEY);
    site.join(page, &[], 0);
    let change = |site: &mut Site, services: &[&str]| {
        let mut changed = rights();
        changed.allow(BLOG_KEY, offers("blog-1", services));
        site.step(Event::Rights(Arc::new(changed)));
        [
            site.offered("blog"),
            site.offered("news"),
            site.offered(SHOP),
        ]
    };
    assert_eq!(change(&mut site, &["news"]), [0, 1, 0]);
    // Who asks for it meanwhile waits for it.
    site.get(page, 1);
    assert_eq!(change(&mut site, &["news", SHOP]), [0, 1, 1]);
    site.hears(blog, Kind::Demand);
    let asked = site.is_asked(blog);
    site.respond(blog, asked);
    site.is_answered(page, 1);
    assert_eq!(change(&mut site, &["blog", "news"]), [1, 1, 0]);
}
