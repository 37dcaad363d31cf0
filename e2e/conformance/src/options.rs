//! The command line: which cases, with which builder, how many at once.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};

use crate::{
    base,
    builder::{BuildKit, Builder, Slipway},
    case::{self, Case},
    cluster::{self, Cluster},
    diff::Diff,
    peer::Peer,
    report,
    run::{Report, Runner},
    wording,
};

/// Run Dockerfile cases with known outcomes and print each difference.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Files of cases, one JSON object a line [default: $SLIPWAY_CASES or ../shared/conformance/cases.jsonl beside
    /// the workspace, and the workspace's own]
    cases: Vec<PathBuf>,
    /// Run only cases with such an id, area, or part of an id
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Run cases as ImageBuilds on the cluster that the environment names, so many at most and from every area
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "1000", value_name = "COUNT")]
    cluster: Option<usize>,
    /// Print the table of error texts that differ from BuildKit's, and why
    #[arg(long)]
    wording: bool,
    #[command(flatten)]
    how: How,
    #[command(subcommand)]
    mode: Option<Mode>,
}

#[derive(clap::Subcommand)]
enum Mode {
    /// Build random cases with BuildKit and with Slipway and compare the results
    Diff {
        /// The first seed; each case takes the next one
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many cases
        #[arg(long, default_value_t = 100)]
        count: u64,
        #[command(flatten)]
        how: How,
    },
}

/// What both kinds of run need to know.
#[derive(clap::Args)]
pub(crate) struct How {
    /// How many cases run at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The program under test [default: slipway beside this program]
    #[arg(long)]
    slipway: Option<PathBuf>,
    /// Who builds: Slipway, or BuildKit to check the cases and this harness
    #[arg(long, value_enum, default_value = "slipway")]
    builder: Which,
    /// Leave each case's folder with its inputs, command and results
    #[arg(long)]
    keep: bool,
    /// Build as an ordinary user, by number
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "1000", value_name = "UID")]
    as_user: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Slipway,
    Buildkit,
}

/// Reads the command line and does it; gives whether all cases hold.
pub(crate) fn run() -> Result<bool> {
    let options = Options::parse();
    if options.wording {
        for row in wording::TABLE {
            println!("{}\n  -> {}\n  because {}", row.buildkit, row.ours, row.why);
        }
        return Ok(true);
    }
    // Modes of the files that cases describe must not depend on the caller's mask.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    base::programs()?;
    if let Some(Mode::Diff { seed, count, how }) = &options.mode {
        return diff(how, *seed, *count);
    }
    let cases = load(&options)?;
    ensure!(!cases.is_empty(), "no case matches");
    let work = Work::make(options.how.keep)?;
    let cases = match options.cluster {
        Some(count) => {
            let (cases, left) = cluster::choose(cases, count);
            for (why, count) in left {
                println!("{count} cases are not for a cluster: {why}");
            }
            cases
        }
        None => cases,
    };
    let reports = run_cases(&options, &work, &cases)?;
    println!("{}", report::summary(&reports));
    Ok(reports.iter().all(|report| report.failures.is_empty()))
}

/// The folder of a run.
pub(crate) struct Work {
    pub(crate) dir: PathBuf,
    keep: bool,
}

impl Work {
    /// Makes it in the folder for temporary files. Its path is short: sockets in it have a limit.
    pub(crate) fn make(keep: bool) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("slipway-cases-")
            .tempdir()?
            .keep();
        // Ordinary users must get through.
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self { dir, keep })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.keep {
            println!("kept in {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn load(options: &Options) -> Result<Vec<Case>> {
    let files = if options.cases.is_empty() {
        default_cases()?
    } else {
        options.cases.clone()
    };
    let mut cases = Vec::new();
    for file in files {
        cases.extend(case::load(&file)?);
    }
    let only = &options.only;
    cases.retain(|case| {
        let (id, area) = (&case.first.id, &case.first.area);
        only.is_empty() || only.iter().any(|word| id.contains(word.as_str()) || area == word)
    });
    Ok(cases)
}

fn default_cases() -> Result<Vec<PathBuf>> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = match env::var_os("SLIPWAY_CASES") {
        Some(path) => PathBuf::from(path),
        None => own.join("../../../shared/conformance/cases.jsonl"),
    };
    let mut files = Vec::new();
    if shared.exists() {
        files.push(shared);
    } else {
        eprintln!(
            "{} is not here; running the workspace's own cases alone",
            shared.display()
        );
    }
    if let Ok(found) = fs::read_dir(own.join("cases")) {
        let mut found: Vec<PathBuf> = found.filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        found.sort();
        files.extend(found);
    }
    if files.is_empty() {
        bail!("there are no cases; name a file, or set SLIPWAY_CASES");
    }
    Ok(files)
}

