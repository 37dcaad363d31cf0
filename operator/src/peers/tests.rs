//! What the builds know of each other, and who is woken.

use futures::StreamExt as _;
use slipway_crd::{Phase, StageState, StageStatus};

use super::*;
use crate::fixtures;

/// A build of its own uid whose run is under way, with a stage `a` of key `k` in `state`.
fn build(name: &str, version: u64, state: Option<StageState>) -> ImageBuild {
    let mut build = fixtures::build();
    build.metadata.name = Some(name.to_owned());
    build.metadata.uid = Some(format!("uid-{name}"));
    build.metadata.resource_version = Some(version.to_string());
    let mut status = fixtures::status(Phase::Running);
    status.stages = state
        .map(|state| StageStatus {
            id: "a-linux-amd64".into(),
            key: Some("k".into()),
            state,
            pod: matches!(state, StageState::Starting | StageState::Running).then(|| format!("{name}-pod")),
            digest: state.has_result().then(|| "sha256:1".into()),
            ..StageStatus::default()
        })
        .into_iter()
        .collect();
    build.status = Some(status);
    build
}

fn ended(mut build: ImageBuild, phase: Phase) -> ImageBuild {
    if let Some(status) = &mut build.status {
        status.phase = Some(phase);
    }
    build
}

struct World {
    peers: Peers,
    woken: UnboundedReceiver<ObjectRef<Guarded>>,
}

impl World {
    fn new() -> Self {
        let (peers, woken) = Peers::new();
        Self { peers, woken }
    }

    fn show(&self, build: &ImageBuild) {
        self.peers
            .see(&watcher::Event::Apply(DeserializeGuard(Ok(build.clone()))));
    }

    fn delete(&self, build: &ImageBuild) {
        self.peers
            .see(&watcher::Event::Delete(DeserializeGuard(Ok(build.clone()))));
    }

    /// The state of the other's stage, if another has it.
    fn claim(&self, build: &ImageBuild) -> Option<(String, StageState)> {
        let mut others = self.peers.claim_stages(build, [("a-linux-amd64", "k")]);
        let stage = others.remove("k")?;
        Some((stage.build, stage.state))
    }

    fn woken(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(Some(name)) = futures::FutureExt::now_or_never(self.woken.next()) {
            names.push(name.name);
        }
        names
    }
}

fn other(name: &str, state: StageState) -> Option<(String, StageState)> {
    Some((name.to_owned(), state))
}

#[test]
fn of_two_builds_that_need_the_same_stage_one_makes_it_even_when_neither_status_says_so_yet() {
    let mut world = World::new();
    let (first, second) = (build("first", 1, None), build("second", 2, None));
    world.show(&first);
    world.show(&second);
    assert_eq!(world.claim(&first), None);
    assert_eq!(world.claim(&second), other("first", StageState::Waiting));
    assert_eq!(world.claim(&first), None, "its own claim stays its own");
    assert_eq!(world.woken(), [""; 0]);
}

#[test]
fn who_waits_for_a_stage_is_woken_when_it_changes_and_only_then() {
    let mut world = World::new();
    let (first, second) = (build("first", 1, None), build("second", 2, None));
    world.show(&first);
    world.show(&second);
    world.claim(&first);
    world.claim(&second);
    world.peers.wrote(&build("first", 3, Some(StageState::Running)));
    assert_eq!(world.woken(), ["second"]);
    // The watch shows the same a moment later, and then something older.
    world.show(&build("first", 3, Some(StageState::Running)));
    world.show(&build("first", 2, Some(StageState::Starting)));
    assert_eq!(world.woken(), [""; 0]);
    assert_eq!(world.claim(&second), other("first", StageState::Running));
    world.show(&build("first", 4, Some(StageState::Succeeded)));
    assert_eq!(world.woken(), ["second"]);
    assert_eq!(world.claim(&second), other("first", StageState::Succeeded));
}

#[test]
fn a_claim_passes_on_when_its_build_fails_ends_or_goes() {
    for how in ["failed", "superseded", "deleted", "relisted"] {
        let mut world = World::new();
        let (first, second) = (build("first", 1, None), build("second", 2, None));
        world.show(&first);
        world.show(&second);
        world.claim(&first);
        world.claim(&second);
        world.show(&build("first", 3, Some(StageState::Running)));
        world.woken();
        match how {
            "failed" => world.show(&ended(build("first", 4, Some(StageState::Failed)), Phase::Failed)),
            "superseded" => {
                let mut next = build("first", 4, None);
                next.status.as_mut().unwrap().runs = 2;
                world.show(&next);
            }
            "deleted" => world.delete(&first),
            _ => {
                world.peers.see(&watcher::Event::Init);
                world
                    .peers
                    .see(&watcher::Event::InitApply(DeserializeGuard(Ok(second.clone()))));
                world.peers.see(&watcher::Event::InitDone);
            }
        }
        assert_eq!(world.woken(), ["second"], "{how}");
        assert_eq!(world.claim(&second), None, "{how}: it is the second's now");
    }
}

#[test]
fn a_result_stays_known_for_those_who_wait_when_its_build_has_ended() {
    let mut world = World::new();
    let (first, second) = (build("first", 1, None), build("second", 2, None));
    world.show(&first);
    world.show(&second);
    world.claim(&first);
    world.claim(&second);
    world.show(&ended(
        build("first", 3, Some(StageState::Succeeded)),
        Phase::Succeeded,
    ));
    assert_eq!(world.woken(), ["second"]);
    world.delete(&first);
    assert_eq!(world.claim(&second), other("first", StageState::Succeeded));
    world.show(&ended(
        build("second", 4, Some(StageState::Succeeded)),
        Phase::Succeeded,
    ));
    assert!(world.peers.lock().claims.is_empty(), "nothing is kept for nobody");
}

#[test]
fn an_operator_that_begins_learns_who_makes_what_from_the_statuses() {
    let world = World::new();
    let second = build("second", 1, None);
    world.show(&second);
    world.show(&build("first", 2, Some(StageState::Running)));
    assert_eq!(world.claim(&second), other("first", StageState::Running));
}

#[test]
fn another_namespace_or_repository_is_another_result() {
    for far in [true, false] {
        let world = World::new();
        let first = build("first", 1, None);
        let mut second = build("second", 2, None);
        if far {
            second.metadata.namespace = Some("elsewhere".into());
        } else {
            second.spec.cache.repository = Some("r.example.com/other".into());
        }
        world.show(&first);
        world.show(&second);
        world.claim(&first);
        assert_eq!(world.claim(&second), None);
    }
}

#[test]
fn a_build_that_is_deleted_while_it_is_decided_claims_nothing() {
    let world = World::new();
    let first = build("first", 1, None);
    world.show(&first);
    world.delete(&first);
    assert_eq!(world.claim(&first), None);
    world.peers.wrote(&first);
    assert!(world.peers.lock().claims.is_empty() && world.peers.lock().builds.is_empty());
}
