//! What a process has cost.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time of all threads of a process, in user and kernel mode. That of threads which have ended is missing.
pub(crate) fn of(process: u32) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // The first number is nanoseconds on a processor; `stat` has hundredths of a second only.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else {
            // It has ended meanwhile.
            continue;
        };
        let nanoseconds = text.split(' ').next().context("schedstat is empty")?;
        total += Duration::from_nanos(nanoseconds.parse()?);
    }
    Ok(total)
}
