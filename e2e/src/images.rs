//! The images that are made from this workspace's and this machine's own binaries.
//!
//! | reference | holds | made for |
//! |---|---|---|
//! | `slipway.test/pause:1` | busybox that sleeps | each pod's sandbox |
//! | `slipway.test/busybox:1` | busybox with its applets | local-path's helper pods, tests |
//! | `slipway.test/operator:dev` | `slipway-operator`, CA bundle | the chart |
//! | `slipway.test/runner:dev` | `slipway-runner`, CA bundle, `/tmp` | runner pods |
//! | `slipway.test/emulators:dev` | QEMU for s390x | runner pods that emulate |

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{
    command,
    oci::{Entries, Image},
};

/// Each pod's sandbox.
pub const PAUSE: &str = "slipway.test/pause:1";
/// A shell and its friends, present on every node.
pub const BUSYBOX: &str = "slipway.test/busybox:1";
/// The operator's image as the chart is told.
pub const OPERATOR: &str = "slipway.test/operator:dev";
/// The runner's image as the operator is told.
pub const RUNNER: &str = "slipway.test/runner:dev";
/// QEMU for build pods, as the operator is told.
pub const EMULATORS: &str = "slipway.test/emulators:dev";
/// Where Debian keeps the certificates of public authorities.
pub const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A small system around Debian's static busybox.
pub fn busybox() -> Result<Image> {
    let file = command::find("busybox").context("busybox is missing: apt-get install busybox-static")?;
    let program = fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
    busybox_of(program, crate::oci::architecture())
}

/// The same around a busybox for any architecture.
pub fn busybox_of(program: Vec<u8>, architecture: &str) -> Result<Image> {
    let file = command::find("busybox").context("busybox is missing: apt-get install busybox-static")?;
    let mut entries = Entries::default();
    for (folder, mode) in [
        ("dev", 0o755),
        ("proc", 0o755),
        ("sys", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("home", 0o755),
    ] {
        entries.folder(folder, mode);
    }
    entries.file("bin/busybox", 0o755, program);
    for applet in command::output(&file, &["--list"])?
        .lines()
        .filter(|a| !a.is_empty() && *a != "busybox")
    {
        entries.link(&format!("bin/{applet}"), "busybox");
    }
    entries.link("usr/bin/env", "../../bin/busybox");
    entries.file(
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    );
    entries.file("etc/group", 0o644, "root:x:0:\nnobody:x:65534:\n");
    let config = json!({"Env": [PATH], "Cmd": ["sh"]});
    Image::for_architecture(
        &entries.tar()?,
        &config,
        "busybox from Debian's busybox-static",
        architecture,
    )
}

/// What holds a pod's namespaces open.
pub fn pause() -> Result<Image> {
    let file = command::find("busybox").context("busybox is missing: apt-get install busybox-static")?;
    let mut entries = Entries::default();
    entries.file("bin/busybox", 0o755, fs::read(&file)?);
    let config = json!({"Env": [PATH], "Entrypoint": ["/bin/busybox", "sleep", "2147483647"]});
    Image::of(&entries.tar()?, &config, "sleeps for ever")
}

/// The operator: one static file, nobody's rights, no shell.
pub fn operator(binaries: &Path) -> Result<Image> {
    let mut entries = program(binaries, "slipway-operator")?;
    entries.file(
        "etc/passwd",
        0o644,
        "nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
    );
    entries.file("etc/group", 0o644, "nonroot:x:65532:\n");
    let config = json!({
        "User": "65532:65532", "Env": [PATH, "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
        "Entrypoint": ["/usr/local/bin/slipway-operator"], "WorkingDir": "/",
    });
    Image::of(&entries.tar()?, &config, "slipway-operator")
}

/// The runner: one static file; root inside its pod's user namespace.
pub fn runner(binaries: &Path) -> Result<Image> {
    let mut entries = program(binaries, "slipway-runner")?;
    // Where the pod mounts its emptyDir, and what a step's namespaces are built on.
    for (folder, mode) in [
        ("tmp", 0o1777),
        ("slipway", 0o755),
        ("dev", 0o755),
        ("proc", 0o755),
        ("sys", 0o755),
    ] {
        entries.folder(folder, mode);
    }
    entries.file("etc/passwd", 0o644, "root:x:0:0:root:/:/sbin/nologin\n");
    entries.file("etc/group", 0o644, "root:x:0:\n");
    let config = json!({
        "Env": [PATH, "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
        "Entrypoint": ["/usr/local/bin/slipway-runner"], "WorkingDir": "/",
    });
    Image::of(&entries.tar()?, &config, "slipway-runner")
}

fn program(binaries: &Path, name: &str) -> Result<Entries> {
    let file = binaries.join(name);
    if !file.exists() {
        bail!("{} is missing: run make binaries", file.display());
    }
    let bytes = fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
    if bytes.windows(4).take(8192).any(|w| w == b"ld-l") {
        bail!(
            "{} is linked dynamically: the image holds no C library; build with the workspace's .cargo/config.toml",
            file.display()
        );
    }
    let bundle = fs::read(CA_BUNDLE)
        .with_context(|| format!("failed to read {CA_BUNDLE}: apt-get install ca-certificates"))?;
    let mut entries = Entries::default();
    entries.file(&format!("usr/local/bin/{name}"), 0o755, bytes);
    entries.file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle);
    Ok(entries)
}

/// Where the release binaries are: `$SLIPWAY_BINARIES`, or next to this program's own folder as cargo lays them.
pub fn release_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("SLIPWAY_BINARIES").filter(|f| !f.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    let own = std::env::current_exe().context("failed to find this program's own file")?;
    // <target>/<triple>/<profile>/slipway-e2e; a test binary is one folder deeper, in deps/.
    let folder = own
        .ancestors()
        .skip(1)
        .find(|f| f.file_name().is_some_and(|n| n == "debug" || n == "release"));
    let profiles = folder
        .and_then(Path::parent)
        .context("this program does not lie in a cargo target folder")?;
    Ok(profiles.join("release"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_is_said_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = operator(dir.path()).unwrap_err().to_string();
        assert!(error.contains("make binaries"), "{error}");
    }

    #[test]
    fn the_runner_starts_as_root_and_the_operator_does_not() {
        if !Path::new(CA_BUNDLE).exists() {
            println!("skipped: {CA_BUNDLE} is missing");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["slipway-operator", "slipway-runner"] {
            fs::write(dir.path().join(name), "program").unwrap();
        }
        let config = |image: &Image| {
            let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
            let blob = &image.blobs[manifest["config"]["digest"].as_str().unwrap()];
            serde_json::from_slice::<serde_json::Value>(blob).unwrap()["config"].clone()
        };
        assert_eq!(config(&operator(dir.path()).unwrap())["User"], "65532:65532");
        assert!(config(&runner(dir.path()).unwrap())["User"].is_null());
    }
}
