//! A request after its first reading: checked, normalised, routed.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version, request};
use scale0_cache::{Asker, Beginning, CacheKey, RequestFacts};
use scale0_wire::{DecodeError, RequestHead, ServiceId, TraceContext};

use crate::error_response::ErrorResponse;
use crate::explanation::{self, Explanation};
use crate::fields::{self, BadRequest, Present, TRACEPARENT};
use crate::forwarded::Way;
use crate::route::{Rules, Service};
use crate::secret;
use crate::session::Told;
use crate::target::{self, BadTarget};
use crate::worker::Shared;

/// A request on its way, and what is known of it.
pub(crate) struct Exchange {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// Those of the client's that [cross](fields::crossing).
    pub(crate) headers: HeaderMap,
    expects_continue: bool,
    /// Normalised.
    pub(crate) authority: String,
    /// Path and query, normalised.
    pub(crate) target: String,
    pub(crate) secure: bool,
    pub(crate) client: IpAddr,
    way: Way,
    pub(crate) request_id: String,
    pub(crate) rules: Rules,
    pub(crate) service: ServiceId,
    trace: TraceContext,
    /// Of a POST, whose response may take the place of what is stored.
    pub(crate) beginning: Option<Beginning>,
    /// When its head had come.
    pub(crate) started: Instant,
    /// What becomes of it, if it has come with the token for that.
    pub(crate) explanation: Option<Rc<Explanation>>,
}

impl Exchange {
    /// Reads a request's head.
    ///
    /// # Errors
    /// The answer to a request that is refused; the id it is refused under.
    pub(crate) fn read(
        shared: &Shared,
        peer: SocketAddr,
        started: Instant,
        parts: request::Parts,
        present: Present,
    ) -> Result<Self, (ErrorResponse, String)> {
        let request::Parts {
            method,
            uri,
            version,
            mut headers,
            ..
        } = parts;
        let origin = shared
            .trusted_proxies
            .origin(peer, false, &headers, &shared.request_ids);
        let id = origin.request_id;
        let refuse = |bad: BadRequest| (ErrorResponse::from(bad), id.clone());

        let most_fields = shared.limits.header_count;
        fields::check(&method, version, &headers, present, most_fields).map_err(refuse)?;
        let host = headers.remove(header::HOST);
        let authority = Self::authority(&uri, host, origin.secure).map_err(refuse)?;
        let target = Self::target(&method, &uri).map_err(refuse)?;
        if present.via && passed_here(&headers, &shared.node) {
            let why = "the request has passed this node before";
            return Err((
                ErrorResponse::new(StatusCode::LOOP_DETECTED, "loop", why),
                id,
            ));
        }

        let host = target::host(&authority);
        let (path, _) = target::split_query(&target);
        let rules = shared.routes.find(host, path).clone();
        let service = rules
            .service
            .as_ref()
            .map_or_else(|| ServiceId::of(host.as_bytes()), |service| service.id);
        let trace = if present.traceparent {
            trace_context(&headers)
        } else {
            TraceContext::default()
        };
        let explanation = if present.debug && may_be_explained(shared, &headers) {
            let service = match &rules.service {
                Some(service) => &service.name,
                None => host,
            };
            let explanation = Explanation::begin(started, &shared.node, &id, service);
            Some(Rc::new(explanation))
        } else {
            None
        };
        let scheme = scheme(origin.secure);
        let beginning = (method == Method::POST && rules.cache)
            .then(|| (shared.cache).begin(&CacheKey::new(scheme, &authority, &target)));
        Ok(Self {
            method,
            version,
            authority,
            target,
            secure: origin.secure,
            client: origin.client,
            way: origin.way,
            request_id: id,
            rules,
            service,
            trace,
            expects_continue: present.expect,
            beginning,
            headers: fields::crossing(headers, present),
            started,
            explanation,
        })
    }

    /// Whether its operator wants to know what becomes of it.
    pub(crate) const fn is_explained(&self) -> bool {
        self.explanation.is_some()
    }

    /// Something happened to it here.
    pub(crate) fn note(&self, what: &'static str) {
        if let Some(explanation) = &self.explanation {
            explanation.note(what);
        }
    }

