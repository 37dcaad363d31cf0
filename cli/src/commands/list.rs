//! `slipway list`.

use super::{Format, write};
use crate::{
    cluster::{ClusterOptions, told},
    view::{
        list,
        look::{ColourMode, Look},
        status::Status,
    },
};
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use kube::{Api, api::ListParams};
use slipway_crd::ImageBuild;
use std::{io, process::ExitCode};

/// Flags of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway list
  kubectl slipway list -A -o wide
  kubectl slipway list -l team=web -o json")]
pub struct Options {
    /// Builds of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Builds with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// How the result is written
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: ColourMode,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Lists builds.
pub async fn run(options: Options) -> Result<ExitCode> {
    let cluster = options.cluster.connect().await?;
    let api: Api<ImageBuild> = if options.all_namespaces {
        Api::all(cluster.client.clone())
    } else {
        cluster.builds()
    };
    let mut params = ListParams::default();
    if let Some(selector) = &options.selector {
        params = params.labels(selector);
    }
    let builds = api
        .list(&params)
        .await
        .map_err(|error| told(&error, "list ImageBuilds"))?
        .items;
    let now = Timestamp::now();
    match options.output {
        Some(format @ (Format::Json | Format::Yaml)) => {
            let rows: Vec<_> = builds.iter().map(|build| Status::of(build, now)).collect();
            write(format, &rows)?;
        }
        wide if builds.is_empty() => {
            let _ = wide;
            if options.all_namespaces {
                eprintln!("No ImageBuilds found.");
            } else {
                eprintln!("No ImageBuilds found in namespace {}.", cluster.namespace);
            }
        }
        wide => {
            let lines = list::lines(&builds, now, options.all_namespaces, wide.is_some());
            Look::of(options.color, &io::stdout()).write(&mut io::stdout(), &lines)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
