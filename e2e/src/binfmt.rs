//! QEMU for a node that says it is of another architecture: the kernel is told once for the whole machine, and every
//! node and pod below it can run such programs (binfmt_misc, `Documentation/admin-guide/binfmt-misc.rst`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{command, config::Layout};

const FOLDER: &str = "/proc/sys/fs/binfmt_misc";
/// The one architecture that a node of the embedded cluster may claim.
pub const ARCHITECTURE: &str = "arm64";
/// What we tell the kernel it by.
const NAME: &str = "slipway-aarch64";
/// How QEMU's package, where something runs its triggers, does.
const PACKAGED: &str = "qemu-aarch64";
const INTERPRETER: &str = "qemu-aarch64-static";
/// The start of a 64-bit little-endian ELF executable for AArch64 (`e_machine` 183), and which of its bits count. `F`:
/// the interpreter is opened now, so that it need not be in any container.
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

/// Notes that the file system was mounted by us.
fn marker(layout: &Layout) -> PathBuf {
    layout.state().join("binfmt-mounted")
}

/// Sees to it that this machine runs programs for arm64.
///
/// # Errors
/// When QEMU is missing or the kernel does not take it: with the command that mends it.
pub fn ensure(layout: &Layout) -> Result<()> {
    let folder = Path::new(FOLDER);
    if !folder.join("register").exists() {
        mount("binfmt_misc", folder, "binfmt_misc", MountFlags::empty(), None)
            .context("the kernel takes no interpreters for foreign programs: modprobe binfmt_misc")?;
        fs::write(marker(layout), "")?;
    }
    if [NAME, PACKAGED].iter().any(|name| folder.join(name).exists()) {
        return Ok(());
    }
    let qemu = command::find(INTERPRETER).with_context(|| {
        format!("{INTERPRETER} is missing: apt-get install -y --no-install-recommends qemu-user-static")
    })?;
    let line = format!(":{NAME}:M::{MAGIC}:{MASK}:{}:F", qemu.display());
    fs::write(folder.join("register"), line).context("the kernel does not take QEMU as an interpreter")
}

/// Undoes [`ensure`], once no cluster is left that may need it.
pub fn remove(layout: &Layout) {
    if layout.others() {
        return;
    }
    let handler = Path::new(FOLDER).join(NAME);
    if handler.exists() {
        let _ = fs::write(&handler, "-1");
    }
    if marker(layout).exists() {
        let _ = unmount(FOLDER, UnmountFlags::empty());
        let _ = fs::remove_file(marker(layout));
    }
}