    /// The same, for this reason.
    pub(crate) fn note_why(&self, what: &'static str, why: &'static str) {
        if let Some(explanation) = &self.explanation {
            explanation.note_why(what, why);
        }
    }

    /// What the lane tells of it.
    pub(crate) fn hear(&self, told: Told) {
        if let Some(explanation) = &self.explanation {
            explanation.hear(told);
        }
    }

    /// The service's name, for people.
    pub(crate) fn service_name(&self) -> &str {
        match &self.rules.service {
            Some(Service { name, .. }) => name,
            None => target::host(&self.authority),
        }
    }

    pub(crate) const fn scheme(&self) -> &'static str {
        scheme(self.secure)
    }

    /// It as the cache sees it.
    pub(crate) fn asker(&self, key: CacheKey, facts: RequestFacts) -> Asker<'_> {
        Asker {
            key,
            authority: &self.authority,
            path_and_query: &self.target,
            facts,
            headers: &self.headers,
            deadline: self.due(),
        }
    }

    pub(crate) const fn trace(&self) -> TraceContext {
        self.trace
    }

    /// When its client stops waiting for a response's head.
    pub(crate) fn due(&self) -> Instant {
        self.started + self.rules.timeout
    }

    /// Whether it may be executed twice (RFC 9110 §9.2.2), or says so itself.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.method.is_idempotent() || self.headers.contains_key("idempotency-key")
    }

    /// Whom it belongs to, as it is said on the wire; 0: nobody.
    pub(crate) fn affinity(&self) -> u64 {
        let (path, _) = target::split_query(&self.target);
        let affinity = &self.rules.affinity;
        affinity.of(self.service, &self.headers, path, self.client)
    }

    pub(crate) const fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The head as it travels; `method` and `headers` are the client's, or those of a flight. `upgrade` is the protocol
    /// to switch to, if the client asks for one; `holds_content` whether there is content that has not been read, which a
    /// client with an expectation sends when it is told to go on (RFC 9110 §10.1.1).
    ///
    /// # Errors
    /// A head that is larger than the protocol carries.
    pub(crate) fn encode(
        &self,
        shared: &Shared,
        method: &Method,
        headers: &HeaderMap,
        upgrade: Option<&[u8]>,
        holds_content: bool,
    ) -> Result<Bytes, DecodeError> {
        let via = via(self.version, &shared.node);
        let way = self.way.to_string();
        let mut ours: Vec<(&str, &[u8])> = vec![
            ("x-forwarded-for", way.as_bytes()),
            ("x-forwarded-proto", self.scheme().as_bytes()),
            ("x-forwarded-host", self.authority.as_bytes()),
            ("x-request-id", self.request_id.as_bytes()),
            ("via", via.as_bytes()),
        ];
        if holds_content && self.expects_continue() {
            ours.push(("expect", b"100-continue"));
        }
        if let Some(protocol) = upgrade {
            ours.push(("connection", b"upgrade"));
            ours.push(("upgrade", protocol));
        }
        let head = RequestHead {
            method: Bytes::copy_from_slice(method.as_str().as_bytes()),
            secure: self.secure,
            authority: Bytes::copy_from_slice(self.authority.as_bytes()),
            target: Bytes::copy_from_slice(self.target.as_bytes()),
            fields: fields::request_fields(headers, self.authority.as_bytes(), &ours)?,
        };
        Ok(head.encode())
    }

    /// RFC 9112 §3.2: one authority, and where the target names one too they agree.
    fn authority(
        uri: &http::Uri,
        host: Option<HeaderValue>,
        secure: bool,
    ) -> Result<String, BadRequest> {
        let bad = |error: BadTarget| BadRequest::new(error.0);
        let host = host
            .map(|host| {
                let host = host.to_str();
                let host = host.map_err(|_| BadTarget("the host is no valid name or address"));
                target::authority(host?, secure)
            })
            .transpose()
            .map_err(bad)?;
        let named = uri
            .authority()
            .map(|authority| target::authority(authority.as_str(), secure))
            .transpose()
            .map_err(bad)?;
        match (host, named) {
            (Some(host), Some(named)) if host != named => Err(BadRequest::new(
                "the target and Host name different authorities",
            )),
            (Some(authority), _) | (None, Some(authority)) => Ok(authority),
            (None, None) => Err(BadRequest::new("Host is missing")),
        }
    }

    fn target(method: &Method, uri: &http::Uri) -> Result<String, BadRequest> {
        let raw = uri.path_and_query().map_or("/", |target| target.as_str());
        if raw == "*" {
            return if *method == Method::OPTIONS {
                Ok("*".into())
            } else {
                Err(BadRequest::new("only OPTIONS asks for *"))
            };
        }
        // `http://host?query` has an empty path, which is the root (RFC 9110 §4.2.3).
        let rooted = if raw.starts_with('?') {
            Cow::Owned(format!("/{raw}"))
        } else {
            Cow::Borrowed(raw)
        };
        let normal = target::path_and_query(&rooted).map_err(|error| BadRequest::new(error.0))?;
        Ok(normal.into_owned())
    }
}

