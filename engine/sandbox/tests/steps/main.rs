//! Steps in real namespaces. A program of its own and not libtest's, because namespaces are entered by a process with
//! one thread. Run as root it tests root, and an ordinary user by starting itself again as one; run as an ordinary user
//! it tests that alone. Each case checks that no mount, process, cgroup or file is left.
//!
//! `cargo test -p slipway-sandbox --test steps -- NAME` runs the cases whose names contain NAME.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::{
    fs,
    io::Read,
    os::unix::process::CommandExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
};

use slipway_sandbox::{Overlay, OverlaySpec, Running, Step, enter, init, spawn};

mod cases;

/// What a case works with: a root filesystem of busybox, and room for overlays.
pub struct Room {
    dir: tempfile::TempDir,
    pub rootless: bool,
    pub all_ids: bool,
}

/// A mounted root filesystem.
pub struct Root {
    pub overlay: Overlay,
    pub upper: PathBuf,
}

/// How a step ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub exit: slipway_sandbox::Exit,
    pub out: String,
    pub err: String,
}

impl Room {
    fn new(rootless: bool, all_ids: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("slipway-steps-")
            .tempdir()
            .unwrap();
        let base = dir.path().join("base");
        for sub in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "home"] {
            fs::create_dir_all(base.join(sub)).unwrap();
        }
        fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "echo", "id", "ls", "grep", "sleep", "touch", "rm", "mkdir", "env", "pwd",
            "hostname", "ip", "kill", "dd", "head", "yes", "mount", "umount", "chroot", "chown", "stat",
            "setsid", "ps", "test", "true", "false", "wc", "chmod",
        ] {
            std::os::unix::fs::symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        fs::write(
            base.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nuser:x:5:6::/home:/bin/sh\n",
        )
        .unwrap();
        fs::write(base.join("etc/group"), "root:x:0:\nuser:x:6:\nmore:x:7:user\n").unwrap();
        fs::write(base.join("etc/keep"), "base\n").unwrap();
        Self {
            dir,
            rootless,
            all_ids,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> Root {
        self.root_over(vec![self.path("base")])
    }

    pub fn root_over(&self, lower: Vec<PathBuf>) -> Root {
        let path = |name: &str| {
            let path = self.dir.path().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            path
        };
        let upper = path("upper");
        let spec = OverlaySpec {
            lower,
            upper: Some(upper.clone()),
            work: Some(path("work")),
            target: path("merged"),
        };
        Root {
            overlay: Overlay::mount(&spec).unwrap(),
            upper,
        }
    }

    pub fn step(&self, root: &Root, script: &str) -> Step {
        let mut step = Step::new(root.overlay.path(), ["sh", "-c", script]);
        step.env = vec!["PATH=/bin".to_owned()];
        step.state_dir = self.dir.path().to_path_buf();
        step
    }
}

/// Runs a step to its end.
pub fn run(step: &Step) -> Result<Said, slipway_sandbox::Error> {
    finish(spawn(step)?)
}

pub fn finish(mut running: Running) -> Result<Said, slipway_sandbox::Error> {
    let read = |pipe: Option<fs::File>| {
        thread::spawn(move || {
            let mut text = String::new();
            pipe.unwrap().read_to_string(&mut text).unwrap();
            text
        })
    };
    let (out, err) = (read(running.stdout.take()), read(running.stderr.take()));
    let exit = running.wait()?;
    Ok(Said {
        exit,
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    })
}

/// The names in an upper directory, as a sorted list of paths.
pub fn tree(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, prefix: &str, all: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &name, all);
            }
            all.push(name);
        }
    }
    let mut all = Vec::new();
    walk(dir, "", &mut all);
    all.sort();
    all
}

/// What must be the same before and after a case.
fn traces(room: &Room) -> Vec<String> {
    // Others of this machine (a cluster's kubelet) mount and unmount meanwhile.
    let ours = room.dir.path().display().to_string();
    let mut traces: Vec<String> = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| line.contains(&ours))
        .map(ToOwned::to_owned)
        .collect();
    let me = std::process::id().to_string();
    let children = fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        // As the first process of a pod this one inherits dead orphans of others.
        let dead = fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.is_empty());
        if !dead {
            traces.push(format!("child {child}"));
        }
    }
    for dir in [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/memory",
    ] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("slipway-{me}-")) {
                traces.push(format!("cgroup {dir}/{name}"));
            }
        }
    }
    for entry in fs::read_dir(room.dir.path()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("step-") {
            traces.push(name);
        }
    }
    traces
}

fn main() -> ExitCode {
    init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = cases::roles(&arguments) {
        return code;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if !Path::new("/bin/busybox").exists() {
        println!("skipped: the steps need /bin/busybox (Debian: apt-get install busybox-static)");
        return ExitCode::SUCCESS;
    }
    let filter = arguments
        .iter()
        .find(|argument| !argument.starts_with('-'))
        .cloned()
        .unwrap_or_default();
    let was_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let identity = match enter() {
        Ok(identity) => identity,
        Err(error) => {
            println!("skipped: {error}");
            return ExitCode::SUCCESS;
        }
    };
    let all_ids = identity
        .uids
        .iter()
        .map(|range| u64::from(range.count))
        .sum::<u64>()
        > 65_535;
    let who = if identity.rootless {
        "an ordinary user"
    } else {
        "root"
    };
    let how = identity.note.as_deref().unwrap_or("all ids mapped");
    println!("as {who} ({how}):");
    let mut failed = 0;
    let room = Room::new(identity.rootless, all_ids);
    for (name, case) in cases::ALL {
        if !name.contains(&filter) {
            continue;
        }
        let before = traces(&room);
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&room)));
        let after = traces(&room);
        let clean = before == after;
        println!(
            "  {} {name}",
            if outcome.is_ok() && clean { "ok  " } else { "FAIL" }
        );
        if !clean {
            println!(
                "    left behind: {:?}",
                after
                    .iter()
                    .filter(|trace| !before.contains(trace))
                    .collect::<Vec<_>>()
            );
        }
        failed += usize::from(outcome.is_err() || !clean);
    }
    drop(room);
    // Not in a pod: there /proc is masked for user namespaces below.
    let in_pod = !fs::read_to_string("/proc/self/uid_map")
        .unwrap_or_default()
        .contains("4294967295");
    if was_root && !identity.rootless && !in_pod {
        // The same once more as a user who has nothing.
        let mut again = Command::new("/proc/self/exe");
        again
            .arg0("steps")
            .args(&arguments)
            .uid(65_534)
            .gid(65_534)
            .current_dir("/")
            .stdin(Stdio::null());
        if !again.status().unwrap().success() {
            failed += 1;
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
