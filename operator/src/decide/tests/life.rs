//! Superseded, suspended, deleted, expired; and an operator that was killed.

use super::*;

#[test]
fn something_missing_ends_the_build_before_any_pod_and_its_appearance_begins_it() {
    let mut world = World::new();
    world.facts.missing = Some(Fault {
        reason: reasons::SECRET_NOT_FOUND,
        message: "no Secret npm".into(),
        transient: false,
        retry_after: None,
    });
    assert!(wants_inputs(&world.build));
    let decision = world.step();
    assert_failed(&decision, reasons::SECRET_NOT_FOUND, conditions::SOURCE_RESOLVED);
    assert_eq!(decision.again, Some(Duration::from_secs(5)));
    assert!(wants_inputs(&world.build), "it is looked for");
    let still = world.step();
    assert_eq!((still.actions.len(), still.turns.len()), (0, 0));
    assert_eq!(still.again, Some(Duration::from_secs(5)));
    world.facts.missing = None;
    let decision = world.step();
    assert_eq!(decision.actions, [Action::StartPlan { attempt: 1 }]);
    assert_eq!(decision.status.reason.as_deref(), Some(reasons::INPUT_APPEARED));
    assert!(decision.status.failure.is_none());
    assert_eq!(condition(&decision, conditions::STALLED).0, "False");
    assert!(!wants_inputs(&world.build), "once a pod is there, pods see to it");
}

#[test]
fn a_change_of_the_inputs_supersedes_a_running_build() {
    let mut world = World::planned(schedule(vec![stage("a", &[])]));
    world.step();
    world.pods = vec![
        stage_pod("a", 1, PodState::Running),
        plan_pod(
            1,
            PodState::Planned {
                plan: digest(9),
                warnings: 0,
            },
        ),
    ];
    world.build.metadata.generation = Some(2);
    world.build.spec.target = Some("other".into());
    world.facts = Facts::default();
    let decision = world.step();
    assert_eq!(
        decision.actions,
        [
            delete(&world.pods[0]),
            delete(&world.pods[1]),
            Action::StartPlan { attempt: 1 }
        ]
    );
    assert_eq!(turns(&decision), [reasons::SUPERSEDED, reasons::PLANNING]);
    assert_eq!(decision.status.runs, 2);
    assert_eq!(decision.status.reason.as_deref(), Some(reasons::SPEC_CHANGED));
    assert_eq!(decision.status.run.as_ref().unwrap().generation, 2);
    assert!(decision.status.stages.is_empty() && decision.status.plan.as_ref().unwrap().digest.is_none());
    world.pods[0].deleting = true;
    assert!(
        !world.decide().actions.contains(&delete(&world.pods[0])),
        "once is enough"
    );
}

#[test]
fn a_change_that_is_no_input_neither_disturbs_a_running_build_nor_repeats_a_finished_one() {
    for phase in [Phase::Running, Phase::Succeeded] {
        let mut world = World::planned(schedule(vec![stage("a", &[])]));
        world.step();
        world.pods = vec![stage_pod("a", 1, PodState::Running)];
        if phase == Phase::Succeeded {
            world.pods.clear();
            world.build.status = Some(fixtures::status(Phase::Succeeded));
        }
        world.build.metadata.generation = Some(2);
        world.build.spec.retries = 5;
        let decision = world.decide();
        assert_eq!(decision.actions, [], "{phase:?}");
        assert_eq!(decision.status.phase, Some(phase));
        assert_eq!(decision.status.observed_generation, Some(2));
        assert_eq!(decision.status.run.as_ref().unwrap().generation, 1);
    }
}

#[test]
fn a_failed_build_is_tried_anew_when_anything_of_its_spec_changes_and_only_then() {
    let mut world = World::new();
    world.build.status = Some(fixtures::status(Phase::Failed));
    assert_eq!(world.decide().actions, []);
    world.build.metadata.generation = Some(2);
    world.build.spec.pods.node_selector.insert("a".into(), "b".into());
    assert_eq!(world.decide().actions, [Action::StartPlan { attempt: 1 }]);
}

