//! What every [`Store`] must keep, as a test that runs in one line.
//!
//! ```
//! # use std::path::Path;
//! # use scale0_cache::store::Store;
//! use scale0_cache::store::conformance;
//!
//! # fn tests<S: Store + 'static>(new: fn() -> S, open: fn(&Path) -> S) {
//! conformance::check(new);
//! // Where records survive a restart, this in its place:
//! conformance::check_durable(open);
//! // Where the store has a bound, this as well:
//! conformance::check_capacity(64 << 20, open);
//! # }
//! ```
//!
//! Each rule has a store of its own, and a store that breaks one makes the suite panic with the rule's name. The contract lets a
//! store forget at any time, and a store that forgets everything would break no rule; so the suite wants what the contract cannot:
//! that a store keeps the [`ROOM`] bytes that a rule writes at most, while nothing else is going on.

mod capacity;
mod durable;
mod folder;
mod races;
mod rules;
mod sample;

#[cfg(test)]
mod broken;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::Store;
use folder::Folder;

/// The suite writes at most this many bytes to a store before it has done with it, and expects all of them kept; a record has at
/// most 2 MiB. Not so [`check_capacity`], which fills the store.
pub const ROOM: u64 = 16 << 20;

/// A rule: a sentence that the contract says, and a story that a store which breaks it does not live through.
type Rule = (&'static str, fn(&dyn Store));

/// Tests a store against the contract of [`Store`]. `new` gives an empty store at each call.
///
/// # Panics
/// The store breaks a rule; the message names it.
pub fn check<S: Store>(new: impl Fn() -> S) {
    for (rule, story) in rules::RULES.iter().chain(races::RULES) {
        hold(rule, || story(&new()));
    }
}

/// Tests a store like [`check`], and that its records survive a restart. `open` gives the store that lives in this directory: an
/// empty one if the directory is empty, and otherwise what the store held that was dropped there before.
///
/// # Panics
/// The store breaks a rule; the message names it.
pub fn check_durable<S: Store + 'static>(open: impl Fn(&Path) -> S) {
    for (rule, story) in rules::RULES.iter().chain(races::RULES) {
        let folder = Folder::new();
        hold(rule, || story(&open(folder.path())));
    }
    for (rule, story) in durable::RULES {
        let folder = Folder::new();
        hold(rule, || story(&|| Box::new(open(folder.path()))));
    }
}

/// Tests that a store holds its bound, by writing ten times as much: neither what it says to hold nor the files in its directory
/// are ever more than `bound` bytes, and it serves all the while. `open` gives an empty store, in this directory if it has files.
///
/// # Panics
/// The store breaks a rule; the message names it.
pub fn check_capacity<S: Store>(bound: u64, open: impl Fn(&Path) -> S) {
    let folder = Folder::new();
    hold("a store stays within its bound, and serves", || {
        capacity::fill(bound, &open(folder.path()), folder.path());
    });
}

fn hold(rule: &str, story: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(story)) {
        panic!("the store breaks the rule that {rule}: {}", said(&*panic));
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked")
}
