//! Third step: from what is known to what is to be done. Pure: no clock, no client, no log.
//!
//! ```text
//! ImageBuild, pods, facts, now ──decide──▶ actions, new status, turns (events), when to look again
//!
//! Pending ─begin─▶ Planning ──Planned──▶ Running ──all results──▶ Assembling ──verified──▶ Succeeded
//!    │                │ StartPlan          │ StartStage              │ Publish
//!    │                └──────────────┬─────┴─────────────────────────┘
//!    │                               ├──▶ Failed (every pod that is alive is deleted; the first failure is told)
//!    └───────────────────────────────┴──▶ Cancelled (by a person, or while it waits by a newer build of its group)
//! ```
//! A decision always starts at the beginning and re-checks everything; it never depends on why it was asked for. The
//! files below it: `life` when a run begins and ends; `queue` waiting for other builds, and cancellation; `plan` and
//! `stages` what pods are needed; `caches` the claims that they use; `rest` what happens when a run is over; `told` the
//! conditions.

mod caches;
mod life;
mod plan;
mod platforms;
mod queue;
mod rest;
mod room;
mod shared;
mod stages;
mod told;

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use slipway_crd::{FailureStatus, ImageBuild, ImageBuildStatus, Phase, reasons};
use slipway_oci::Digest;

use crate::{
    claims::{Grant, Use},
    facts::{Facts, Publication},
    pod_view::PodView,
    policy::Policies,
    validate,
};

pub use life::{Standing, standing, wants_inputs, wants_turn};
pub use shared::wanted as wanted_stages;

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The ImageBuild, with the status last written.
    pub build: &'a ImageBuild,
    /// Its pods, of all runs.
    pub pods: &'a [PodView],
    /// What else is known.
    pub facts: &'a Facts,
    /// How long a pod that has its node may take to start.
    pub start_timeout: Duration,
    /// How long the pods of a finished run are kept.
    pub keep_pods: Duration,
    /// Of how many finished builds of a namespace the pods are kept.
    pub keep_pods_of: u32,
    /// What the platform team wants.
    pub policies: &'a Policies,
    /// The time.
    pub now: Timestamp,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create the plan pod, before the first attempt also its request.
    StartPlan {
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Create a stage's pod.
    StartStage {
        /// Index in the schedule.
        stage: usize,
        /// Which attempt, from 1.
        attempt: u32,
        /// How many of its pods ran out of memory before.
        out_of_memory: u32,
        /// The claims for its cache mounts; a mount without one is lost with the pod.
        claims: Vec<Grant>,
    },
    /// Delete a pod.
    DeletePod {
        /// Its name.
        name: String,
    },
    /// Read the plan's schedule from the cache repository, then decide again.
    FetchSchedule {
        /// The plan.
        plan: Digest,
    },
    /// Write the tags, then decide again.
    Publish(Publication),
    /// Delete the ImageBuild: its time is over.
    DeleteBuild,
}

impl Action {
    /// Whether it asks a registry, which may take its time: everything else is done and told first.
    pub const fn is_slow(&self) -> bool {
        matches!(self, Self::FetchSchedule { .. } | Self::Publish(_))
    }
}

/// A turn in the life of a build, told once as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// A stable word.
    pub reason: String,
    /// For people.
    pub note: String,
    /// Something is wrong.
    pub warning: bool,
    /// The pod that it is about.
    pub pod: Option<String>,
}

/// What is to be done, told, and when to look again.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// The new status.
    pub status: ImageBuildStatus,
    /// What happened.
    pub turns: Vec<Turn>,
    /// Look again after this time even if nothing changes.
    pub again: Option<Duration>,
    /// A stage waits for the claims of its cache mounts: those that it wants for itself alone.
    pub waits: Option<BTreeSet<String>>,
}

/// Decides.
pub fn decide(observed: &Observed<'_>) -> Decision {
    let mut draft = Draft::new(observed);
    if observed.build.metadata.deletion_timestamp.is_some() {
        // Owner references take the pods along; a pod created now would outlive its build for a while.
        return draft.into_decision();
    }
    draft.live();
    draft.tell();
    draft.into_decision()
}

