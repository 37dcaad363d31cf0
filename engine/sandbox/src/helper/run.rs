//! The helper's life: take the step, set the stage, run it, wait, report.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags,
        fsconfig_create, fsmount, fsopen, mount, mount_change, unmount,
    },
    process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal, waitpid},
    thread::UnshareFlags,
};
use serde::{Deserialize, Serialize};

use super::{
    Failure, chain,
    exec::StepExecutor,
    log::{self, ErrorLog},
    memory::OomCounter,
    network,
    spec::{Files, Machine, hosts, own_network, runtime_spec},
};
use crate::{Exit, MountKind, Step, sys};

/// What the builder sends, behind its length in eight bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: String,
    /// A directory of this step alone; the helper covers it with a tmpfs that only it sees.
    pub(crate) dir: PathBuf,
    /// Where /etc/resolv.conf really is in the image.
    pub(crate) resolv_conf: String,
    /// Where /etc/hosts really is in the image.
    pub(crate) hosts: String,
    pub(crate) step: Step,
}

/// What the helper answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Report {
    Ended(Exit),
    Failed(Failure),
}

/// Entry of the helper. Its standard input is the socket to the builder.
pub(super) fn main() -> i32 {
    let Ok(mut control) = take_control() else {
        return 125;
    };
    let ended = receive(&mut control).and_then(|request| {
        let ended = run(&request, &control);
        reap();
        // The builder would remove the directory too, but it may be the builder's death that ended the step.
        let _ = unmount(&request.dir, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&request.dir);
        ended
    });
    let report = match ended {
        Ok(exit) => Report::Ended(exit),
        Err(failure) => Report::Failed(failure),
    };
    match serde_json::to_vec(&report).map(|json| control.write_all(&json)) {
        Ok(Ok(())) => 0,
        _ => 125,
    }
}

/// Moves the socket away from standard input, where the step will find /dev/null.
fn take_control() -> io::Result<UnixStream> {
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(UnixStream::from(control))
}

fn receive(control: &mut UnixStream) -> Result<Request, Failure> {
    let broken = |error: &dyn std::error::Error| {
        Failure::Runtime(format!("failed to read the step: {}", chain(error)))
    };
    let mut length = [0; 8];
    control.read_exact(&mut length).map_err(|error| broken(&error))?;
    let mut json = Vec::new();
    let length = u64::from_le_bytes(length);
    control
        .take(length)
        .read_to_end(&mut json)
        .map_err(|error| broken(&error))?;
    serde_json::from_slice(&json).map_err(|error| broken(&error))
}

fn run(request: &Request, control: &UnixStream) -> Result<Exit, Failure> {
    let oom = OomCounter::open();
    let step = &request.step;
    let cgroup2 = leave_namespaces(step)?;
    let files = make_files(request).map_err(|error| {
        Failure::Runtime(format!(
            "failed to make the step's files in {}: {error}",
            request.dir.display()
        ))
    })?;
    check_cwd(step)?;
    let machine = Machine::look(own_sysfs(), cgroup2);
    let bundle = request.dir.join("bundle");
    let spec = runtime_spec(step, &request.id, &files, &machine);
    fs::create_dir(&bundle)
        .and_then(|()| fs::write(bundle.join("config.json"), spec.to_string()))
        .map_err(|error| Failure::Runtime(format!("failed to write {}: {error}", bundle.display())))?;

    let (mut failures, report) =
        io::pipe().map_err(|error| Failure::Runtime(format!("failed to make a pipe: {error}")))?;
    let executor = StepExecutor {
        failures: Rc::new(File::from(OwnedFd::from(report))),
    };
    let (log, lines) =
        io::pipe().map_err(|error| Failure::Runtime(format!("failed to make a pipe: {error}")))?;
    ErrorLog::install(File::from(OwnedFd::from(lines)));
    let started = start(request, &bundle, executor).map_err(|text| explain(&with_cause(text, log), step));
    let cgroup = cgroup2.then(|| Path::new("/sys/fs/cgroup").join(format!("slipway-{}", request.id)));
    let outcome = started.and_then(|pid| {
        let exit = wait(pid, control)?;
        let mut failed = Vec::new();
        let _ = failures.read_to_end(&mut failed);
        match serde_json::from_slice(&failed) {
            Ok(failure) => Err(failure),
            Err(_) => Ok(exit),
        }
    });
    if let Some(cgroup) = cgroup {
        let _ = fs::remove_dir(cgroup);
    }
    outcome.map(|exit| match exit {
        // A shell whose child was killed ends with 137 by itself.
        Exit::Signal(9) | Exit::Code(137) if oom.rose() => Exit::Oom,
        other => other,
    })
}

