//! Purges by what people name, and over restarts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod names;
mod restarts;

use scale0_cache::purge::{Labels, Purge, Target};

/// The labels of a response to `http://a<path_and_query>` with these tags.
fn labels(path_and_query: &str, tags: &str) -> Labels {
    let mut headers = http::HeaderMap::new();
    headers.insert("cache-tag", tags.parse().unwrap());
    Labels::of_target("a", path_and_query).with_tags(&headers)
}

fn hard(target: Target) -> Purge {
    Purge {
        target,
        soft: false,
    }
}

fn tag(name: &str) -> Target {
    Target::Tag(name.into())
}
