//! Who breaks the protocol: counted for each peer, until it is not heard for a while.

use std::time::Instant;

use scale0_transport::{PeerId, Port};
use scale0_wire::{Bye, Kind, Message};

use super::{Broker, Due, Session};
use crate::core::event::Action;
use crate::core::link::Leave;
use crate::core::quarantine::Offender;
use crate::core::snapshot::QuarantineSnapshot;

impl Broker {
    /// Takes in a message, and lays what was wrong with it to its sender.
    pub(super) fn receive_watchfully(
        &mut self,
        from: PeerId,
        port: Port,
        locality: Option<u32>,
        message: Box<Message>,
    ) {
        let session = self.peers.get(&from).copied();
        if locality.is_some() {
            return self.receive((from, session), port, locality, message);
        }
        if !self.muted.is_empty() && self.muted.contains_key(&from) {
            self.counters.dropped_muted += 1;
            return;
        }
        let breaches = self.counters.breaches();
        let leave = session.map(|session| self.take_leave(session, &message));
        let is_hello = message.header.kind == Kind::Hello;
        self.receive((from, session), port, locality, message);
        if is_hello && let (Some(leave), Some(&session)) = (leave, self.peers.get(&from)) {
            // Or each HELLO of a new epoch would give leave for more.
            self.link(session).leave = leave;
        }
        if breaches != self.counters.breaches() {
            self.strike(from);
        }
    }

    fn take_leave(&mut self, session: Session, message: &Message) -> Leave {
        let now = self.now;
        let link = self.link(session);
        let has_leave = link.leave.take(message, now);
        let leave = link.leave;
        self.counters.control_floods += u64::from(!has_leave);
        leave
    }

    /// Bytes came that are no message.
    pub(super) fn note_garbage(&mut self, from: PeerId) {
        self.counters.dropped_malformed += 1;
        self.strike(from);
    }

    /// A connection is gone. Its key's record stays.
    pub(super) fn forget_offender(&mut self, peer: PeerId) {
        self.quarantine.forget(peer);
        if let Some(timer) = self.muted.remove(&peer) {
            self.timers.stop(timer);
        }
    }

    pub(super) fn unmute(&mut self, peer: PeerId) {
        self.muted.remove(&peer);
        self.actions.push(Action::Unmute { peer });
    }

    fn strike(&mut self, peer: PeerId) {
        let key = self.key_of(peer);
        let offender = key.map_or(Offender::Peer(peer), Offender::Key);
        let Some(until) = self.quarantine.strike(self.now, offender) else {
            return;
        };
        if self.muted.contains_key(&peer) {
            return;
        }
        self.counters.quarantines += 1;
        if let Some(&session) = self.peers.get(&peer) {
            let lasts = until.saturating_duration_since(self.now).as_millis();
            let lasts = u32::try_from(lasts).unwrap_or(u32::MAX);
            self.end_with(session, Bye::Quarantined(lasts));
        }
        let timer = self.timers.start(until, Due::Unmute(peer));
        self.muted.insert(peer, timer);
        self.actions.push(Action::Mute { peer, key, until });
    }

    /// Who is in quarantine, the longest first.
    pub(super) fn quarantined(&self, now: Instant) -> Vec<QuarantineSnapshot> {
        let rights = self.config.rights.as_deref();
        let in_quarantine = self.quarantine.iter(now).map(|(offender, record)| {
            let name = match offender {
                Offender::Key(key) => rights.and_then(|rights| rights.of(&key)).map_or_else(
                    || "a key no longer allowed".to_owned(),
                    |it| it.name.clone(),
                ),
                Offender::Peer(peer) => format!("{peer:?}"),
            };
            let left = (record.until).map(|until| until.saturating_duration_since(now));
            QuarantineSnapshot {
                name,
                left_ms: left.map_or(0, |left| {
                    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
                }),
                terms: record.terms,
            }
        });
        let mut quarantined: Vec<_> = in_quarantine.collect();
        quarantined.sort_by(|a, b| b.left_ms.cmp(&a.left_ms).then_with(|| a.name.cmp(&b.name)));
        quarantined
    }
}
