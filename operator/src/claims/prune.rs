//! The chart's policy `cache.mounts.prune`: claims that nobody has used for too long, or that are too large together, go.
//! Which ones is [`slipway_crd::claims::prune`]'s to say; this only asks, and does it.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Preconditions},
};
use slipway_crd::claims::{self, CacheClaim, Prune, Why};

use super::Desk;
use crate::metrics::Metrics;

/// Between two looks. The time of a use is known to the hour, so there is no hurry.
const INTERVAL: Duration = Duration::from_mins(10);

/// Prunes for ever; returns at once where the chart sets no rule.
pub async fn run(client: &Client, namespace: Option<&str>, rules: &Prune, desk: &Desk, metrics: &Metrics) {
    if rules == &Prune::default() {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = once(client, namespace, rules, desk).await {
            metrics.error("api");
            tracing::warn!(%error, "failed to prune the claims of cache mounts; trying again later");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Prunes every namespace once.
async fn once(
    client: &Client,
    namespace: Option<&str>,
    rules: &Prune,
    desk: &Desk,
) -> Result<(), kube::Error> {
    let all: Api<PersistentVolumeClaim> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let params = ListParams::default().labels(&claims::selector());
    let mut spaces: BTreeMap<String, Vec<CacheClaim>> = BTreeMap::new();
    for claim in all.list(&params).await?.iter().filter_map(CacheClaim::of) {
        spaces.entry(claim.namespace.clone()).or_default().push(claim);
    }
    for (namespace, known) in spaces {
        // Mostly nothing is to go, and then nobody is held up and no pod is listed.
        if claims::prune(&known, |_| false, rules, Timestamp::now()).is_empty() {
            continue;
        }
        // Until this is over no stage of the namespace takes a claim.
        let _turn = desk.turn(&namespace).await;
        one(client, &namespace, &known, rules).await?;
    }
    Ok(())
}

async fn one(
    client: &Client,
    namespace: &str,
    known: &[CacheClaim],
    rules: &Prune,
) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let used = claims::in_use(&pods.list(&ListParams::default()).await?);
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let is_used = |claim: &CacheClaim| used.contains(&(claim.namespace.clone(), claim.name.clone()));
    for (at, why) in claims::prune(known, is_used, rules, Timestamp::now()) {
        let claim = &known[at];
        let params = DeleteParams {
            // Not one that a stage has begun to use since it was listed: that is written down in it.
            preconditions: Some(Preconditions {
                resource_version: claim.resource_version.clone(),
                uid: None,
            }),
            ..DeleteParams::default()
        };
        match api.delete(&claim.name, &params).await {
            Ok(_) => {
                let reason = match why {
                    Why::Age => "unused for cache.mounts.prune.maxAge",
                    Why::Size => "more than cache.mounts.prune.maxSize in the namespace",
                };
                tracing::info!(
                    namespace,
                    claim = claim.name,
                    id = claim.id,
                    reason,
                    "pruned a claim"
                );
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
