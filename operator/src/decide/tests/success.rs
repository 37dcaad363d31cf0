//! A build that goes well.

use super::*;

#[test]
fn a_new_build_starts_its_plan_pod() {
    let decision = World::new().decide();
    assert_eq!(decision.actions, [Action::StartPlan { attempt: 1 }]);
    assert_eq!(decision.status.phase, Some(Phase::Planning));
    assert_eq!(decision.status.reason.as_deref(), Some(reasons::CREATED));
    assert_eq!(decision.status.observed_generation, Some(1));
    assert_eq!(
        condition(&decision, conditions::READY),
        ("Unknown", reasons::PLANNING)
    );
    assert_eq!(condition(&decision, conditions::RECONCILING).0, "True");
    assert_eq!(condition(&decision, conditions::STALLED).0, "False");
    assert_eq!(turns(&decision), [reasons::PLANNING]);
    assert_eq!(decision.again, Some(Duration::from_mins(10)), "at the time-out");
    for kind in conditions::ALL {
        assert!(
            conditions::get(&decision.status.conditions, kind).is_some(),
            "{kind} is not set"
        );
    }
}

#[test]
fn nothing_new_means_nothing_to_do_and_nothing_to_write() {
    let mut world = World::new();
    let first = world.step();
    world.pods = vec![plan_pod(1, PodState::Running)];
    world.now = 20;
    let second = world.step();
    assert_eq!((second.actions.len(), second.turns.len()), (0, 0));
    assert_eq!(second.status, first.status);
}

#[test]
fn a_plan_that_is_done_is_read() {
    let mut world = World::new();
    world.step();
    world.pods = vec![plan_pod(
        1,
        PodState::Planned {
            plan: digest(9),
            warnings: 2,
        },
    )];
    let decision = world.step();
    assert_eq!(decision.actions, [Action::FetchSchedule { plan: digest(9) }]);
    assert_eq!(turns(&decision), [reasons::PLANNED]);
    let plan = decision.status.plan.unwrap();
    assert_eq!(
        (plan.digest, plan.warnings, plan.attempts),
        (Some(digest(9).to_string()), 2, 1)
    );
}

#[test]
fn a_stage_starts_when_its_first_step_has_its_inputs() {
    let late = slipway_plan::protocol::ScheduledStage {
        start_after: vec![],
        ..stage("late", &[0])
    };
    let mut world = World::planned(schedule(vec![stage("base", &[]), late, stage("app", &[0, 1])]));
    // `late` needs `base` only for a later step: it starts at once, and waits in its pod.
    assert_eq!(world.step().actions, [start(0, 1), start(1, 1)]);
    world.pods = vec![
        stage_pod("base", 1, finished(1)),
        stage_pod("late", 1, PodState::Running),
    ];
    let decision = world.step();
    assert_eq!(decision.actions, []);
    assert_eq!(
        states(&decision),
        [StageState::Succeeded, StageState::Running, StageState::Waiting]
    );
    assert_eq!(decision.status.progress.as_deref(), Some("1/3"));
    let needs: Vec<_> = decision
        .status
        .stages
        .iter()
        .map(|row| row.needs.join(" "))
        .collect();
    assert_eq!(
        needs,
        ["", "base-linux-amd64", "base-linux-amd64 late-linux-amd64"]
    );
    world.pods[1] = stage_pod("late", 1, finished(2));
    let decision = world.step();
    assert_eq!(decision.actions, [start(2, 1)]);
    assert_eq!(
        turns(&decision),
        [reasons::STAGE_FINISHED, reasons::STAGE_STARTED]
    );
    let row = &decision.status.stages[1];
    assert_eq!((row.steps.done, row.steps.cached, row.steps.total), (3, 1, 3));
    assert_eq!(row.digest, Some(digest(2).to_string()));
}

#[test]
fn a_cached_stage_and_what_only_it_reads_need_no_pod() {
    let mut cached = stage("cached", &[0]);
    cached.cached = Some(digest(5));
    let world = World::planned(schedule(vec![stage("below", &[]), cached, stage("app", &[1])]));
    let decision = world.decide();
    assert_eq!(decision.actions, [start(2, 1)]);
    assert_eq!(
        states(&decision),
        [StageState::Skipped, StageState::Cached, StageState::Starting]
    );
    assert_eq!(decision.status.progress.as_deref(), Some("0/1"));
}

