//! A site of real processes: brokers and frontends are `scale0 up`, backends are this program's application.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::ledger::{Id, Ledger};
use crate::load::Clients;
use crate::network::{Cable, Namespace};
use crate::process::{PATIENCE, Process};
use crate::relay::Relay;

/// Names the `scale0` to try, if it is not to be the one beside this program.
pub(crate) const BINARY: &str = "SCALE0_BIN";

/// The host that clients ask for, which is the service that backends offer.
pub(crate) const HOST: &str = "trial.example";

/// How often something is looked at that cannot be waited for.
const LOOK: Duration = Duration::from_millis(5);

/// What a site is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Brokers; each frontend and each backend dials all.
    pub(crate) brokers: usize,
    /// Frontends.
    pub(crate) frontends: usize,
    /// Backends.
    pub(crate) backends: usize,
    /// Requests at a time of a backend.
    pub(crate) concurrency: u32,
    /// What each request takes there.
    pub(crate) service_time: Duration,
    /// What each message takes from process to process, besides.
    pub(crate) latency: Option<Duration>,
    /// `limits.timeout` of the frontends.
    pub(crate) timeout: Duration,
    /// A host whose requests are given up after another time than that.
    pub(crate) impatient: Option<(&'static str, Duration)>,
    /// Whether every link goes through a relay even without latency, so that its connections can be closed.
    pub(crate) relayed: bool,
    /// Whether all frontends answer at one address, on a socket that the trial has opened as a service manager does; and every second
    /// client opens a connection for each request, as it is the socket's queue that is at stake.
    pub(crate) one_address: bool,
    /// Whether the frontends, and each backend, are on machines of their own, with a cable to each broker. Not with relays.
    pub(crate) apart: bool,
}

impl Plan {
    /// Requests per second that the backends can serve.
    pub(crate) fn capacity(&self) -> f64 {
        self.backends as f64 * f64::from(self.concurrency) / self.service_time.as_secs_f64()
    }
}

/// Whom a broker's socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Frontends dial it.
    Frontends,
    /// Backends dial it.
    Backends,
}

/// A broker, and where its sockets are, by [`Side`]: they keep their ports over restarts.
#[derive(Debug)]
struct Broker {
    process: Option<Process>,
    ports: [u16; 2],
    /// What is in front of them if links go through relays.
    relays: Option<[Relay; 2]>,
}

/// Where a frontend has its sockets from, if not from itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sockets {
    /// From the trial, if all frontends answer at one address.
    OfManager,
    /// From the process before it.
    OfPredecessor,
}

#[derive(Debug)]
struct Frontend {
    process: Process,
    pages: SocketAddr,
}

/// A machine of its own, with a cable to each broker.
#[derive(Debug)]
struct Machine {
    namespace: Namespace,
    cables: Vec<Cable>,
}

/// Where frontends and backends are if they are apart from the brokers.
#[derive(Debug)]
struct Machines {
    /// All frontends.
    front: Machine,
    /// Clients' way to them.
    clients: Cable,
    /// A backend each.
    backs: Vec<Machine>,
}

/// The processes and their files. All end when it is dropped.
#[derive(Debug)]
pub(crate) struct Site {
    // Processes end before their machines.
    brokers: Vec<Broker>,
    frontends: Vec<Frontend>,
    backends: Vec<Option<Process>>,
    machines: Option<Machines>,
    /// What frontends are given if they answer at one address.
    socket: Option<std::net::TcpListener>,
    plan: Plan,
    ledger: Ledger,
    binary: PathBuf,
    folder: TempDir,
}

