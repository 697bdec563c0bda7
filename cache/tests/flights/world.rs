//! A deterministic executor: one thread, a virtual clock, and an eye for tasks that nobody wakes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

/// Another number in every run.
pub(crate) fn any_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Shared by all tasks of one test.
#[derive(Clone)]
pub(crate) struct World {
    shared: Rc<Shared>,
}

struct Shared {
    epoch: Instant,
    elapsed: Cell<Duration>,
    timers: RefCell<BTreeMap<(Duration, usize), Waker>>,
    next_timer: Cell<usize>,
    spawned: RefCell<Vec<(&'static str, Work)>>,
}

struct Task {
    name: &'static str,
    work: Option<Work>,
    woken: Arc<Woken>,
    polls: usize,
}

/// The tasks that may run, in the order in which they were woken.
type Ready = Arc<Mutex<VecDeque<usize>>>;

struct Woken {
    task: usize,
    is_ready: AtomicBool,
    ready: Ready,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap().push_back(self.task);
        }
    }
}

/// "Drop the task that was spawned as number so, after so many polls."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DropAt {
    pub(crate) task: usize,
    pub(crate) polls: usize,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Run {
    /// How often each task was polled before it ended or was dropped.
    pub(crate) polls: Vec<usize>,
    /// Tasks that were neither done nor ever to be woken again.
    pub(crate) orphans: Vec<&'static str>,
}

impl World {
    pub(crate) fn new() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the tests' epoch; from here on time is virtual"
        )]
        let epoch = Instant::now();
        let shared = Shared {
            epoch,
            elapsed: Cell::default(),
            timers: RefCell::default(),
            next_timer: Cell::default(),
            spawned: RefCell::default(),
        };
        Self {
            shared: Rc::new(shared),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.shared.epoch + self.shared.elapsed.get()
    }

    pub(crate) fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000) + self.shared.elapsed.get()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.elapsed.get()
    }

    pub(crate) fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + 'static) {
        self.shared
            .spawned
            .borrow_mut()
            .push((name, Box::pin(work)));
    }

    /// Wakes `cx` at that time, or soon if it has passed.
    pub(crate) fn wake_at(&self, cx: &Context<'_>, time: Instant) {
        let number = self.shared.next_timer.get();
        self.shared.next_timer.set(number + 1);
        let due = time.saturating_duration_since(self.shared.epoch);
        self.shared
            .timers
            .borrow_mut()
            .insert((due, number), cx.waker().clone());
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        let until = self.now() + duration;
        let mut registered = false;
        poll_fn(|cx| {
            if until <= self.now() && registered {
                return Poll::Ready(());
            }
            registered = true;
            self.wake_at(cx, until);
            Poll::Pending
        })
        .await;
    }

    /// An await point that is over at once.
    pub(crate) async fn step(&self) {
        self.sleep(Duration::ZERO).await;
    }

    /// Runs until nothing moves any more. `choose` picks one of the tasks that may run.
    pub(crate) fn run(
        &self,
        drops: &[DropAt],
        mut choose: impl FnMut(usize) -> usize,
        mut watch: impl FnMut(),
    ) -> Run {
        let mut tasks: Vec<Task> = Vec::new();
        let ready = Ready::default();
        loop {
            for (name, work) in self.shared.spawned.borrow_mut().drain(..) {
                let task = tasks.len();
                let woken = Arc::new(Woken {
                    task,
                    is_ready: false.into(),
                    ready: Arc::clone(&ready),
                });
                Arc::clone(&woken).wake();
                tasks.push(Task {
                    name,
                    work: Some(work),
                    woken,
                    polls: 0,
                });
            }
            for drop_at in drops {
                if let Some(task) = tasks.get_mut(drop_at.task)
                    && task.polls == drop_at.polls
                {
                    task.work = None;
                }
            }
            let count = ready.lock().unwrap().len();
            if count == 0 {
                if self.shared.spawned.borrow().is_empty() && !self.advance() {
                    break;
                }
                continue;
            }
            let chosen = ready.lock().unwrap().remove(choose(count) % count).unwrap();
            let task = &mut tasks[chosen];
            task.woken.is_ready.store(false, Ordering::Relaxed);
            let Some(work) = &mut task.work else { continue };
            task.polls += 1;
            let waker = Waker::from(Arc::clone(&task.woken));
            if work
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
            {
                task.work = None;
            }
            watch();
        }
        let orphans = tasks
            .iter()
            .filter(|task| task.work.is_some())
            .map(|task| task.name)
            .collect();
        Run {
            polls: tasks.iter().map(|task| task.polls).collect(),
            orphans,
        }
    }

    /// To the next timer; whether there is one.
    fn advance(&self) -> bool {
        let mut timers = self.shared.timers.borrow_mut();
        let Some((&(due, _), _)) = timers.first_key_value() else {
            return false;
        };
        self.shared.elapsed.set(self.shared.elapsed.get().max(due));
        while let Some(timer) = timers.first_entry() {
            if timer.key().0 != due {
                break;
            }
            timer.remove().wake();
        }
        true
    }
}
