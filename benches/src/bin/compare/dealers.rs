//! The ends that speak ZMTP: two DEALERs of libzmq, with batches as large as our links'.

use std::collections::VecDeque;
use std::ffi::c_int;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use scale0_benches::{Session, request, response};
use scale0_wire::flow::{ReceiveWindow, SendWindow};
use scale0_wire::{Kind, Message, RoutingHeader, Window, limits};

use crate::server::Server;
use crate::{Load, Meter, Turn, now};

/// What is said to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Our protocol, with all that a session is about.
    Session,
    /// The same messages as with a broker, for comparing what is between the ends and nothing else.
    Messages,
    /// The content alone, as somebody would say it who needs no more than libzmq.
    Bare,
    /// The protocol of NATS; see [`crate::nats`].
    Nats,
}

/// Where in a frame of our protocol the ends look and write; see `PROTOCOL.md`.
const KIND: usize = 1;
const CORRELATION: Range<usize> = 8..16;
const CREDIT: Range<usize> = 128..136;

pub(crate) fn turn(server: &Server, speech: Speech, load: Load) -> anyhow::Result<Turn> {
    let mut theirs = zmq::Context::new();
    let answerer = Answerer::dial(&theirs, &server.back, speech, load)?;
    let answerer = thread::spawn(move || answerer.run());
    let turn = Asker::dial(&zmq::Context::new(), &server.front, speech, load)
        .and_then(|asker| asker.run(Meter::new(server, load)));
    theirs.destroy()?;
    match answerer.join() {
        Ok(Err(error)) if error.downcast_ref() == Some(&zmq::Error::ETERM) => turn,
        Ok(ended) => ended.and(turn).context("the answerer has failed"),
        Err(_) => bail!("the answerer has panicked"),
    }
}

/// One end's socket, and its last message.
struct Dealer {
    socket: zmq::Socket,
    frame: zmq::Message,
    /// What libzmq's proxy puts before a request, and wants before the answer.
    envelope: Option<zmq::Message>,
}

impl Dealer {
    fn dial(
        context: &zmq::Context,
        address: &str,
        session: Option<&mut Session>,
    ) -> anyhow::Result<Self> {
        let mut socket = context.socket(zmq::DEALER)?;
        socket.set_linger(0)?;
        set_batches(&mut socket)?;
        socket.connect(address)?;
        let dealer = Self {
            socket,
            frame: zmq::Message::new(),
            envelope: None,
        };
        for message in session.into_iter().flat_map(Session::open) {
            dealer.socket.send(encode(&message)?, 0)?;
        }
        Ok(dealer)
    }

    fn receive(&mut self) -> zmq::Result<()> {
        self.socket.recv(&mut self.frame, 0)?;
        if self.frame.get_more() {
            let mut last = zmq::Message::new();
            self.socket.recv(&mut last, 0)?;
            self.envelope = Some(std::mem::replace(&mut self.frame, last));
        }
        Ok(())
    }

    fn send(&mut self, frame: &[u8]) -> zmq::Result<()> {
        if let Some(envelope) = self.envelope.take() {
            self.socket.send(envelope, zmq::SNDMORE)?;
        }
        self.socket.send(frame, 0)
    }

    /// What a broker says besides what is asked and answered. None: it is a request or an answer.
    fn aside(&self) -> anyhow::Result<Option<Message>> {
        let kind = *self.frame.get(KIND).context("an empty frame")?;
        if [Kind::Request, Kind::Response].contains(&Kind::from_number(kind)) {
            return Ok(None);
        }
        let message = Message::decode(&Bytes::copy_from_slice(&self.frame), None)?;
        match message.header.kind {
            Kind::Reject | Kind::End | Kind::Bye => bail!("the broker says {message:?}"),
            _ => Ok(Some(message)),
        }
    }
}

/// Bytes that an end reads and writes at once: as many as our links do.
const BATCH: c_int = 64 * 1024;

/// With libzmq's 8 KiB it is the ends that are measured.
#[expect(unsafe_code, reason = "the zmq crate lacks the options")]
pub(crate) fn set_batches(socket: &mut zmq::Socket) -> anyhow::Result<()> {
    for option in [zmq_sys::ZMQ_IN_BATCH_SIZE, zmq_sys::ZMQ_OUT_BATCH_SIZE] {
        let value = BATCH.to_ne_bytes();
        // SAFETY: the socket is open, and libzmq reads as many bytes as it is told, during the call.
        let done = unsafe {
            zmq_sys::zmq_setsockopt(
                socket.as_mut_ptr(),
                c_int::try_from(option)?,
                value.as_ptr().cast(),
                value.len(),
            )
        };
        ensure!(done == 0, "libzmq refuses larger batches");
    }
    Ok(())
}

/// One frame, which is overwritten in place for each message: what the ends cost is to be as little as can be.
fn template(
    speech: Speech,
    load: Load,
    message: impl Fn(Bytes) -> Message,
) -> anyhow::Result<Vec<u8>> {
    let content = Bytes::from(vec![b'x'; load.size]);
    match speech {
        Speech::Session | Speech::Messages => encode(&message(content)),
        Speech::Bare | Speech::Nats => Ok(content.into()),
    }
}

