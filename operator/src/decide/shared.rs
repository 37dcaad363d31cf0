//! Equal stages of builds that run at the same time are made once: the build that claimed the stage makes it, the others wait for
//! its result, and one of them takes over when that build fails at it, ends, or goes.
//!
//! Nobody waits in a circle. Who makes a stage is one build at any moment ([`crate::peers`]); that build's stage waits for nothing
//! but stages below it in the graph, and since a key names all that a stage is made from, the graphs of all builds agree on what
//! is below what.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crd::{ImageBuild, SharedWith, StageState, StageStatus, StepCounts, reasons};
use slipway_plan::protocol::{Schedule, ScheduledStage};

use super::{Draft, stages::needed};
use crate::{peers::SharedStage, pod_view::PodView};

/// The stages that a build has still to make, by id and key, of those that another build may make in its place.
pub fn wanted<'a>(build: &ImageBuild, schedule: &'a Schedule) -> Vec<(&'a str, &'a str)> {
    let Some(status) = &build.status else {
        return Vec::new();
    };
    if build.metadata.deletion_timestamp.is_some()
        || build.spec.suspend
        || status.run.is_none()
        || status.phase.unwrap_or_default().is_final()
    {
        return Vec::new();
    }
    let is_final = |id: &str| {
        let row = status.stages.iter().find(|row| row.id == id);
        row.is_some_and(|row| row.state.is_final())
    };
    schedule
        .stages
        .iter()
        .zip(needed(schedule))
        .filter(|(stage, needed)| *needed && stage.shared && !is_final(&stage.id))
        .map(|(stage, _)| (stage.id.as_str(), stage.key.as_str()))
        .collect()
}

impl Draft<'_> {
    /// Whether another build makes the stage, so that this one needs no pod; `row` tells so then.
    pub(super) fn is_made_elsewhere(
        &mut self,
        stage: &ScheduledStage,
        own: Option<&PodView>,
        row: &mut StageStatus,
    ) -> bool {
        let others = &self.o.facts.peers.stages;
        let other = others.get(&stage.key).filter(|_| stage.shared);
        let (Some(other), false) = (other.cloned(), own.is_some_and(PodView::is_alive)) else {
            row.shared_with = None;
            return false;
        };
        if let Some(digest) = other.digest.clone().filter(|_| other.state.has_result()) {
            self.take(&other, digest, row);
            return true;
        }
        let since = match &row.shared_with {
            Some(shared) if shared.build == other.build => shared.since.clone(),
            _ => Time(self.o.now),
        };
        // Its pod may never get a node, for reasons that are not this build's own.
        let limit = SignedDuration::try_from(self.o.start_timeout).unwrap_or(SignedDuration::MAX);
        let patience = since.0.checked_add(limit).unwrap_or(self.o.now);
        if other.state != StageState::Running {
            if self.o.now >= patience {
                row.shared_with = None;
                return false;
            }
            self.look_at(patience);
        }
        row.state = StageState::Waiting;
        row.shared_with = Some(SharedWith {
            build: other.build,
            since,
        });
        true
    }

    /// Takes the result that another build has made.
    fn take(&mut self, other: &SharedStage, digest: String, row: &mut StageStatus) {
        row.state = StageState::Succeeded;
        row.digest = Some(digest);
        row.finished_at = Some(Time(self.o.now));
        row.steps = StepCounts {
            done: row.steps.total,
            cached: row.steps.total,
            total: row.steps.total,
        };
        let since = row
            .shared_with
            .take()
            .map_or(Time(self.o.now), |shared| shared.since);
        row.started_at = row.started_at.clone().or(Some(since.clone()));
        row.shared_with = Some(SharedWith {
            build: other.build.clone(),
            since,
        });
        let note = format!("{} ({}): made by build {}", row.name, row.platform, other.build);
        self.turn(reasons::STAGE_SHARED, false, None, note);
    }
}
