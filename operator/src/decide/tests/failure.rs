//! What fails, what is tried again, and what is told.

use super::*;

#[test]
fn a_failed_plan_is_told_at_the_step_that_it_concerns() {
    for (reason, step) in [
        ("DockerfileInvalid", conditions::PLANNED),
        ("ImageNotFound", conditions::PLANNED),
        ("RegistryUnauthorized", conditions::PLANNED),
        ("FileNotFound", conditions::SOURCE_RESOLVED),
        ("SourceUnreachable", conditions::SOURCE_RESOLVED),
    ] {
        let mut world = World::new();
        world.step();
        world.pods = vec![plan_pod(1, failed(reason, false, 5))];
        assert_failed(&world.decide(), reason, step);
    }
}

#[test]
fn a_failed_stage_stops_the_others_at_once_and_the_first_failure_is_told() {
    let mut world = World::planned(schedule(vec![
        stage("a", &[]),
        stage("b", &[]),
        stage("c", &[]),
        stage("app", &[0, 1, 2]),
    ]));
    world.step();
    world.pods = vec![
        stage_pod("a", 1, failed("StepFailed", false, 9)),
        stage_pod("b", 1, failed("FileNotFound", false, 7)),
        stage_pod("c", 1, PodState::Running),
    ];
    let decision = world.decide();
    assert_failed(&decision, "FileNotFound", conditions::STAGES_COMPLETE);
    assert_eq!(decision.actions, [delete(&world.pods[2])]);
    assert_eq!(
        states(&decision),
        [
            StageState::Failed,
            StageState::Failed,
            StageState::Cancelled,
            StageState::Cancelled
        ]
    );
    let failure = decision.status.failure.unwrap();
    assert_eq!(
        (failure.stage.as_deref(), failure.platform.as_deref()),
        (Some("b"), Some("linux/amd64"))
    );
    assert_eq!(failure.pod, Some(world.pods[1].name.clone()));
}

#[test]
fn a_failure_takes_back_what_the_same_decision_had_begun() {
    let mut world = World::planned(schedule(vec![
        stage("a", &[]),
        stage("b", &[0]),
        stage("c", &[]),
        stage("app", &[1, 2]),
    ]));
    world.step();
    world.pods = vec![
        stage_pod("a", 1, finished(1)),
        stage_pod("c", 1, failed("StepFailed", false, 9)),
    ];
    let decision = world.decide();
    assert_failed(&decision, "StepFailed", conditions::STAGES_COMPLETE);
    assert!(!turns(&decision).contains(&reasons::STAGE_STARTED));
    assert_eq!(decision.status.stages[1].state, StageState::Cancelled);
}

#[test]
fn a_transient_fault_is_tried_again_after_a_while_and_within_the_retries() {
    for (reason, attempt, second, expected) in [
        ("PodEvicted", 1, 10, None),
        ("PodEvicted", 1, 11, Some(start(0, 2))),
        ("OutOfMemory", 2, 11, None),
        ("OutOfMemory", 2, 12, Some(start(0, 3))),
    ] {
        let mut world = World::planned(schedule(vec![stage("a", &[])]));
        world.step();
        world.pods = vec![stage_pod("a", attempt, failed(reason, true, 10))];
        world.now = second;
        let decision = world.decide();
        assert_eq!(
            decision.actions,
            expected.clone().into_iter().collect::<Vec<_>>(),
            "{reason} at {second}"
        );
        assert_eq!(decision.status.phase, Some(Phase::Running));
        if expected.is_none() {
            assert_eq!(
                condition(&decision, conditions::READY),
                ("Unknown", reasons::RETRYING)
            );
            assert!(decision.again.unwrap() <= Duration::from_secs(2));
        } else {
            assert_eq!(turns(&decision), [reasons::RETRYING, reasons::STAGE_STARTED]);
        }
    }
    let mut world = World::planned(schedule(vec![stage("a", &[])]));
    world.step();
    world.pods = vec![stage_pod("a", 3, failed("OutOfMemory", true, 10))];
    assert_failed(&world.decide(), "OutOfMemory", conditions::STAGES_COMPLETE);
}

