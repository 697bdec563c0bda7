//! The `Cache-Status` field (RFC 9211): what we did with a request, in the field's own words.

use std::io::Write;

use http::{HeaderName, HeaderValue};

/// The field's name.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Our member of the list; append it behind what the origin sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatus {
    forward: Option<Forward>,
    fwd_status: Option<u16>,
    ttl: Option<i64>,
    stored: bool,
    collapsed: bool,
    detail: Option<&'static str>,
}

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The cache was configured not to handle it.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Something is stored for the URI, but no variant that the request selects.
    VaryMiss,
    /// What is stored is stale.
    Stale,
    /// What is stored is fresh, but the request's own fields ask for more.
    Request,
    /// Parts are stored, but not those asked for.
    Partial,
    /// Nothing usable, for one of several reasons.
    Miss,
}

impl Forward {
    fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Partial => "partial",
            Self::Miss => "miss",
        }
    }
}

impl CacheStatus {
    /// Answered without going forward.
    pub fn hit() -> Self {
        Self {
            forward: None,
            fwd_status: None,
            ttl: None,
            stored: false,
            collapsed: false,
            detail: None,
        }
    }

    /// Went forward.
    pub fn forward(reason: Forward) -> Self {
        Self {
            forward: Some(reason),
            ..Self::hit()
        }
    }

    /// The status that the next hop answered with.
    #[must_use]
    pub fn fwd_status(self, status: u16) -> Self {
        Self {
            fwd_status: Some(status),
            ..self
        }
    }

    /// What remains of the freshness lifetime in seconds; less than 0 of a stale response.
    #[must_use]
    pub fn ttl(self, ttl: i64) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }

    /// Whether the response is being stored.
    #[must_use]
    pub fn stored(self, stored: bool) -> Self {
        Self { stored, ..self }
    }

    /// Whether the request shared somebody else's flight.
    #[must_use]
    pub fn collapsed(self, collapsed: bool) -> Self {
        Self { collapsed, ..self }
    }

    /// A reason of our own: lower-case words joined by hyphens, which need no quoting.
    #[must_use]
    pub fn detail(self, detail: &'static str) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }

    /// The field's value.
    pub fn to_header_value(self) -> HeaderValue {
        let mut value = Vec::with_capacity(96);
        value.extend_from_slice(b"scale0");
        match self.forward {
            None => value.extend_from_slice(b"; hit"),
            Some(reason) => {
                value.extend_from_slice(b"; fwd=");
                value.extend_from_slice(reason.as_str().as_bytes());
            }
        }
        // Writing into a vector cannot fail.
        if let Some(status) = self.fwd_status {
            let _ = write!(value, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            value.extend_from_slice(b"; ttl=");
            value.extend_from_slice(itoa::Buffer::new().format(ttl).as_bytes());
        }
        if self.stored {
            value.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            value.extend_from_slice(b"; collapsed");
        }
        if let Some(detail) = self.detail {
            let _ = write!(value, "; detail={detail}");
        }
        HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("scale0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_a_structured_field_in_the_words_of_the_rfc() {
        let hit = CacheStatus::hit().ttl(30);
        assert_eq!(hit.to_header_value(), "scale0; hit; ttl=30");
        let miss = CacheStatus::forward(Forward::UriMiss)
            .fwd_status(200)
            .stored(true)
            .collapsed(true)
            .ttl(9);
        assert_eq!(
            miss.to_header_value(),
            "scale0; fwd=uri-miss; fwd-status=200; ttl=9; stored; collapsed"
        );
        let alone = CacheStatus::forward(Forward::Bypass).detail("leader-only");
        assert_eq!(
            alone.to_header_value(),
            "scale0; fwd=bypass; detail=leader-only"
        );
        for value in [hit, miss, alone] {
            let value = value.to_header_value();
            assert!(
                sfv::Parser::new(value.as_bytes())
                    .parse::<sfv::List>()
                    .is_ok(),
                "{value:?}"
            );
        }
    }
}
