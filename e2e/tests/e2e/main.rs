//! The scenarios on a real cluster: `make e2e`, or `make e2e SCENARIO=name` for one. Without `SLIPWAY_E2E=1` each says that
//! it was skipped.

mod build;
mod caches;
mod cli;
mod concurrency;
mod examples;
mod failures;
mod graph;
mod image;
mod isolation;
mod layer_cache;
mod life;
mod operator;
mod platforms;
mod policy;
mod registries;
mod secrets;
