//! Who may begin: concurrency groups, limits, and fairness between namespaces. Pure.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_crd::ConcurrencyPolicy;

/// How many builds may run at the same time; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// In all that this operator watches.
    #[serde(default)]
    pub max_running: u32,
    /// In each namespace.
    #[serde(default)]
    pub max_running_per_namespace: u32,
}

impl Limits {
    /// Whether there are any.
    pub const fn any(self) -> bool {
        self.max_running > 0 || self.max_running_per_namespace > 0
    }
}

/// A build that runs or wants to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    /// Tells builds apart.
    pub uid: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its concurrency group, and what it does while another of it runs.
    pub group: Option<(&'a str, ConcurrencyPolicy)>,
    /// It runs.
    pub running: bool,
    /// The smaller, the earlier it was asked for.
    pub ticket: i64,
}

/// Whether a build may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Go,
    /// Others go first.
    Wait(Waiting),
    /// Never: a newer build of its group has taken its place.
    Replaced {
        /// The name of that build.
        by: String,
    },
}

/// A place in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// 1 for the next.
    pub position: u32,
    /// What it waits for.
    pub behind: Behind,
}

/// What a build waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// Another build of its group.
    Group {
        /// The group.
        group: String,
        /// The name of the one that runs, or is the next to run.
        build: String,
    },
    /// So many builds run in all.
    MaxRunning(u32),
    /// So many builds run in its namespace.
    MaxRunningPerNamespace(u32),
}

#[derive(Default)]
struct Group<'a> {
    running: Option<&'a str>,
    queue: Vec<usize>,
    /// The newest of those that wait with the policy `Latest`.
    newest: Option<usize>,
}

