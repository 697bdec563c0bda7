//! What `PROTOCOL.md` promises, held against the code: the document's tables, golden messages, properties of any bytes.

#![expect(
    clippy::unwrap_used,
    reason = "what helpers of tests unwrap is the test's business too"
)]

mod corpus;
mod description;
mod document;
mod golden;
mod malformed;
mod mutator;
mod properties;
mod sound;
mod vectors;
