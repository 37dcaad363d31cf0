//! The base image `busybox`: Debian's static busybox with one symlink per applet and the least of /etc, as an OCI
//! layout. The same busybox gives the same digest, so that builds of different runs can be compared.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::tree;

/// Debian's path of the program.
const BUSYBOX: &str = "/usr/bin/busybox";

/// An OCI layout of one image, with what checks need to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) dir: PathBuf,
    /// Digest of its manifest.
    pub(crate) digest: String,
    /// Digests of its layers.
    pub(crate) layers: Vec<String>,
    /// Digests of its layers' archives, without compression.
    pub(crate) diff_ids: Vec<String>,
    /// Number of its history entries.
    pub(crate) history: usize,
}

/// The programs that cases need, by Debian's packages.
const PROGRAMS: &[(&str, &str)] = &[
    (BUSYBOX, "busybox-static"),
    ("/usr/bin/xz", "xz-utils"),
    ("/usr/bin/bzip2", "bzip2"),
    ("/usr/bin/git", "git"),
    ("/usr/bin/ssh-keygen", "openssh-client"),
];

/// Checks that the programs are here; installs Debian's packages where that is possible.
pub(crate) fn programs() -> Result<()> {
    let missing = || {
        // Debian has moved bzip2 from /bin to /usr/bin.
        let there =
            |path: &str| Path::new(path).exists() || Path::new(path.trim_start_matches("/usr")).exists();
        PROGRAMS
            .iter()
            .filter(|(path, _)| !there(path))
            .map(|(_, package)| *package)
            .collect::<Vec<_>>()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let install = format!(
        "apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    );
    if rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists() {
        eprintln!("{install}");
        let _ = Command::new("sh")
            .arg("-c")
            .arg(&install)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status();
    }
    let packages = missing();
    ensure!(
        packages.is_empty(),
        "programs are missing that the cases need; as root: {install}"
    );
    Ok(())
}

/// Makes the image in `dir`, which must not exist or hold an earlier one.
pub(crate) fn make(dir: &Path) -> Result<Base> {
    let raw = rootfs()?;
    let layer = tree::compress(&raw, "gz")?;
    let diff_id = digest(&raw);
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [
            {"created": "2020-01-01T00:00:00Z", "created_by": "base rootfs"},
            {"created": "2020-01-01T00:00:00Z", "created_by": "CMD [\"sh\"]", "empty_layer": true},
        ],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&layer), "size": layer.len()}],
    }))?;
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    for blob in [&layer, &config, &manifest] {
        fs::write(blobs.join(digest(blob).trim_start_matches("sha256:")), blob)?;
    }
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }]});
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(dir.join("index.json"), serde_json::to_vec::<Value>(&index)?)?;
    Ok(Base {
        dir: dir.to_owned(),
        digest: digest(&manifest),
        layers: vec![digest(&layer)],
        diff_ids: vec![diff_id],
        history: 2,
    })
}

fn rootfs() -> Result<Vec<u8>> {
    let program = fs::read(BUSYBOX)
        .with_context(|| format!("failed to read {BUSYBOX}; Debian has it in busybox-static"))?;
    let listed = Command::new(BUSYBOX)
        .arg("--list")
        .output()
        .context("failed to ask busybox for its applets")?;
    let listed = String::from_utf8(listed.stdout)?;
    let mut applets: Vec<&str> = listed
        .split_whitespace()
        .filter(|name| *name != "busybox")
        .collect();
    applets.sort_unstable();
    applets.dedup();

    let mut out = Vec::new();
    let mut add = |kind: tar::EntryType, name: &str, mode: u32, link: &str, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tree::append(&mut out, header, name, link, data);
    };
    let dirs = [
        "bin",
        "dev",
        "etc",
        "home",
        "proc",
        "root",
        "sys",
        "tmp",
        "usr",
        "usr/bin",
        "var",
        "var/spool",
    ];
    for dir in dirs {
        let mode = match dir {
            "root" => 0o700,
            "tmp" => 0o1777,
            _ => 0o755,
        };
        add(tar::EntryType::Directory, &format!("{dir}/"), mode, "", b"");
    }
    add(tar::EntryType::Regular, "bin/busybox", 0o755, "", &program);
    for applet in applets {
        add(
            tar::EntryType::Symlink,
            &format!("bin/{applet}"),
            0o777,
            "busybox",
            b"",
        );
    }
    add(
        tar::EntryType::Symlink,
        "usr/bin/env",
        0o777,
        "../../bin/busybox",
        b"",
    );
    let passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                  www:x:33:33:www:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
    let group = "root:x:0:\ndaemon:x:1:\nwheel:x:10:root\nwww:x:33:\nnobody:x:65534:\n";
    add(
        tar::EntryType::Regular,
        "etc/passwd",
        0o644,
        "",
        passwd.as_bytes(),
    );
    add(tar::EntryType::Regular, "etc/group", 0o644, "", group.as_bytes());
    add(
        tar::EntryType::Regular,
        "etc/shadow",
        0o640,
        "",
        b"root:*:::::::\ndaemon:*:::::::\n",
    );
    out.resize(out.len() + 1024, 0);
    Ok(out)
}

/// The digest of bytes as images write it.
pub(crate) fn digest(data: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_the_same_each_time() {
        if !Path::new(BUSYBOX).exists() {
            println!("skipped: {BUSYBOX} is not here");
            return;
        }
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (make(a.path()).unwrap(), make(b.path()).unwrap());
        assert_eq!(a.digest, b.digest);
        assert_eq!(a.layers.len(), a.diff_ids.len());
    }
}
