//! How a build is asked for on the command line: ours by default, BuildKit's to check the harness itself.

use std::{
    fmt::Write as _,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{
    base::Base,
    case::{Build, CacheUse, NoCache, Output},
    check::Outcome,
    process,
    wording::{self, Row},
};

/// How long one build may take.
const LIMIT: Duration = Duration::from_mins(3);

/// The inputs of a build, written to disk.
pub(crate) struct Prepared {
    pub(crate) context: PathBuf,
    /// Folder of the Dockerfile, outside the context unless the case says otherwise.
    pub(crate) dockerfile_dir: PathBuf,
    pub(crate) secrets: Vec<(String, PathBuf)>,
    pub(crate) named: Vec<(String, Source)>,
    pub(crate) ssh_key: PathBuf,
    /// Exported cache of the case.
    pub(crate) cache: PathBuf,
    /// Where the result goes.
    pub(crate) out: PathBuf,
    /// Folder of the case, for stores.
    pub(crate) work: PathBuf,
    /// `@RUN@`: unique to this run.
    pub(crate) run_id: String,
}

/// A named context.
pub(crate) enum Source {
    Dir(PathBuf),
    Layout { dir: PathBuf, digest: String },
    Other(String),
}

/// One build that is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) build: &'a Build,
    pub(crate) prepared: &'a Prepared,
    /// Puts the values of the case's placeholders into a text.
    pub(crate) replaced: &'a dyn Fn(&str) -> String,
    /// Build as this user and group.
    pub(crate) user: Option<u32>,
    /// Leave the command beside the results.
    pub(crate) keep: bool,
}

/// What builds.
pub(crate) trait Builder: Sync {
    /// Builds; the result is in [`Prepared::out`].
    fn build(&self, asked: &Asked<'_>) -> Result<Outcome>;
    /// Differences in wording that are allowed.
    fn wording(&self) -> &'static [Row];
    /// Forgets the folders of earlier builds. BuildKit brings its copy up to date instead of copying anew, and what it
    /// removes shows in the times of the folders that remain.
    fn forget(&self) -> Result<()> {
        Ok(())
    }
}

impl Asked<'_> {
    /// Runs a program that builds.
    fn run(&self, program: &Path, args: &[String]) -> Result<Outcome> {
        let work = &self.prepared.work;
        let args: Vec<String> = args.iter().map(|arg| (self.replaced)(arg)).collect();
        let mut command = Command::new(program);
        command.args(&args).current_dir(work);
        clean_environment(&mut command, work);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        if self.keep {
            let words: Vec<String> = args
                .iter()
                .map(|arg| format!("'{}'", arg.replace('\'', r"'\''")))
                .collect();
            let name = format!(
                "command-{}",
                self.prepared.out.file_name().unwrap_or_default().display()
            );
            fs::write(
                work.join(name),
                format!("{} {}\n", program.display(), words.join(" ")),
            )?;
        }
        let ended = process::run(command, LIMIT)?;
        Ok(Outcome {
            success: ended.status.is_some_and(|status| status.success()),
            broken: ended.broken(LIMIT),
            log: ended.log,
        })
    }
}

/// `slipway build --local`.
pub(crate) struct Slipway {
    pub(crate) program: PathBuf,
    pub(crate) base: Base,
}

/// `buildctl build` against two daemons.
pub(crate) struct BuildKit {
    pub(crate) buildctl: PathBuf,
    /// The first daemon's, and the second's if there is one.
    pub(crate) addresses: Vec<String>,
    pub(crate) base: Base,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The output, as both command lines write it. A value with a comma is quoted as in CSV.
fn output(build: &Build, out: &Path) -> String {
    let mut spec = format!("type={},dest={}", build.output.name(), out.display());
    if build.output == Output::Oci {
        spec.push_str(",tar=false");
        for (key, value) in &build.export {
            if value.contains(',') {
                let _ = write!(spec, ",\"{key}={value}\"");
            } else {
                let _ = write!(spec, ",{key}={value}");
            }
        }
    }
    spec
}

/// BuildKit's raw options as flags.
fn options(build: &Build, add: &mut dyn FnMut(&str, String)) {
    for (option, value) in &build.opts {
        match option.as_str() {
            "context" | "filename" => {}
            "force-network-mode" => add("--network", value.clone()),
            "add-hosts" => value
                .split(',')
                .for_each(|host| add("--add-host", host.replacen('=', ":", 1))),
            option => add(&format!("--{option}"), value.clone()),
        }
    }
}

/// How the case uses its exported cache.
fn cache(build: &Build, prepared: &Prepared, add: &mut dyn FnMut(&str, String)) {
    let dir = prepared.cache.display();
    match build.cache {
        Some(CacheUse::Export) => add("--cache-to", format!("type=local,dest={dir},mode=max")),
        Some(CacheUse::ExportMin) => add("--cache-to", format!("type=local,dest={dir},mode=min")),
        Some(CacheUse::Import) => add("--cache-from", format!("type=local,src={dir}")),
        None => {}
    }
}

impl Builder for Slipway {
    fn build(&self, asked: &Asked<'_>) -> Result<Outcome> {
        asked.run(&self.program, &self.arguments(asked.build, asked.prepared))
    }

