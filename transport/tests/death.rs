//! A peer that is killed, and one that leaves: the other side hears of it behind the last message, and goes on with the next.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use scale0_transport::{
    Endpoint, Incoming, LinkId, LinkOptions, Links, RouterOptions, SendOutcome,
};
use support::{Bound, Dialling, PATIENCE, context, local, message, narrow};

const ROLE: &str = "SCALE0_TRANSPORT_TEST_ROLE";
const ENDPOINT: &str = "SCALE0_TRANSPORT_TEST_ENDPOINT";

/// How much a peer says before it goes.
const LAST_WORDS: u64 = 200;

/// This test binary once more, as another process. Killed when dropped.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str, endpoint: &Endpoint) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "the_other_process_does_what_its_role_says",
            ])
            .env(ROLE, role)
            .env(ENDPOINT, endpoint.address())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The endpoint that the other process has bound.
    fn endpoint(&mut self) -> Endpoint {
        for line in (&mut self.output).lines() {
            if let Some((_, endpoint)) = line.unwrap().split_once("bound ") {
                return endpoint.parse().unwrap();
            }
        }
        panic!("the other process bound nothing");
    }

    /// `kill -9`.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: what the other process runs.
#[test]
fn the_other_process_does_what_its_role_says() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let endpoint: Endpoint = std::env::var(ENDPOINT).unwrap().parse().unwrap();
    let context = context();
    match role.as_str() {
        "dial and talk" => {
            let mut dialling = Dialling::new();
            let link = dialling.connect(&context, &endpoint);
            dialling.send(link, &message(1, "here"));
            dialling.next();
        }
        "echo" => {
            let mut bound = Bound::new(&context, &endpoint, &RouterOptions::default());
            println!("bound {}", bound.router.local_endpoint());
            loop {
                if let (peer, Incoming::Message(message)) = bound.next() {
                    bound.router.send(peer, &message);
                }
            }
        }
        "answer and leave" => {
            let mut bound = Bound::new(&context, &endpoint, &RouterOptions::default());
            println!("bound {}", bound.router.local_endpoint());
            let (peer, _) = bound.next_message();
            for correlation in 0..LAST_WORDS {
                let answer = message(correlation, vec![1; 2_000]);
                assert_eq!(bound.router.send(peer, &answer), SendOutcome::Sent);
            }
            bound.router.set_linger(PATIENCE);
        }
        other => panic!("no such role: {other}"),
    }
}

fn ipc() -> (tempfile::TempDir, Endpoint) {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("ipc://{}", folder.path().join("broker").display());
    (folder, endpoint.parse().unwrap())
}

fn the_router_hears(endpoint: &Endpoint) {
    let mut bound = Bound::new(&context(), endpoint, &RouterOptions::default());
    let mut victim = Process::start("dial and talk", &bound.endpoint());
    let (victim_id, _) = bound.next_message();
    let _bystander = Process::start("dial and talk", &bound.endpoint());
    let (bystander_id, _) = bound.next_message();
    assert_ne!(victim_id, bystander_id);

    victim.kill();
    assert_eq!(bound.next(), (victim_id, Incoming::Down));
    let late = message(1, "late");
    // The socket tells of a death a moment before it has taken the connection down.
    let mut attempts = 0..1_000_000;
    let refused = attempts.any(|_| bound.router.send(victim_id, &late) == SendOutcome::Down);
    assert!(refused, "the dead are still sent to");
    assert_eq!(bound.router.send(bystander_id, &late), SendOutcome::Sent);
    // It has its answer and ends in order.
    assert_eq!(bound.next(), (bystander_id, Incoming::Down));
    assert_eq!(bound.router.counters().lost, 2);
    assert_eq!(bound.router.counters().unreachable, 1);
}

#[test]
fn a_router_hears_of_a_killed_peer_by_its_id_over_tcp() {
    the_router_hears(&local());
}

#[test]
fn a_router_hears_of_a_killed_peer_by_its_id_over_ipc() {
    the_router_hears(&ipc().1);
}

#[test]
fn a_peer_that_is_stopped_is_gone_where_pings_are_on() {
    let options = RouterOptions {
        ping: Some(Duration::from_millis(100)),
        ..RouterOptions::default()
    };
    let mut bound = Bound::new(&context(), &local(), &options);
    let stopped = Process::start("dial and talk", &bound.endpoint());
    let (peer, _) = bound.next_message();
    let pid = stopped.child.id().to_string();
    let stop = Command::new("kill").args(["-STOP", &pid]).status();
    assert!(stop.unwrap().success());
    assert_eq!(bound.next(), (peer, Incoming::Down));
}

