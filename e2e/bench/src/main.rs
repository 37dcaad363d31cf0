//! Builds the workloads with a warm BuildKit daemon and with `slipway build --local` in turn, each result pushed to a
//! registry on this machine, and compares the times.
//!
//! ```text
//!  workloads.py ─▶ contexts          for each workload and kind (cold, noop, touch), A B A B …
//!  registry, base image ─┐             BuildKit: pruned daemon that has the base ─▶ buildctl build ─▶ push
//!  buildkitd ────────────┴─────▶       Slipway:  fresh store that has the base  ─▶ slipway build  ─▶ push
//!                                    medians, ratios, met or missed ─▶ table, Markdown, JSON
//! ```
//! Times move with the machine; ratios of one run are what counts.

mod builders;
mod report;
mod workloads;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::{
    builders::{BuildKit, Builder, Machine, Slipway},
    report::{Report, Row},
    workloads::{Kind, Workload},
};

/// Compare the times of local builds with BuildKit's.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// How often each build is repeated
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these kinds: cold, noop, touch
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// The program under test [default: slipway beside this program]
    #[arg(long)]
    slipway: Option<PathBuf>,
    /// Write the table as Markdown to this file
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Write all times as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let program = match &options.slipway {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("slipway"),
    };
    let work = tempfile::Builder::new().prefix("slipway-bench-").tempdir()?;
    let machine = Machine::start(work.path())?;
    let contexts = work.path().join("contexts");
    workloads::write(&contexts, &machine.base())?;
    let mut report = Report::new();
    for workload in workloads::ALL {
        if !options.only.is_empty() && !options.only.iter().any(|name| name == workload.name) {
            continue;
        }
        for variant in workload.variants() {
            let mut buildkit = BuildKit::new(&machine, workload.name);
            let mut slipway = Slipway::new(&machine, &program, workload.name, variant);
            measure(
                options,
                workload,
                &contexts,
                [&mut buildkit, &mut slipway],
                &mut report,
            )?;
        }
    }
    println!("{}", report.table());
    if let Some(path) = &options.markdown {
        fs::write(path, report.markdown()).with_context(|| format!("failed to write {}", path.display()))?;
    }
    if let Some(path) = &options.json {
        fs::write(path, report.json()).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(report.all_met())
}

/// One workload in all its kinds, the two builders in turn.
fn measure(
    options: &Options,
    workload: &Workload,
    contexts: &std::path::Path,
    mut builders: [&mut dyn Builder; 2],
    report: &mut Report,
) -> Result<()> {
    let context = contexts.join(workload.name);
    let wanted =
        |kind: &Kind| options.kinds.is_empty() || options.kinds.iter().any(|name| name == kind.name());
    let kinds: Vec<Kind> = workload.kinds.iter().copied().filter(wanted).collect();
    let mut times: Vec<[Vec<f64>; 2]> = vec![[Vec::new(), Vec::new()]; kinds.len()];
    for run in 0..options.runs {
        for (side, builder) in builders.iter_mut().enumerate() {
            // What is warm in the other kinds is what a cold build has left.
            let (mut cold, mut primed) = (true, false);
            for (at, kind) in kinds.iter().enumerate() {
                match kind {
                    Kind::Cold => builder.forget().context("failed to empty the cache")?,
                    Kind::Noop | Kind::Touch if cold && !primed => {
                        builder.forget()?;
                        builder.build(&context)?;
                        primed = true;
                    }
                    Kind::Noop | Kind::Touch => {}
                }
                if *kind == Kind::Touch {
                    workloads::touch(workload, &context, run * 2 + side)?;
                }
                let time = builder
                    .build(&context)
                    .with_context(|| format!("{} {}", workload.name, kind.name()))?;
                cold &= *kind != Kind::Cold;
                times[at][side].push(time);
            }
        }
    }
    let label = builders[1].label();
    for (kind, [theirs, ours]) in kinds.iter().zip(times) {
        let row = Row::new(&label, workload, *kind, theirs, ours);
        println!("{row}");
        report.add(row);
    }
    Ok(())
}
