//! One capacity, lent to several brokers.
//!
//! Credit is a right to send one request. It is counted in three numbers per broker, each of which only grows within a session:
//! what was granted, what came back unused, and how many requests are over. What a broker holds is the first less the others, and
//! the sum of what all hold never exceeds the capacity: so one process can serve through any number of brokers, and neither a lost
//! nor a repeated message changes that.
//!
//! Credit is used in the order in which it was granted. So it also tells what was sent when: a request that comes on credit from
//! before a pause of ours may have lain somewhere since, one on later credit cannot have.

use super::BrokerId;

/// Who holds how much of the capacity.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// What is lent at most.
    capacity: u32,
    /// Requests of ended sessions whose handlers have not stopped yet.
    orphans: u64,
    /// One for each broker in session.
    shares: Vec<Option<Share>>,
    /// Counts grants, to know who was served longest ago.
    turn: u64,
}

/// What one broker holds in this session.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    granted: u64,
    used: u64,
    returned: u64,
    finished: u64,
    /// How many requests wait there for credit: its newest word, less what it has sent since.
    demand: u32,
    /// Whether we have asked some of it back and have no answer yet.
    is_asked: bool,
    /// Whether it has left us without an answer: what it has to spare is not counted on.
    is_mute: bool,
    /// The turn in which it was granted something last.
    served_at: u64,
    /// Credit up to here is worth nothing any more.
    expired: u64,
    /// It takes nothing new: it gets credit for what waits there, and none to keep.
    is_closed: bool,
}

impl Share {
    /// Credit it has, used by a request under way or not.
    const fn held(&self) -> u64 {
        self.granted
            .saturating_sub(self.returned)
            .saturating_sub(self.finished)
    }

    /// Credit it has and did not use.
    const fn idle(&self) -> u64 {
        self.granted
            .saturating_sub(self.returned)
            .saturating_sub(self.used)
    }

    /// Requests that wait there beyond the credit it has for them.
    fn wants(&self) -> u64 {
        u64::from(self.demand).saturating_sub(self.idle())
    }

    /// Credit it has, did not use, and may not use any more.
    fn stale(&self) -> u64 {
        self.expired.saturating_sub(self.used + self.returned)
    }

    /// Credit it has beyond the requests that wait there.
    fn spare(&self) -> u64 {
        self.idle().saturating_sub(u64::from(self.demand))
    }
}

/// What a request that came was sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Credit: it occupies a handler until it finishes.
    Valid,
    /// Credit that has expired: the same, but it is not to be started.
    Expired,
    /// Nothing: it is over already.
    NoCredit,
}

impl Ledger {
    /// Nothing lent yet of this capacity, for as many brokers.
    pub(crate) fn new(capacity: u32, brokers: usize) -> Self {
        Self {
            capacity,
            orphans: 0,
            shares: vec![None; brokers],
            turn: 0,
        }
    }

    /// There is one broker more.
    pub(crate) fn grow(&mut self) {
        self.shares.push(None);
    }

    /// A session with this broker begins.
    pub(crate) fn join(&mut self, broker: BrokerId) {
        self.leave(broker);
        self.shares[broker.0] = Some(Share::default());
        self.settle();
    }

    /// The broker takes nothing new in this session. What nobody waits for there is of use to the others only; and lent to it
    /// again, it would come back again, for ever.
    pub(crate) fn close(&mut self, broker: BrokerId) {
        if let Some(share) = &mut self.shares[broker.0] {
            share.is_closed = true;
            self.settle();
        }
    }

    /// Its session is over. What it had is free again, but for the requests that still occupy their handlers.
    pub(crate) fn leave(&mut self, broker: BrokerId) {
        if let Some(share) = self.shares[broker.0].take() {
            self.orphans += share.used - share.finished;
            self.settle();
        }
    }

    /// The handler of a request whose session is over has stopped.
    pub(crate) fn orphan_stopped(&mut self) {
        self.orphans = self.orphans.saturating_sub(1);
        self.settle();
    }

    /// A request came.
    #[must_use]
    pub(crate) fn admit(&mut self, broker: BrokerId) -> Admission {
        let Some(share) = &mut self.shares[broker.0] else {
            return Admission::NoCredit;
        };
        let (had_credit, was_stale) = (0 < share.idle(), 0 < share.stale());
        share.used += 1;
        share.demand = share.demand.saturating_sub(1);
        if !had_credit {
            // Both sides count it; granting it afterwards keeps their counts equal and takes nothing from anybody.
            share.granted += 1;
            share.finished += 1;
            Admission::NoCredit
        } else if was_stale {
            Admission::Expired
        } else {
            Admission::Valid
        }
    }

