//! Several platforms: nodes that are not there, and platforms that fail alone.

use slipway_crd::PlatformFailure;
use slipway_oci::Platform;
use slipway_plan::protocol::{ScheduledResult, ScheduledStage};

use super::*;
use crate::placement::Node;

fn for_platform(name: &str, platform: &str, needs: &[usize]) -> ScheduledStage {
    ScheduledStage {
        platform: platform.parse().unwrap(),
        ..stage(name, needs)
    }
}

/// One stage for each of two platforms over one that both read.
fn two_platforms() -> World {
    let mut plan = schedule(vec![
        stage("tools", &[]),
        for_platform("arm", "linux/arm64", &[0]),
        for_platform("amd", "linux/amd64", &[0]),
    ]);
    plan.results = [("linux/arm64", 1), ("linux/amd64", 2)]
        .map(|(platform, stage)| ScheduledResult {
            platform: platform.parse().unwrap(),
            stage,
        })
        .to_vec();
    let mut world = World::planned(plan);
    world.build.spec.platforms = vec!["linux/arm64".into(), "linux/amd64".into()];
    world.status().run.as_mut().unwrap().inputs = validate::inputs(&world.build.spec);
    world
}

fn node(architecture: &str, probed: Option<&str>) -> Node {
    Node {
        name: architecture.to_owned(),
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        emulates: std::collections::BTreeSet::new(),
        probed: probed.map(ToOwned::to_owned),
    }
}

fn unschedulable() -> PodState {
    PodState::Waiting(Wait::Unschedulable("0/1 nodes are available".into()))
}

#[test]
fn a_missing_node_is_told_as_long_as_it_is_missing() {
    let mut world = World::planned(schedule(vec![for_platform("a", "linux/sparc64", &[])]));
    let host = Platform::host().architecture;
    world.facts.nodes = Some(Arc::new(vec![node(&host, None)]));
    let told = ("Unknown", reasons::NO_NODE_FOR_PLATFORM);
    let decision = world.step();
    assert_eq!(
        decision.actions,
        [start(0, 1)],
        "a pending pod is what a node is added for"
    );
    assert_eq!(condition(&decision, conditions::READY), told);
    assert!(turns(&decision).contains(&reasons::NO_NODE_FOR_PLATFORM));
    world.pods = vec![stage_pod("a", 1, unschedulable())];
    let decision = world.step();
    assert_eq!(condition(&decision, conditions::READY), told);
    assert_eq!(turns(&decision), Vec::<&str>::new(), "an event is told once");
    world.facts.nodes = Some(Arc::new(vec![node(&host, None), node("sparc64", None)]));
    assert_eq!(
        condition(&world.step(), conditions::READY),
        ("Unknown", reasons::UNSCHEDULABLE),
        "there is one, and the scheduler has not taken it yet"
    );
    world.pods = vec![stage_pod("a", 1, PodState::Running)];
    assert_eq!(condition(&world.step(), conditions::READY).1, reasons::RUNNING);
}

#[test]
fn no_pod_is_made_before_it_is_known_what_the_nodes_emulate() {
    let mut world = World::planned(schedule(vec![for_platform("a", "linux/sparc64", &[])]));
    let host = Platform::host().architecture;
    world.facts.probe = Some("p".into());
    world.facts.nodes = Some(Arc::new(vec![node(&host, None)]));
    let decision = world.step();
    assert_eq!(decision.actions, []);
    assert_eq!(condition(&decision, conditions::READY).1, reasons::PROBING_NODES);
    assert_eq!(decision.again, Some(Duration::from_secs(2)));
    world.facts.nodes = Some(Arc::new(vec![node(&host, Some("p"))]));
    assert_eq!(world.step().actions, [start(0, 1)]);
}

#[test]
fn a_platform_that_fails_ends_the_build_unless_the_rest_is_wanted() {
    let mut world = two_platforms();
    world.step();
    world.pods = vec![
        stage_pod("tools", 1, finished(1)),
        stage_pod("arm", 1, failed("StepFailed", false, 9)),
        stage_pod("amd", 1, PodState::Running),
    ];
    assert_failed(&world.decide(), "StepFailed", conditions::STAGES_COMPLETE);

    world.build.spec.platform_failure = PlatformFailure::PublishRest;
    let decision = world.step();
    assert_eq!(decision.actions, [], "the other platform goes on");
    assert_eq!(
        states(&decision),
        [StageState::Succeeded, StageState::Failed, StageState::Running]
    );
    world.pods[2] = stage_pod("amd", 1, finished(3));
    let decision = world.step();
    let [Action::Publish(publication)] = decision.actions.as_slice() else {
        panic!("{:?}", decision.actions);
    };
    assert!(publication.several);
    assert_eq!(publication.results, [("linux/amd64".parse().unwrap(), digest(3))]);
    world.facts.published = Lookup::Done(Published {
        digest: digest(4),
        sizes: vec![42],
    });
    let decision = world.step();
    assert_eq!(decision.status.phase, Some(Phase::Succeeded));
    assert_eq!(
        condition(&decision, conditions::READY),
        ("True", reasons::PLATFORMS_MISSING)
    );
    assert_eq!(decision.status.failure.as_ref().unwrap().reason, "StepFailed");
    assert_eq!(decision.status.image.as_ref().unwrap().platforms.len(), 1);
}

#[test]
fn with_the_last_platform_the_build_fails_by_the_first_failure() {
    let mut world = two_platforms();
    world.build.spec.platform_failure = PlatformFailure::PublishRest;
    world.step();
    world.pods = vec![
        stage_pod("tools", 1, finished(1)),
        stage_pod("arm", 1, failed("StepFailed", false, 9)),
        stage_pod("amd", 1, PodState::Running),
    ];
    world.step();
    world.pods[2] = stage_pod("amd", 1, failed("FileNotFound", false, 12));
    assert_failed(&world.step(), "StepFailed", conditions::STAGES_COMPLETE);

    let mut world = two_platforms();
    world.build.spec.platform_failure = PlatformFailure::PublishRest;
    world.step();
    world.pods = vec![stage_pod("tools", 1, failed("StepFailed", false, 9))];
    assert_failed(&world.step(), "StepFailed", conditions::STAGES_COMPLETE);
}

#[test]
fn a_gate_that_fails_holds_back_every_platform() {
    let mut world = two_platforms();
    world.build.spec.platform_failure = PlatformFailure::PublishRest;
    if let Lookup::Done(plan) = &mut world.facts.schedule {
        let plan = Arc::make_mut(plan);
        plan.stages.push(stage("lint", &[]));
        plan.gates = vec![3];
    }
    world.build.spec.gates = vec!["lint".into()];
    world.status().run.as_mut().unwrap().inputs = validate::inputs(&world.build.spec);
    world.step();
    world.pods = vec![
        stage_pod("tools", 1, PodState::Running),
        stage_pod("lint", 1, failed("StepFailed", false, 9)),
    ];
    assert_failed(&world.step(), "StepFailed", conditions::STAGES_COMPLETE);
}
