//! Several platforms in one build: whether there is a node for each, and what becomes of the others when one fails.

use slipway_crd::{PlatformFailure, StageState, reasons};
use slipway_plan::protocol::{Schedule, ScheduledStage};

use super::{Action, Draft};
use crate::{
    placement::{Obstacle, Place},
    pod_view::{Kind, PodState, PodView, Wait},
};

/// How soon to look again whether the nodes have been probed.
const LOOK_FOR_PROBES: std::time::Duration = std::time::Duration::from_secs(2);

/// Which stages cannot have a result any more: they, or one that they need, have ended without one.
fn broken(schedule: &Schedule, ended: impl Fn(usize) -> bool) -> Vec<bool> {
    // Stages stand after those that they need, so one pass sees all of it.
    let mut broken: Vec<bool> = Vec::with_capacity(schedule.stages.len());
    for (index, stage) in schedule.stages.iter().enumerate() {
        let below = |of: &usize| broken.get(*of).copied().unwrap_or_default();
        let own = ended(index) || (stage.cached.is_none() && stage.needs.iter().any(below));
        broken.push(own);
    }
    broken
}

/// Which platforms cannot have an image any more.
fn lost(schedule: &Schedule, broken: &[bool]) -> Vec<bool> {
    let is_broken = |stage: usize| broken.get(stage).copied().unwrap_or_default();
    schedule
        .results
        .iter()
        .map(|result| is_broken(result.stage))
        .collect()
}

impl Draft<'_> {
    /// Whether a pod of the stage may be made as far as nodes are concerned; tells what is lacking.
    pub(super) fn has_node(&mut self, stage: &ScheduledStage, latest: Option<&PodView>) -> bool {
        let waits = |pod: &PodView| matches!(pod.state, PodState::Waiting(Wait::Unschedulable(_)));
        if latest.is_some_and(|pod| !waits(pod)) {
            return true;
        }
        let place = Place::of(stage, self.o.build.spec.emulation, self.o.facts.cluster());
        match place.obstacle {
            None => true,
            Some(Obstacle::Unprobed) => {
                self.hold(
                    reasons::PROBING_NODES,
                    format!("finding out whether a node can emulate {}", stage.platform),
                );
                self.look_in(LOOK_FOR_PROBES);
                latest.is_some()
            }
            // A pod is made all the same: it is what a node is added for, by an autoscaler or by a person.
            Some(Obstacle::None(message)) => {
                self.hold(
                    reasons::NO_NODE_FOR_PLATFORM,
                    format!("stage {} ({}): {message}", stage.name, stage.platform),
                );
                true
            }
        }
    }

    /// After a failure under `platformFailure: PublishRest`: gives up the stages that only lost platforms need. Whether
    /// a platform is left to go on for.
    pub(super) fn goes_on_without_lost(&mut self, schedule: &Schedule) -> bool {
        if self.o.build.spec.platform_failure != PlatformFailure::PublishRest {
            return false;
        }
        let broken = self.broken_stages(schedule);
        let lost = lost(schedule, &broken);
        // What a gate holds back, it holds back from every platform.
        let gate = schedule
            .gates
            .iter()
            .any(|gate| broken.get(*gate).copied().unwrap_or_default());
        if gate || lost.iter().all(|lost| *lost) {
            return false;
        }
        let left = Schedule {
            results: schedule
                .results
                .iter()
                .zip(&lost)
                .filter(|(_, lost)| !**lost)
                .map(|(result, _)| result.clone())
                .collect(),
            ..schedule.clone()
        };
        for (index, wanted) in super::stages::needed(&left).into_iter().enumerate() {
            if !wanted {
                self.give_up(schedule, index);
            }
        }
        true
    }

    /// Which platforms cannot have an image any more.
    pub(super) fn lost_platforms(&self, schedule: &Schedule) -> Vec<bool> {
        lost(schedule, &self.broken_stages(schedule))
    }

    fn broken_stages(&self, schedule: &Schedule) -> Vec<bool> {
        broken(schedule, |index| {
            self.status
                .stages
                .get(index)
                .is_some_and(|row| matches!(row.state, StageState::Failed | StageState::Cancelled))
        })
    }

    /// Stops a stage that nobody waits for any more.
    fn give_up(&mut self, schedule: &Schedule, index: usize) {
        let now = self.o.now;
        let Some(row) = self
            .status
            .stages
            .get_mut(index)
            .filter(|row| !row.state.is_final())
        else {
            return;
        };
        row.state = StageState::Cancelled;
        row.finished_at = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        self.actions
            .retain(|action| !matches!(action, Action::StartStage { stage, .. } if *stage == index));
        let Some(id) = schedule.stages.get(index).map(|stage| &stage.id) else {
            return;
        };
        let alive: Vec<_> = self
            .pods()
            .filter(|pod| matches!(&pod.kind, Kind::Stage(of) if of == id))
            .filter(|pod| pod.is_alive() && !pod.deleting)
            .map(|pod| Action::DeletePod {
                name: pod.name.clone(),
            })
            .collect();
        self.actions.extend(alive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{digest, schedule, stage};
    use slipway_plan::protocol::ScheduledResult;

    #[test]
    fn a_platform_is_lost_with_any_stage_that_it_is_made_of() {
        let mut plan = schedule(vec![
            stage("tools", &[]),
            stage("arm", &[0]),
            stage("amd", &[0]),
            stage("last", &[1]),
        ]);
        plan.results = [("linux/arm64", 3), ("linux/amd64", 2)]
            .map(|(platform, stage)| ScheduledResult {
                platform: platform.parse().unwrap(),
                stage,
            })
            .to_vec();
        for (ended, expected) in [
            (0, [true, true]),
            (1, [true, false]),
            (2, [false, true]),
            (3, [true, false]),
        ] {
            assert_eq!(
                lost(&plan, &broken(&plan, |index| index == ended)),
                expected,
                "{ended}"
            );
        }
        plan.stages[3].cached = Some(digest(1));
        assert_eq!(
            lost(&plan, &broken(&plan, |index| index == 1)),
            [false, false],
            "the result is there"
        );
    }
}
