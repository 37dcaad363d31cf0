//! How the program ends: exit codes, and errors that know theirs.

use std::process::ExitCode;

/// The build failed, or a check found something.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The cluster could not be asked, refused, or has no such thing.
pub const CLUSTER: u8 = 3;
/// Stopped by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// What `--help` says of the exit codes.
pub const HELP: &str = "Exit codes: 0 all is well; 1 the build failed, or a check found something; 2 the command line is wrong; \
3 the cluster could not be asked, refused, or has no such thing; 130 stopped by Ctrl-C.";

/// An error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The cluster could not be asked, refused, or has no such thing.
    #[error("{0}")]
    Cluster(String),
}

/// An error of the command line.
pub fn usage(error: anyhow::Error) -> anyhow::Error {
    // With the place that a Dockerfile's error has, it is no matter of flags.
    if error.is::<slipway_engine::BuildError>() {
        return error;
    }
    Error::Usage(format!("{error:#}")).into()
}

/// Whether the reader of our output went away, as `| head` does: nothing to complain about.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref::<std::io::Error>().is_some_and(closed)
}

/// The exit code for an error.
pub fn code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Error>() {
        Some(Error::Usage(_)) => ExitCode::from(USAGE),
        Some(Error::Cluster(_)) => ExitCode::from(CLUSTER),
        None => ExitCode::from(FAILED),
    }
}
