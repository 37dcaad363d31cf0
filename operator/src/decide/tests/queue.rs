//! Waiting for other builds, cancelled, asked to build again; and what becomes of a build that is over.

use serde_json::json;
use slipway_crd::{ConcurrencyPolicy, names};

use super::*;
use crate::peers::{Admission, Behind, Newer, Waiting};

fn annotate(world: &mut World, name: &str, value: &str) {
    let annotations = world.build.metadata.annotations.get_or_insert_default();
    annotations.insert(name.to_owned(), value.to_owned());
}

fn running() -> World {
    let mut world = World::planned(schedule(vec![stage("a", &[])]));
    world.step();
    world.pods = vec![stage_pod("a", 1, PodState::Running)];
    world.step();
    world
}

fn ended(phase: Phase) -> World {
    let mut world = World::new();
    world.build.status = Some(fixtures::status(phase));
    world.now = 70;
    world
}

fn waits(position: u32, behind: Behind) -> Admission {
    Admission::Wait(Waiting { position, behind })
}

fn group() -> Behind {
    Behind::Group {
        group: "main".into(),
        build: "shop-1".into(),
    }
}

fn assert_cancelled(decision: &Decision, reason: &str) {
    assert_eq!(decision.status.phase, Some(Phase::Cancelled));
    assert_eq!(condition(decision, conditions::READY), ("False", reason));
    assert_eq!(condition(decision, conditions::RECONCILING).0, "False");
    assert_eq!(condition(decision, conditions::STALLED), ("True", reason));
    assert!(decision.status.failure.is_none() && decision.status.queue.is_none());
    assert!(decision.status.run.as_ref().unwrap().finished_at.is_some());
    assert_eq!(decision.status.observed_generation, Some(1));
}

#[test]
fn a_cancelled_build_stops_at_once_says_why_and_is_no_failure() {
    let mut world = running();
    annotate(&mut world, names::ANNOTATION_CANCEL, "the wrong branch");
    let decision = world.step();
    assert_cancelled(&decision, reasons::CANCELLED);
    assert_eq!(decision.actions, [delete(&world.pods[0])]);
    assert_eq!(turns(&decision), [reasons::CANCELLED]);
    assert_eq!(states(&decision), [StageState::Cancelled]);
    let ready = conditions::get(&decision.status.conditions, conditions::READY).unwrap();
    assert!(ready.message.contains("the wrong branch"), "{}", ready.message);
    world.pods.clear();
    let still = world.step();
    assert_eq!((still.actions.len(), still.turns.len()), (0, 0));
    assert_eq!(still.status, decision.status, "it stays so");
}

#[test]
fn a_build_is_cancelled_wherever_it_is_on_its_way() {
    let mut planning = World::new();
    planning.step();
    planning.pods = vec![plan_pod(1, PodState::Running)];
    let mut queued = World::new();
    queued.facts.peers.admission = Some(waits(2, group()));
    queued.step();
    let mut suspended = World::new();
    suspended.build.spec.suspend = true;
    suspended.step();
    for (mut world, deletes) in [(World::new(), 0), (planning, 1), (queued, 0), (suspended, 0)] {
        annotate(&mut world, names::ANNOTATION_CANCEL, "true");
        assert!(!wants_turn(&world.build, false));
        let decision = world.step();
        assert_cancelled(&decision, reasons::CANCELLED);
        assert_eq!(decision.actions.len(), deletes);
        world.pods.clear();
        assert_eq!(world.step().status, decision.status);
    }
}

#[test]
fn a_cancellation_that_comes_too_late_does_nothing_then_or_later() {
    for phase in [Phase::Succeeded, Phase::Failed] {
        let mut world = ended(phase);
        annotate(&mut world, names::ANNOTATION_CANCEL, "true");
        let decision = world.step();
        assert_eq!(decision.status.phase, Some(phase));
        assert_eq!(decision.actions, []);
        world.build.metadata.generation = Some(2);
        world.build.spec.target = Some("other".into());
        assert_eq!(world.step().actions, [Action::StartPlan { attempt: 1 }]);
    }
}