    /// Nothing that is sent on credit lent so far is to be started. It is asked back, and lent anew as it comes, used or not.
    pub(crate) fn expire(&mut self) {
        for share in self.shares.iter_mut().flatten() {
            share.expired = share.granted;
            share.is_asked = false;
        }
    }

    /// A request is over. Its credit goes to whoever waits for some, else back to the same broker.
    pub(crate) fn finish(&mut self, broker: BrokerId) {
        let Some(share) = &mut self.shares[broker.0] else {
            return;
        };
        if share.finished < share.used {
            share.finished += 1;
        }
        let is_closed = share.is_closed;
        self.serve_demand();
        if is_closed {
            self.spread();
        } else if 0 < self.free() {
            self.grant(broker);
        }
    }

    /// This many requests wait at the broker.
    pub(crate) fn demand(&mut self, broker: BrokerId, requests: u32) {
        if let Some(share) = &mut self.shares[broker.0] {
            share.demand = requests;
            self.settle();
        }
    }

    /// The broker has given back this much in its session so far. Returns false if it never had that much.
    #[must_use]
    pub(crate) fn returned(&mut self, broker: BrokerId, total: u64) -> bool {
        let Some(share) = &mut self.shares[broker.0] else {
            return true;
        };
        let most = share.granted - share.used;
        let progress = total.min(most).saturating_sub(share.returned);
        share.returned += progress;
        if share.is_closed && 0 < progress {
            // It returns what nobody there can use, whatever its DEMAND of some moments ago says.
            share.demand = 0;
        }
        (share.is_asked, share.is_mute) = (false, false);
        self.settle();
        total <= most
    }

    /// Lends so much from now on; what is lent beyond is asked back.
    pub(crate) fn resize(&mut self, capacity: u32) {
        self.capacity = capacity;
        self.settle();
    }

    /// How many requests at a time it takes now.
    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// All that was granted to the broker in its session.
    pub(crate) fn granted(&self, broker: BrokerId) -> u64 {
        self.shares[broker.0].map_or(0, |share| share.granted)
    }

    /// What the broker was granted, has used and has returned.
    #[cfg(feature = "simulation")]
    pub(crate) fn credit(&self, broker: BrokerId) -> Option<[u64; 3]> {
        self.shares[broker.0].map(|share| [share.granted, share.used, share.returned])
    }

    /// Whether the broker could still send a request.
    pub(crate) fn is_idle_anywhere(&self, broker: BrokerId) -> bool {
        self.shares[broker.0].is_some_and(|share| 0 < share.idle())
    }

    /// Requests that occupy a handler.
    pub(crate) fn occupied(&self) -> u64 {
        let running: u64 = self.shares().map(|share| share.used - share.finished).sum();
        running + self.orphans
    }

    /// Whether the broker has credit that is wanted back, and is not being asked already.
    pub(crate) fn has_claim(&self, broker: BrokerId) -> bool {
        self.shares[broker.0].is_some_and(|share| !share.is_asked) && 0 < self.wanted_from(broker)
    }

    /// What the broker is to be asked to return now, if anything. It answers with what it has, which may be less: some has been used,
    /// and some has not come yet.
    pub(crate) fn reclaim(&mut self, broker: BrokerId) -> Option<u32> {
        let wanted = self.has_claim(broker).then(|| self.wanted_from(broker));
        if let Some(share) = &mut self.shares[broker.0] {
            share.is_asked |= wanted.is_some();
        }
        wanted
    }

    /// Waits no longer for the broker's answer: others are asked in its place, and it is asked again as well.
    pub(crate) fn forget_asked(&mut self, broker: BrokerId) {
        if let Some(share) = &mut self.shares[broker.0] {
            share.is_mute |= share.is_asked;
            share.is_asked = false;
        }
    }

