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
mod emulation;
mod hold;
mod inputs;
mod plan;
mod pod;
mod policy;
mod probe;
mod proxies;
mod results;
mod source;
mod stage;

use clap::{Parser, Subcommand};
use slipway_engine::BuildError;
use slipway_plan::protocol::{FailureReason, TERMINATION_LOG, TerminationMessage};
use std::{fs, process::ExitCode, time::Duration};
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
        /// Leave the files of a RUN that fails to the container that holds them
        #[arg(long)]
        hold: bool,
        /// No other attempt follows: with --hold, what ran out of memory is left as well
        #[arg(long)]
        last_attempt: bool,
        /// Run its programs, which are for this other architecture, under emulation
        #[arg(long)]
        emulate: Option<String>,
    },
    /// Wait for the stage of this pod; if a RUN of it fails, hold its files for a person to look at
    Hold {
        /// How long
        #[arg(long)]
        seconds: u64,
    },
    /// In a pod that holds a failed RUN: run a command in its files, as its user; a shell when none is given
    Enter {
        /// The command and its arguments
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Find out which other architectures this node can emulate
    Emulation,
    /// Tell what this environment lets a build do; fails if a build cannot run here
    Probe {
        /// How to tell it
        #[arg(short, long, value_enum, default_value_t = probe::Output::Text)]
        output: probe::Output,
    },
}

/// Runs the command; `plan` and `stage` leave a termination message.
pub fn run(arguments: &Arguments) -> ExitCode {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("a TLS provider was there already");
    }
    match &arguments.command {
        Command::Probe { output } => probe::run(*output),
        // Not in a runtime: this process has one thread and becomes the command.
        Command::Enter { command } => hold::enter(command),
        Command::Hold { seconds } => {
            block_on(hold::run(Duration::from_secs(*seconds))).unwrap_or(ExitCode::FAILURE)
        }
        Command::Plan => finish(block_on(stoppable(plan::run))),
        Command::Stage {
            plan,
            stage,
            hold,
            last_attempt,
            emulate,
        } => finish(block_on(stoppable(|cancel| async move {
            let keep = hold.then_some(hold::Wanted {
                out_of_memory: *last_attempt,
            });
            if let Some(architecture) = emulate {
                emulation::prepare(architecture)?;
            }
            stage::run(plan.clone(), stage.clone(), keep, cancel).await
        }))),
        Command::Emulation => finish(Some(emulation::probe())),
    }
}

/// Runs on all cores. What still runs at its end (an upload of a failed build) is not waited for. `None` if there is no
/// runtime, which has been told.
fn block_on<T>(work: impl Future<Output = T>) -> Option<T> {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start: {error}");
            return None;
        }
    };
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Some(outcome)
}

/// Leaves the termination message.
fn finish(outcome: Option<Result<TerminationMessage, BuildError>>) -> ExitCode {
    let (message, code) = match outcome {
        None => return ExitCode::FAILURE,
        Some(Ok(message)) => (message, ExitCode::SUCCESS),
        Some(Err(error)) => {
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
            Err(BuildError::new(FailureReason::Stopped, "the pod was told to stop"))
        }
    }
}
