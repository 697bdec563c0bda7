//! What really happened, as nobody in the site knows it: the judge's book.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use scale0_wire::{Message, Reason};

use crate::node::Ask;

/// How long after its deadline a request's outcome may come at the latest: a frontend looks its streams over four times a second,
/// and lets its broker go first by as much. Whatever brokers and backends do: it does not depend on them.
pub(crate) const LATE: Duration = Duration::from_millis(600);

/// Messages that somebody evil could have overheard.
const OVERHEARD: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    /// No handler has begun to work on it.
    Refused(Reason),
    Failed(Reason),
    Cancelled,
    /// The frontend has crashed.
    Void,
}

#[derive(Debug, Default)]
pub(crate) struct Record {
    requests: BTreeMap<u64, Story>,
    /// Sessions of brokers that left without knowing of all frontends whether they had read everything.
    pub(crate) left_unread: BTreeSet<u64>,
    /// Requests over, by outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
    overheard: VecDeque<Message>,
    promise: Promise,
}

/// Who is answered, if only the client waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Whoever is lucky.
    #[default]
    None,
    /// Who may be asked twice, until the response has begun.
    Repeatable,
    All,
}

#[derive(Debug)]
struct Story {
    is_idempotent: bool,
    /// It is all in one message too.
    is_repeatable: bool,
    due: Duration,
    starts: u32,
    outcome: Option<Outcome>,
}

impl Record {
    pub(crate) fn new(promise: Promise) -> Self {
        Self {
            promise,
            ..Self::default()
        }
    }

    pub(crate) fn asked(&mut self, ask: &Ask, due: Duration) -> u64 {
        let is_idempotent = ask.is_idempotent && !ask.is_tunnel;
        let id = self.requests.len() as u64 + 1;
        let story = Story {
            is_idempotent,
            is_repeatable: is_idempotent && ask.upload.is_none(),
            due,
            starts: 0,
            outcome: None,
        };
        self.requests.insert(id, story);
        id
    }

    /// It has until then: its client goes on sending, more clients wait for it, or its frontend was stopped.
    pub(crate) fn put_off(&mut self, id: u64, due: Duration) {
        let story = self.requests.get_mut(&id).expect("a request nobody asked");
        story.due = story.due.max(due);
    }

    pub(crate) fn due(&self, id: u64) -> Duration {
        self.requests[&id].due
    }

    /// A handler has begun to work on it.
    pub(crate) fn started(&mut self, id: u64) {
        let story = self.requests.get_mut(&id).expect("a request nobody asked");
        story.starts += 1;
        assert!(
            story.is_idempotent || story.starts == 1,
            "request {id} may not run twice, and has"
        );
    }

    pub(crate) fn over(&mut self, id: u64, outcome: Outcome, has_head: bool, now: Duration) {
        let story = self.requests.get_mut(&id).expect("a request nobody asked");
        assert_eq!(
            story.outcome, None,
            "request {id} has a second outcome, {outcome:?}"
        );
        assert!(
            has_head || outcome == Outcome::Void || now <= story.due + LATE,
            "request {id} was due at {:?}, and is {outcome:?} at {now:?}",
            story.due
        );
        let is_promised = match self.promise {
            Promise::None => false,
            Promise::Repeatable => story.is_repeatable && !has_head,
            Promise::All => true,
        };
        let may_be = matches!(
            outcome,
            Outcome::Answered | Outcome::Cancelled | Outcome::Void
        );
        assert!(
            may_be || !is_promised,
            "request {id} is {outcome:?} at {now:?}, against the promise"
        );
        assert!(
            !matches!(
                outcome,
                Outcome::Failed(Reason::ProtocolError) | Outcome::Refused(Reason::ProtocolError)
            ),
            "request {id} broke the protocol, and everybody keeps to it"
        );
        if outcome == Outcome::Answered {
            assert_ne!(story.starts, 0, "request {id} was answered by nobody");
        }
        if let Outcome::Refused(reason) = outcome {
            assert_eq!(
                story.starts, 0,
                "request {id} was refused ({reason:?}) as never started, and was"
            );
        }
        story.outcome = Some(outcome);
        *self.outcomes.entry(format!("{outcome:?}")).or_default() += 1;
    }

    pub(crate) fn outcome(&self, id: u64) -> Option<Outcome> {
        self.requests[&id].outcome
    }

    pub(crate) fn check_all_over(&self) {
        for (id, story) in &self.requests {
            assert!(
                story.outcome.is_some(),
                "request {id} has no outcome: {story:?}"
            );
        }
    }

    /// Somebody honest has sent this.
    pub(crate) fn overhear(&mut self, message: &Message) {
        if self.overheard.len() == OVERHEARD {
            self.overheard.pop_front();
        }
        self.overheard.push_back(message.clone());
    }

    pub(crate) fn overheard(&self) -> &VecDeque<Message> {
        &self.overheard
    }
}
