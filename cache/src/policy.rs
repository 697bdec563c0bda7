//! What HTTP says about storing and sharing, as pure functions over fields.
//!
//! Nothing here knows a clock, a lock or a connection: `wall` is the time at which a head was
//! received, `elapsed` the time since. Fields are read once, at the door, and become
//! [`RequestFacts`], [`Directives`], [`Freshness`] and in the end a [`Sharing`].

pub mod conditional;
pub mod date;
pub mod directives;
pub mod freshness;
pub mod part;
pub mod range;
pub mod request;
pub mod sharing;
pub mod status;
pub mod storing;
pub mod terms;
pub mod validation;
pub mod variant;

pub use conditional::{Conditional, judge_conditionals, not_modified_head};
pub use directives::Directives;
pub use freshness::{Freshness, Source};
pub use part::Part;
pub use range::{ByteRange, RangeSpec, Ranged, judge_range, not_satisfiable_head, partial_head};
pub use request::{Bypass, Coalescing, RequestFacts};
pub use sharing::{LeaderOnly, Shareable, Sharing, may_share};
pub use status::{CacheStatus, Forward};
pub use storing::{Policy, SetCookie, may_store};
pub use terms::{Reuse, Staleness, Terms, Trouble};
pub use validation::{HeadSays, strip_conditionals};
pub use variant::Vary;
