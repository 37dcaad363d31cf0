//! What a machine must have: each thing that lacks is one line with the command that mends it.

use std::{fs, path::Path};

use anyhow::{Result, bail};

use crate::command;

/// A command and the Debian package that brings it.
const COMMANDS: [(&str, &str); 11] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("mount", "mount"),
    ("gcc", "gcc"),
    ("pkg-config", "pkg-config"),
    ("mmdebstrap", "mmdebstrap"),
    ("skopeo", "skopeo"),
    ("busybox", "busybox-static"),
    // For the node that says it is an arm64 one.
    ("qemu-aarch64-static", "qemu-user-static"),
    ("getent", "libc-bin"),
];

/// What `machine` lacks, one line each; empty when nothing. `packages` are those that [`install`] can bring.
#[derive(Debug, Default)]
pub struct Lacks {
    /// Debian packages.
    pub packages: Vec<&'static str>,
    /// Everything else, with its remedy.
    pub other: Vec<String>,
}

impl Lacks {
    /// All of it, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.other.clone();
        if !self.packages.is_empty() {
            let names = self.packages.join(" ");
            lines.push(format!(
                "missing packages: apt-get update && apt-get install -y --no-install-recommends {names}"
            ));
        }
        lines
    }
}

/// Looks at this machine.
pub fn look() -> Lacks {
    let mut lacks = Lacks::default();
    if !rustix::process::geteuid().is_root() {
        lacks
            .other
            .push("not root: the cluster makes namespaces, mounts and cgroups; run it with sudo -E".into());
    }
    for (name, package) in COMMANDS {
        if command::find(name).is_none() {
            lacks.packages.push(package);
        }
    }
    if let Some(busybox) = command::find("busybox")
        && !lacks.packages.contains(&"busybox-static")
        && is_dynamic(&busybox)
    {
        lacks.packages.push("busybox-static");
    }
    let seccomp =
        command::find("pkg-config").is_some_and(|p| command::succeeds(p, &["--exists", "libseccomp"]));
    if !seccomp {
        lacks.packages.push("libseccomp-dev");
    }
    // The C library's headers, which gcc alone does not bring.
    if !Path::new("/usr/include/stdlib.h").exists() {
        lacks.packages.push("libc6-dev");
    }
    if !Path::new(crate::images::CA_BUNDLE).exists() {
        lacks.packages.push("ca-certificates");
    }
    go(&mut lacks);
    kernel(&mut lacks);
    lacks
}

/// An ELF file with an interpreter needs that interpreter inside an image too.
fn is_dynamic(file: &Path) -> bool {
    let bytes = fs::read(file).unwrap_or_default();
    bytes.windows(8).take(4096).any(|w| w == b"/ld-linu")
        || bytes.windows(11).take(4096).any(|w| w == b"/lib64/ld-l")
}

fn go(lacks: &mut Lacks) {
    let go = command::find("go")
        .or_else(|| Some("/usr/local/go/bin/go".into()).filter(|g: &std::path::PathBuf| g.exists()));
    let version = go
        .and_then(|g| command::output(g, &["env", "GOVERSION"]).ok())
        .unwrap_or_default();
    if !new_enough(version.trim()) {
        let found = if version.is_empty() {
            "no Go".to_owned()
        } else {
            version.trim().to_owned()
        };
        lacks.other.push(format!(
            "{found} found, 1.26 or newer is needed: install it from https://go.dev/dl and put it on PATH"
        ));
    }
}

fn new_enough(version: &str) -> bool {
    let mut parts = version.trim_start_matches("go").split(['.', 'r', 'b']);
    let mut number = || parts.next().and_then(|p| p.parse::<u32>().ok()).unwrap_or(0);
    (number(), number()) >= (1, 26)
}