/// A decision in the making.
struct Draft<'a> {
    o: &'a Observed<'a>,
    actions: Vec<Action>,
    status: ImageBuildStatus,
    turns: Vec<Turn>,
    again: Option<Duration>,
    /// Claims that this decision has granted.
    taken: Vec<Use>,
    waits: Option<BTreeSet<String>>,
    /// What keeps the build from going on right now, for the conditions: reason and message.
    held: Option<(&'static str, String)>,
}

impl<'a> Draft<'a> {
    fn new(o: &'a Observed<'a>) -> Self {
        let status = o.build.status.clone().unwrap_or_default();
        Self {
            o,
            actions: Vec::new(),
            status,
            turns: Vec::new(),
            again: None,
            taken: Vec::new(),
            waits: None,
            held: None,
        }
    }

    fn into_decision(self) -> Decision {
        Decision {
            actions: self.actions,
            status: self.status,
            turns: self.turns,
            again: self.again,
            waits: self.waits,
        }
    }

    fn generation(&self) -> i64 {
        self.o.build.metadata.generation.unwrap_or_default()
    }

    /// The number that pods of this run are labelled with; that of no pod while there is no run.
    fn run_number(&self) -> i64 {
        self.status.run.as_ref().map_or(-1, |_| self.status.runs)
    }

    fn phase(&self) -> Phase {
        self.status.phase.unwrap_or_default()
    }

    /// Pods of this run.
    fn pods(&self) -> impl Iterator<Item = &'a PodView> + use<'a> {
        let run = self.run_number();
        self.o.pods.iter().filter(move |pod| pod.run == run)
    }

    fn turn(&mut self, reason: &str, warning: bool, pod: Option<&str>, note: impl Into<String>) {
        let turn = Turn {
            reason: reason.to_owned(),
            note: note.into(),
            warning,
            pod: pod.map(ToOwned::to_owned),
        };
        self.turns.push(turn);
    }

    /// Looks again at `when` at the latest.
    fn look_at(&mut self, when: Timestamp) {
        let wait = when
            .duration_since(self.o.now)
            .max(SignedDuration::ZERO)
            .unsigned_abs();
        self.again = Some(self.again.map_or(wait, |other| other.min(wait)));
    }

    fn look_in(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |other| other.min(wait)));
    }

    /// Tells why it does not go on; the first word stands.
    fn hold(&mut self, reason: &'static str, message: impl Into<String>) {
        if self.held.is_none() {
            self.held = Some((reason, message.into()));
        }
    }

    /// The build proper, once a run is there and nothing speaks against it.
    fn build(&mut self) {
        let valid = match validate::validate(self.o.build, self.o.policies) {
            Ok(valid) => valid,
            Err(invalid) => {
                return self.fail(
                    slipway_crd::conditions::SOURCE_RESOLVED,
                    plain(reasons::SPEC_INVALID, invalid.to_string()),
                );
            }
        };
        if self.is_late(valid.timeout) {
            return;
        }
        if let Some(refusal) = self.o.facts.refused.iter().find(|refusal| !refusal.wait) {
            let failure = plain(refusal.reason, refusal.message.clone());
            let condition = if self.planned().is_some() {
                slipway_crd::conditions::STAGES_COMPLETE
            } else {
                slipway_crd::conditions::PLANNED
            };
            return self.fail(condition, failure);
        }
        if let Some(plan) = self.plan_step() {
            self.stages_step(&plan, &valid);
        }
        if let Some(refusal) = self.o.facts.refused.first() {
            self.hold(refusal.reason, refusal.message.clone());
            self.look_in(Duration::from_secs(10));
        }
    }
}

/// A failure that is no pod's.
fn plain(reason: &str, message: impl Into<String>) -> FailureStatus {
    FailureStatus {
        reason: reason.to_owned(),
        message: message.into(),
        ..FailureStatus::default()
    }
}

/// How long to wait before the next attempt when `attempts` have failed: 1 s, 2 s, 4 s… up to a minute.
pub fn backoff(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.saturating_sub(1).min(6)).min(Duration::from_mins(1))
}

#[cfg(test)]
mod tests;
