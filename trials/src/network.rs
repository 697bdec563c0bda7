//! Machines of their own on this one: network namespaces, and cables between them and us that can be cut.
//!
//! Needs root and `ip` of iproute2. What is made is taken away again when dropped; what a killed trial has left, by the next.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;

/// How namespaces of trials are called: this, the process that made them, their name.
const PREFIX: &str = "scale0-trial";

/// Cables that one process can have. Near ends have addresses in 10.77.0.0/16, far ends in 10.78.0.0/16.
const CABLES: usize = 16;

/// How a cable is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cut {
    /// The far end's interface goes down: the carrier is lost at both, and the far kernel refuses to send.
    Down,
    /// What either end sends is lost, and neither kernel knows.
    Silent,
}

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

/// A cable between us and a namespace.
#[derive(Debug)]
pub(crate) struct Cable {
    namespace: String,
    near: Ipv4Addr,
    far: Ipv4Addr,
    near_device: String,
    far_device: String,
    cut: Option<Cut>,
}

impl Namespace {
    /// Makes one. The name is told apart from those of other trials that run now.
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        sweep()?;
        let name = format!("{PREFIX}-{}-{name}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// What is put in front of a command so that it runs in there.
    pub(crate) fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name]
            .map(str::to_owned)
            .into()
    }

    /// Lays a cable to it. The number is the cable's own in this process.
    pub(crate) fn cable(&self, number: usize) -> anyhow::Result<Cable> {
        ensure!(number < CABLES, "no more than {CABLES} cables");
        let process = std::process::id() as usize;
        // Of the processes that run at a time hardly two are the same modulo 4096; if they are, `ip` refuses and says so.
        let net = u16::try_from(process % 4096 * CABLES + number)?;
        let [high, low] = net.to_be_bytes();
        let cable = Cable {
            namespace: self.name.clone(),
            near: Ipv4Addr::new(10, 77, high, low),
            far: Ipv4Addr::new(10, 78, high, low),
            near_device: format!("s0n{process}-{number}"),
            far_device: format!("s0f{process}-{number}"),
            cut: None,
        };
        let Cable {
            near,
            far,
            near_device,
            far_device,
            ..
        } = &cable;
        let (near, far) = (near.to_string(), far.to_string());
        let there = self.name.as_str();
        ip(&[
            "link",
            "add",
            near_device,
            "type",
            "veth",
            "peer",
            "name",
            far_device,
            "netns",
            there,
        ])?;
        ip(&["address", "add", &near, "peer", &far, "dev", near_device])?;
        ip(&[
            "-n", there, "address", "add", &far, "peer", &near, "dev", far_device,
        ])?;
        ip(&["link", "set", near_device, "up"])?;
        ip(&["-n", there, "link", "set", far_device, "up"])?;
        Ok(cable)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Its cables go with it. What cannot be deleted now is swept by the next trial.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

impl Cable {
    /// Our end.
    pub(crate) fn near(&self) -> Ipv4Addr {
        self.near
    }

    /// The namespace's end.
    pub(crate) fn far(&self) -> Ipv4Addr {
        self.far
    }

    /// Cuts it.
    pub(crate) fn cut(&mut self, how: Cut) -> anyhow::Result<()> {
        self.heal()?;
        match how {
            Cut::Down => ip(&[
                "-n",
                &self.namespace,
                "link",
                "set",
                &self.far_device,
                "down",
            ])?,
            Cut::Silent => {
                // Frames for an address that nobody on the cable has: they leave, and are dropped on arrival.
                for (place, device, neighbour) in self.ends() {
                    let nobody = ["lladdr", "02:00:00:00:00:01", "nud", "permanent"];
                    let mut words = place;
                    words.extend(["neigh", "replace", &neighbour, "dev", device]);
                    words.extend(nobody);
                    ip(&words)?;
                }
            }
        }
        self.cut = Some(how);
        Ok(())
    }

    /// Makes it whole again, if it is cut.
    pub(crate) fn heal(&mut self) -> anyhow::Result<()> {
        match self.cut.take() {
            None => {}
            Some(Cut::Down) => ip(&["-n", &self.namespace, "link", "set", &self.far_device, "up"])?,
            Some(Cut::Silent) => {
                for (place, device, neighbour) in self.ends() {
                    let mut words = place;
                    words.extend(["neigh", "delete", &neighbour, "dev", device]);
                    ip(&words)?;
                }
            }
        }
        Ok(())
    }

    /// For either end: where `ip` works, its device, and the address of the other.
    fn ends(&self) -> [(Vec<&str>, &str, String); 2] {
        [
            (vec![], &self.near_device, self.far.to_string()),
            (
                vec!["-n", &self.namespace],
                &self.far_device,
                self.near.to_string(),
            ),
        ]
    }
}

/// Why this machine can have no namespaces, if it cannot.
pub(crate) fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root may make network namespaces".into());
    }
    match Namespace::new("probe").and_then(|probe| probe.cable(CABLES - 1).map(drop)) {
        Ok(()) => None,
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Deletes the namespaces of trials that are over.
fn sweep() -> anyhow::Result<()> {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let listed = listed.context("`ip` of iproute2")?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').nth(1));
        if let Some(process) = process
            && !std::path::Path::new("/proc").join(process).exists()
        {
            ip(&["netns", "delete", name])?;
        }
    }
    Ok(())
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("ip").args(words).output();
    let done = done.context("`ip` of iproute2")?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr);
        bail!("ip {}: {}", words.join(" "), why.trim());
    }
    Ok(())
}
