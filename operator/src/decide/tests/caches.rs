//! Cache mounts: who gets which claim, who waits, and that nobody waits for ever.

use slipway_plan::{
    Sharing::{self, Locked, Private, Shared},
    protocol::{ScheduledCache, ScheduledStage},
};

use super::*;
use crate::claims::{Caches, Grant, Use, Waiter, Which};

fn caching(name: &str, needs: &[usize], caches: &[(&str, Sharing)]) -> ScheduledStage {
    ScheduledStage {
        caches: caches
            .iter()
            .map(|(id, sharing)| ScheduledCache {
                id: (*id).to_owned(),
                sharing: *sharing,
            })
            .collect(),
        ..stage(name, needs)
    }
}

/// A stage that reads from `needs` only after its first step.
fn late(stage: ScheduledStage) -> ScheduledStage {
    ScheduledStage {
        start_after: Vec::new(),
        ..stage
    }
}

fn which(id: &str, number: u32) -> Which {
    Which {
        id: id.into(),
        architecture: "amd64".into(),
        number,
    }
}

fn used(id: &str, number: u32, sharing: Sharing) -> Use {
    Use {
        claim: which(id, number).name(),
        sharing,
        build: "other".into(),
        pod: "other-1-a-1".into(),
    }
}

fn waiter(second: i64, locked: &[&str]) -> Waiter {
    Waiter {
        namespace: "team".into(),
        name: "elder".into(),
        since: (at(second), "uid-0".into()),
        locked: locked.iter().map(|id| which(id, 0).name()).collect(),
    }
}

/// Of each claim: id, number, and whether others are there.
type Claims = Vec<(String, u32, bool)>;

/// By stage, the claims that it is started with.
fn started(decision: &Decision) -> Vec<(usize, Claims)> {
    decision
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::StartStage { stage, claims, .. } => {
                let claim = |grant: &Grant| (grant.which.id.clone(), grant.which.number, grant.joins);
                Some((*stage, claims.iter().map(claim).collect()))
            }
            _ => None,
        })
        .collect()
}

fn one(number: u32, joins: bool) -> Claims {
    vec![("/c".into(), number, joins)]
}

