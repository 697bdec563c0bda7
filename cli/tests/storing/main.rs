//! A cache with a store behind its memory, seen from outside: what outlives the process, however that ends, what does not, and what
//! clients get while the store or the backend is in trouble.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod damage;
mod freshness;
mod large;
mod purged;
mod restart;
mod trouble;

use std::path::Path;

use http::Response;
use support::{Content, Origin, Scale0, site, text};

/// The stores that outlive a process.
const STORES: [&str; 2] = ["file", "sled"];

/// A file with such a store at `path`; `more` goes into `[cache]`.
fn stored(origin: &Origin, store: &str, path: &Path, more: &str) -> String {
    let path = path.display();
    let cache = format!(
        "[log]\naccess = \"off\"\n[cache]\nstore = \"{store}\"\npath = \"{path}\"\ncapacity = \"256MiB\"\n{more}\n"
    );
    site(origin, cache)
}

/// Waits until so many responses have been written to the store by this process.
async fn until_written(scale0: &Scale0, responses: u32) {
    let is_there = |written| f64::from(responses) <= written;
    scale0
        .until_metric("scale0_cache_store_writes_total", is_there)
        .await;
}

/// Stops it as an operator would.
async fn stop(scale0: &mut Scale0) {
    scale0.terminate();
    assert!(scale0.wait_exit().await.success());
}

/// Content that only this target has: its lines, from the first on, as far as they fit.
fn content(target: &str, length: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(length + LINE);
    for number in 0.. {
        if length <= content.len() {
            break;
        }
        content.extend_from_slice(&line(target, number));
    }
    content.truncate(length);
    content
}

/// The length of a [`line`].
const LINE: usize = 100;

/// A line that stands nowhere else.
fn line(target: &str, number: usize) -> Vec<u8> {
    let name = format!("{target} {number}");
    format!("{name:-<99}\n").into_bytes()
}

/// The same as a response that stays fresh.
fn page(target: &str, length: usize) -> Response<Content> {
    fresh(text(content(target, length)))
}

/// A response that stays fresh.
fn fresh(content: Content) -> Response<Content> {
    Response::builder()
        .header("cache-control", "max-age=3600")
        .body(content)
        .unwrap()
}

/// The length that a target such as `/1000/name` asks for.
fn length_of(target: &str) -> usize {
    target.split('/').nth(1).unwrap().parse().unwrap()
}

fn is_hit(response: &support::Response) -> bool {
    response.field("cache-status").starts_with("scale0; hit")
}
