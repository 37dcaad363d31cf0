//! The rules as tables, and what must hold whatever comes.

use ConcurrencyPolicy::{Allow, Latest, Queue};
use proptest::prelude::*;

use super::*;

/// A build, its uid its name.
fn build<'a>(namespace: &'a str, name: &'a str, ticket: i64) -> Candidate<'a> {
    Candidate {
        uid: name,
        namespace,
        name,
        group: None,
        running: false,
        ticket,
    }
}

fn grouped(name: &str, ticket: i64, policy: ConcurrencyPolicy) -> Candidate<'_> {
    Candidate {
        group: Some(("g", policy)),
        ..build("n", name, ticket)
    }
}

fn running(build: Candidate<'_>) -> Candidate<'_> {
    Candidate {
        running: true,
        ..build
    }
}

fn limits(max_running: u32, max_running_per_namespace: u32) -> Limits {
    Limits {
        max_running,
        max_running_per_namespace,
    }
}

/// Each answer in one word: `go`, `run`, `g1`, `m2`, `n3` for a place behind the group, all, the namespace, `>x` for
/// replaced.
fn words(builds: &[Candidate<'_>], limits: Limits) -> Vec<String> {
    admit(builds, &HashMap::new(), limits)
        .into_iter()
        .map(|answer| match answer {
            None => "run".to_owned(),
            Some(Admission::Go) => "go".to_owned(),
            Some(Admission::Replaced { by }) => format!(">{by}"),
            Some(Admission::Wait(Waiting { position, behind })) => match behind {
                Behind::Group { .. } => format!("g{position}"),
                Behind::MaxRunning(_) => format!("m{position}"),
                Behind::MaxRunningPerNamespace(_) => format!("n{position}"),
            },
        })
        .collect()
}

#[test]
fn without_group_and_limit_everybody_goes() {
    let builds = [
        running(build("n", "a", 1)),
        build("n", "b", 2),
        build("m", "c", 3),
    ];
    assert_eq!(words(&builds, Limits::default()), ["run", "go", "go"]);
}

#[test]
fn a_group_is_gone_through_one_by_one_in_the_order_of_asking() {
    let builds = [
        grouped("late", 9, Queue),
        grouped("early", 2, Queue),
        grouped("middle", 5, Latest),
    ];
    assert_eq!(words(&builds, Limits::default()), ["g3", "go", "g2"]);
    let builds = [
        running(grouped("runs", 1, Queue)),
        grouped("late", 9, Queue),
        grouped("early", 2, Queue),
    ];
    assert_eq!(words(&builds, Limits::default()), ["run", "g2", "g1"]);
    let answer = admit(&builds, &HashMap::new(), Limits::default()).remove(1);
    let Some(Admission::Wait(waiting)) = answer else {
        panic!("{answer:?}")
    };
    let expected = Behind::Group {
        group: "g".into(),
        build: "runs".into(),
    };
    assert_eq!(waiting.behind, expected);
}

#[test]
fn allow_waits_for_nobody_and_is_waited_for() {
    let builds = [
        running(grouped("a", 1, Queue)),
        grouped("b", 2, Allow),
        grouped("c", 3, Queue),
    ];
    assert_eq!(words(&builds, Limits::default()), ["run", "go", "g1"]);
    let builds = [running(grouped("a", 1, Allow)), grouped("b", 2, Queue)];
    assert_eq!(words(&builds, Limits::default()), ["run", "g1"]);
}

#[test]
fn the_newest_latest_replaces_those_that_wait_but_neither_the_running_nor_a_queued_one() {
    let builds = [
        running(grouped("a", 1, Latest)),
        grouped("b", 2, Latest),
        grouped("c", 3, Queue),
        grouped("d", 4, Latest),
        grouped("e", 5, Latest),
    ];
    assert_eq!(words(&builds, Limits::default()), ["run", ">e", "g1", ">e", "g2"]);
    // Also when nothing runs: of two that come at once the older would be of no use.
    let builds = [grouped("a", 1, Latest), grouped("b", 2, Latest)];
    assert_eq!(words(&builds, Limits::default()), [">b", "go"]);
}

#[test]
fn a_group_is_of_one_namespace() {
    let far = Candidate {
        namespace: "elsewhere",
        ..grouped("b", 2, Queue)
    };
    let builds = [running(grouped("a", 1, Queue)), far];
    assert_eq!(words(&builds, Limits::default()), ["run", "go"]);
}

#[test]
fn the_limits_hold_and_the_queue_has_an_order() {
    let builds = [
        running(build("n", "a", 1)),
        build("n", "b", 2),
        build("n", "c", 3),
        build("m", "d", 4),
        build("m", "e", 5),
    ];
    // The namespace that runs nothing goes first, then they alternate.
    assert_eq!(words(&builds, limits(2, 0)), ["run", "m1", "m3", "go", "m2"]);
    assert_eq!(words(&builds, limits(1, 0)), ["run", "m2", "m4", "m1", "m3"]);
    assert_eq!(words(&builds, limits(0, 1)), ["run", "n1", "n2", "go", "n1"]);
    assert_eq!(words(&builds, limits(3, 2)), ["run", "go", "n1", "go", "m1"]);
}

#[test]
fn of_namespaces_that_run_as_many_the_one_served_longest_ago_is_next() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let builds = [
        running(build("a", "a0", 1)),
        running(build("b", "b0", 2)),
        build("a", "a1", 3),
        build("b", "b1", 4),
        build("c", "c1", 5),
    ];
    let served = HashMap::from([("a".to_owned(), at(20)), ("b".to_owned(), at(10))]);
    let answers = admit(&builds, &served, limits(3, 0));
    let go: Vec<_> = builds
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| **answer == Some(Admission::Go))
        .map(|(build, _)| build.name)
        .collect();
    assert_eq!(go, ["c1"], "it runs nothing");
    let answers = admit(&builds[..4], &served, limits(3, 0));
    let waits = Admission::Wait(Waiting {
        position: 1,
        behind: Behind::MaxRunning(3),
    });
    assert_eq!((&answers[2], &answers[3]), (&Some(waits), &Some(Admission::Go)));
}

