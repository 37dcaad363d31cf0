//! The mounts of a step, as the sandbox takes them.

use super::{
    super::{Runner, adopt_dir},
    Held,
    caches::{cache_key, copy_tree},
    ssh,
};
use crate::{
    context::{Context, Kind, clean},
    copy::{self, Owner, Request},
    error::{BuildError, Result},
    root::{join, mount},
    store::{SnapshotId, Store},
};
use slipway_oci::Digest;
use slipway_plan::{Mount, Source, protocol::FailureReason};
use slipway_sandbox as sb;
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

#[expect(
    clippy::too_many_lines,
    reason = "one arm for each kind of mount, nothing shared"
)]
pub(super) async fn add_mount(
    runner: &mut Runner,
    mount: &Mount,
    held: &mut Held,
    agents: &mut u32,
) -> Result<()> {
    match mount {
        Mount::Tmpfs { target, size, .. } => {
            held.mounts.push(sb::Mount {
                target: target.clone(),
                kind: sb::MountKind::Tmpfs { size: *size },
            });
        }
        Mount::Cache { target, readonly, .. } => {
            let key = cache_key(runner, mount).await?;
            if let Some(cache) = held.caches.get(&(key.id, key.initial)) {
                let kind = sb::MountKind::Bind {
                    source: cache.path().to_owned(),
                    readonly: *readonly,
                };
                held.mounts.push(sb::Mount {
                    target: target.clone(),
                    kind,
                });
            }
        }
        Mount::Secret {
            id,
            required,
            target,
            env,
            mode,
            uid,
            gid,
        } => {
            let Some(value) = runner.environment.inputs.secret(id)? else {
                if *required {
                    return Err(BuildError::new(
                        FailureReason::SecretNotFound,
                        format!(
                            "secret {id}: not found; the step requires it, offer it to the build under this id"
                        ),
                    ));
                }
                return Ok(());
            };
            runner.environment.progress.redact(&value);
            if let Some(name) = env {
                held.env
                    .push(format!("{name}={}", String::from_utf8_lossy(&value)));
            }
            if let Some(target) = target {
                let content = sb::SecretBytes(value.to_vec());
                let kind = sb::MountKind::Secret {
                    content,
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                };
                held.mounts.push(sb::Mount {
                    target: target.clone(),
                    kind,
                });
            }
        }
        Mount::Ssh {
            id,
            required,
            target,
            mode,
            uid,
            gid,
        } => {
            let target = target
                .clone()
                .unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{agents}"));
            *agents += 1;
            if !held
                .env
                .iter()
                .any(|variable| variable.starts_with("SSH_AUTH_SOCK="))
            {
                held.env.push(format!("SSH_AUTH_SOCK={target}"));
            }
            let Some(agent) = runner.environment.inputs.ssh(id)? else {
                if *required {
                    return Err(BuildError::new(
                        FailureReason::SecretNotFound,
                        format!(
                            "no SSH key {id:?} forwarded from the client; the step requires it, offer an agent or key under this id"
                        ),
                    ));
                }
                return Ok(());
            };
            let dir = runner.environment.store.temporary_dir("agent")?;
            let proxy = ssh::Proxy::start(
                &dir.path().join("socket"),
                agent,
                *mode,
                Owner { uid: *uid, gid: *gid },
            )
            .map_err(|error| BuildError::io("offer the SSH agent to the step", error))?;
            let kind = sb::MountKind::Bind {
                source: proxy.socket().to_owned(),
                readonly: false,
            };
            held.mounts.push(sb::Mount { target, kind });
            held.temporary.push(dir);
            held.agents.push(proxy);
        }
        Mount::Bind {
            target,
            source,
            path,
            readonly,
        } => {
            let from = bind(runner, source, path, *readonly, held).await?;
            // What is written goes to a layer of its own, so the kernel need not refuse it.
            let kind = sb::MountKind::Bind {
                source: from,
                readonly: *readonly,
            };
            held.mounts.push(sb::Mount {
                target: target.clone(),
                kind,
            });
        }
    }
    Ok(())
}

