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
        (
            "OutOfMemory",
            2,
            12,
            Some(Action::StartStage {
                stage: 0,
                attempt: 3,
                out_of_memory: 1,
                claims: Vec::new(),
            }),
        ),
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
fn each_want_of_memory_is_counted_for_the_next_attempt_also_when_its_pod_is_gone() {
    let again = |attempt, out_of_memory| Action::StartStage {
        stage: 0,
        attempt,
        out_of_memory,
        claims: Vec::new(),
    };
    let mut world = World::planned(schedule(vec![stage("a", &[]), stage("app", &[0])]));
    world.build.spec.retries = 5;
    world.build.spec.retry_memory_factor = Some("1.5".into());
    world.step();
    world.pods = vec![stage_pod("a", 1, failed("OutOfMemory", true, 10))];
    world.now = 20;
    let decision = world.step();
    assert_eq!(decision.actions, [again(2, 1)]);
    assert!(
        decision.turns[0].note.contains("with more memory"),
        "{:?}",
        decision.turns
    );
    assert_eq!(decision.status.stages[0].out_of_memory, 1);
    // An eviction in between does not raise it.
    world.pods.push(stage_pod("a", 2, failed("PodEvicted", true, 30)));
    world.now = 40;
    assert_eq!(world.step().actions, [again(3, 1)]);
    world.pods = vec![stage_pod("a", 3, failed("OutOfMemory", true, 50))];
    world.now = 60;
    assert_eq!(
        world.step().actions,
        [again(4, 2)],
        "the first pod is gone, and counted all the same"
    );
}

#[test]
fn the_failure_that_is_told_is_not_one_that_it_brought_about() {
    let two = |first: PodState, second: PodState| {
        let mut world = World::planned(schedule(vec![
            stage("a", &[]),
            stage("b", &[]),
            stage("app", &[0, 1]),
        ]));
        world.build.spec.retries = 0;
        world.step();
        world.pods = vec![stage_pod("a", 1, first), stage_pod("b", 1, second)];
        world.decide().status.failure.unwrap()
    };
    for (first, second, stage, reason) in [
        // Killed because the other failed; the operator was killed in between, so both are seen at once.
        (
            failed("PodLost", true, 9),
            failed("StepFailed", false, 9),
            "b",
            "StepFailed",
        ),
        // The clock of its node is behind.
        (
            failed("PodLost", true, 7),
            failed("StepFailed", false, 9),
            "b",
            "StepFailed",
        ),
        (
            failed("PodEvicted", true, 7),
            failed("OutOfMemory", true, 9),
            "b",
            "OutOfMemory",
        ),
        (
            failed("StepFailed", false, 9),
            failed("FileNotFound", false, 7),
            "b",
            "FileNotFound",
        ),
        (
            failed("StepFailed", false, 9),
            failed("StepFailed", false, 9),
            "a",
            "StepFailed",
        ),
        (
            failed("PodEvicted", true, 7),
            PodState::Running,
            "a",
            "PodEvicted",
        ),
    ] {
        let failure = two(first.clone(), second.clone());
        assert_eq!(
            (failure.stage.as_deref(), failure.reason.as_str()),
            (Some(stage), reason),
            "{first:?} {second:?}"
        );
    }
}

#[test]
fn a_deleted_pod_whose_node_keeps_silent_is_given_up_after_a_while() {
    let mut world = World::planned(schedule(vec![stage("a", &[])]));
    world.step();
    let silent = PodView {
        node: Some("n1".into()),
        deleting: true,
        gone_by: Some(at(20)),
        ..stage_pod("a", 1, PodState::Running)
    };
    world.pods = vec![silent.clone()];
    world.now = 21;
    let decision = world.step();
    assert_eq!(
        (decision.actions.len(), decision.again),
        (0, Some(Duration::from_secs(29)))
    );
    world.now = 50;
    let decision = world.decide();
    assert_eq!(decision.actions, [start(0, 2)]);
    assert!(decision.turns[0].note.contains("node n1"), "{:?}", decision.turns);
    // One that has ended has said how.
    world.pods = vec![PodView {
        state: finished(1),
        ..silent
    }];
    assert_eq!(world.decide().status.stages[0].state, StageState::Succeeded);
}

