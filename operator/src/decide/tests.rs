//! The rules, as tables: no cluster, no registry, no clock.

mod caches;
mod failure;
mod life;
mod platforms;
mod queue;
mod room;
mod shared;
mod success;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use slipway_crd::{PlanStatus, StageState, conditions};
use slipway_plan::protocol::Schedule;

use super::*;
use crate::{
    facts::{Fault, Lookup, Published, Refusal},
    fixtures::{self, at, digest, schedule, stage},
    naming,
    pod_view::{Failed, Kind, PodState, Wait},
};

/// A build with what is known of it; every test changes what it is about.
struct World {
    build: ImageBuild,
    pods: Vec<PodView>,
    facts: Facts,
    now: i64,
}

impl World {
    /// Nobody has looked at it.
    fn new() -> Self {
        Self {
            build: fixtures::build(),
            pods: Vec::new(),
            facts: Facts::default(),
            now: 10,
        }
    }

    /// Planned, with this schedule; no stage has begun.
    fn planned(schedule: Schedule) -> Self {
        let mut world = Self::new();
        let mut status = fixtures::status(Phase::Running);
        status.plan = Some(PlanStatus {
            digest: Some(digest(9).to_string()),
            attempts: 1,
            ..PlanStatus::default()
        });
        world.build.status = Some(status);
        world.facts.schedule = Lookup::Done(Arc::new(schedule));
        world
    }

    /// Planned with these gates in spec and schedule; no stage has begun.
    fn gated(schedule: Schedule, gates: &[&str]) -> Self {
        let mut world = Self::planned(schedule);
        world.build.spec.gates = gates.iter().map(ToString::to_string).collect();
        let inputs = validate::inputs(&world.build.spec);
        if let Some(run) = &mut world.status().run {
            run.inputs = inputs;
        }
        world
    }

    fn decide(&self) -> Decision {
        decide(&Observed {
            build: &self.build,
            pods: &self.pods,
            facts: &self.facts,
            start_timeout: Duration::from_mins(5),
            keep_pods: Duration::from_hours(1),
            keep_pods_of: 5,
            policies: &Policies::default(),
            now: at(self.now),
        })
    }

    /// Decides, and goes on from the status that was decided.
    fn step(&mut self) -> Decision {
        let decision = self.decide();
        self.build.status = Some(decision.status.clone());
        decision
    }

    fn status(&mut self) -> &mut ImageBuildStatus {
        self.build.status.get_or_insert_default()
    }
}

fn plan_pod(attempt: u32, state: PodState) -> PodView {
    PodView {
        name: naming::plan_pod("shop", 1, attempt),
        run: 1,
        kind: Kind::Plan,
        attempt,
        node: None,
        created: at(0),
        deleting: false,
        gone_by: None,
        state,
    }
}

fn stage_pod(name: &str, attempt: u32, state: PodState) -> PodView {
    let id = format!("{name}-linux-amd64");
    PodView {
        name: naming::stage_pod("shop", 1, &id, attempt),
        kind: Kind::Stage(id),
        ..plan_pod(attempt, state)
    }
}

fn failed(reason: &str, transient: bool, second: i64) -> PodState {
    PodState::Failed(Failed {
        failure: plain(reason, "it broke"),
        transient,
        retry_after: None,
        at: at(second),
    })
}

fn finished(n: u8) -> PodState {
    PodState::Finished {
        manifest: digest(n),
        executed: 2,
        cached: 1,
        at: at(8),
    }
}

fn delete(pod: &PodView) -> Action {
    Action::DeletePod {
        name: pod.name.clone(),
    }
}

fn start(stage: usize, attempt: u32) -> Action {
    Action::StartStage {
        stage,
        attempt,
        out_of_memory: 0,
        claims: Vec::new(),
    }
}

fn turns(decision: &Decision) -> Vec<&str> {
    decision.turns.iter().map(|turn| turn.reason.as_str()).collect()
}

fn states(decision: &Decision) -> Vec<StageState> {
    decision.status.stages.iter().map(|stage| stage.state).collect()
}

/// Status and reason of a condition.
fn condition<'a>(decision: &'a Decision, kind: &str) -> (&'a str, &'a str) {
    let found = conditions::get(&decision.status.conditions, kind).unwrap();
    (&found.status, &found.reason)
}

fn assert_failed(decision: &Decision, reason: &str, step: &str) {
    assert_eq!(decision.status.phase, Some(Phase::Failed));
    assert_eq!(
        decision
            .status
            .failure
            .as_ref()
            .map(|failure| failure.reason.as_str()),
        Some(reason)
    );
    assert_eq!(condition(decision, conditions::READY), ("False", reason));
    assert_eq!(condition(decision, conditions::RECONCILING).0, "False");
    assert_eq!(condition(decision, conditions::STALLED), ("True", reason));
    assert_eq!(condition(decision, step), ("False", reason));
    assert!(decision.status.run.as_ref().unwrap().finished_at.is_some());
    assert!(decision.status.image.is_none());
    assert!(turns(decision).contains(&reasons::FAILED));
    let only_deletes = decision
        .actions
        .iter()
        .all(|action| matches!(action, Action::DeletePod { .. }));
    assert!(only_deletes, "{:?}", decision.actions);
}
