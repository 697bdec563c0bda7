//! The one place where reasons become HTTP statuses.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use scale0_wire::Reason;

use crate::fields::BadRequest;
use crate::session::Failure;

/// RFC 9209: which intermediary made this response, and why.
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// An answer of our own making.
#[derive(Clone, Debug)]
pub(crate) struct ErrorResponse {
    pub(crate) status: StatusCode,
    /// The reason's name, as metrics and logs have it.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) detail: String,
    /// When it is worth asking again, in seconds.
    pub(crate) retry_after: Option<u32>,
    /// Whether the connection can carry no further request.
    pub(crate) close: bool,
}

impl ErrorResponse {
    pub(crate) fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            detail: detail.into(),
            retry_after: None,
            close: false,
        }
    }

    /// Fields and content of the answer.
    pub(crate) fn render(&self, node: &str, request_id: &str) -> (HeaderMap, Bytes) {
        let phrase = self.status.canonical_reason().unwrap_or("error");
        let mut text = format!("{} {phrase}\n{}", self.status.as_u16(), self.reason);
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text.push_str("\nrequest ");
        text.push_str(request_id);
        text.push('\n');

        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        let status = format!(
            "{node}; error={}; details=\"{}\"",
            proxy_error(self.reason),
            self.reason
        );
        if let Ok(status) = HeaderValue::try_from(status) {
            headers.insert(PROXY_STATUS, status);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        (headers, text.into())
    }
}

impl From<BadRequest> for ErrorResponse {
    fn from(bad: BadRequest) -> Self {
        // What was misread once may be misread further: nothing after it on this connection is trusted.
        Self {
            close: true,
            ..Self::new(bad.status, "bad-request", bad.why)
        }
    }
}

impl From<&Failure> for ErrorResponse {
    fn from(failure: &Failure) -> Self {
        let status = status(failure.reason);
        let retry_after = match failure.retry_after_ms {
            0 => (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
            milliseconds => Some(milliseconds.div_ceil(1000)),
        };
        Self {
            retry_after,
            ..Self::new(status, failure.reason.name(), failure.detail.clone())
        }
    }
}

/// What a client is told of a reason.
pub(crate) const fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::UnknownService => StatusCode::NOT_FOUND,
        Reason::NoBackend
        | Reason::QueueFull
        | Reason::QueueBytes
        | Reason::NoBroker
        | Reason::Draining
        | Reason::AppRefused
        | Reason::TooManyStreams
        | Reason::Overloaded
        | Reason::Paused
        | Reason::NoCredit
        | Reason::TooLate
        | Reason::NotAllowed
        | Reason::Quarantined => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Deadline | Reason::IdleTimeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::BackendLost
        | Reason::BrokerLost
        | Reason::AppFailed
        | Reason::Cancelled
        | Reason::ProtocolError
        | Reason::HeadTooLarge
        | Reason::SessionEnded => StatusCode::BAD_GATEWAY,
        Reason::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::ClientGone => StatusCode::BAD_REQUEST,
    }
}

/// The error type that RFC 9209 §2.3 registers for it.
fn proxy_error(reason: &str) -> &'static str {
    match reason {
        "unknown-service" => "destination_not_found",
        "no-backend" | "no-broker" | "app-refused" | "draining" | "not-allowed" | "quarantined" => {
            "destination_unavailable"
        }
        "queue-full" | "queue-bytes" | "too-late" | "too-many-streams" | "overloaded"
        | "no-credit" | "paused" => "connection_limit_reached",
        "deadline" => "http_response_timeout",
        "idle-timeout" => "connection_read_timeout",
        "backend-lost" | "broker-lost" | "session-ended" | "cancelled" => "connection_terminated",
        "app-failed" | "protocol-error" => "http_response_incomplete",
        "head-too-large" => "http_response_header_section_size",
        "loop" => "proxy_loop_detected",
        "bad-request" | "content-too-large" | "client-gone" => "http_request_error",
        _other => "proxy_internal_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_an_error_with_its_name_in_the_answer() {
        for reason in Reason::ALL {
            let failure = Failure {
                reason: *reason,
                started: false,
                retry_after_ms: 1500,
                detail: String::new(),
            };
            let answer = ErrorResponse::from(&failure);
            assert!(
                answer.status.is_client_error() || answer.status.is_server_error(),
                "{reason:?}"
            );
            let (headers, text) = answer.render("n1", "id");
            assert!(std::str::from_utf8(&text).unwrap().contains(reason.name()));
            assert_eq!(headers[header::RETRY_AFTER], "2");
            assert_ne!(
                proxy_error(reason.name()),
                "proxy_internal_error",
                "{reason:?} maps to nothing"
            );
        }
    }
}
