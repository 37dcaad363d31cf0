//! The life of a build: changed, cancelled, suspended, asked to build again, deleted.

use anyhow::{Context as _, Result, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use slipway_crd::{ImageBuild, Phase, conditions, names};
use slipway_e2e::{
    scenario::{self, Scenario},
    wait,
};

use crate::build::{Build, LIMIT, failed, pods, running_stage, succeeded};

const SLOW: &str = "FROM debian:bookworm\nRUN echo begun; sleep 600\n";

#[tokio::test(flavor = "multi_thread")]
async fn deleted_while_running_leaves_no_pod() -> Result<()> {
    scenario::run("deleted_while_running", |s| async move {
        let name = Build::new(&s, "deleted", SLOW).create().await?;
        running_stage(&s, &name).await?;
        s.api::<ImageBuild>()
            .delete(&name, &DeleteParams::background())
            .await?;
        wait::until("its pods are gone", LIMIT, || async {
            Ok(pods(&s, &name).await?.is_empty().then_some(()))
        })
        .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_while_running_is_superseded() -> Result<()> {
    scenario::run("changed_while_running", |s| async move {
        let name = Build::new(&s, "changed", SLOW).create().await?;
        let old = running_stage(&s, &name).await?;
        let inline = "FROM debian:bookworm\nRUN echo second > /which\nCMD [\"cat\", \"/which\"]\n";
        // A merge patch with null takes the old path and source away.
        let patch = json!({"spec": {"source": null, "dockerfile": {"path": null, "inline": inline}}});
        s.api::<ImageBuild>()
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        let digest = succeeded(&s, &name).await?;
        wait::until("the old generation's pod is gone", LIMIT, || async {
            let names: Vec<_> = pods(&s, &name)
                .await?
                .into_iter()
                .filter_map(|pod| pod.metadata.name)
                .collect();
            Ok((!names.contains(&old)).then_some(()))
        })
        .await?;
        let image = format!(
            "{}/{}@{digest}",
            s.cluster.registry,
            crate::build::repository(&s, &name)
        );
        s.kubectl(&["run", "which", "--restart=Never", "--image", &image])?;
        s.pod_end("which", LIMIT).await?;
        ensure!(s.logs("which").await? == "second\n");
        Ok(())
    })
    .await
}

/// Sets an annotation of a build.
async fn annotate(s: &Scenario, name: &str, annotation: &str, value: &str) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {annotation: value}}});
    s.api::<ImageBuild>()
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

async fn change_spec(s: &Scenario, name: &str, change: Value) -> Result<()> {
    s.api::<ImageBuild>()
        .patch(
            name,
            &PatchParams::default(),
            &Patch::Merge(&json!({"spec": change})),
        )
        .await?;
    Ok(())
}

/// Waits until the build's `Ready` has this reason; gives the build.
async fn told(s: &Scenario, name: &str, reason: &'static str) -> Result<ImageBuild> {
    wait::object(&s.api::<ImageBuild>(), name, reason, LIMIT, |build| {
        ready_reason(build) == Some(reason)
    })
    .await
}

pub(crate) fn ready_reason(build: &ImageBuild) -> Option<&str> {
    let status = build.status.as_ref()?;
    Some(&conditions::get(&status.conditions, conditions::READY)?.reason)
}

async fn no_active_pod(s: &Scenario, name: &str) -> Result<()> {
    wait::until("no pod of it is alive", LIMIT, || async {
        let active = pods(s, name).await?.into_iter().any(|pod| {
            let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
            matches!(phase.as_str(), "Pending" | "Running")
        });
        Ok((!active).then_some(()))
    })
    .await
}

/// Cancelled, asked to build again, suspended, resumed, out of time, and deleted when its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn life_cycle() -> Result<()> {
    scenario::run("life_cycle", |s| async move {
        let name = Build::new(&s, "life", SLOW).create().await?;
        running_stage(&s, &name).await?;

        // Cancelled: no pod is left, and it is no failure.
        annotate(&s, &name, names::ANNOTATION_CANCEL, "wrong branch").await?;
        let build = told(&s, &name, "Cancelled").await?;
        let status = build.status.context("a status")?;
        ensure!(status.phase == Some(Phase::Cancelled) && status.failure.is_none(), "{status:?}");
        let stalled = conditions::get(&status.conditions, conditions::STALLED).context("Stalled")?;
        ensure!(stalled.status == "True" && stalled.message.contains("wrong branch"), "{stalled:?}");
        no_active_pod(&s, &name).await?;

        // Asked to build again: the old cancellation has been honoured.
        annotate(&s, &name, names::ANNOTATION_REBUILD, "once").await?;
        let second = running_stage_of_run(&s, &name, 2).await?;
        let build = s.api::<ImageBuild>().get(&name).await?;
        let status = build.status.context("a status")?;
        ensure!(status.reason.as_deref() == Some("RebuildRequested"), "{status:?}");

        // Suspended and resumed.
        change_spec(&s, &name, json!({"suspend": true})).await?;
        told(&s, &name, "Suspended").await?;
        no_active_pod(&s, &name).await?;
        change_spec(&s, &name, json!({"suspend": false})).await?;
        let third = running_stage_of_run(&s, &name, 3).await?;
        ensure!(second != third);
        let build = s.api::<ImageBuild>().get(&name).await?;
        ensure!(build.status.and_then(|status| status.reason).as_deref() == Some("Resumed"));

        // Out of time.
        change_spec(&s, &name, json!({"timeout": "1s"})).await?;
        let failure = failed(&s, &name).await?;
        ensure!(failure.reason == "TimedOut", "{failure:?}");
        no_active_pod(&s, &name).await?;

        // Something quick instead; built once more although nothing has changed; and deleted with its pods in time.
        let quick = json!({"source": null, "timeout": "10m", "dockerfile": {"path": null, "inline": "FROM debian:bookworm\nRUN echo done\n"}});
        change_spec(&s, &name, quick).await?;
        let digest = succeeded(&s, &name).await?;
        annotate(&s, &name, names::ANNOTATION_REBUILD, "twice").await?;
        wait::object(&s.api::<ImageBuild>(), &name, "the rebuild is done", LIMIT, |build| {
            build.status.as_ref().is_some_and(|status| {
                status.rebuild.as_deref() == Some("twice") && status.phase == Some(Phase::Succeeded)
            })
        })
        .await?;
        ensure!(succeeded(&s, &name).await? == digest, "the same again");
        let events = s.events(&name).await?;
        for reason in ["Cancelled", "RebuildRequested", "Suspended", "Failed", "Succeeded"] {
            ensure!(events.iter().any(|event| event.starts_with(reason)), "no {reason} in {events:#?}");
        }
        change_spec(&s, &name, json!({"ttlSecondsAfterFinished": 0})).await?;
        wait::gone(&s.api::<ImageBuild>(), &name, LIMIT).await
    })
    .await
}

