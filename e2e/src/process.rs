//! Long-lived programs of the cluster: started in a session of their own, recorded by process id and start time, ended
//! only when both still fit, so that a recycled process id is never signalled.
//!
//! ```text
//! slipway-e2e up ─ spawn ─▶ slipway-e2e exec ── setsid, cgroup, network namespace ── execve ─▶ kubelet …
//!        └─ processes/kubelet-1.json {pid, start time, boot, command}
//! ```

use std::{
    fs::{self, File, OpenOptions},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setsid},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup,
    config::{Layout, write_atomically},
};

/// A program to keep running.
#[derive(Debug, Clone)]
pub struct Program {
    /// Unique in the cluster; names the record and the log.
    pub name: String,
    /// The file to run.
    pub file: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables besides `PATH`.
    pub env: Vec<(String, String)>,
    /// The network namespace to run in, a file; `None` for the machine's.
    pub netns: Option<PathBuf>,
    /// Configuration whose change asks for a restart, such as the text of a file that the arguments name.
    pub config: String,
}

impl Program {
    /// A program in the machine's own network namespace.
    pub fn new(name: impl Into<String>, file: PathBuf, args: impl IntoIterator<Item = String>) -> Self {
        Self {
            name: name.into(),
            file,
            args: args.into_iter().collect(),
            env: Vec::new(),
            netns: None,
            config: String::new(),
        }
    }

    fn command(&self) -> Vec<String> {
        let mut all = vec![self.file.display().to_string()];
        all.extend(self.args.iter().cloned());
        all.extend(self.env.iter().map(|(k, v)| format!("{k}={v}")));
        all.push(self.config.clone());
        all
    }
}

/// What is known of a program that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The program's name.
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot: with the id it is unique within one boot.
    pub start_time: u64,
    /// The boot in which it started.
    pub boot: String,
    /// What was run.
    pub command: Vec<String>,
}

impl Record {
    /// Whether that very process still runs.
    pub fn alive(&self) -> bool {
        self.boot == boot_id() && start_time(self.pid) == Some(self.start_time)
    }

    /// All records of a cluster.
    pub fn all(layout: &Layout) -> Vec<Self> {
        let mut records: Vec<Self> = fs::read_dir(layout.processes())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| serde_json::from_slice(&fs::read(e.path()).ok()?).ok())
            .collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        records
    }

    /// The record of the program called `name`.
    pub fn load(layout: &Layout, name: &str) -> Option<Self> {
        serde_json::from_slice(&fs::read(record_file(layout, name)).ok()?).ok()
    }

    /// Asks the process to end, and ends it after `grace`. Harmless when it has ended or its id is another's by now.
    pub fn stop(&self, layout: &Layout, grace: Duration) -> Result<()> {
        if let Some(handle) = self.handle() {
            let _ = pidfd_send_signal(&handle, Signal::TERM);
            if !wait_pidfd(&handle, grace) {
                let _ = pidfd_send_signal(&handle, Signal::KILL);
                if !wait_pidfd(&handle, Duration::from_secs(10)) {
                    bail!(
                        "{} (process {}) does not end, even when killed",
                        self.name,
                        self.pid
                    );
                }
            }
        }
        let _ = fs::remove_file(record_file(layout, &self.name));
        Ok(())
    }

    /// A handle on that very process.
    fn handle(&self) -> Option<rustix::fd::OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // After the handle is open: the process that it holds is the one whose start time is read, or has just ended.
        self.alive().then_some(handle)
    }
}

