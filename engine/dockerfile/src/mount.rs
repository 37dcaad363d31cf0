//! The values of `RUN --mount`.

use serde::{Deserialize, Serialize};

use crate::expand::ExpandError;

/// One mount of a `RUN`. Absent means not written; planning applies the defaults that depend on the stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `type`
    pub kind: MountKind,
    /// `from`
    pub from: Option<String>,
    /// `source`, `src`
    pub source: Option<String>,
    /// `target`, `dst`, `destination`
    pub target: Option<String>,
    /// `readonly`, `ro`, `rw`, or the type's default.
    pub readonly: bool,
    /// `size` of a tmpfs, bytes.
    pub size: Option<i64>,
    /// `id` of a cache, secret or ssh mount.
    pub id: Option<String>,
    /// `sharing` of a cache.
    pub sharing: Option<Sharing>,
    /// `required` of a secret or ssh mount.
    pub required: bool,
    /// `env` of a secret.
    pub env: Option<String>,
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// `type` of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret as a file or a variable.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

/// `sharing` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Several steps at once.
    #[default]
    Shared,
    /// A second step gets a fresh directory.
    Private,
    /// A second step waits.
    Locked,
}

/// Why a mount cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Not what BuildKit takes either.
    #[error("{0}")]
    Invalid(String),
    /// A variable in it cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

/// Expands one option's value.
pub type Expander<'a> = dyn FnMut(&str) -> Result<String, ExpandError> + 'a;

/// Reads the value of one `--mount`, option by option from left to right; `expand` is applied to each value.
pub fn parse(value: &str, expand: &mut Expander<'_>) -> Result<Mount, MountError> {
    let _ = expand(value)?;
    Err(MountError::Invalid("not implemented".to_owned()))
}
