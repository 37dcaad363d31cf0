//! Users and groups by the image's own /etc/passwd and /etc/group.

use std::{fs::File, io::Read, path::Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

use crate::{Error, User};

/// Larger files are not read: an image that has them means harm.
const MOST_BYTES: u64 = 10 << 20;

/// Finds the user of `USER` or of a step: `name`, `uid`, `name:group`, `uid:gid` and the empty string (root).
///
/// A number without a group gets the group and the supplementary groups of the user that has it; a number that no user
/// has is taken as it is, with group 0. Two numbers are taken as they are. These are BuildKit's rules.
///
/// # Errors
/// [`Error::User`] when a name is unknown in the image.
pub fn lookup(rootfs: &Path, spec: &str) -> Result<User, Error> {
    let plain = |text: &str| {
        if text == "root" {
            Some(0)
        } else {
            text.parse::<u32>().ok()
        }
    };
    if let Some((uid, gid)) = spec.split_once(':')
        && let (Some(uid), Some(gid)) = (plain(uid), plain(gid))
    {
        return Ok(User {
            uid,
            gid,
            additional_gids: Vec::new(),
        });
    }
    let passwd = read(rootfs, "etc/passwd");
    let group = read(rootfs, "etc/group");
    resolve(passwd.as_deref(), group.as_deref(), spec)
}

/// The home directory of a user by the image's /etc/passwd; `/` when it is not in there.
pub fn home(rootfs: &Path, uid: u32) -> String {
    read(rootfs, "etc/passwd")
        .and_then(|text| {
            text.lines()
                .filter_map(Account::parse)
                .find(|account| account.uid == uid)
                .map(|a| a.home)
        })
        .unwrap_or_else(|| {
            if uid == 0 {
                "/root".to_owned()
            } else {
                "/".to_owned()
            }
        })
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Account {
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/").to_owned();
        Some(Self { name, uid, gid, home })
    }
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Group {
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields
            .next()
            .unwrap_or("")
            .split(',')
            .map(|member| member.trim().to_owned())
            .collect();
        Some(Self { name, gid, members })
    }
}

fn resolve(passwd: Option<&str>, group: Option<&str>, spec: &str) -> Result<User, Error> {
    let (user_word, group_word) = spec.split_once(':').unwrap_or((spec, ""));
    let number = |word: &str| word.parse::<i64>().ok();
    let in_range = |what: &str, id: i64| {
        u32::try_from(id)
            .ok()
            .filter(|id| i32::try_from(*id).is_ok())
            .ok_or_else(|| {
                Error::User(format!(
                    "{what} {id} is out of range: ids go from 0 to {}",
                    i32::MAX
                ))
            })
    };
    let account = passwd
        .unwrap_or("")
        .lines()
        .filter_map(Account::parse)
        .find(|account| match number(user_word) {
            _ if user_word.is_empty() => account.uid == 0,
            Some(uid) => i64::from(account.uid) == uid,
            None => account.name == user_word,
        });
    let mut user = User::default();
    match (&account, number(user_word)) {
        (Some(account), _) => (user.uid, user.gid) = (account.uid, account.gid),
        (None, Some(uid)) => user.uid = in_range("user id", uid)?,
        (None, None) if user_word.is_empty() => {}
        (None, None) => {
            return Err(Error::User(format!(
                "unable to find user {user_word}: no matching entries in passwd file of the image; create the user \
                 in an earlier RUN, or use a numeric id"
            )));
        }
    }
    let groups = || group.unwrap_or("").lines().filter_map(Group::parse);
    if group_word.is_empty() {
        if let Some(account) = account {
            user.additional_gids = groups()
                .filter(|group| group.members.contains(&account.name))
                .map(|group| group.gid)
                .collect();
        }
        return Ok(user);
    }
    let found = groups().find(|group| match number(group_word) {
        Some(gid) => i64::from(group.gid) == gid,
        None => group.name == group_word,
    });
    user.gid = match (found, number(group_word)) {
        (Some(group), _) => group.gid,
        (None, Some(gid)) => in_range("group id", gid)?,
        (None, None) => {
            return Err(Error::User(format!(
                "unable to find group {group_word}: no matching entries in group file of the image; create the group \
                 in an earlier RUN, or use a numeric id"
            )));
        }
    };
    Ok(user)
}

/// Reads a file of the image, with every link kept inside it; `None` when it is not there or no plain file.
fn read(rootfs: &Path, path: &str) -> Option<String> {
    let root = open(
        rootfs,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Non-blocking, for an image that has a fifo there.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat2(&root, path, flags, Mode::empty(), resolve).ok()?;
    if FileType::from_raw_mode(fstat(&file).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file).take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# note\n\ndaemon:x:1:7:d:/usr/sbin:/bin/sh\nwww:x:33:33::/srv:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,daemon\nwww:x:33:\nsrv:x:34:www , daemon\n";

    #[test]
    fn users_are_found_as_buildkit_finds_them() {
        type Ids<'a> = (u32, u32, &'a [u32]);
        let cases: &[(&str, Ids<'_>)] = &[
            ("", (0, 0, &[10])),
            ("root", (0, 0, &[10])),
            ("0", (0, 0, &[10])),
            ("daemon", (1, 7, &[10, 34])),
            ("1", (1, 7, &[10, 34])),
            ("500", (500, 0, &[])),
            ("daemon:www", (1, 33, &[])),
            ("daemon:99", (1, 99, &[])),
            ("500:www", (500, 33, &[])),
            ("7:8", (7, 8, &[])),
            ("root:root", (0, 0, &[])),
            (":www", (0, 33, &[])),
            ("daemon:", (1, 7, &[10, 34])),
        ];
        for (spec, (uid, gid, additional)) in cases {
            let expected = User {
                uid: *uid,
                gid: *gid,
                additional_gids: additional.to_vec(),
            };
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("etc")).unwrap();
            std::fs::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
            std::fs::write(dir.path().join("etc/group"), GROUP).unwrap();
            assert_eq!(lookup(dir.path(), spec).unwrap(), expected, "{spec:?}");
        }
    }

    #[test]
    fn unknown_names_are_refused_and_numbers_need_no_file() {
        for (passwd, spec, part) in [
            (
                Some(PASSWD),
                "nobody",
                "unable to find user nobody: no matching entries in passwd file",
            ),
            (
                None,
                "www",
                "unable to find user www: no matching entries in passwd file",
            ),
            (
                Some(PASSWD),
                "daemon:nogroup",
                "unable to find group nogroup: no matching entries in group file",
            ),
            (Some(PASSWD), "4294967296", "out of range"),
            (Some(PASSWD), "-1", "out of range"),
        ] {
            let error = resolve(passwd, Some(GROUP), spec).unwrap_err().to_string();
            assert!(error.contains(part), "{spec}: {error}");
        }
        assert_eq!(
            resolve(None, None, "12").unwrap(),
            User {
                uid: 12,
                ..User::default()
            }
        );
    }

    #[test]
    fn a_link_to_the_machines_passwd_stays_inside_the_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink(
            "../../../../../../../../etc/passwd-of-image",
            dir.path().join("etc/passwd"),
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/passwd-of-image"), "me:x:77:78::/home/me:\n").unwrap();
        assert_eq!(
            lookup(dir.path(), "me").unwrap(),
            User {
                uid: 77,
                gid: 78,
                additional_gids: vec![]
            }
        );
        assert_eq!(home(dir.path(), 77), "/home/me");
    }
}
