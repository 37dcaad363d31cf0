//! `spec.debug.holdFailed`: the files of a `RUN` that failed are held for a person to look at.
//!
//! ```text
//! container runner: stage --hold ─ locks `alive` ─ RUN fails ─ writes `failed.json`, keeps upper ─ ends, with its message
//! container hold:   hold ─ waits for the lock, which the runner's end gives free ─ failed.json? ─ mounts the root, waits
//!                   enter ◀── kubectl exec                                        └ none: ends
//! ```
//! The runner must end at once, because its termination message is how the operator learns of the failure, and with a container
//! all its mounts go. So a second container of the same pod, which shares the store, mounts the root again. It holds no
//! credentials and no secret, and needs no word from anybody: the lock is given free by the kernel however the runner ends.

use crate::pod::internal;
use rustix::fs::{FlockOperation, flock};
use slipway_engine::{BuildError, FailedRoot, Keep, Result};
use slipway_plan::protocol::{FailureReason, STORE_DIR};
use slipway_sandbox::OverlaySpec;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// How often to look whether the runner has begun.
const POLL: Duration = Duration::from_millis(100);

/// Which failures are held beside that of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) out_of_memory: bool,
}

/// The folder in which runner and holder meet.
#[derive(Debug, Clone)]
struct Meeting(PathBuf);

impl Meeting {
    fn of_pod() -> Self {
        Self(Path::new(STORE_DIR).join("hold"))
    }

    /// Locked as long as the runner lives.
    fn alive(&self) -> PathBuf {
        self.0.join("alive")
    }

    fn failed(&self) -> PathBuf {
        self.0.join("failed.json")
    }

    /// Where the root is mounted.
    fn root(&self) -> PathBuf {
        self.0.join("root")
    }
}

/// The runner's side.
pub(crate) struct Keeper {
    wanted: Wanted,
    meeting: Meeting,
    /// Its lock ends with this process.
    _alive: File,
}

impl Keeper {
    /// Says that this process lives.
    pub(crate) fn begin(wanted: Wanted) -> Result<Self> {
        Self::begin_at(wanted, Meeting::of_pod())
    }

    fn begin_at(wanted: Wanted, meeting: Meeting) -> Result<Self> {
        let begin = || -> io::Result<File> {
            fs::create_dir_all(&meeting.0)?;
            let new = meeting.0.join("alive.new");
            let file = File::create(&new)?;
            flock(&file, FlockOperation::LockExclusive)?;
            // Only now can the other find it: never unlocked while this process lives.
            fs::rename(&new, meeting.alive())?;
            Ok(file)
        };
        let alive = begin().map_err(|error| BuildError::io("prepare holding a failed step", error))?;
        Ok(Self {
            wanted,
            meeting,
            _alive: alive,
        })
    }
}

impl Keep for Keeper {
    fn wants(&self, reason: FailureReason) -> bool {
        match reason {
            FailureReason::OutOfMemory => self.wanted.out_of_memory,
            _ => true,
        }
    }

    fn kept(&self, root: &FailedRoot) -> Result<()> {
        let json = serde_json::to_vec(root).map_err(|error| internal(error.to_string()))?;
        let new = self.meeting.0.join("failed.new");
        fs::write(&new, json)
            .and_then(|()| fs::rename(&new, self.meeting.failed()))
            .map_err(|error| BuildError::io("leave a failed step to its holder", error))
    }
}

/// The second container: ends when there is nothing to hold, when the time is over, or when it is told to.
pub(crate) async fn run(time: Duration) -> ExitCode {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        eprintln!("error: failed to listen to SIGTERM");
        return ExitCode::FAILURE;
    };
    let meeting = Meeting::of_pod();
    tokio::select! {
        code = hold(&meeting, time) => code,
        _ = terminated.recv() => {
            println!("told to stop; the files go");
            ExitCode::SUCCESS
        }
    }
}

