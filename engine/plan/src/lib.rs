//! Dockerfile stages to a build plan with a key for every instruction.
//!
//! ```text
//! Dockerfile + PlanRequest ──plan──▶ Need(images) ── caller looks them up ──┐
//!                              ▲ ◀── Bases ──────────────────────────────────┘
//!                              └──▶ Ready(BuildPlan) ─┬─ context_needs ──▶ what to publish of the contexts
//!                                                     ├─ keys + content digests ──▶ a key for each step and stage
//!                                                     └─ schedule ──▶ Schedule (what the operator sees)
//! ```
//! The plan holds everything that the executor needs: it never sees the syntax tree. This room is pure: no input or
//! output, no clock, no tokio, no kube; what has to be looked up is asked for and given back. It never sees the value of
//! a secret. [`protocol`] is the contract of operator and runner.

pub mod explain;
mod inputs;
pub mod keys;
pub mod model;
mod planner;
pub mod protocol;
pub mod request;
mod schedule;
pub mod source;
mod split;
mod targets;

pub use inputs::{Input, Selection, context_needs};
pub use keys::{Key, Keys, RunKey, StageKeys, StepKey, keys};
pub use model::{
    BuildPlan, Chmod, CopyOp, CopySource, HostEntry, MkdirOp, Mount, Network, Op, PLAN_VERSION, PROXIES,
    PlanResult, RunOp, Sharing, StagePlan, Step, Ulimit,
};
pub use planner::{Outline, OutlineArg, OutlineSecret, git_source};
pub use request::{
    BaseError, BaseRequest, Bases, Entitlements, Outcome, PlanRequest, ResolvedBase, failure_reason,
};
pub use schedule::{SCHEDULE_VERSION, schedule};
pub use source::{GitSource, HttpSource, ImageSource, InlineFile, Source, StageIndex};
pub use split::split_results;
pub use targets::{Target, targets};

use slipway_dockerfile::Diagnostic;

/// Plans a build. Asks for the configs of base images by [`Outcome::Need`]; call it again with the answers. On failure
/// gives the errors (at least one) and, after them, the warnings found until then.
pub fn plan(request: &PlanRequest, bases: &Bases) -> Result<Outcome, Vec<Diagnostic>> {
    planner::plan(request, bases)
}

/// What the target takes: arguments, secrets, SSH keys. Asks for images as [`plan`] does, in the inner error.
pub fn outline(
    request: &PlanRequest,
    bases: &Bases,
) -> Result<Result<Outline, Vec<BaseRequest>>, Vec<Diagnostic>> {
    planner::outline(request, bases)
}