    /// Wants are covered from the brokers' spare credit in their order: stable, so that a broker is not asked twice.
    fn wanted_from(&self, broker: BrokerId) -> u32 {
        let wants: u64 = if self.capacity == 0 {
            0
        } else {
            self.shares().map(Share::wants).sum()
        };
        let excess = self.held().saturating_sub(u64::from(self.capacity));
        let before: u64 = self.shares[..broker.0]
            .iter()
            .flatten()
            .filter(|share| !share.is_mute)
            .map(Share::spare)
            .sum();
        let Some(share) = self.shares[broker.0] else {
            return 0;
        };
        // With nothing to be lent, brokers keep nothing for their own queues either.
        let spare = if self.capacity == 0 {
            share.idle()
        } else {
            share.spare()
        };
        let wanted = (wants.max(excess)).saturating_sub(before).min(spare);
        u32::try_from(wanted.max(share.stale())).unwrap_or(u32::MAX)
    }

    fn shares(&self) -> impl Iterator<Item = &Share> {
        self.shares.iter().flatten()
    }

    fn held(&self) -> u64 {
        self.shares().map(Share::held).sum::<u64>() + self.orphans
    }

    fn free(&self) -> u64 {
        u64::from(self.capacity).saturating_sub(self.held())
    }

    fn settle(&mut self) {
        self.serve_demand();
        self.spread();
    }

    /// Free capacity goes to those with requests waiting: always to the one that holds least, among equals to the one served
    /// longest ago, so that a long queue at one broker does not starve a short one at another.
    fn serve_demand(&mut self) {
        while 0 < self.free() {
            let neediest = self.least(|share| 0 < share.wants());
            let Some(broker) = neediest else { return };
            self.grant(broker);
        }
    }

    /// What nobody waits for is spread evenly over all brokers that take work, those not in session included: theirs is kept
    /// until somebody demands it.
    fn spread(&mut self) {
        let closed = self.shares().filter(|share| share.is_closed).count();
        let open = u32::try_from(self.shares.len() - closed).unwrap_or(u32::MAX);
        let even = u64::from(self.capacity.div_ceil(open.max(1)));
        while 0 < self.free() {
            let Some(broker) = self.least(|share| !share.is_closed && share.held() < even) else {
                return;
            };
            self.grant(broker);
        }
    }

    fn least(&self, among: impl Fn(&Share) -> bool) -> Option<BrokerId> {
        let share_of = |(index, share): (usize, &Option<Share>)| Some((BrokerId(index), (*share)?));
        self.shares
            .iter()
            .enumerate()
            .filter_map(share_of)
            .filter(|(_, share)| among(share))
            .min_by_key(|(_, share)| (share.held(), share.served_at))
            .map(|(broker, _)| broker)
    }

