//! What is to befall a site, and how often.

use std::time::Duration;

use crate::dice::Dice;
use crate::record::Promise;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accident {
    /// A connection breaks, and both ends are told.
    Break,
    /// Nothing moves between a node and a broker for a while.
    Hold,
    /// Nothing moves between a broker and some nodes for a while.
    Partition,
    /// The same in one direction.
    OneWay,
    /// Nothing arrives over a connection any more, and nobody is told.
    HalfOpen,
    CrashBroker,
    CrashBackend,
    CrashNode,
    PauseNode,
    PauseBroker,
    /// A node's clock is suddenly further on.
    JumpNode,
    JumpBroker,
    DrainBroker,
    DrainBackend,
    DrainFrontend,
    /// Far more is asked for than can be done.
    Flood,
    /// A backend takes more or less at a time, or offers fewer services.
    Change,
    /// A node is not allowed anything for a while.
    Rights,
}

use Accident::{
    Break, Change, CrashBackend, CrashBroker, CrashNode, DrainBackend, DrainBroker, DrainFrontend,
    Flood, HalfOpen, Hold, JumpBroker, JumpNode, OneWay, Partition, PauseBroker, PauseNode, Rights,
};

/// What happens to a site before it is judged.
#[derive(Clone, Debug)]
pub struct Weather {
    accidents: &'static [Accident],
    lasts: Duration,
    /// The pause between two accidents, in milliseconds.
    pause: (u64, u64),
    is_healthy: bool,
    promise: Promise,
}

impl Weather {
    /// Everything that can go wrong does, all at once, with sick applications, impatient clients and strangers.
    #[must_use]
    pub const fn storm() -> Self {
        Self {
            accidents: &[
                Break,
                Break,
                Hold,
                Hold,
                Partition,
                OneWay,
                HalfOpen,
                CrashBroker,
                CrashBackend,
                CrashBackend,
                CrashNode,
                PauseNode,
                PauseNode,
                PauseBroker,
                JumpNode,
                JumpBroker,
                DrainBroker,
                DrainBackend,
                DrainBackend,
                DrainFrontend,
                Flood,
                Change,
                Change,
                Change,
                Rights,
            ],
            lasts: Duration::from_secs(20),
            pause: (50, 600),
            is_healthy: false,
            promise: Promise::None,
        }
    }

    /// Processes are stopped in order and started again, one at a time, and nothing else happens: nobody may notice.
    #[must_use]
    pub const fn rolling() -> Self {
        Self {
            accidents: &[DrainBroker, DrainBackend, DrainFrontend],
            lasts: Duration::from_secs(60),
            pause: (4000, 5000),
            is_healthy: true,
            promise: Promise::All,
        }
    }

    /// Processes are killed and started again, one at a time: who may be asked twice does not notice.
    #[must_use]
    pub const fn kills() -> Self {
        Self {
            accidents: &[CrashBroker, CrashBackend, Break],
            promise: Promise::Repeatable,
            ..Self::rolling()
        }
    }

    /// Paths are cut for a while, one at a time, in one direction or both, and nobody is told.
    #[must_use]
    pub const fn cuts() -> Self {
        Self {
            accidents: &[Hold, Partition, OneWay, HalfOpen],
            pause: (9000, 10_000),
            ..Self::kills()
        }
    }

    /// Nothing goes wrong.
    #[must_use]
    pub const fn calm() -> Self {
        Self {
            accidents: &[],
            lasts: Duration::from_secs(10),
            pause: (1000, 1001),
            is_healthy: true,
            promise: Promise::All,
        }
    }

    pub(crate) const fn lasts(&self) -> Duration {
        self.lasts
    }

    /// Applications answer, and clients wait: each request is answered, or its client leaves.
    pub(crate) const fn is_healthy(&self) -> bool {
        self.is_healthy
    }

    pub(crate) const fn promise(&self) -> Promise {
        self.promise
    }

    pub(crate) const fn has_accidents(&self) -> bool {
        !self.accidents.is_empty()
    }

    pub(crate) const fn has_strangers(&self) -> bool {
        !self.is_healthy
    }

    pub(crate) fn accident(&self, dice: &mut Dice) -> Option<Accident> {
        dice.pick(self.accidents)
    }

    pub(crate) fn pause(&self, dice: &mut Dice) -> Duration {
        dice.millis(self.pause.0..self.pause.1)
    }
}