#[test]
fn a_cancelled_build_builds_again_when_its_inputs_change_or_a_rebuild_is_asked_for_and_only_then() {
    let cancelled = || {
        let mut world = running();
        annotate(&mut world, names::ANNOTATION_CANCEL, "true");
        world.step();
        world.pods.clear();
        world.facts = Facts::default();
        world
    };
    let mut world = cancelled();
    world.build.metadata.generation = Some(2);
    world.build.spec.ttl_seconds_after_finished = Some(3600);
    let decision = world.step();
    assert_eq!(decision.status.phase, Some(Phase::Cancelled));
    assert_eq!(decision.status.observed_generation, Some(2));

    let mut world = cancelled();
    world.build.metadata.generation = Some(2);
    world.build.spec.target = Some("other".into());
    let decision = world.step();
    assert_eq!(decision.actions, [Action::StartPlan { attempt: 1 }]);
    assert_eq!(decision.status.reason.as_deref(), Some(reasons::SPEC_CHANGED));
    // The old value has been honoured; a new one counts again.
    annotate(&mut world, names::ANNOTATION_CANCEL, "again");
    world.pods = vec![plan_pod(1, PodState::Running)];
    world.pods[0].run = 2;
    let decision = world.step();
    assert_eq!(decision.status.phase, Some(Phase::Cancelled));
    assert_eq!(decision.actions, [delete(&world.pods[0])]);

    let mut world = cancelled();
    annotate(&mut world, names::ANNOTATION_REBUILD, "1");
    assert_eq!(world.step().actions, [Action::StartPlan { attempt: 1 }]);
}

#[test]
fn a_cancellation_that_is_taken_away_counts_anew_when_it_comes_back() {
    let mut world = ended(Phase::Succeeded);
    annotate(&mut world, names::ANNOTATION_CANCEL, "true");
    world.step();
    world.build.metadata.annotations = None;
    assert_eq!(world.step().status.cancel, None);
    annotate(&mut world, names::ANNOTATION_REBUILD, "1");
    world.step();
    annotate(&mut world, names::ANNOTATION_CANCEL, "true");
    assert_eq!(world.step().status.phase, Some(Phase::Cancelled));
}

#[test]
fn a_new_value_of_the_rebuild_annotation_builds_again_once() {
    for phase in [Phase::Succeeded, Phase::Failed, Phase::Cancelled] {
        let mut world = ended(phase);
        annotate(&mut world, names::ANNOTATION_REBUILD, "2026-11-27");
        assert!(wants_inputs(&world.build), "{phase:?}");
        let decision = world.step();
        assert_eq!(decision.actions, [Action::StartPlan { attempt: 1 }], "{phase:?}");
        assert_eq!(
            decision.status.reason.as_deref(),
            Some(reasons::REBUILD_REQUESTED)
        );
        assert_eq!(turns(&decision), [reasons::REBUILD_REQUESTED, reasons::PLANNING]);
        assert_eq!(
            decision.status.runs, 2,
            "its pods are not those of the run before"
        );
        assert_eq!(
            decision.status.plan.as_ref().unwrap().pod.as_deref(),
            Some("shop-2-plan-1")
        );
        world.pods = vec![plan_pod(1, failed("DockerfileInvalid", false, 5))];
        world.pods[0].run = 2;
        assert_eq!(world.step().status.phase, Some(Phase::Failed));
        assert_eq!(world.step().actions, [], "the same value builds no third time");
        world.build.metadata.annotations = None;
        assert_eq!(world.step().actions, [], "nor does its end");
    }
}

#[test]
fn the_value_with_which_a_build_is_created_is_no_second_run() {
    let mut world = World::new();
    annotate(&mut world, names::ANNOTATION_REBUILD, "x".repeat(500).as_str());
    let decision = world.step();
    assert_eq!(decision.status.reason.as_deref(), Some(reasons::CREATED));
    assert!(decision.status.rebuild.as_ref().unwrap().len() < 100, "bounded");
    world.pods = vec![plan_pod(1, failed("DockerfileInvalid", false, 5))];
    world.step();
    assert_eq!(world.step().status.runs, 1);
}

#[test]
fn a_rebuild_of_a_running_build_supersedes_it() {
    let mut world = running();
    annotate(&mut world, names::ANNOTATION_REBUILD, "1");
    world.facts = Facts::default();
    let decision = world.step();
    assert_eq!(
        decision.actions,
        [delete(&world.pods[0]), Action::StartPlan { attempt: 1 }]
    );
    assert_eq!(turns(&decision), [reasons::SUPERSEDED, reasons::PLANNING]);
}

