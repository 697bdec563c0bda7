//! Descriptors that a service manager has opened for this process before it began (systemd's socket activation).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first of them; those before are standard input, output and error.
const FIRST: RawFd = 3;

/// More than any node listens on, and less than a process may have open.
const MOST: usize = 128;

/// A descriptor that was open before this process began. It is closed in programs that this one starts.
#[derive(Debug)]
pub struct Inherited {
    /// The descriptor.
    pub descriptor: OwnedFd,
    /// As whoever opened it has it: `FileDescriptorName=` of a unit; empty if it has none.
    pub name: String,
    /// The number that it came under.
    pub number: RawFd,
}

/// Why what a service manager says of descriptors cannot be believed. None is used then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// It is not how many there are.
    #[error("LISTEN_FDS is {0:?}: expected a number of at most {MOST}")]
    Count(String),
    /// It was said to be open.
    #[error("LISTEN_FDS promises {count} descriptors, and number {number} is not open")]
    NotOpen {
        /// How many.
        count: usize,
        /// Which.
        number: RawFd,
    },
}

/// What `LISTEN_FDS` and `LISTEN_FDNAMES` promise, where `LISTEN_PID` says that this process is meant. The first call takes them,
/// later ones find nothing.
///
/// The variables stay: who starts other programs need not remove them, as they name this process.
///
/// # Errors
/// See [`InheritError`].
pub fn inherited() -> Result<Vec<Inherited>, InheritError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (pid, count) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
    let promised = promised(
        &pid,
        &count,
        &variable("LISTEN_FDNAMES"),
        std::process::id(),
    )?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let count = promised.len();
    let taken = promised.into_iter().map(|(number, name)| {
        let descriptor = take(number).ok_or(InheritError::NotOpen { count, number })?;
        Ok(Inherited {
            descriptor,
            name,
            number,
        })
    });
    taken.collect()
}

/// Owns a descriptor that this process was promised, if it is open. Once for each.
#[expect(unsafe_code, reason = "a number becomes a descriptor")]
fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: It only sets a flag of a descriptor, and fails for a number that is none.
    let flagged = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: It is open, and by the protocol this process's to use; `TAKEN` says that nobody has taken it before.
    (flagged != -1).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// The numbers and names of the descriptors that are for the process of this id.
fn promised(
    pid: &str,
    count: &str,
    names: &str,
    own: u32,
) -> Result<Vec<(RawFd, String)>, InheritError> {
    if pid.parse() != Ok(own) {
        return Ok(Vec::new());
    }
    let number = count.parse().ok().filter(|&count: &usize| count <= MOST);
    let number = number.ok_or_else(|| InheritError::Count(count.to_owned()))?;
    let names = names.split(':').chain(std::iter::repeat(""));
    let numbered = (FIRST..).zip(names).take(number);
    Ok(numbered
        .map(|(number, name)| (number, name.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_taken_by_the_process_they_are_for_alone() {
        let of = |pid| promised(pid, "2", "http:admin", 7).unwrap();
        let both = [(3, "http".to_owned()), (4, "admin".to_owned())];
        assert_eq!(of("7"), both);
        for other in ["", "8", "70", "7 ", "-7"] {
            assert_eq!(of(other), [], "{other:?}");
        }
    }

    #[test]
    fn names_may_be_fewer_and_more_than_descriptors() {
        let named = |names| {
            let promised = promised("7", "2", names, 7).unwrap();
            promised.into_iter().map(|(_, name)| name)
        };
        assert!(named("").eq(["", ""]));
        assert!(named("http").eq(["http", ""]));
        assert!(named("a::b").eq(["a", ""]));
    }

    #[test]
    fn a_number_of_descriptors_that_nobody_has_is_refused() {
        for count in ["", "two", "-1", "129", "18446744073709551615"] {
            promised("7", count, "", 7).unwrap_err();
        }
        assert_eq!(promised("7", "0", "", 7).unwrap(), []);
        assert_eq!(promised("7", "128", "", 7).unwrap().len(), MOST);
    }
}
