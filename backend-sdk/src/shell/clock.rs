//! The one place that asks what time it is, and how much CPU was used.

use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "this is the shell's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The kernel counts a process's time in these; it has been so on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// How often the process's time is read: as often as heartbeats tell it.
const EVERY: Duration = Duration::from_secs(1);

/// The process's use of CPU.
pub(crate) struct CpuMeter {
    read_at: Option<Instant>,
    used: Duration,
    permille: u16,
}

impl CpuMeter {
    pub(crate) const fn new() -> Self {
        Self {
            read_at: None,
            used: Duration::ZERO,
            permille: 0,
        }
    }

    /// In thousandths of one core, over the last second or so. 0 where the system does not tell.
    pub(crate) fn permille(&mut self, now: Instant) -> u16 {
        let since = self.read_at.map(|at| now.saturating_duration_since(at));
        if since.is_some_and(|since| since < EVERY) {
            return self.permille;
        }
        self.read_at = Some(now);
        let used = used().unwrap_or(self.used);
        if let Some(since) = since {
            let permille = used.saturating_sub(self.used).as_millis() * 1_000 / since.as_millis();
            self.permille = u16::try_from(permille).unwrap_or(u16::MAX);
        }
        self.used = used;
        self.permille
    }
}

/// CPU time of this process in user and kernel mode: fields 14 and 15 of `/proc/self/stat` (proc(5)), of which the second may hold
/// blanks within parentheses.
fn used() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user + TICK * system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen_to() {
        let start = now();
        let before = used().unwrap();
        while used().unwrap() < before + Duration::from_millis(50) {}
        let mut meter = CpuMeter::new();
        assert_eq!(meter.permille(start), 0, "nothing to compare with yet");
        meter.used = before;
        assert!(40 <= meter.permille(start + EVERY));
    }
}
