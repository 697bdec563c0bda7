//! The bridge between a test's requests and an application on a real socket that does what the test says.

mod backend;
mod broker;
mod connections;
mod content;
mod harness;
