//! Stages that another build makes at the same time.

use slipway_crd::SharedWith;

use super::*;
use crate::peers::SharedStage;

fn key(name: &str) -> String {
    format!("{name:0<64}")
}

/// `common` may be made by another build, `app` is the result.
fn world() -> World {
    let mut common = stage("common", &[]);
    common.key = key("common");
    common.shared = true;
    let mut app = stage("app", &[0]);
    app.key = key("app");
    World::planned(schedule(vec![common, app]))
}

fn other(state: StageState) -> SharedStage {
    SharedStage {
        build: "elder".into(),
        id: "common-linux-amd64".into(),
        state,
        pod: None,
        digest: state.has_result().then(|| digest(5).to_string()),
    }
}

fn tell(world: &mut World, state: Option<StageState>) {
    let stages = &mut world.facts.peers.stages;
    stages.clear();
    stages.extend(state.map(|state| (key("common"), other(state))));
}

#[test]
fn the_result_of_another_build_is_waited_for_and_taken() {
    let mut world = world();
    for state in [StageState::Waiting, StageState::Starting, StageState::Running] {
        tell(&mut world, Some(state));
        let decision = world.step();
        assert_eq!(decision.actions, [], "{state:?}");
        let row = &decision.status.stages[0];
        assert_eq!((row.state, row.attempts), (StageState::Waiting, 0));
        assert_eq!(row.shared_with.as_ref().unwrap().build, "elder");
    }
    tell(&mut world, Some(StageState::Succeeded));
    let decision = world.step();
    assert_eq!(turns(&decision), [reasons::STAGE_SHARED, reasons::STAGE_STARTED]);
    assert_eq!(decision.actions, [start(1, 1)], "the next stage has its input");
    let row = &decision.status.stages[0];
    assert_eq!(
        (row.state, row.digest.as_deref(), row.attempts, row.pod.as_deref()),
        (
            StageState::Succeeded,
            Some(digest(5).to_string().as_str()),
            0,
            None
        )
    );
    assert_eq!((row.steps.done, row.steps.cached), (3, 3));
    assert_eq!(decision.status.progress.as_deref(), Some("1/2"));
    tell(&mut world, None);
    assert_eq!(
        world.step().status.stages[0].state,
        StageState::Succeeded,
        "and it stays"
    );
}

#[test]
fn a_stage_is_taken_over_when_nobody_else_makes_it_any_more() {
    let mut world = world();
    tell(&mut world, Some(StageState::Running));
    assert_eq!(world.step().actions, []);
    // The claim has passed on to this build: the other failed at the stage, or is gone.
    tell(&mut world, None);
    let decision = world.step();
    assert_eq!(decision.actions, [start(0, 1)]);
    assert_eq!(decision.status.stages[0].shared_with, None);
}

#[test]
fn one_that_does_not_come_to_run_is_not_waited_for_for_ever() {
    for (state, second, starts) in [
        (StageState::Starting, 309, false),
        (StageState::Starting, 310, true),
        (StageState::Waiting, 310, true),
        (StageState::Running, 310, false),
    ] {
        let mut world = world();
        tell(&mut world, Some(state));
        assert_eq!(world.step().actions, []);
        world.now = second;
        assert_eq!(
            world.step().actions == [start(0, 1)],
            starts,
            "{state:?} {second}"
        );
    }
}

#[test]
fn a_stage_that_only_this_build_can_make_is_not_shared() {
    let mut world = world();
    let mut schedule = match &world.facts.schedule {
        Lookup::Done(schedule) => Schedule::clone(schedule),
        _ => panic!(),
    };
    schedule.stages[0].shared = false;
    world.facts.schedule = Lookup::Done(Arc::new(schedule));
    tell(&mut world, Some(StageState::Running));
    let decision = world.step();
    assert_eq!(decision.actions, [start(0, 1)]);
    assert_eq!(decision.status.stages[0].key, None, "nor is it offered to others");
}

#[test]
fn a_pod_of_its_own_goes_on_whoever_else_makes_the_stage() {
    let mut world = world();
    world.step();
    world.pods = vec![stage_pod("common", 1, PodState::Running)];
    tell(&mut world, Some(StageState::Running));
    let decision = world.step();
    assert_eq!(
        (decision.actions.len(), decision.status.stages[0].state),
        (0, StageState::Running)
    );
}

#[test]
fn only_what_a_running_build_has_still_to_make_is_claimed() {
    let mut world = world();
    let wanted = |world: &World| -> usize {
        let Lookup::Done(schedule) = &world.facts.schedule else {
            panic!()
        };
        wanted_stages(&world.build, schedule).len()
    };
    assert_eq!(wanted(&world), 1, "the result goes to repositories of its own");
    world.step();
    assert_eq!(wanted(&world), 1);
    world.build.spec.suspend = true;
    assert_eq!(wanted(&world), 0);
    world.build.spec.suspend = false;
    world.status().stages[0].state = StageState::Succeeded;
    assert_eq!(wanted(&world), 0);
    world.status().stages[0] = slipway_crd::StageStatus {
        shared_with: Some(SharedWith {
            build: "elder".into(),
            since: Time(at(0)),
        }),
        state: StageState::Waiting,
        ..world.status().stages[0].clone()
    };
    assert_eq!(wanted(&world), 1);
    world.status().phase = Some(Phase::Failed);
    assert_eq!(wanted(&world), 0);
}
