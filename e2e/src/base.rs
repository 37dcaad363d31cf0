//! Base images for tests and the demo, since no public registry is asked: a real Debian made with mmdebstrap through
//! this machine's own apt configuration, and busybox. Made once, kept in the cache.

mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{
    cluster::Cluster,
    command,
    config::cache_dir,
    images,
    oci::{self, Image},
};

pub use toolchain::Toolchain;

const SUITE: &str = "bookworm";
/// Raise it when the recipe below changes: it is part of the cached file's name.
const RECIPE: u32 = 1;

/// Where a Debian of anybody's looks for packages, whatever this machine does.
const STOCK_SOURCES: &str = "Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";

/// Pushes `debian:bookworm`, `debian:bookworm-slim` and `busybox:latest` below `library/` of the cluster's registry.
pub async fn push() -> Result<()> {
    let cluster = Cluster::from_env_or_embedded().await?;
    let registry = cluster.registry()?;
    let debian = debian()?;
    let busybox = images::busybox()?;
    let pushes = [
        ("library/debian", "bookworm", &debian),
        ("library/debian", "bookworm-slim", &debian),
        ("library/busybox", "latest", &busybox),
    ];
    for (repository, tag, image) in pushes {
        registry.push(repository, tag, image).await?;
        println!(
            "{}/{repository}:{tag}@{} {:.1} MB",
            cluster.registry,
            image.digest(),
            image.size() as f64 / 1e6
        );
    }
    Ok(())
}

/// The Debian image, from the cache or made now.
pub fn debian() -> Result<Image> {
    let file = cache_dir()?.join(format!(
        "base/debian-{SUITE}-{}-{RECIPE}.tar",
        oci::architecture()
    ));
    if !file.exists() {
        println!("making a Debian {SUITE} base image with mmdebstrap");
        let started = Instant::now();
        let image = bootstrap(&file)?;
        oci::write_archive(&file, &[(&format!("docker.io/library/debian:{SUITE}"), &image)])?;
        println!("made in {} s", started.elapsed().as_secs());
    }
    let (_, image) = oci::read_archive(&file)?
        .into_iter()
        .next()
        .context("the archive holds one image")?;
    Ok(image)
}

fn bootstrap(beside: &Path) -> Result<Image> {
    let folder = beside.parent().context("a file has a folder")?;
    fs::create_dir_all(folder)?;
    let work = folder.join(format!("work.{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let result = mmdebstrap(&work);
    fs::remove_dir_all(&work)?;
    let layer = result?;
    let config = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["bash"],
    });
    Image::of(&layer, &config, "Debian minbase by mmdebstrap")
}

fn mmdebstrap(work: &Path) -> Result<Vec<u8>> {
    let program = command::find("mmdebstrap").context("mmdebstrap is missing: apt-get install mmdebstrap")?;
    let tar = work.join("root.tar");
    let stock = work.join("debian.sources");
    fs::write(&stock, STOCK_SOURCES)?;
    let mut args: Vec<String> = ["--variant=minbase", "--mode=root", "--format=tar", "--quiet"]
        .map(str::to_owned)
        .into();
    // The pod's own nodes are mounted there; a layer without device nodes unpacks in a user namespace.
    args.push("--skip=output/dev".into());
    for folder in ["man/*", "doc/*", "locale/*", "info/*"] {
        args.push(format!("--dpkgopt=path-exclude=/usr/share/{folder}"));
    }
    args.push("--dpkgopt=path-include=/usr/share/doc/*/copyright".into());
    for option in acquire_options()? {
        args.push(format!("--aptopt={option}"));
    }
    // This machine's mirror and apt options end with the making.
    let hook = format!(
        "rm -f \"$1\"/etc/apt/sources.list \"$1\"/etc/apt/apt.conf.d/99mmdebstrap && rm -rf \"$1\"/etc/apt/sources.list.d/* && \
         cp {} \"$1\"/etc/apt/sources.list.d/debian.sources && chmod 644 \"$1\"/etc/apt/sources.list.d/debian.sources",
        stock.display()
    );
    args.push(format!("--customize-hook={hook}"));
    args.extend([SUITE.to_owned(), tar.display().to_string()]);
    args.extend(sources(work)?);
    let mut run = std::process::Command::new(program);
    // Times later than this are clamped to it: the archive is the same whenever it is made of the same packages.
    run.args(&args)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .stdin(std::process::Stdio::null());
    command::finish(&mut run)?;
    fs::read(&tar).with_context(|| format!("failed to read {}", tar.display()))
}

/// A file with the sources of the suite that this machine's apt uses; none when it has none, for mmdebstrap's default.
fn sources(work: &Path) -> Result<Option<String>> {
    let apt =
        command::find("apt-get").context("apt-get is missing: a Debian base image is made on Debian")?;
    let format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)";
    let args = ["indextargets", "--format", format, "Created-By: Packages"];
    let mut lines = one_line_sources(&command::output(&apt, &args)?);
    if lines.is_empty() {
        // What lies there is known only once the lists are.
        command::output(&apt, &["update", "-q"])?;
        lines = one_line_sources(&command::output(&apt, &args)?);
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let file: PathBuf = work.join("machine.list");
    fs::write(&file, lines.join("\n") + "\n")?;
    Ok(Some(file.display().to_string()))
}

/// `deb URI SUITE COMPONENT` for each of Debian's own lists of the suite.
fn one_line_sources(targets: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for target in targets.lines() {
        let fields: Vec<&str> = target.split('|').collect();
        let [uri, release, component, origin] = fields.as_slice() else {
            continue;
        };
        let line = format!("deb {uri} {release} {component}");
        if release.split('-').next() == Some(SUITE) && *origin == "Debian" && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// The options of this machine's apt that decide whether and how it reaches its mirror.
fn acquire_options() -> Result<Vec<String>> {
    let Some(config) = command::find("apt-config") else {
        bail!("apt-config is missing: apt-get install apt")
    };
    let dump = command::output(config, &["dump", "--no-empty", "Acquire"])?;
    let wanted = [
        "Acquire::http",
        "Acquire::https",
        "Acquire::Check-",
        "Acquire::Retries",
        "Acquire::Force",
    ];
    let lines = dump.lines().filter(|l| wanted.iter().any(|w| l.starts_with(w)));
    Ok(lines.map(|l| l.trim_end_matches(';').to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_lists_of_the_suite_are_taken() {
        let targets = "http://m/debian/|bookworm|main|Debian\nhttp://m/debian/|bookworm|main|Debian\n\
                       http://m/security/|bookworm-security|main|Debian\nhttp://other/|bookworm|stable|Docker\n\
                       http://m/debian/|trixie|main|Debian\n";
        assert_eq!(
            one_line_sources(targets),
            [
                "deb http://m/debian/ bookworm main",
                "deb http://m/security/ bookworm-security main"
            ]
        );
    }
}
