//! Programs of other architectures: whether they run here, and QEMU for those that do not.
//!
//! Since Linux 6.7 a user namespace may have handlers for foreign programs of its own (binfmt_misc). A pod in a user
//! namespace can so bring its own emulator: nothing is changed on the node, nothing is seen outside the pod, and no
//! privilege is needed. Where the node has handlers already, they are used as they are.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::mount::{MountFlags, mount};

use crate::{Error, sys};

mod machine;

pub use machine::Machine;

/// Where images keep programs.
const FOLDERS: [&str; 4] = ["usr/bin", "usr/local/bin", "bin", "."];

impl Machine {
    /// Whether its programs run here. Tried by running one, below `dir`.
    pub fn runs(&self, dir: &Path) -> bool {
        let file = dir.join(format!("runs-{}", self.architecture));
        let made = fs::write(&file, self.program())
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)));
        let runs = made.is_ok()
            && Command::new(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        let _ = fs::remove_file(&file);
        runs
    }

    /// The emulator for it in a tree of files, if there is one.
    fn emulator(&self, tree: &Path) -> Option<PathBuf> {
        FOLDERS
            .iter()
            .flat_map(|folder| {
                let folder = tree.join(folder);
                [
                    folder.join(format!("qemu-{}-static", self.qemu)),
                    folder.join(format!("qemu-{}", self.qemu)),
                ]
            })
            .find(|file| file.is_file())
    }
}

/// Sees to it that programs of an architecture run in this user namespace: as the node does it, or with the emulator in
/// `emulators`. `dir` is a directory whose files may be executed.
///
/// # Errors
/// [`Error::Environment`]: there is no way; for people.
pub fn emulate(architecture: &str, emulators: &Path, dir: &Path) -> Result<(), Error> {
    let unknown = || Error::Environment(format!("programs for {architecture} cannot be emulated"));
    let machine = Machine::of(architecture).ok_or_else(unknown)?;
    if machine.runs(dir) {
        return Ok(());
    }
    let Some(emulator) = machine.emulator(emulators) else {
        return Err(Error::Environment(format!(
            "this node does not run programs for {architecture}, and there is no qemu-{} among the emulators of the chart (emulation.image)",
            machine.qemu
        )));
    };
    register(machine, &emulator, dir)?;
    if machine.runs(dir) {
        return Ok(());
    }
    Err(Error::Environment(format!(
        "this node takes {} as an emulator for {architecture}, but programs do not run with it",
        emulator.display()
    )))
}

/// The architectures other than this machine's own whose programs run here, or would with an emulator in `emulators`.
pub fn emulated(emulators: &Path, dir: &Path) -> Vec<&'static str> {
    let others = || {
        Machine::all()
            .iter()
            .filter(|machine| machine.rust != std::env::consts::ARCH)
    };
    // First what the node itself has: a handler of one's own hides all of those.
    let mut found: Vec<_> = others()
        .filter(|machine| machine.runs(dir))
        .map(|machine| machine.architecture)
        .collect();
    for machine in others() {
        if !found.contains(&machine.architecture) && emulate(machine.architecture, emulators, dir).is_ok() {
            found.push(machine.architecture);
        }
    }
    found.sort_unstable();
    found
}

/// Tells the kernel of an emulator, for this user namespace.
fn register(machine: &Machine, emulator: &Path, dir: &Path) -> Result<(), Error> {
    if !sys::in_user_namespace() {
        // Here it would be the node's own setting that changes.
        return Err(Error::Environment(
            "only a pod with a user namespace of its own can bring an emulator along; install QEMU's binfmt handlers on the node instead".to_owned(),
        ));
    }
    let handlers = dir.join("binfmt_misc");
    if !handlers.join("register").exists() {
        fs::create_dir_all(&handlers).map_err(|error| Error::path("create", &handlers, error))?;
        mount("binfmt_misc", &handlers, "binfmt_misc", MountFlags::empty(), None).map_err(|error| {
            Error::Environment(format!(
                "a pod cannot bring its own emulator to this node ({}): that takes Linux 6.7 and a user namespace; install QEMU's binfmt handlers on the node instead",
                io::Error::from(error)
            ))
        })?;
    }
    // A volume that is an image may be mounted without the right to execute.
    let own = dir.join(format!("qemu-{}", machine.qemu));
    fs::copy(emulator, &own).map_err(|error| Error::path("copy", emulator, error))?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755))
        .map_err(|error| Error::path("set the mode of", &own, error))?;
    let register = handlers.join("register");
    fs::write(&register, machine.handler(&own)).map_err(|error| Error::path("write", &register, error))
}
