//! Writing the id maps of a process that has just entered a user namespace.

use std::{
    fs,
    io::{self, BufRead, Write},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::sys;

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    Mapped { note: Option<String> },
    Failed { reason: String },
}

/// Entry of the helper: `PID UID GID`; waits for a line, maps, answers with a line.
pub(crate) fn main(arguments: &[String]) -> i32 {
    let mut go = String::new();
    // End of file: the builder could not make its namespace, and there is nothing to do.
    if !io::stdin().lock().read_line(&mut go).is_ok_and(|n| n > 0) {
        return 0;
    }
    let outcome = match arguments {
        [pid, uid, gid] => match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => map(pid, uid, gid),
            _ => Outcome::Failed {
                reason: "malformed ids".to_owned(),
            },
        },
        _ => Outcome::Failed {
            reason: "malformed arguments".to_owned(),
        },
    };
    let written = serde_json::to_string(&outcome).map(|line| writeln!(io::stdout(), "{line}"));
    i32::from(!matches!(written, Ok(Ok(()))))
}

fn map(pid: &str, uid: u32, gid: u32) -> Outcome {
    // Root that may set ids (in a container without the right to mount) passes on all that it has.
    if uid == 0 && write_whole(pid).is_ok() {
        return Outcome::Mapped { note: None };
    }
    let note = match subordinate(pid, uid, gid) {
        Ok(()) => return Outcome::Mapped { note: None },
        Err(note) => note,
    };
    match write_single(pid, uid, gid) {
        Ok(()) => Outcome::Mapped { note: Some(note) },
        Err(error) => Outcome::Failed {
            reason: format!("{error} (and {note})"),
        },
    }
}

fn write_whole(pid: &str) -> io::Result<()> {
    for file in ["uid_map", "gid_map"] {
        let lines: Vec<String> = sys::ranges(&format!("/proc/self/{file}"))
            .into_iter()
            .map(|(first, count)| format!("{first} {first} {count}"))
            .collect();
        fs::write(format!("/proc/{pid}/{file}"), lines.join("\n"))?;
    }
    Ok(())
}

fn write_single(pid: &str, uid: u32, gid: u32) -> io::Result<()> {
    // Without this the kernel lets an ordinary user write no group map (user_namespaces(7)).
    fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    fs::write(format!("/proc/{pid}/uid_map"), format!("0 {uid} 1\n"))?;
    fs::write(format!("/proc/{pid}/gid_map"), format!("0 {gid} 1\n"))
}

/// Maps by `newuidmap` and `newgidmap`; an error says why there is a single id.
fn subordinate(pid: &str, uid: u32, gid: u32) -> Result<(), String> {
    let name = user_name(uid);
    let ranges = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let found = ranges_of(&text, uid, name.as_deref());
        if found.is_empty() {
            Err(format!("only one id is mapped: no range for this user in {file}"))
        } else {
            Ok(found)
        }
    };
    let (uids, gids) = (ranges("/etc/subuid")?, ranges("/etc/subgid")?);
    for (program, own, ranges) in [("newuidmap", uid, uids), ("newgidmap", gid, gids)] {
        let mut command = Command::new(program);
        command.args([pid, "0", &own.to_string(), "1"]);
        let mut next = 1u32;
        for (start, count) in ranges {
            command.args([next.to_string(), start.to_string(), count.to_string()]);
            next = next.saturating_add(count);
        }
        let output = command.stdin(Stdio::null()).output().map_err(|error| {
            format!("only one id is mapped: {program} cannot be run ({error}); install uidmap")
        })?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "only one id is mapped: {program} failed: {}",
                words.trim()
            ));
        }
    }
    Ok(())
}

fn user_name(uid: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The (start, count) ranges of a user in the format of subuid(5).
fn ranges_of(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            (Some(owner) == name || owner.parse() == Ok(uid)).then_some(())?;
            let start = fields.next()?.parse().ok()?;
            let count = fields.next()?.parse().ok()?;
            (count > 0).then_some((start, count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "# users\nme:100000:65536\nother:200000:65536\n1000:300000:10\nme:bad:1\nme:5:0\n";
        assert_eq!(
            ranges_of(text, 1000, Some("me")),
            [(100_000, 65536), (300_000, 10)]
        );
        assert_eq!(ranges_of(text, 7, Some("nobody")), []);
        assert_eq!(ranges_of(text, 1000, None), [(300_000, 10)]);
    }
}
