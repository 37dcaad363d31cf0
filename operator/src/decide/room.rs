//! Small clusters: pods that wait inside for another stage must not take the place that this stage needs.
//!
//! A stage's pod starts when its first step has its inputs, and waits inside for later ones. Where nodes (or a quota) are full of
//! such pods, the stage that they wait for would never get its place. Whether a pod works or waits is not seen from outside; but
//! when every pod of the build that is alive needs, by some way, a stage for which there is no room, they all come to a stand in
//! the end. Then they go, and start again when all that they read is there. That costs no attempt, and little work: the layers
//! that they had made are in the cache.

use jiff::SignedDuration;
use slipway_crd::{StageState, conditions, reasons};
use slipway_plan::protocol::Schedule;

use super::{Action, Draft};
use crate::{
    facts::Refusal,
    pod_view::{Kind, PodState, PodView, Wait},
};

/// A place that has been missing for so long does not come by itself, as when a pod before it is just ending.
const STARVED_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// Whether the scheduler's words mean that a node is full, not that it is the wrong one.
fn is_want_of_room(message: &str) -> bool {
    message.contains("Insufficient") || message.contains("Too many pods")
}

/// Which stages read, by some way, from one of `starved`.
fn dependents(schedule: &Schedule, starved: &[usize]) -> Vec<bool> {
    let mut found: Vec<bool> = Vec::with_capacity(schedule.stages.len());
    // A stage stands after those that it needs.
    for stage in &schedule.stages {
        let waits = |need: &usize| starved.contains(need) || found.get(*need).copied().unwrap_or_default();
        let waits = stage.needs.iter().any(waits);
        found.push(waits);
    }
    found
}

impl<'a> Draft<'a> {
    /// Stages for whose pod no node has room, and since when.
    fn starved(&self, schedule: &Schedule) -> Vec<(usize, SignedDuration)> {
        let waits = |index: usize| {
            let pod = self.newest_pod(&schedule.stages.get(index)?.id)?;
            match &pod.state {
                PodState::Waiting(Wait::Unschedulable(message))
                    if !pod.deleting && is_want_of_room(message) =>
                {
                    Some((index, self.o.now.duration_since(pod.created)))
                }
                _ => None,
            }
        };
        (0..schedule.stages.len()).filter_map(waits).collect()
    }

    /// Stages that could start, but for the namespace's quota, which has refused pods for a while.
    fn refused_by_quota(&self, schedule: &Schedule) -> Vec<(usize, SignedDuration)> {
        let quota = |refusal: &Refusal| refusal.reason == reasons::QUOTA_EXCEEDED;
        let told = conditions::get(&self.status.conditions, conditions::READY)
            .is_some_and(|ready| ready.reason == reasons::QUOTA_EXCEEDED);
        if !told || !self.o.facts.refused.iter().any(quota) {
            return Vec::new();
        }
        let wants_to_start = |index: &usize| {
            let (Some(stage), Some(row)) = (schedule.stages.get(*index), self.status.stages.get(*index))
            else {
                return false;
            };
            let alive = self.newest_pod(&stage.id).is_some_and(PodView::is_alive);
            !row.state.is_final() && !alive && row.gave_way_to.is_none() && self.may_start(stage)
        };
        (0..schedule.stages.len())
            .filter(wants_to_start)
            .map(|index| (index, STARVED_AFTER))
            .collect()
    }

    /// The pod of a stage's newest attempt.
    pub(super) fn newest_pod(&self, id: &str) -> Option<&'a PodView> {
        self.pods()
            .filter(|pod| matches!(&pod.kind, Kind::Stage(of) if of == id))
            .max_by_key(|pod| pod.attempt)
    }

    /// Takes away the pods that can only wait for a stage that has no room. Tells which stages must not start meanwhile.
    pub(super) fn make_room(&mut self, schedule: &Schedule) -> Vec<bool> {
        let mut starved = self.starved(schedule);
        starved.extend(self.refused_by_quota(schedule));
        let indices: Vec<usize> = starved.iter().map(|(index, _)| *index).collect();
        let waiting = dependents(schedule, &indices);
        let Some(longest) = starved.iter().map(|(_, since)| *since).max() else {
            return waiting;
        };
        let alive: Vec<usize> = (0..schedule.stages.len())
            .filter(|index| {
                let pod = schedule
                    .stages
                    .get(*index)
                    .and_then(|stage| self.newest_pod(&stage.id));
                pod.is_some_and(PodView::is_alive) && !indices.contains(index)
            })
            .collect();
        // One that needs none of them comes to its end, and makes room by that.
        if alive
            .iter()
            .any(|index| !waiting.get(*index).copied().unwrap_or_default())
        {
            return waiting;
        }
        if longest < STARVED_AFTER {
            let left = STARVED_AFTER.saturating_sub(longest);
            self.look_in(left.unsigned_abs());
            return waiting;
        }
        let first = indices.first().and_then(|index| schedule.stages.get(*index));
        let first = first.map(|stage| stage.id.clone()).unwrap_or_default();
        for index in alive {
            self.give_way(schedule, index, &first);
        }
        waiting
    }

    /// Deletes the pod of a stage in favour of the stage `to`.
    fn give_way(&mut self, schedule: &Schedule, index: usize, to: &str) {
        let Some(pod) = schedule
            .stages
            .get(index)
            .and_then(|stage| self.newest_pod(&stage.id))
        else {
            return;
        };
        let (name, attempt, deleting) = (pod.name.clone(), pod.attempt, pod.deleting);
        let Some(row) = self
            .status
            .stages
            .get_mut(index)
            .filter(|row| row.gave_way_to.is_none())
        else {
            return;
        };
        row.attempts = row.attempts.max(attempt);
        row.gave_way += 1;
        row.gave_way_to = Some(to.to_owned());
        row.state = StageState::Waiting;
        let note = format!(
            "{} ({}) waits for {to}, for which there is no room: its pod was deleted, and starts again when all that it reads is there",
            row.name, row.platform
        );
        if !deleting {
            self.actions.push(Action::DeletePod { name: name.clone() });
        }
        self.turn(reasons::MADE_ROOM, false, Some(&name), note);
    }
}
