//! A REQUEST becomes an `http::Request`.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, StatusCode, Uri, uri};
use scale0_wire::{Flags, Message, RequestHead, ResponseHead};

use crate::exchange::Exchange;
use crate::{Body, fields};

/// What Scale0 knows of a request beyond HTTP; in its extensions.
///
/// ```
/// # fn handle(request: &http::Request<scale0_backend::Body>) {
/// let context = request.extensions().get::<scale0_backend::RequestContext>();
/// let due = context.and_then(|context| context.deadline());
/// # }
/// ```
#[derive(Clone)]
pub struct RequestContext(Arc<Exchange>);

impl RequestContext {
    /// When the response's head must be there to be of use. It may move while more clients join to wait.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }

    /// How many requests the response will answer, as far as is known now.
    #[must_use]
    pub fn waiters(&self) -> u32 {
        self.0.waiters()
    }

    /// How often it was sent to a backend before this time.
    #[must_use]
    pub fn attempt(&self) -> u8 {
        self.0.attempt
    }

    /// The node that sent it here.
    #[must_use]
    pub fn broker(&self) -> &str {
        &self.0.broker
    }

    /// Sends an interim response (RFC 9110 §15.2), such as 103 Early Hints, before the handler has answered. Returns false if it
    /// was not sent: its status is not an interim one, its head is too large, or there were too many.
    ///
    /// `100 Continue` is not to be sent like this: it is when the request's content is first read.
    pub fn interim(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let is_interim = status.is_informational()
            && status != StatusCode::SWITCHING_PROTOCOLS
            && status != StatusCode::CONTINUE;
        let fields = fields::encode(headers, &[], false);
        match fields {
            Ok(fields) if is_interim => {
                let status = status.as_u16();
                self.0.interim(ResponseHead { status, fields }.encode())
            }
            _ => false,
        }
    }

    pub(crate) fn exchange(&self) -> &Exchange {
        &self.0
    }
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("broker", &self.broker())
            .field("waiters", &self.waiters())
            .finish_non_exhaustive()
    }
}

/// The request as handlers see it. None: its head is none, for which its frontend is at fault.
pub(crate) fn build(message: Message, exchange: &Arc<Exchange>) -> Option<Request<Body>> {
    let head = RequestHead::decode(&message.metadata).ok()?;
    let mut headers = fields::decode(&head.fields)?;
    if !headers.contains_key(header::HOST) && !head.authority.is_empty() {
        let host = HeaderValue::from_maybe_shared(head.authority.clone()).ok()?;
        headers.insert(header::HOST, host);
    }
    let body = if message.header.flags.contains(Flags::FINAL) {
        Body::whole(message.content)
    } else {
        let length = fields::content_length(&headers);
        Body::streamed(message.content, length, Arc::clone(exchange))
    };
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(&head.method).ok()?;
    *request.uri_mut() = target_uri(head.secure, head.authority, head.target)?;
    *request.headers_mut() = headers;
    let context = RequestContext(Arc::clone(exchange));
    request.extensions_mut().insert(context);
    Some(request)
}

fn target_uri(secure: bool, authority: Bytes, target: Bytes) -> Option<Uri> {
    let mut parts = uri::Parts::default();
    let path = PathAndQuery::from_maybe_shared(target).ok()?;
    // `*` has no authority in a URI (RFC 9112 §3.2.4); it is in `Host`.
    if path != "*" && !authority.is_empty() {
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(Authority::from_maybe_shared(authority).ok()?);
    }
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(secure: bool, authority: &'static str, target: &'static str) -> Option<String> {
        let authority = Bytes::from_static(authority.as_bytes());
        let target = Bytes::from_static(target.as_bytes());
        target_uri(secure, authority, target).map(|uri| uri.to_string())
    }

    #[test]
    fn the_target_is_the_one_the_frontend_keyed() {
        let plain = uri(false, "shop.example:8080", "/a%2Fb?c=d");
        assert_eq!(plain.as_deref(), Some("http://shop.example:8080/a%2Fb?c=d"));
        let secure = uri(true, "[::1]", "/");
        assert_eq!(secure.as_deref(), Some("https://[::1]/"));
        assert_eq!(uri(false, "shop.example", "*").as_deref(), Some("*"));
        assert_eq!(uri(false, "shop example", "/"), None);
    }
}