#[test]
fn a_plan_pod_is_tried_again_like_a_stage() {
    let mut world = World::new();
    world.step();
    world.pods = vec![plan_pod(1, failed("PodEvicted", true, 10))];
    world.now = 11;
    assert_eq!(world.decide().actions, [Action::StartPlan { attempt: 2 }]);
    world.build.spec.retries = 0;
    assert_failed(&world.decide(), "PodEvicted", conditions::PLANNED);
}

#[test]
fn a_pod_that_vanished_is_made_anew_and_a_finished_stage_is_not() {
    let mut world = World::planned(schedule(vec![stage("a", &[]), stage("app", &[0])]));
    world.step();
    let lost = world.decide();
    assert_eq!(lost.actions, [start(0, 2)]);
    assert_eq!(turns(&lost), [reasons::RETRYING, reasons::STAGE_STARTED]);
    world.pods = vec![stage_pod("a", 1, finished(1))];
    world.step();
    world.pods.clear();
    let decision = world.decide();
    assert_eq!(decision.status.stages[0].state, StageState::Succeeded);
    assert!(!decision.actions.contains(&start(0, 2)));
    world.build.spec.retries = 0;
    let decision = world.decide();
    assert_failed(&decision, reasons::POD_LOST, conditions::STAGES_COMPLETE);
}

#[test]
fn a_pod_that_waits_is_told_and_only_an_image_or_start_that_never_comes_ends_the_build() {
    for (wait, reason, ends) in [
        (
            Wait::Unschedulable("0/1 nodes".into()),
            reasons::UNSCHEDULABLE,
            false,
        ),
        (
            Wait::ImagePull("ErrImagePull: no".into()),
            reasons::RUNNER_IMAGE_UNAVAILABLE,
            true,
        ),
        (
            Wait::CannotStart("CreateContainerConfigError: no".into()),
            reasons::POD_CANNOT_START,
            true,
        ),
    ] {
        let mut world = World::new();
        world.step();
        world.pods = vec![plan_pod(1, PodState::Waiting(wait))];
        let decision = world.step();
        assert_eq!(condition(&decision, conditions::READY), ("Unknown", reason));
        assert_eq!(turns(&decision), [reason], "told once");
        assert_eq!(turns(&world.step()), [""; 0], "and not again");
        world.now = 301;
        let late = world.decide();
        if ends {
            assert_failed(&late, reason, conditions::PLANNED);
            assert_eq!(late.actions, [delete(&world.pods[0])]);
        } else {
            assert_eq!(late.status.phase, Some(Phase::Planning));
        }
    }
}

#[test]
fn a_build_that_takes_too_long_ends_where_it_stands() {
    let mut world = World::planned(schedule(vec![stage("a", &[])]));
    world.step();
    world.pods = vec![stage_pod(
        "a",
        1,
        PodState::Waiting(Wait::Unschedulable("0/1 nodes".into())),
    )];
    world.step();
    world.now = 600;
    let decision = world.decide();
    assert_failed(&decision, reasons::TIMED_OUT, conditions::STAGES_COMPLETE);
    assert_eq!(decision.actions, [delete(&world.pods[0])]);
    assert!(
        decision.status.failure.unwrap().message.contains("0/1 nodes"),
        "what it waited for is told"
    );
}

#[test]
fn what_the_spec_cannot_mean_ends_the_build_before_any_pod() {
    let mut world = World::new();
    world.build.spec.platforms = vec!["linux/arm64".into(), "linux/arm64/v8".into()];
    assert_failed(
        &world.decide(),
        reasons::SPEC_INVALID,
        conditions::SOURCE_RESOLVED,
    );
}

