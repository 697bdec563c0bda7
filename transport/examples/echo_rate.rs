//! How fast messages go there and back: a [`Links`] with a window of messages out, a [`Router`] that sends each back.
//!
//! `cargo run --release -p scale0-transport --example echo_rate [tcp|ipc] [content bytes] [outstanding] [tokio|thread]`
//!
//! Prints round trips per second. Both sides and their I/O threads share the machine.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement"
)]

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use scale0_transport::{
    Context, Incoming, LinkId, LinkOptions, Links, Router, RouterOptions, SendOutcome, ThreadWaker,
    wait,
};
use scale0_wire::{Kind, Message, RoutingHeader};

const LASTS: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument =
        |at: usize, default: &str| env::args().nth(at).unwrap_or_else(|| default.to_owned());
    let transport = argument(1, "tcp");
    let size: usize = argument(2, "64").parse()?;
    let outstanding: u64 = argument(3, "256").parse()?;
    let bridge = argument(4, "tokio");
    let endpoint = match transport.as_str() {
        "ipc" => format!("ipc://@scale0-echo-{}", std::process::id()),
        _ => "tcp://127.0.0.1:*".to_owned(),
    };

    // Two contexts, as in two processes.
    let router = Router::bind(
        &Context::new(1)?,
        &endpoint.parse()?,
        0,
        &RouterOptions::default(),
    )?;
    let endpoint = router.local_endpoint().parse()?;
    thread::spawn(move || echo(router));

    let mut links = Links::new();
    let link = links.connect(&Context::new(1)?, &endpoint, &LinkOptions::default())?;
    let mut window = Window {
        link,
        message: Message::new(RoutingHeader::new(Kind::Response))
            .with_content(vec![1; size].into()),
        outstanding,
        returned: 0,
    };
    let until = Instant::now() + LASTS;
    if bridge == "thread" {
        let waker = ThreadWaker::new()?;
        while Instant::now() < until {
            window.pass(&mut links);
            links.wait(&waker, None)?;
        }
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            while Instant::now() < until {
                window.pass(&mut links);
                links.ready().await;
            }
            drop(links);
        });
    }
    let rate = window.returned as f64 / LASTS.as_secs_f64();
    println!(
        "{transport} {bridge}, {size} bytes, {outstanding} outstanding: {rate:.0} round trips/s"
    );
    Ok(())
}

struct Window {
    link: LinkId,
    message: Message,
    outstanding: u64,
    returned: u64,
}

impl Window {
    fn pass(&mut self, links: &mut Links) {
        let mut send = 0;
        while let Some((_, incoming)) = links.receive() {
            match incoming {
                Incoming::Up => send += self.outstanding,
                Incoming::Message(_) => {
                    self.returned += 1;
                    send += 1;
                }
                Incoming::Malformed(_) | Incoming::Down => {}
            }
        }
        for _ in 0..send {
            assert_eq!(links.send(self.link, &self.message), SendOutcome::Sent);
        }
    }
}

fn echo(mut router: Router) {
    let waker = ThreadWaker::new().expect("one more descriptor");
    loop {
        while let Some((peer, incoming)) = router.receive() {
            if let Incoming::Message(message) = incoming {
                router.send(peer, &message);
            }
        }
        if wait(std::slice::from_ref(&router), &waker, None).is_err() {
            return;
        }
    }
}
