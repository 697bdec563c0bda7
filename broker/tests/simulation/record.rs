//! What really happened, as nobody in the site knows it: the judge's book.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use scale0_wire::Reason;

/// How long after its deadline a request's outcome may come at the latest: the longest pause of its broker or of its frontend
/// itself, and the time until its silence is noticed.
const DETECTION: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
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
}

#[derive(Debug)]
struct Story {
    is_idempotent: bool,
    deadline: Duration,
    starts: u32,
    outcome: Option<Outcome>,
}

impl Record {
    pub(crate) fn asked(&mut self, is_idempotent: bool, deadline: Duration) -> u64 {
        let id = self.requests.len() as u64 + 1;
        let story = Story {
            is_idempotent,
            deadline,
            starts: 0,
            outcome: None,
        };
        self.requests.insert(id, story);
        id
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
            has_head || outcome == Outcome::Void || now <= story.deadline + DETECTION,
            "request {id} was due at {:?}, and is {outcome:?} at {now:?}",
            story.deadline
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
}
