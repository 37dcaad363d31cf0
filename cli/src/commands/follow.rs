//! `slipway follow`: a build that is under way, live.

use crate::{
    cluster::{Cluster, ClusterOptions, follow::Wanted},
    exit::INTERRUPTED,
    live::{self, Ended, OnInterrupt},
    options::ProgressMode,
};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Flags of `follow`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway follow shop
  kubectl slipway follow shop --progress plain > build.log 2>&1

Steps of all stages on all nodes, as one build. It ends with the build, with exit code 1 if that failed; Ctrl-C leaves, and
the build goes on. What was printed before is shown too.")]
pub struct Options {
    /// The ImageBuild
    name: String,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    progress: ProgressMode,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Follows a build.
pub async fn run(options: Options) -> Result<ExitCode> {
    let cluster = options.cluster.connect().await?;
    cluster.build(&options.name).await?;
    let wanted = Wanted {
        logs: true,
        after: None,
    };
    show(&cluster, &options.name, wanted, options.progress).await
}

/// Shows a run that somebody else has begun, and tells how it ended.
pub(super) async fn show(
    cluster: &Cluster,
    name: &str,
    wanted: Wanted,
    progress: ProgressMode,
) -> Result<ExitCode> {
    let sink = crate::build::sink(progress);
    match live::show(cluster, name, wanted, sink, OnInterrupt::Leave).await? {
        Ended::Over(build) => live::tell(&build),
        Ended::Gone => Err(cluster.no_build(name).into()),
        Ended::Left => Ok(ExitCode::from(INTERRUPTED)),
    }
}