#[test]
fn a_build_whose_result_is_cached_goes_straight_to_its_tags() {
    let mut cached = stage("app", &[]);
    cached.cached = Some(digest(5));
    let decision = World::planned(schedule(vec![cached])).decide();
    assert_eq!(decision.status.phase, Some(Phase::Assembling));
    assert!(
        matches!(decision.actions.as_slice(), [Action::Publish(asked)] if asked.results[0].1 == digest(5))
    );
}

#[test]
fn an_image_at_its_tags_is_ready() {
    let mut world = World::planned(schedule(vec![stage("app", &[])]));
    world.pods = vec![stage_pod("app", 1, finished(3))];
    let asked = world.step();
    assert!(
        matches!(asked.actions.as_slice(), [Action::Publish(_)]),
        "{:?}",
        asked.actions
    );
    assert_eq!(condition(&asked, conditions::STAGES_COMPLETE).0, "True");
    assert_eq!(condition(&asked, conditions::PUSHED).0, "Unknown");
    world.facts.published = Lookup::Done(Published {
        digest: digest(3),
        sizes: vec![42],
    });
    let decision = world.step();
    assert_eq!(decision.status.phase, Some(Phase::Succeeded));
    for kind in [
        conditions::READY,
        conditions::PLANNED,
        conditions::STAGES_COMPLETE,
        conditions::PUSHED,
    ] {
        assert_eq!(condition(&decision, kind).0, "True", "{kind}");
    }
    assert_eq!(condition(&decision, conditions::RECONCILING).0, "False");
    let image = decision.status.image.as_ref().unwrap();
    assert_eq!(
        (image.digest.clone(), image.size, image.names.len()),
        (digest(3).to_string(), Some(42), 2)
    );
    assert_eq!(turns(&decision), [reasons::SUCCEEDED]);
    assert_eq!(decision.again, None);
    world.facts = Facts::default();
    assert_eq!(world.decide().actions, [], "and then there is peace");
}

#[test]
fn nothing_is_named_before_every_gate_is_done() {
    // The target is done first; `lint` needs nothing of it, `test` is cached.
    let mut cached = stage("test", &[]);
    cached.cached = Some(digest(7));
    let mut gated = schedule(vec![
        cached,
        stage("lint", &[]),
        stage("unused", &[]),
        stage("app", &[]),
    ]);
    gated.gates = vec![0, 1];
    let mut world = World::gated(gated, &["Test", "lint"]);
    let decision = world.step();
    assert_eq!(decision.actions, [start(1, 1), start(3, 1)]);
    world.pods = vec![
        stage_pod("lint", 1, PodState::Running),
        stage_pod("app", 1, finished(3)),
    ];
    let decision = world.step();
    assert_eq!(
        (decision.actions.len(), decision.status.phase),
        (0, Some(Phase::Running))
    );
    assert_eq!(decision.status.progress.as_deref(), Some("1/2"));
    world.pods[0] = stage_pod("lint", 1, finished(1));
    let decision = world.step();
    assert!(
        matches!(decision.actions.as_slice(), [Action::Publish(_)]),
        "{:?}",
        decision.actions
    );
    assert_eq!(
        states(&decision),
        [
            StageState::Cached,
            StageState::Succeeded,
            StageState::Skipped,
            StageState::Succeeded
        ]
    );
}

#[test]
fn settings_for_a_stage_that_is_not_there_are_told_once() {
    let mut world = World::planned(schedule(vec![stage("build", &[])]));
    let stages = &mut world.build.spec.pods.stages;
    stages.insert("Build".into(), slipway_crd::StagePods::default());
    assert!(!turns(&world.decide()).contains(&reasons::STAGE_UNKNOWN));
    let stages = &mut world.build.spec.pods.stages;
    stages.insert("biuld".into(), slipway_crd::StagePods::default());
    let decision = world.step();
    assert!(turns(&decision).contains(&reasons::STAGE_UNKNOWN));
    assert!(
        decision
            .turns
            .iter()
            .any(|turn| turn.note.contains("no stage biuld"))
    );
    assert!(!turns(&world.step()).contains(&reasons::STAGE_UNKNOWN));
}
