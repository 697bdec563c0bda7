//! The accounts of requests that are asked about: written as things happen, and said before the response's head.

use scale0_wire::{DecodeError, Explain, Kind, Message, RoutingHeader, What};

use super::{Broker, Session, about};
use crate::core::backend::BackendKey;
use crate::core::stream::{Phase, StreamKey};
use crate::core::trace::Trace;

/// Accounts at a time, each of up to ten kilobytes: people ask for them, about one request. Beyond it there is none.
const ACCOUNTS: usize = 1024;

impl Broker {
    /// An account is begun of a request that asks for it.
    pub(super) fn begin_account(&mut self, key: StreamKey, header: &RoutingHeader) {
        let link = &self.frontends[self.streams[key].frontend.0].link;
        if header.flags.contains(scale0_wire::Flags::EXPLAIN)
            && Kind::Explain.is_spoken_in(link.version)
            && self.accounts < ACCOUNTS
        {
            self.accounts += 1;
            self.streams[key].trace = Some(Trace::begin(self.now, &link.node));
        }
    }

    /// Something happened to a request, at this backend if at any. Nothing is done if nobody has asked.
    pub(super) fn note(
        &mut self,
        key: StreamKey,
        what: What,
        numbers: (u32, u32),
        at: Option<BackendKey>,
    ) {
        let stream = &self.streams[key];
        let key = match stream.twin {
            Some(request) if stream.is_copy => request,
            Some(_) | None => key,
        };
        if let Some(trace) = &mut self.streams[key].trace {
            let node = at.map_or("", |at| &self.backends[at.0].link.node);
            trace.note(self.now, what, numbers, node);
        }
    }

    /// Says the account of a request, if there is one: its response's head, or its last word, comes next.
    pub(super) fn say_account(&mut self, key: StreamKey) {
        let Some(trace) = self.streams[key].trace.take() else {
            return;
        };
        self.accounts -= 1;
        let stream = &self.streams[key];
        let message = about(Kind::Explain, stream.correlation).with_metadata(trace.tell().encode());
        self.tell(Session::Frontend(stream.frontend), message);
    }

    /// A backend tells its part of an account.
    pub(super) fn hear_account(
        &mut self,
        key: BackendKey,
        message: &Message,
    ) -> Result<(), DecodeError> {
        let theirs = Explain::decode(&message.metadata)?;
        let Some(stream) = self.stream_at(key, message.header.correlation) else {
            return Ok(());
        };
        let stream = &mut self.streams[stream];
        if let (Some(trace), Phase::Sent(_)) = (&mut stream.trace, stream.phase) {
            trace.take_in(stream.since, theirs, &self.backends[key.0].link.node);
        }
        Ok(())
    }
}
