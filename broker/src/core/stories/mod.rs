//! The broker's rules, each told as a story in virtual time.

mod announce;
mod bad_input;
mod bounds;
mod credit;
mod endings;
mod explain;
mod flow;
mod hedges;
mod many;
mod misconduct;
mod redirect;
mod repeats;
mod rights;
mod sessions;
mod shares;
mod silence;
mod slow_and_failing;
mod waiting;
