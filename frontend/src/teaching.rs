//! What the cache learns from responses that did not come through it.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use scale0_cache::policy::Sharing;
use scale0_cache::{Asker, CacheKey, RequestFacts, ResponseHead};

use crate::clock;
use crate::exchange::Exchange;
use crate::flight::Asking;
use crate::target;
use crate::worker::Worker;

impl Worker {
    /// Tells the cache what came of a request that went to a backend alone. `learn` is what the cache wanted to hear of, `whole`
    /// the content where it is all here.
    pub(crate) fn teach_cache(
        &self,
        exchange: &Exchange,
        wall: SystemTime,
        head: &ResponseHead,
        learn: Option<&(CacheKey, Asking)>,
        whole: impl FnOnce() -> Option<Bytes>,
    ) {
        let cache = &self.shared.cache;
        let now = clock::now();
        let delay = now.saturating_duration_since(exchange.started);
        if let Some((under, asking)) = learn {
            let sharing = Sharing::judge(cache.policy(), &asking.facts, head, delay, wall);
            cache.learn(now, under, &sharing);
            if exchange.method == Method::HEAD {
                cache.learn_from_head(now, wall, delay, &asking.asker(), head);
            }
        }
        if !exchange.method.is_safe() && !is_error(head.status) {
            for target in told_targets(exchange, &head.headers) {
                cache.invalidate(&exchange.cache_key_of(&target));
            }
            let content = (exchange.beginning)
                .filter(|_| is_the_representation(exchange, head))
                .and_then(|beginning| Some((beginning, whole()?)));
            let Some((beginning, content)) = content else {
                cache.invalidate(&exchange.cache_key());
                return;
            };
            let asker = Asker {
                key: exchange.cache_key(),
                authority: &exchange.authority,
                path_and_query: &exchange.target,
                facts: RequestFacts::of(&Method::GET, &exchange.headers, false),
                headers: &exchange.headers,
                deadline: exchange.due(),
            };
            cache.replace(now, wall, delay, beginning, &asker, head.clone(), content);
        }
    }
}

/// RFC 9111 §4.4 asks for a "non-error response".
fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// The other URIs of the same origin that a response says have changed (RFC 9111 §4.4).
fn told_targets(exchange: &Exchange, headers: &HeaderMap) -> impl Iterator<Item = String> {
    [header::LOCATION, header::CONTENT_LOCATION]
        .into_iter()
        .filter_map(|name| exchange.same_origin(headers.get(name)?.to_str().ok()?))
        .filter(|target| *target != exchange.target)
}

/// Whether the content of the response to a POST is what a GET of its target would get (RFC 9110 §9.3.3): it says so itself, with
/// explicit freshness.
fn is_the_representation(exchange: &Exchange, head: &ResponseHead) -> bool {
    let location = || {
        let location = head.headers.get(header::CONTENT_LOCATION)?.to_str().ok()?;
        exchange.same_origin(location)
    };
    head.status == StatusCode::OK && location().is_some_and(|target| target == exchange.target)
}

impl Exchange {
    /// The primary key of its target.
    pub(crate) fn cache_key(&self) -> CacheKey {
        self.cache_key_of(&self.target)
    }

    fn cache_key_of(&self, target: &str) -> CacheKey {
        CacheKey::new(self.scheme(), &self.authority, target)
    }

    /// The normalised target that a reference in a response to this request means, if it is of the same origin (RFC 3986 §5.2).
    fn same_origin(&self, reference: &str) -> Option<String> {
        let reference = reference.split('#').next()?.trim();
        let path_end = reference.find(['/', '?']).unwrap_or(reference.len());
        let rest = match reference[..path_end].split_once(':') {
            None => reference,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case(self.scheme()) => {
                &reference[scheme.len() + 1..]
            }
            Some(_) => return None,
        };
        let path = if let Some(named) = rest.strip_prefix("//") {
            let end = named.find(['/', '?']).unwrap_or(named.len());
            let authority = target::authority(&named[..end], self.secure).ok()?;
            if authority != self.authority {
                return None;
            }
            &named[end..]
        } else {
            rest
        };
        let (base, _) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let whole = match path.bytes().next() {
            None if rest.is_empty() => self.target.clone(),
            None => "/".to_owned(),
            Some(b'/') => path.to_owned(),
            Some(b'?') if rest == path => format!("{base}{path}"),
            Some(b'?') => format!("/{path}"),
            Some(_) => {
                let folder = base.rfind('/').map_or("/", |slash| &base[..=slash]);
                format!("{folder}{path}")
            }
        };
        Some(target::path_and_query(&whole).ok()?.into_owned())
    }
}