#[test]
fn a_build_waits_for_others_without_pods_and_without_time_running_out() {
    for (behind, group, limit, part) in [
        (
            group(),
            Some("main"),
            None,
            "shop-1 of the concurrency group main",
        ),
        (
            Behind::MaxRunning(20),
            None,
            Some("limits.maxRunning"),
            "20 builds",
        ),
        (
            Behind::MaxRunningPerNamespace(3),
            None,
            Some("limits.maxRunningPerNamespace"),
            "3 builds",
        ),
    ] {
        let mut world = World::new();
        world.build.metadata.resource_version = Some("77".into());
        assert!(wants_turn(&world.build, false));
        world.facts.peers.admission = Some(waits(2, behind.clone()));
        let decision = world.step();
        assert_eq!(decision.actions, []);
        assert_eq!(decision.status.phase, Some(Phase::Pending));
        assert_eq!(
            condition(&decision, conditions::READY),
            ("Unknown", reasons::QUEUED)
        );
        assert_eq!(
            condition(&decision, conditions::RECONCILING),
            ("True", reasons::QUEUED)
        );
        assert_eq!(turns(&decision), [reasons::QUEUED]);
        let ready = conditions::get(&decision.status.conditions, conditions::READY).unwrap();
        assert!(
            ready.message.contains("number 2") && ready.message.contains(part),
            "{}",
            ready.message
        );
        let queue = decision.status.queue.clone().unwrap();
        assert_eq!((queue.position, queue.ticket), (2, 77));
        assert_eq!((queue.group.as_deref(), queue.limit.as_deref()), (group, limit));
        assert_eq!(queue.since.0, at(10));

        // Hours later it is the next; it keeps its place and is told about silently.
        world.build.metadata.resource_version = Some("99".into());
        world.now = 50_000;
        world.facts.peers.admission = Some(waits(1, behind));
        let decision = world.step();
        assert_eq!(turns(&decision), [""; 0]);
        let queue = decision.status.queue.unwrap();
        assert_eq!((queue.position, queue.ticket, queue.since.0), (1, 77, at(10)));

        world.facts.peers.admission = Some(Admission::Go);
        let decision = world.step();
        assert_eq!(decision.actions, [Action::StartPlan { attempt: 1 }]);
        assert!(decision.status.queue.is_none());
        assert_eq!(decision.status.reason.as_deref(), Some(reasons::CREATED));
        assert_eq!(decision.status.run.unwrap().started_at.0, at(50_000));
    }
}

#[test]
fn the_reason_of_a_run_is_still_known_after_its_wait() {
    let mut world = ended(Phase::Succeeded);
    annotate(&mut world, names::ANNOTATION_REBUILD, "1");
    world.facts.peers.admission = Some(waits(1, group()));
    world.pods = vec![stage_pod("a", 1, finished(1))];
    let decision = world.step();
    assert_eq!(decision.actions, [delete(&world.pods[0])]);
    assert!(decision.status.image.is_none() && decision.status.runs == 1);
    world.pods.clear();
    world.facts.peers.admission = Some(Admission::Go);
    let decision = world.step();
    assert_eq!(
        decision.status.reason.as_deref(),
        Some(reasons::REBUILD_REQUESTED)
    );
    assert_eq!(decision.status.rebuild.as_deref(), Some("1"));
    assert_eq!(decision.status.runs, 2);
}

#[test]
fn a_change_of_the_spec_keeps_the_place_in_the_queue_and_a_suspension_loses_it() {
    let mut world = World::new();
    world.facts.peers.admission = Some(waits(3, group()));
    world.step();
    world.build.metadata.generation = Some(2);
    world.build.metadata.resource_version = Some("50".into());
    world.build.spec.target = Some("other".into());
    let decision = world.step();
    assert_eq!(decision.status.queue.as_ref().unwrap().ticket, 1);
    assert_eq!(decision.status.observed_generation, Some(2));
    world.build.metadata.generation = Some(3);
    world.build.spec.suspend = true;
    assert!(!wants_turn(&world.build, false));
    let decision = world.step();
    assert!(decision.status.queue.is_none());
    assert_eq!(turns(&decision), [reasons::SUSPENDED]);
    world.build.metadata.generation = Some(4);
    world.build.spec.suspend = false;
    let decision = world.step();
    assert_eq!(decision.status.reason.as_deref(), Some(reasons::RESUMED));
    assert_eq!(decision.status.queue.unwrap().ticket, 50);
}

