//! `RUN`: mounts, environment, user; then the sandbox.

use super::{Environment, Runner, adopt_root};
use crate::{
    context::{Context, DirContext, Kind, clean, resolve},
    copy::{self, Destination, Owner, PlaceOptions, Request},
    error::{BuildError, Result},
    progress::Vertex,
    root::{Mounted, join, mount, sandbox},
    store::{CacheKey, CacheMount, SnapshotId, Store, Temporary},
};
use slipway_dockerfile::ast::Sharing as CacheSharing;
use slipway_plan::{Mount, Network, RunOp, Sharing, Source, protocol::FailureReason};
use slipway_sandbox as sb;
use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

mod ssh;

/// All that lives as long as the step.
#[derive(Default)]
struct Held {
    mounted: Vec<Mounted>,
    temporary: Vec<Temporary>,
    caches: BTreeMap<(String, String), CacheMount>,
    agents: Vec<ssh::Proxy>,
    env: Vec<String>,
    mounts: Vec<sb::Mount>,
}

pub(super) async fn run(runner: &mut Runner, op: &RunOp, vertex: &Vertex) -> Result<SnapshotId> {
    let environment = runner.environment.clone();
    let store = environment.store.clone();
    let mut held = Held::default();
    take_caches(runner, op, &mut held).await?;
    let mut agents = 0;
    for mount in &op.mounts {
        add_mount(runner, mount, &mut held, &mut agents).await?;
    }
    // A parent before what lies in it, whatever the order of the flags.
    held.mounts.sort_by_key(|mount| mount.target.split('/').filter(|part| !part.is_empty()).count());

    let root = runner.root.clone();
    let draft_store = store.clone();
    // Not in one piece with the rest: the draft borrows the store and the step is awaited.
    let (upper, work) = (store.temporary_dir("upper")?, store.temporary_dir("work")?);
    let mounted = {
        let (store, upper, work) = (store.clone(), upper.path().to_owned(), work.path().to_owned());
        tokio::task::spawn_blocking(move || -> Result<Mounted> {
            adopt_root(&store, &root, &upper)?;
            root.mount_over(&store, &upper, &work)
        })
        .await
        .map_err(join)??
    };
    make_cwd(mounted.path(), &op.cwd)?;
    let step = step(&environment, op, mounted.path(), &mut held)?;
    let exit = execute(&environment, step, vertex).await;
    tokio::task::spawn_blocking(move || mounted.unmount()).await.map_err(join)??;
    let command = op.args.join(" ");
    // `{:?}` would escape what the command quotes.
    let plain = |how: String, reason| {
        let message = format!("process \"{command}\" did not complete successfully: {how}");
        BuildError::new(reason, message).with_log(vertex.tail())
    };
    match exit {
        Ok(exit) if exit.success() => {}
        Ok(sb::Exit::Cancelled) => return Err(BuildError::cancelled()),
        Ok(sb::Exit::Oom) => return Err(plain(sb::Exit::Oom.to_string(), FailureReason::OutOfMemory).with_exit_code(137)),
        Ok(exit) => return Err(plain(exit.to_string(), FailureReason::StepFailed).with_exit_code(exit.code())),
        Err(sb::Error::Program { program, reason }) => {
            return Err(plain(format!("failed to start {program:?}: {reason}"), FailureReason::StepFailed));
        }
        Err(error) => return Err(sandbox(error)),
    }
    drop(held);
    tokio::task::spawn_blocking(move || draft_store.adopt_snapshot(upper)).await.map_err(join)?
}

fn step(environment: &Environment, op: &RunOp, root: &Path, held: &mut Held) -> Result<sb::Step> {
    let user = sb::passwd::lookup(root, &op.user).map_err(sandbox)?;
    let mut env = op.env.clone();
    env.extend(op.proxy_env.iter().cloned());
    env.append(&mut held.env);
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", home(root, user.uid)));
    }
    let mut step = sb::Step::new(root, op.args.iter().cloned());
    step.env = env;
    step.cwd = op.cwd.clone();
    step.user = user;
    if let Some(hostname) = &op.hostname {
        step.hostname.clone_from(hostname);
    }
    step.mounts = std::mem::take(&mut held.mounts);
    step.network = match op.network {
        Network::None => sb::Network::None,
        Network::Default | Network::Host => sb::Network::Host,
    };
    step.security = if op.insecure { sb::Security::Insecure } else { sb::Security::Sandbox };
    step.shm_size = op.shm_size;
    let limit = |value: i64| if value < 0 { u64::MAX } else { value as u64 };
    step.ulimits = op
        .ulimits
        .iter()
        .map(|one| (one.name.clone(), sb::Ulimit { soft: limit(one.soft), hard: limit(one.hard) }))
        .collect();
    step.extra_hosts = op.add_hosts.iter().map(|entry| (entry.host.clone(), entry.ip.clone())).collect();
    step.state_dir = environment.store.root().join("tmp");
    Ok(step)
}

