//! How a build is asked for on the command line: ours by default, BuildKit's to check the harness itself.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    base::Base,
    case::{Build, CacheUse, NoCache, Output},
    wording::{self, Row},
};

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

/// A program that builds.
pub(crate) trait Builder: Sync {
    /// The command for a build. Placeholders in its arguments are replaced by the caller.
    fn command(&self, build: &Build, prepared: &Prepared) -> (PathBuf, Vec<String>);
    /// Differences in wording that are allowed.
    fn wording(&self) -> &'static [Row];
}

/// `slipway build --local`.
pub(crate) struct Slipway {
    pub(crate) program: PathBuf,
    pub(crate) base: Base,
}

/// `buildctl build` against two daemons.
pub(crate) struct BuildKit {
    pub(crate) buildctl: PathBuf,
    pub(crate) addresses: [String; 2],
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
    fn command(&self, build: &Build, prepared: &Prepared) -> (PathBuf, Vec<String>) {
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
        (self.program.clone(), args)
    }

    fn wording(&self) -> &'static [Row] {
        wording::TABLE
    }
}

impl Builder for BuildKit {
    fn command(&self, build: &Build, prepared: &Prepared) -> (PathBuf, Vec<String>) {
        let mut args = vec![
            "--addr".to_owned(),
            self.addresses[usize::from(build.daemon == 2)].clone(),
        ];
        args.extend(["build", "--progress=plain", "--frontend", "dockerfile.v0"].map(str::to_owned));
        let mut add = |flag: &str, value: String| {
            args.push(flag.to_owned());
            args.push(value);
        };
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
                    add("--local", format!("named{at}={}", dir.display()));
                    format!("local:named{at}")
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
        (self.buildctl.clone(), args)
    }

    fn wording(&self) -> &'static [Row] {
        &[]
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