/// Takes mounts, cgroups (and the network, if asked for) apart from the builder's. Gives whether /sys/fs/cgroup is a
/// cgroup2 that the step may see.
fn leave_namespaces(step: &Step) -> Result<bool, Failure> {
    if own_network(step) {
        network::leave().map_err(|error| {
            Failure::Environment(format!(
                "failed to make a network namespace for the step: {error}"
            ))
        })?;
    }
    sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP).map_err(|error| {
        Failure::Environment(format!(
            "failed to make namespaces for the step: {error}; the builder needs CAP_SYS_ADMIN in its user namespace"
        ))
    })?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|errno| {
        Failure::Environment(format!(
            "failed to make mounts private: {}",
            io::Error::from(errno)
        ))
    })?;
    // On a machine with cgroup v1 (or both) libcontainer would make v1 cgroups, which a pod may not. With a cgroup2 in this
    // place, rooted at the builder's own cgroup, it does what it can there and leaves the rest.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, None).is_ok())
}

/// Puts a tmpfs over the step's directory, and into it what the step is shown: nothing of it reaches a disk or outlives
/// the helper.
fn make_files(request: &Request) -> io::Result<Files> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("slipway-step", &request.dir, "tmpfs", flags, Some(c"mode=0755"))?;
    let step = &request.step;
    let path = |name: &str| request.dir.join(name).to_string_lossy().into_owned();
    let files = Files {
        hosts: (request.hosts.clone(), path("hosts")),
        resolv_conf: (request.resolv_conf.clone(), path("resolv.conf")),
        secrets: step
            .mounts
            .iter()
            .enumerate()
            .map(|(i, mount)| {
                matches!(mount.kind, MountKind::Secret { .. }).then(|| path(&format!("secret-{i}")))
            })
            .collect(),
    };
    write(&files.hosts.1, hosts(step).as_bytes(), 0o644)?;
    let resolv_conf = match &step.resolv_conf {
        Some(text) => text.clone().into_bytes(),
        None => fs::read("/etc/resolv.conf").unwrap_or_default(),
    };
    write(&files.resolv_conf.1, &resolv_conf, 0o644)?;
    for (mount, file) in step.mounts.iter().zip(&files.secrets) {
        if let (
            MountKind::Secret {
                content,
                mode,
                uid,
                gid,
            },
            Some(file),
        ) = (&mount.kind, file)
        {
            write(file, &content.0, 0o600)?;
            std::os::unix::fs::chown(file, Some(*uid), Some(*gid))?;
            fs::set_permissions(file, fs::Permissions::from_mode(*mode))?;
        }
    }
    Ok(files)
}

