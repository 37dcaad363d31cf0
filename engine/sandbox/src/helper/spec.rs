//! Step → configuration of the OCI runtime specification, version 1.0.

use serde_json::{Value, json};

use crate::{Mount, MountKind, Network, Security, Step, sys};

/// Capabilities of a step without `--security=insecure`, and their bit numbers: Docker's default list.
const DEFAULT_CAPABILITIES: [(&str, u32); 14] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_MKNOD", 27),
    ("CAP_AUDIT_WRITE", 29),
    ("CAP_SETFCAP", 31),
];

/// All others.
const FURTHER_CAPABILITIES: [(&str, u32); 27] = [
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_LINUX_IMMUTABLE", 9),
    ("CAP_NET_BROADCAST", 11),
    ("CAP_NET_ADMIN", 12),
    ("CAP_IPC_LOCK", 14),
    ("CAP_IPC_OWNER", 15),
    ("CAP_SYS_MODULE", 16),
    ("CAP_SYS_RAWIO", 17),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_PACCT", 20),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_BOOT", 22),
    ("CAP_SYS_NICE", 23),
    ("CAP_SYS_RESOURCE", 24),
    ("CAP_SYS_TIME", 25),
    ("CAP_SYS_TTY_CONFIG", 26),
    ("CAP_LEASE", 28),
    ("CAP_AUDIT_CONTROL", 30),
    ("CAP_MAC_OVERRIDE", 32),
    ("CAP_MAC_ADMIN", 33),
    ("CAP_SYSLOG", 34),
    ("CAP_WAKE_ALARM", 35),
    ("CAP_BLOCK_SUSPEND", 36),
    ("CAP_AUDIT_READ", 37),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
    ("CAP_CHECKPOINT_RESTORE", 40),
];

/// What of the machine shapes the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Capabilities that can be given away, as the kernel's bit mask.
    pub(crate) capabilities: u64,
    /// A sysfs of its own can be mounted; otherwise the builder's is shown.
    pub(crate) own_sysfs: bool,
    /// /sys/fs/cgroup is a cgroup2 mount that may be shown.
    pub(crate) cgroup2: bool,
    /// Group 5 (tty) exists in the user namespace.
    pub(crate) tty_group: bool,
    /// `setgroups` works.
    pub(crate) setgroups: bool,
}

impl Machine {
    pub(crate) fn look(own_sysfs: bool, cgroup2: bool) -> Self {
        Self {
            // Only what is in both can be in a step: the bounding set caps what an exec may give.
            capabilities: sys::capabilities("CapPrm") & sys::capabilities("CapBnd"),
            own_sysfs,
            cgroup2,
            tty_group: sys::is_mapped("/proc/self/gid_map", 5),
            setgroups: !sys::setgroups_denied(),
        }
    }
}

/// Files that the helper made for the step, on its own tmpfs.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Target in the image and file.
    pub(crate) hosts: (String, String),
    /// Target in the image and file.
    pub(crate) resolv_conf: (String, String),
    /// For each mount of the step that is a secret, its file.
    pub(crate) secrets: Vec<Option<String>>,
}

pub(crate) fn runtime_spec(step: &Step, id: &str, files: &Files, machine: &Machine) -> Value {
    let insecure = step.security == Security::Insecure;
    let capabilities: Vec<&str> = DEFAULT_CAPABILITIES
        .iter()
        .chain(FURTHER_CAPABILITIES.iter().filter(|_| insecure))
        .filter(|(_, bit)| machine.capabilities >> bit & 1 == 1)
        .map(|(name, _)| *name)
        .collect();
    let rlimits: Vec<Value> = step
        .ulimits
        .iter()
        .map(|(name, limit)| {
            json!({"type": format!("RLIMIT_{}", name.to_uppercase()), "soft": limit.soft, "hard": limit.hard})
        })
        .collect();
    let mut user = json!({"uid": step.user.uid, "gid": step.user.gid});
    if machine.setgroups {
        // The primary group is always among the supplementary ones, as containerd has it since CVE-2022-36109: a list
        // without it would let a program leave a group that a file denies.
        let mut gids = vec![step.user.gid];
        gids.extend(
            step.user
                .additional_gids
                .iter()
                .filter(|gid| **gid != step.user.gid),
        );
        user["additionalGids"] = json!(gids);
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "root": {"path": step.rootfs},
        "hostname": step.hostname,
        "process": {
            "terminal": false,
            "user": user,
            "args": step.argv,
            "env": step.env,
            "cwd": step.cwd,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": []
            },
            "rlimits": rlimits,
            // Setuid programs (`sudo`, `su`) work in a Dockerfile's RUN. In a pod they gain nothing on the node: root
            // here is an ordinary user there.
            "noNewPrivileges": false
        },
        "mounts": mounts(step, files, machine),
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}],
            // Absolute, or systemd would be asked for it.
            "cgroupsPath": format!("/slipway-{id}")
        }
    });
    if !insecure {
        spec["linux"]["maskedPaths"] = json!([
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/sys/firmware",
            "/sys/devices/virtual/powercap"
        ]);
        spec["linux"]["readonlyPaths"] = json!([
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger"
        ]);
    }
    spec
}

