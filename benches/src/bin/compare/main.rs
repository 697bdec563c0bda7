//! Routed round trips: the broker beside libzmq's proxy and NATS, in turn on the same machine.
//!
//! Each server is a process of its own; one asker and one answerer, on threads of this process, are the same for all that
//! speak ZMTP. The broker's sessions have everything on: deadlines, credit, heartbeats of a second, flow control. What else
//! the machine does moves all figures, so the systems take short turns, and what counts is the ratio within a round; that of
//! the broker to a second process of itself says how far chance moves it.

mod cpu;
mod dealers;
mod nats;
mod report;
mod server;
mod steps;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};

use self::dealers::Speech;
use self::report::Report;
use self::server::Server;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Times that each system has its turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds that a turn is measured, after a fifth of that to warm up.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Bytes of content, there and back.
    #[arg(long = "size", default_values_t = [64, 1024], value_parser = clap::value_parser!(u16).range(1..=3900))]
    sizes: Vec<u16>,
    /// Round trips under way at a time.
    #[arg(long, default_value_t = 256)]
    under_way: u32,
    /// How the ends reach the server.
    #[arg(long = "link", value_enum, default_values_t = [Link::Tcp, Link::Ipc])]
    links: Vec<Link>,
    /// This program, built from another state of the sources: its broker is measured too.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Measures what is left of the broker without its features too: a loop between two sockets, and one that reads messages.
    #[arg(long)]
    steps: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Is a server, until its input ends: what the program starts of itself.
    #[command(hide = true)]
    Serve { kind: server::Kind, link: Link },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Link {
    Tcp,
    Ipc,
}

/// A server, and what is said to it.
struct System {
    name: &'static str,
    server: Server,
    speech: Speech,
}

/// What a turn has to do.
#[derive(Clone, Copy, Debug)]
struct Load {
    size: usize,
    under_way: u32,
    warm_up: Duration,
    measured: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
struct Turn {
    round_trips: u64,
    took: Duration,
    /// CPU time of the server's process.
    cpu: Duration,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Serve { kind, link }) = arguments.command {
        return server::serve(kind, link);
    }
    let measured = Duration::try_from_secs_f64(arguments.seconds)?;
    for &link in &arguments.links {
        let systems = systems(link, arguments.against.as_ref(), arguments.steps)?;
        for &size in &arguments.sizes {
            let load = Load {
                size: size.into(),
                under_way: arguments.under_way,
                warm_up: measured / 5,
                measured,
            };
            let mut report = Report::new(systems.iter().map(|system| system.name));
            for round in 0..arguments.rounds {
                for turn in 0..systems.len() {
                    // Another one begins each round: the first has the machine's rest, or pays for waking it.
                    let index = (round + turn) % systems.len();
                    let system = &systems[index];
                    let turn = turn_of(system, load)
                        .with_context(|| format!("{} over {link:?}", system.name))?;
                    report.add(index, turn);
                }
            }
            report.print(&format!("{link:?}, {size} B, {} under way", load.under_way))?;
        }
    }
    Ok(())
}

/// The first is what the others are compared with.
fn systems(link: Link, against: Option<&PathBuf>, steps: bool) -> anyhow::Result<Vec<System>> {
    let this = std::env::current_exe()?;
    let of = |name, kind, speech| {
        let server = Server::start(&this, kind, link)?;
        anyhow::Ok(System {
            name,
            server,
            speech,
        })
    };
    let mut systems = vec![
        of("broker", server::Kind::Broker, Speech::Session)?,
        of("broker again", server::Kind::Broker, Speech::Session)?,
    ];
    if let Some(other) = against {
        systems.push(System {
            name: "other broker",
            server: Server::start(other, server::Kind::Broker, link)?,
            speech: Speech::Session,
        });
    }
    if steps {
        systems.push(of("loop", server::Kind::Loop, Speech::Session)?);
        systems.push(of("loop, reading", server::Kind::Routers, Speech::Session)?);
    }
    systems.push(of("zmq_proxy", server::Kind::Proxy, Speech::Messages)?);
    systems.push(of("zmq_proxy, bare", server::Kind::Proxy, Speech::Bare)?);
    if link == Link::Tcp {
        match Server::start_nats() {
            Ok(server) => systems.push(System {
                name: "nats-server",
                server,
                speech: Speech::Nats,
            }),
            Err(error) => report::say(&format!("without nats-server: {error:#}"))?,
        }
    }
    Ok(systems)
}

fn turn_of(system: &System, load: Load) -> anyhow::Result<Turn> {
    let server = &system.server;
    match system.speech {
        Speech::Nats => nats::turn(server, load),
        speech => dealers::turn(server, speech, load),
    }
}

/// Counts round trips from the end of the warm-up on.
struct Meter<'a> {
    server: &'a Server,
    load: Load,
    began: Instant,
    /// When it was measured first, and the server's CPU time then.
    since: Option<(Instant, Duration)>,
    round_trips: u64,
    turn: Option<Turn>,
}

/// The clock is read once for so many round trips: it would be a measurable part of each.
const LOOK: u64 = 64;

impl<'a> Meter<'a> {
    fn new(server: &'a Server, load: Load) -> Self {
        Self {
            server,
            load,
            began: now(),
            since: None,
            round_trips: 0,
            turn: None,
        }
    }

    /// One more. Returns whether there is to be another after it.
    fn count(&mut self) -> anyhow::Result<bool> {
        self.round_trips += 1;
        if !self.round_trips.is_multiple_of(LOOK) || self.turn.is_some() {
            return Ok(self.turn.is_none());
        }
        let now = now();
        match self.since {
            None if self.load.warm_up <= now - self.began => {
                self.since = Some((now, self.server.cpu()?));
                self.round_trips = 0;
            }
            Some((since, cpu)) if self.load.measured <= now - since => {
                self.turn = Some(Turn {
                    round_trips: self.round_trips,
                    took: now - since,
                    cpu: self.server.cpu()? - cpu,
                });
            }
            _ => {}
        }
        Ok(self.turn.is_none())
    }

    fn turn(self) -> anyhow::Result<Turn> {
        self.turn.context("ended too early")
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}
