//! Owners by name, as `--chown` and `WORKDIR` take them: from the stage's own /etc/passwd and /etc/group.

use crate::{
    context::{Context, Kind, resolve},
    copy::Owner,
    error::{BuildError, Result},
};
use slipway_plan::protocol::FailureReason;
use std::{io::Read, path::Path};

/// No passwd file of an image is larger.
const LIMIT: u64 = 16 << 20;

/// The owner that `spec` (`user`, `user:`, `:group`, `user:group`; names or numbers) means in a root. `None` for the root
/// stands for a stage that has no files at all yet. Unknown names mean root, as in BuildKit.
pub(crate) fn find(spec: &str, root: Option<&dyn Context>) -> Result<Owner> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let mut owner = Owner { uid: 0, gid: 0 };
    match number(user) {
        _ if user.is_empty() => {}
        Some(uid) => owner = Owner { uid, gid: uid },
        None => {
            if let Some(fields) = entry(root, "etc/passwd", user, spec)? {
                owner = Owner {
                    uid: field(&fields, 2),
                    gid: field(&fields, 3),
                };
            }
        }
    }
    if let Some(group) = group {
        if let Some(gid) = number(group) {
            owner.gid = gid;
        } else if let Some(fields) = entry(root, "etc/group", group, spec)? {
            owner.gid = field(&fields, 2);
        }
    }
    Ok(owner)
}

fn number(name: &str) -> Option<u32> {
    if name == "root" {
        Some(0)
    } else {
        name.parse().ok()
    }
}

fn field(fields: &[String], index: usize) -> u32 {
    fields.get(index).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The fields of the line for `name` in a file of the passwd family.
fn entry(root: Option<&dyn Context>, file: &str, name: &str, spec: &str) -> Result<Option<Vec<String>>> {
    let Some(root) = root else {
        return Err(BuildError::new(
            FailureReason::DockerfileInvalid,
            format!(
                "invalid user index: {name:?} of {spec:?} cannot be looked up, because the stage has no files yet; \
                 use numbers, or copy /etc/passwd and /etc/group first"
            ),
        ));
    };
    let read = || -> std::io::Result<String> {
        let path = resolve(root, Path::new(file), true)?;
        if !matches!(root.lookup(&path)?, Some(entry) if matches!(entry.kind, Kind::File(_))) {
            return Ok(String::new());
        }
        let mut text = Vec::new();
        root.open(&path)?.take(LIMIT).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = read().map_err(|error| BuildError::io(format!("read /{file} of the stage"), error))?;
    Ok(text.lines().find_map(|line| {
        let fields: Vec<String> = line.trim().split(':').map(ToOwned::to_owned).collect();
        (fields.first().is_some_and(|first| first == name)).then_some(fields)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::MemContext;

    #[test]
    fn owners_are_found_as_buildkit_finds_them() {
        let file = |path: &str, text: &str| (path.into(), text.as_bytes().to_vec(), 0o644);
        let root = MemContext::new(
            [
                file(
                    "etc/passwd",
                    "root:x:0:0::/:/bin/sh\ndaemon:x:1:1::/:\napp:x:500:600::/:\n",
                ),
                file("etc/group", "root:x:0:\nwheel:x:10:root\n"),
            ],
            (0, 0),
        );
        let cases = [
            ("30", 30, 30),
            ("40:", 40, 40),
            (":50", 0, 50),
            ("10:20", 10, 20),
            ("app", 500, 600),
            ("app:", 500, 600),
            ("app:wheel", 500, 10),
            ("7:wheel", 7, 10),
            ("500", 500, 500),
            ("nosuch", 0, 0),
            ("nosuch:nogrp", 0, 0),
            ("5:nogrp", 5, 5),
            ("daemon:nogrp", 1, 1),
        ];
        for (spec, uid, gid) in cases {
            assert_eq!(find(spec, Some(&root)).unwrap(), Owner { uid, gid }, "{spec}");
        }
        assert_eq!(find("root:root", None).unwrap(), Owner { uid: 0, gid: 0 });
        assert!(
            find("daemon", None)
                .unwrap_err()
                .to_string()
                .contains("invalid user index")
        );
    }
}