#[test]
fn the_head_of_a_group_waits_for_a_limit_like_everybody() {
    let builds = [
        running(build("n", "a", 1)),
        grouped("b", 2, Queue),
        grouped("c", 3, Queue),
    ];
    assert_eq!(words(&builds, limits(1, 0)), ["run", "m1", "g2"]);
}

/// What a simulation knows of a build.
#[derive(Debug, Clone)]
struct Sim {
    name: String,
    namespace: String,
    group: Option<(String, ConcurrencyPolicy)>,
    state: State,
    ticket: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Runs,
    Over,
}

#[derive(Default)]
struct World {
    builds: Vec<Sim>,
    served: HashMap<String, Timestamp>,
    limits: Limits,
    clock: i64,
    /// Names in the order in which they began.
    begun: Vec<String>,
}

impl World {
    fn arrive(&mut self, namespace: u8, group: Option<(u8, ConcurrencyPolicy)>) {
        self.clock += 1;
        self.builds.push(Sim {
            name: format!("b{}", self.clock),
            namespace: format!("n{namespace}"),
            group: group.map(|(group, policy)| (format!("g{group}"), policy)),
            state: State::Waits,
            ticket: self.clock,
        });
        self.settle();
    }

    fn finish(&mut self, which: usize) {
        let mut running: Vec<_> = self
            .builds
            .iter_mut()
            .filter(|build| build.state == State::Runs)
            .collect();
        if !running.is_empty() {
            let which = which % running.len();
            running[which].state = State::Over;
        }
        self.settle();
    }

    fn answers(&self) -> Vec<(usize, Option<Admission>)> {
        let alive: Vec<_> = self
            .builds
            .iter()
            .enumerate()
            .filter(|(_, build)| build.state != State::Over)
            .collect();
        let candidates: Vec<_> = alive
            .iter()
            .map(|(_, build)| Candidate {
                uid: &build.name,
                namespace: &build.namespace,
                name: &build.name,
                group: build
                    .group
                    .as_ref()
                    .map(|(name, policy)| (name.as_str(), *policy)),
                running: build.state == State::Runs,
                ticket: build.ticket,
            })
            .collect();
        let answers = admit(&candidates, &self.served, self.limits);
        alive.into_iter().map(|(index, _)| index).zip(answers).collect()
    }

    /// Does what the answers say, and checks what must always hold.
    fn settle(&mut self) {
        for (index, answer) in self.answers() {
            match answer {
                Some(Admission::Go) => {
                    self.clock += 1;
                    let build = &mut self.builds[index];
                    build.state = State::Runs;
                    self.begun.push(build.name.clone());
                    self.served.insert(
                        build.namespace.clone(),
                        Timestamp::from_second(self.clock).unwrap(),
                    );
                }
                Some(Admission::Replaced { by }) => {
                    let newer = self.builds.iter().find(|build| build.name == by).unwrap().clone();
                    let build = &mut self.builds[index];
                    assert!(newer.ticket > build.ticket && newer.group == build.group);
                    assert_eq!(build.group.as_ref().unwrap().1, Latest);
                    build.state = State::Over;
                }
                Some(Admission::Wait(_)) | None => {}
            }
        }
        let go_again = self
            .answers()
            .iter()
            .any(|(_, answer)| *answer == Some(Admission::Go));
        assert!(!go_again, "a place was left free");
        let runs = |which: &dyn Fn(&Sim) -> bool| {
            self.builds
                .iter()
                .filter(|build| build.state == State::Runs && which(build))
                .count()
        };
        let within = |count: usize, limit: u32| limit == 0 || count <= limit as usize;
        assert!(within(runs(&|_| true), self.limits.max_running));
        for build in &self.builds {
            let here = |other: &Sim| other.namespace == build.namespace;
            assert!(within(runs(&here), self.limits.max_running_per_namespace));
            if let Some((group, _)) = build.group.as_ref().filter(|(_, policy)| *policy != Allow) {
                let beside = |other: &Sim| {
                    here(other)
                        && other
                            .group
                            .as_ref()
                            .is_some_and(|(name, policy)| name == group && *policy != Allow)
                };
                assert!(runs(&beside) <= 1, "two of group {group} at a time");
            }
        }
    }
}

