//! Runs Dockerfile cases with known outcomes through `slipway build --local` and compares: filesystem, config, history, errors.
fn main() {}
