//! A real process under the trial's hand.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// What starting, ending or answering may take on a busy machine. It is no measure of speed, only of being stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// What a process has printed so far.
#[derive(Debug, Default)]
struct Output {
    lines: Vec<String>,
    /// Nothing will follow.
    ended: bool,
}

/// A process with a name. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    output: watch::Receiver<Output>,
}

impl Process {
    /// Starts it in `folder`, where what it writes to its standard error is added to `NAME.stderr`. Its standard input is what the
    /// command says.
    pub(crate) fn start(name: &str, folder: &Path, mut command: Command) -> anyhow::Result<Self> {
        let errors = File::options()
            .create(true)
            .append(true)
            .open(folder.join(format!("{name}.stderr")))?;
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("SCALE0_") {
                command.env_remove(variable);
            }
        }
        command
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let printed = child.stdout.take().context("its output is piped")?;
        let (tell, output) = watch::channel(Output::default());
        tokio::spawn(collect(printed, tell));
        Ok(Self {
            name: name.to_owned(),
            child,
            output,
        })
    }

    /// The first line it has printed, or will print, that begins like this, without that beginning.
    ///
    /// # Errors
    /// When it ends before, or does not print it for [`PATIENCE`].
    pub(crate) async fn line(&self, beginning: &str) -> anyhow::Result<String> {
        let mut output = self.output.clone();
        let found = |output: &Output| {
            let mut rests = output.lines.iter();
            rests.find_map(|line| Some(line.trim_start().strip_prefix(beginning)?.to_owned()))
        };
        let is_there = output.wait_for(|output| output.ended || found(output).is_some());
        if let Ok(Ok(output)) = timeout(PATIENCE, is_there).await
            && let Some(line) = found(&output)
        {
            return Ok(line);
        }
        bail!(
            "{} has not printed {beginning:?}; see what it wrote to its standard error",
            self.name
        )
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub(crate) fn pid(&self) -> anyhow::Result<Pid> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw)
            .with_context(|| format!("{} is no more", self.name))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends it without a word of warning.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not end", self.name))??)
    }
}

async fn collect(printed: ChildStdout, tell: watch::Sender<Output>) {
    let mut printed = BufReader::new(printed).lines();
    while let Ok(Some(line)) = printed.next_line().await {
        tell.send_modify(|output| output.lines.push(line));
    }
    tell.send_modify(|output| output.ended = true);
}
