//! Which broker a request is sent to, and which next.

use std::time::Instant;

use scale0_transport::LinkId;
use scale0_wire::flow::SendWindow;
use scale0_wire::{FlightKey, Kind, Reason, Reject};

use super::broker::{Broker, State};
use super::lane::{Action, Lane, broker_at, find, milliseconds};
use super::stream::{Delivery, Ended, Failure, StreamId, Upload};

impl Lane {
    /// Sends the stream's request to the broker it belongs to, or lets it wait for one.
    pub(super) fn place(&mut self, now: Instant, id: StreamId, actions: &mut Vec<Action>) {
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        let is_untried =
            |broker: &Broker| broker.state == State::Live && !stream.tried.contains(&broker.link);
        let untried = self.brokers.iter().filter(|broker| is_untried(broker));
        let (all, heard) = untried.fold((0, 0), |(all, heard), broker| {
            (all + 1, heard + usize::from(!broker.is_suspect(now)))
        });
        // Silent ones only where there are no others.
        let passes_by = 0 < heard && heard < all;
        // One without backends gives it back at once while another could serve it: only the last one waits for somebody to come.
        let among = if passes_by { heard } else { all };
        let candidates = self
            .brokers
            .iter_mut()
            .filter(|broker| is_untried(broker) && !(passes_by && broker.is_suspect(now)));
        let chosen = if stream.request.header.flight == FlightKey(0) {
            candidates.min_by_key(|broker| (broker.outstanding, broker.load))
        } else {
            candidates.max_by_key(|broker| broker.claim(stream.request.header.flight))
        };
        let Some(broker) = chosen else { return };
        self.counters.passed_by_silent += u64::from(passes_by);
        stream.link = Some(broker.link);
        stream.told_due = stream.due;
        stream.has_news = false;
        broker.outstanding += 1;
        let mut request = stream.request.clone();
        request.header.deadline_ms = milliseconds(stream.due.saturating_duration_since(now));
        if among == 1 {
            // What it was held here or at another broker, it is not held again.
            let held = now.saturating_duration_since(stream.held_since);
            request.header.hold_ms = milliseconds(stream.hold.saturating_sub(held));
        }
        broker.send(request, actions);
        if let (Some(end), Upload::Done) = (&stream.upload_end, &stream.upload) {
            broker.say(Kind::End, id.0, end.clone(), actions);
        }
        self.explain_placement(now, id, among, actions);
    }

    /// Sends what waits for a broker, first come first.
    pub(super) fn place_waiting(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut waiting: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.link.is_none())
            .map(|(_, stream)| stream.id)
            .collect();
        // They are numbered in the order in which they came.
        waiting.sort_unstable_by_key(|id| id.0);
        for id in waiting {
            self.place(now, id, actions);
        }
    }

    /// The stream is no longer with its broker, if it was with one; no window of that session holds for it.
    pub(super) fn leave_broker(&mut self, id: StreamId) {
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        let Some(link) = stream.link.take() else {
            return;
        };
        let was_in_line = std::mem::take(&mut stream.in_line);
        stream.send = SendWindow::default();
        if let Some(broker) = broker_at(&mut self.brokers, link) {
            broker.outstanding -= 1;
            if was_in_line {
                broker.line.retain(|other| *other != id);
            }
        }
    }

    /// Its broker is lost: it is repeated, or fails.
    pub(super) fn lose(&mut self, now: Instant, id: StreamId, actions: &mut Vec<Action>) {
        self.explain_end(now, id, Ended::Lost, actions);
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        let losses = stream.lost.saturating_add(1);
        if stream.may_survive(losses) {
            // Who refused it before may be all that is left; so few losses bound how often it is asked again.
            stream.tried.clear();
            self.repeat(now, id, losses, actions);
        } else {
            self.fail(id, Failure::after_start(Reason::BrokerLost), actions);
        }
    }

    /// The broker has failed it. Where that is because a session ended, before the response's head, its own or those of backends, it
    /// is as good as lost with its broker and goes to another, if there is one. `losses` is how many the broker knows of that it has
    /// had, these included; 0: it does not say.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        link: LinkId,
        id: StreamId,
        failure: Failure,
        losses: u8,
        actions: &mut Vec<Action>,
    ) {
        self.explain_end(now, id, Ended::Failed(failure.reason), actions);
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        let is_loss = matches!(
            failure.reason,
            Reason::BrokerLost
                | Reason::SessionEnded
                | Reason::Draining
                | Reason::BackendLost
                // Lost, and then there was nobody left to have it.
                | Reason::NoBackend
        );
        let losses = stream.lost.saturating_add(1).max(losses);
        let may_move = is_loss && stream.may_survive(losses);
        if may_move && self.has_next(now, link, id, failure.reason) {
            self.repeat(now, id, losses, actions);
        } else {
            self.fail(id, failure, actions);
        }
    }

    /// Whether a request that this broker gave back for that reason has another one to go to, or may wait for one: a broker that
    /// drains will be followed by somebody, itself or another, for whom the request waits as for a first one.
    fn has_next(&mut self, now: Instant, link: LinkId, id: StreamId, reason: Reason) -> bool {
        let leaves = reason == Reason::Draining
            && broker_at(&mut self.brokers, link)
                .is_some_and(|broker| broker.state == State::Draining);
        let Some(stream) = find(&mut self.streams, id) else {
            return false;
        };
        if !leaves {
            stream.tried.push(link);
        }
        let is_untried =
            |broker: &Broker| broker.state == State::Live && !stream.tried.contains(&broker.link);
        let may_wait = leaves && now < stream.held_since + stream.hold;
        may_wait || self.brokers.iter().any(is_untried)
    }

    /// Sends a request once more that may have been started, and has had so many losses.
    fn repeat(&mut self, now: Instant, id: StreamId, losses: u8, actions: &mut Vec<Action>) {
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        stream.lost = losses;
        stream.held_since = now;
        stream.request.header.attempt = losses;
        self.counters.repeated += 1;
        self.leave_broker(id);
        self.place(now, id, actions);
    }

    fn fail(&mut self, id: StreamId, failure: Failure, actions: &mut Vec<Action>) {
        self.forget(id);
        actions.push(Action::Deliver(id, Delivery::Failed(failure)));
    }

    /// The broker took this request and gave it back unstarted: another may do better, unless the answer is final anywhere.
    pub(super) fn rejected(
        &mut self,
        now: Instant,
        link: LinkId,
        id: StreamId,
        reject: Reject,
        actions: &mut Vec<Action>,
    ) {
        self.explain_end(now, id, Ended::Refused(reject.reason), actions);
        let Some(stream) = find(&mut self.streams, id) else {
            return;
        };
        let is_final = !matches!(
            reject.reason,
            Reason::Draining | Reason::SessionEnded | Reason::UnknownService | Reason::NoBackend
        );
        // This broker has not started it; one that was lost with it may have.
        let started = 0 < stream.lost;
        let may_move = !is_final && stream.is_whole();
        if may_move && self.has_next(now, link, id, reject.reason) {
            self.counters.refused_elsewhere += 1;
            self.leave_broker(id);
            return self.place(now, id, actions);
        }
        let Reject {
            reason,
            retry_after_ms,
            detail,
        } = reject;
        self.fail(
            id,
            Failure {
                reason,
                started,
                retry_after_ms,
                detail,
            },
            actions,
        );
    }
}
