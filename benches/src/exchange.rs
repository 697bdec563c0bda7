//! A typical exchange: what a browser asks of a shop through a frontend, and what the shop answers.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use scale0_wire::{
    Fields, Flags, FlightKey, Kind, Message, RequestHead, ResponseHead, RoutingHeader, Scope,
    ServiceId, limits,
};

/// The service that is asked.
pub const SERVICE: &str = "shop";

/// The target URI's authority.
pub const AUTHORITY: &str = "shop.example";

/// The target URI's path and query.
pub const TARGET: &str = "/products/4711?colour=blue&size=42";

/// The request's fields as they leave the frontend.
pub const REQUEST_FIELDS: &[(&str, &str)] = &[
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "de-DE,de;q=0.8,en-US;q=0.5,en;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://shop.example/products?colour=blue"),
    ("cookie", "basket=3f9a2c71d04e; consent=1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("x-forwarded-for", "192.0.2.17"),
    ("x-forwarded-proto", "https"),
    ("via", "1.1 fra-1"),
];

/// The response's fields as they leave the backend.
pub const RESPONSE_FIELDS: &[(&str, &str)] = &[
    ("content-type", "text/html; charset=utf-8"),
    ("content-length", "1024"),
    ("cache-control", "public, max-age=60"),
    ("date", "Wed, 18 May 2033 03:33:20 GMT"),
    ("etag", "\"5f3a-61c2\""),
    ("last-modified", "Tue, 17 May 2033 09:00:00 GMT"),
    ("server", "shop/2.4"),
    ("x-content-type-options", "nosniff"),
];

/// The response's content.
const CONTENT: Bytes = Bytes::from_static(&[b'x'; 1024]);

/// Fields as they travel.
///
/// # Panics
/// When they are more than the protocol takes.
#[must_use]
pub fn fields(fields: &[(&str, &str)]) -> Fields {
    let bytes = fields
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Fields::new(bytes).expect("a typical head is within every limit")
}

/// Fields as HTTP libraries have them.
#[must_use]
pub fn header_map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let lines = fields.iter().map(|&(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    lines.collect()
}

/// The request's head.
#[must_use]
pub fn request_head() -> RequestHead {
    RequestHead {
        method: Bytes::from_static(b"GET"),
        secure: true,
        authority: AUTHORITY.into(),
        target: TARGET.into(),
        fields: fields(REQUEST_FIELDS),
    }
}

/// The response's head.
#[must_use]
pub fn response_head() -> ResponseHead {
    ResponseHead {
        status: 200,
        fields: fields(RESPONSE_FIELDS),
    }
}

/// A REQUEST that is complete and may be repeated, with this metadata.
#[must_use]
pub fn request(metadata: Bytes) -> Message {
    let header = RoutingHeader {
        correlation: 1,
        flags: Flags::FINAL.with(Flags::IDEMPOTENT, true),
        scope: Scope::Frontend,
        deadline_ms: 30_000,
        hold_ms: 10_000,
        waiters: 1,
        window: limits::STREAM_WINDOW,
        flight: FlightKey(0x0123_4567_89ab_cdef),
        service: ServiceId::of(SERVICE.as_bytes()),
        ..RoutingHeader::new(Kind::Request)
    };
    Message::new(header).with_metadata(metadata)
}

/// A RESPONSE that is complete, of 1 KiB, with this metadata.
#[must_use]
pub fn response(metadata: Bytes) -> Message {
    let header = RoutingHeader {
        correlation: 1,
        flags: Flags::FINAL,
        ..RoutingHeader::new(Kind::Response)
    };
    Message::new(header)
        .with_metadata(metadata)
        .with_content(CONTENT)
}