/// A base may name a working directory that it does not have; runtimes make it then.
fn make_cwd(root: &Path, cwd: &str) -> Result<()> {
    let tree = DirContext::open(root, "the stage").map_err(|error| BuildError::io("open the stage's root", error))?;
    let there = resolve(&tree, Path::new(cwd), true).and_then(|path| tree.lookup(&path));
    match there {
        Ok(None) => Destination::open(root)?.make_dirs(cwd, 0o755, None),
        // The sandbox tells what is wrong with it.
        _ => Ok(()),
    }
}

/// The home of a user id by the image's passwd; `/` if it has none.
fn home(root: &Path, uid: u32) -> String {
    let read = || -> io::Result<String> {
        let tree = DirContext::open(root, "the stage")?;
        let path = resolve(&tree, Path::new("etc/passwd"), true)?;
        let mut text = Vec::new();
        tree.open(&path)?.take(16 << 20).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = read().unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields.get(5).map(|home| (*home).to_owned()))?
    });
    match found {
        Some(home) if !home.is_empty() => home,
        _ if uid == 0 => "/root".into(),
        _ => "/".into(),
    }
}

/// Runs it, passes its output on, kills it when the build is cancelled.
async fn execute(environment: &Arc<Environment>, step: sb::Step, vertex: &Vertex) -> Result<sb::Exit, sb::Error> {
    let mut running = match tokio::task::spawn_blocking(move || sb::spawn(&step)).await {
        Ok(running) => running?,
        Err(error) => return Err(sb::Error::Helper(error.to_string())),
    };
    let killer = running.killer();
    let pipes = [(running.stdout.take(), false), (running.stderr.take(), true)];
    let readers: Vec<_> = pipes
        .into_iter()
        .filter_map(|(pipe, stderr)| Some((pipe?, vertex.writer(stderr))))
        .map(|(mut pipe, mut writer)| {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 32 << 10];
                while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                    let _ = io::Write::write_all(&mut writer, &buffer[..n]);
                }
            })
        })
        .collect();
    let mut wait = tokio::task::spawn_blocking(move || {
        let exit = running.wait();
        for reader in readers {
            let _ = reader.join();
        }
        exit
    });
    let done = tokio::select! {
        done = &mut wait => done,
        () = environment.cancel.cancelled() => {
            killer.kill();
            wait.await
        }
    };
    let exit = done.map_err(|error| sb::Error::Helper(error.to_string()))?;
    if environment.cancel.is_cancelled() && !matches!(exit, Ok(sb::Exit::Code(0))) {
        return Ok(sb::Exit::Cancelled);
    }
    exit
}

/// Takes the cache mounts of a step, always in the same order, so that two steps with two locked caches never wait for
/// each other.
async fn take_caches(runner: &mut Runner, op: &RunOp, held: &mut Held) -> Result<()> {
    let mut wanted: BTreeMap<(String, String), (CacheSharing, &Mount)> = BTreeMap::new();
    for mount in &op.mounts {
        let Mount::Cache { sharing, .. } = mount else { continue };
        let key = cache_key(runner, mount).await?;
        let sharing = match sharing {
            Sharing::Shared => CacheSharing::Shared,
            Sharing::Private => CacheSharing::Private,
            Sharing::Locked => CacheSharing::Locked,
        };
        wanted.entry((key.id, key.initial)).or_insert((sharing, mount));
    }
    for ((id, initial), (sharing, mount)) in wanted {
        let key = CacheKey { id, initial };
        let environment = runner.environment.clone();
        // With --no-cache, what a cache begins with is made anew, and with it the cache; a plain one begins with
        // nothing and stays.
        if runner.stage().no_cache
            && !key.initial.is_empty()
            && crate::progress::lock(&environment.emptied).insert(key.clone())
        {
            environment.store.reset_cache(&key)?;
        }
        let (store, wanted) = (environment.store.clone(), key.clone());
        let mut cache = tokio::task::spawn_blocking(move || store.cache_mount(&wanted, sharing)).await.map_err(join)??;
        if cache.is_fresh() {
            fill_cache(runner, mount, cache.path()).await?;
            cache.filled()?;
        }
        held.caches.insert((key.id, key.initial), cache);
    }
    Ok(())
}