fn encode(message: &Message) -> anyhow::Result<Vec<u8>> {
    let mut frame = Vec::new();
    let content = message.encode(&mut frame)?;
    ensure!(content.is_none(), "it does not fit into one frame");
    Ok(frame)
}

struct Asker {
    dealer: Dealer,
    speech: Speech,
    load: Load,
    frame: Vec<u8>,
    session: Session,
    correlation: u64,
    window: ReceiveWindow,
}

impl Asker {
    fn dial(
        context: &zmq::Context,
        address: &str,
        speech: Speech,
        load: Load,
    ) -> anyhow::Result<Self> {
        let mut session = Session::frontend(1).lively();
        let dealer = Dealer::dial(
            context,
            address,
            (speech == Speech::Session).then_some(&mut session),
        )?;
        let message = |content| {
            let asked = request(Bytes::new()).with_content(content);
            session.stamp(asked)
        };
        Ok(Self {
            frame: template(speech, load, message)?,
            dealer,
            speech,
            load,
            session,
            correlation: 0,
            window: ReceiveWindow::connection(),
        })
    }

    fn run(mut self, mut meter: Meter<'_>) -> anyhow::Result<Turn> {
        for _ in 0..self.load.under_way {
            self.ask()?;
        }
        let mut under_way = self.load.under_way;
        while 0 < under_way {
            self.dealer.receive()?;
            if self.speech == Speech::Session {
                if self.dealer.aside()?.is_some() {
                    continue;
                }
                self.consume()?;
            }
            ensure!(
                self.dealer.frame.len() == self.frame.len(),
                "an answer of another size"
            );
            if meter.count()? {
                self.ask()?;
            } else {
                under_way -= 1;
            }
        }
        meter.turn()
    }

    fn ask(&mut self) -> zmq::Result<()> {
        if self.speech != Speech::Bare {
            self.correlation += 1;
            self.frame[CORRELATION].copy_from_slice(&self.correlation.to_le_bytes());
        }
        self.dealer.send(&self.frame)
    }

    /// An answer's content is consumed at once. The broker hears of it after each half of the window.
    fn consume(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.window.receive(self.load.size),
            "the broker heeds no window"
        );
        if let Some(limit) = self.window.consume(self.load.size, now(), Duration::ZERO) {
            let window = Message::new(RoutingHeader::new(Kind::Window));
            let window = window.with_metadata(Window(limit).encode());
            self.dealer.send(&encode(&self.session.stamp(window))?)?;
        }
        Ok(())
    }
}

struct Answerer {
    dealer: Dealer,
    speech: Speech,
    load: Load,
    frame: Vec<u8>,
    granted: u64,
    window: SendWindow,
    /// Requests that wait for room in the window.
    waiting: VecDeque<[u8; 8]>,
}

impl Answerer {
    fn dial(
        context: &zmq::Context,
        address: &str,
        speech: Speech,
        load: Load,
    ) -> anyhow::Result<Self> {
        let mut session = Session::backend(2, load.under_way).lively();
        let dealer = Dealer::dial(
            context,
            address,
            (speech == Speech::Session).then_some(&mut session),
        )?;
        let message = |content| session.stamp(response(Bytes::new()).with_content(content));
        Ok(Self {
            frame: template(speech, load, message)?,
            dealer,
            speech,
            load,
            granted: load.under_way.into(),
            window: SendWindow::new(limits::CONNECTION_WINDOW),
            waiting: VecDeque::new(),
        })
    }

    /// Until its context ends.
    fn run(mut self) -> anyhow::Result<()> {
        loop {
            self.dealer.receive()?;
            match self.speech {
                Speech::Bare | Speech::Nats => self.dealer.send(&self.frame)?,
                Speech::Messages => {
                    let correlation = self.correlation()?;
                    self.answer(correlation)?;
                }
                Speech::Session => {
                    if let Some(message) = self.dealer.aside()? {
                        if message.header.kind == Kind::Window {
                            self.window.raise(Window::decode(&message.metadata)?.0);
                        }
                    } else {
                        let correlation = self.correlation()?;
                        self.waiting.push_back(correlation);
                    }
                    self.answer_within_the_window()?;
                }
            }
        }
    }

    fn correlation(&self) -> anyhow::Result<[u8; 8]> {
        let bytes = self.dealer.frame.get(CORRELATION);
        Ok(bytes.context("a short frame")?.try_into()?)
    }

    fn answer_within_the_window(&mut self) -> anyhow::Result<()> {
        while self.load.size as u64 <= self.window.room()
            && let Some(correlation) = self.waiting.pop_front()
        {
            self.window.take(self.load.size);
            self.answer(correlation)?;
        }
        Ok(())
    }

    /// Each answer grants the credit for one more request.
    fn answer(&mut self, correlation: [u8; 8]) -> zmq::Result<()> {
        self.granted += 1;
        self.frame[CORRELATION].copy_from_slice(&correlation);
        self.frame[CREDIT].copy_from_slice(&self.granted.to_le_bytes());
        self.dealer.send(&self.frame)
    }
}
