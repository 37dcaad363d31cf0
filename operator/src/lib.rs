//! Turns ImageBuilds into pods and images.
//!
//! ```text
//!            ┌───────────────────────── reconcile ─────────────────────────┐
//! ImageBuild │ observe ─▶ validate ─▶ decide ─▶ apply ─▶ report            │ status, events, metrics
//! Pods      ─▶  (API)      (pure)     (pure)    (API,     (API)            ├─▶
//! registry   │     ▲                             registry)                 │
//!            │     └──────── what apply found out (schedule, tags) ◀───────┘
//!            └─────────────────────────────────────────────────────────────┘
//! ```
//! * [`observe`] reads the pods and what the spec refers to; [`validate`] turns the spec into typed values; [`decide`] is a
//!   pure function to actions and a new status, and holds every rule of scheduling, retry, time-out, supersession and
//!   cancellation; [`apply`] does the actions; [`report`] writes status, events and metrics.
//! * [`peers`] is the view of the other builds, and wakes those that waited for one of them.
//! * Nothing is kept here that cannot be lost: what is remembered ([`memory`]) only bridges the time until the watch shows
//!   what was just written. Killed at any moment, the operator goes on from status, pods and registry.
//!
//! This room may not parse a Dockerfile or fetch a source (that is untrusted and belongs into the tenant's pods), list or
//! watch Secrets, or touch image data: of a registry it reads schedules and manifests and writes manifests.

pub mod apply;
pub mod assemble;
pub mod claims;
pub mod config;
pub mod controller;
pub mod decide;
pub mod facts;
pub mod http;
pub mod leader;
pub mod memory;
pub mod metrics;
pub mod naming;
pub mod nodes;
pub mod observe;
pub mod peers;
pub mod placement;
pub mod pod_store;
pub mod pod_view;
pub mod pods;
pub mod policy;
pub mod prober;
mod prune;
pub mod quantity;
pub mod registry;
pub mod report;
pub mod run;
pub mod validate;

#[cfg(test)]
mod fixtures;
