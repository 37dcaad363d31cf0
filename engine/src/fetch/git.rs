//! Repositories by the git program, in a closed environment: no user's configuration, no prompt, no helper that could
//! leave the build.

use crate::{
    error::{BuildError, Result},
    store::{SnapshotId, Store},
};
use serde::{Deserialize, Serialize};
use slipway_plan::{GitSource, protocol::FailureReason};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// A repository that was checked out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GitCheckout {
    /// Its files.
    pub snapshot: SnapshotId,
    /// The commit's full id.
    pub commit: String,
    /// The commit's time, seconds since 1970.
    pub time: i64,
}

fn git(dir: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command
        .arg("-c")
        .arg("protocol.file.allow=user")
        .arg("-c")
        .arg("core.hooksPath=/dev/null")
        .arg("-c")
        .arg("advice.detachedHead=false")
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env(
            "GIT_SSH_COMMAND",
            "ssh -o StrictHostKeyChecking=accept-new -o BatchMode=yes -F /dev/null",
        )
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null());
    for name in [
        "PATH",
        "SSH_AUTH_SOCK",
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "no_proxy",
        "NO_PROXY",
        "SSL_CERT_FILE",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let output = command.output().map_err(|error| {
        BuildError::new(
            FailureReason::SourceUnreachable,
            format!("failed to run git: {error}; is it installed?"),
        )
    })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(BuildError::new(
            FailureReason::SourceUnreachable,
            format!("git {} failed: {}", arguments.first().unwrap_or(&""), text.trim()),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the remote calls the reference: the ref's full name, and the object it names.
fn find(dir: &Path, source: &GitSource) -> Result<(String, String)> {
    let wanted = source.reference.as_deref().unwrap_or("HEAD");
    let listing = git(dir, &["ls-remote", "origin", wanted, &format!("{wanted}^{{}}")])?;
    let refs: Vec<(&str, &str)> = listing.lines().filter_map(|line| line.split_once('\t')).collect();
    // A branch wins over a tag of the same name, as in `git checkout`.
    let names = [
        wanted.to_owned(),
        format!("refs/heads/{wanted}"),
        format!("refs/tags/{wanted}"),
        format!("refs/{wanted}"),
    ];
    for name in &names {
        if let Some((id, _)) = refs.iter().find(|(_, found)| found == name) {
            return Ok((name.clone(), (*id).to_owned()));
        }
    }
    Err(BuildError::new(
        FailureReason::SourceUnreachable,
        format!("repository {} does not contain ref {wanted}", source.remote),
    ))
}

fn fetch(dir: &Path, what: &str) -> Result<()> {
    match git(
        dir,
        &[
            "fetch",
            "--quiet",
            "--no-tags",
            "--force",
            "--depth=1",
            "origin",
            what,
        ],
    ) {
        Ok(_) => Ok(()),
        // The dumb HTTP protocol, and some servers by id, know no depth.
        Err(_) => git(dir, &["fetch", "--quiet", "--tags", "--force", "origin", what]).map(|_| ()),
    }
}

/// Checks `source` out into the store, once for each commit.
pub(super) fn checkout(store: &Store, source: &GitSource) -> Result<GitCheckout> {
    let work = store.temporary_dir("git")?;
    let dir = work.path();
    git(dir, &["init", "--quiet", "--initial-branch=main"])?;
    git(dir, &["remote", "add", "origin", &source.remote])?;
    let by_id = source
        .reference
        .as_deref()
        .filter(|reference| is_commit(reference))
        .map(ToOwned::to_owned)
        .or_else(|| {
            source
                .checksum
                .clone()
                .filter(|id| source.fetch_by_commit && is_commit(id))
        });
    let (name, object) = match by_id {
        Some(id) => (id.clone(), id),
        None => find(dir, source)?,
    };
    let key = format!(
        "{}\0{object}\0{:?}\0{}\0{}\0{:?}",
        source.remote, source.subdir, source.keep_git_dir, source.submodules, source.checksum
    );
    if let Some(known) = store
        .memo::<GitCheckout>("git", &key)
        .filter(|known| store.has_snapshot(&known.snapshot))
    {
        return Ok(known);
    }
    if is_commit(&name) {
        // Few servers give any commit by its id; then everything is fetched and it is looked for.
        if git(
            dir,
            &["fetch", "--quiet", "--no-tags", "--depth=1", "origin", &name],
        )
        .is_err()
        {
            git(
                dir,
                &[
                    "fetch",
                    "--quiet",
                    "--tags",
                    "origin",
                    "+refs/heads/*:refs/remotes/origin/*",
                ],
            )?;
        }
        git(dir, &["checkout", "--quiet", "--detach", &name])?;
    } else {
        fetch(dir, &name)?;
        git(dir, &["checkout", "--quiet", "--detach", "FETCH_HEAD"])?;
    }
    let commit = git(dir, &["rev-parse", "HEAD"])?;
    if let Some(checksum) = &source.checksum
        && !commit.starts_with(checksum.as_str())
        && !object.starts_with(checksum.as_str())
    {
        return Err(BuildError::new(
            FailureReason::SourceUnreachable,
            format!(
                "expected checksum to match {checksum}, got {commit} for {}",
                source.remote
            ),
        ));
    }
    if source.submodules && dir.join(".gitmodules").exists() {
        git(
            dir,
            &[
                "submodule",
                "update",
                "--quiet",
                "--init",
                "--recursive",
                "--depth=1",
            ],
        )?;
    }
    let time = git(dir, &["show", "--no-patch", "--format=%ct", "HEAD"])?
        .parse()
        .unwrap_or(0);
    let failed = |error| BuildError::io("keep a git checkout", error);
    if !source.keep_git_dir {
        crate::store::remove_all(&dir.join(".git")).map_err(failed)?;
    }
    let from = match source.subdir.as_deref().map(|subdir| subdir.trim_matches('/')) {
        Some(subdir) if !subdir.is_empty() => {
            let tree = crate::context::DirContext::open(dir, "the repository").map_err(failed)?;
            let found = crate::context::resolve(&tree, Path::new(subdir), true).map_err(failed)?;
            let from = dir.join(found);
            if !from.is_dir() {
                return Err(BuildError::new(
                    FailureReason::FileNotFound,
                    format!("subdirectory {subdir:?} is not in {} at {commit}", source.remote),
                ));
            }
            from
        }
        _ => dir.to_owned(),
    };
    let draft = store.new_snapshot()?;
    for entry in fs::read_dir(&from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        fs::rename(entry.path(), draft.fs().join(entry.file_name())).map_err(failed)?;
    }
    let checkout = GitCheckout {
        snapshot: draft.commit()?,
        commit,
        time,
    };
    store.put_memo("git", &key, &checkout)?;
    Ok(checkout)
}
