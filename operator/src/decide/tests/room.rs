//! Pods that wait inside for a stage that has no room.

use super::*;

fn unschedulable(message: &str) -> PodState {
    PodState::Waiting(Wait::Unschedulable(message.into()))
}

fn no_room() -> PodState {
    unschedulable("0/1 nodes are available: 1 Insufficient memory.")
}

/// `app` starts at once and reads `deep`, which reads `build`, only later; `other` reads nothing.
fn world() -> World {
    let later = |name: &str, needs: &[usize]| slipway_plan::protocol::ScheduledStage {
        start_after: vec![],
        ..stage(name, needs)
    };
    let mut world = World::planned(schedule(vec![
        stage("build", &[]),
        later("deep", &[0]),
        stage("other", &[]),
        later("app", &[1, 2]),
    ]));
    world.step();
    world
}

#[test]
fn pods_that_can_only_wait_make_room_and_others_are_waited_for() {
    let room = "0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods.";
    for (build, other, now, deleted) in [
        (no_room(), finished(1), 10, 2),
        (unschedulable(room), finished(1), 10, 2),
        // Not at once: another pod may just be ending.
        (no_room(), finished(1), 9, 0),
        // `other` needs nothing of it: it ends, and makes room.
        (no_room(), PodState::Running, 100, 0),
        (no_room(), PodState::Waiting(Wait::Starting), 100, 0),
        // It is the wrong node, and not a full one: that no pod's end would change.
        (
            unschedulable("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
            finished(1),
            100,
            0,
        ),
        (PodState::Running, finished(1), 100, 0),
    ] {
        let mut world = world();
        world.pods = vec![
            stage_pod("build", 1, build.clone()),
            stage_pod("deep", 1, PodState::Running),
            stage_pod("other", 1, other.clone()),
            stage_pod("app", 1, PodState::Running),
        ];
        world.now = now;
        let decision = world.step();
        let expected = [delete(&world.pods[1]), delete(&world.pods[3])];
        assert_eq!(decision.actions, expected[..deleted], "{build:?} {other:?} {now}");
        let made_room = turns(&decision)
            .iter()
            .filter(|turn| **turn == reasons::MADE_ROOM)
            .count();
        assert_eq!(made_room, deleted);
        if now == 9 {
            assert_eq!(decision.again, Some(Duration::from_secs(1)));
        }
    }
}

#[test]
fn what_made_room_starts_again_when_all_that_it_reads_is_there_and_pays_no_attempt_for_it() {
    let mut world = world();
    world.build.spec.retries = 0;
    world.pods = vec![
        stage_pod("build", 1, no_room()),
        stage_pod("deep", 1, PodState::Running),
        stage_pod("other", 1, finished(1)),
        stage_pod("app", 1, PodState::Running),
    ];
    let decision = world.step();
    assert_eq!(decision.actions.len(), 2);
    assert_eq!(
        states(&decision),
        [
            StageState::Starting,
            StageState::Waiting,
            StageState::Succeeded,
            StageState::Waiting
        ]
    );
    // One of them is going, the other has gone: neither is taken for lost, and nothing is done twice.
    world.pods[1].deleting = true;
    world.pods.remove(3);
    let decision = world.step();
    assert_eq!((decision.actions.len(), decision.turns.len()), (0, 0));
    assert_eq!(
        decision.status.stages[1].gave_way_to.as_deref(),
        Some("build-linux-amd64")
    );
    // It was told to stop: that is no failure.
    world.pods = vec![
        stage_pod("build", 1, PodState::Running),
        stage_pod("deep", 1, failed("PodLost", true, 12)),
    ];
    assert_eq!(world.step().actions, []);
    world.pods[0] = stage_pod("build", 1, finished(2));
    assert_eq!(world.step().actions, [start(1, 2)], "app reads deep as well");
    world.pods.push(stage_pod("deep", 2, finished(3)));
    let decision = world.step();
    assert_eq!(decision.actions, [start(3, 2)]);
    let app = &decision.status.stages[3];
    assert_eq!(
        (app.gave_way, app.gave_way_to.as_deref(), app.attempts),
        (1, None, 2)
    );
    // `retries: 0` allows one attempt that counts.
    world
        .pods
        .push(stage_pod("app", 2, failed("PodEvicted", true, 20)));
    assert_failed(&world.decide(), "PodEvicted", conditions::STAGES_COMPLETE);
    world.build.spec.retries = 1;
    world.now = 21;
    assert_eq!(world.decide().actions, [start(3, 3)]);
}

#[test]
fn a_pod_that_was_done_or_failed_before_it_could_make_room_counts() {
    for (state, phase, stage_state) in [
        (finished(4), Phase::Running, StageState::Succeeded),
        (failed("StepFailed", false, 12), Phase::Failed, StageState::Failed),
    ] {
        let mut world = world();
        world.pods = vec![
            stage_pod("build", 1, no_room()),
            stage_pod("deep", 1, PodState::Running),
            stage_pod("other", 1, finished(1)),
        ];
        world.step();
        world.pods[1] = stage_pod("deep", 1, state);
        let decision = world.step();
        assert_eq!(decision.status.phase, Some(phase));
        assert_eq!(decision.status.stages[1].state, stage_state);
    }
}

#[test]
fn what_reads_a_stage_without_room_does_not_start_beside_it() {
    let mut world = world();
    world.status().stages[3].attempts = 0;
    world.status().stages[3].state = StageState::Waiting;
    world.pods = vec![
        stage_pod("build", 1, no_room()),
        stage_pod("deep", 1, no_room()),
        stage_pod("other", 1, PodState::Running),
    ];
    assert_eq!(world.step().actions, []);
    world.pods[0] = stage_pod("build", 1, PodState::Running);
    world.pods[1] = stage_pod("deep", 1, PodState::Running);
    assert_eq!(world.step().actions, [start(3, 1)]);
}

#[test]
fn pods_that_fill_the_quota_and_can_only_wait_make_room_too() {
    for (told, reason, other, deleted) in [
        (reasons::QUOTA_EXCEEDED, reasons::QUOTA_EXCEEDED, finished(1), 2),
        // Another build's pod may just be ending.
        (reasons::RUNNING, reasons::QUOTA_EXCEEDED, finished(1), 0),
        (reasons::QUOTA_EXCEEDED, reasons::POD_REFUSED, finished(1), 0),
        (
            reasons::QUOTA_EXCEEDED,
            reasons::QUOTA_EXCEEDED,
            PodState::Running,
            0,
        ),
    ] {
        let mut world = world();
        // `build` could not be created.
        let build = &mut world.status().stages[0];
        (build.state, build.attempts, build.pod) = (StageState::Waiting, 0, None);
        let ready = world
            .status()
            .conditions
            .iter_mut()
            .find(|condition| condition.type_ == conditions::READY);
        ready.unwrap().reason = told.to_owned();
        world.pods = vec![
            stage_pod("deep", 1, PodState::Running),
            stage_pod("other", 1, other),
            stage_pod("app", 1, PodState::Running),
        ];
        world.facts.refused = vec![Refusal {
            reason,
            message: "no".into(),
            wait: true,
        }];
        let decision = world.step();
        let expected = [delete(&world.pods[0]), delete(&world.pods[2])];
        assert_eq!(decision.actions, expected[..deleted], "{told} {reason}");
    }
}
