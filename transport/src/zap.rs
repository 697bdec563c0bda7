//! The thread that libzmq asks at each handshake (ZAP, ZeroMQ RFC 27).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;
use crate::context::Context;
use crate::curve::PublicKey;
use crate::error::TransportError;
use crate::gate::{Doors, Gate, Verdict};
use crate::in_process::Port;
use crate::socket::Errno;

/// Where libzmq asks.
const ADDRESS: &str = "inproc://zeromq.zap.01";

const VERSION: &[u8] = b"1.0";

/// Refusals are logged at most this often; all of them are counted.
const LOG_SPACING: Duration = Duration::from_secs(10);

/// Judges the handshakes of all routers of one [`Context`] that name a [`Port`]: those whose key the [`Gate`] does not know there are
/// refused before they have said a word.
///
/// It is a thread that sleeps until it is asked. Dropped, it ends, and from then on nobody is let in.
pub struct Gatekeeper {
    shared: Arc<Shared>,
    context: Context,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    doors: Mutex<Doors>,
    counters: Counters,
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct Counters {
    admitted: AtomicU64,
    unknown_key: AtomicU64,
    wrong_port: AtomicU64,
    quarantined: AtomicU64,
    malformed: AtomicU64,
}

/// What was said to handshakes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GateCounters {
    /// Let in.
    pub admitted: u64,
    /// Refused: nobody knows the key.
    pub unknown_key: u64,
    /// Refused: the key is allowed at another port.
    pub wrong_port: u64,
    /// Refused: the key is in quarantine.
    pub quarantined: u64,
    /// Questions that are none of ZAP's, and were not answered.
    pub malformed: u64,
}

impl Gatekeeper {
    /// Begins to judge. To be started before the routers are bound: until then nobody is let in.
    ///
    /// # Errors
    /// When there is one in this context already, or sockets or threads are not to be had.
    pub fn start(context: &Context, gate: Gate) -> Result<Self, TransportError> {
        let refused = |error: zmq::Error| TransportError::refused("judge handshakes", error.into());
        // Not REP, which would have to answer even what is no question.
        let socket = context.socket(zmq::ROUTER)?;
        socket.set_linger(0).map_err(refused)?;
        socket.bind(ADDRESS).map_err(refused)?;
        let shared = Arc::new(Shared {
            doors: Mutex::new(Doors::new(gate)),
            counters: Counters::default(),
            is_over: AtomicBool::new(false),
        });
        let at_work = Arc::clone(&shared);
        let thread = Builder::new()
            .name("scale0-gate".to_owned())
            .spawn(move || {
                at_work.run(&socket);
                // The address is free when the thread has ended; closed alone, the socket would keep it for a moment.
                _ = socket.unbind(ADDRESS);
            })
            .map_err(|error: io::Error| {
                let errno = Errno(error.raw_os_error().unwrap_or(libc::EAGAIN));
                TransportError::refused("start a thread that judges handshakes", errno)
            })?;
        Ok(Self {
            shared,
            context: context.clone(),
            thread: Some(thread),
        })
    }

    /// From the next handshake on this gate counts, all of it at once. Connections that stand are not touched, and who is refused
    /// for a time stays refused.
    pub fn swap(&self, gate: Gate) {
        self.shared.doors.lock().swap(gate);
    }

    /// Refuses the handshakes of this key until then.
    pub fn refuse(&self, key: PublicKey, until: Instant) {
        let now = clock::now();
        self.shared.doors.lock().refuse(now, key, until);
    }

    /// What was said so far.
    #[must_use]
    pub fn counters(&self) -> GateCounters {
        let counters = &self.shared.counters;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        GateCounters {
            admitted: of(&counters.admitted),
            unknown_key: of(&counters.unknown_key),
            wrong_port: of(&counters.wrong_port),
            quarantined: of(&counters.quarantined),
            malformed: of(&counters.malformed),
        }
    }

    /// Lets the thread look whether it is over.
    fn wake(&self) -> Result<(), zmq::Error> {
        let socket = self.context.raw().socket(zmq::DEALER)?;
        socket.connect(ADDRESS)?;
        socket.send("", 0)
    }
}

impl Drop for Gatekeeper {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        // Without a socket to wake it with it goes on until the process ends; to wait for it would be for ever.
        if let Err(error) = self.wake() {
            tracing::warn!(%error, "cannot end the thread that judges handshakes");
        } else if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that judges handshakes has panicked");
        }
    }
}