async fn hold(meeting: &Meeting, time: Duration) -> ExitCode {
    let outcome = match runner_ended(meeting).await {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(failed)) => mount(meeting, &failed).map(|()| failed),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(failed) => {
            println!(
                "held for {} s: the files of the step that failed, {:?}",
                time.as_secs(),
                failed.args.join(" ")
            );
            println!(
                "enter them with kubectl exec -it {} -c hold -- slipway-runner enter; they are at {}",
                hostname(),
                meeting.root().display()
            );
            tokio::time::sleep(time).await;
            println!("the time is over; the files go");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", error.render());
            ExitCode::FAILURE
        }
    }
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// Waits for the runner's end. What it has left, if a step failed.
async fn runner_ended(meeting: &Meeting) -> Result<Option<FailedRoot>> {
    let file = loop {
        match File::open(meeting.alive()) {
            Ok(file) => break file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => tokio::time::sleep(POLL).await,
            Err(error) => return Err(BuildError::io("look for the runner", error)),
        }
    };
    // Not a blocking lock: its thread could not be stopped, and would keep this process from ending.
    while let Err(errno) = flock(&file, FlockOperation::NonBlockingLockShared) {
        if errno != rustix::io::Errno::WOULDBLOCK {
            return Err(BuildError::io("wait for the runner", errno.into()));
        }
        tokio::time::sleep(POLL).await;
    }
    match fs::read(meeting.failed()) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|error| internal(format!("what the runner left is not understood: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BuildError::io("read what the runner left", error)),
    }
}

fn mount(meeting: &Meeting, failed: &FailedRoot) -> Result<()> {
    let work = meeting.0.join("work");
    for dir in [&work, &meeting.root()] {
        fs::create_dir_all(dir)
            .map_err(|error| BuildError::io(format!("create {}", dir.display()), error))?;
    }
    let spec = OverlaySpec {
        lower: failed.lower.clone(),
        upper: Some(failed.upper.clone()),
        // Not the step's own: a volatile overlay can be mounted once.
        work: Some(work),
        target: meeting.root(),
    };
    slipway_sandbox::hold(&spec).map_err(|error| {
        BuildError::new(
            FailureReason::SandboxUnavailable,
            format!("the files of the failed step cannot be mounted again: {error}"),
        )
    })
}

/// `kubectl exec … -c hold -- slipway-runner enter [COMMAND]`.
pub(crate) fn enter(command: &[String]) -> ExitCode {
    let meeting = Meeting::of_pod();
    let failed = fs::read(meeting.failed())
        .ok()
        .and_then(|json| serde_json::from_slice::<FailedRoot>(&json).ok());
    let Some(failed) = failed.filter(|_| meeting.root().is_dir()) else {
        eprintln!("error: this pod holds no failed step (yet)");
        return ExitCode::FAILURE;
    };
    let shell = ["/bin/sh".to_owned()];
    let argv = if command.is_empty() { &shell } else { command };
    let error = slipway_sandbox::enter_held(&meeting.root(), &failed.user, &failed.cwd, &env(&failed), argv);
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// The step's environment, and what a terminal needs.
fn env(failed: &FailedRoot) -> Vec<String> {
    let mut env = failed.env.clone();
    if let Ok(term) = std::env::var("TERM") {
        env.push(format!("TERM={term}"));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> FailedRoot {
        FailedRoot {
            lower: vec!["/l".into()],
            upper: "/u".into(),
            user: slipway_sandbox::User::default(),
            cwd: "/".into(),
            env: vec!["A=b".into()],
            args: vec!["/bin/false".into()],
        }
    }

    fn keeper(meeting: &Meeting, out_of_memory: bool) -> Keeper {
        Keeper::begin_at(Wanted { out_of_memory }, meeting.clone()).unwrap()
    }

    #[tokio::test]
    async fn what_a_failed_step_left_is_found_when_the_runner_is_gone_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let meeting = Meeting(dir.path().join("hold"));
        let (waiter, runner) = (meeting.clone(), keeper(&meeting, false));
        runner.kept(&root()).unwrap();
        let waiting = tokio::spawn(async move { runner_ended(&waiter).await.unwrap() });
        // A second lock shows that the first stands: the waiter cannot have passed.
        let probe = File::open(meeting.alive()).unwrap();
        assert!(flock(&probe, FlockOperation::NonBlockingLockExclusive).is_err());
        assert!(!waiting.is_finished());
        drop(runner);
        assert_eq!(waiting.await.unwrap(), Some(root()));
    }

    #[tokio::test]
    async fn a_runner_that_goes_without_a_failed_step_leaves_nothing_to_hold() {
        let dir = tempfile::tempdir().unwrap();
        let meeting = Meeting(dir.path().join("hold"));
        drop(keeper(&meeting, false));
        assert_eq!(runner_ended(&meeting).await.unwrap(), None);
    }

    #[test]
    fn want_of_memory_is_held_only_when_it_is_final() {
        let dir = tempfile::tempdir().unwrap();
        let meeting = Meeting(dir.path().join("hold"));
        for (last, reason, wanted) in [
            (false, FailureReason::StepFailed, true),
            (false, FailureReason::OutOfMemory, false),
            (true, FailureReason::OutOfMemory, true),
        ] {
            assert_eq!(keeper(&meeting, last).wants(reason), wanted, "{last} {reason:?}");
        }
    }
}