/// Says of each build whether it may begin; nothing of those that run. `served` has when a build of a namespace began last.
///
/// 1. In a group, those of policy `Queue` and `Latest` wait while any of the group runs, and go one by one in the order in
///    which they were asked for; of those that wait with `Latest` all but the newest are replaced.
/// 2. While the limits have room, the next is of the namespace that has the fewest running; of several such the one that
///    was served longest ago; and of that namespace the one that was asked for first.
///
/// Whoever is at the head of a group's queue goes by the second rule like everybody else.
pub(super) fn admit(
    builds: &[Candidate<'_>],
    served: &HashMap<String, Timestamp>,
    limits: Limits,
) -> Vec<Option<Admission>> {
    let mut answers = vec![None; builds.len()];
    let ready = by_group(builds, &mut answers);
    if limits.any() {
        by_limit(builds, ready, served, limits, &mut answers);
    } else {
        for index in ready {
            answer(&mut answers, index, Admission::Go);
        }
    }
    answers
}

fn answer(answers: &mut [Option<Admission>], index: usize, admission: Admission) {
    if let Some(place) = answers.get_mut(index) {
        *place = Some(admission);
    }
}

fn wait(answers: &mut [Option<Admission>], index: usize, position: usize, behind: Behind) {
    let position = u32::try_from(position).unwrap_or(u32::MAX);
    answer(answers, index, Admission::Wait(Waiting { position, behind }));
}

/// Answers those that their group holds back; gives the others, in the order in which they were asked for.
fn by_group(builds: &[Candidate<'_>], answers: &mut [Option<Admission>]) -> Vec<usize> {
    let mut waiting: Vec<(usize, &Candidate<'_>)> = builds
        .iter()
        .enumerate()
        .filter(|(_, build)| !build.running)
        .collect();
    waiting.sort_by_key(|(_, build)| (build.ticket, build.uid));
    let mut groups: HashMap<(&str, &str), Group<'_>> = HashMap::new();
    for build in builds.iter().filter(|build| build.running) {
        if let Some((name, _)) = build.group {
            let group = groups.entry((build.namespace, name)).or_default();
            // The same of several whatever the order in which they come.
            group.running = Some(group.running.map_or(build.name, |other| other.min(build.name)));
        }
    }
    let mut ready = Vec::new();
    for &(index, build) in &waiting {
        let Some((name, policy)) = build
            .group
            .filter(|(_, policy)| *policy != ConcurrencyPolicy::Allow)
        else {
            ready.push(index);
            continue;
        };
        let group = groups.entry((build.namespace, name)).or_default();
        group.queue.push(index);
        if policy == ConcurrencyPolicy::Latest {
            group.newest = Some(index);
        }
    }
    let named = |index: usize| builds.get(index).map_or("", |build| build.name);
    let is_latest = |index: usize| {
        builds
            .get(index)
            .and_then(|build| build.group)
            .is_some_and(|(_, policy)| policy == ConcurrencyPolicy::Latest)
    };
    for ((_, name), group) in groups {
        let mut queue = group.queue;
        if let Some(newest) = group.newest {
            queue.retain(|&index| {
                let stays = index == newest || !is_latest(index);
                if !stays {
                    let by = named(newest).to_owned();
                    answer(answers, index, Admission::Replaced { by });
                }
                stays
            });
        }
        let mut places = queue.iter().copied().enumerate();
        if group.running.is_none() {
            ready.extend(places.next().map(|(_, index)| index));
        }
        let first = group
            .running
            .unwrap_or_else(|| queue.first().map_or("", |&index| named(index)));
        for (place, index) in places {
            let behind = Behind::Group {
                group: name.to_owned(),
                build: first.to_owned(),
            };
            wait(answers, index, place + 1, behind);
        }
    }
    ready.sort_by_key(|&index| builds.get(index).map(|build| (build.ticket, build.uid)));
    ready
}

/// When a namespace was served last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Served {
    Before(Option<Timestamp>),
    /// By this very distribution, as the so manieth.
    Now(usize),
}

#[derive(Default)]
struct Namespace {
    queue: VecDeque<usize>,
    running: u32,
}

/// Answers those that only the limits can hold back.
fn by_limit(
    builds: &[Candidate<'_>],
    ready: Vec<usize>,
    served: &HashMap<String, Timestamp>,
    limits: Limits,
    answers: &mut [Option<Admission>],
) {
    let mut namespaces: HashMap<&str, Namespace> = HashMap::new();
    let mut total = 0_u32;
    for build in builds.iter().filter(|build| build.running) {
        namespaces.entry(build.namespace).or_default().running += 1;
        total += 1;
    }
    for index in ready {
        if let Some(build) = builds.get(index) {
            namespaces
                .entry(build.namespace)
                .or_default()
                .queue
                .push_back(index);
        }
    }
    let order = |name, namespace: &Namespace, running: u32, served: Served| {
        let head = builds.get(*namespace.queue.front()?)?;
        Some(Reverse((running, served, head.ticket, head.uid, name)))
    };
    let mut next: BinaryHeap<_> = namespaces
        .iter()
        .filter_map(|(name, namespace)| {
            let served = Served::Before(served.get(*name).copied());
            order(*name, namespace, namespace.running, served)
        })
        .collect();
    let (mut turn, mut ahead) = (0, 0);
    while let Some(Reverse((running, _, _, _, name))) = next.pop() {
        let Some(namespace) = namespaces.get_mut(name) else {
            continue;
        };
        let full = limits.max_running_per_namespace;
        if full > 0 && namespace.running >= full {
            for (place, index) in namespace.queue.drain(..).enumerate() {
                wait(answers, index, place + 1, Behind::MaxRunningPerNamespace(full));
            }
            continue;
        }
        let Some(index) = namespace.queue.pop_front() else {
            continue;
        };
        turn += 1;
        if limits.max_running == 0 || total < limits.max_running {
            total += 1;
            namespace.running += 1;
            answer(answers, index, Admission::Go);
        } else {
            // The distribution goes on as if places came free one by one: that gives the order of the queue.
            ahead += 1;
            wait(answers, index, ahead, Behind::MaxRunning(limits.max_running));
        }
        next.extend(order(name, namespace, running + 1, Served::Now(turn)));
    }
}

#[cfg(test)]
mod tests;
