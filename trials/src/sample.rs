//! What the kernel says about a process.

use std::time::Duration;

use anyhow::Context as _;
use procfs::process::Process;
use rustix::process::Pid;
use tokio::time::{Instant, sleep};

/// What has been closed is given back by other threads: how long is waited for a process to have as little as it had.
const GIVEN_BACK: Duration = Duration::from_secs(5);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(2);

/// What a process uses, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Memory that is resident, in bytes.
    pub(crate) resident: u64,
    /// The most memory that was ever resident, in bytes.
    pub(crate) peak: u64,
    /// Processor time that its threads have used so far.
    pub(crate) processor: Duration,
    /// Threads.
    pub(crate) threads: u64,
    /// Open files and sockets.
    pub(crate) descriptors: usize,
    /// How often a thread has given up its processor of its own will, to wait: each is one time woken.
    pub(crate) switches: u64,
}

impl Sample {
    /// Of this process, now.
    pub(crate) fn of(pid: Pid) -> anyhow::Result<Self> {
        let process = Process::new(pid.as_raw_pid())?;
        let status = process.status()?;
        let (mut switches, mut nanoseconds) = (0, 0);
        for task in process.tasks()? {
            // A thread may end while we count. What it used is not counted then; ours live as long as their process.
            let Ok(task) = task else { continue };
            let its = task.status().ok().and_then(|it| it.voluntary_ctxt_switches);
            switches += its.unwrap_or_default();
            // Finer than `stat`, whose ticks are of 10 ms.
            nanoseconds += task.schedstat().map_or(0, |it| it.sum_exec_runtime);
        }
        Ok(Self {
            resident: status.vmrss.context("no VmRSS")? * 1024,
            peak: status.vmhwm.context("no VmHWM")? * 1024,
            processor: Duration::from_nanos(nanoseconds),
            threads: status.threads,
            descriptors: process.fd_count()?,
            switches,
        })
    }
}

impl Sample {
    /// Of this process when it has no more descriptors and threads than it had then, or when it has not come to that in time.
    pub(crate) async fn settled(pid: Pid, then: &Self) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            let now = Self::of(pid)?;
            if now.has_no_more_than(then) || GIVEN_BACK < begun.elapsed() {
                return Ok(now);
            }
            sleep(LOOK).await;
        }
    }

    /// Whether it has no more descriptors and threads than then.
    pub(crate) fn has_no_more_than(&self, then: &Self) -> bool {
        self.descriptors <= then.descriptors && self.threads <= then.threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_counts() {
        let own = rustix::process::getpid();
        let before = Sample::of(own).unwrap();
        let files: Vec<_> = (0..64)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        let after = Sample::of(own).unwrap();
        // Other tests open and close some of theirs.
        assert!(
            before.descriptors + 32 <= after.descriptors,
            "{before:?} {after:?}"
        );
        assert!(0 < after.resident && after.resident <= after.peak && 0 < after.threads);
        drop(files);
    }
}