#[test]
fn suspension_stops_a_running_build_and_its_end_starts_it_anew() {
    let mut world = World::planned(schedule(vec![stage("a", &[])]));
    world.step();
    world.pods = vec![stage_pod("a", 1, PodState::Running)];
    world.build.metadata.generation = Some(2);
    world.build.spec.suspend = true;
    let decision = world.step();
    assert_eq!(decision.actions, [delete(&world.pods[0])]);
    assert_eq!(decision.status.phase, Some(Phase::Pending));
    assert_eq!(
        condition(&decision, conditions::READY),
        ("False", reasons::SUSPENDED)
    );
    assert_eq!(condition(&decision, conditions::RECONCILING).0, "False");
    assert_eq!(turns(&decision), [reasons::SUSPENDED]);
    world.pods.clear();
    assert_eq!(turns(&world.step()), [""; 0]);
    world.build.metadata.generation = Some(3);
    world.build.spec.suspend = false;
    world.facts = Facts::default();
    assert_eq!(world.decide().actions, [Action::StartPlan { attempt: 1 }]);
}

#[test]
fn suspension_leaves_an_image_that_is_there_alone() {
    let mut world = World::new();
    world.build.status = Some(fixtures::status(Phase::Succeeded));
    world.build.metadata.generation = Some(2);
    world.build.spec.suspend = true;
    let decision = world.decide();
    assert_eq!(decision.status.phase, Some(Phase::Succeeded));
    assert_eq!(condition(&decision, conditions::READY).0, "True");
}

#[test]
fn a_build_that_is_being_deleted_gets_no_more_pods() {
    let mut world = World::new();
    world.build.metadata.deletion_timestamp = Some(Time(at(5)));
    let decision = world.decide();
    assert_eq!(
        (decision.actions.len(), decision.turns.len(), decision.again),
        (0, 0, None)
    );
}

#[test]
fn a_finished_build_leaves_no_pod_alive_even_if_its_end_was_interrupted() {
    for phase in [Phase::Failed, Phase::Succeeded] {
        let mut world = World::new();
        world.build.status = Some(fixtures::status(phase));
        world.pods = vec![
            stage_pod("a", 1, PodState::Running),
            stage_pod("b", 1, finished(1)),
        ];
        assert_eq!(world.decide().actions, [delete(&world.pods[0])], "{phase:?}");
    }
}

#[test]
fn a_finished_build_expires_when_it_is_told_to() {
    let mut world = World::new();
    world.build.status = Some(fixtures::status(Phase::Succeeded));
    world.build.spec.ttl_seconds_after_finished = Some(30);
    world.now = 70;
    let decision = world.decide();
    assert_eq!(
        (decision.actions.len(), decision.again),
        (0, Some(Duration::from_secs(20)))
    );
    world.now = 90;
    assert_eq!(world.decide().actions, [Action::DeleteBuild]);
    world.build.spec.ttl_seconds_after_finished = None;
    assert_eq!(world.decide().again, None);
}

#[test]
fn with_no_time_to_live_the_end_is_still_written_down_first() {
    let mut world = World::new();
    world.step();
    world.build.spec.ttl_seconds_after_finished = Some(0);
    world.pods = vec![plan_pod(1, failed("DockerfileInvalid", false, 5))];
    let decision = world.step();
    assert_failed(&decision, "DockerfileInvalid", conditions::PLANNED);
    assert!(decision.again.is_some());
    assert_eq!(world.decide().actions, [Action::DeleteBuild]);
}

#[test]
fn an_operator_that_lost_its_last_status_goes_on_from_the_pods() {
    let mut world = World::new();
    // Killed after it had created the plan pod and before it had written so.
    world.pods = vec![plan_pod(1, PodState::Running)];
    let decision = world.step();
    assert_eq!(decision.actions, []);
    assert_eq!(decision.status.plan.unwrap().attempts, 1);
    // Killed after the stage pods of a plan.
    let mut world = World::planned(schedule(vec![stage("a", &[]), stage("app", &[0])]));
    world.pods = vec![
        stage_pod("a", 2, finished(1)),
        stage_pod("app", 1, PodState::Running),
    ];
    let decision = world.decide();
    assert_eq!(decision.actions, []);
    assert_eq!(states(&decision), [StageState::Succeeded, StageState::Running]);
    assert_eq!(decision.status.stages[0].attempts, 2);
}

#[test]
fn a_status_of_a_run_without_pods_is_not_taken_for_progress_of_another_build() {
    let mut world = World::planned(schedule(vec![stage("a", &[])]));
    let mut foreign = stage_pod("a", 1, finished(1));
    foreign.run = 7;
    world.pods = vec![foreign];
    let decision = world.decide();
    assert_eq!(decision.actions, [delete(&world.pods[0]), start(0, 1)]);
    world.status().run = None;
    assert_eq!(
        world.decide().status.reason.as_deref(),
        Some(reasons::SPEC_CHANGED)
    );
}

#[test]
fn the_wait_before_a_retry_doubles_to_a_minute() {
    let waits: Vec<u64> = (1..9).map(|attempts| backoff(attempts).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
}
