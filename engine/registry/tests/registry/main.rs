//! The client against registries that misbehave (in this process) and against the real CNCF registry (where it is).

// A test may fall over its own set-up; `clippy.toml` lets only `#[test]` functions do so, and half of this is helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod auth;
mod download;
mod fake;
mod images;
mod mirrors;
mod process;
mod real;
mod retries;
mod secrecy;
mod tls;
mod upload;
