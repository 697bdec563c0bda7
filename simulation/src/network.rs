//! Connections, and the paths below them.

use std::collections::HashMap;
use std::time::Duration;

use scale0_transport::PeerId;

use crate::dice::Dice;
use crate::site::BROKERS;

/// A connection whose path is cut for so long is given up by both kernels.
pub(crate) const GIVEN_UP: Duration = Duration::from_secs(15);

/// How long after a path is whole again a connection that is dialled stands at the latest.
const REDIALLED: u64 = 400;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A node, to a broker.
    Up,
    /// A broker, to a node.
    Down,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) node: usize,
    pub(crate) link: usize,
    pub(crate) broker: usize,
    /// Data arrive.
    pub(crate) is_alive: bool,
    /// Nothing arrives any more, and neither end is told.
    pub(crate) is_half_open: bool,
    /// Its broker has left in order: what it has said last still arrives.
    pub(crate) is_left: bool,
    /// Its broker does not listen.
    pub(crate) is_muted: bool,
    delay: Duration,
    /// When what was sent last arrives, each way: order is kept.
    pub(crate) latest: [Duration; 2],
    /// Bytes sent and not taken in yet, each way.
    pub(crate) under_way: [usize; 2],
}

/// All connections there ever were, and what lies between their ends.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) connections: Vec<Connection>,
    peers: HashMap<PeerId, usize>,
    /// Until when nothing moves between a node and a broker, each way.
    blocked: Vec<[[Duration; 2]; BROKERS]>,
}

impl Network {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            connections: Vec::new(),
            peers: HashMap::new(),
            blocked: vec![[[Duration::ZERO; 2]; BROKERS]; nodes],
        }
    }

    /// A new connection; its number.
    pub(crate) fn connect(
        &mut self,
        node: usize,
        link: usize,
        broker: usize,
        dice: &mut Dice,
    ) -> usize {
        let number = self.connections.len();
        self.peers.insert(peer(number), number);
        self.connections.push(Connection {
            node,
            link,
            broker,
            is_alive: true,
            is_half_open: false,
            is_left: false,
            is_muted: false,
            delay: dice.micros(50..3000),
            latest: [Duration::ZERO; 2],
            under_way: [0; 2],
        });
        number
    }

    /// The connection that brokers know so.
    pub(crate) fn of(&self, peer: PeerId) -> usize {
        self.peers[&peer]
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        let all = self.connections.iter().enumerate();
        let alive = all.filter(|(_, connection)| connection.is_alive);
        alive.map(|(index, _)| index).collect()
    }

    /// Nothing moves this way until then.
    pub(crate) fn block(&mut self, node: usize, broker: usize, way: Way, until: Duration) {
        let blocked = &mut self.blocked[node][broker][way as usize];
        *blocked = until.max(*blocked);
    }

    /// All paths are whole.
    pub(crate) fn heal(&mut self) {
        self.blocked.fill([[Duration::ZERO; 2]; BROKERS]);
    }

    pub(crate) fn blocked_until(&self, node: usize, broker: usize, way: Way) -> Duration {
        self.blocked[node][broker][way as usize]
    }

    /// When a connection that is dialled now can stand, if not at once: a handshake needs both ways.
    pub(crate) fn dialled_at(
        &self,
        now: Duration,
        node: usize,
        broker: usize,
        dice: &mut Dice,
    ) -> Option<Duration> {
        let ways = [Way::Up, Way::Down];
        let until = ways.map(|way| self.blocked_until(node, broker, way));
        let until = until[0].max(until[1]);
        (now < until).then(|| until + dice.millis(0..REDIALLED))
    }

    /// When what is sent now arrives.
    pub(crate) fn arrival(
        &mut self,
        now: Duration,
        connection: usize,
        way: Way,
        dice: &mut Dice,
    ) -> Duration {
        let state = &self.connections[connection];
        let blocked = self.blocked_until(state.node, state.broker, way);
        let state = &mut self.connections[connection];
        let at = (now + state.delay + dice.micros(1..200)).max(state.latest[way as usize]);
        let at = if at < blocked {
            blocked + state.delay
        } else {
            at
        };
        state.latest[way as usize] = at;
        at
    }

    /// When the other end hears that this one has closed the connection: over the path, or by its kernel's patience.
    pub(crate) fn farewell(
        &self,
        now: Duration,
        connection: usize,
        way: Way,
        dice: &mut Dice,
    ) -> Duration {
        let state = &self.connections[connection];
        let blocked = self.blocked_until(state.node, state.broker, way);
        let delay = dice.micros(100..30_000);
        if state.is_half_open {
            now + GIVEN_UP
        } else {
            (now.max(blocked) + delay).min(now + GIVEN_UP)
        }
    }
}

/// How brokers know a connection.
pub(crate) fn peer(connection: usize) -> PeerId {
    PeerId::in_process(u32::try_from(connection).expect("there are fewer"))
}
