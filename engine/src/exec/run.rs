//! `RUN`: mounts, environment, user; then the sandbox.

use super::{Environment, FailedRoot, Runner, adopt_root};
use crate::{
    context::{Context, DirContext, resolve},
    copy::Destination,
    error::{BuildError, Result},
    progress::Vertex,
    root::{Mounted, join, sandbox},
    store::{CacheMount, SnapshotId, Temporary},
};
use slipway_plan::{Network, RunOp, protocol::FailureReason};
use slipway_sandbox as sb;
use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

mod caches;
mod mounts;
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
    caches::take_caches(runner, op, &mut held).await?;
    let mut agents = 0;
    for mount in &op.mounts {
        mounts::add_mount(runner, mount, &mut held, &mut agents).await?;
    }
    // A parent before what lies in it, whatever the order of the flags.
    held.mounts
        .sort_by_key(|mount| mount.target.split('/').filter(|part| !part.is_empty()).count());

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
    let user = step.user.clone();
    let exit = execute(&environment, step, vertex).await;
    tokio::task::spawn_blocking(move || mounted.unmount())
        .await
        .map_err(join)??;
    let command = op.args.join(" ");
    // `{:?}` would escape what the command quotes.
    let plain = |how: String, reason| {
        let mut message = format!("process \"{command}\" did not complete successfully: {how}");
        if is_full(store.root()) {
            let place = store.root().display();
            message = format!("{message}; no space left on the disk of the layer store, {place}");
        }
        BuildError::new(reason, message).with_log(vertex.tail())
    };
    match exit {
        Ok(exit) if exit.success() => {}
        Ok(sb::Exit::Cancelled) => return Err(BuildError::cancelled()),
        Ok(exit) => {
            let reason = match exit {
                sb::Exit::Oom => FailureReason::OutOfMemory,
                _ => FailureReason::StepFailed,
            };
            if let Some(keep) = environment.keep.as_ref().filter(|keep| keep.wants(reason)) {
                keep.kept(&FailedRoot {
                    lower: runner.root.lower(&store),
                    upper: upper.keep(),
                    user,
                    cwd: op.cwd.clone(),
                    env: op.env.clone(),
                    args: op.args.clone(),
                })?;
            }
            return Err(plain(exit.to_string(), reason).with_exit_code(exit.code()));
        }
        Err(sb::Error::Program { program, reason }) => {
            return Err(plain(
                format!("failed to start {program:?}: {reason}"),
                FailureReason::StepFailed,
            ));
        }
        Err(error) => return Err(sandbox(error)),
    }
    drop(held);
    tokio::task::spawn_blocking(move || draft_store.adopt_snapshot(&upper))
        .await
        .map_err(join)?
}

/// Whether a file system has no room, so that a step whose program does not say so is not searched for mistakes.
fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < 1 << 20)
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
    step.cwd.clone_from(&op.cwd);
    step.user = user;
    if let Some(hostname) = &op.hostname {
        step.hostname.clone_from(hostname);
    }
    step.mounts = std::mem::take(&mut held.mounts);
    step.network = match op.network {
        Network::None => sb::Network::None,
        Network::Default | Network::Host => sb::Network::Host,
    };
    step.security = if op.insecure {
        sb::Security::Insecure
    } else {
        sb::Security::Sandbox
    };
    step.shm_size = op.shm_size;
    let limit = |value: i64| if value < 0 { u64::MAX } else { value as u64 };
    step.ulimits = op
        .ulimits
        .iter()
        .map(|one| {
            (
                one.name.clone(),
                sb::Ulimit {
                    soft: limit(one.soft),
                    hard: limit(one.hard),
                },
            )
        })
        .collect();
    step.extra_hosts = op
        .add_hosts
        .iter()
        .map(|entry| (entry.host.clone(), entry.ip.clone()))
        .collect();
    step.state_dir = environment.store.root().join("tmp");
    Ok(step)
}

/// A base may name a working directory that it does not have; runtimes make it then.
fn make_cwd(root: &Path, cwd: &str) -> Result<()> {
    let tree = DirContext::open(root, "the stage")
        .map_err(|error| BuildError::io("open the stage's root", error))?;
    let there = resolve(&tree, Path::new(cwd), true).and_then(|path| tree.lookup(&path));
    match there {
        Ok(None) => Destination::open(root)?.make_dirs(cwd, 0o755, None, None),
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
async fn execute(
    environment: &Arc<Environment>,
    step: sb::Step,
    vertex: &Vertex,
) -> Result<sb::Exit, sb::Error> {
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
