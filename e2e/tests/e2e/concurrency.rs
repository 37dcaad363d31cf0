//! Builds that wait for each other: groups and limits.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use slipway_crd::{ImageBuild, Phase, QueueStatus, names};
use slipway_e2e::{
    install,
    scenario::{self, Scenario},
    wait,
};

use crate::{
    build::{Build, LIMIT, phase, pods, running_stage},
    life::ready_reason,
};

/// As `install` sets it for every test.
const PER_NAMESPACE: usize = 4;

fn slow(name: &str) -> String {
    // Not equal to each other, or they would share their stage.
    format!("FROM debian:bookworm\nRUN echo {name}; sleep 600\n")
}

async fn grouped(s: &Scenario, name: &str, group: &str, policy: &str) -> Result<()> {
    Build::new(s, name, &slow(name))
        .with("concurrency", json!({"group": group, "policy": policy}))
        .create()
        .await
        .map(|_| ())
}

/// Waits until the build is at this place in the queue.
async fn queued(s: &Scenario, name: &str, position: u32) -> Result<QueueStatus> {
    let place = |build: &ImageBuild| build.status.as_ref().and_then(|status| status.queue.clone());
    let build = wait::object(
        &s.api::<ImageBuild>(),
        name,
        "its place in the queue",
        LIMIT,
        |build| {
            ready_reason(build) == Some("Queued")
                && place(build).is_some_and(|queue| queue.position == position)
        },
    )
    .await?;
    ensure!(pods(s, name).await?.is_empty(), "{name} waits and has a pod");
    place(&build).context("it was there a moment ago")
}

async fn cancel(s: &Scenario, name: &str) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {names::ANNOTATION_CANCEL: "true"}}});
    s.api::<ImageBuild>()
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// Ends the operator that leads; another takes over and knows only what is written.
async fn restart_operator(s: &Scenario) -> Result<()> {
    let operators: Api<Pod> = Api::namespaced(s.cluster.client.clone(), install::NAMESPACE);
    let selector = ListParams::default().labels(&format!("app.kubernetes.io/instance={}", install::RELEASE));
    operators
        .delete_collection(&DeleteParams::default(), &selector)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_groups_queue_and_replace_and_a_restarted_operator_keeps_the_order() -> Result<()> {
    scenario::run("concurrency", |s| async move {
        // Queue: one at a time, in the order of their creation.
        for name in ["q1", "q2", "q3"] {
            grouped(&s, name, "queue", "Queue").await?;
        }
        running_stage(&s, "q1").await?;
        let queue = queued(&s, "q2", 1).await?;
        ensure!(queue.group.as_deref() == Some("queue"), "{queue:?}");
        queued(&s, "q3", 2).await?;

        restart_operator(&s).await?;
        cancel(&s, "q1").await?;
        running_stage(&s, "q2").await?;
        queued(&s, "q3", 1).await?;
        s.api::<ImageBuild>()
            .delete("q2", &DeleteParams::background())
            .await?;
        running_stage(&s, "q3").await?;
        cancel(&s, "q3").await?;

        // Latest: the newest takes the place of those that wait; the one that runs goes on.
        grouped(&s, "l1", "latest", "Latest").await?;
        let running = running_stage(&s, "l1").await?;
        grouped(&s, "l2", "latest", "Latest").await?;
        queued(&s, "l2", 1).await?;
        grouped(&s, "l3", "latest", "Latest").await?;
        let replaced = wait::object(&s.api::<ImageBuild>(), "l2", "it is replaced", LIMIT, |build| {
            phase(build) == Some(Phase::Cancelled)
        })
        .await?;
        ensure!(ready_reason(&replaced) == Some("Replaced"), "{replaced:?}");
        queued(&s, "l3", 1).await?;
        let pod = s.api::<Pod>().get(&running).await?;
        ensure!(
            pod.metadata.deletion_timestamp.is_none(),
            "the running one was disturbed"
        );
        cancel(&s, "l1").await?;
        running_stage(&s, "l3").await?;
        cancel(&s, "l3").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_limit_of_a_namespace_holds_and_everybody_has_a_turn() -> Result<()> {
    scenario::run("concurrency_limit", |s| async move {
        let all: Vec<String> = (1..=PER_NAMESPACE + 2).map(|n| format!("b{n}")).collect();
        for name in &all {
            Build::new(&s, name, &slow(name)).create().await?;
        }
        let running = |builds: &[ImageBuild]| {
            builds
                .iter()
                .filter(|build| matches!(phase(build), Some(Phase::Planning | Phase::Running)))
                .count()
        };
        // Whatever ends, another begins, and never more than the limit.
        let mut ended = Vec::new();
        while ended.len() < all.len() {
            let left = all.len() - ended.len();
            let builds = wait::until("the limit is used", LIMIT, || async {
                let builds = s.api::<ImageBuild>().list(&ListParams::default()).await?.items;
                let at_work = running(&builds);
                ensure!(at_work <= PER_NAMESPACE, "{at_work} run at the same time");
                let queued = builds
                    .iter()
                    .filter(|build| ready_reason(build) == Some("Queued"))
                    .count();
                let settled = at_work == PER_NAMESPACE.min(left) && at_work + queued == left;
                Ok(settled.then_some(builds))
            })
            .await?;
            let limits: Vec<_> = builds
                .iter()
                .filter_map(|build| build.status.as_ref()?.queue.as_ref()?.limit.as_deref())
                .collect();
            ensure!(limits.len() == left.saturating_sub(PER_NAMESPACE), "{limits:?}");
            ensure!(
                limits
                    .iter()
                    .all(|limit| *limit == "limits.maxRunningPerNamespace"),
                "{limits:?}"
            );
            let next = builds
                .iter()
                .filter(|build| matches!(phase(build), Some(Phase::Planning | Phase::Running)))
                .find_map(|build| build.metadata.name.clone())
                .context("one runs")?;
            cancel(&s, &next).await?;
            ended.push(next);
        }
        Ok(())
    })
    .await
}

/// One ImageBuild a commit: of the finished ones the newest stay.
#[tokio::test(flavor = "multi_thread")]
async fn concurrency_history_keeps_the_newest() -> Result<()> {
    scenario::run("concurrency_history", |s| async move {
        let dockerfile = "FROM debian:bookworm\nRUN echo the same for all\n";
        for name in ["c1", "c2", "c3"] {
            Build::new(&s, name, dockerfile)
                .with(
                    "concurrency",
                    json!({"group": "main", "policy": "Queue", "successfulHistoryLimit": 1}),
                )
                .create()
                .await?;
        }
        for name in ["c1", "c2"] {
            wait::gone(&s.api::<ImageBuild>(), name, LIMIT).await?;
        }
        crate::build::succeeded(&s, "c3").await?;
        Ok(())
    })
    .await
}
