//! The commands that talk to a cluster, one a file: flags, requests, and the call of a view.

pub mod cancel;
pub mod completion;
pub mod doctor;
pub mod du;
pub mod explain;
pub mod follow;
pub mod graph;
pub mod list;
pub mod logs;
pub mod status;

use crate::exit;
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// How a command's result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// Runs a command that talks to a cluster, and tells its errors.
pub fn run<F: Future<Output = Result<ExitCode>>>(command: F) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(command);
    // Watches and logs that are still open are not waited for.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        if exit::is_closed_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        eprintln!("error: {error:#}");
        exit::code(&error)
    })
}

/// Writes a value for programs to standard output.
pub fn write(format: Format, value: &impl Serialize) -> Result<()> {
    let text = match format {
        Format::Json | Format::Wide => serde_json::to_string_pretty(value).context("failed to write JSON")?,
        Format::Yaml => serde_yaml::to_string(value).context("failed to write YAML")?,
    };
    writeln!(io::stdout(), "{}", text.trim_end())?;
    Ok(())
}