#[test]
fn a_build_that_a_newer_one_replaces_ends_where_it_waits() {
    let mut world = World::new();
    world.facts.peers.admission = Some(waits(1, group()));
    world.step();
    world.facts.peers.admission = Some(Admission::Replaced { by: "shop-9".into() });
    let decision = world.step();
    assert_cancelled(&decision, reasons::REPLACED);
    assert_eq!(turns(&decision), [reasons::REPLACED]);
    let ready = conditions::get(&decision.status.conditions, conditions::READY).unwrap();
    assert!(ready.message.contains("shop-9"), "{}", ready.message);
    assert_eq!(standing(&world.build), Standing::Over);
    world.facts.peers.admission = None;
    assert_eq!(world.step().status, decision.status);
}

#[test]
fn a_running_build_is_not_asked_to_queue_even_if_its_spec_changes() {
    let mut world = running();
    assert_eq!(standing(&world.build), Standing::Runs);
    world.build.metadata.generation = Some(2);
    world.build.spec.target = Some("other".into());
    assert_eq!(standing(&world.build), Standing::Runs);
    assert!(!wants_turn(&world.build, false));
}

#[test]
fn a_suspended_failure_stays_as_it_is_until_the_suspension_ends() {
    let mut world = ended(Phase::Failed);
    world.build.metadata.generation = Some(2);
    world.build.spec.suspend = true;
    let decision = world.step();
    assert_eq!(
        (decision.status.phase, decision.actions.len()),
        (Some(Phase::Failed), 0)
    );
    world.build.metadata.generation = Some(3);
    world.build.spec.suspend = false;
    assert_eq!(world.step().actions, [Action::StartPlan { attempt: 1 }]);
}

#[test]
fn a_history_limit_deletes_a_build_when_enough_newer_ones_have_ended_alike() {
    let concurrency = json!({"group": "main", "successfulHistoryLimit": 2, "failedHistoryLimit": 0});
    for (phase, newer, deletes) in [
        (Phase::Succeeded, 1, false),
        (Phase::Succeeded, 2, true),
        (Phase::Failed, 0, true),
        (Phase::Cancelled, 0, true),
    ] {
        let mut world = ended(phase);
        world.build.spec.concurrency = serde_json::from_value(concurrency.clone()).unwrap();
        world.facts.peers.newer.in_group = newer;
        let decision = world.decide();
        let expected: &[Action] = if deletes { &[Action::DeleteBuild] } else { &[] };
        assert_eq!(decision.actions, expected, "{phase:?} {newer}");
        assert_eq!(turns(&decision).len(), usize::from(deletes));
    }
    let mut world = ended(Phase::Succeeded);
    world.build.spec.concurrency = serde_json::from_value(json!({"group": "main"})).unwrap();
    assert_eq!(
        world.build.spec.concurrency.as_ref().unwrap().policy,
        ConcurrencyPolicy::Allow
    );
    world.facts.peers.newer.in_group = 1000;
    assert_eq!(world.decide().actions, [], "without a limit all are kept");
}

#[test]
fn the_pods_of_a_finished_build_are_kept_for_their_logs_for_a_while_and_of_so_many_builds() {
    let mut world = ended(Phase::Succeeded);
    world.pods = vec![stage_pod("a", 1, finished(1))];
    let decision = world.decide();
    assert_eq!(decision.actions, []);
    assert_eq!(
        decision.again,
        Some(Duration::from_secs(3590)),
        "an hour after its end"
    );
    world.facts.peers.newer = Newer {
        in_group: 0,
        in_namespace: 5,
    };
    assert_eq!(world.decide().actions, [delete(&world.pods[0])]);
    world.facts.peers.newer = Newer::default();
    world.now = 60 + 3600;
    assert_eq!(world.decide().actions, [delete(&world.pods[0])]);
    world.pods[0].deleting = true;
    assert_eq!(world.decide().actions, []);
}
