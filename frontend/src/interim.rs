//! Interim responses of an application (RFC 9110 §15.2), such as 103 Early Hints: which of them a client is sent.
//!
//! They are for the client whose request the application answers, and for nobody who waits for the same response: only its final
//! head says whether others may have it.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use http::{Version, header};

use crate::account::Account;
use crate::exchange::Exchange;
use crate::fields;
use crate::response;
use crate::watch::Watched;
use crate::worker::Worker;

/// Why an interim response was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The client speaks HTTP/1.0, in which there are none.
    Http10,
    /// The client speaks HTTP/2, for which hyper has no call, and no one beneath it knows the stream.
    Http2,
    /// The client has not taken those before.
    Backlog,
    /// It is none that can be sent on.
    Malformed,
    /// No client waits for its response any more, or none ever did.
    NoClient,
}

impl Dropped {
    pub(crate) const ALL: [Self; 5] = [
        Self::Http10,
        Self::Http2,
        Self::Backlog,
        Self::Malformed,
        Self::NoClient,
    ];

    /// As metrics name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http10 => "http10",
            Self::Http2 => "http2",
            Self::Backlog => "backlog",
            Self::Malformed => "malformed",
            Self::NoClient => "no-client",
        }
    }
}

/// The way of interim responses to one client. Whoever answers its request holds it until the final response is there, and no
/// longer.
pub(crate) struct Interims {
    version: Version,
    watched: Option<Arc<Watched>>,
    /// The task of the client's connection, while it waits for somebody else's.
    task: Cell<Option<Waker>>,
}

impl Interims {
    pub(crate) fn to(exchange: &Exchange, account: &Account) -> Self {
        let watched = account
            .answering()
            .map(|answering| Arc::clone(answering.watched()));
        Self {
            version: exchange.version,
            watched,
            task: Cell::default(),
        }
    }

    /// Waits, and sends meanwhile what another task says.
    pub(crate) async fn during<F: Future>(&self, waiting: F) -> F::Output {
        let mut waiting = pin!(waiting);
        poll_fn(|cx| {
            let task = self.task.take();
            let task = task.filter(|task| task.will_wake(cx.waker()));
            self.task.set(task.or_else(|| Some(cx.waker().clone())));
            waiting.as_mut().poll(cx)
        })
        .await
    }

    fn send(&self, encoded: &Bytes) -> Result<(), Dropped> {
        match self.version {
            Version::HTTP_11 => {}
            Version::HTTP_2 => return Err(Dropped::Http2),
            _ => return Err(Dropped::Http10),
        }
        let watched = self.watched.as_ref().ok_or(Dropped::NoClient)?;
        let head = head(encoded).ok_or(Dropped::Malformed)?;
        if !watched.interims().push(&head) {
            return Err(Dropped::Backlog);
        }
        if let Some(task) = self.task.take() {
            task.wake();
        }
        Ok(())
    }
}

impl Worker {
    /// Passes an interim response on, or drops it, and counts which.
    pub(crate) fn pass_on(&self, encoded: &Bytes, to: Option<&Interims>) {
        let sent = to.map_or(Err(Dropped::NoClient), |to| to.send(encoded));
        let counters = &self.shared.counters;
        match sent {
            Ok(()) => counters.interims.add(1),
            Err(why) => counters.interim_dropped(why).add(1),
        }
    }
}

/// The head as it is written. `None`: it is malformed, final, or of a status that is for one connection only.
fn head(encoded: &Bytes) -> Option<Vec<u8>> {
    let (status, mut headers) = fields::response_head(encoded).ok()?;
    if !(102..200).contains(&status.as_u16()) {
        return None;
    }
    // Nor does it frame anything (RFC 9110 §8.6).
    headers.remove(header::CONTENT_LENGTH);
    response::take_backend(&mut headers);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

#[cfg(test)]
mod tests {
    use scale0_wire::{Fields, ResponseHead};

    use super::*;

    fn written(status: u16, fields: &[(&str, &str)]) -> Option<String> {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let fields = Fields::new(fields).unwrap();
        let encoded = ResponseHead { status, fields }.encode();
        head(&encoded).map(|head| String::from_utf8(head).unwrap())
    }

    #[test]
    fn an_interim_head_has_the_fields_that_are_not_of_a_connection_and_frames_nothing() {
        let head = written(
            103,
            &[
                ("link", "</a.css>; rel=preload"),
                ("link", "</b.js>; rel=preload"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("keep-alive", "5"),
                ("transfer-encoding", "chunked"),
                ("content-length", "5"),
                ("scale0-backend", "b1"),
            ],
        );
        assert_eq!(
            head.as_deref(),
            Some(
                "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n"
            )
        );
        assert_eq!(
            written(102, &[]).as_deref(),
            Some("HTTP/1.1 102 Processing\r\n\r\n")
        );
        assert_eq!(written(199, &[]).as_deref(), Some("HTTP/1.1 199 \r\n\r\n"));
    }

    #[test]
    fn what_is_final_or_for_one_connection_or_splits_a_head_is_not_sent_as_an_interim_one() {
        for status in [100, 101, 200, 304, 99, 1000] {
            assert_eq!(written(status, &[]), None, "{status}");
        }
        assert_eq!(written(103, &[("link", "a\r\nset-cookie: b=1")]), None);
        assert_eq!(head(&Bytes::from_static(b"x")), None);
    }
}