async fn cache_key(runner: &mut Runner, mount: &Mount) -> Result<CacheKey> {
    let Mount::Cache { id, source, path, mode, uid, gid, .. } = mount else {
        return Err(BuildError::new(FailureReason::Internal, "not a cache mount"));
    };
    let mut initial = String::new();
    if *source != Source::Scratch {
        let from = match runner.sources.root(source).await? {
            Some(root) => root.content_key,
            None => format!("{source:?}"),
        };
        initial = format!("{from} {path} ");
    }
    if mode.is_some() || uid.is_some() || gid.is_some() {
        initial.push_str(&format!("{mode:?} {uid:?} {gid:?}"));
    }
    Ok(CacheKey { id: id.clone(), initial })
}

/// The first content of a cache: what `from=` says, and the directory's own mode and owner.
async fn fill_cache(runner: &mut Runner, mount: &Mount, dir: &Path) -> Result<()> {
    let Mount::Cache { source, path, mode, uid, gid, .. } = mount else { return Ok(()) };
    if *source != Source::Scratch {
        let tree = runner.sources.tree(source).await?;
        let (path, dir) = (path.clone(), dir.to_owned());
        tokio::task::spawn_blocking(move || copy_tree(&*tree, &path, &dir)).await.map_err(join)??;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let prepare = || -> io::Result<()> {
        if *source == Source::Scratch || uid.is_some() || gid.is_some() {
            std::os::unix::fs::chown(dir, Some(uid.unwrap_or(0)), Some(gid.unwrap_or(0)))?;
        }
        if *source == Source::Scratch || mode.is_some() {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode.unwrap_or(0o755)))?;
        }
        Ok(())
    };
    prepare().map_err(|error| BuildError::io("prepare a cache mount", error))
}

/// All that is at `path` of a tree into an existing directory.
fn copy_tree(tree: &dyn Context, path: &str, dir: &Path) -> Result<()> {
    let request = Request { path, follow: true, ..Request::default() };
    let filter = copy::Filter::of(&request)?;
    let options = PlaceOptions { contents_only: true, ..PlaceOptions::default() };
    let destination = Destination::open(dir)?;
    for one in copy::select(tree, &request)? {
        destination.place(tree, &one, "/", &filter, &options)?;
    }
    Ok(())
}

