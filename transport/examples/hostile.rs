//! What strangers cost a bound socket with keys, and what honest peers feel of it.
//!
//! `cargo run --release -p scale0-transport --example hostile [seconds]`
//!
//! A process of its own has a [`Router`] and a [`Gatekeeper`], sends each message back, and mutes who has sent eight pieces of garbage, as
//! a broker does. An honest peer sends it a message each millisecond and measures the way there and back. For each kind of attack, beside
//! the quiet before it, a line is printed: what the process used of a core, what became of the attack each second, and the honest peer's
//! times. Attackers share the machine, so that times are upper bounds.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement"
)]

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use scale0_transport::{
    Context, Endpoint, Gate, Gatekeeper, Incoming, KeyPair, LinkOptions, Links, PeerId, Port,
    PublicKey, Router, RouterOptions, SendOutcome, ThreadWaker, wait,
};
use scale0_wire::{Kind, Message, RoutingHeader};

/// Between two messages of the honest peer.
const PACE: Duration = Duration::from_millis(1);

/// The garbage that is aimed at, in frames a second.
const GARBAGE: u128 = 100_000;

/// Connections that say nothing.
const HALF_OPEN: usize = 1_000;

/// The pieces of garbage after which a peer is muted.
const STRIKES: u32 = 8;

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    match env::args().nth(1).as_deref() {
        Some("serve") => serve(),
        seconds => measure(Duration::from_secs(seconds.unwrap_or("5").parse()?)),
    }
}

/// The process that is attacked: prints where it is and its public key, and reads whom it lets in.
fn serve() -> Result<(), Failed> {
    let keys = KeyPair::generate()?;
    let context = Context::new(1)?;
    let keeper = Gatekeeper::start(&context, Gate::new())?;
    let options = RouterOptions {
        secret_key: Some(keys.secret),
        port: Some(Port::Backends),
        ..RouterOptions::default()
    };
    let mut router = Router::bind(&context, &"tcp://127.0.0.1:*".parse()?, 0, &options)?;
    println!("{} {}", router.local_endpoint(), keys.public);
    let mut gate = Gate::new();
    for line in std::io::stdin().lines() {
        match line?.parse::<PublicKey>() {
            Ok(key) => gate.allow(key, Port::Backends),
            Err(_) => break,
        }
    }
    keeper.swap(gate);

    // It ends when its parent is gone, or told to.
    thread::spawn(|| {
        _ = std::io::stdin().lines().next();
        std::process::exit(0);
    });
    let waker = ThreadWaker::new()?;
    let mut strikes: HashMap<PeerId, u32> = HashMap::new();
    loop {
        while let Some((peer, event)) = router.receive() {
            match event {
                Incoming::Message(message) => _ = router.send(peer, &message),
                Incoming::Malformed(_) => {
                    let strikes = strikes.entry(peer).or_default();
                    *strikes += 1;
                    if *strikes == STRIKES {
                        router.mute(peer, true);
                    }
                }
                Incoming::Up | Incoming::Down => _ = strikes.remove(&peer),
            }
        }
        wait(std::slice::from_ref(&router), &waker, None)?;
    }
}

fn measure(lasts: Duration) -> Result<(), Failed> {
    let [honest, hostile, stranger] = [
        KeyPair::generate()?,
        KeyPair::generate()?,
        KeyPair::generate()?,
    ];
    let mut target = Target::start(&[honest.public, hostile.public])?;
    println!(
        "{:<44} {:>7} {:>12} {:>9} {:>9} {:>9}",
        "", "core", "attacks/s", "p50 us", "p99 us", "max us"
    );
    let nothing = |_: &Attack| Ok(());
    target.phase("quiet", &honest, lasts, nothing)?;
    target.phase("garbage from a peer with a key", &honest, lasts, |attack| {
        attack.garbage(&hostile)
    })?;
    target.phase("quiet", &honest, lasts, nothing)?;
    target.phase("handshakes with a strange key", &honest, lasts, |attack| {
        attack.handshakes(&stranger)
    })?;
    target.phase("quiet", &honest, lasts, nothing)?;
    target.phase(
        "connections that say nothing, opened anew",
        &honest,
        lasts,
        Attack::connections,
    )?;
    target.phase("quiet", &honest, lasts, nothing)?;
    let before = target.resident();
    let silent: Vec<TcpStream> = (0..HALF_OPEN)
        .map_while(|_| TcpStream::connect(&target.address).ok())
        .collect();
    target.phase(
        "1,000 connections that say nothing, kept",
        &honest,
        lasts.min(Duration::from_secs(2)),
        nothing,
    )?;
    let each = target.resident().saturating_sub(before) / silent.len().max(1);
    println!(
        "{} half-open connections hold {each} bytes each; they are cut off after 3 s",
        silent.len()
    );
    target.stop();
    Ok(())
}

/// The attacked process.
struct Target {
    process: Child,
    endpoint: Endpoint,
    address: String,
}

