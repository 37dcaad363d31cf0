//! The operator may die at any moment: what was done is not done again, and the image is the same.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use slipway_crd::Phase;
use slipway_e2e::{
    install,
    scenario::{self, Scenario},
};

use crate::build::{Build, pods, reached, succeeded};

const DOCKERFILE: &str = "FROM debian:bookworm AS a\nARG SALT\nRUN echo $SALT > /a; sleep 2\n\
                          FROM debian:bookworm\nARG SALT\nRUN echo $SALT > /b; sleep 1\nCOPY --from=a /a /\n";

/// Kills every replica of the operator at once, without grace: no leader is left to hand over.
async fn kill_operator(s: &Scenario) -> Result<()> {
    let all: Api<Pod> = Api::namespaced(s.cluster.client.clone(), install::NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=slipway-operator");
    let names: Vec<_> = all
        .list(&selector)
        .await?
        .items
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect();
    ensure!(!names.is_empty(), "no operator pod was found");
    for name in names {
        all.delete(&name, &DeleteParams::default().grace_period(0))
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_killed_in_each_phase_gives_the_same_digest() -> Result<()> {
    scenario::run("operator_killed", |s| async move {
        // The same input and SOURCE_DATE_EPOCH, each in a repository of its own so that no cache answers.
        let args = json!([{"name": "SOURCE_DATE_EPOCH", "value": "1700000000"}, {"name": "SALT", "value": s.namespace}]);
        let calm = Build::new(&s, "calm", DOCKERFILE).with("args", args.clone()).create().await?;
        let digest = succeeded(&s, &calm).await?;
        for (name, wanted) in [("planning", Phase::Planning), ("running", Phase::Running), ("assembling", Phase::Assembling)] {
            Build::new(&s, name, DOCKERFILE).with("args", args.clone()).create().await?;
            reached(&s, name, wanted).await?;
            kill_operator(&s).await?;
            ensure!(succeeded(&s, name).await? == digest, "killed while {name}: another digest");
            for pod in pods(&s, name).await? {
                let attempt = pod.metadata.name.context("a pod has a name")?;
                ensure!(!attempt.ends_with("-2"), "killed while {name}: {attempt} is a second attempt");
            }
        }
        Ok(())
    })
    .await
}
