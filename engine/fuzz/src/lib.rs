//! What may never happen, whatever the input. Each function takes the bytes that a fuzzer made and panics where a promise
//! is broken.
//!
//! ```text
//!  engine/fuzz/run      one libFuzzer program for each target (`make fuzz`)  ─┐
//!  engine/fuzz/tests    every kept input, in `cargo test`                    ─┴─▶ the functions here
//!  engine/fuzz/corpus   the kept inputs, a folder for each target
//! ```
//! The programs are a workspace of their own: they need a compiler with coverage, and nothing else should.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a broken promise is told by a panic"
)]

mod documents;
mod language;
mod unpack;

pub use documents::{config, manifest};
pub use language::{dockerfile, expansion, ignore};
pub use unpack::unpack;

/// A target by its name, which is that of its corpus too.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("dockerfile", dockerfile),
    ("expansion", expansion),
    ("ignore", ignore),
    ("unpack", unpack),
    ("manifest", manifest),
    ("config", config),
];

/// The input cut at its first zero byte: the second half is empty without one.
fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