impl Target {
    fn start(allowed: &[PublicKey]) -> Result<Self, Failed> {
        let mut process = Command::new(env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let said = process.stdout.take().ok_or("no output")?;
        BufReader::new(said).read_line(&mut line)?;
        let (endpoint, key) = line.trim().split_once(' ').ok_or("no endpoint")?;
        let mut to = process.stdin.as_ref().ok_or("no input")?;
        for key in allowed {
            writeln!(to, "{key}")?;
        }
        writeln!(to, "that is all")?;
        let address = endpoint.trim_start_matches("tcp://").to_owned();
        let endpoint = endpoint.parse::<Endpoint>()?.with_server_key(key.parse()?);
        Ok(Self {
            process,
            endpoint,
            address,
        })
    }

    /// Measures for so long, while it is attacked.
    fn phase(
        &mut self,
        name: &str,
        honest: &KeyPair,
        lasts: Duration,
        attack: impl Fn(&Attack) -> Result<(), Failed> + Sync,
    ) -> Result<(), Failed> {
        let of = Attack {
            endpoint: self.endpoint.clone(),
            address: self.address.clone(),
            count: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        };
        let (core, mut times) = thread::scope(|scope| -> Result<_, Failed> {
            let attacker = scope.spawn(|| attack(&of));
            let (began, used) = (Instant::now(), self.cpu());
            let times = probe(&self.endpoint, honest, lasts);
            let core = (self.cpu() - used).as_secs_f64() / began.elapsed().as_secs_f64();
            of.is_over.store(true, Ordering::Relaxed);
            attacker.join().map_err(|_| "the attacker has panicked")??;
            Ok((core, times?))
        })?;
        times.sort_unstable();
        let at = |permille: usize| times[(times.len() - 1) * permille / 1000].as_micros();
        let rate = of.count.load(Ordering::Relaxed) as f64 / lasts.as_secs_f64();
        println!(
            "{name:<44} {:>6.1}% {rate:>12.0} {:>9} {:>9} {:>9}",
            100.0 * core,
            at(500),
            at(990),
            at(1000)
        );
        Ok(())
    }

    /// All that it has used of the processor. The kernel counts in hundredths of a second.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let stat = stat.unwrap_or_default();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|it| it.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|it| it.trim().trim_end_matches(" kB").parse::<usize>().ok());
        1024 * kib.unwrap_or(0)
    }

    fn stop(mut self) {
        drop(self.process.stdin.take());
        _ = self.process.wait();
    }
}

/// The honest peer: how long each of its messages was under way.
fn probe(endpoint: &Endpoint, keys: &KeyPair, lasts: Duration) -> Result<Vec<Duration>, Failed> {
    let waker = ThreadWaker::new()?;
    let mut links = Links::new();
    let options = LinkOptions {
        keys: Some(keys.clone()),
        ..LinkOptions::default()
    };
    let link = links.connect(&Context::new(1)?, endpoint, &options)?;
    while !matches!(links.receive(), Some((_, Incoming::Up))) {
        links.wait(&waker, None)?;
    }
    let message = Message::new(RoutingHeader::new(Kind::Heartbeat));
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < lasts {
        let sent = Instant::now();
        if links.send(link, &message) != SendOutcome::Sent {
            return Err("the honest peer cannot send".into());
        }
        while links.receive().is_none() {
            links.wait(&waker, None)?;
        }
        times.push(sent.elapsed());
        thread::sleep(PACE);
    }
    Ok(times)
}

/// What strangers do until it is over.
struct Attack {
    endpoint: Endpoint,
    address: String,
    count: AtomicU64,
    is_over: AtomicBool,
}

impl Attack {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn hit(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn socket(&self, context: &zmq::Context, keys: &KeyPair) -> Result<zmq::Socket, Failed> {
        let socket = context.socket(zmq::DEALER)?;
        socket.set_linger(0)?;
        let server = self.endpoint.server_key().ok_or("no key")?;
        socket.set_curve_serverkey(server.as_bytes())?;
        socket.set_curve_publickey(keys.public.as_bytes())?;
        socket.set_curve_secretkey(&zmq::z85_decode(&keys.secret.to_z85())?)?;
        Ok(socket)
    }

    /// Frames that are no messages, at a steady rate.
    fn garbage(&self, keys: &KeyPair) -> Result<(), Failed> {
        let socket = self.socket(&zmq::Context::new(), keys)?;
        socket.connect(self.endpoint.address())?;
        let began = Instant::now();
        while self.goes_on() {
            let due = began.elapsed().as_micros() * GARBAGE / 1_000_000;
            if u128::from(self.count.load(Ordering::Relaxed)) < due
                && socket.send(&[0xff; 64][..], zmq::DONTWAIT).is_ok()
            {
                self.hit();
            } else {
                thread::sleep(Duration::from_micros(100));
            }
        }
        Ok(())
    }

    /// Whole handshakes, which end with the gatekeeper's no, one after the other.
    fn handshakes(&self, keys: &KeyPair) -> Result<(), Failed> {
        let context = zmq::Context::new();
        let failed = i32::from(zmq::SocketEvent::HANDSHAKE_FAILED_AUTH.to_raw());
        for number in 0_u64.. {
            if !self.goes_on() {
                break;
            }
            let socket = self.socket(&context, keys)?;
            let address = format!("inproc://failed-{number}");
            socket.monitor(&address, failed)?;
            let monitor = context.socket(zmq::PAIR)?;
            monitor.set_rcvtimeo(1_000)?;
            monitor.connect(&address)?;
            socket.connect(self.endpoint.address())?;
            if monitor.recv_multipart(0).is_ok() {
                self.hit();
            }
        }
        Ok(())
    }

    /// Connections that are opened, and closed without a word.
    fn connections(&self) -> Result<(), Failed> {
        while self.goes_on() {
            drop(TcpStream::connect(&self.address)?);
            self.hit();
        }
        Ok(())
    }
}