/// A path on this machine that shows `path` of a source.
async fn bind(
    runner: &mut Runner,
    source: &Source,
    path: &str,
    readonly: bool,
    held: &mut Held,
) -> Result<PathBuf> {
    let environment = runner.environment.clone();
    let store = environment.store.clone();
    let root = runner.sources.root(source).await?;
    let tree = runner.sources.tree(source).await?;
    let (below, lower): (PathBuf, Vec<PathBuf>) = if let Some(root) = root {
        let found = {
            let (tree, path) = (tree.clone(), path.to_owned());
            tokio::task::spawn_blocking(move || select_one(&*tree, &path))
                .await
                .map_err(join)??
        };
        if readonly && let Some(dir) = tree.directory() {
            return Ok(dir.join(found));
        }
        (found, root.lower(&store))
    } else {
        // A context is not a directory as the step may see it: owners and ignore rules. What the mount shows is copied
        // into the store once for each content.
        let digest = runner.sources.digest_of(source, path).await?;
        let (store, path) = (store.clone(), path.to_owned());
        tokio::task::spawn_blocking(move || tree_snapshot(&store, &*tree, &path, &digest))
            .await
            .map_err(join)??
    };
    if readonly {
        return Ok(lower.first().map(|dir| dir.join(&below)).unwrap_or_default());
    }
    let upper = store.temporary_dir("bind")?;
    let work = store.temporary_dir("work")?;
    let (mount_store, upper_path, work_path) =
        (store.clone(), upper.path().to_owned(), work.path().to_owned());
    let mounted = tokio::task::spawn_blocking(move || {
        if let Some(top) = lower.first() {
            adopt_dir(top, &upper_path)?;
        }
        mount(&mount_store, lower, Some(&upper_path), Some(&work_path))
    })
    .await
    .map_err(join)??;
    let shown = mounted.path().join(&below);
    held.mounted.push(mounted);
    held.temporary.extend([upper, work]);
    Ok(shown)
}

fn select_one(tree: &dyn Context, path: &str) -> Result<PathBuf> {
    let request = Request {
        path,
        follow: true,
        ..Request::default()
    };
    let found = copy::select(tree, &request)?;
    Ok(found.into_iter().next().map(|one| one.source).unwrap_or_default())
}

/// The part of a tree that a mount shows, as a snapshot named by its content: the path in it, and its directory.
fn tree_snapshot(
    store: &Arc<Store>,
    tree: &dyn Context,
    path: &str,
    digest: &str,
) -> Result<(PathBuf, Vec<PathBuf>)> {
    let found = select_one(tree, path)?;
    let entry = tree
        .lookup(&found)
        .map_err(|error| BuildError::io(format!("read {path}"), error))?;
    // A directory is seen itself, with its own attributes; the root of a context has none that mean anything.
    let top = entry.filter(|entry| entry.kind == Kind::Dir && !found.as_os_str().is_empty());
    let is_dir = top.is_some() || found.as_os_str().is_empty();
    let name = if is_dir {
        PathBuf::new()
    } else {
        PathBuf::from(clean(Path::new(path)).file_name().unwrap_or_default())
    };
    let id = match &top {
        Some(top) => {
            let about = format!("{digest} {:o} {}:{}", top.mode, top.uid, top.gid);
            SnapshotId::tree(Digest::of(about.as_bytes()).as_str())
        }
        None => SnapshotId::tree(digest),
    };
    if !store.has_snapshot(&id) {
        let draft = store.new_snapshot()?;
        copy_tree(tree, path, &draft.fs())?;
        if let Some(top) = &top {
            chown(draft.fs(), Some(top.uid), Some(top.gid))
                .and_then(|()| fs::set_permissions(draft.fs(), fs::Permissions::from_mode(top.mode)))
                .map_err(|error| BuildError::io(format!("show {path} to the step"), error))?;
        }
        draft.commit_as(id.clone())?;
    }
    Ok((name, vec![store.snapshot_dir(&id)]))
}
