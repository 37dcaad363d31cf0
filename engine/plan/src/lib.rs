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

pub mod model;
pub mod protocol;
pub mod request;
pub mod source;

pub use model::{
    BuildPlan, Chmod, CopyOp, CopySource, HostEntry, MkdirOp, Mount, Network, Op, PLAN_VERSION, PlanResult,
    RunOp, Sharing, StagePlan, Step, Ulimit,
};
pub use request::{BaseError, BaseRequest, Bases, Entitlements, Outcome, PlanRequest, ResolvedBase};
pub use source::{GitSource, HttpSource, ImageSource, InlineFile, Source, StageIndex};

use slipway_dockerfile::Diagnostic;

/// Plans a build. Asks for the configs of base images by [`Outcome::Need`]; call it again with the answers. On failure
/// gives the errors (at least one) and, after them, the warnings found until then.
pub fn plan(request: &PlanRequest, bases: &Bases) -> Result<Outcome, Vec<Diagnostic>> {
    let _ = bases;
    Err(vec![Diagnostic::error(
        "not-implemented",
        format!("cannot plan {}", request.dockerfile.name),
    )])
}
