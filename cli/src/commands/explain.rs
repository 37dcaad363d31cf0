//! `slipway explain`: which steps of a build were cached, and why the others were not.

use super::{Format, write};
use crate::{
    cluster::{
        Cluster, ClusterOptions, log,
        pods::{BuildPod, Work, owned, selector},
    },
    exit::Error,
    view::{
        explain,
        look::{ColourMode, Look},
    },
};
use anyhow::Result;
use clap::Args;
use kube::api::ListParams;
use slipway_crd::ImageBuild;
use slipway_engine::progress::{Line, Paint};
use slipway_oci::{Digest, Reference};
use slipway_plan::explain::Explanation;
use std::{io, process::ExitCode};
use tokio::sync::mpsc;

/// Flags of `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway explain shop
  kubectl slipway explain shop --all
  kubectl slipway explain shop -o json

Each step that ran is told with what differs from the build before. The explanation is kept with the plan in the build's
cache repository, which this program reads with the credentials of your docker configuration. Where it cannot reach that
registry, it tells what the plan pod's log says.")]
pub struct Options {
    /// The ImageBuild
    name: String,
    /// Also the steps of stages that were cached as a whole
    #[arg(long)]
    all: bool,
    /// Speak plain HTTP to this registry
    #[arg(long = "insecure-registry", value_name = "HOST")]
    insecure_registries: Vec<String>,
    /// How the result is written
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: ColourMode,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Explains a build.
pub async fn run(options: Options) -> Result<ExitCode> {
    let cluster = options.cluster.connect().await?;
    let build = cluster.build(&options.name).await?;
    let plan = build.status.as_ref().and_then(|status| status.plan.as_ref());
    let Some(digest) = plan.and_then(|plan| plan.digest.as_ref()) else {
        return Err(Error::Cluster(format!(
            "the build {} has no plan yet, so there is nothing to explain",
            options.name
        ))
        .into());
    };
    let look = Look::of(options.color, &io::stdout());
    match read(&build, digest, &options.insecure_registries).await {
        Ok(explanation) => match options.output {
            Some(format @ (Format::Json | Format::Yaml)) => write(format, &explanation)?,
            wide => look.write(
                &mut io::stdout(),
                &explain::lines(&explanation, options.all || wide.is_some()),
            )?,
        },
        Err(error) => {
            if options.output.is_some_and(|format| format != Format::Wide) {
                return Err(Error::Cluster(error.to_string()).into());
            }
            eprintln!("note: {error}; below is what the plan pod's log says of it");
            let lines = from_log(&cluster, &build, &options.name).await?;
            look.write(&mut io::stdout(), &lines)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The repository in which a build keeps its plans.
pub(super) fn cache_repository(build: &ImageBuild) -> Result<Reference> {
    let own = build.spec.cache.repository.as_ref();
    let name = own.or(build.spec.output.images.first());
    let name = name.ok_or_else(|| anyhow::anyhow!("the build names no repository"))?;
    let name: Reference = name
        .parse()
        .map_err(|error| anyhow::anyhow!("the repository {name:?}: {error}"))?;
    Ok(name)
}

async fn read(build: &ImageBuild, plan: &str, insecure: &[String]) -> Result<Explanation> {
    let plan: Digest = plan
        .parse()
        .map_err(|error| anyhow::anyhow!("the plan {plan:?}: {error}"))?;
    let reference = cache_repository(build)?;
    let repository = crate::build::registries(insecure)?.repository(&reference);
    Ok(slipway_engine::explain::read(&repository, &plan).await?)
}

/// The summary that the plan pod has printed.
async fn from_log(cluster: &Cluster, build: &ImageBuild, name: &str) -> Result<Vec<Line>> {
    let uid = build.metadata.uid.as_deref().unwrap_or_default();
    let gone = || {
        Error::Cluster(format!(
            "the plan pod of the build {name} is gone, and its log with it"
        ))
    };
    let pods = cluster.pods();
    let list = pods.list(&ListParams::default().labels(&selector(name))).await;
    let list = list.map_err(|error| crate::cluster::told(&error, "list the build's pods"))?;
    let plans = list
        .items
        .iter()
        .filter(|pod| owned(pod, uid))
        .filter_map(BuildPod::of);
    let plan = plans
        .filter(|pod| pod.work == Work::Plan && pod.started)
        .max_by_key(|pod| (pod.run, pod.attempt));
    let plan = plan.ok_or_else(gone)?;
    let (sender, mut lines) = mpsc::channel(64);
    let reading = async {
        let outcome = log::read(&pods, &plan.name, &plan.container, false, &sender, |line| line).await;
        drop(sender);
        outcome
    };
    let collecting = async {
        let mut found = Vec::new();
        while let Some(line) = lines.recv().await {
            if let Some(line) = summary(&line) {
                found.push(Line::new().with(Paint::Plain, line));
            }
        }
        found
    };
    let (outcome, found) = tokio::join!(reading, collecting);
    outcome.map_err(|error| crate::cluster::told(&error, "read the plan pod's log"))?;
    if found.is_empty() {
        let stages = build
            .status
            .as_ref()
            .map(|status| status.stages.as_slice())
            .unwrap_or_default();
        // The summary has a line for each stage that runs.
        let text = if stages.iter().any(|stage| stage.attempts > 0) {
            "the log does not say why stages ran: the runner is older than this program"
        } else {
            "every stage was cached"
        };
        return Ok(vec![Line::new().with(Paint::Plain, text)]);
    }
    Ok(found)
}

/// A line of the summary, without the number and time that stand before it in the log.
fn summary(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('#')?.split_once(' ')?.1;
    let (_, text) = rest.split_once(' ')?;
    text.contains(" steps in the cache").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn the_summary_is_found_in_the_plan_pods_log() {
        let line = "#4 0.012 build (linux/amd64): 3 of 6 steps in the cache; Dockerfile:7 COPY . . runs because context:/ has changed";
        assert!(summary(line).unwrap().starts_with("build (linux/amd64): 3 of 6"));
        assert_eq!(summary("#4 DONE 0.1s"), None);
        assert_eq!(summary(""), None);
    }
}
