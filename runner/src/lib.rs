//! The program in the pods: `plan` turns a source into a plan, `stage` turns one stage of it into layers.
//!
//! ```text
//! request.json, source volume ─▶ plan ─▶ context, plan, schedule ─▶ registry      termination message: the plan's digest
//! request.json, plan digest ───▶ stage ─▶ layers, stage manifest ─▶ registry      termination message: the manifest's digest
//! ```
//! This room is thin: it finds its inputs where the operator put them ([`slipway_plan::protocol`]), gives them to the engine,
//! and says how it ended. It knows no Kubernetes API, has no token, and decides nothing about scheduling.

mod artifacts;
mod context;
mod inputs;
mod plan;
mod pod;
mod source;
mod stage;

use clap::{Parser, Subcommand};
use slipway_engine::BuildError;
use slipway_plan::protocol::{FailureReason, STORE_DIR, TERMINATION_LOG, TerminationMessage};
use std::{fs, path::Path, process::ExitCode};
use tokio_util::sync::CancellationToken;

/// Runs the parts of an ImageBuild inside its pods. The operator starts it; the arguments are its contract with the operator.
#[derive(Debug, Parser)]
#[command(name = "slipway-runner", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the source, plan the build, publish plan and context
    Plan,
    /// Run one stage of a plan and publish its result
    Stage {
        /// Digest of the plan's manifest in the cache repository
        #[arg(long)]
        plan: slipway_oci::Digest,
        /// Id of the stage in the plan
        #[arg(long)]
        stage: String,
    },
    /// Tell what this environment lets a build do
    Probe,
}

/// Runs the command and leaves the termination message.
pub fn run(arguments: &Arguments) -> ExitCode {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("a TLS provider was there already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match &arguments.command {
        Command::Probe => return probe(),
        Command::Plan => runtime.block_on(stoppable(plan::run)),
        Command::Stage { plan, stage } => runtime.block_on(stoppable(|cancel| {
            stage::run(plan.clone(), stage.clone(), cancel)
        })),
    };
    // What still runs (an upload of a failed build) is not waited for.
    runtime.shutdown_background();
    let (message, code) = match outcome {
        Ok(message) => (message, ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{}", error.render());
            (TerminationMessage::Failed(error.to_failure()), ExitCode::FAILURE)
        }
    };
    if let Err(error) = fs::write(TERMINATION_LOG, message.to_bounded_json()) {
        eprintln!("error: failed to write {TERMINATION_LOG}: {error}");
        return ExitCode::FAILURE;
    }
    code
}

/// Runs with a token that SIGTERM cancels, so that a deleted pod ends at once and takes its steps with it.
async fn stoppable<F, W>(work: W) -> Result<TerminationMessage, BuildError>
where
    W: FnOnce(CancellationToken) -> F,
    F: Future<Output = Result<TerminationMessage, BuildError>>,
{
    let cancel = CancellationToken::new();
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| BuildError::io("listen for SIGTERM", error))?;
    tokio::select! {
        outcome = work(cancel.clone()) => outcome,
        _ = terminated.recv() => {
            cancel.cancel();
            Err(BuildError::new(FailureReason::Internal, "the pod was told to stop"))
        }
    }
}

fn probe() -> ExitCode {
    let dir = if Path::new(STORE_DIR).is_dir() {
        Path::new(STORE_DIR).to_owned()
    } else {
        std::env::temp_dir()
    };
    match slipway_sandbox::probe(&dir) {
        Ok(probe) => {
            println!("{}", serde_json::to_string_pretty(&probe).unwrap_or_default());
            if probe.can_build() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