fn run_cases(options: &Options, work: &Work, cases: &[Case]) -> Result<Vec<Report>> {
    let how = &options.how;
    let base = base::make(&work.dir.join("base"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let peer = if how.builder == Which::Buildkit {
        Some(Peer::start(&work.dir, 2)?)
    } else {
        None
    };
    let builder: Box<dyn Builder> = match &peer {
        Some(peer) => Box::new(BuildKit {
            buildctl: peer.buildctl.clone(),
            addresses: peer.addresses.clone(),
            base: base.clone(),
        }),
        None if options.cluster.is_some() => Box::new(Cluster::start(&base, &now.as_millis().to_string())?),
        None => Box::new(Slipway {
            program: how.program()?,
            base: base.clone(),
        }),
    };
    let runner = Runner {
        builder: &*builder,
        base,
        work: work.dir.clone(),
        ssh_key: ssh_key(&work.dir, how.user())?,
        run_id: now.as_nanos().to_string(),
        user: how.user(),
        keep: how.keep,
    };
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..how.jobs.max(1) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let report = runner.run(case);
                    let text = report::describe(&report);
                    if let Ok(mut reports) = reports.lock() {
                        if let Some(text) = text {
                            print!("{text}");
                        }
                        reports.push(report);
                    }
                }
            });
        }
    });
    reports.into_inner().ok().context("a case's thread died")
}

fn diff(how: &How, seed: u64, count: u64) -> Result<bool> {
    let work = Work::make(how.keep)?;
    let base = base::make(&work.dir.join("base"))?;
    // With BuildKit on both sides every difference is the harness's own.
    let itself = how.builder == Which::Buildkit;
    let peer = Peer::start(&work.dir, if itself { 2 } else { 1 })?;
    let buildkit = |addresses: &[String]| BuildKit {
        buildctl: peer.buildctl.clone(),
        addresses: addresses.to_vec(),
        base: base.clone(),
    };
    let one = buildkit(&peer.addresses[..1]);
    let other: Box<dyn Builder> = if itself {
        Box::new(buildkit(&peer.addresses[1..]))
    } else {
        Box::new(Slipway {
            program: how.program()?,
            base: base.clone(),
        })
    };
    let theirs = Runner {
        builder: &one,
        base: base.clone(),
        work: work.dir.clone(),
        ssh_key: work.dir.join("key"),
        run_id: seed.to_string(),
        user: None,
        keep: how.keep,
    };
    let ours = Runner {
        builder: &*other,
        ..theirs.clone()
    };
    Diff {
        ours: &ours,
        theirs: &theirs,
        seed,
        count,
        jobs: how.jobs,
        alone: RwLock::new(()),
    }
    .run()
}

impl How {
    /// The program under test.
    pub(crate) fn program(&self) -> Result<PathBuf> {
        let program = match &self.slipway {
            Some(path) => path.clone(),
            None => env::current_exe()?.with_file_name("slipway"),
        };
        ensure!(
            program.is_file(),
            "{} is not here; build it: cargo build -p slipway-cli",
            program.display()
        );
        Ok(std::path::absolute(program)?)
    }

    fn user(&self) -> Option<u32> {
        if rustix::process::geteuid().is_root() {
            self.as_user
        } else {
            None
        }
    }
}

/// Makes a key for cases that offer one.
fn ssh_key(work: &Path, user: Option<u32>) -> Result<PathBuf> {
    let path = work.join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "cases", "-f"])
        .arg(&path)
        .status()
        .context("failed to start ssh-keygen")?;
    ensure!(made.success(), "ssh-keygen failed: {made}");
    if user.is_some() {
        std::os::unix::fs::lchown(&path, user, user)?;
    }
    Ok(path)
}
