//! The two builders, and what they share: a registry with the base image.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use slipway_e2e::{base, registry::Registry, tools::Tools};

const REPOSITORY: &str = "debian";
const TAG: &str = "bookworm";

/// Something that builds a context and pushes the result.
pub(crate) trait Builder {
    /// What it is called in the table.
    fn label(&self) -> String;
    /// Empties its cache, save the base image.
    fn forget(&mut self) -> Result<()>;
    /// Builds and pushes; gives the seconds that it took.
    fn build(&mut self, context: &Path) -> Result<f64>;
}

/// The registry and BuildKit's daemon.
pub(crate) struct Machine {
    work: PathBuf,
    registry: Child,
    daemon: Child,
    host: String,
    buildctl: PathBuf,
    address: String,
}

fn ended(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = child.wait();
}

impl Drop for Machine {
    fn drop(&mut self) {
        ended(&mut self.daemon);
        ended(&mut self.registry);
    }
}

impl Machine {
    /// Builds the programs where the cache lacks them, starts them below `work`, and pushes the base image.
    pub(crate) fn start(work: &Path) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "BuildKit's daemon needs root"
        );
        let tools = Tools::build(true)?;
        // Free a moment ago; nothing else on this machine is after it.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let host = format!("127.0.0.1:{port}");
        let config = work.join("registry.yaml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: {host}}}\n",
                work.join("registry").display()
            ),
        )?;
        let registry = Command::new(tools.file("registry")?)
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start the registry")?;
        let root = work.join("buildkit");
        fs::create_dir_all(&root)?;
        let address = format!("unix://{}", root.join("socket").display());
        let daemon_config = work.join("buildkitd.toml");
        fs::write(&daemon_config, format!("[registry.\"{host}\"]\n  http = true\n"))?;
        let mut daemon = Command::new(tools.file("buildkitd")?)
            .arg("--config")
            .arg(&daemon_config)
            .arg("--root")
            .arg(&root)
            .args(["--addr", &address, "--oci-worker-snapshotter", "overlayfs"])
            .args([
                "--oci-worker-net",
                "host",
                "--oci-worker-gc=false",
                "--containerd-worker=false",
            ])
            .arg("--oci-worker-binary")
            .arg(tools.file("runc")?)
            // It looks for one on the path, too.
            .env("PATH", with_folder(&tools.folder("runc")?)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start buildkitd")?;
        let log = daemon.stderr.take();
        let machine = Self {
            work: work.to_owned(),
            registry,
            daemon,
            host,
            buildctl: tools.file("buildctl")?,
            address,
        };
        wait_until_it_listens(log.context("no pipe")?)?;
        tokio::runtime::Runtime::new()?.block_on(machine.push_base())?;
        Ok(machine)
    }

    /// The base image's name.
    pub(crate) fn base(&self) -> String {
        format!("{}/{REPOSITORY}:{TAG}", self.host)
    }

    async fn push_base(&self) -> Result<()> {
        let registry = Registry::new(format!("http://{}", self.host))?;
        let begun = Instant::now();
        while !registry.ready().await {
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("the registry does not answer");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        registry.push(REPOSITORY, TAG, &base::debian()?).await
    }
}

fn with_folder(folder: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(
        [folder.to_owned()].into_iter().chain(env::split_paths(&path)),
    )?)
}

fn wait_until_it_listens(log: impl std::io::Read + Send + 'static) -> Result<()> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if line.contains("running server on") {
                let _ = send.send(());
            }
        }
    });
    receive
        .recv_timeout(Duration::from_mins(1))
        .context("buildkitd does not listen")
}

/// Runs a command to its end; gives the seconds.
fn timed(mut command: Command) -> Result<f64> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    let output = command.output()?;
    let seconds = begun.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(20)..].join("\n");
    ensure!(output.status.success(), "{}: {tail}", output.status);
    Ok(seconds)
}

/// A context that has nothing but the base image, so that a builder has it afterwards.
fn prime(machine: &Machine) -> Result<PathBuf> {
    let dir = machine.work.join("prime");
    fs::create_dir_all(&dir)?;
    fs::write(
        dir.join("Dockerfile"),
        format!("FROM {}\nRUN true\n", machine.base()),
    )?;
    Ok(dir)
}

/// `buildctl build` at a daemon that runs.
pub(crate) struct BuildKit<'a> {
    machine: &'a Machine,
    name: String,
    count: usize,
}

impl<'a> BuildKit<'a> {
    pub(crate) fn new(machine: &'a Machine, name: &str) -> Self {
        Self {
            machine,
            name: name.to_owned(),
            count: 0,
        }
    }

    fn control(&self) -> Command {
        let mut command = Command::new(&self.machine.buildctl);
        command.args(["--addr", &self.machine.address]);
        command
    }
}

impl Builder for BuildKit<'_> {
    fn label(&self) -> String {
        "BuildKit".into()
    }

    fn forget(&mut self) -> Result<()> {
        // A repository of its own each time: what an earlier run has pushed is not there to be found.
        self.count += 1;
        let mut prune = self.control();
        prune.args(["prune", "--all"]);
        timed(prune)?;
        self.build(&prime(self.machine)?).map(|_| ())
    }

    fn build(&mut self, context: &Path) -> Result<f64> {
        let image = format!("{}/theirs/{}-{}:v1", self.machine.host, self.name, self.count);
        let mut command = self.control();
        command
            // The option keeps it from fetching the front end that a `# syntax=` line names.
            .args([
                "build",
                "--progress=plain",
                "--frontend=dockerfile.v0",
                "--opt",
                "cmdline=none",
            ])
            .arg("--local")
            .arg(format!("context={}", context.display()))
            .arg("--local")
            .arg(format!("dockerfile={}", context.display()))
            .arg("--output")
            .arg(format!("type=image,name={image},push=true"));
        timed(command)
    }
}

/// `slipway build --local`.
pub(crate) struct Slipway<'a> {
    machine: &'a Machine,
    program: PathBuf,
    name: String,
    compression: &'static str,
    store: PathBuf,
    count: usize,
}

impl<'a> Slipway<'a> {
    pub(crate) fn new(machine: &'a Machine, program: &Path, name: &str, compression: &'static str) -> Self {
        Self {
            machine,
            program: program.to_owned(),
            name: name.to_owned(),
            compression,
            store: machine.work.join("store"),
            count: 0,
        }
    }
}

impl Builder for Slipway<'_> {
    fn label(&self) -> String {
        self.compression.to_owned()
    }

    fn forget(&mut self) -> Result<()> {
        self.count += 1;
        if self.store.exists() {
            fs::remove_dir_all(&self.store)?;
        }
        self.build(&prime(self.machine)?).map(|_| ())
    }

    fn build(&mut self, context: &Path) -> Result<f64> {
        let host = &self.machine.host;
        let variant = self.compression;
        let image = format!("{host}/ours/{}{variant}-{}:v1", self.name, self.count);
        let mut output = format!("type=image,name={image},push=true");
        if !variant.is_empty() {
            output = format!("{output},compression={variant}");
        }
        let mut command = Command::new(&self.program);
        command
            .args([
                "build",
                "--local",
                "--progress=plain",
                "--insecure-registry",
                host,
                "--store",
            ])
            .arg(&self.store)
            .args(["--output", &output])
            .arg(context);
        timed(command)
    }
}