impl fmt::Debug for Gatekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatekeeper")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn run(&self, socket: &zmq::Socket) {
        let mut logged: Option<Instant> = None;
        loop {
            let frames = match socket.recv_multipart(0) {
                Ok(frames) => frames,
                Err(zmq::Error::EINTR) => continue,
                // The context is gone.
                Err(_) => return,
            };
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            let Some(question) = Question::read(&frames) else {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let now = clock::now();
            let verdict = self.doors.lock().judge(now, &question.key, question.port);
            self.count(verdict);
            if verdict != Verdict::Admitted && logged.is_none_or(|at| at + LOG_SPACING <= now) {
                logged = Some(now);
                tracing::warn!(
                    from = question.address,
                    port = question.port.name(),
                    why = verdict.reason(),
                    "refused a handshake"
                );
            }
            // Its session may be gone, and then so is who would read the answer. libzmq has room for any number.
            _ = socket.send_multipart(question.answer(verdict), zmq::DONTWAIT);
        }
    }

    fn count(&self, verdict: Verdict) {
        let count = match verdict {
            Verdict::Admitted => &self.counters.admitted,
            Verdict::UnknownKey => &self.counters.unknown_key,
            Verdict::WrongPort => &self.counters.wrong_port,
            Verdict::Quarantined => &self.counters.quarantined,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What libzmq wants to know.
#[derive(Debug)]
struct Question<'a> {
    /// Whose session of libzmq's.
    asker: &'a [u8],
    id: &'a [u8],
    port: Port,
    address: String,
    key: PublicKey,
}

impl<'a> Question<'a> {
    /// `None`: it is none of ZAP's about CURVE at a port of ours.
    fn read(frames: &'a [Vec<u8>]) -> Option<Self> {
        let [
            asker,
            delimiter,
            version,
            id,
            domain,
            address,
            _routing_id,
            mechanism,
            key,
        ] = frames
        else {
            return None;
        };
        if !delimiter.is_empty() || version != VERSION || mechanism != b"CURVE" {
            return None;
        }
        Some(Self {
            asker,
            id,
            port: Port::ALL
                .into_iter()
                .find(|port| port.name().as_bytes() == domain.as_slice())?,
            address: String::from_utf8_lossy(address).into_owned(),
            key: PublicKey::from_bytes(key.as_slice().try_into().ok()?),
        })
    }

    fn answer(&self, verdict: Verdict) -> [Vec<u8>; 8] {
        // 400 makes the other side rest before it dials again; after 300 it would come again at once.
        let (status, text, user) = match verdict {
            Verdict::Admitted => ("200", "", self.key.to_string()),
            Verdict::UnknownKey | Verdict::WrongPort | Verdict::Quarantined => {
                ("400", "refused", String::new())
            }
        };
        let metadata = Vec::new();
        [
            self.asker.to_vec(),
            Vec::new(),
            VERSION.to_vec(),
            self.id.to_vec(),
            status.into(),
            text.into(),
            user.into(),
            metadata,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::KeyPair;

    fn question(key: &PublicKey) -> Vec<Vec<u8>> {
        let frames: [&[u8]; 9] = [
            b"asker",
            b"",
            b"1.0",
            b"1",
            b"backends",
            b"10.0.0.7",
            b"",
            b"CURVE",
            key.as_bytes(),
        ];
        frames.map(<[u8]>::to_vec).to_vec()
    }

    #[test]
    fn whatever_differs_from_a_question_of_zaps_is_none() {
        let key = KeyPair::generate().unwrap().public;
        let good = question(&key);
        let read = Question::read(&good).unwrap();
        assert_eq!((read.key, read.port), (key, Port::Backends));

        let with = |at: usize, frame: &[u8]| {
            let mut frames = good.clone();
            frames[at] = frame.to_vec();
            frames
        };
        let mut long = good.clone();
        long.push(Vec::new());
        for wrong in [
            vec![],
            good[..8].to_vec(),
            long,
            with(1, b"x"),
            with(2, b"2.0"),
            with(4, b""),
            with(4, b"backend"),
            with(7, b"NULL"),
            with(7, b"PLAIN"),
            with(8, &[7; 31]),
            with(8, &[7; 33]),
        ] {
            assert!(Question::read(&wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn garbage_is_not_answered_and_the_next_question_is() {
        let key = KeyPair::generate().unwrap().public;
        let context = Context::new(1).unwrap();
        let mut gate = Gate::new();
        gate.allow(key, Port::Backends);
        let keeper = Gatekeeper::start(&context, gate).unwrap();
        let asker = context.socket(zmq::DEALER).unwrap();
        asker.connect(ADDRESS).unwrap();
        for garbage in [&[&b""[..]][..], &[b"", b"1.0"], &[&[0xff; 300]]] {
            asker.send_multipart(garbage, 0).unwrap();
        }
        // The DEALER's own routing id stands for the first frame.
        asker.send_multipart(&question(&key)[1..], 0).unwrap();
        let answer = asker.recv_multipart(0).unwrap();
        assert_eq!(answer[3], b"200");
        assert_eq!(answer[5], key.to_string().into_bytes());
        let counters = keeper.counters();
        assert_eq!((counters.malformed, counters.admitted), (3, 1));
    }

    #[test]
    fn a_context_has_one_gatekeeper_at_a_time() {
        let context = Context::new(1).unwrap();
        let first = Gatekeeper::start(&context, Gate::new()).unwrap();
        assert!(Gatekeeper::start(&context, Gate::new()).is_err());
        drop(first);
        Gatekeeper::start(&context, Gate::new()).unwrap();
    }
}