fn write(path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn check_cwd(step: &Step) -> Result<(), Failure> {
    use rustix::fs::{ResolveFlags, openat2};
    let missing = || Failure::Cwd(step.cwd.clone());
    // A mount of the step may bring the directory.
    if step
        .mounts
        .iter()
        .any(|mount| Path::new(&step.cwd).starts_with(&mount.target))
    {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&step.rootfs, flags, Mode::empty()).map_err(|errno| {
        Failure::Runtime(format!(
            "failed to open {}: {}",
            step.rootfs.display(),
            io::Error::from(errno)
        ))
    })?;
    let own = ["/proc", "/sys", "/dev"];
    if step.cwd == "/" || own.iter().any(|path| Path::new(&step.cwd).starts_with(path)) {
        return Ok(());
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(&root, step.cwd.as_str(), flags, Mode::empty(), resolve)
        .map(drop)
        .map_err(|_| missing())
}

/// A sysfs shows the network namespace, so only who owns that may mount one; and where the builder's own /sys is locked
/// read-only (a pod's is) the kernel refuses one that starts writable, as the runtime's does. Only making one tells.
fn own_sysfs() -> bool {
    let made = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|config| {
        fsconfig_create(&config)?;
        fsmount(&config, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    });
    made.is_ok()
}

/// Ends what the runtime left behind when it failed halfway. In a pod its processes would fall to the builder, which is
/// the first process there and waits for none of them.
fn reap() {
    let own = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    for pid in own
        .split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
    {
        let _ = kill_process(pid, Signal::KILL);
    }
    while let Ok(Some(_)) | Err(rustix::io::Errno::INTR) = rustix::process::wait(WaitOptions::empty()) {}
}

/// `pivot_root` is not in the seccomp profile of container runtimes. Asked for a place that is not there, a kernel that
/// would do it says so; a filter says EPERM.
fn may_pivot() -> bool {
    rustix::process::pivot_root("/proc/self/fd/-1", "/proc/self/fd/-1") != Err(rustix::io::Errno::PERM)
}

fn start(request: &Request, bundle: &Path, executor: StepExecutor) -> Result<Pid, String> {
    let failed = |error: &dyn std::error::Error| chain(error);
    let mut container = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_root_path(&request.dir)
        .map_err(|error| failed(&error))?
        .with_executor(executor)
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .with_no_pivot(!may_pivot())
        .build()
        .map_err(|error| failed(&error))?;
    container.start().map_err(|error| failed(&error))?;
    container
        .pid()
        .and_then(|pid| Pid::from_raw(pid.as_raw()))
        .ok_or_else(|| "the runtime names no process".to_owned())
}

/// Puts what the runtime logged behind its error.
fn with_cause(text: String, log: io::PipeReader) -> String {
    let mut lines = vec![0; 16 * 1024];
    // What is there: the pipe's other end stays open in this process, so its end never comes.
    let read = rustix::io::ioctl_fionread(&log)
        .unwrap_or(0)
        .min(lines.len() as u64) as usize;
    let mut log = log;
    match log.read(&mut lines[..read]) {
        Ok(n) if read > 0 => match log::causes(&String::from_utf8_lossy(&lines[..n])) {
            Some(cause) => format!("{text}: {cause}"),
            None => text,
        },
        _ => text,
    }
}

/// Says in our words what of the runtime's errors has a remedy.
fn explain(text: &str, step: &Step) -> Failure {
    if text.contains("rlimit") {
        return Failure::Environment(format!(
            "failed to set the resource limits {:?}: {text}; a limit above the builder's own needs CAP_SYS_RESOURCE",
            step.ulimits.keys().collect::<Vec<_>>()
        ));
    }
    if text.contains("/proc") && text.contains("EPERM") {
        return Failure::Environment(format!(
            "failed to mount a proc filesystem for the step: {text}; parts of the builder's own /proc are masked in a way \
             that the kernel does not let be undone here (in a pod: use hostUsers: false)"
        ));
    }
    Failure::Runtime(text.to_owned())
}

/// Waits for the step's first process, or kills it when the builder hangs up. With it every other process of its pid
/// namespace ends.
fn wait(pid: Pid, control: &UnixStream) -> Result<Exit, Failure> {
    let broken = |errno: rustix::io::Errno| {
        Failure::Runtime(format!("failed to wait for the step: {}", io::Error::from(errno)))
    };
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(broken)?;
    let mut cancelled = false;
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        if !cancelled {
            fds.push(PollFd::from_borrowed_fd(
                control.as_fd(),
                PollFlags::IN | PollFlags::RDHUP,
            ));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(broken(errno)),
        }
        if !fds[0].revents().is_empty() {
            break;
        }
        // The builder sends nothing after the step: whatever comes is its end.
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            cancelled = true;
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    let status = loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => break status,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(broken(errno)),
        }
    };
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(_)) if cancelled => Exit::Cancelled,
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(255),
    })
}
