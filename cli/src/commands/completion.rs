//! Completion: scripts for shells, and the words that kubectl asks for to complete `kubectl slipway`.

use crate::{
    Cli,
    cluster::{Cluster, ClusterOptions},
};
use anyhow::Result;
use clap::{Args, CommandFactory as _, ValueEnum};
use kube::api::ListParams;
use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

/// A shell asks while its user waits: names that the cluster gives later than this are done without.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// The script kubectl_complete-slipway, which completes `kubectl slipway` in every shell that kubectl completes
    Kubectl,
}

/// Flags of `completion`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(slipway completion bash)
  slipway completion zsh > \"${fpath[1]}/_slipway\"
  slipway completion kubectl > /usr/local/bin/kubectl_complete-slipway && chmod +x /usr/local/bin/kubectl_complete-slipway")]
pub struct Options {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// What stands on the command line after `kubectl slipway`.
#[derive(Debug, Args)]
pub struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Prints a script.
pub fn run(options: &Options) -> ExitCode {
    let mut script = Vec::new();
    let generator = match options.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Kubectl => {
            script.extend_from_slice(b"#!/bin/sh\nexec kubectl-slipway __complete \"$@\"\n");
            return print(&script);
        }
    };
    clap_complete::generate(generator, &mut Cli::command(), "slipway", &mut script);
    print(&script)
}

fn print(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints the words that may come next, one a line, and what kubectl is to do with them (the protocol of cobra, kubectl's
/// command-line library).
pub async fn complete(words: Words) -> Result<ExitCode> {
    let (last, before) = match words.words.split_last() {
        Some((last, before)) => (last.clone(), before),
        None => (String::new(), [].as_slice()),
    };
    let mut candidates = candidates(&Cli::command(), before, &last);
    let files = candidates.is_empty() || takes_directory(before);
    if takes_build(before) && !last.starts_with('-') {
        candidates = names(before).await.unwrap_or_default();
    }
    let mut out = io::stdout().lock();
    for word in candidates.iter().filter(|word| word.starts_with(&last)) {
        writeln!(out, "{word}")?;
    }
    // 4: no file names in their place; 0: those too.
    writeln!(out, ":{}", if files { 0 } else { 4 })?;
    Ok(ExitCode::SUCCESS)
}

/// Subcommands and flags.
fn candidates(command: &clap::Command, before: &[String], last: &str) -> Vec<String> {
    let known = before.iter().find_map(|word| command.find_subcommand(word));
    match known {
        None if last.starts_with('-') => Vec::new(),
        None => command
            .get_subcommands()
            .filter(|subcommand| !subcommand.is_hide_set())
            .map(|subcommand| subcommand.get_name().to_owned())
            .collect(),
        Some(subcommand) => {
            let flag = before.last().and_then(|word| word.strip_prefix("--"));
            let valued = flag.and_then(|flag| {
                subcommand
                    .get_arguments()
                    .find(|one| one.get_long() == Some(flag))
            });
            let values = valued.map(clap::Arg::get_possible_values).unwrap_or_default();
            if !values.is_empty() {
                return values.iter().map(|value| value.get_name().to_owned()).collect();
            }
            if !last.starts_with('-') {
                return Vec::new();
            }
            let flags = subcommand.get_arguments().filter(|one| !one.is_hide_set());
            flags
                .filter_map(clap::Arg::get_long)
                .map(|long| format!("--{long}"))
                .collect()
        }
    }
}

fn takes_build(before: &[String]) -> bool {
    let commands = [
        "status", "follow", "logs", "cancel", "rebuild", "graph", "explain",
    ];
    before
        .first()
        .is_some_and(|word| commands.contains(&word.as_str()))
}

fn takes_directory(before: &[String]) -> bool {
    before
        .first()
        .is_some_and(|word| ["build", "lint", "graph"].contains(&word.as_str()))
}

/// The ImageBuilds of the namespace that the command line so far names.
async fn names(before: &[String]) -> Result<Vec<String>> {
    let value = |names: [&str; 2]| {
        let at = before.iter().position(|word| names.contains(&word.as_str()))?;
        before.get(at + 1).cloned()
    };
    let options = ClusterOptions {
        namespace: value(["-n", "--namespace"]),
        context: value(["--context", "--context"]),
        kubeconfig: value(["--kubeconfig", "--kubeconfig"]).map(Into::into),
        ..ClusterOptions::default()
    };
    let cluster: Cluster = options.connect().await?;
    let api = cluster.builds();
    let params = ListParams::default();
    let list = tokio::time::timeout(PATIENCE, api.list_metadata(&params)).await??;
    Ok(list
        .items
        .into_iter()
        .filter_map(|build| build.metadata.name)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(before: &[&str], last: &str) -> Vec<String> {
        let before: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
        let mut words = candidates(&Cli::command(), &before, last);
        words.retain(|word| word.starts_with(last));
        words
    }

    #[test]
    fn commands_flags_and_their_values_are_offered() {
        assert_eq!(offered(&[], "sta"), ["status"]);
        assert!(!offered(&[], "").contains(&"__complete".to_owned()));
        assert_eq!(offered(&["logs", "shop"], "--fo"), ["--follow"]);
        assert_eq!(
            offered(&["status", "shop", "--output"], ""),
            ["wide", "json", "yaml"]
        );
        assert_eq!(offered(&["status"], ""), [""; 0]);
    }

    #[test]
    fn every_command_that_takes_a_build_is_known_to_do_so() {
        for name in [
            "status", "follow", "logs", "cancel", "rebuild", "graph", "explain",
        ] {
            assert!(takes_build(&[name.to_owned()]));
            assert!(Cli::command().find_subcommand(name).is_some(), "{name}");
        }
    }
}