    fn grant(&mut self, broker: BrokerId) {
        if let Some(share) = &mut self.shares[broker.0] {
            self.turn += 1;
            share.granted += 1;
            share.served_at = self.turn;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const A: BrokerId = BrokerId(0);
    const B: BrokerId = BrokerId(1);
    const C: BrokerId = BrokerId(2);

    fn admitted(ledger: &mut Ledger, broker: BrokerId) -> bool {
        ledger.admit(broker) == Admission::Valid
    }

    #[test]
    fn capacity_is_split_evenly_among_the_brokers_whichever_comes_first() {
        let mut ledger = Ledger::new(8, 2);
        ledger.join(A);
        assert_eq!(ledger.granted(A), 4, "the rest waits for the other");
        ledger.join(B);
        assert_eq!(ledger.granted(B), 4);
    }

    #[test]
    fn one_broker_alone_may_use_all_that_absent_ones_leave() {
        let mut ledger = Ledger::new(8, 2);
        ledger.join(A);
        ledger.demand(A, 20);
        assert_eq!(ledger.granted(A), 8);
    }

    #[test]
    fn a_capacity_of_one_wanders_between_three_brokers() {
        let mut ledger = Ledger::new(1, 3);
        for broker in [A, B, C] {
            ledger.join(broker);
        }
        assert_eq!(
            [A, B, C].map(|broker| ledger.granted(broker)),
            [1, 0, 0],
            "first come"
        );

        ledger.demand(C, 1);
        assert_eq!(ledger.reclaim(A), Some(1));
        assert_eq!(ledger.reclaim(A), None, "asked once");
        assert!(ledger.returned(A, 1));
        assert_eq!(ledger.granted(C), 1);

        assert!(admitted(&mut ledger, C));
        ledger.demand(B, 1);
        assert_eq!(ledger.reclaim(C), None, "it has nothing idle");
        ledger.finish(C);
        assert_eq!([A, B, C].map(|broker| ledger.granted(broker)), [1, 1, 1]);
    }

    #[test]
    fn a_long_queue_does_not_starve_a_short_one() {
        let mut ledger = Ledger::new(1, 2);
        ledger.join(A);
        ledger.join(B);
        assert!(admitted(&mut ledger, A));
        ledger.demand(A, 100);
        ledger.demand(B, 1);
        ledger.finish(A);
        assert_eq!(ledger.granted(B), 1);
    }

    #[test]
    fn a_broker_that_returned_less_than_was_wanted_is_asked_again_for_what_it_had_not_seen() {
        let mut ledger = Ledger::new(2, 2);
        ledger.join(A);
        ledger.join(B);
        assert!(admitted(&mut ledger, B));
        ledger.demand(B, 1);
        assert_eq!(ledger.reclaim(A), Some(1));
        assert!(ledger.returned(A, 0), "our grant was still on its way");
        assert_eq!(ledger.reclaim(A), Some(1));
    }

    #[test]
    fn a_finished_request_renews_the_credit_of_its_broker_at_once() {
        let mut ledger = Ledger::new(2, 1);
        ledger.join(A);
        assert!(admitted(&mut ledger, A));
        ledger.finish(A);
        assert_eq!(ledger.granted(A), 3);
        assert_eq!(ledger.held(), 2);
    }

    #[test]
    fn a_lost_session_frees_its_share_but_for_handlers_that_still_run() {
        let mut ledger = Ledger::new(4, 2);
        ledger.join(A);
        ledger.join(B);
        assert!(admitted(&mut ledger, A));
        ledger.leave(A);
        ledger.demand(B, 10);
        assert_eq!(ledger.granted(B), 3);
        ledger.orphan_stopped();
        assert_eq!(ledger.granted(B), 4);
    }

    #[test]
    fn a_request_without_credit_is_over_at_once_and_takes_nothing_from_others() {
        let mut ledger = Ledger::new(1, 1);
        ledger.join(A);
        assert!(admitted(&mut ledger, A));
        assert!(!admitted(&mut ledger, A));
        assert_eq!((ledger.held(), ledger.occupied()), (1, 1));
        ledger.finish(A);
        assert!(admitted(&mut ledger, A));
    }

    #[test]
    fn more_returned_than_was_ever_idle_is_noticed_and_makes_no_room() {
        let mut ledger = Ledger::new(2, 1);
        ledger.join(A);
        assert!(admitted(&mut ledger, A));
        assert!(!ledger.returned(A, 1_000));
        assert_eq!(
            ledger.held(),
            2,
            "one is used, one came back and was lent again"
        );
    }

    #[test]
    fn a_capacity_of_nothing_asks_everything_idle_back_and_lends_nothing() {
        let mut ledger = Ledger::new(4, 1);
        ledger.join(A);
        assert!(admitted(&mut ledger, A));
        ledger.resize(0);
        assert_eq!(ledger.reclaim(A), Some(3));
        assert!(ledger.returned(A, 3));
        ledger.finish(A);
        ledger.demand(A, 9);
        assert_eq!(ledger.held(), 0);
        ledger.resize(4);
        assert_eq!(ledger.held(), 4);
    }

    #[test]
    fn a_closed_share_gets_what_waits_there_and_its_part_goes_to_the_others() {
        let mut ledger = Ledger::new(9, 3);
        ledger.join(A);
        ledger.join(B);
        ledger.close(A);
        assert!(ledger.returned(A, 3));
        assert_eq!(
            [A, B].map(|broker| ledger.granted(broker)),
            [3, 5],
            "the absent one's part is kept"
        );
        ledger.demand(A, 2);
        assert_eq!(ledger.granted(A), 5, "for those that it took before");
        assert!(admitted(&mut ledger, A));
        ledger.finish(A);
        assert_eq!((ledger.granted(A), ledger.held()), (5, 6));

        ledger.join(A);
        assert_eq!(ledger.granted(A), 3, "a new session is open");
    }

    #[test]
    fn requests_on_expired_credit_are_told_from_those_on_credit_granted_since() {
        let mut ledger = Ledger::new(3, 1);
        ledger.join(A);
        ledger.expire();
        assert_eq!(ledger.reclaim(A), Some(3));
        assert_eq!(ledger.admit(A), Admission::Expired);
        ledger.finish(A);
        assert_eq!(ledger.granted(A), 4, "lent anew at once");
        assert!(ledger.returned(A, 2));
        assert_eq!(ledger.granted(A), 6);
        assert_eq!(ledger.admit(A), Admission::Valid);

        ledger.expire();
        ledger.join(A);
        assert_eq!(ledger.admit(A), Admission::Valid, "a session of its own");
    }

    #[test]
    fn a_capacity_that_grows_is_lent_at_once_and_one_that_shrinks_is_asked_back() {
        let mut ledger = Ledger::new(4, 2);
        ledger.join(A);
        ledger.join(B);
        ledger.resize(10);
        assert_eq!([A, B].map(|broker| ledger.granted(broker)), [5, 5]);
        ledger.demand(A, 3);
        ledger.resize(6);
        assert_eq!(
            [A, B].map(|broker| ledger.reclaim(broker)),
            [Some(2), Some(2)]
        );
        assert!(ledger.returned(A, 2) && ledger.returned(B, 2));
        assert_eq!([A, B].map(|broker| ledger.granted(broker)), [5, 5]);
    }

    /// A broker as honest as the real one, with messages that take their time in both directions.
    #[derive(Default)]
    struct Honest {
        in_session: bool,
        /// It is not so honest: it answers no RECLAIM.
        is_mute: bool,
        drains: bool,
        queue: u32,
        granted: u64,
        used: u64,
        returned: u64,
        demand_said: u32,
        running: u32,
        to_it: VecDeque<Told>,
        to_us: VecDeque<Said>,
    }

    enum Told {
        Granted(u64),
        Reclaim(u32),
    }

    enum Said {
        /// Whether it lay in a socket while we were away.
        Request {
            queued: bool,
        },
        Demand(u32),
        Returned(u64),
        Drain,
    }

    impl Honest {
        fn idle(&self) -> u64 {
            self.granted - self.used - self.returned
        }

        fn act(&mut self) {
            while 0 < self.queue && 0 < self.idle() {
                self.queue -= 1;
                self.used += 1;
                self.to_us.push_back(Said::Request { queued: false });
            }
            if self.demand_said != self.queue {
                self.demand_said = self.queue;
                self.to_us.push_back(Said::Demand(self.queue));
            }
            if self.drains && 0 < self.idle() {
                self.give_back();
            }
        }

        fn give_back(&mut self) {
            self.returned += self.idle();
            self.to_us.push_back(Said::Returned(self.returned));
        }
    }

    struct Site {
        ledger: Ledger,
        brokers: Vec<Honest>,
        granted_said: Vec<u64>,
        orphans: u32,
        /// Now, and at most so far.
        capacity: u32,
        most: u32,
    }

    impl Site {
        fn new(capacity: u32, brokers: usize) -> Self {
            Self {
                ledger: Ledger::new(capacity, brokers),
                brokers: (0..brokers).map(|_| Honest::default()).collect(),
                granted_said: vec![0; brokers],
                orphans: 0,
                capacity,
                most: capacity,
            }
        }

        fn say(&mut self) {
            for index in 0..self.brokers.len() {
                let granted = self.ledger.granted(BrokerId(index));
                if self.granted_said[index] != granted {
                    self.granted_said[index] = granted;
                    self.brokers[index].to_it.push_back(Told::Granted(granted));
                }
                if let Some(wanted) = self.ledger.reclaim(BrokerId(index)) {
                    self.brokers[index].to_it.push_back(Told::Reclaim(wanted));
                }
            }
        }

        fn do_one(&mut self, what: u8, index: usize) {
            let id = BrokerId(index);
            let broker = &mut self.brokers[index];
            match what {
                0 if !broker.in_session => {
                    broker.in_session = true;
                    broker.act();
                    self.ledger.join(id);
                }
                1 if broker.in_session => {
                    self.orphans += broker.running;
                    *broker = Honest {
                        queue: broker.queue,
                        is_mute: broker.is_mute,
                        ..Honest::default()
                    };
                    self.granted_said[index] = 0;
                    self.ledger.leave(id);
                }
                2 if broker.in_session => {
                    broker.queue += 1;
                    broker.act();
                }
                3 | 4 => match broker.to_it.pop_front() {
                    Some(Told::Granted(granted)) => {
                        broker.granted = granted;
                        broker.act();
                    }
                    Some(Told::Reclaim(wanted)) if 0 < wanted && !broker.is_mute => {
                        broker.give_back();
                    }
                    Some(Told::Reclaim(_)) | None => {}
                },
                5 | 6 => match broker.to_us.pop_front() {
                    Some(Said::Request { queued }) => match self.ledger.admit(id) {
                        Admission::Valid => {
                            assert!(!queued, "it may be long over for who sent it");
                            broker.running += 1;
                        }
                        Admission::Expired => self.ledger.finish(id),
                        Admission::NoCredit => panic!("an honest broker has credit"),
                    },
                    Some(Said::Demand(requests)) => self.ledger.demand(id, requests),
                    Some(Said::Returned(total)) => assert!(self.ledger.returned(id, total)),
                    Some(Said::Drain) => self.ledger.close(id),
                    None => {}
                },
                7 if 0 < broker.running => {
                    broker.running -= 1;
                    self.ledger.finish(id);
                }
                8 if 0 < self.orphans => {
                    self.orphans -= 1;
                    self.ledger.orphan_stopped();
                }
                9 => self.ledger.forget_asked(id),
                12 => {
                    self.capacity = 2 * u32::try_from(index).unwrap();
                    self.most = self.most.max(self.capacity);
                    self.ledger.resize(self.capacity);
                }
                11 => {
                    for said in self.brokers.iter_mut().flat_map(|it| &mut it.to_us) {
                        if let Said::Request { queued } = said {
                            *queued = true;
                        }
                    }
                    self.ledger.expire();
                }
                10 if broker.in_session && !broker.drains => {
                    broker.drains = true;
                    broker.to_us.push_back(Said::Drain);
                    broker.act();
                }
                _ => {}
            }
            self.say();
            self.check();
        }

        fn is_quiet(&self) -> bool {
            let is_idle = |broker: &Honest| {
                (broker.queue, broker.running) == (0, 0) && broker.to_us.is_empty()
            };
            self.orphans == 0 && self.brokers.iter().all(is_idle)
        }

        /// Nothing new comes: all get what they wait for, however the credit lay.
        fn come_to_rest(&mut self) {
            for round in 0..500 {
                if self.is_quiet() {
                    break;
                }
                for index in 0..self.brokers.len() {
                    for what in [0, 3, 5, 7, 8] {
                        self.do_one(what, index);
                    }
                    if round % 10 == 0 {
                        self.do_one(9, index);
                    }
                }
            }
        }

        fn check(&self) {
            let running: u32 = self.brokers.iter().map(|broker| broker.running).sum();
            assert!(running + self.orphans <= self.most);
            assert_eq!(u64::from(running + self.orphans), self.ledger.occupied());
            assert!(self.ledger.held() <= u64::from(self.most));
        }
    }

    proptest! {
        #[test]
        fn capacity_is_never_exceeded_and_nobody_waits_in_vain(
            capacity in 1u32..6,
            brokers in 1usize..4,
            deeds in proptest::collection::vec((0u8..13, 0usize..4), 0..300),
        ) {
            let mut site = Site::new(capacity, brokers);
            for (what, index) in deeds {
                site.do_one(what, index % brokers);
            }
            site.capacity = capacity;
            site.ledger.resize(capacity);
            site.say();

            site.come_to_rest();
            prop_assert!(site.is_quiet(), "somebody waits in vain");
            prop_assert_eq!(site.ledger.occupied(), 0);
        }

        #[test]
        fn a_broker_that_returns_nothing_keeps_what_it_has_and_nothing_of_what_others_have(
            capacity in 1u32..9,
            brokers in 2usize..5,
            mute in 0usize..4,
            deeds in proptest::collection::vec((0u8..10, 0usize..4), 0..300),
        ) {
            let mut site = Site::new(capacity, brokers);
            let mute = mute % brokers;
            site.brokers[mute].is_mute = true;
            for (what, index) in deeds {
                site.do_one(what, index % brokers);
            }
            site.come_to_rest();
            // Whoever waits does so for what the mute one holds.
            let shares = site.ledger.shares.iter().enumerate();
            let spare = shares.filter(|(index, _)| *index != mute);
            let spare: u64 = spare.filter_map(|(_, share)| share.as_ref()).map(Share::spare).sum();
            let waiting = site.brokers.iter().any(|broker| 0 < broker.queue);
            prop_assert!(!waiting || spare == 0, "{:?}", site.ledger);
        }
    }
}