fn world(caches: Caches, stages: Vec<ScheduledStage>) -> World {
    let mut world = World::planned(schedule(stages));
    world.build.metadata.creation_timestamp = Some(Time(at(0)));
    world.facts.caches = caches;
    world
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn a_claim_is_given_by_the_sharing_and_by_who_uses_it() {
    let long_ago = waiter(-10, &["/c"]);
    let later = waiter(10, &["/c"]);
    for (name, sharing, uses, waiters, expected) in [
        ("free", Shared, vec![], vec![], Some(one(0, false))),
        ("free", Locked, vec![], vec![], Some(one(0, false))),
        ("free", Private, vec![], vec![], Some(one(1, false))),
        (
            "shared",
            Shared,
            vec![used("/c", 0, Shared)],
            vec![],
            Some(one(0, true)),
        ),
        ("shared", Locked, vec![used("/c", 0, Shared)], vec![], None),
        (
            "shared",
            Private,
            vec![used("/c", 0, Shared)],
            vec![],
            Some(one(1, false)),
        ),
        ("locked", Shared, vec![used("/c", 0, Locked)], vec![], None),
        ("locked", Locked, vec![used("/c", 0, Locked)], vec![], None),
        (
            "locked",
            Private,
            vec![used("/c", 0, Locked)],
            vec![],
            Some(one(1, false)),
        ),
        (
            "private",
            Shared,
            vec![used("/c", 1, Private)],
            vec![],
            Some(one(0, false)),
        ),
        (
            "private",
            Locked,
            vec![used("/c", 1, Private)],
            vec![],
            Some(one(0, false)),
        ),
        (
            "a gap",
            Private,
            vec![used("/c", 1, Private), used("/c", 3, Private)],
            vec![],
            Some(one(2, false)),
        ),
        (
            "another id",
            Locked,
            vec![used("/d", 0, Locked)],
            vec![],
            Some(one(0, false)),
        ),
        ("an older one waits", Locked, vec![], vec![long_ago.clone()], None),
        (
            "a younger one waits",
            Locked,
            vec![],
            vec![later],
            Some(one(0, false)),
        ),
        // It would wait behind one that waits for pods, and they perhaps for it.
        (
            "an older one waits",
            Shared,
            vec![],
            vec![long_ago.clone()],
            Some(one(0, false)),
        ),
        (
            "an older one waits",
            Private,
            vec![],
            vec![long_ago],
            Some(one(1, false)),
        ),
    ] {
        let caches = Caches {
            uses,
            waiters,
            no_class: false,
        };
        let decision = world(caches, vec![caching("app", &[], &[("/c", sharing)])]).decide();
        let started = started(&decision);
        assert_eq!(
            started.first().map(|(_, claims)| claims.clone()),
            expected,
            "{name}: {sharing:?}"
        );
        if expected.is_none() {
            assert_eq!(states(&decision), [StageState::Waiting], "{name}: {sharing:?}");
            assert_eq!(
                condition(&decision, conditions::READY),
                ("Unknown", reasons::CACHE_MOUNT_IN_USE),
                "{name}: {sharing:?}"
            );
            assert_eq!(decision.again, Some(Duration::from_secs(10)));
        }
        assert_eq!(decision.waits.is_some(), expected.is_none());
    }
}

#[test]
fn whom_a_stage_waits_for_is_told() {
    let caches = Caches {
        uses: vec![used("/c", 0, Locked)],
        ..Caches::default()
    };
    let decision = world(caches, vec![caching("app", &[], &[("/c", Locked)])]).decide();
    let ready = conditions::get(&decision.status.conditions, conditions::READY).unwrap();
    assert_eq!(
        ready.message,
        "stage app (linux/amd64) waits for the cache mount /c: pod other-1-a-1 of ImageBuild other uses it"
    );
    assert_eq!(
        decision.waits.unwrap().into_iter().collect::<Vec<_>>(),
        [which("/c", 0).name()]
    );
}

#[test]
fn claims_are_for_one_architecture() {
    let mut stage = caching("app", &[], &[("/c", Locked)]);
    stage.platform = "linux/arm/v7".parse().unwrap();
    let caches = Caches {
        uses: vec![used("/c", 0, Locked)],
        ..Caches::default()
    };
    let decision = world(caches, vec![stage]).decide();
    let Action::StartStage { claims, .. } = &decision.actions[0] else {
        panic!("{:?}", decision.actions)
    };
    assert_eq!(claims[0].which.architecture, "arm-v7");
}

#[test]
fn a_stage_gets_all_of_its_claims_or_none() {
    let caches = Caches {
        uses: vec![used("/d", 0, Locked)],
        ..Caches::default()
    };
    let both = [("/c", Locked), ("/d", Shared)];
    let stages = vec![
        caching("a", &[], &both),
        caching("b", &[], &[("/c", Locked)]),
        caching("c", &[], &[("/e", Shared)]),
        stage("end", &[0, 1, 2]),
    ];
    let decision = world(caches, stages).decide();
    // `a` waits for `/d`, and so it does not keep `/c` from `b`.
    assert_eq!(
        started(&decision),
        [(1, one(0, false)), (2, vec![("/e".into(), 0, false)])]
    );
}

#[test]
fn stages_that_start_together_see_each_other() {
    for (sharing, expected) in [
        (Shared, vec![(0, one(0, false)), (1, one(0, true))]),
        (Locked, vec![(0, one(0, false))]),
        (Private, vec![(0, one(1, false)), (1, one(2, false))]),
    ] {
        let stages = vec![
            caching("a", &[], &[("/c", sharing)]),
            caching("b", &[], &[("/c", sharing)]),
            stage("end", &[0, 1]),
        ];
        let decision = world(Caches::default(), stages).decide();
        assert_eq!(started(&decision), expected, "{sharing:?}");
    }
}

#[test]
fn two_mounts_of_one_id_are_no_hindrance_to_each_other() {
    let stages = vec![caching("a", &[], &[("/c", Shared), ("/c", Locked)])];
    let decision = world(Caches::default(), stages).decide();
    let both = vec![("/c".into(), 0, false), ("/c".into(), 0, false)];
    assert_eq!(started(&decision), [(0, both)]);
}

#[test]
fn a_stage_that_would_wait_inside_its_pod_while_others_wait_for_it_starts_later() {
    let base = |caches: &[(&str, Sharing)]| caching("base", &[], caches);
    let between = || late(stage("between", &[0]));
    let app = |caches: &[(&str, Sharing)]| late(caching("app", &[1], caches));
    for (name, base, app, starts) in [
        ("without caches", base(&[]), app(&[]), true),
        ("one that locks", base(&[]), app(&[("/c", Locked)]), false),
        (
            "one that shares, and nobody locks",
            base(&[("/c", Shared)]),
            app(&[("/c", Shared)]),
            true,
        ),
        (
            "one that shares, and waits in the end for one that locks",
            base(&[("/d", Locked)]),
            app(&[("/c", Shared)]),
            false,
        ),
        (
            "one with a copy of its own",
            base(&[("/d", Locked)]),
            app(&[("/c", Private)]),
            true,
        ),
    ] {
        let mut world = world(Caches::default(), vec![base.clone(), between(), app.clone()]);
        let decision = world.step();
        let begun = started(&decision).iter().any(|(stage, _)| *stage == 2);
        assert_eq!(begun, starts, "{name}");
        if starts {
            continue;
        }
        // And it does start once what it would have waited for is done.
        world.pods = vec![
            stage_pod("base", 1, finished(1)),
            stage_pod("between", 1, finished(2)),
        ];
        let decision = world.step();
        let begins = started(&decision).iter().any(|(stage, _)| *stage == 2);
        assert!(begins, "{name}, later");
    }
}

#[test]
fn an_attempt_takes_claims_anew() {
    let mut world = world(Caches::default(), vec![caching("app", &[], &[("/c", Locked)])]);
    world.step();
    world.pods = vec![stage_pod("app", 1, failed("PodEvicted", true, 8))];
    world.facts.caches.uses = vec![used("/c", 0, Locked)];
    let decision = world.step();
    assert_eq!(started(&decision), []);
    assert!(decision.waits.is_some());
    world.facts.caches.uses.clear();
    assert_eq!(started(&world.step()), [(0, one(0, false))]);
}

#[test]
fn one_that_fails_waits_for_nothing() {
    let caches = Caches {
        uses: vec![used("/c", 0, Locked)],
        ..Caches::default()
    };
    let stages = vec![
        caching("a", &[], &[("/c", Locked)]),
        stage("b", &[]),
        stage("end", &[0, 1]),
    ];
    let mut world = world(caches, stages);
    assert!(world.step().waits.is_some());
    world.pods = vec![stage_pod("b", 1, failed("StepFailed", false, 8))];
    let decision = world.step();
    assert_eq!(decision.status.phase, Some(Phase::Failed));
    assert_eq!(decision.waits, None);
}

#[test]
fn without_a_storage_class_a_build_goes_on_and_says_what_is_lost() {
    let caches = Caches {
        uses: vec![used("/c", 0, Locked)],
        waiters: Vec::new(),
        no_class: true,
    };
    let mut world = world(caches, vec![caching("app", &[], &[("/c", Locked)])]);
    let decision = world.step();
    assert_eq!(started(&decision), [(0, vec![])]);
    assert_eq!(
        condition(&decision, conditions::CACHE_MOUNTS_KEPT),
        ("False", reasons::NO_STORAGE_CLASS)
    );
    assert!(turns(&decision).contains(&reasons::NO_STORAGE_CLASS));
    let again = world.step();
    assert!(!turns(&again).contains(&reasons::NO_STORAGE_CLASS), "told once");
    world.facts.caches.no_class = false;
    let healed = world.step();
    assert_eq!(condition(&healed, conditions::CACHE_MOUNTS_KEPT).0, "True");
}

#[test]
fn a_build_without_cache_mounts_says_nothing_of_them() {
    let decision = World::planned(schedule(vec![stage("app", &[])])).decide();
    assert!(conditions::get(&decision.status.conditions, conditions::CACHE_MOUNTS_KEPT).is_none());
}

#[test]
fn cache_mounts_that_no_volume_can_be_made_for_are_refused() {
    let long = "x".repeat(1025);
    let many: Vec<String> = (0..33).map(|n| format!("/{n}")).collect();
    let many: Vec<(&str, Sharing)> = many.iter().map(|id| (id.as_str(), Shared)).collect();
    for (caches, part) in [
        (vec![(long.as_str(), Shared)], "longer than 1024 bytes"),
        (vec![("a\nb", Shared)], "control characters"),
        (vec![("/c", Shared), ("/c", Shared)], "twice"),
        (many, "33 different cache mounts; the limit is 32"),
    ] {
        let decision = World::planned(schedule(vec![caching("app", &[], &caches)])).decide();
        assert_failed(&decision, reasons::INTERNAL, conditions::PLANNED);
        let message = decision.status.failure.unwrap().message;
        assert!(message.contains(part), "{message}");
    }
}
