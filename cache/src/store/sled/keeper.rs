//! The thread that keeps a store: it opens what there is, begins generations, drops others, and carries records over. One thread,
//! so that none of it happens twice.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::generation::{self, Generation};
use super::generations::{Generations, Order, Pair};
use super::value::Body;
use crate::key::CacheKey;

/// The keeper looks after things at least this often.
const TICK: Duration = Duration::from_secs(1);

/// Opens what there is, does as it is asked until it is told to stop, and lets go of the databases.
pub(super) fn keep(generations: &Generations, orders: &Receiver<Order>) {
    let mut keeper = Keeper {
        generations,
        next: 0,
        rests: false,
    };
    keeper.open_what_there_is();
    let mut tick = now() + TICK;
    while !generations.is_stopped() {
        match orders.recv_timeout(tick.saturating_duration_since(now())) {
            Ok(Order::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Order::CarryOver(key)) => keeper.carry_over(&key),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // Also where orders come without a pause.
        let is_tick = tick <= now();
        if is_tick {
            keeper.rests = false;
            tick = now() + TICK;
        }
        keeper.look(is_tick);
    }
    generations.close();
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the keeper's thread"
)]
fn now() -> Instant {
    Instant::now()
}

struct Keeper<'a> {
    generations: &'a Generations,
    /// The number of the next generation.
    next: u64,
    /// A generation could not be begun, or not be dropped; that is not tried again before the next tick.
    rests: bool,
}

