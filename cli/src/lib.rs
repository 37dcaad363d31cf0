//! The command line.
//!
//! ```text
//!  slipway build --local … ─▶ Options ─▶ sources (Dockerfile, contexts) ─▶ engine's Driver ─▶ outputs, files
//!  slipway build …         ─▶ Options ─▶ ImageBuild ─▶ cluster ─┐
//!  slipway status, logs, … ─▶ cluster (ImageBuild, pods, logs) ─┴▶ view (pure) ─▶ terminal
//! ```
//! This room reads flags, files and the Kubernetes API, and prints; what a build means is decided in planning, the engine
//! and the operator. The same program is `kubectl-slipway`.

pub mod build;
pub mod cluster;
pub mod commands;
mod csv;
pub mod exit;
pub mod live;
pub mod options;
pub mod view;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::{ffi::OsString, path::Path, process::ExitCode};

/// Builds container images, on this machine or on a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "slipway", version, about, max_term_width = 110, after_help = exit::HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a Dockerfile, on a cluster or on this machine (--local)
    Build(Box<options::BuildOptions>),
    /// Check a Dockerfile and build nothing: the same as build --check
    Lint(Box<options::BuildOptions>),
    /// Show a build: its stages, times, what decided the time, why it failed
    Status(commands::status::Options),
    /// Show a build live: the steps of all stages on all nodes, until it has ended
    Follow(commands::follow::Options),
    /// Show what the pods of a build print
    Logs(commands::logs::Options),
    /// Show the builds of a namespace
    #[command(visible_alias = "ls")]
    List(commands::list::Options),
    /// Stop builds
    Cancel(commands::cancel::CancelOptions),
    /// Build again although nothing has changed
    Rebuild(commands::cancel::RebuildOptions),
    /// Show the graph of stages of a Dockerfile or of a build
    Graph(commands::graph::Options),
    /// Say which steps of a build were cached, and why the others were not
    Explain(commands::explain::Options),
    /// Show what is kept for later builds: cache mounts, layer cache, local store
    Du(commands::du::DuOptions),
    /// Remove what no build has used for long
    Prune(commands::du::PruneOptions),
    /// Say whether a cluster is fit to build on, and what to do where it is not
    Doctor(commands::doctor::Options),
    /// Print what a shell needs to complete this command line
    Completion(commands::completion::Options),
    /// What completes `kubectl slipway`: kubectl asks it by way of `kubectl_complete-slipway`
    #[command(hide = true, name = "__complete", disable_help_flag = true)]
    Complete(commands::completion::Words),
}

/// Runs the command line. Call it first thing in `main`, after the sandbox's `init`, while there is one thread.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let matches = command(arguments.first()).get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Build(options) => build::run(*options),
        Command::Lint(mut options) => {
            options.check = true;
            build::run(*options)
        }
        Command::Status(options) => commands::run(commands::status::run(options)),
        Command::Follow(options) => commands::run(commands::follow::run(options)),
        Command::Logs(options) => commands::run(commands::logs::run(options)),
        Command::List(options) => commands::run(commands::list::run(options)),
        Command::Cancel(options) => commands::run(commands::cancel::run_cancel(options)),
        Command::Rebuild(options) => commands::run(commands::cancel::run_rebuild(options)),
        Command::Graph(options) => commands::run(commands::graph::run(options)),
        Command::Explain(options) => commands::run(commands::explain::run(options)),
        Command::Du(options) => commands::run(commands::du::run_du(options)),
        Command::Prune(options) => commands::run(commands::du::run_prune(options)),
        Command::Doctor(options) => commands::run(commands::doctor::run(options)),
        Command::Completion(options) => commands::completion::run(&options),
        Command::Complete(words) => commands::run(commands::completion::complete(words)),
    }
}

/// The command line under the name by which it was called: as a plug-in its help speaks of `kubectl slipway`.
fn command(called: Option<&OsString>) -> clap::Command {
    let name = called.and_then(|path| Path::new(path).file_name());
    let plugin = name.is_some_and(|name| name.to_string_lossy().starts_with("kubectl-"));
    let command = Cli::command();
    if plugin {
        command.bin_name("kubectl slipway")
    } else {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn as_a_plug_in_it_speaks_of_kubectl() {
        let help = |called: &str| command(Some(&called.into())).render_help().to_string();
        assert!(help("/usr/local/bin/kubectl-slipway").contains("Usage: kubectl slipway"));
        assert!(help("./slipway").contains("Usage: slipway"));
    }
}
