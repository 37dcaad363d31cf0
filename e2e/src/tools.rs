//! Builds the cluster's programs from the Go module proxy into a versioned cache, once.
//!
//! One small module a tool, since their dependencies conflict in one. The modules are part of this program, so that
//! what is built does not depend on the folder that it is started in.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::{command, config::cache_dir};

/// Kubernetes' version; the programs compare it among each other, so it is stamped in.
pub const KUBERNETES: &str = "v1.37.2";

/// A Go module of `e2e/tools/`.
struct Module {
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    programs: &'static [&'static str],
    /// Needs the C compiler.
    cgo: bool,
    tags: &'static str,
    ldflags: &'static str,
    /// Built only when asked for: what Slipway is compared with.
    peer: bool,
}

macro_rules! module {
    ($name:literal, $programs:expr $(, $field:ident: $value:expr)*) => {
        Module {
            $($field: $value,)*
            ..Module {
                name: $name,
                go_mod: include_str!(concat!("../tools/", $name, "/go.mod")),
                go_sum: include_str!(concat!("../tools/", $name, "/go.sum")),
                programs: &$programs,
                cgo: false,
                tags: "",
                ldflags: "-s -w",
                peer: false,
            }
        }
    };
}

const MODULES: [Module; 11] = [
    module!("etcd", ["etcd"]),
    module!(
        "kubernetes",
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"],
        ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 \
                  -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
    ),
    module!("containerd", ["containerd", "containerd-shim-runc-v2", "ctr"]),
    // A kernel's seccomp filter is compiled by the C library; Debian's own runc is too old for user namespaces.
    module!("runc", ["runc"], cgo: true, tags: "seccomp"),
    module!("cni-plugins", ["ptp", "host-local", "loopback"]),
    module!("coredns", ["coredns"]),
    module!("registry", ["registry"]),
    // A registry of another make, for the scenarios.
    module!("crane", ["crane"]),
    module!("helm", ["helm"]),
    module!("local-path-provisioner", ["local-path-provisioner"]),
    module!("buildkit", ["buildkitd", "buildctl"], peer: true),
];

/// The built programs.
#[derive(Debug, Clone)]
pub struct Tools {
    programs: BTreeMap<&'static str, PathBuf>,
}

impl Tools {
    /// Builds what the cache lacks, with a line for each. `peer` adds the programs that Slipway is compared with.
    ///
    /// # Errors
    /// When Go is missing or too old, or a build fails; the error holds the compiler's last lines.
    pub fn build(peer: bool) -> Result<Self> {
        let go = command::find("go")
            .or_else(|| Some("/usr/local/go/bin/go".into()).filter(|g: &PathBuf| g.exists()));
        let go = go.context("Go is missing: install Go 1.26 (https://go.dev/dl) and put it on PATH")?;
        let version = command::output(&go, &["env", "GOVERSION"])?.trim().to_owned();
        let cache = cache_dir()?.join("tools");
        fs::create_dir_all(&cache).with_context(|| format!("failed to create {}", cache.display()))?;
        let mut programs = BTreeMap::new();
        for module in MODULES.iter().filter(|m| peer || !m.peer) {
            let folder = module.ensure(&cache, &go, &version)?;
            programs.extend(module.programs.iter().map(|p| (*p, folder.join(p))));
        }
        Ok(Self { programs })
    }

    /// The file of a program.
    pub fn file(&self, program: &str) -> Result<PathBuf> {
        self.programs
            .get(program)
            .cloned()
            .with_context(|| format!("{program} is not among the built programs"))
    }

    /// The folder of a program.
    pub fn folder(&self, program: &str) -> Result<PathBuf> {
        Ok(self
            .file(program)?
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default())
    }

    /// All programs.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.programs.iter().map(|(name, file)| (*name, file.as_path()))
    }
}

