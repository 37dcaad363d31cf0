//! The program as its users run it: against an API server that a test plays, on pipes and on a pseudo-terminal.

// A test may fall over its own set-up; `clippy.toml` lets only `#[test]` functions do so, and half of this is helpers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value
)]

mod cluster;
mod fake;
mod local;
mod terminal;
