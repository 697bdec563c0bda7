//! The processes that are compared.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use scale0_broker::{BrokerConfig, BrokerHandle, ShellConfig};
use scale0_transport::{Context, Endpoint, Port, Router, RouterOptions};

use crate::{Link, cpu, dealers, report, steps};

/// What a process of this program serves as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The broker as the `scale0` binary starts it.
    Broker,
    /// libzmq's own, with its sockets as they come.
    Proxy,
    /// Two ROUTERs of libzmq and the least of loops between them: what is left of a broker without any of its features.
    Loop,
    /// The same loop with our routers, which read messages and pass them on.
    Routers,
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where askers dial.
    pub(crate) front: String,
    /// Where answerers dial.
    pub(crate) back: String,
    /// What it has to say. Kept open: a writer whose reader is gone ends.
    _says: Says,
}

/// Kept, not read any more.
enum Says {
    Output { _pipe: BufReader<ChildStdout> },
    Errors { _pipe: BufReader<ChildStderr> },
}

impl Server {
    /// Starts `program`, which is this one or of its kind.
    pub(crate) fn start(program: &Path, kind: Kind, link: Link) -> anyhow::Result<Self> {
        let value = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned())
        };
        let mut child = Command::new(program)
            .arg("serve")
            .args(value(kind.to_possible_value()))
            .args(value(link.to_possible_value()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let mut output = BufReader::new(output);
        let mut line = || -> anyhow::Result<String> {
            let mut line = String::new();
            output.read_line(&mut line)?;
            Ok(line.trim_end().to_owned())
        };
        let (front, back) = (line()?, line()?);
        Ok(Self {
            child,
            front,
            back,
            _says: Says::Output { _pipe: output },
        })
    }

    /// Starts `nats-server`, as it comes.
    pub(crate) fn start_nats() -> anyhow::Result<Self> {
        // Somebody else may take the port meanwhile; then this one fails, and says so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = Command::new("nats-server")
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start it; Debian has it as a package of that name")?;
        let mut errors = BufReader::new(child.stderr.take().context("its log is a pipe")?);
        let mut line = String::new();
        while !line.contains("Server is ready") {
            line.clear();
            if errors.read_line(&mut line)? == 0 {
                bail!("it has ended");
            }
        }
        let address = format!("127.0.0.1:{port}");
        Ok(Self {
            child,
            front: address.clone(),
            back: address,
            _says: Says::Errors { _pipe: errors },
        })
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu::of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says where it listens, and serves until its input ends.
pub(crate) fn serve(kind: Kind, link: Link) -> anyhow::Result<()> {
    match kind {
        Kind::Broker => {
            let [front, back] = addresses(link);
            let listen = [(Port::Frontends, front), (Port::Backends, back)];
            let listen = listen.map(|(port, at)| Ok((port, at.parse::<Endpoint>()?)));
            let config = ShellConfig {
                listen: listen.into_iter().collect::<anyhow::Result<_>>()?,
                options: RouterOptions::default(),
                broker: BrokerConfig::new("broker-1", "fra", 1, 42),
            };
            let broker = BrokerHandle::start(&Context::new(1)?, config)?;
            for (_, at) in broker.endpoints() {
                report::say(at)?;
            }
            wait_for_the_end()?;
            broker.stop()?;
        }
        Kind::Proxy => {
            let context = zmq::Context::new();
            let [front, back] = addresses(link);
            let bound = |kind, address: &str| {
                let socket = context.socket(kind)?;
                socket.bind(address)?;
                let at = socket.get_last_endpoint()?;
                report::say(&at.unwrap_or_default())?;
                anyhow::Ok(socket)
            };
            let askers = bound(zmq::ROUTER, &front)?;
            let answerers = bound(zmq::DEALER, &back)?;
            // It ends with the process.
            thread::spawn(move || zmq::proxy(&askers, &answerers));
            wait_for_the_end()?;
        }
        Kind::Loop => {
            let context = zmq::Context::new();
            let bound = |address: &str| {
                let mut socket = context.socket(zmq::ROUTER)?;
                dealers::set_batches(&mut socket)?;
                socket.bind(address)?;
                report::say(&socket.get_last_endpoint()?.unwrap_or_default())?;
                anyhow::Ok(socket)
            };
            let [front, back] = addresses(link);
            let ends = [bound(&front)?, bound(&back)?];
            thread::spawn(move || steps::pass_on_frames(&ends));
            wait_for_the_end()?;
        }
        Kind::Routers => {
            let context = Context::new(1)?;
            let bound = |number, address: &str| {
                let router = Router::bind(
                    &context,
                    &address.parse()?,
                    number,
                    &RouterOptions::default(),
                )?;
                report::say(&router.local_endpoint())?;
                anyhow::Ok(router)
            };
            let [front, back] = addresses(link);
            let ends = [bound(0, &front)?, bound(1, &back)?];
            thread::spawn(move || steps::pass_on_messages(ends));
            wait_for_the_end()?;
        }
    }
    Ok(())
}

fn addresses(link: Link) -> [String; 2] {
    ["front", "back"].map(|name| match link {
        Link::Tcp => "tcp://127.0.0.1:*".to_owned(),
        // It leaves no file behind.
        Link::Ipc => format!("ipc://@scale0-compare-{}-{name}", std::process::id()),
    })
}

fn wait_for_the_end() -> io::Result<()> {
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
