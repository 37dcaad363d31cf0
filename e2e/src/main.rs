//! `slipway-e2e`: the embedded cluster and all that is done with it.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use slipway_e2e::{base, cluster, demo, images, install, preflight, process, tools::Tools};

/// The embedded Kubernetes cluster of Slipway's tests.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Say what this machine lacks; install the packages where that is possible (Debian, root)
    Packages,
    /// Build the cluster's programs into the cache
    Tools {
        /// Also what Slipway is compared with: buildkitd and buildctl
        #[arg(long)]
        peer: bool,
    },
    /// Start the cluster, or mend it
    Up {
        /// At least so many nodes
        #[arg(long)]
        nodes: Option<u8>,
        /// Let pods and nodes reach the world outside this machine
        #[arg(long, env = "SLIPWAY_INTERNET")]
        internet: bool,
        /// A further node that says it is an arm64 one, with QEMU behind it
        #[arg(long)]
        arm64: bool,
    },
    /// Stop the cluster and leave nothing behind
    Down,
    /// Say what runs
    Status,
    /// Make the operator and runner images and load them into nodes and registry
    Images,
    /// Make the base images (Debian, busybox) and push them to the registry
    Base,
    /// Install the chart
    Install,
    /// Build examples/hello, run its image, measure the overhead
    Demo,
    /// Run a command with the cluster's environment
    Env {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// Become a program of the cluster (used by `up`)
    #[command(hide = true)]
    Exec {
        #[arg(long)]
        cgroup: String,
        #[arg(long)]
        netns: Option<PathBuf>,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        // Before any thread is started: see process::exec.
        Cmd::Exec {
            cgroup,
            netns,
            command,
        } => process::exec(&cgroup, netns.as_deref(), &command),
        Cmd::Packages => preflight::install(),
        Cmd::Tools { peer } => Tools::build(peer).map(|_| ()),
        Cmd::Down => cluster::down(),
        Cmd::Env { command } => install::env(&command),
        other => run(&other),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(command: &Cmd) -> anyhow::Result<()> {
    cluster::install_tls_provider();
    match command {
        Cmd::Up {
            nodes,
            internet,
            arm64,
        } => {
            cluster::up(cluster::Options {
                nodes: *nodes,
                internet: *internet,
                arm64: *arm64,
            })
            .await
        }
        Cmd::Status => cluster::status().await,
        Cmd::Images => install::images(&images::release_folder()?).await,
        Cmd::Base => base::push().await,
        Cmd::Install => install::install().await,
        Cmd::Demo => demo::run().await,
        _ => Ok(()),
    }
}
