//! A build that is deleted or changed while it runs.

use anyhow::{Result, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use slipway_crd::ImageBuild;
use slipway_e2e::{scenario, wait};

use crate::build::{Build, LIMIT, pods, running_stage, succeeded};

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