impl Site {
    /// Starts all processes and waits until every frontend is served.
    pub(crate) async fn start(plan: Plan) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("scale0-trial-").tempdir()?;
        let machines = plan.apart.then(|| Machines::new(&plan)).transpose()?;
        let mut site = Self {
            brokers: Vec::new(),
            frontends: Vec::new(),
            backends: Vec::new(),
            machines,
            socket: plan.one_address.then(one_socket).transpose()?,
            ledger: Ledger::at(folder.path().join("ledger"))?,
            binary: binary()?,
            plan,
            folder,
        };
        for index in 0..site.plan.brokers {
            let broker = site.new_broker().await?;
            site.brokers.push(broker);
            site.start_broker(index).await?;
        }
        for index in 0..site.plan.backends {
            site.backends.push(None);
            site.start_backend(index)?;
        }
        for index in 0..site.plan.backends {
            site.until_registered(index).await?;
        }
        for index in 0..site.plan.frontends {
            let frontend = site.start_frontend(index, Sockets::OfManager).await?;
            site.until_served(frontend.pages).await?;
            site.frontends.push(frontend);
        }
        Ok(site)
    }

    /// What it was made by.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the applications have executed.
    pub(crate) fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Clients of its frontends; so many of a hundred requests are POSTs.
    pub(crate) fn clients(&self, posts: u64) -> Clients {
        let pages = self.frontends.iter().map(|it| it.pages).collect();
        let clients = Clients::new(pages, HOST, posts);
        if self.plan.one_address {
            clients.reconnecting()
        } else {
            clients
        }
    }

    /// The process of this broker.
    pub(crate) fn broker(&mut self, index: usize) -> anyhow::Result<&mut Process> {
        self.brokers[index]
            .process
            .as_mut()
            .context("no such broker")
    }

    /// The process of this backend.
    pub(crate) fn backend(&mut self, index: usize) -> anyhow::Result<&mut Process> {
        self.backends[index].as_mut().context("no such backend")
    }

    /// All processes, by name.
    pub(crate) fn processes(&self) -> Vec<(String, &Process)> {
        let brokers = self.brokers.iter().map(|it| it.process.as_ref());
        let frontends = self.frontends.iter().map(|it| Some(&it.process));
        let backends = self.backends.iter().map(Option::as_ref);
        let all = brokers.chain(frontends).chain(backends).flatten();
        all.map(|process| (process.name().to_owned(), process))
            .collect()
    }

    /// Where this side of a broker is dialled from here.
    pub(crate) fn address(&self, broker: usize, side: Side) -> String {
        format!("tcp://{}", self.dialled(broker, side, None))
    }

    /// The relay to this side of a broker, if links go through relays.
    pub(crate) fn relay(&self, broker: usize, side: Side) -> Option<&Relay> {
        let relays = self.brokers[broker].relays.as_ref()?;
        Some(&relays[side as usize])
    }

    /// The cables between a broker and all frontends; none unless they are apart.
    pub(crate) fn cables_to_frontends(&mut self, broker: usize) -> Vec<&mut Cable> {
        let machines = self.machines.iter_mut();
        machines
            .map(|machines| &mut machines.front.cables[broker])
            .collect()
    }

    /// The cables between a broker and each backend; none unless they are apart.
    pub(crate) fn cables_to_backends(&mut self, broker: usize) -> Vec<&mut Cable> {
        let backs = self
            .machines
            .iter_mut()
            .flat_map(|machines| &mut machines.backs);
        backs.map(|machine| &mut machine.cables[broker]).collect()
    }

    /// Starts this broker, in place of what was there, and waits until it listens.
    pub(crate) async fn start_broker(&mut self, index: usize) -> anyhow::Result<()> {
        let name = format!("broker-{index}");
        let [frontends, backends] = self.brokers[index].ports;
        // Cables have addresses each, and a broker is at the end of several.
        let at = if self.plan.apart {
            Ipv4Addr::UNSPECIFIED
        } else {
            Ipv4Addr::LOCALHOST
        };
        let config = format!(
            r#"
[node]
name = "{name}"
[broker]
frontends = "tcp://{at}:{frontends}"
backends = "tcp://{at}:{backends}"
peers = "ipc://{name}-peers"
[[service]]
name = "{HOST}"
[security]
insecure = {}
[admin]
listen = "127.0.0.1:0"
"#,
            self.plan.apart
        );
        let command = self.up(&name, &config)?;
        let process = Process::start(&name, self.folder.path(), command)?;
        process.line("Stop with").await?;
        self.brokers[index].process = Some(process);
        Ok(())
    }

    /// Starts this backend, in place of what was there.
    pub(crate) fn start_backend(&mut self, index: usize) -> anyhow::Result<()> {
        let name = format!("backend-{index}");
        let machine = self
            .machines
            .as_ref()
            .map(|machines| &machines.backs[index]);
        let mut command = on(machine, std::env::current_exe()?);
        command.args(["app", "--node", &name, "--service", HOST]);
        command
            .arg("--concurrency")
            .arg(self.plan.concurrency.to_string());
        command
            .arg("--service-ms")
            .arg(self.plan.service_time.as_millis().to_string());
        command.arg("--ledger").arg(self.ledger.path());
        for broker in 0..self.plan.brokers {
            let at = self.dialled(broker, Side::Backends, machine);
            command.arg("--broker").arg(format!("tcp://{at}"));
        }
        self.backends[index] = Some(Process::start(&name, self.folder.path(), command)?);
        Ok(())
    }

    /// Waits until every broker has accepted this backend.
    pub(crate) async fn until_registered(&mut self, index: usize) -> anyhow::Result<()> {
        for broker in 0..self.plan.brokers {
            let line = format!("registered broker-{broker}");
            self.backend(index)?.line(&line).await?;
        }
        Ok(())
    }

    /// The sum of a metric of a broker over all its labels, unless the name has some; one that is not there counts as nothing.
    pub(crate) async fn metric(&mut self, broker: usize, name: &str) -> anyhow::Result<f64> {
        let admin = self.broker(broker)?.line("admin").await?;
        let admin = address(&admin)?;
        let asked = Client::new(admin, HOST)
            .ask(&Method::GET, "/metrics", Bytes::new())
            .await;
        let answer = asked.map_err(anyhow::Error::msg)?;
        let page = String::from_utf8_lossy(&answer.content);
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest
                .starts_with(['{', ' '])
                .then(|| rest.rsplit(' ').next());
            value.flatten()?.parse::<f64>().ok()
        });
        Ok(values.sum())
    }

    /// Waits until a metric of a broker is as wanted.
    pub(crate) async fn until_metric(
        &mut self,
        broker: usize,
        name: &str,
        wanted: impl Fn(f64) -> bool,
    ) -> anyhow::Result<()> {
        let wait = async {
            while !wanted(self.metric(broker, name).await?) {
                sleep(LOOK).await;
            }
            Ok(())
        };
        timeout(PATIENCE, wait)
            .await
            .with_context(|| format!("{name} stays as it is"))?
    }

    /// Keeps the files of the processes, and says where.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Tells this frontend to stop, and starts it again when it has; how it ended.
    pub(crate) async fn restart_frontend(&mut self, index: usize) -> anyhow::Result<ExitStatus> {
        let ended = self.frontends[index].process.terminate().await?;
        self.frontends[index] = self.start_frontend(index, Sockets::OfManager).await?;
        Ok(ended)
    }

    /// Starts this frontend beside the one that runs, which hands its sockets over; how that one ended.
    pub(crate) async fn replace_frontend(&mut self, index: usize) -> anyhow::Result<ExitStatus> {
        let next = self.start_frontend(index, Sockets::OfPredecessor).await?;
        let mut before = std::mem::replace(&mut self.frontends[index], next);
        before.process.ended().await
    }

    async fn start_frontend(&self, index: usize, sockets: Sockets) -> anyhow::Result<Frontend> {
        let name = format!("frontend-{index}");
        let host = self
            .machines
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST, |it| it.clients.far());
        let at = match &self.socket {
            Some(socket) => socket.local_addr()?,
            None => (host, 0).into(),
        };
        let machine = self.machines.as_ref().map(|machines| &machines.front);
        let brokers: Vec<String> = (0..self.plan.brokers)
            .map(|broker| format!("tcp://{}", self.dialled(broker, Side::Frontends, machine)))
            .collect();
        let handover = match &self.socket {
            Some(_) => format!("handover = \"{name}.sock\""),
            None => String::new(),
        };
        let config = format!(
            r#"
[node]
name = "{name}"
[frontend]
http = "{at}"
brokers = {brokers:?}
{handover}
[limits]
timeout = "{}ms"
[cache]
store = "none"
[security]
insecure = {}
[log]
access = "off"
"#,
            self.plan.timeout.as_millis(),
            self.plan.apart
        );
        let route = self.plan.impatient.map(|(host, timeout)| {
            let timeout = timeout.as_millis();
            format!(
                "[[route]]\nhost = \"{host}\"\nservice = \"{host}\"\ntimeout = \"{timeout}ms\"\n"
            )
        });
        let mut command = self.up(&name, &(config + &route.unwrap_or_default()))?;
        if let (Some(socket), Sockets::OfManager) = (&self.socket, sockets) {
            command = given(socket, &command)?;
        }
        let process = Process::start(&name, self.folder.path(), command)?;
        let pages = address(&process.line("pages").await?)?;
        Ok(Frontend { process, pages })
    }

    async fn until_served(&self, pages: SocketAddr) -> anyhow::Result<()> {
        let target = format!("/{}", Id::new(u64::MAX, false));
        let mut client = Client::new(pages, HOST);
        let wait = async {
            let is_ok = |status| status == StatusCode::OK;
            while !client
                .ask(&Method::GET, &target, Bytes::new())
                .await
                .is_ok_and(|it| is_ok(it.status))
            {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, wait)
            .await
            .context("the site does not come to serve")
    }

    /// `scale0 up` with this file.
    fn up(&self, name: &str, config: &str) -> anyhow::Result<Command> {
        let file = format!("{name}.toml");
        std::fs::write(self.folder.path().join(&file), config)?;
        let machine = self.machines.as_ref().map(|machines| &machines.front);
        let machine = machine.filter(|_| name.starts_with("frontend"));
        let mut command = on(machine, self.binary.clone());
        command.args(["up", "--config", &file]);
        Ok(command)
    }

    /// A broker on ports that are free now; it takes them at once, and again after each restart.
    async fn new_broker(&self) -> anyhow::Result<Broker> {
        let ports = [free_port().await?, free_port().await?];
        let relays = match self.plan.latency {
            None if !self.plan.relayed => None,
            latency => {
                let relay = |port| {
                    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    Relay::start(to, latency.unwrap_or_default())
                };
                Some([relay(ports[0]).await?, relay(ports[1]).await?])
            }
        };
        Ok(Broker {
            process: None,
            ports,
            relays,
        })
    }

    /// Where this side of a broker is dialled from this machine.
    fn dialled(&self, broker: usize, side: Side, machine: Option<&Machine>) -> SocketAddr {
        let port = self.brokers[broker].ports[side as usize];
        match (self.relay(broker, side), machine) {
            (Some(relay), _) => relay.address(),
            (None, Some(machine)) => (machine.cables[broker].near(), port).into(),
            (None, None) => (Ipv4Addr::LOCALHOST, port).into(),
        }
    }
}

