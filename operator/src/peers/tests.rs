//! What the builds know of each other, and who is woken.

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use slipway_crd::{Phase, QueueStatus, StageState, StageStatus};

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
        Self::with(Settings {
            keep_pods_of: 50,
            ..Settings::default()
        })
    }

    fn with(settings: Settings) -> Self {
        let (peers, woken) = Peers::new(settings);
        Self { peers, woken }
    }

    /// `go`, the place in the queue, `>NAME` if replaced by it, `?` if the build is not known.
    fn asks(&self, build: &ImageBuild) -> String {
        match self.peers.may_begin(build, fixtures::at(0)) {
            None => "?".to_owned(),
            Some(Admission::Go) => "go".to_owned(),
            Some(Admission::Wait(waiting)) => waiting.position.to_string(),
            Some(Admission::Replaced { by }) => format!(">{by}"),
        }
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

fn other(name: &str, state: StageState) -> (String, StageState) {
    (name.to_owned(), state)
}

#[test]
fn of_two_builds_that_need_the_same_stage_one_makes_it_even_when_neither_status_says_so_yet() {
    let mut world = World::new();
    let (first, second) = (build("first", 1, None), build("second", 2, None));
    world.show(&first);
    world.show(&second);
    assert_eq!(world.claim(&first), None);
    assert_eq!(world.claim(&second), Some(other("first", StageState::Waiting)));
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
    assert_eq!(world.claim(&second), Some(other("first", StageState::Running)));
    world.show(&build("first", 4, Some(StageState::Succeeded)));
    assert_eq!(world.woken(), ["second"]);
    assert_eq!(world.claim(&second), Some(other("first", StageState::Succeeded)));
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
    assert_eq!(world.claim(&second), Some(other("first", StageState::Succeeded)));
    world.show(&ended(
        build("second", 4, Some(StageState::Succeeded)),
        Phase::Succeeded,
    ));
    assert!(
        world.peers.lock().claims().is_empty(),
        "nothing is kept for nobody"
    );
}

#[test]
fn an_operator_that_begins_learns_who_makes_what_from_the_statuses() {
    let world = World::new();
    let second = build("second", 1, None);
    world.show(&second);
    world.show(&build("first", 2, Some(StageState::Running)));
    assert_eq!(world.claim(&second), Some(other("first", StageState::Running)));
}

#[test]
fn another_namespace_repository_or_scope_is_another_result() {
    for how in ["namespace", "repository", "scope"] {
        let world = World::new();
        let first = build("first", 1, None);
        let mut second = build("second", 2, None);
        match how {
            "namespace" => second.metadata.namespace = Some("elsewhere".into()),
            "repository" => second.spec.cache.repository = Some("r.example.com/other".into()),
            _ => second.spec.cache.scope = Some("untrusted".into()),
        }
        world.show(&first);
        world.show(&second);
        world.claim(&first);
        assert_eq!(world.claim(&second), None, "{how}");
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
    assert!(world.peers.lock().is_empty());
}

/// A build of the group `main` that nobody has looked at.
fn queued(name: &str, version: u64, policy: &str) -> ImageBuild {
    let mut build = build(name, version, None);
    build.status = None;
    build.spec.concurrency =
        serde_json::from_value(json!({"group": "main", "policy": policy, "successfulHistoryLimit": 2}))
            .unwrap();
    build
}

/// Its status says that it runs.
fn runs(mut build: ImageBuild, version: u64) -> ImageBuild {
    build.metadata.resource_version = Some(version.to_string());
    build.status = Some(fixtures::status(Phase::Planning));
    build
}

/// Its status says that it has ended, at this second.
fn over(mut build: ImageBuild, version: u64, phase: Phase, second: i64) -> ImageBuild {
    build.metadata.resource_version = Some(version.to_string());
    let mut status = fixtures::status(phase);
    status.run.as_mut().unwrap().finished_at = Some(Time(fixtures::at(second)));
    build.status = Some(status);
    build
}

#[test]
fn of_two_that_ask_at_the_same_moment_one_goes_although_no_status_says_so_yet() {
    for policy in ["Queue", "Latest"] {
        let mut world = World::new();
        let (first, second) = (queued("first", 1, policy), queued("second", 2, policy));
        world.show(&first);
        assert_eq!(world.asks(&first), "go");
        world.show(&second);
        assert_eq!(world.asks(&second), "1", "{policy}");
        assert_eq!(world.asks(&first), "go", "it has its place");
        world.show(&runs(first.clone(), 3));
        assert_eq!(world.woken(), [""; 0]);
        world.peers.wrote(&over(first, 4, Phase::Succeeded, 9));
        assert_eq!(world.woken(), ["second"], "{policy}");
        assert_eq!(world.asks(&second), "go");
    }
}

#[test]
fn who_came_first_goes_first_whoever_asks_first() {
    let mut world = World::new();
    let builds: Vec<_> = (1..=3).map(|n| queued(&format!("b{n}"), n, "Queue")).collect();
    for build in builds.iter().rev() {
        world.show(build);
    }
    assert_eq!(world.asks(&builds[2]), "3");
    assert_eq!(world.woken(), ["b1"], "nobody has told it yet that it may go");
    assert_eq!(world.asks(&builds[1]), "2");
    assert_eq!(world.asks(&builds[0]), "go");
    // The others have moved up.
    assert_eq!(world.asks(&builds[1]), "1");
    let mut moved = world.woken();
    moved.sort();
    assert_eq!(moved, ["b3"]);
}

#[test]
fn the_newest_replaces_those_that_wait_and_they_are_told() {
    let mut world = World::new();
    let builds: Vec<_> = (1..=3).map(|n| queued(&format!("b{n}"), n, "Latest")).collect();
    world.show(&builds[0]);
    assert_eq!(world.asks(&builds[0]), "go");
    world.show(&builds[1]);
    assert_eq!(world.asks(&builds[1]), "1");
    world.show(&builds[2]);
    assert_eq!(world.asks(&builds[2]), "1");
    assert_eq!(world.woken(), ["b2"]);
    assert_eq!(world.asks(&builds[1]), ">b3");
    world
        .peers
        .wrote(&over(builds[1].clone(), 9, Phase::Cancelled, 9));
    assert_eq!(world.asks(&builds[2]), "1");
}

#[test]
fn a_restarted_operator_finds_the_same_order_and_the_same_running_one() {
    let world = World::new();
    let running = runs(queued("running", 1, "Queue"), 30);
    // Its place in the queue is older than what was last written of it.
    let mut first = queued("first", 40, "Queue");
    let mut status = fixtures::status(Phase::Pending);
    status.run = None;
    status.queue = Some(QueueStatus {
        position: 1,
        group: Some("main".into()),
        limit: None,
        since: Time(fixtures::at(0)),
        ticket: 5,
    });
    first.status = Some(status);
    let second = queued("second", 20, "Queue");
    for build in [&second, &first, &running] {
        world
            .peers
            .see(&watcher::Event::InitApply(DeserializeGuard(Ok(build.clone()))));
    }
    assert_eq!(world.asks(&second), "2");
    assert_eq!(world.asks(&first), "1");
}

#[test]
fn a_place_is_free_again_when_its_build_is_deleted_stopped_or_leaves_the_group() {
    for how in ["deleted", "suspended", "regrouped", "fails"] {
        let mut world = World::new();
        let (first, second) = (queued("first", 1, "Queue"), queued("second", 2, "Queue"));
        world.show(&first);
        world.show(&second);
        world.asks(&first);
        world.asks(&second);
        world.woken();
        match how {
            "deleted" => world.delete(&first),
            "suspended" => {
                let mut first = queued("first", 3, "Queue");
                first.spec.suspend = true;
                world.show(&first);
            }
            "regrouped" => {
                let mut first = runs(first, 3);
                first.spec.concurrency.as_mut().unwrap().group = "other".into();
                world.show(&first);
            }
            _ => world.show(&over(first, 3, Phase::Failed, 3)),
        }
        assert_eq!(world.woken(), ["second"], "{how}");
        assert_eq!(world.asks(&second), "go", "{how}");
    }
}

#[test]
fn a_build_that_begins_because_an_input_appeared_waits_for_its_turn() {
    let mut world = World::new();
    let first = queued("first", 1, "Queue");
    world.show(&first);
    assert_eq!(world.asks(&first), "go");
    // Nothing of its status says that it wants to begin.
    let waits = over(queued("second", 2, "Queue"), 2, Phase::Failed, 2);
    world.show(&waits);
    assert_eq!(world.asks(&waits), "1");
    world.show(&over(first, 3, Phase::Succeeded, 3));
    assert_eq!(world.woken(), ["second"]);
    assert_eq!(world.asks(&waits), "go");
    assert_eq!(world.asks(&waits), "go", "until it is written down");
}

#[test]
fn without_group_and_limit_nothing_is_kept_of_who_runs() {
    let world = World::new();
    let mut first = queued("first", 1, "Queue");
    first.spec.concurrency = None;
    assert_eq!(world.asks(&first), "?", "deleted, or not shown yet");
    world.show(&first);
    assert_eq!(world.asks(&first), "go");
    world.show(&runs(first.clone(), 2));
    world.delete(&first);
    assert!(world.peers.lock().is_empty());
}

#[test]
fn hundreds_of_builds_in_a_queue_go_one_by_one_and_few_are_woken_at_each_step() {
    let mut world = World::with(Settings {
        limits: Limits {
            max_running: 10,
            max_running_per_namespace: 0,
        },
        keep_pods_of: 50,
        ..Settings::default()
    });
    let mut waiting: Vec<_> = (0..300_u64)
        .map(|n| {
            let mut build = queued(&format!("b{n}"), n + 1, "Allow");
            build.spec.concurrency = None;
            build.metadata.namespace = Some(format!("n{}", n % 7));
            world.show(&build);
            build
        })
        .collect();
    let mut running = Vec::new();
    let mut version = 1000;
    while !(waiting.is_empty() && running.is_empty()) {
        waiting.retain(|build| {
            let goes = running.len() < 10 && world.asks(build) == "go";
            if goes {
                running.push(build.clone());
            }
            !goes
        });
        assert!(running.len() == 10 || waiting.is_empty());
        let first = running.remove(0);
        version += 1;
        world.woken();
        world.show(&over(first, version, Phase::Succeeded, 1));
        let woken = world.woken();
        assert!(
            woken.len() <= 25 && (waiting.is_empty() || !woken.is_empty()),
            "{}",
            woken.len()
        );
    }
}

#[test]
fn those_that_ended_since_are_counted_and_who_is_one_too_many_is_told() {
    let mut world = World::with(Settings {
        keep_pods_of: 3,
        ..Settings::default()
    });
    let builds: Vec<_> = (1..=4_u64)
        .map(|n| {
            over(
                queued(&format!("b{n}"), n, "Allow"),
                n,
                Phase::Succeeded,
                n as i64,
            )
        })
        .collect();
    let newer = |world: &World, index: usize| {
        let newer = world.peers.newer(&builds[index]);
        (newer.in_group, newer.in_namespace)
    };
    world.show(&builds[0]);
    world.show(&over(queued("bad", 9, "Allow"), 9, Phase::Failed, 2));
    world.show(&builds[1]);
    assert_eq!(newer(&world, 0), (1, 2), "a failure is counted apart");
    assert_eq!(world.woken(), [""; 0]);
    // Two newer ones of the group are its limit, three of the namespace keep their pods.
    world.show(&builds[2]);
    assert_eq!(world.woken(), ["b1"]);
    assert_eq!(newer(&world, 0), (2, 3));
    world.show(&builds[3]);
    assert_eq!(world.woken(), ["b2"]);
    world.show(&builds[3]);
    assert_eq!(world.woken(), [""; 0], "once");
    world.delete(&builds[3]);
    assert_eq!(newer(&world, 0), (2, 3));
    for build in &builds {
        world.delete(build);
    }
    world.delete(&queued("bad", 9, "Allow"));
    assert!(world.peers.lock().is_empty());
}
