//! The namespaces of the builder itself, entered once, at the start of `main`.

use serde::{Deserialize, Serialize};

use crate::Error;

/// Who the builder is after [`enter`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The builder started as an ordinary user and is root in a user namespace of its own now.
    pub rootless: bool,
    /// User ids that exist here.
    pub uids: Vec<IdRange>,
    /// Group ids that exist here.
    pub gids: Vec<IdRange>,
    /// Why fewer ids are mapped than an image may need, if so; for a warning.
    pub note: Option<String>,
}

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Moves this process into a mount namespace of its own, so that no mount outlives it, and an ordinary user into a user
/// namespace in which it is root. Call it in `main` after [`crate::init`], before the first thread is started.
///
/// # Errors
/// When more than one thread runs, or the kernel refuses the namespaces.
pub fn enter() -> Result<Identity, Error> {
    Err(Error::Environment("not there yet".into()))
}
