//! Requests and answers by the million through a broker, as messages alone: no HTTP, nothing executed, each one counted.

use std::collections::VecDeque;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use scale0_benches::{SERVICE, Session, request, response};
use scale0_wire::{Kind, Message};

/// How long nothing comes before what is still awaited is given up.
const SILENCE: i32 = 10_000;

/// How many are under way at a time.
const UNDER_WAY: u32 = 256;

/// Who they are among a broker's peers: no others of a trial have these numbers.
const ASKER: u64 = 900_001;
const ANSWERER: u64 = 900_002;

/// The service that is asked.
pub(crate) const ASKED: &str = SERVICE;

/// What became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Requests that were sent.
    pub(crate) asked: u64,
    /// Those that were answered, each once.
    pub(crate) answered: u64,
    /// Answers to what was answered already, or never asked.
    pub(crate) surplus: u64,
    /// Requests that the broker refused or failed.
    pub(crate) refused: u64,
}

/// A backend of [`ASKED`], on a thread of its own.
pub(crate) struct Answerer {
    context: zmq::Context,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Answerer {
    /// Dials a broker.
    pub(crate) fn start(broker: &str) -> anyhow::Result<Self> {
        let context = zmq::Context::new();
        let end = End::dial(&context, broker, Session::backend(ANSWERER, UNDER_WAY))?;
        let thread = thread::spawn(move || end.answer());
        Ok(Self { context, thread })
    }

    /// Ends it.
    ///
    /// # Errors
    /// Why it had ended before.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        self.context.destroy()?;
        match self.thread.join() {
            Ok(Err(error)) if error.downcast_ref() == Some(&zmq::Error::ETERM) => Ok(()),
            Ok(ended) => ended.context("the answerer has failed"),
            Err(_) => bail!("the answerer has panicked"),
        }
    }
}

/// Sends so many requests for [`ASKED`] to a broker, and counts what comes back.
///
/// # Errors
/// A broker that cannot be dialled, or that does not speak the protocol.
pub(crate) fn ask(broker: &str, requests: u64) -> anyhow::Result<Tally> {
    End::dial(&zmq::Context::new(), broker, Session::frontend(ASKER))?.ask(requests)
}

/// One end: its socket and its session.
struct End {
    socket: zmq::Socket,
    session: Session,
}

impl End {
    fn dial(context: &zmq::Context, address: &str, mut session: Session) -> anyhow::Result<Self> {
        let socket = context.socket(zmq::DEALER)?;
        socket.set_linger(0)?;
        socket.set_rcvhwm(0)?;
        socket.connect(address)?;
        let opening = session.open();
        let end = Self { socket, session };
        for message in &opening {
            end.send(message)?;
        }
        Ok(end)
    }

    fn send(&self, message: &Message) -> anyhow::Result<()> {
        let mut frame = Vec::new();
        let content = message.encode(&mut frame)?;
        ensure!(content.is_none(), "it does not fit into one frame");
        Ok(self.socket.send(frame, 0)?)
    }

    fn receive(&self) -> anyhow::Result<Message> {
        let frame = Bytes::from(self.socket.recv_bytes(0)?);
        Ok(Message::decode(&frame, None)?)
    }

    /// Answers until its context ends.
    fn answer(mut self) -> anyhow::Result<()> {
        loop {
            let message = self.receive()?;
            match message.header.kind {
                Kind::Request => {
                    // What is answered may come again at once.
                    self.session.grant(1);
                    let mut answer = response(Bytes::new());
                    answer.header.correlation = message.header.correlation;
                    self.send(&self.session.stamp(answer))?;
                }
                Kind::Bye => bail!("the broker says {message:?} to the answerer"),
                _ => {}
            }
        }
    }

    fn ask(self, requests: u64) -> anyhow::Result<Tally> {
        self.socket.set_rcvtimeo(SILENCE)?;
        let mut open = Open::default();
        let mut tally = Tally {
            asked: 0,
            answered: 0,
            surplus: 0,
            refused: 0,
        };
        let template = request(Bytes::new());
        let ask = |tally: &mut Tally, open: &mut Open| {
            tally.asked += 1;
            let mut message = template.clone();
            message.header.correlation = open.add();
            self.send(&self.session.stamp(message))
        };
        for _ in 0..requests.min(UNDER_WAY.into()) {
            ask(&mut tally, &mut open)?;
        }
        while tally.answered + tally.refused < tally.asked {
            let message = match self.receive() {
                Ok(message) => message,
                Err(error) if error.downcast_ref() == Some(&zmq::Error::EAGAIN) => break,
                Err(error) => return Err(error),
            };
            let was_open = match message.header.kind {
                Kind::Response | Kind::Reject | Kind::End => {
                    open.remove(message.header.correlation)
                }
                Kind::Bye => bail!("the broker says {message:?} to the asker"),
                _ => continue,
            };
            match (was_open, message.header.kind) {
                (false, _) => tally.surplus += 1,
                (true, Kind::Response) => tally.answered += 1,
                (true, _) => tally.refused += 1,
            }
            if was_open && tally.asked < requests {
                ask(&mut tally, &mut open)?;
            }
        }
        Ok(tally)
    }
}

/// Correlations that are awaited. The oldest may wait while thousands after it are answered.
#[derive(Debug, Default)]
struct Open {
    /// The oldest that is awaited.
    first: u64,
    /// Whether each from there on is awaited.
    awaited: VecDeque<bool>,
}

impl Open {
    fn add(&mut self) -> u64 {
        self.awaited.push_back(true);
        self.first + self.awaited.len() as u64
    }

    /// Whether it was awaited.
    fn remove(&mut self, correlation: u64) -> bool {
        let place = correlation
            .checked_sub(self.first + 1)
            .and_then(|it| usize::try_from(it).ok());
        let was_open = place
            .and_then(|place| self.awaited.get_mut(place))
            .is_some_and(std::mem::take);
        while self.awaited.front() == Some(&false) {
            self.awaited.pop_front();
            self.first += 1;
        }
        was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_only_for_what_was_asked() {
        let mut open = Open::default();
        let [first, second, third] = [open.add(), open.add(), open.add()];
        assert!(open.remove(second));
        assert!(!open.remove(second), "twice");
        assert!(open.remove(first));
        assert!(!open.remove(first), "twice");
        assert!(!open.remove(third + 1), "never asked");
        assert!(!open.remove(0));
        assert!(open.remove(third));
        assert!(open.awaited.is_empty());
        assert_eq!(open.add(), third + 1);
    }
}
