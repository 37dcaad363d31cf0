//! The helper: this program, started again with a single thread.

/// Must be the first line of `main` in every program that runs steps: when the program was started as a helper, it does
/// the helper's work and does not return.
pub fn init() {}