fn policy() -> impl Strategy<Value = ConcurrencyPolicy> {
    prop_oneof![Just(Allow), Just(Queue), Just(Latest)]
}

proptest! {
    #[test]
    fn whatever_comes_the_limits_hold_no_place_is_left_free_and_everybody_has_a_turn(
        max_running in 0_u32..5,
        per_namespace in 0_u32..4,
        steps in prop::collection::vec(
            (any::<bool>(), 0_u8..4, prop::option::of((0_u8..3, policy())), any::<usize>()),
            1..80,
        ),
    ) {
        let mut world = World { limits: limits(max_running, per_namespace), ..World::default() };
        for (arrives, namespace, group, which) in steps {
            if arrives {
                world.arrive(namespace, group);
            } else {
                world.finish(which);
            }
        }
        for _ in 0..world.builds.len() {
            world.finish(0);
        }
        prop_assert!(world.builds.iter().all(|build| build.state == State::Over), "{:?}", world.builds);
        // Of those of a group that wait for each other none overtakes another.
        let began = |build: &Sim| world.begun.iter().position(|name| *name == build.name);
        for (index, first) in world.builds.iter().enumerate() {
            for second in world.builds.iter().skip(index + 1) {
                let ordered = first.group.is_some() && first.group.as_ref().map(|(name, _)| name)
                    == second.group.as_ref().map(|(name, _)| name)
                    && first.namespace == second.namespace
                    && [first, second].iter().all(|build| build.group.as_ref().is_some_and(|(_, policy)| *policy != Allow));
                if let (true, Some(a), Some(b)) = (ordered, began(first), began(second)) {
                    prop_assert!(a < b, "{} overtook {}", second.name, first.name);
                }
            }
        }
    }

    #[test]
    fn the_order_in_which_builds_are_listed_changes_nothing(
        builds in prop::collection::vec((0_u8..3, prop::option::of((0_u8..2, policy())), any::<bool>()), 0..30),
        max_running in 0_u32..5,
        per_namespace in 0_u32..3,
        seed in any::<u64>(),
    ) {
        let named: Vec<_> = builds.iter().enumerate().map(|(index, (namespace, group, running))| {
            (format!("b{index}"), format!("n{namespace}"), group.map(|(group, policy)| (format!("g{group}"), policy)), *running, index)
        }).collect();
        let candidates: Vec<_> = named.iter().map(|(name, namespace, group, running, index)| Candidate {
            uid: name,
            namespace,
            name,
            group: group.as_ref().map(|(name, policy)| (name.as_str(), *policy)),
            running: *running,
            // Some are equal: then the uid decides.
            ticket: i64::try_from(index / 2).unwrap(),
        }).collect();
        let mut shuffled = candidates.clone();
        shuffled.sort_by_key(|build| {
            use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
            BuildHasherDefault::<DefaultHasher>::default().hash_one((seed, build.uid))
        });
        let limits = limits(max_running, per_namespace);
        let by_uid = |builds: &[Candidate<'_>]| {
            let answers = admit(builds, &HashMap::new(), limits);
            builds.iter().map(|build| build.uid.to_owned()).zip(answers).collect::<std::collections::BTreeMap<_, _>>()
        };
        prop_assert_eq!(by_uid(&candidates), by_uid(&shuffled));
    }
}

#[test]
fn a_namespace_with_an_endless_backlog_leaves_the_others_their_turns() {
    let mut world = World {
        limits: limits(1, 0),
        ..World::default()
    };
    for _ in 0..50 {
        world.arrive(0, None);
    }
    for _ in 0..10 {
        world.arrive(1, None);
        world.arrive(2, None);
    }
    for _ in 0..30 {
        // The first namespace never stops asking.
        world.arrive(0, None);
        world.finish(0);
    }
    let namespaces: Vec<&str> = world.begun[1..]
        .iter()
        .map(|name| {
            let build = world.builds.iter().find(|build| build.name == *name).unwrap();
            build.namespace.as_str()
        })
        .collect();
    for three in namespaces[..27].chunks(3) {
        let mut three = three.to_vec();
        three.sort_unstable();
        assert_eq!(three, ["n0", "n1", "n2"]);
    }
}
