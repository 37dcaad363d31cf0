//! The helper: this program, started again with a single thread.
//!
//! libcontainer runs Rust code between `clone` and `exec`, which is sound only where no other thread can hold a lock at
//! that moment; and namespaces can be left by a single-threaded process alone. So every step has a helper, found by the
//! name that it is started under.

use std::{ffi::OsStr, os::unix::process::CommandExt, process::Command};

use crate::Error;

mod exec;
mod log;
mod memory;
mod network;
mod run;
pub(crate) mod spec;

pub(crate) use exec::find;
pub(crate) use run::{Report, Request};

/// What a helper is asked to do; its name is the program's zeroth argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Step,
    MapIds,
    Probe,
    Network,
}

impl Task {
    const ALL: [Self; 4] = [Self::Step, Self::MapIds, Self::Probe, Self::Network];

    fn name(self) -> &'static str {
        match self {
            Self::Step => "slipway-sandbox-step",
            Self::MapIds => "slipway-sandbox-map-ids",
            Self::Probe => "slipway-sandbox-probe",
            Self::Network => "slipway-sandbox-network",
        }
    }

    /// The command that starts a helper for this task: the running program itself, also when its file is gone.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(self.name()).env_clear();
        // The step must not see the builder's environment; the helper needs only what finds programs.
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }
}

/// Must be the first line of `main` in every program that runs steps: when the program was started as a helper, it does
/// the helper's work and does not return.
pub fn init() {
    let mut arguments = std::env::args_os();
    let Some(zeroth) = arguments.next() else { return };
    let Some(task) = Task::ALL
        .into_iter()
        .find(|task| zeroth == OsStr::new(task.name()))
    else {
        return;
    };
    let arguments: Vec<String> = arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let code = match task {
        Task::Step => run::main(),
        Task::MapIds => crate::enter::map_ids_main(&arguments),
        Task::Probe => crate::probe::main(&arguments),
        Task::Network => network::main(),
    };
    std::process::exit(code);
}

/// An error and all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // libcontainer repeats the cause in some of its messages.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// What went wrong in the helper, told to the builder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Failure {
    Cwd(String),
    Program { program: String, reason: String },
    Runtime(String),
    Environment(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Cwd(cwd) => Self::Cwd { cwd },
            Failure::Program { program, reason } => Self::Program { program, reason },
            Failure::Runtime(text) => Self::Runtime(text),
            Failure::Environment(text) => Self::Environment(text),
        }
    }
}
