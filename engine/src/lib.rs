//! Builds images: runs the stages of a plan over a store of layers.
//!
//! ```text
//!  BuildPlan ──▶ run_stage ─▶ StageResult ──▶ image (config, manifest) ──▶ exports
//!                 │  ▲                                                      push · oci · docker · tar · local
//!                 │  └── Inputs: other stages, images, contexts, secrets
//!                 ├── Store: layers as overlay directories, results by key, cache mounts
//!                 └── Progress: events for printers
//! ```
//! The same executor runs in a pod (one stage, inputs from the registry) and on a developer's machine ([`driver`]: all
//! stages in one process). This room knows no Kubernetes; it parses no Dockerfile and decides no key by definition:
//! that is planning's work.

pub mod cache;
pub mod context;
mod copy;
pub mod driver;
pub mod error;
pub mod exec;
pub mod explain;
pub mod export;
pub mod fetch;
pub mod image;
pub mod images;
pub mod inputs;
mod owner;
pub mod progress;
pub mod root;
pub mod selection;
mod sources;
pub mod store;

pub use error::{BuildError, Place, Result};
pub use exec::{Environment, FailedRoot, Keep, LayerSink, Packing, StageResult, pack_layer, run_stage};
pub use fetch::Fetcher;
pub use inputs::{CachedStep, Inputs, StepCache};
pub use progress::Progress;
pub use root::{Blobs, Layer, Root};
pub use store::{LayerDesc, StepRecord, Store};