#[test]
fn a_plan_is_not_trusted() {
    let mut twice = vec![stage("a", &[]), stage("a", &[])];
    let mut odd = vec![stage("a", &[])];
    odd[0].id = "../a".into();
    twice[1].needs = vec![0];
    let mut outside = schedule(vec![stage("a", &[])]);
    outside.results[0].stage = 7;
    let mut other = schedule(vec![stage("a", &[])]);
    other.results[0].platform = "linux/arm64".parse().unwrap();
    let many = (0..600).map(|n| stage(&format!("s{n}"), &[])).collect();
    for (schedule, part) in [
        (schedule(twice), "twice"),
        (schedule(odd), "no label value"),
        (
            schedule(vec![stage("a", &[1]), stage("b", &[])]),
            "before one that it needs",
        ),
        (outside, "a result that is no stage"),
        (other, "other platforms"),
        (schedule(many), "the limit is 512"),
    ] {
        let decision = World::planned(schedule).decide();
        assert_failed(&decision, reasons::INTERNAL, conditions::PLANNED);
        let message = decision.status.failure.unwrap().message;
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_registry_that_fails_the_operator_is_asked_again_in_peace() {
    fn fault<T>(transient: bool) -> Lookup<T> {
        Lookup::Failed(Fault {
            reason: reasons::REGISTRY_UNREACHABLE,
            message: "away".into(),
            transient,
        })
    }
    let mut world = World::planned(schedule(vec![stage("app", &[])]));
    world.pods = vec![stage_pod("app", 1, finished(3))];
    world.facts.published = fault(true);
    world.facts.registry_attempts = 1;
    world.facts.registry_failed_at = Some(at(10));
    let decision = world.step();
    assert_eq!(decision.actions, [], "not before its time, whoever asks");
    assert_eq!(
        condition(&decision, conditions::READY),
        ("Unknown", reasons::REGISTRY_UNREACHABLE)
    );
    assert_eq!(decision.again, Some(Duration::from_secs(1)));
    world.now = 11;
    assert!(matches!(world.decide().actions.as_slice(), [Action::Publish(_)]));
    world.facts.registry_attempts = 3;
    assert_failed(&world.decide(), reasons::REGISTRY_UNREACHABLE, conditions::PUSHED);
    world.facts.registry_attempts = 1;
    world.facts.published = fault(false);
    assert_failed(&world.decide(), reasons::REGISTRY_UNREACHABLE, conditions::PUSHED);
    world.facts.schedule = fault(true);
    assert!(matches!(
        world.decide().actions.as_slice(),
        [Action::FetchSchedule { .. }]
    ));
}

#[test]
fn a_refused_pod_is_waited_for_or_ends_the_build_and_is_not_counted() {
    let refusal = |reason, wait| {
        vec![Refusal {
            reason,
            message: "no".into(),
            wait,
        }]
    };
    let mut world = World::planned(schedule(vec![stage("a", &[])]));
    world.facts.refused = refusal(reasons::QUOTA_EXCEEDED, true);
    let decision = world.step();
    assert_eq!(decision.actions, []);
    assert_eq!(
        condition(&decision, conditions::READY),
        ("Unknown", reasons::QUOTA_EXCEEDED)
    );
    assert_eq!(decision.status.stages[0].attempts, 0);
    assert_eq!(decision.again, Some(Duration::from_secs(10)));
    world.facts.refused.clear();
    assert_eq!(world.decide().actions, [start(0, 1)], "and then it goes on");
    world.facts.refused = refusal(reasons::POD_REFUSED, false);
    assert_failed(&world.decide(), reasons::POD_REFUSED, conditions::STAGES_COMPLETE);
    let mut world = World::new();
    world.facts.refused = refusal(reasons::QUOTA_EXCEEDED, true);
    assert_eq!(world.step().status.plan.unwrap().attempts, 0);
}