/// Whether a request that asks for its account comes from who has the token; counted either way.
fn may_be_explained(shared: &Shared, headers: &HeaderMap) -> bool {
    let given = headers.get(explanation::FIELD).map(HeaderValue::as_bytes);
    let secret = shared.debug_token.as_deref().map(str::as_bytes);
    let is_theirs =
        (given.zip(secret)).is_some_and(|(given, secret)| secret::is_same(given, secret));
    let counters = &shared.counters;
    let counter = if is_theirs {
        &counters.explained
    } else {
        &counters.explanations_refused
    };
    counter.add(1);
    is_theirs
}

const fn scheme(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

/// Whether `Via` names this node: the request goes in circles (RFC 9110 §7.6.3).
fn passed_here(headers: &HeaderMap, node: &str) -> bool {
    let passed = headers
        .get_all(header::VIA)
        .into_iter()
        .flat_map(|via| via.as_bytes().split(|byte| *byte == b','));
    passed.into_iter().any(|hop| {
        let mut words = hop.trim_ascii().split(u8::is_ascii_whitespace);
        words
            .nth(1)
            .is_some_and(|by| by.eq_ignore_ascii_case(node.as_bytes()))
    })
}

/// This node's part of `Via`, behind those that the request has already.
fn via(version: Version, node: &str) -> String {
    let received = match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2.0",
        _ => "1.1",
    };
    format!("{received} {node}")
}

/// `traceparent` of W3C Trace Context, level 1: `00-<trace>-<parent>-<flags>`.
fn trace_context(headers: &HeaderMap) -> TraceContext {
    let parse = || {
        let value = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut parts = value.split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        (version == "00" && parts.next().is_none()).then_some(())?;
        let mut context = TraceContext::default();
        from_hex(trace, &mut context.trace)?;
        from_hex(parent, &mut context.parent)?;
        let mut byte = [0];
        from_hex(flags, &mut byte)?;
        context.flags = byte[0];
        Some(context)
    };
    parse().unwrap_or_default()
}

fn from_hex(digits: &str, to: &mut [u8]) -> Option<()> {
    (digits.len() == 2 * to.len()).then_some(())?;
    for (byte, pair) in to.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_known_by_our_name_alone() {
        let via = |value: &str| {
            let headers: HeaderMap = [(header::VIA, value.parse().unwrap())]
                .into_iter()
                .collect();
            passed_here(&headers, "fra-1")
        };
        assert!(via("1.1 fra-1"));
        assert!(
            via("1.0 other, HTTP/1.1  fra-1 (comment)")
                || via("1.0 other, HTTP/1.1 FRA-1 (comment)")
        );
        assert!(!via("1.1 fra-10, 1.1 (fra-1), fra-1"));
    }

    #[test]
    fn a_trace_is_passed_on_only_if_it_is_one() {
        let context = |value: &str| {
            let headers: HeaderMap = [(TRACEPARENT, value.parse().unwrap())]
                .into_iter()
                .collect();
            trace_context(&headers)
        };
        let good = context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!((good.trace[0], good.parent[1], good.flags), (0x4b, 0xf0, 1));
        for bad in [
            "",
            "00-4b-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-zbf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(context(bad), TraceContext::default(), "{bad}");
        }
    }
}