/// The name of the stage pod that runs for the run of this number.
async fn running_stage_of_run(s: &Scenario, name: &str, run: i64) -> Result<String> {
    wait::until("the stage of the run runs", LIMIT, || async {
        let run = run.to_string();
        Ok(pods(s, name).await?.into_iter().find_map(|pod| {
            let labels = pod.metadata.labels.as_ref()?;
            let runs = pod.status.as_ref()?.phase.as_deref() == Some("Running");
            let wanted = labels.get(names::LABEL_RUN) == Some(&run)
                && labels.get(names::LABEL_KIND).is_some_and(|kind| kind == "stage");
            (runs && wanted).then(|| pod.metadata.name.clone()).flatten()
        }))
    })
    .await
}

/// A quota that is used up is told and waited out.
#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_quota_is_told_and_waited_out() -> Result<()> {
    scenario::run("quota_exceeded", |s| async move {
        s.kubectl(&["create", "quota", "none", "--hard=pods=0"])?;
        wait::until("the quota is counted", LIMIT, || async {
            let used = s.kubectl(&["get", "quota", "none", "-o", "jsonpath={.status.used.pods}"])?;
            Ok((used == "0").then_some(()))
        })
        .await?;
        let name = Build::new(&s, "quota", "FROM debian:bookworm\nRUN true\n")
            .create()
            .await?;
        let build = told(&s, &name, "QuotaExceeded").await?;
        ensure!(build.status.and_then(|status| status.phase) == Some(Phase::Planning));
        s.kubectl(&["delete", "quota", "none"])?;
        succeeded(&s, &name).await?;
        Ok(())
    })
    .await
}
