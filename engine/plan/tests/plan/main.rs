//! The planner as its users see it: text and request in, plan, keys and schedule out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

mod common;
mod conformance;
mod explain;
mod instructions;
mod keys;
mod properties;
mod stages;
