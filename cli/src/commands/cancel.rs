//! `slipway cancel` and `slipway rebuild`: the annotations by which an ImageBuild is stopped and built again.

use crate::{
    cluster::{Cluster, ClusterOptions, follow::Wanted, told},
    options::ProgressMode,
};
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use slipway_crd::names;
use std::process::ExitCode;

/// Flags of `cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway cancel shop
  kubectl slipway cancel shop docs -n team-web

The build's pods are deleted, nothing is pushed; stages that are done stay in the cache. `kubectl slipway rebuild` begins
again.")]
pub struct CancelOptions {
    /// The ImageBuilds
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Flags of `rebuild`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway rebuild shop
  kubectl slipway rebuild shop --follow

What is in the cache is used: a rebuild without a change takes seconds. To run everything again, set spec.cache.noCache.")]
pub struct RebuildOptions {
    /// The ImageBuilds
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Show the build until it has ended (for one ImageBuild)
    #[arg(short, long)]
    follow: bool,
    /// How progress is shown, with --follow
    #[arg(long, value_enum, default_value = "auto")]
    progress: ProgressMode,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Stops builds.
pub async fn run_cancel(options: CancelOptions) -> Result<ExitCode> {
    let cluster = options.cluster.connect().await?;
    for name in &options.names {
        let build = cluster.build(name).await?;
        if build
            .status
            .as_ref()
            .and_then(|status| status.phase)
            .is_some_and(slipway_crd::Phase::is_final)
        {
            println!("imagebuild/{name} has ended already");
            continue;
        }
        cancel(&cluster, name).await?;
        println!("imagebuild/{name} cancelled");
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds again.
pub async fn run_rebuild(options: RebuildOptions) -> Result<ExitCode> {
    let cluster = options.cluster.connect().await?;
    if options.follow && options.names.len() > 1 {
        return Err(crate::exit::Error::Usage("--follow takes one ImageBuild".into()).into());
    }
    for name in &options.names {
        let build = cluster.build(name).await?;
        annotate(
            &cluster,
            name,
            names::ANNOTATION_REBUILD,
            Timestamp::now().to_string(),
        )
        .await?;
        if !options.follow {
            println!("imagebuild/{name} builds again");
            continue;
        }
        let wanted = Wanted {
            logs: true,
            after: build.status.and_then(|status| status.run),
        };
        return super::follow::show(&cluster, name, wanted, options.progress).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the operator to stop a build.
pub async fn cancel(cluster: &Cluster, name: &str) -> Result<()> {
    annotate(
        cluster,
        name,
        names::ANNOTATION_CANCEL,
        format!("by `slipway cancel` at {}", Timestamp::now()),
    )
    .await
}

/// Sets an annotation to a value that it has never had.
async fn annotate(cluster: &Cluster, name: &str, annotation: &str, value: String) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {annotation: value}}});
    let answer = cluster
        .builds()
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    answer.map_err(|error| told(&error, &format!("annotate the ImageBuild {name}")))?;
    Ok(())
}
