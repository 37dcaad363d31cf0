//! The one error type of this crate.

use std::{io, path::PathBuf};

/// Why a step could not be run, or a filesystem not be mounted. A command that runs and fails is no error but an
/// [`crate::Exit`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("failed to {action} {}", .path.display())]
    Path {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A system call without a path failed.
    #[error("failed to {action}")]
    System {
        /// What was tried, as a verb.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The working directory is not there.
    #[error(
        "the working directory {cwd:?} does not exist in the image or is no directory; add `WORKDIR {cwd}` before this instruction"
    )]
    Cwd {
        /// The directory as asked for.
        cwd: String,
    },
    /// The command is not there or cannot be executed.
    #[error("failed to start {program:?}: {reason}")]
    Program {
        /// The first word of the command.
        program: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The step contradicts itself or the machine.
    #[error("the step cannot be run: {0}")]
    Invalid(String),
    /// The container runtime refused.
    #[error("failed to set the step up: {0}")]
    Runtime(String),
    /// A user or group is unknown in the image.
    #[error("{0}")]
    User(String),
    /// What this machine or pod lacks.
    #[error("{0}")]
    Environment(String),
    /// The helper process ended without an answer.
    #[error("the sandbox helper ended without an answer ({0}); was it killed?")]
    Helper(String),
}

impl Error {
    pub(crate) fn path(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Path {
            action,
            path: path.into(),
            source: source.into(),
        }
    }

    pub(crate) fn system(action: &'static str, source: impl Into<io::Error>) -> Self {
        Self::System {
            action,
            source: source.into(),
        }
    }
}
