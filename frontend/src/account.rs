//! The account of one request: what the metrics count and the access log tells once it is over.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use crate::access_log::Record;
use crate::clock;
use crate::exchange::Exchange;
use crate::explanation::Explanation;
use crate::watch::{Answering, TooSlow, Turn};
use crate::worker::{Shared, TakenSeat};

/// Kept from a request's head to the end of its response; dropping it closes it.
pub(crate) struct Account {
    shared: Arc<Shared>,
    /// The connection counts the request as being answered until then.
    answering: Option<Answering>,
    log: Option<Box<Log>>,
    /// What its operator wants to know of it.
    explanation: Option<Rc<Explanation>>,
    /// Among the long streams, if it is one.
    seat: Option<TakenSeat>,
    started: Instant,
    bytes: u64,
    status: StatusCode,
    reason: &'static str,
    complete: bool,
}

/// What only the access log wants to know.
struct Log {
    request_id: String,
    client: Option<IpAddr>,
    method: Method,
    authority: String,
    target: String,
    version: Version,
    service: String,
    backend: String,
    cache_status: String,
    head_at: Option<Instant>,
}

impl Account {
    pub(crate) fn open(
        shared: &Arc<Shared>,
        answering: Option<Answering>,
        exchange: &Exchange,
    ) -> Self {
        let log = shared.access_log.is_on().then(|| {
            Box::new(Log {
                request_id: exchange.request_id.clone(),
                client: Some(exchange.client),
                method: exchange.method.clone(),
                authority: exchange.authority.clone(),
                target: exchange.target.clone(),
                version: exchange.version,
                service: exchange.service_name().to_owned(),
                backend: String::new(),
                cache_status: String::new(),
                head_at: None,
            })
        });
        let mut account = Self::new(shared, answering, log, exchange.started);
        account.explanation.clone_from(&exchange.explanation);
        account
    }

    /// Of a request whose head made no sense.
    pub(crate) fn refused(
        shared: &Arc<Shared>,
        answering: Option<Answering>,
        client: IpAddr,
        request_id: &str,
        started: Instant,
    ) -> Self {
        let log = shared.access_log.is_on().then(|| {
            Box::new(Log {
                request_id: request_id.to_owned(),
                client: Some(client),
                method: Method::default(),
                authority: String::new(),
                target: String::new(),
                version: Version::HTTP_11,
                service: String::new(),
                backend: String::new(),
                cache_status: String::new(),
                head_at: None,
            })
        });
        Self::new(shared, answering, log, started)
    }

    fn new(
        shared: &Arc<Shared>,
        answering: Option<Answering>,
        log: Option<Box<Log>>,
        started: Instant,
    ) -> Self {
        shared.counters.requests.add(1);
        Self {
            shared: Arc::clone(shared),
            answering,
            log,
            explanation: None,
            seat: None,
            started,
            bytes: 0,
            // What it stays if nothing is answered: the client left first (nginx's number; there is no registered one).
            status: CLIENT_CLOSED,
            reason: "",
            complete: false,
        }
    }

    /// It is a long stream from here on, and has this seat until it ends.
    pub(crate) fn seated(&mut self, seat: TakenSeat) {
        self.seat = Some(seat);
    }

    /// The clock of the response, where it has one of its own.
    pub(crate) fn turn(&self) -> Option<Turn> {
        let watched = self.answering.as_ref()?.watched();
        Turn::new(watched, TooSlow::Reading, &self.shared.limits)
    }

    pub(crate) fn answering(&self) -> Option<&Answering> {
        self.answering.as_ref()
    }

    /// The response's head is about to be sent; what its operator wants to know is added to it.
    pub(crate) fn head(
        &mut self,
        status: StatusCode,
        headers: &mut HeaderMap,
        reason: &'static str,
        backend: Option<&HeaderValue>,
    ) {
        self.status = status;
        self.reason = reason;
        if let Some(log) = &mut self.log {
            log.head_at = Some(clock::now());
            if let Some(backend) = backend.and_then(|backend| backend.to_str().ok()) {
                backend.clone_into(&mut log.backend);
            }
            if let Some(status) = headers
                .get("cache-status")
                .and_then(|status| status.to_str().ok())
            {
                status.clone_into(&mut log.cache_status);
            }
        }
        if let Some(explanation) = self.explanation.take() {
            explanation.answer(status.as_u16(), headers);
        }
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub(crate) fn completed(&mut self) {
        self.complete = true;
    }

    pub(crate) fn broke_off(&mut self, reason: &'static str) {
        self.reason = reason;
    }
}

/// The client left before there was an answer.
const CLIENT_CLOSED: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

impl Drop for Account {
    fn drop(&mut self) {
        let counters = &self.shared.counters;
        counters.responses(self.status).add(1);
        counters.response_bytes.add(self.bytes);
        if !self.complete {
            counters.incomplete.add(1);
        }
        let Some(log) = self.log.take() else { return };
        let ended = clock::now();
        self.shared.access_log.write(&Record {
            finished: clock::wall(),
            request_id: &log.request_id,
            client: log.client,
            method: log.method.as_str(),
            authority: &log.authority,
            target: &log.target,
            version: match log.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            status: self.status.as_u16(),
            service: &log.service,
            backend: &log.backend,
            site: &self.shared.site,
            cache_status: &log.cache_status,
            reason: self.reason,
            bytes: self.bytes,
            complete: self.complete,
            head_after: log
                .head_at
                .unwrap_or(ended)
                .saturating_duration_since(self.started),
            after: ended.saturating_duration_since(self.started),
        });
    }
}
