//! Who serves what, and when: what routes, services and brokers say about it, with the real binary.

mod support;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use support::{Origin, Scale0, empty, text};
use tokio::sync::Semaphore;

/// Every process is asked whether it is ready.
const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n";

fn socket(folder: &Path, broker: &str, whom: &str) -> String {
    format!("ipc://{}/{broker}-{whom}", folder.display())
}

/// A broker of this name, whose sockets lie in `folder`.
fn broker(folder: &Path, name: &str) -> String {
    let at = |whom| socket(folder, name, whom);
    format!(
        "{ADMIN}[node]\nname = \"{name}\"\n[broker]\nfrontends = \"{}\"\nbackends = \"{}\"\npeers = \"{}\"\n",
        at("frontends"),
        at("backends"),
        at("peers")
    )
}

/// A frontend that dials that broker.
fn frontend(folder: &Path, broker: &str) -> String {
    let at = socket(folder, broker, "frontends");
    format!("[frontend]\nhttp = \"127.0.0.1:0\"\nbrokers = \"{at}\"\n")
}

/// A bridge of a node of this name, which dials that broker, and is one backend to it: one at a time is one thread's.
fn bridge(folder: &Path, name: &str, app: &Origin, broker: &str) -> String {
    let (at, url) = (socket(folder, broker, "backends"), app.url());
    format!(
        "{ADMIN}[node]\nname = \"{name}\"\n[[bridge]]\nservice = \"shop\"\nupstream = \"{url}\"\nconcurrency = 1\nbrokers = \"{at}\"\n"
    )
}

/// An application that says its name.
async fn named(name: &'static str) -> Origin {
    Origin::start(move |_| async move { http::Response::new(text(name)) }).await
}

#[tokio::test]
async fn requests_with_one_value_go_to_one_backend_through_either_frontend() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let route = "[[route]]\nservice = \"shop\"\naffinity = \"header:X-User\"\ncache = \"off\"\ncoalesce = \"off\"\n";
    let front = frontend(folder, "one");
    let fronts = [
        Scale0::start(&format!("{}{front}{route}", broker(folder, "one"))).await,
        Scale0::start(&format!(
            "{ADMIN}[node]\nname = \"front-2\"\n{front}{route}"
        ))
        .await,
    ];
    let (left, right) = (named("left").await, named("right").await);
    let _left = Scale0::start(&bridge(folder, "left", &left, "one")).await;
    let _right = Scale0::start(&bridge(folder, "right", &right, "one")).await;
    fronts[0]
        .until_metric("scale0_broker_service_backends", |there| there == 2.0)
        .await;
    let ask = async |front: &Scale0, user: usize| {
        let mut client = front.client().await;
        client
            .ask(
                "POST",
                "/",
                &format!("X-User: user-{user}\r\nContent-Length: 0\r\n"),
            )
            .await;
        client.response().await.text()
    };
    let mut home = HashMap::new();
    for turn in 0..4 {
        for user in 0..16 {
            let at = ask(&fronts[turn % 2], user).await;
            assert_eq!(*home.entry(user).or_insert(at.clone()), at, "user {user}");
        }
    }
    let homes: HashSet<_> = home.values().collect();
    assert_eq!(homes.len(), 2, "all users are at home in one place");
    let by_affinity = "scale0_broker_chosen_total{why=\"affinity\"";
    let chosen = fronts[0].metrics(by_affinity).await;
    assert!(64.0 <= chosen, "{chosen}");
}

/// A broker knows what is late from two hundred requests, which it measures once one of the service may be hedged. The backend that has the
/// slow request never answers it.
#[tokio::test]
async fn a_late_request_is_answered_by_a_second_backend_where_its_route_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let stuck = Arc::new(Mutex::new(HashSet::new()));
    let app = Origin::start(move |request| {
        let path = request.uri().path().to_owned();
        let is_stuck = path.starts_with("/slow") && stuck.lock().insert(path);
        async move {
            if is_stuck {
                std::future::pending::<()>().await;
            }
            http::Response::new(empty())
        }
    })
    .await;
    let route = "[[route]]\npath = \"/slow/hedged\"\nservice = \"shop\"\nhedge = \"on\"\n\
                 [[route]]\npath = \"/first\"\nservice = \"shop\"\nhedge = \"on\"\n\
                 [[route]]\npath = \"/slow\"\nservice = \"shop\"\ntimeout = \"500ms\"\n\
                 [[route]]\nservice = \"shop\"\n";
    let front = frontend(folder, "one");
    let front = Scale0::start(&format!("{}{front}{route}", broker(folder, "one"))).await;
    let _left = Scale0::start(&bridge(folder, "left", &app, "one")).await;
    let _right = Scale0::start(&bridge(folder, "right", &app, "one")).await;
    front
        .until_metric("scale0_broker_service_backends", |there| there == 2.0)
        .await;
    let mut client = front.client().await;
    assert_eq!(client.get("/first").await.status(), 200);
    for _ in 0..200 {
        assert_eq!(client.get("/quick").await.status(), 200);
    }
    assert_eq!(client.get("/slow/hedged").await.status(), 200);
    assert_eq!(app.gets("/slow/hedged"), 2);
    let hedged = "scale0_broker_chosen_total{why=\"hedge\"";
    assert_eq!(front.metrics(hedged).await, 1.0);
    assert_eq!(client.get("/slow/patient").await.status(), 504);
    assert_eq!(app.gets("/slow/patient"), 1);
}

