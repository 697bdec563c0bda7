//! What all nodes that dial have in common: what they can reach in a step, and what the world tells them.

use std::time::{Duration, Instant};

use scale0_transport::Port;
use scale0_wire::Message;

use crate::dice::Dice;
use crate::record::Record;

/// Who holds no more than this is looked over after each step.
pub(crate) const LITTLE: usize = 48;

/// What a node does in a step.
#[derive(Debug)]
pub(crate) enum Effect {
    Send {
        link: usize,
        message: Message,
    },
    /// Bytes that are no message.
    SendGarbage {
        link: usize,
    },
    After {
        delay: Duration,
        tag: Tag,
    },
    /// Drop the connection and dial anew.
    Hangup {
        link: usize,
    },
    /// Drop the connection, for good.
    Close {
        link: usize,
    },
    /// Dial this broker too: one link more.
    Dial {
        broker: usize,
    },
    /// The process ends in order.
    Exit,
}

/// What a node set a timer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Beat,
    /// A handler goes on.
    Work(u64),
    /// The time of a drain is over.
    CutOff,
    /// The application is there again.
    Return,
    /// The services that it had withdrawn are.
    Reoffer,
    /// A confused handler says something about a stream that is over.
    Stray {
        link: usize,
        epoch: u64,
        correlation: u64,
    },
    /// A reader has read so much of a stream.
    Read {
        id: u64,
        bytes: usize,
    },
    /// A reader has read so much of a connection.
    Drain {
        link: usize,
        epoch: u64,
        bytes: usize,
    },
    /// A client loses its patience.
    Leave(u64),
    /// More clients join one that waits, who have longer.
    Join(u64),
    /// A client goes on with its upload.
    Upload(u64),
    /// The next client comes.
    Arrive,
    /// A look at what is overdue.
    Watch,
    /// A handler that was told to stop has.
    Stop(u64),
    /// The next evil deed.
    Harm,
}

/// All that a node can reach in a step.
pub(crate) struct Context<'a> {
    /// The world's time, which nobody in it knows.
    pub(crate) now: Duration,
    /// The node's own clock.
    pub(crate) clock: Instant,
    pub(crate) dice: &'a mut Dice,
    pub(crate) record: &'a mut Record,
    pub(crate) effects: &'a mut Vec<Effect>,
    /// Nothing goes wrong any more.
    pub(crate) is_calm: bool,
    /// Everybody does as they should: applications answer, clients wait, and there is no more to do than can be done.
    pub(crate) is_healthy: bool,
    /// How many in a hundred requests the application fails.
    pub(crate) failing: u64,
    /// Whether who holds much is looked over in this step; who holds little is in each.
    pub(crate) is_audit: bool,
}

impl Context<'_> {
    pub(crate) fn after(&mut self, delay: Duration, tag: Tag) {
        self.effects.push(Effect::After { delay, tag });
    }

    /// When the next client comes: in bursts, now and then.
    pub(crate) fn next_client(&mut self, floods_until: Duration) -> Duration {
        let pause = match (self.now < floods_until, self.dice.percent(50)) {
            _ if self.is_healthy => 5000..40_000,
            (true, _) => 50..1000,
            (false, true) => 0..3000,
            (false, false) => 2000..40_000,
        };
        self.dice.micros(pause)
    }

    pub(crate) fn send(&mut self, link: usize, message: Message) {
        self.effects.push(Effect::Send { link, message });
    }
}

/// What a client wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) is_idempotent: bool,
    pub(crate) is_tunnel: bool,
    /// How much follows the request.
    pub(crate) upload: Option<u64>,
    pub(crate) patience: Duration,
}

impl Ask {
    /// One that may be repeated, and is answered if the site works.
    pub(crate) const fn get(patience: Duration) -> Self {
        Self {
            is_idempotent: true,
            is_tunnel: false,
            upload: None,
            patience,
        }
    }
}

/// A process with links to brokers. Links are numbered in the order in which they were made.
pub(crate) trait Node {
    fn port(&self) -> Port;

    /// A connection stands.
    fn up(&mut self, link: usize, context: &mut Context<'_>);

    /// A connection is gone.
    fn down(&mut self, link: usize, context: &mut Context<'_>);

    fn hear(&mut self, link: usize, message: Message, context: &mut Context<'_>);

    fn timer(&mut self, tag: Tag, context: &mut Context<'_>);

    /// The transport takes no more for this link, and has kept what it was given; or takes more again.
    fn set_full(&mut self, _link: usize, _is_full: bool, _context: &mut Context<'_>) {}

    /// When `tick` is owed.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// What came together has been taken in.
    fn tick(&mut self, _context: &mut Context<'_>) {}

    /// The process goes on after so long a pause. What came meanwhile follows, and `awake` behind it.
    fn resume(&mut self, _pause: Duration, _context: &mut Context<'_>) {}

    fn awake(&mut self) {}

    /// The process is gone, and its clients with it.
    fn crash(&mut self, _context: &mut Context<'_>) {}

    /// It is told to stop, in order.
    fn drain(&mut self, context: &mut Context<'_>);

    /// Many more clients come than can be served, until then.
    fn flood(&mut self, _until: Duration) {}

    /// Something changes in what it offers, or in how much.
    fn change(&mut self, _context: &mut Context<'_>) {}

    /// The storm is over: it does what it was made for.
    fn settle(&mut self, _context: &mut Context<'_>) {}

    /// A client asks; the request's id.
    fn ask(&mut self, _ask: Ask, _context: &mut Context<'_>) -> u64 {
        unreachable!("only frontends are asked")
    }

    /// Nothing is under way. `ledger` tells what the broker of a link knows of credit granted, used and returned.
    fn check_quiet(&self, ledger: &dyn Fn(usize) -> Option<[u64; 3]>);
}
