//! Scale0.
