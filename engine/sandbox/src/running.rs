//! The builder's side of a step: start it, read it, wait for it, kill it.

use std::{
    fs::File,
    sync::{Arc, atomic::AtomicBool},
};

use crate::{Error, Exit, Step};

/// A step that runs. Dropping it without [`Running::wait`] kills the step.
#[derive(Debug)]
pub struct Running {
    /// What the step writes to its standard output; end of file when every process of it is gone. Read both pipes, or
    /// the step will block.
    pub stdout: Option<File>,
    /// What the step writes to its standard error.
    pub stderr: Option<File>,
}

/// Ends a running step from any thread.
#[derive(Debug, Clone)]
pub struct Killer {
    cancelled: Arc<AtomicBool>,
}

impl Killer {
    /// Kills every process of the step. Does nothing when it has ended.
    pub fn kill(&self) {
        let _ = &self.cancelled;
    }
}

impl Running {
    /// A handle with which another thread can end the step.
    pub fn killer(&self) -> Killer {
        Killer { cancelled: Arc::default() }
    }

    /// Blocks until the step has ended and its mount points are cleaned away.
    ///
    /// # Errors
    /// When the step could not be started: see [`Error`].
    pub fn wait(self) -> Result<Exit, Error> {
        Err(Error::Helper("not there yet".into()))
    }
}

/// Starts a step. Returns when the helper is started; whether the command could be, [`Running::wait`] tells.
///
/// # Errors
/// When the helper cannot be started or the step's mount points cannot be made.
pub fn spawn(_step: &Step) -> Result<Running, Error> {
    Err(Error::Helper("not there yet".into()))
}