    fn wording(&self) -> &'static [Row] {
        wording::TABLE
    }
}

impl Slipway {
    fn arguments(&self, build: &Build, prepared: &Prepared) -> Vec<String> {
        let store = prepared
            .work
            .join(if build.daemon == 2 { "store2" } else { "store" });
        let mut args: Vec<String> = ["build", "--local", "--progress", "plain", "--store"]
            .map(str::to_owned)
            .to_vec();
        args.push(text(&store));
        let mut add = |flag: &str, value: String| {
            args.push(flag.to_owned());
            args.push(value);
        };
        let context = build.opts.get("context");
        match (
            context,
            build.filename.as_ref().or_else(|| build.opts.get("filename")),
        ) {
            // In a URL's context lies the Dockerfile too.
            (Some(_), None) => {}
            (Some(_), Some(name)) => add("--file", name.clone()),
            (None, name) => {
                add(
                    "--file",
                    text(
                        &prepared
                            .dockerfile_dir
                            .join(name.map_or("Dockerfile", String::as_str)),
                    ),
                );
            }
        }
        for (key, value) in &build.args {
            add(
                "--build-arg",
                format!("{key}={}", value.replace("@RUN@", &prepared.run_id)),
            );
        }
        if let Some(target) = &build.target {
            add("--target", target.clone());
        }
        if let Some(platform) = &build.platform {
            add("--platform", platform.clone());
        }
        for (key, value) in &build.labels {
            add("--label", format!("{key}={value}"));
        }
        options(build, &mut add);
        for (id, path) in &prepared.secrets {
            add("--secret", format!("id={id},src={}", path.display()));
        }
        for entitlement in &build.allow {
            add("--allow", entitlement.clone());
        }
        if build.ssh {
            add("--ssh", format!("default={}", prepared.ssh_key.display()));
        }
        let base = Source::Layout {
            dir: self.base.dir.clone(),
            digest: self.base.digest.clone(),
        };
        let base = ("busybox".to_owned(), base);
        let own_base = prepared.named.iter().any(|(name, _)| name == "busybox");
        for (name, source) in prepared.named.iter().chain((!own_base).then_some(&base)) {
            let source = match source {
                Source::Dir(dir) => text(dir),
                Source::Layout { dir, digest } => format!("oci-layout://{}@{digest}", dir.display()),
                Source::Other(source) => source.clone(),
            };
            add("--build-context", format!("{name}={source}"));
        }
        match &build.no_cache {
            Some(NoCache::Stage(stage)) => add("--no-cache-filter", stage.clone()),
            Some(NoCache::All(_)) | None => {}
        }
        cache(build, prepared, &mut add);
        match &build.call {
            Some(call) => add("--call", call.clone()),
            None => add("--output", output(build, &prepared.out)),
        }
        if build.no_cache == Some(NoCache::All(true)) {
            args.push("--no-cache".to_owned());
        }
        args.push(context.cloned().unwrap_or_else(|| text(&prepared.context)));
        args
    }
}

impl Builder for BuildKit {
    fn build(&self, asked: &Asked<'_>) -> Result<Outcome> {
        asked.run(&self.buildctl, &self.arguments(asked.build, asked.prepared))
    }

