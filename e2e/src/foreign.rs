//! Base images of other architectures, real ones: Debian's static busybox for each, and an index over them.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{
    binfmt,
    cluster::Cluster,
    command,
    config::cache_dir,
    images,
    oci::{self, Image},
};

/// Repository of the index over busybox for this machine's architecture and for the others.
pub const REPOSITORY: &str = "library/multi";
/// Its tag.
pub const TAG: &str = "1";
/// The other architectures, in the words of OCI; Debian calls these two the same.
pub const ARCHITECTURES: [&str; 2] = [binfmt::ARCHITECTURE, "s390x"];

/// Pushes the index, and all that it lists.
///
/// # Errors
/// When Debian's package cannot be had or the registry does not take it.
pub async fn push(cluster: &Cluster) -> Result<()> {
    let registry = cluster.registry()?;
    let mut images = vec![(oci::architecture(), images::busybox()?)];
    for architecture in ARCHITECTURES {
        images.push((architecture, busybox(architecture)?));
    }
    for (_, image) in &images {
        registry.push(REPOSITORY, &image.digest(), image).await?;
    }
    let parts: Vec<(&str, &Image)> = images.iter().map(|(of, image)| (*of, image)).collect();
    registry.put_manifest(REPOSITORY, TAG, &oci::index(&parts)?).await
}

/// Busybox for an architecture, as an image.
///
/// # Errors
/// When Debian's package cannot be had.
pub fn busybox(architecture: &str) -> Result<Image> {
    let file = cache_dir()?.join(format!("base/busybox-static-{architecture}"));
    if !file.exists() {
        let folder = file.parent().context("a file has a folder")?;
        let work = folder.join(format!("work-{architecture}.{}", std::process::id()));
        fs::create_dir_all(&work)?;
        let program = download(&work, architecture);
        fs::remove_dir_all(&work)?;
        crate::config::write_atomically(&file, &program?)?;
    }
    let program = fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
    images::busybox_of(program, architecture)
}

/// The program out of Debian's package. apt gets a state of its own, so that this machine's knows no second architecture.
fn download(work: &Path, architecture: &str) -> Result<Vec<u8>> {
    let apt = command::find("apt-get").context("apt-get is missing: a foreign busybox is Debian's")?;
    for folder in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(folder))?;
    }
    let config = work.join("apt.conf");
    let quoted = |path: PathBuf| format!("\"{}\"", path.display());
    fs::write(
        &config,
        format!(
            "APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n\
             Dir::State {};\nDir::State::status \"/dev/null\";\nDir::Cache {};\n\
             APT::Sandbox::User \"root\";\n",
            quoted(work.join("state")),
            quoted(work.join("cache")),
        ),
    )?;
    for args in [&["update", "-q"][..], &["download", "-q", "busybox-static"]] {
        let mut run = Command::new(&apt);
        run.args(args)
            .env("APT_CONFIG", &config)
            .current_dir(work)
            .stdin(std::process::Stdio::null());
        command::finish(&mut run)?;
    }
    let package = fs::read_dir(work)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt-get downloaded no package")?;
    let output = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&package)
        .output()
        .context("failed to run dpkg-deb")?;
    let mut archive = tar::Archive::new(output.stdout.as_slice());
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.ends_with("bin/busybox") {
            let mut program = Vec::new();
            entry.read_to_end(&mut program)?;
            return Ok(program);
        }
    }
    bail!("{} has no busybox", package.display())
}

/// An image with QEMU for s390x, as a cluster that emulates gives it to its build pods.
///
/// # Errors
/// When QEMU is missing.
pub fn emulators() -> Result<Image> {
    let mut entries = oci::Entries::default();
    let name = "qemu-s390x-static";
    let file = command::find(name).with_context(|| {
        format!("{name} is missing: apt-get install -y --no-install-recommends qemu-user-static")
    })?;
    entries.file(&format!("usr/bin/{name}"), 0o755, fs::read(file)?);
    Image::of(&entries.tar()?, &json!({}), "QEMU user mode emulators")
}
