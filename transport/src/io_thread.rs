//! The bridge for threads of their own: waiting on sockets and on whoever hands the thread work.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crate::clock;

/// A waiter that nothing has woken looks for itself after this long, here and in the bridge to tokio. It never should find
/// anything; that it does is counted.
pub(crate) const BACKSTOP: Duration = Duration::from_millis(75);

/// Something that news may come from.
pub(crate) trait Source {
    /// Whether there is something to receive, or room where a send was refused. After a no, the next such news makes the
    /// descriptor readable or wakes who was registered.
    fn has_news(&self) -> bool;
    /// Forget what is known: the descriptor has become readable.
    fn look_again(&self);
    /// `None`: it wakes otherwise.
    fn descriptor(&self) -> Option<RawFd>;
}

/// Wakes the one thread that sits in [`crate::Links::wait`] or [`crate::wait`]; a wake-up before it sits down is not lost.
/// While the thread is busy a wake-up costs one atomic operation and no system call.
#[derive(Clone, Debug)]
pub struct ThreadWaker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: AtomicU8,
    event: File,
}

/// → `ASLEEP` by the thread, → `WOKEN` by a waker.
const AWAKE: u8 = 0;
/// → `AWAKE` by the thread, → `WOKEN` by a waker, which then makes `event` readable.
const ASLEEP: u8 = 1;
/// → `AWAKE` by the thread, which does not fall asleep over it.
const WOKEN: u8 = 2;

impl ThreadWaker {
    /// A waker for one thread.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                state: AtomicU8::new(AWAKE),
                event: eventfd()?,
            }),
        })
    }

    /// Lets the wait that is going on, or the next, end at once.
    pub fn wake(&self) {
        self.inner.wake_thread();
    }

    /// The same for whoever wakes tasks.
    #[must_use]
    pub fn to_waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.inner))
    }

    /// Sleeps until a descriptor is readable, a waker wakes or the time is over.
    fn sleep(&self, descriptors: &mut Vec<libc::pollfd>, timeout: Duration) -> io::Result<Woken> {
        let inner = &*self.inner;
        // All that a waker did before `wake` is seen after this exchange or after the one below.
        if inner
            .state
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            inner.state.swap(AWAKE, Ordering::AcqRel);
            return Ok(Woken::Called);
        }
        descriptors.push(readable(inner.event.as_raw_fd()));
        let polled = poll(descriptors, timeout);
        let woken = inner.state.swap(AWAKE, Ordering::AcqRel) == WOKEN;
        if descriptors.pop().is_some_and(|event| event.revents != 0) {
            // Empty it. It may be empty already: the waker of an earlier sleep writes a moment after it set the state.
            let _ = (&inner.event).read(&mut [0; 8]);
        }
        Ok(match polled {
            _ if woken => Woken::Called,
            Ok(0) => Woken::Late,
            Ok(_) => Woken::News,
            // A signal: the caller may want to look what it was about.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Woken::Called,
            Err(error) => return Err(error),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Called,
    News,
    Late,
}

impl Inner {
    fn wake_thread(&self) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            // It fails only when the counter is full, which then is readable as well.
            let _ = (&self.event).write(&1_u64.to_ne_bytes());
        }
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_thread();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_thread();
    }
}

/// Waits until a source has news, a waker wakes or the deadline has passed. `missed` hears of sources that had news of which
/// nobody had told.
pub(crate) fn wait<'a, S: Source + 'a>(
    sources: &(impl Iterator<Item = &'a S> + Clone),
    waker: &ThreadWaker,
    deadline: Option<Instant>,
    missed: impl FnMut(&S),
) -> io::Result<()> {
    let mut descriptors = Vec::new();
    loop {
        if sources.clone().any(Source::has_news) {
            return Ok(());
        }
        let left = match deadline {
            Some(deadline) => deadline.saturating_duration_since(clock::now()),
            None => BACKSTOP,
        };
        if left.is_zero() {
            return Ok(());
        }
        descriptors.clear();
        descriptors.extend(sources.clone().filter_map(Source::descriptor).map(readable));
        match waker.sleep(&mut descriptors, left.min(BACKSTOP))? {
            Woken::Called => return Ok(()),
            Woken::News => sources.clone().for_each(Source::look_again),
            Woken::Late if left < BACKSTOP => return Ok(()),
            Woken::Late => {
                look_for_missed(sources.clone(), missed);
                return Ok(());
            }
        }
    }
}

/// What the backstop does.
pub(crate) fn look_for_missed<'a, S: Source + 'a>(
    sources: impl Iterator<Item = &'a S>,
    mut missed: impl FnMut(&S),
) {
    for source in sources {
        source.look_again();
        if source.has_news() {
            missed(source);
        }
    }
}

const fn readable(descriptor: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd: descriptor,
        events: libc::POLLIN,
        revents: 0,
    }
}

#[expect(
    unsafe_code,
    reason = "the standard library cannot wait for descriptors"
)]
fn poll(descriptors: &mut [libc::pollfd], timeout: Duration) -> io::Result<usize> {
    // A whole millisecond more than too early, or the caller would turn around until the time has come.
    let milliseconds = i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
    // SAFETY: a slice of `pollfd` and its length.
    let ready = unsafe {
        libc::poll(
            descriptors.as_mut_ptr(),
            descriptors.len() as libc::nfds_t,
            milliseconds,
        )
    };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}

#[expect(unsafe_code, reason = "the standard library has no eventfd")]
fn eventfd() -> io::Result<File> {
    // SAFETY: no pointers.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if descriptor == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Sleeps until `done`. A lost wake-up shows as a sleep that lasts too long.
    fn sleep_until(waker: &ThreadWaker, done: impl Fn() -> bool) {
        while !done() {
            assert_eq!(waker.sleep(&mut Vec::new(), LONG).unwrap(), Woken::Called);
        }
    }

    #[test]
    fn no_wake_up_is_lost_when_many_wake_one() {
        const EACH: u64 = 50_000;
        let waker = ThreadWaker::new().unwrap();
        let work = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        // As a queue would: first the work, then the wake-up, which must not be the one to order them.
                        work.fetch_add(1, Ordering::Relaxed);
                        waker.wake();
                    }
                });
            }
            sleep_until(&waker, || work.load(Ordering::Relaxed) == 3 * EACH);
        });
    }

    #[test]
    fn no_wake_up_is_lost_when_two_wake_each_other() {
        const TURNS: u64 = 20_000;
        let ball = AtomicU64::new(0);
        let wakers = [ThreadWaker::new().unwrap(), ThreadWaker::new().unwrap()];
        thread::scope(|scope| {
            for (me, [own, other]) in [(0, [0, 1]), (1, [1, 0])] {
                let (ball, own, other) = (&ball, &wakers[own], &wakers[other]);
                scope.spawn(move || {
                    for turn in (me..TURNS).step_by(2) {
                        sleep_until(own, || ball.load(Ordering::Relaxed) == turn);
                        ball.store(turn + 1, Ordering::Relaxed);
                        other.wake();
                    }
                });
            }
        });
    }

    #[test]
    fn a_wake_up_before_the_sleep_ends_it_at_once_and_only_once() {
        let waker = ThreadWaker::new().unwrap();
        waker.wake();
        waker.wake();
        assert_eq!(waker.sleep(&mut Vec::new(), LONG).unwrap(), Woken::Called);
        let short = Duration::from_millis(1);
        assert_eq!(waker.sleep(&mut Vec::new(), short).unwrap(), Woken::Late);
    }
}