    fn wording(&self) -> &'static [Row] {
        &[]
    }

    fn forget(&self) -> Result<()> {
        for address in &self.addresses {
            let status = Command::new(&self.buildctl)
                .args(["--addr", address, "prune", "--filter", "type==source.local"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()?;
            ensure!(status.success(), "buildctl prune: {status}");
        }
        Ok(())
    }
}

impl BuildKit {
    fn arguments(&self, build: &Build, prepared: &Prepared) -> Vec<String> {
        let daemon = usize::from(build.daemon == 2).min(self.addresses.len().saturating_sub(1));
        let mut args = vec![
            "--addr".to_owned(),
            self.addresses.get(daemon).cloned().unwrap_or_default(),
        ];
        args.extend(["build", "--progress=plain", "--frontend", "dockerfile.v0"].map(str::to_owned));
        let mut add = |flag: &str, value: String| {
            args.push(flag.to_owned());
            args.push(value);
        };
        // Folders of the same name are copied to the daemon as changes to what it has of them; see [`Builder::forget`].
        let own = prepared
            .work
            .file_name()
            .unwrap_or_default()
            .display()
            .to_string();
        add("--local", format!("context={}", prepared.context.display()));
        add(
            "--local",
            format!("dockerfile={}", prepared.dockerfile_dir.display()),
        );
        add("--oci-layout", format!("cbase={}", self.base.dir.display()));
        add(
            "--opt",
            format!("context:busybox=oci-layout://cbase@{}", self.base.digest),
        );
        if let Some(name) = &build.filename {
            add("--opt", format!("filename={name}"));
        }
        for (key, value) in &build.args {
            add(
                "--opt",
                format!("build-arg:{key}={}", value.replace("@RUN@", &prepared.run_id)),
            );
        }
        for (key, value) in [("target", &build.target), ("platform", &build.platform)] {
            if let Some(value) = value {
                add("--opt", format!("{key}={value}"));
            }
        }
        for (key, value) in &build.labels {
            add("--opt", format!("label:{key}={value}"));
        }
        for (key, value) in &build.opts {
            add("--opt", format!("{key}={value}"));
        }
        for (id, path) in &prepared.secrets {
            add("--secret", format!("id={id},src={}", path.display()));
        }
        for entitlement in &build.allow {
            add("--allow", entitlement.clone());
        }
        if build.ssh {
            add("--ssh", format!("default={}", prepared.ssh_key.display()));
        }
        for (at, (name, source)) in prepared.named.iter().enumerate() {
            let source = match source {
                Source::Dir(dir) => {
                    add("--local", format!("named{at}-{own}={}", dir.display()));
                    format!("local:named{at}-{own}")
                }
                Source::Layout { dir, digest } => {
                    add("--oci-layout", format!("named{at}={}", dir.display()));
                    format!("oci-layout://named{at}@{digest}")
                }
                Source::Other(source) => source.clone(),
            };
            add("--opt", format!("context:{name}={source}"));
        }
        if let Some(NoCache::Stage(stage)) = &build.no_cache {
            add("--opt", format!("no-cache={stage}"));
        }
        match build.cache {
            Some(CacheUse::Export) => {
                add(
                    "--export-cache",
                    format!("type=local,dest={},mode=max", prepared.cache.display()),
                );
            }
            Some(CacheUse::ExportMin) => {
                add(
                    "--export-cache",
                    format!("type=local,dest={},mode=min", prepared.cache.display()),
                );
            }
            Some(CacheUse::Import) => add(
                "--import-cache",
                format!("type=local,src={}", prepared.cache.display()),
            ),
            None => {}
        }
        match &build.call {
            Some(call) => add("--opt", format!("requestid=frontend.{call}")),
            None => add("--output", output(build, &prepared.out)),
        }
        if build.no_cache == Some(NoCache::All(true)) {
            args.push("--no-cache".to_owned());
        }
        args
    }
}

/// Takes away what a developer's environment would add to a build.
pub(crate) fn clean_environment(command: &mut Command, home: &Path) {
    for name in [
        "SOURCE_DATE_EPOCH",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "ftp_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "FTP_PROXY",
        "ALL_PROXY",
        "SSH_AUTH_SOCK",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
    ] {
        command.env_remove(name);
    }
    command
        .env("HOME", home)
        .env("DOCKER_CONFIG", home.join("docker"))
        .env("XDG_CACHE_HOME", home.join("cache"));
    command.env("NO_COLOR", "1");
}
