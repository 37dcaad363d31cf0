//! Runs a program with a time limit, its whole tree ended with it, and both of its outputs in one text.

use std::{
    io::{self, Read as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How long the output may stay open after the program's end.
const AFTERLIFE: Duration = Duration::from_secs(5);

/// How a program ended.
pub(crate) struct Ended {
    /// `None` where the time limit ended it.
    pub(crate) status: Option<ExitStatus>,
    /// Standard output and error in the order in which they came.
    pub(crate) log: String,
    /// A process outside its group still holds the output.
    leftover: bool,
}

impl Ended {
    /// Says why this cannot count as an orderly end, if it cannot.
    pub(crate) fn broken(&self, limit: Duration) -> Option<String> {
        let Some(status) = self.status else {
            return Some(format!(
                "the build did not end within {} seconds",
                limit.as_secs()
            ));
        };
        if let Some(signal) = status.signal() {
            return Some(format!("the program was ended by signal {signal}"));
        }
        if self.leftover {
            return Some("the program has left a process behind".to_owned());
        }
        self.log
            .contains("panicked at")
            .then(|| "the program panicked".to_owned())
    }
}

/// Runs `command` to its end or for `limit`.
pub(crate) fn run(mut command: Command, limit: Duration) -> Result<Ended> {
    let (mut reader, writer) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let mut child = command
        .spawn()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    // The command holds the pipe's writing ends; with them open the reader would never see the end.
    drop(command);
    let group = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("the program has no process id")?;
    let (ended, wait_for_end) = mpsc::channel();
    // Without reaping it: its id stays its group's until what it left behind is ended.
    thread::spawn(move || {
        let _ = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let _ = ended.send(());
    });
    let (read, wait_for_log) = mpsc::channel();
    thread::spawn(move || {
        let mut log = Vec::new();
        let _ = reader.read_to_end(&mut log);
        let _ = read.send(log);
    });
    let in_time = wait_for_end.recv_timeout(limit).is_ok();
    let _ = kill_process_group(group, Signal::KILL);
    let status = child.wait()?;
    let (log, leftover) = match wait_for_log.recv_timeout(AFTERLIFE) {
        Ok(log) => (String::from_utf8_lossy(&log).into_owned(), false),
        Err(_) => (String::new(), true),
    };
    Ok(Ended {
        status: in_time.then_some(status),
        log,
        leftover,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        run(command, Duration::from_millis(500)).unwrap()
    }

    #[test]
    fn output_and_status_are_kept_and_children_end_with_the_program() {
        let ended = shell("echo out; echo err >&2; sleep 60 & exit 3");
        assert_eq!(ended.log, "out\nerr\n");
        assert_eq!(ended.status.unwrap().code(), Some(3));
        assert_eq!(ended.broken(AFTERLIFE), None);
    }

    #[test]
    fn ends_that_are_not_orderly_are_told_apart() {
        let limit = Duration::from_millis(500);
        assert!(shell("sleep 60").broken(limit).unwrap().contains("seconds"));
        assert!(
            shell("kill -SEGV $$")
                .broken(limit)
                .unwrap()
                .contains("signal 11")
        );
        assert!(
            shell("echo thread main panicked at x; exit 101")
                .broken(limit)
                .unwrap()
                .contains("panicked")
        );
    }
}