impl Module {
    /// What the result depends on.
    fn key(&self, go: &str) -> String {
        let mut hash = Sha256::new();
        let cgo = if self.cgo { "cgo" } else { "" };
        for part in [
            self.go_mod,
            self.go_sum,
            self.tags,
            self.ldflags,
            cgo,
            go,
            std::env::consts::ARCH,
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hex::encode(&hash.finalize()[..8])
    }

    fn complete(&self, folder: &Path) -> bool {
        self.programs.iter().all(|p| folder.join(p).is_file())
    }

    fn ensure(&self, cache: &Path, go: &Path, version: &str) -> Result<PathBuf> {
        let folder = cache.join(format!("{}-{}", self.name, self.key(version)));
        if self.complete(&folder) {
            return Ok(folder);
        }
        // One builder at a time; the second finds the first one's result. The lock ends with its holder.
        let lock = cache.join(format!("{}.lock", self.name));
        let lock = File::create(&lock).with_context(|| format!("failed to create {}", lock.display()))?;
        flock(&lock, FlockOperation::LockExclusive).context("failed to lock the cache of built programs")?;
        if self.complete(&folder) {
            return Ok(folder);
        }
        print!("building {} ... ", self.name);
        std::io::Write::flush(&mut std::io::stdout())?;
        let started = Instant::now();
        let work = cache.join(format!("{}.work", self.name));
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(work.join("bin"))?;
        fs::write(work.join("go.mod"), self.go_mod)?;
        fs::write(work.join("go.sum"), self.go_sum)?;
        self.compile(go, &work)?;
        if !self.complete(&work.join("bin")) {
            bail!("building {} gave no {}", self.name, self.programs.join(", "));
        }
        let _ = fs::remove_dir_all(&folder);
        fs::rename(work.join("bin"), &folder)?;
        fs::remove_dir_all(&work)?;
        println!("{} s", started.elapsed().as_secs());
        Ok(folder)
    }

    fn compile(&self, go: &Path, work: &Path) -> Result<()> {
        let mut build = Command::new(go);
        build.current_dir(work).stdin(Stdio::null());
        build.env("CGO_ENABLED", if self.cgo { "1" } else { "0" });
        // No download of another toolchain, no workspace of the caller's, and the go.sum as it is.
        build
            .env("GOTOOLCHAIN", "local")
            .env("GOWORK", "off")
            .env("GOFLAGS", "-mod=readonly");
        build.args(["build", "-buildvcs=false", "-ldflags", self.ldflags]);
        if !self.tags.is_empty() {
            build.args(["-tags", self.tags]);
        }
        build.args(["-o", "bin/", "tool"]);
        let out = build
            .output()
            .with_context(|| format!("failed to start {}", go.display()))?;
        if !out.status.success() {
            let text = String::from_utf8_lossy(&out.stderr).into_owned();
            let lines: Vec<&str> = text
                .lines()
                .filter(|l| !l.starts_with("go: downloading"))
                .collect();
            println!("failed");
            bail!(
                "failed to build {}:\n{}",
                self.name,
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
        // The etcd server's package is called "server"; the program is known as etcd.
        let server = work.join("bin/server");
        if self.name == "etcd" && server.exists() {
            fs::rename(server, work.join("bin/etcd"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_asks_for_the_programs_that_are_expected_of_it() {
        for module in &MODULES {
            let tools = module
                .go_mod
                .lines()
                .filter(|l| l.trim_start().starts_with("tool "))
                .count();
            let block = module
                .go_mod
                .split("tool (")
                .nth(1)
                .and_then(|b| b.split(')').next());
            let tools = tools - usize::from(block.is_some()) + block.map_or(0, |b| b.trim().lines().count());
            assert_eq!(tools, module.programs.len(), "{}", module.name);
            assert!(!module.go_sum.is_empty());
        }
    }

    #[test]
    fn the_stamped_version_is_the_one_that_is_built() {
        let kubernetes = &MODULES[1];
        assert!(
            kubernetes
                .go_mod
                .contains(&format!("k8s.io/kubernetes {KUBERNETES}"))
        );
        assert!(kubernetes.ldflags.contains(&format!("gitVersion={KUBERNETES} ")));
    }

    #[test]
    fn another_compiler_or_flag_is_another_result() {
        assert_ne!(MODULES[0].key("go1.26.8"), MODULES[0].key("go1.26.9"));
        assert_ne!(MODULES[0].key("go1.26.8"), MODULES[1].key("go1.26.8"));
    }
}