fn the_dialling_side_hears_and_goes_on(endpoint: &Endpoint) {
    let mut broker = Process::start("echo", endpoint);
    let bound = broker.endpoint();
    let context = context();
    let mut dialling = Dialling::new();
    let link = dialling.connect(&context, &bound);
    for _ in 0..3 {
        let here = message(1, "here");
        dialling.send(link, &here);
        assert_eq!(dialling.next_message(), (link, here.clone()));

        broker.kill();
        assert_eq!(dialling.next(), (link, Incoming::Down));
        assert_eq!(dialling.links.send(link, &here), SendOutcome::Down);

        broker = Process::start("echo", &bound);
        assert_eq!(dialling.next(), (link, Incoming::Up));
    }
    assert_eq!(dialling.links.counters().lost, 3);
    assert_eq!(dialling.links.counters().backstop_saves, 0);
}

#[test]
fn a_link_hears_of_a_killed_broker_and_is_up_when_it_is_back_over_tcp() {
    the_dialling_side_hears_and_goes_on(&local());
}

#[test]
fn a_link_hears_of_a_killed_broker_and_is_up_when_it_is_back_over_ipc() {
    let (_folder, endpoint) = ipc();
    the_dialling_side_hears_and_goes_on(&endpoint);
}

#[tokio::test]
async fn a_task_hears_of_a_killed_broker_and_is_up_when_it_is_back() {
    let mut broker = Process::start("echo", &local());
    let bound = broker.endpoint();
    let mut links = Links::new();
    links
        .connect(&context(), &bound, &LinkOptions::default())
        .unwrap();
    for _ in 0..3 {
        assert_eq!(next(&mut links).await.1, Incoming::Up);
        broker.kill();
        assert_eq!(next(&mut links).await.1, Incoming::Down);
        broker = Process::start("echo", &bound);
    }
    assert_eq!(links.counters().backstop_saves, 0);
}

async fn next(links: &mut Links) -> (LinkId, Incoming) {
    loop {
        if let Some(event) = links.receive() {
            return event;
        }
        links.ready().await;
    }
}

#[test]
fn nothing_that_a_leaving_broker_has_said_is_lost() {
    let mut broker = Process::start("answer and leave", &local());
    let mut dialling = Dialling::new();
    let link = dialling.connect(&context(), &broker.endpoint());
    dialling.send(link, &message(1, "question"));
    // All has happened before this side looks: the answers and the end of the connection.
    assert!(broker.child.wait().unwrap().success());
    for correlation in 0..LAST_WORDS {
        let (_, answer) = dialling.next_message();
        assert_eq!(answer.header.correlation, correlation);
    }
    assert_eq!(dialling.next(), (link, Incoming::Down));
}

#[test]
fn a_peer_declared_dead_is_dialled_anew_and_its_old_connection_ends() {
    let mut bound = Bound::new(&context(), &local(), &RouterOptions::default());
    let mut dialling = Dialling::new();
    let link = dialling.connect(&context(), &bound.endpoint());
    dialling.send(link, &message(1, "old"));
    let (old, _) = bound.next_message();
    dialling.links.redial(link).unwrap();
    assert_eq!(
        dialling.links.send(link, &message(2, "too early")),
        SendOutcome::Down
    );
    assert_eq!(dialling.next(), (link, Incoming::Up));
    dialling.send(link, &message(3, "new"));
    let mut events = [bound.next(), bound.next()];
    events.sort_by_key(|(peer, _)| *peer != old);
    assert_eq!(events[0], (old, Incoming::Down));
    assert_ne!(events[1].0, old);
    assert!(matches!(&events[1].1, Incoming::Message(message) if message.header.correlation == 3));
}

#[test]
fn closing_a_full_link_ends_it_at_once() {
    let (router, link) = narrow();
    let bound = Bound::new(&context(), &local(), &router);
    let mut dialling = Dialling::new();
    let link = dialling.connect_with(&context(), &bound.endpoint(), &link);
    while dialling.links.send(link, &message(1, vec![0; 60_000])) == SendOutcome::Sent {}
    dialling.links.close(link);
    assert_eq!(
        dialling.links.send(link, &message(1, "late")),
        SendOutcome::Down
    );
    // The contexts end here too, without waiting for what could not be sent.
}
