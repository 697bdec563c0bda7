//! What must hold of a whole site.

use std::time::Duration;

use crate::brokers::open;
use crate::node::Ask;
use crate::record::Outcome;
use crate::site::{self, FRONTENDS, NODES, SERVICES};
use crate::world::{World, clock};

/// How long an idle site is listened to.
const IDLE: Duration = Duration::from_secs(10);

/// What each end of a connection says in a second when nothing happens: a heartbeat, and half of one for what else there is.
const IDLE_MESSAGES_PER_TWO_SECONDS: u64 = 3;

impl World {
    /// What a broker lets see, against its bounds.
    pub(crate) fn check_broker(&self, broker: usize) {
        let process = &self.brokers[broker];
        let Some(core) = &process.broker else { return };
        let snapshot = core.snapshot(clock(self.now, process.ahead));
        let counters = core.counters();
        // Whatever breaks, nobody here breaks the protocol, but for strangers.
        for peer in &snapshot.quarantined {
            assert!(
                peer.name.starts_with("stranger"),
                "an honest peer is in quarantine: {peer:?}"
            );
        }
        for service in &snapshot.services {
            assert!(
                service.queued - service.queued_repeats - service.queued_flights
                    <= service.queue_limit,
                "a queue is over its bound: {service:?}"
            );
            assert!(
                2 * service.resting <= service.backends,
                "more than half of the backends rest: {service:?}"
            );
        }
        for backend in &snapshot.backends {
            assert!(
                backend.used + backend.returned <= backend.granted,
                "outstanding is over the credit: {backend:?}"
            );
        }
        for frontend in &snapshot.frontends {
            assert!(frontend.session.waiting_bytes <= 600 * 1024, "{frontend:?}");
        }
        assert_eq!(open(counters), snapshot.open_requests as u64);
        // One in five, and three more for each service in each ten seconds begun.
        let windows = snapshot.uptime_ms / 10_000 + 2;
        let budget = counters.requests / 5 + windows * 3 * SERVICES.len() as u64;
        assert!(
            counters.repeated_after_error <= budget,
            "repeats are over their budget"
        );
        // One in fifty of what came within ten seconds, of which each request is in two at the most.
        assert!(
            counters.hedged <= counters.requests / 25,
            "hedges are over their budget"
        );
    }

    /// How many nodes of these have a link to the broker.
    fn dialled_by(&self, broker: usize, nodes: std::ops::Range<usize>) -> usize {
        let nodes = self.nodes[nodes].iter();
        let knows = nodes.filter(|process| {
            let mut links = process.links.iter();
            links.any(|link| link.broker == broker && !link.is_closed)
        });
        knows.count()
    }

    /// Nothing is under way: nobody holds anything.
    pub(crate) fn check_quiet(&mut self) {
        for (index, process) in self.brokers.iter().enumerate() {
            self.check_broker(index);
            let core = process.broker.as_ref().expect("brokers are back");
            let snapshot = core.snapshot(clock(self.now, process.ahead));
            assert_eq!(
                (
                    snapshot.open_requests,
                    snapshot.abandoned,
                    snapshot.streams,
                    snapshot.kept_bytes
                ),
                (0, 0, 0, 0),
                "{snapshot:?}"
            );
            assert!(
                snapshot
                    .services
                    .iter()
                    .all(|it| it.queued == 0 && it.queued_bytes == 0)
            );
            assert!(snapshot.backends.iter().all(|it| it.outstanding == 0));
            assert_eq!(
                snapshot.backends.len(),
                self.dialled_by(index, FRONTENDS..NODES),
                "not all backends are back: {:?}",
                snapshot.backends
            );
            assert_eq!(
                snapshot.frontends.len(),
                self.dialled_by(index, 0..FRONTENDS),
                "not all frontends are back: {:?}",
                snapshot.frontends
            );
        }
        for node in 0..NODES {
            let process = &self.nodes[node];
            let name = site::node_name(node);
            process.node.check_quiet(&|link| {
                let broker = &self.brokers[process.links[link].broker];
                let snapshot = (broker.broker.as_ref()?).snapshot(clock(self.now, broker.ahead));
                let mut backends = snapshot.backends.iter();
                let it = backends.find(|it| it.session.node == name)?;
                Some([it.granted, it.used, it.returned])
            });
        }
    }

    /// Whom nobody asks says little: no two of them keep each other busy.
    pub(crate) fn check_idle(&mut self) {
        let before = self.messages;
        let end = self.now + IDLE;
        self.run_until(end);
        let said = self.messages - before;
        let connections = self.network.alive().len() as u64;
        let most = 2 * connections * IDLE.as_secs() * IDLE_MESSAGES_PER_TWO_SECONDS / 2;
        assert!(
            said <= most,
            "{connections} idle connections carried {said} messages in {IDLE:?}"
        );
    }

    /// The site still works: whoever asks is answered.
    pub(crate) fn check_alive(&mut self) {
        let mut asked = Vec::new();
        for _ in 0..100 {
            for node in 0..FRONTENDS {
                asked.push(self.ask(node));
            }
            let next = self.now + Duration::from_millis(20);
            self.run_until(next);
        }
        let end = self.now + Duration::from_secs(10);
        self.run_until(end);
        // One by one: what one broker does not use, another one gets.
        for turn in 0..12 {
            asked.push(self.ask(turn % FRONTENDS));
            let next = self.now + Duration::from_secs(8);
            self.run_until(next);
        }
        for id in asked {
            let outcome = self.record.outcome(id);
            assert_eq!(outcome, Some(Outcome::Answered), "request {id} in the calm");
        }
        self.check_quiet();
    }

    fn ask(&mut self, node: usize) -> u64 {
        let patience = Duration::from_secs(7);
        let id = self.with_node(node, |it, context| it.ask(Ask::get(patience), context));
        self.tick_node(node);
        id
    }
}