fn mounts(step: &Step, files: &Files, machine: &Machine) -> Vec<Value> {
    let insecure = step.security == Security::Insecure;
    let access = if insecure { "rw" } else { "ro" };
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| -> Value {
        json!({"destination": target, "type": kind, "source": source, "options": options})
    };
    let devpts: &[&str] = if machine.tty_group {
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ]
    } else {
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    };
    let shm = format!("size={}", step.shm_size.unwrap_or(64 << 20));
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount("/dev/pts", "devpts", "devpts", devpts),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    if machine.own_sysfs {
        all.push(mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", access],
        ));
        if machine.cgroup2 {
            all.push(mount(
                "/sys/fs/cgroup",
                "bind",
                "/sys/fs/cgroup",
                &["bind", "nosuid", "noexec", "nodev", access],
            ));
        }
    } else {
        // The network namespace belongs to someone else, and with it sysfs; its mounts come along, all read-only.
        all.push(mount(
            "/sys",
            "bind",
            "/sys",
            &["rbind", "nosuid", "noexec", "nodev", "rro"],
        ));
    }
    let generated = ["bind", "nosuid", "noexec", "nodev", "ro"];
    for (target, file) in [&files.resolv_conf, &files.hosts] {
        all.push(mount(target, "bind", file, &generated));
    }
    for (Mount { target, kind }, secret) in step.mounts.iter().zip(&files.secrets) {
        all.push(match (kind, secret) {
            (MountKind::Bind { source, readonly }, _) => {
                let access = if *readonly { "ro" } else { "rw" };
                json!({"destination": target, "type": "bind", "source": source, "options": ["rbind", "private", access]})
            }
            (MountKind::Tmpfs { size }, _) => {
                let size = size.map(|size| format!("size={size}"));
                let mut options = vec!["nosuid", "nodev", "mode=1777"];
                options.extend(size.as_deref());
                mount(target, "tmpfs", "tmpfs", &options)
            }
            (MountKind::Secret { .. }, secret) => {
                mount(target, "bind", secret.as_deref().unwrap_or("/dev/null"), &generated)
            }
        });
    }
    all
}

/// Content of /etc/hosts; byte for byte what BuildKit writes, because Dockerfiles print it.
pub(crate) fn hosts(step: &Step) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        step.hostname
    );
    for (name, address) in &step.extra_hosts {
        text.extend([address, "\t", name, "\n"]);
    }
    text
}

/// Whether the step needs a network namespace of its own.
pub(crate) fn own_network(step: &Step) -> bool {
    step.network == Network::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            capabilities: u64::MAX,
            own_sysfs: true,
            cgroup2: true,
            tty_group: true,
            setgroups: true,
        }
    }

    fn files() -> Files {
        Files {
            hosts: ("/etc/hosts".into(), "/h".into()),
            resolv_conf: ("/etc/resolv.conf".into(), "/r".into()),
            secrets: Vec::new(),
        }
    }

    #[test]
    fn a_sandboxed_step_has_dockers_capabilities_and_an_insecure_one_all_that_the_builder_has() {
        let mask = |list: &Value| -> u64 {
            let all: Vec<_> = DEFAULT_CAPABILITIES.iter().chain(&FURTHER_CAPABILITIES).collect();
            list.as_array()
                .unwrap()
                .iter()
                .map(|name| 1u64 << all.iter().find(|(known, _)| name == known).unwrap().1)
                .sum()
        };
        let mut step = Step::new("/", ["true"]);
        let of = |step: &Step, machine: &Machine| {
            mask(&runtime_spec(step, "x", &files(), machine)["process"]["capabilities"]["bounding"])
        };
        assert_eq!(of(&step, &machine()), 0xa804_25fb);
        assert_eq!(
            of(
                &step,
                &Machine {
                    capabilities: 0xa804_05fb,
                    ..machine()
                }
            ),
            0xa804_05fb,
            "no NET_RAW to give"
        );
        step.security = Security::Insecure;
        assert_eq!(of(&step, &machine()), (1 << 41) - 1);
    }

    #[test]
    fn hosts_are_written_as_buildkit_writes_them() {
        let mut step = Step::new("/", ["true"]);
        step.extra_hosts.push(("myhost".into(), "10.1.2.3".into()));
        assert_eq!(
            hosts(&step),
            "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tmyhost\n"
        );
    }

    #[test]
    fn the_spec_is_one_that_the_runtime_can_read() {
        let mut step = Step::new("/", ["true"]);
        step.mounts = vec![
            Mount {
                target: "/a".into(),
                kind: MountKind::Tmpfs { size: Some(1) },
            },
            Mount {
                target: "/b".into(),
                kind: MountKind::Bind {
                    source: "/".into(),
                    readonly: true,
                },
            },
        ];
        step.ulimits
            .insert("nofile".into(), crate::Ulimit { soft: 1, hard: 2 });
        let files = Files {
            secrets: vec![None, None],
            ..files()
        };
        let spec = runtime_spec(&step, "x", &files, &machine());
        let _: libcontainer::oci_spec::runtime::Spec = serde_json::from_value(spec).unwrap();
    }
}