fn kernel(lacks: &mut Lacks) {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &str| {
        filesystems
            .lines()
            .any(|l| l.split_whitespace().last() == Some(name))
    };
    if !has("overlay") && !modprobe("overlay") {
        lacks
            .other
            .push("the kernel has no overlay file system: modprobe overlay".into());
    }
    let users = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if users.trim().parse::<u64>().unwrap_or(0) == 0 {
        lacks
            .other
            .push("user namespaces are off: sysctl -w user.max_user_namespaces=65536".into());
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(['.', '-']).map(|p| p.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < (6, 3) {
        let release = release.trim();
        lacks.other.push(format!(
            "kernel {release} is too old for pods with user namespaces (6.3 or newer): apt-get install linux-image-amd64 and reboot"
        ));
    }
    if rustix::process::geteuid().is_root() && command::find("ip").is_some() {
        links(lacks);
    }
}

/// Makes a bridge, a veth pair and a rule in a namespace that is deleted at once.
fn links(lacks: &mut Lacks) {
    let Some(ip) = command::find("ip") else { return };
    let name = format!("slipway-probe-{}", std::process::id());
    if !command::succeeds(&ip, &["netns", "add", &name]) {
        lacks.other.push(
            "network namespaces cannot be made: the kernel needs CONFIG_NET_NS, the machine CAP_SYS_ADMIN"
                .into(),
        );
        return;
    }
    let try_link = |what: &[&str]| {
        let args: Vec<&str> = ["-n", &name, "link", "add", "probe"]
            .iter()
            .chain(what)
            .copied()
            .collect();
        let made = command::succeeds(&ip, &args);
        command::succeeds(&ip, &["-n", &name, "link", "del", "probe"]);
        made
    };
    let veth = ["type", "veth", "peer", "name", "probe2"].as_slice();
    for (module, what) in [("bridge", ["type", "bridge"].as_slice()), ("veth", veth)] {
        let made = try_link(what) || (modprobe(module) && try_link(what));
        if !made {
            lacks.other.push(format!(
                "the kernel makes no {module} interface: modprobe {module}"
            ));
        }
    }
    if let Some(nft) = command::find("nft") {
        let rule = [
            "add table ip probe",
            "add chain ip probe c { type nat hook output priority -100; }",
        ]
        .join("; ");
        let nft = nft.display().to_string();
        if !command::succeeds(&ip, &["netns", "exec", &name, &nft, &rule]) {
            lacks
                .other
                .push("the kernel has no nftables with NAT: modprobe nf_tables nft_chain_nat".into());
        }
    }
    command::succeeds(&ip, &["netns", "del", &name]);
}

fn modprobe(module: &str) -> bool {
    command::find("modprobe").is_some_and(|m| command::succeeds(m, &[module]))
}

/// Installs the packages that lack, where that is possible: on Debian as root.
///
/// # Errors
/// When something lacks that cannot be installed: each on its own line.
pub fn install() -> Result<()> {
    let lacks = look();
    let apt = command::find("apt-get").filter(|_| rustix::process::geteuid().is_root());
    if let (Some(apt), false) = (apt, lacks.packages.is_empty()) {
        println!("installing packages: {}", lacks.packages.join(" "));
        command::output(&apt, &["update", "-q"])?;
        let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
        args.extend(&lacks.packages);
        let mut install = std::process::Command::new(&apt);
        install
            .args(&args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(std::process::Stdio::null());
        command::finish(&mut install)?;
    }
    check()
}

/// Fails when this machine lacks something.
pub fn check() -> Result<()> {
    let lines = look().lines();
    if lines.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine lacks what the embedded cluster needs:\n  {}",
        lines.join("\n  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        for (version, fits) in [
            ("go1.26.8", true),
            ("go1.27rc1", true),
            ("go1.100.0", true),
            ("go1.9", false),
            ("go1.25.4", false),
            ("", false),
        ] {
            assert_eq!(new_enough(version), fits, "{version}");
        }
    }

    #[test]
    fn missing_packages_are_one_line_with_the_command() {
        let lacks = Lacks {
            packages: vec!["nftables", "conntrack"],
            other: vec!["not root".into()],
        };
        assert_eq!(lacks.lines().len(), 2);
        assert!(lacks.lines()[1].ends_with("nftables conntrack"));
    }
}