impl Machines {
    fn new(plan: &Plan) -> anyhow::Result<Self> {
        let mut number = 0..;
        let mut machine = |name: &str| {
            let namespace = Namespace::new(name)?;
            let cables = number
                .by_ref()
                .take(plan.brokers)
                .map(|number| namespace.cable(number));
            let cables = cables.collect::<anyhow::Result<_>>()?;
            anyhow::Ok(Machine { namespace, cables })
        };
        let front = machine("front")?;
        let backs = (0..plan.backends).map(|index| machine(&format!("back-{index}")));
        let backs = backs.collect::<anyhow::Result<_>>()?;
        let clients = front.namespace.cable(number.next().unwrap_or_default())?;
        Ok(Self {
            front,
            clients,
            backs,
        })
    }
}

/// A port that is free on every address now.
async fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    Ok(listener.local_addr()?.port())
}

/// The `scale0` that is tried.
fn binary() -> anyhow::Result<PathBuf> {
    let binary = match std::env::var_os(BINARY) {
        Some(named) => std::path::absolute(named)?,
        None => std::env::current_exe()?.with_file_name("scale0"),
    };
    let mut help = String::new();
    write!(
        help,
        "there is no {}: build it by `cargo build -p scale0`, with --release if this program is; or name another one by {BINARY}",
        binary.display()
    )?;
    ensure!(binary.is_file(), help);
    Ok(binary)
}

/// A command on a machine of its own, if it has one.
fn on(machine: Option<&Machine>, program: PathBuf) -> Command {
    let mut command = match machine {
        None => Command::new(program),
        Some(machine) => {
            let prefix = machine.namespace.prefix();
            let mut command = Command::new(&prefix[0]);
            command.args(&prefix[1..]).arg(program);
            command
        }
    };
    command.stdin(Stdio::null());
    command
}

/// The socket that all frontends are given.
fn one_socket() -> anyhow::Result<std::net::TcpListener> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
}

/// The same command, which is given a socket as a service manager does it: as descriptor 3.
fn given(socket: &std::net::TcpListener, command: &Command) -> anyhow::Result<Command> {
    let command = command.as_std();
    let mut given = Command::new("sh");
    given
        .args([
            "-c",
            "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"",
            "sh",
        ])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(OwnedFd::from(socket.try_clone()?));
    Ok(given)
}

/// The address in `  http://127.0.0.1:8080  and more`.
fn address(line: &str) -> anyhow::Result<SocketAddr> {
    let url = line.split_whitespace().next().unwrap_or_default();
    let address = url.trim_start_matches("http://").parse();
    address.with_context(|| format!("no address: {line:?}"))
}