impl Keeper<'_> {
    fn open_what_there_is(&mut self) {
        let all = self.generations;
        let mut numbers = Vec::new();
        let mut leftovers = Vec::new();
        for entry in fs::read_dir(&all.directory).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_str().unwrap_or_default();
            // Not one that was put aside either: what takes its number could not be put aside while that is still there.
            let next = generation::number_of_any(name).map_or(0, |number| number + 1);
            self.next = self.next.max(next);
            if path
                .extension()
                .is_some_and(|ending| ending == generation::GONE)
            {
                leftovers.push(path);
            } else if let Some(number) = generation::number(name) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        let newest = numbers.pop();
        let previous = numbers.pop();
        // Both at once, and one limit for both.
        let deadline = now() + all.open_limit;
        let openings = [newest, previous]
            .map(|number| number.map(|number| (number, self.begin_opening(number))));
        let [newest, previous] = openings.map(|opening| {
            opening.and_then(|(number, opening)| {
                self.finish_opening(number, opening, deadline).map(Arc::new)
            })
        });
        let newest = newest.or_else(|| self.open_fresh().map(Arc::new));
        all.settle(Pair { newest, previous });
        for number in numbers {
            generation::discard(&all.directory.join(generation::name(number)));
        }
        for leftover in leftovers {
            generation::remove(&leftover);
        }
    }

    /// Opens a generation on a thread that may hang.
    fn begin_opening(&self, number: u64) -> Receiver<io::Result<Generation>> {
        let (sender, receiver) = sync_channel(1);
        let directory = self.generations.directory.clone();
        let space = Arc::clone(&self.generations.space);
        let counters = Arc::clone(&self.generations.counters);
        let open = move || {
            let open = || Generation::open(&directory, number, &space, &counters);
            let opened = catch_unwind(AssertUnwindSafe(open));
            let opened = opened.unwrap_or_else(|_| Err(io::Error::other("sled panicked")));
            if let Err(unwanted) = sender.send(opened)
                && let Ok(generation) = unwanted.0
            {
                generation.retire();
            }
        };
        // Without a thread the sender is dropped, which the receiver sees.
        let _ = thread::Builder::new()
            .name("sled-open".to_owned())
            .spawn(open);
        receiver
    }

    /// `None`: it could not be opened, and is gone.
    fn finish_opening(
        &self,
        number: u64,
        opening: Receiver<io::Result<Generation>>,
        deadline: Instant,
    ) -> Option<Generation> {
        let all = self.generations;
        let opened = opening.recv_timeout(deadline.saturating_duration_since(now()));
        // From here on the thread's generation is unwanted.
        drop(opening);
        let why = match opened {
            Ok(Ok(generation)) => return Some(generation),
            Ok(Err(error)) => {
                all.counters.dropped_unopenable.add(1);
                error.to_string()
            }
            Err(RecvTimeoutError::Timeout) => {
                all.counters.dropped_slow.add(1);
                format!("not within {:?}", all.open_limit)
            }
            Err(RecvTimeoutError::Disconnected) => {
                all.counters.dropped_unopenable.add(1);
                "there is no thread to open it".to_owned()
            }
        };
        let name = generation::name(number);
        tracing::warn!(
            database = name,
            why,
            "a database of the store could not be opened: it is dropped"
        );
        generation::discard(&all.directory.join(name));
        None
    }

    /// Makes a generation of the next number.
    fn open_fresh(&mut self) -> Option<Generation> {
        let number = self.next;
        self.next += 1;
        let deadline = now() + self.generations.open_limit;
        let opening = self.begin_opening(number);
        self.finish_opening(number, opening, deadline)
    }

    /// Begins a generation after the newest one.
    fn begin(&mut self) -> bool {
        if self.rests {
            return false;
        }
        let Some(fresh) = self.open_fresh() else {
            self.rests = true;
            return false;
        };
        if let Some(retired) = self.generations.follow_with(Arc::new(fresh)) {
            retired.retire();
        }
        self.generations.space.notify();
        true
    }

    /// Drops a generation before its time. False: it cannot be put aside, and stays. A start would find it and give back what was
    /// removed meanwhile, as nobody removes it from what the store does not look into.
    fn drop_early(&self, generation: &Arc<Generation>) -> bool {
        if let Err(error) = generation.put_aside() {
            tracing::warn!(
                database = generation::name(generation.number),
                %error,
                "a database of the store cannot be dropped"
            );
            return false;
        }
        self.generations.leave(generation);
        generation.retire();
        true
    }

    /// Drops the older generation before its time, and makes the newest the older one. At most once a tick: what goes takes a while,
    /// and many may have found the disk full.
    fn make_room_on_the_disk(&mut self) {
        let all = self.generations;
        if let Some(previous) = all.pair().previous {
            self.drop_early(&previous);
        }
        if self.begin() {
            all.counters.generations.add(1);
        } else if let Some(newest) = all.pair().newest {
            // Not even an empty one has room beside it.
            self.drop_early(&newest);
        }
        self.rests = true;
    }

    /// Drops what has failed, begins what is needed, writes down what is to be kept.
    fn look(&mut self, tick: bool) {
        let all = self.generations;
        let pair = all.pair();
        for failed in pair.each().filter(|generation| generation.has_failed()) {
            if self.rests || !self.drop_early(failed) {
                self.rests = true;
                break;
            }
            all.counters.dropped_failed.add(1);
            tracing::warn!(
                database = generation::name(failed.number),
                "a database of the store failed: it is dropped"
            );
        }
        drop(pair);
        if !self.rests && all.take_disk_is_full() {
            self.make_room_on_the_disk();
        }
        let pair = all.pair();
        match &pair.newest {
            None => {
                self.begin();
            }
            Some(newest) if all.space.is_time_for_another(newest.size(), pair.size()) => {
                if self.begin() {
                    all.counters.generations.add(1);
                }
            }
            Some(_) => {}
        }
        for generation in pair.each() {
            if tick {
                generation.measure();
            }
            generation.save_records(tick);
        }
    }

    /// Carries a record over into the newest generation: first there, then no more here, so that it is never in neither.
    fn carry_over(&self, key: &CacheKey) {
        let all = self.generations;
        let _turn = all.turn(key);
        let pair = all.pair();
        let (Some(newest), Some(previous)) = (&pair.newest, &pair.previous) else {
            return;
        };
        let carried = || -> io::Result<()> {
            let Some(value) = previous.find(key)? else {
                return Ok(());
            };
            if newest.find(key)?.is_none() {
                if let Body::File(body) = value.body {
                    newest.share(previous, body)?;
                }
                newest.put(key, &value)?;
                all.counters.carried_over.add(1);
            }
            previous.forget(key)?;
            Ok(())
        };
        // What could not be carried over goes with its generation, and one that failed goes at the next look.
        let _ = carried();
    }
}
