//! Whether this process's user namespace has a step's user and groups.

use std::fs;

use crate::{Error, MountKind, Step};

/// Checks the ids of a step's user and secrets before the kernel refuses them with a bare "invalid argument".
pub(crate) fn check(step: &Step) -> Result<(), Error> {
    let user = &step.user;
    let (uids, gids) = (map("uid_map"), map("gid_map"));
    let missing = |kind: &str, id: u32| {
        Err(Error::Environment(format!(
            "the step's {kind} is {id}, which this user namespace does not map; in a pod, raise the kubelet's \
             userNamespaces.idsPerPod, on a machine, give your user more ids in /etc/subuid and /etc/subgid"
        )))
    };
    if !holds(uids.as_deref(), user.uid) {
        return missing("user", user.uid);
    }
    if !holds(gids.as_deref(), user.gid) {
        return missing("group", user.gid);
    }
    for mount in &step.mounts {
        match mount.kind {
            MountKind::Secret { uid, .. } if !holds(uids.as_deref(), uid) => {
                return missing("secret's owner", uid);
            }
            MountKind::Secret { gid, .. } if !holds(gids.as_deref(), gid) => {
                return missing("secret's group", gid);
            }
            _ => {}
        }
    }
    // Where groups may not be set, as with a mapping of one id, the step goes without further ones.
    let may_set = fs::read_to_string("/proc/self/setgroups").is_ok_and(|word| word.trim() == "allow");
    let unmapped = user
        .additional_gids
        .iter()
        .find(|gid| !holds(gids.as_deref(), **gid));
    match unmapped {
        Some(gid) if may_set => missing("group", *gid),
        _ => Ok(()),
    }
}

fn map(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{name}")).ok()
}

/// Whether a map (`first-inside first-outside count` a line) has an id. What cannot be read forbids nothing.
fn holds(map: Option<&str>, id: u32) -> bool {
    let Some(map) = map else { return true };
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (first, count) = (numbers.next(), numbers.nth(1));
        matches!((first, count), (Some(first), Some(count)) if (first..first + count).contains(&u64::from(id)))
    })
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn ids_are_looked_for_in_every_range() {
        let map = "         0       1000          1\n         1     100000      65535\n";
        for (id, there) in [
            (0, true),
            (1, true),
            (65_535, true),
            (65_536, false),
            (u32::MAX, false),
        ] {
            assert_eq!(holds(Some(map), id), there, "{id}");
        }
        assert!(holds(Some("0 0 4294967295\n"), 4_000_000_000));
        assert!(holds(None, 7));
    }
}
