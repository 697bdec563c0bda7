//! The process's runtime threads: one current-thread runtime each, on which everything that serves a request runs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Runtime threads that roles of one process share, so that a request passes through all of them without a hand-over.
///
/// What is spawned here stays on its thread. Dropping this ends the threads and whatever still runs on them.
#[derive(Debug)]
pub struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    /// A few jobs at the start of each role, so no bound is needed.
    jobs: Option<UnboundedSender<Job>>,
    handle: Option<JoinHandle<()>>,
}

impl Threads {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// When the system refuses threads or descriptors.
    pub fn start(count: usize) -> io::Result<Self> {
        (0..count.max(1))
            .map(Thread::start)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes a future on the thread with this index (counted around) and runs it there.
    pub fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        index: usize,
        make: impl FnOnce() -> F + Send + 'static,
    ) {
        let job: Job = Box::new(move || Box::pin(make()));
        if let Some(jobs) = &self.0[index % self.0.len()].jobs {
            // It can only fail when the thread has panicked, and then the process is about to end.
            _ = jobs.send(job);
        }
    }
}

impl Thread {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (jobs, mut queue) = unbounded_channel::<Job>();
        let handle = std::thread::Builder::new()
            .name(format!("scale0-{index}"))
            .spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, run(&mut queue));
            })?;
        Ok(Self {
            jobs: Some(jobs),
            handle: Some(handle),
        })
    }
}

async fn run(queue: &mut UnboundedReceiver<Job>) {
    while let Some(make) = queue.recv().await {
        tokio::task::spawn_local(make());
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for thread in &mut self.0 {
            thread.jobs = None;
        }
        for thread in &mut self.0 {
            if let Some(handle) = thread.handle.take()
                && handle.join().is_err()
            {
                tracing::error!("a runtime thread has panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spawned_runs_on_its_own_thread_and_ends_with_the_threads() {
        let threads = Threads::start(2).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        for index in 0..4 {
            let tell = tell.clone();
            threads.spawn(index, move || async move {
                tell.send((index % 2, std::thread::current().id())).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let ran: std::collections::HashSet<_> = told.iter().take(4).collect();
        assert_eq!(ran.len(), 2, "two threads, two jobs on each");
        drop(threads);
    }
}
