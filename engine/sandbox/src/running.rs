//! The builder's side of a step: start it, read it, wait for it, kill it.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    Error, Exit, Step,
    helper::{Report, Request, Task},
    ids,
    stubs::Stubs,
};

/// A step that runs. Dropping it without [`Running::wait`] kills the step.
#[derive(Debug)]
pub struct Running {
    /// What the step writes to its standard output; end of file when every process of it is gone. Read both pipes, or
    /// the step will block.
    pub stdout: Option<File>,
    /// What the step writes to its standard error.
    pub stderr: Option<File>,
    killer: Killer,
    helper: Child,
    stubs: Stubs,
    dir: PathBuf,
    ended: bool,
}

/// Ends a running step from any thread.
#[derive(Debug, Clone)]
pub struct Killer {
    control: Arc<UnixStream>,
    cancelled: Arc<AtomicBool>,
}

impl Killer {
    /// Kills every process of the step. Does nothing when it has ended.
    pub fn kill(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        // The helper sees the end of the socket and kills the step; its answer still comes through the other half.
        let _ = self.control.shutdown(Shutdown::Write);
    }
}

impl Running {
    /// A handle with which another thread can end the step.
    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// Blocks until the step has ended and its mount points are cleaned away. Output that was not read is lost.
    ///
    /// # Errors
    /// When the step could not be started: see [`Error`].
    pub fn wait(mut self) -> Result<Exit, Error> {
        self.finish()
    }

    fn finish(&mut self) -> Result<Exit, Error> {
        self.ended = true;
        let mut answer = Vec::new();
        let read = (&*self.killer.control).read_to_end(&mut answer);
        let status = self
            .helper
            .wait()
            .map_err(|error| Error::system("wait for the sandbox helper", error))?;
        self.stubs.clean();
        // The helper does it, unless it was killed.
        if let Err(error) = fs::remove_dir(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(dir = %self.dir.display(), %error, "a step's directory stays");
        }
        match serde_json::from_slice(&answer) {
            Ok(Report::Ended(exit)) => Ok(exit),
            Ok(Report::Failed(_)) | Err(_) if self.killer.cancelled.load(Ordering::SeqCst) => {
                Ok(Exit::Cancelled)
            }
            Ok(Report::Failed(failure)) => Err(failure.into()),
            Err(_) => Err(Error::Helper(match read {
                Ok(_) => status.to_string(),
                Err(error) => format!("{status}, {error}"),
            })),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.killer.kill();
            if let Err(error) = self.finish() {
                tracing::debug!(%error, "a dropped step ended with an error");
            }
        }
    }
}

/// Starts a step. Returns when the helper is started; whether the command could be, [`Running::wait`] tells.
///
/// Blocking, for a few milliseconds at most. May be called from any thread.
///
/// # Errors
/// When the step is not well-formed, or the helper cannot be started.
pub fn spawn(step: &Step) -> Result<Running, Error> {
    check(step)?;
    ids::check(step)?;
    let id = next_id();
    let dir = step.state_dir.join(format!("step-{id}"));
    fs::create_dir_all(&dir).map_err(|error| Error::path("create", &dir, error))?;
    let started = start(step, id, dir.clone());
    if started.is_err() {
        let _ = fs::remove_dir(&dir);
    }
    started
}

fn start(step: &Step, id: String, dir: PathBuf) -> Result<Running, Error> {
    let mut step = step.clone();
    let (stubs, [resolv_conf, hosts]) = Stubs::note(&mut step)?;
    let request = Request {
        id,
        dir: dir.clone(),
        resolv_conf,
        hosts,
        step,
    };
    let json = serde_json::to_vec(&request).map_err(|error| Error::Invalid(error.to_string()))?;
    let (mut control, theirs) =
        UnixStream::pair().map_err(|error| Error::system("make a socket pair", error))?;
    let pipe = || io::pipe().map_err(|error| Error::system("make a pipe", error));
    let ((stdout, step_stdout), (stderr, step_stderr)) = (pipe()?, pipe()?);
    let helper = Task::Step
        .command()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(step_stdout)
        .stderr(step_stderr)
        .spawn()
        .map_err(|error| {
            Error::system(
                "start the sandbox helper (this program again, from /proc/self/exe)",
                error,
            )
        })?;
    let sent = control
        .write_all(&(json.len() as u64).to_le_bytes())
        .and_then(|()| control.write_all(&json));
    let running = Running {
        stdout: Some(File::from(OwnedFd::from(stdout))),
        stderr: Some(File::from(OwnedFd::from(stderr))),
        killer: Killer {
            control: Arc::new(control),
            cancelled: Arc::default(),
        },
        helper,
        stubs,
        dir,
        ended: false,
    };
    match sent {
        Ok(()) => Ok(running),
        Err(error) => Err(Error::system(
            "send the step to its helper (is `init` the first line of main?)",
            error,
        )),
    }
}

/// What no runtime should have to find out.
fn check(step: &Step) -> Result<(), Error> {
    let invalid = |text: String| Err(Error::Invalid(text));
    if step.argv.is_empty() {
        return invalid("no command was given".to_owned());
    }
    if !step.rootfs.is_absolute() || !step.cwd.starts_with('/') {
        return invalid(format!(
            "{} and {:?} must be absolute",
            step.rootfs.display(),
            step.cwd
        ));
    }
    for mount in &step.mounts {
        if !mount.target.starts_with('/') || mount.target.trim_matches('/').is_empty() {
            return invalid(format!(
                "a mount's target must be absolute and not the root, but one is {:?}",
                mount.target
            ));
        }
        if mount.target.split('/').any(|part| part == "..") {
            return invalid(format!(
                "a mount's target must not contain `..`: {:?}",
                mount.target
            ));
        }
    }
    for name in step.ulimits.keys() {
        if !ULIMITS.contains(&name.as_str()) {
            return invalid(format!(
                "unknown ulimit {name:?}; known are {}",
                ULIMITS.join(", ")
            ));
        }
    }
    Ok(())
}

/// The resource limits of Linux, as `getrlimit(2)` has them.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Unique on the machine as long as this process lives: it names a directory and a cgroup.
fn next_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let started = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.subsec_nanos());
    format!(
        "{}-{}-{started:x}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