/// One application at a time: what waits is served by class, and within it first come first.
#[tokio::test]
async fn while_backends_are_busy_the_more_urgent_route_is_served_first() {
    let (let_on, served) = (
        Arc::new(Semaphore::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let app = {
        let (let_on, served) = (Arc::clone(&let_on), Arc::clone(&served));
        Origin::start(move |request| {
            served.lock().push(request.uri().path().to_owned());
            let let_on = Arc::clone(&let_on);
            async move {
                let_on.acquire().await.unwrap().forget();
                http::Response::new(empty())
            }
        })
        .await
    };
    let mut routes = String::new();
    for class in ["background", "normal", "interactive"] {
        routes += &format!(
            "[[route]]\npath = \"/{class}\"\nservice = \"shop\"\npriority = \"{class}\"\n"
        );
    }
    let site = support::site(&app, format!("{routes}[log]\naccess = \"off\"\n"));
    let site = site.replace("concurrency = 256", "concurrency = 1");
    let scale0 = Scale0::start(&site).await;
    let mut clients = Vec::new();
    for (waiting, target) in ["/interactive/0", "/background", "/normal", "/interactive"]
        .into_iter()
        .enumerate()
    {
        let mut client = scale0.client().await;
        client.ask("GET", target, "").await;
        clients.push(client);
        app.until(|counts| counts.running == 1).await;
        scale0
            .until_metric("scale0_broker_queued_requests", |queued| {
                queued == waiting as f64
            })
            .await;
    }
    let_on.add_permits(4);
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 200);
    }
    assert_eq!(
        *served.lock(),
        ["/interactive/0", "/interactive", "/normal", "/background"]
    );
}

#[tokio::test]
async fn no_more_of_a_service_is_under_way_than_its_section_allows() {
    let let_on = Arc::new(Semaphore::new(0));
    let app = {
        let let_on = Arc::clone(&let_on);
        Origin::start(move |_| {
            let let_on = Arc::clone(&let_on);
            async move {
                let_on.acquire().await.unwrap().forget();
                http::Response::new(empty())
            }
        })
        .await
    };
    let service = "[[route]]\nservice = \"shop\"\n[[service]]\nname = \"shop\"\noutstanding = 2\n[log]\naccess = \"off\"\n";
    let site = support::site(&app, service).replace("\"*\"", "\"shop\"");
    let scale0 = Scale0::start(&site).await;
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = scale0.client().await;
        client.ask("GET", &format!("/{number}"), "").await;
        clients.push(client);
    }
    app.until(|counts| counts.running == 2).await;
    scale0
        .until_metric("scale0_broker_queued_requests", |queued| queued == 3.0)
        .await;
    let_on.add_permits(5);
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 200);
    }
    assert_eq!(app.counts().most_at_once, 2);
}

#[tokio::test]
async fn a_frontend_and_a_bridge_that_know_one_broker_go_on_at_the_other_when_it_drains() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let others = format!(
        "others = {{ node = \"two\", frontends = \"{}\", backends = \"{}\" }}\n",
        socket(folder, "two", "frontends"),
        socket(folder, "two", "backends")
    );
    let mut one = Scale0::start(&format!("{}{others}", broker(folder, "one"))).await;
    let two = Scale0::start(&broker(folder, "two")).await;
    let app = named("app").await;
    let _bridge = Scale0::start(&bridge(folder, "app", &app, "one")).await;
    let route = "[[route]]\nservice = \"shop\"\n";
    let front = frontend(folder, "one");
    let front = Scale0::start(&format!("{ADMIN}[node]\nname = \"front\"\n{front}{route}")).await;
    assert_eq!(front.get("/1").await.text(), "app");
    assert_eq!(two.metrics("scale0_broker_requests_total").await, 0.0);
    one.terminate();
    assert_eq!(one.wait_exit().await.code(), Some(0));
    assert_eq!(front.get("/2").await.text(), "app");
    assert_eq!(two.metrics("scale0_broker_requests_total").await, 1.0);
}
