//! What is sent to break it: every piece is refused, counted or made harmless, and nobody else notices.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod configuration;
mod frames;
mod raw;
mod refused;
mod slow;
mod smuggling;
mod strict_origin;
