//! Removes from the cache repositories of all builds what nobody has used for long. Only the leader does; with the
//! credentials of the builds, so it can remove nothing that a build could not.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{Client, ResourceExt as _, runtime::reflector};
use slipway_crd::ImageBuild;
use slipway_oci::Reference;
use slipway_plan::protocol::RegistryHost;
use slipway_registry::kept::{Policy, Row};

use crate::{
    config::Prune,
    facts::Fault,
    observe,
    peers::Guarded,
    policy::Policies,
    registry::{Connect, Registry},
    validate,
};

/// The first time after the leader began. Not at once: it has better things to do then.
const FIRST: Duration = Duration::from_mins(10);
/// Builds whose credentials are tried for one repository.
const TRIES: usize = 3;

/// Prunes again and again, for as long as this replica leads.
pub(crate) async fn run(
    builds: reflector::Store<Guarded>,
    client: Client,
    connect: Arc<dyn Connect>,
    settings: Option<Prune>,
    policies: Policies,
    hosts: Vec<RegistryHost>,
) {
    let Some(settings) = settings else {
        return std::future::pending().await;
    };
    let policy = Policy {
        max_age: settings.max_age.into(),
        keep: 0,
        dry_run: false,
    };
    let interval: Duration = settings.interval.into();
    tokio::time::sleep(interval.min(FIRST)).await;
    loop {
        let known: Vec<Arc<Guarded>> = builds.state();
        let known = known.iter().filter_map(|build| build.0.as_ref().ok());
        for (repository, builds) in repositories(known, &policies) {
            match prune(&client, &*connect, &hosts, &repository, &builds, &policy).await {
                Ok(rows) => tell(&repository, &rows),
                Err(fault) => {
                    tracing::warn!(%repository, reason = fault.reason, "not pruned: {}", fault.message);
                }
            }
        }
        tokio::time::sleep(interval).await;
    }
}

fn tell(repository: &Reference, rows: &[Row]) {
    let (count, bytes) = rows.iter().fold((0, 0), |(count, bytes), row| {
        (count + row.count, bytes + row.bytes)
    });
    tracing::info!(
        repository = repository.without_tag_and_digest(),
        count,
        bytes,
        "pruned"
    );
}

/// The cache repositories, each with builds that use it, those that ended last first.
fn repositories<'a>(
    builds: impl Iterator<Item = &'a ImageBuild>,
    policies: &Policies,
) -> Vec<(Reference, Vec<&'a ImageBuild>)> {
    let mut found: BTreeMap<String, (Reference, Vec<&ImageBuild>)> = BTreeMap::new();
    for build in builds {
        let Ok(valid) = validate::validate(build, policies) else {
            continue;
        };
        let repository = valid.cache_repository;
        found
            .entry(repository.without_tag_and_digest())
            .or_insert_with(|| (repository, Vec::new()))
            .1
            .push(build);
    }
    let mut found: Vec<_> = found.into_values().collect();
    for (_, builds) in &mut found {
        let ended = |build: &ImageBuild| {
            let run = build.status.as_ref().and_then(|status| status.run.as_ref());
            run.and_then(|run| run.finished_at.as_ref()).map(|at| at.0)
        };
        builds.sort_by_key(|build| {
            (
                std::cmp::Reverse(ended(build)),
                build.namespace(),
                build.name_any(),
            )
        });
        // Those of one namespace mostly have the same credentials, but more tries cost more than they give.
        builds.truncate(TRIES);
    }
    found
}

async fn prune(
    client: &Client,
    connect: &dyn Connect,
    hosts: &[RegistryHost],
    repository: &Reference,
    builds: &[&ImageBuild],
    policy: &Policy,
) -> Result<Vec<Row>, Fault> {
    let mut refused = None;
    for build in builds {
        let identity = match observe::identity(client, build, hosts).await {
            Ok(identity) => identity,
            Err(error) => {
                refused = Some(Fault {
                    reason: slipway_crd::reasons::INTERNAL,
                    message: format!("failed to read the credentials of {}: {error}", build.name_any()),
                    transient: true,
                    retry_after: None,
                });
                continue;
            }
        };
        let pruned = match connect.connect(identity) {
            Ok(registry) => Registry::prune(&*registry, repository, policy).await,
            Err(fault) => Err(fault),
        };
        match pruned {
            Ok(rows) => return Ok(rows),
            Err(fault) => refused = Some(fault),
        }
    }
    match refused {
        Some(fault) => Err(fault),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use slipway_crd::Phase;

    #[test]
    fn each_repository_is_pruned_once_with_the_credentials_of_the_last_build_first() {
        let of = |name: &str, repository: &str, ended: Option<i64>| {
            let mut build = fixtures::build();
            build.metadata.name = Some(name.to_owned());
            build.spec.cache.repository = Some(repository.to_owned());
            build.status = ended.map(|ended| {
                let mut status = fixtures::status(Phase::Succeeded);
                status.run.as_mut().unwrap().finished_at = Some(
                    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(fixtures::at(ended)),
                );
                status
            });
            build
        };
        let builds = [
            of("new", "r.example.com/a", None),
            of("old", "r.example.com/a", Some(1)),
            of("late", "r.example.com/a", Some(9)),
            of("other", "r.example.com/b", None),
            of("early", "r.example.com/a", Some(0)),
        ];
        let found = repositories(builds.iter(), &Policies::default());
        let names: Vec<(String, Vec<String>)> = found
            .iter()
            .map(|(repository, builds)| {
                let names = builds.iter().map(|build| build.name_any()).collect();
                (repository.without_tag_and_digest(), names)
            })
            .collect();
        assert_eq!(
            names,
            [
                (
                    "r.example.com/a".to_owned(),
                    vec!["late".to_owned(), "old".to_owned(), "early".to_owned()]
                ),
                ("r.example.com/b".to_owned(), vec!["other".to_owned()]),
            ]
        );
    }
}