/// Starts `program` unless it runs already with the same command and configuration. Returns whether it was started.
pub fn ensure(layout: &Layout, program: &Program) -> Result<bool> {
    if let Some(record) = Record::load(layout, &program.name) {
        if record.alive() && record.command == program.command() {
            return Ok(false);
        }
        record.stop(layout, Duration::from_secs(10))?;
    }
    let log = log_file(layout, &program.name);
    fs::create_dir_all(layout.logs())?;
    let out = OpenOptions::new().create(true).append(true).open(&log);
    let out = out.with_context(|| format!("failed to open {}", log.display()))?;

    let mut command =
        Command::new(std::env::current_exe().context("failed to find this program's own file")?);
    command
        .arg("exec")
        .arg("--cgroup")
        .arg(format!("{}/system", layout.cgroup()));
    if let Some(netns) = &program.netns {
        command.arg("--netns").arg(netns);
    }
    command.arg("--").arg(&program.file).args(&program.args);
    command.env_clear().envs(program.env.iter().cloned());
    command.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    let child = command
        .spawn()
        .with_context(|| format!("failed to start {}", program.name))?;

    let pid = child.id() as i32;
    let record = Record {
        name: program.name.clone(),
        pid,
        start_time: start_time(pid).with_context(|| failed(layout, &program.name))?,
        boot: boot_id(),
        command: program.command(),
    };
    write_atomically(
        &record_file(layout, &program.name),
        &serde_json::to_vec_pretty(&record)?,
    )?;
    Ok(true)
}

/// Fails with the last lines of its log when the program called `name` has ended.
pub fn check(layout: &Layout, name: &str) -> Result<()> {
    match Record::load(layout, name) {
        Some(record) if record.alive() => Ok(()),
        _ => bail!("{}", failed(layout, name)),
    }
}

fn failed(layout: &Layout, name: &str) -> String {
    let log = log_file(layout, name);
    format!(
        "{name} has ended; the last lines of {}:\n{}",
        log.display(),
        tail(&log, 15)
    )
}

/// The last `count` lines of a file.
pub fn tail(file: &Path, count: usize) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(16 * 1024)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The `exec` subcommand: turns this process into the program. Returns only when that fails. No thread may have been
/// started: the network namespace is entered by the calling thread, which is the one that `execve` keeps.
pub fn exec(cgroup: &str, netns: Option<&Path>, command: &[String]) -> Result<()> {
    // A parent that leads its group already leads a session of its own in all that matters here.
    let _ = setsid();
    cgroup::join(cgroup)?;
    if let Some(netns) = netns {
        let file = File::open(netns).with_context(|| format!("failed to open {}", netns.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("failed to enter {}", netns.display()))?;
    }
    let (program, args) = command.split_first().context("no program given")?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("failed to run {program}"))
}

/// Waits for a process to end; `false` when it still runs after `limit`.
pub fn wait_pidfd(handle: impl AsFd, limit: Duration) -> bool {
    let limit = Timespec {
        tv_sec: limit.as_secs() as i64,
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    let mut fds = [PollFd::new(&handle, PollFlags::IN)];
    poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0)
}

fn log_file(layout: &Layout, name: &str) -> PathBuf {
    layout.logs().join(format!("{name}.log"))
}

fn record_file(layout: &Layout, name: &str) -> PathBuf {
    layout.processes().join(format!("{name}.json"))
}

/// Start time of a process that runs (a zombie does not), from `/proc/PID/stat`.
fn start_time(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &tempfile::TempDir) -> Layout {
        Layout {
            name: "test".into(),
            root: dir.path().to_owned(),
        }
    }

    fn record(child: &std::process::Child) -> Record {
        let pid = child.id() as i32;
        Record {
            name: "sleeper".into(),
            pid,
            start_time: start_time(pid).unwrap(),
            boot: boot_id(),
            command: Vec::new(),
        }
    }

    #[test]
    fn a_name_with_a_parenthesis_does_not_confuse_the_start_time() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        assert_eq!(parse_stat(stat), Some(4242));
        assert_eq!(parse_stat(&stat.replace(" S ", " Z ")), None);
    }

    #[test]
    fn a_recorded_process_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let record = record(&child);
        assert!(record.alive());
        record.stop(&layout(&dir), Duration::from_secs(5)).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!record.alive());
    }

    #[test]
    fn a_process_with_a_recycled_id_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let mut stale = record(&child);
        stale.start_time -= 1;
        assert!(!stale.alive());
        stale.stop(&layout(&dir), Duration::from_secs(1)).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_record_of_another_boot_is_not_alive() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let mut old = record(&child);
        old.boot = "another".into();
        assert!(!old.alive());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