#[test]
fn a_registry_that_asks_for_time_gets_it() {
    let mut world = World::planned(schedule(vec![stage("a", &[])]));
    world.step();
    let mut state = failed("RegistryRateLimited", true, 10);
    if let PodState::Failed(failed) = &mut state {
        failed.retry_after = Some(Duration::from_mins(2));
    }
    world.pods = vec![stage_pod("a", 1, state)];
    world.now = 129;
    let decision = world.decide();
    assert_eq!(decision.actions, []);
    assert_eq!(decision.again, Some(Duration::from_secs(1)));
    world.now = 130;
    assert_eq!(world.decide().actions, [start(0, 2)]);

    world.pods = vec![stage_pod("a", 1, finished(3))];
    world.facts.published = Lookup::Failed(Fault {
        reason: reasons::REGISTRY_RATE_LIMITED,
        message: "too many".into(),
        transient: true,
        retry_after: Some(Duration::from_secs(30)),
    });
    world.facts.registry_attempts = 1;
    world.facts.registry_failed_at = Some(at(130));
    let decision = world.decide();
    assert_eq!(
        (decision.actions.as_slice(), decision.again),
        (&[][..], Some(Duration::from_secs(30)))
    );
    assert_eq!(
        condition(&decision, conditions::READY),
        ("Unknown", reasons::REGISTRY_RATE_LIMITED)
    );
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
            Wait::NoUserNamespaces("FailedCreatePodSandBox: no".into()),
            reasons::USER_NAMESPACES_UNAVAILABLE,
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
fn a_failing_gate_fails_the_build_also_when_the_image_is_there() {
    let mut gated = schedule(vec![stage("lint", &[]), stage("app", &[])]);
    gated.gates = vec![0];
    let mut world = World::gated(gated, &["lint"]);
    world.step();
    world.pods = vec![
        stage_pod("lint", 1, failed("StepFailed", false, 9)),
        stage_pod("app", 1, finished(3)),
    ];
    let decision = world.decide();
    assert_failed(&decision, "StepFailed", conditions::STAGES_COMPLETE);
    assert_eq!(decision.status.failure.unwrap().stage.as_deref(), Some("lint"));
}

#[test]
fn a_plan_without_the_gates_of_the_spec_is_not_followed() {
    for (gates, refused) in [
        (vec![], true),
        (vec![1], true),
        (vec![0, 9], true),
        (vec![0], false),
    ] {
        let mut gated = schedule(vec![stage("lint", &[]), stage("app", &[])]);
        gated.gates.clone_from(&gates);
        let decision = World::gated(gated, &["lint"]).decide();
        assert_eq!(decision.status.phase == Some(Phase::Failed), refused, "{gates:?}");
    }
}

#[test]
fn a_held_step_is_told_with_the_way_in_and_its_pod_stays() {
    for (reason, instruction, told) in [
        ("StepFailed", Some("RUN make"), true),
        ("OutOfMemory", Some("RUN make"), true),
        // The pod itself ran out of memory: there is nobody left who could have kept anything.
        ("OutOfMemory", None, false),
        ("FileNotFound", Some("COPY a /"), false),
    ] {
        let mut world = World::planned(schedule(vec![stage("a", &[])]));
        world.build.spec.retries = 0;
        world.build.spec.debug = Some(slipway_crd::DebugOptions {
            hold_failed: Some("15m".into()),
        });
        world.step();
        let mut state = failed(reason, false, 5);
        if let PodState::Failed(failed) = &mut state {
            failed.failure.instruction = instruction.map(ToOwned::to_owned);
        }
        world.pods = vec![stage_pod("a", 1, state)];
        let decision = world.step();
        assert_failed(&decision, reason, conditions::STAGES_COMPLETE);
        let message = decision.status.failure.unwrap().message;
        let way = format!("kubectl exec -n team -it {} -c hold", world.pods[0].name);
        assert_eq!(message.contains(&way), told, "{message}");
        assert_eq!((decision.actions.len(), world.step().actions.len()), (0, 0));
    }
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
    for (schedule, part) in [
        (schedule(twice), "twice"),
        (schedule(odd), "no label value"),
        (
            schedule(vec![stage("a", &[1]), stage("b", &[])]),
            "before one that it needs",
        ),
        (outside, "a result that is no stage"),
        (other, "other platforms"),
    ] {
        let decision = World::planned(schedule).decide();
        assert_failed(&decision, reasons::INTERNAL, conditions::PLANNED);
        let message = decision.status.failure.unwrap().message;
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_graph_that_a_status_cannot_hold_ends_the_build_before_any_stage() {
    let many = |count| (0..count).map(|n| stage(&format!("s{n}"), &[])).collect();
    let decision = World::planned(schedule(many(513))).decide();
    assert_failed(&decision, reasons::TOO_MANY_STAGES, conditions::PLANNED);
    assert!(decision.status.failure.unwrap().message.contains("513 stages"));
    let decision = World::planned(schedule(many(512))).decide();
    assert_eq!(decision.status.phase, Some(Phase::Running));
}

#[test]
fn a_registry_that_fails_the_operator_is_asked_again_in_peace() {
    fn fault<T>(transient: bool) -> Lookup<T> {
        Lookup::Failed(Fault {
            reason: reasons::REGISTRY_UNREACHABLE,
            message: "away".into(),
            transient,
            retry_after: None,
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
