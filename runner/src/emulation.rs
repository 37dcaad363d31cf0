//! Programs of other architectures in a pod.

use crate::pod::Pod;
use slipway_engine::{BuildError, Result};
use slipway_plan::protocol::{EMULATORS_DIR, FailureReason, TerminationMessage};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Sees to it that programs of an architecture run here.
pub(crate) fn prepare(architecture: &str) -> Result<()> {
    slipway_sandbox::emulation::emulate(architecture, Path::new(EMULATORS_DIR), &scratch()?)
        .map_err(|error| BuildError::new(FailureReason::SandboxUnavailable, error.to_string()))
}

/// Tells which other architectures this node runs.
pub(crate) fn probe() -> Result<TerminationMessage> {
    let found = slipway_sandbox::emulation::emulated(Path::new(EMULATORS_DIR), &scratch()?);
    println!("other architectures that run here: {}", found.join(", "));
    Ok(TerminationMessage::Probed {
        emulates: found.into_iter().map(ToOwned::to_owned).collect(),
    })
}

fn scratch() -> Result<PathBuf> {
    let dir = Pod::scratch("emulation");
    fs::create_dir_all(&dir).map_err(|error| BuildError::io(format!("create {}", dir.display()), error))?;
    Ok(dir)
}