async fn add_mount(runner: &mut Runner, mount: &Mount, held: &mut Held, agents: &mut u32) -> Result<()> {
    match mount {
        Mount::Tmpfs { target, size, .. } => {
            held.mounts.push(sb::Mount { target: target.clone(), kind: sb::MountKind::Tmpfs { size: *size } });
        }
        Mount::Cache { target, readonly, .. } => {
            let key = cache_key(runner, mount).await?;
            if let Some(cache) = held.caches.get(&(key.id, key.initial)) {
                let kind = sb::MountKind::Bind { source: cache.path().to_owned(), readonly: *readonly };
                held.mounts.push(sb::Mount { target: target.clone(), kind });
            }
        }
        Mount::Secret { id, required, target, env, mode, uid, gid } => {
            let Some(value) = runner.environment.inputs.secret(id)? else {
                if *required {
                    return Err(BuildError::new(
                        FailureReason::SecretNotFound,
                        format!("secret {id}: not found; the step requires it, offer it to the build under this id"),
                    ));
                }
                return Ok(());
            };
            runner.environment.progress.redact(&value);
            if let Some(name) = env {
                held.env.push(format!("{name}={}", String::from_utf8_lossy(&value)));
            }
            if let Some(target) = target {
                let content = sb::SecretBytes(value.to_vec());
                let kind = sb::MountKind::Secret { content, mode: *mode, uid: *uid, gid: *gid };
                held.mounts.push(sb::Mount { target: target.clone(), kind });
            }
        }
        Mount::Ssh { id, required, target, mode, uid, gid } => {
            let target = target.clone().unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{agents}"));
            *agents += 1;
            if !held.env.iter().any(|variable| variable.starts_with("SSH_AUTH_SOCK=")) {
                held.env.push(format!("SSH_AUTH_SOCK={target}"));
            }
            let Some(agent) = runner.environment.inputs.ssh(id)? else {
                if *required {
                    return Err(BuildError::new(
                        FailureReason::SecretNotFound,
                        format!("no SSH key {id:?} forwarded from the client; the step requires it, offer an agent or key under this id"),
                    ));
                }
                return Ok(());
            };
            let dir = runner.environment.store.temporary_dir("agent")?;
            let proxy = ssh::Proxy::start(&dir.path().join("socket"), agent, *mode, Owner { uid: *uid, gid: *gid })
                .map_err(|error| BuildError::io("offer the SSH agent to the step", error))?;
            let kind = sb::MountKind::Bind { source: proxy.socket().to_owned(), readonly: false };
            held.mounts.push(sb::Mount { target, kind });
            held.temporary.push(dir);
            held.agents.push(proxy);
        }
        Mount::Bind { target, source, path, readonly } => {
            let from = bind(runner, source, path, *readonly, held).await?;
            // What is written goes to a layer of its own, so the kernel need not refuse it.
            let kind = sb::MountKind::Bind { source: from, readonly: *readonly };
            held.mounts.push(sb::Mount { target: target.clone(), kind });
        }
    }
    Ok(())
}

/// A path on this machine that shows `path` of a source.
async fn bind(runner: &mut Runner, source: &Source, path: &str, readonly: bool, held: &mut Held) -> Result<PathBuf> {
    let environment = runner.environment.clone();
    let store = environment.store.clone();
    let root = runner.sources.root(source).await?;
    let tree = runner.sources.tree(source).await?;
    let (below, lower): (PathBuf, Vec<PathBuf>) = match root {
        Some(root) => {
            let found = {
                let (tree, path) = (tree.clone(), path.to_owned());
                tokio::task::spawn_blocking(move || select_one(&*tree, &path)).await.map_err(join)??
            };
            if readonly && let Some(dir) = tree.directory() {
                return Ok(dir.join(found));
            }
            (found, root.lower(&store))
        }
        // A context is not a directory as the step may see it: owners and ignore rules. What the mount shows is copied
        // into the store once for each content.
        None => {
            let digest = runner.sources.digest_of(source, path).await?;
            let (store, path) = (store.clone(), path.to_owned());
            tokio::task::spawn_blocking(move || tree_snapshot(&store, &*tree, &path, &digest)).await.map_err(join)??
        }
    };
    if readonly {
        return Ok(lower.first().map(|dir| dir.join(&below)).unwrap_or_default());
    }
    let upper = store.temporary_dir("bind")?;
    let work = store.temporary_dir("work")?;
    let (mount_store, upper_path, work_path) = (store.clone(), upper.path().to_owned(), work.path().to_owned());
    let mounted = tokio::task::spawn_blocking(move || {
        if let Some(top) = lower.first() {
            super::adopt_dir(top, &upper_path)?;
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
    let request = Request { path, follow: true, ..Request::default() };
    let found = copy::select(tree, &request)?;
    Ok(found.into_iter().next().map(|one| one.source).unwrap_or_default())
}

/// The part of a tree that a mount shows, as a snapshot named by its content: the path in it, and its directory.
fn tree_snapshot(store: &Arc<Store>, tree: &dyn Context, path: &str, digest: &str) -> Result<(PathBuf, Vec<PathBuf>)> {
    let found = select_one(tree, path)?;
    let is_dir = tree
        .lookup(&found)
        .map_err(|error| BuildError::io(format!("read {path}"), error))?
        .is_some_and(|entry| entry.kind == Kind::Dir);
    let name = if is_dir { PathBuf::new() } else { PathBuf::from(clean(Path::new(path)).file_name().unwrap_or_default()) };
    let id = SnapshotId::tree(digest);
    if !store.has_snapshot(&id) {
        let draft = store.new_snapshot()?;
        copy_tree(tree, path, &draft.fs())?;
        draft.commit_as(id.clone())?;
    }
    Ok((name, vec![store.snapshot_dir(&id)]))
}
