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
    wait,
};

use crate::build::{Build, LIMIT, pods, reached, succeeded};

const DOCKERFILE: &str = "FROM debian:bookworm AS a\nARG SALT\nRUN echo $SALT > /a; sleep 2\n\
                          FROM debian:bookworm\nARG SALT\nRUN echo $SALT > /b; sleep 1\nCOPY --from=a /a /\n";

fn operator_pods(s: &Scenario) -> Api<Pod> {
    Api::namespaced(s.cluster.client.clone(), install::NAMESPACE)
}

async fn replicas(s: &Scenario) -> Result<Vec<String>> {
    let selector = ListParams::default().labels("app.kubernetes.io/name=slipway-operator");
    let pods = operator_pods(s).list(&selector).await?.items;
    let names: Vec<_> = pods.into_iter().filter_map(|pod| pod.metadata.name).collect();
    ensure!(!names.is_empty(), "no operator pod was found");
    Ok(names)
}

/// What each replica answers at a path of its HTTP port; those that are gone or do not serve are left out.
async fn answers(s: &Scenario, path: &str) -> Result<Vec<String>> {
    let at = |pod: &String| {
        format!(
            "/api/v1/namespaces/{}/pods/{pod}:8080/proxy{path}",
            install::NAMESPACE
        )
    };
    let names = replicas(s).await?;
    Ok(names
        .iter()
        .filter_map(|pod| s.cluster.kubectl(&["get", "--raw", &at(pod)]).ok())
        .collect())
}

/// Kills every replica of the operator at once, without grace: no leader is left to hand over.
async fn kill_operator(s: &Scenario) -> Result<()> {
    let all = operator_pods(s);
    for name in replicas(s).await? {
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

#[tokio::test(flavor = "multi_thread")]
async fn operator_endpoints_tell_readiness_and_numbers_in_the_cluster() -> Result<()> {
    scenario::run("operator_endpoints", |s| async move {
        let name = Build::new(&s, "counted", "FROM debian:bookworm\nRUN true\n")
            .create()
            .await?;
        succeeded(&s, &name).await?;
        // Another scenario may kill the operator meanwhile; a replica comes back within moments.
        wait::until("one leader counts a finished build", LIMIT, || async {
            let ready = answers(&s, "/readyz").await?;
            let metrics = answers(&s, "/metrics").await?;
            let leads = |text: &&String| text.lines().any(|line| line == "slipway_leader 1");
            let leaders: Vec<_> = metrics.iter().filter(leads).collect();
            let counts = |text: &&String| text.contains("slipway_builds_finished_total{");
            Ok((!ready.is_empty() && leaders.len() == 1 && leaders.iter().any(counts)).then_some(()))
        })
        .await
    })
    .await
}
