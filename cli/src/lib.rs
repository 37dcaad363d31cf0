//! The command line.
//!
//! ```text
//!  slipway build --local … ─▶ Options ─▶ sources (Dockerfile, contexts) ─▶ engine's Driver ─▶ outputs, files
//! ```
//! This room reads flags and files, and prints; what a build means is decided in planning and the engine.

pub mod build;
mod csv;
pub mod options;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Builds container images.
#[derive(Debug, Parser)]
#[command(name = "slipway", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a Dockerfile
    Build(Box<options::BuildOptions>),
}

/// Runs the command line. Call it first thing in `main`, after the sandbox's `init`, while there is one thread.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Build(options) => build::run(*options),
    }
}
