//! The embedded cluster's own life: started twice, mended after a crash, and gone without a trace. Beside the cluster
//! that the other tests use, since two must not disturb each other.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, as the test itself does"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const NAME: &str = "lifecycle";

fn slipway_e2e(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slipway-e2e"))
        .args(args)
        .env("SLIPWAY_CLUSTER", NAME)
        .env_remove("KUBECONFIG")
        .output()
        .unwrap()
}

fn succeeds(args: &[&str]) -> String {
    let out = slipway_e2e(args);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{args:?}: {text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    text
}

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Everything by which the cluster could be noticed, from the kernel's own tables.
fn traces() -> Vec<String> {
    let cluster = format!("slipway-{NAME}");
    let state = format!("slipway-e2e/{NAME}");
    let mut found = Vec::new();
    let mut look = |what: &str, text: String| {
        found.extend(
            text.lines()
                .filter(|l| l.contains(&cluster) || l.contains(&state))
                .map(|l| format!("{what}: {l}")),
        );
    };
    look("mount", fs::read_to_string("/proc/self/mountinfo").unwrap());
    look("namespace", run("ip", &["netns", "list"]));
    look(
        "cgroup",
        run(
            "find",
            &["/sys/fs/cgroup", "-maxdepth", "3", "-name", "slipway-*"],
        ),
    );
    for folder in ["/var/log/containers", "/var/lib/cni", "/run/containerd"] {
        if Path::new(folder).exists() {
            look("file", run("find", &[folder, "-printf", "%p %l\n"]));
        }
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        if process.file_name().to_string_lossy().parse::<u32>().is_ok() {
            let line = fs::read_to_string(process.path().join("cmdline"))
                .unwrap_or_default()
                .replace('\0', " ");
            look("process", line);
        }
    }
    found
}

#[test]
fn a_cluster_starts_twice_mends_itself_and_leaves_nothing() {
    if std::env::var("SLIPWAY_E2E").as_deref() != Ok("1") || !rustix::process::geteuid().is_root() {
        println!("skipped: starts a cluster, needs root; run make e2e");
        return;
    }
    let kubectl = |args: &[&str]| {
        let root = format!(
            "{}/{NAME}",
            std::env::var("SLIPWAY_STATE").unwrap_or("/var/lib/slipway-e2e".into())
        );
        let kubeconfig = format!("{root}/kubeconfig");
        let mut all = vec!["--kubeconfig", &kubeconfig];
        all.extend(args);
        run(&format!("{root}/bin/kubectl"), &all)
    };
    succeeds(&["down"]);
    assert!(
        !slipway_e2e(&["status"]).status.success(),
        "status of no cluster is a failure"
    );
    let result = std::panic::catch_unwind(|| {
        succeeds(&["up", "--nodes", "2"]);
        assert!(succeeds(&["up"]).contains("runs already, 2 node(s), healthy"));

        // Pods of each node, so that `down` has shims, mounts and network interfaces to end.
        for number in ["1", "2"] {
            let node = format!(r#"{{"spec":{{"nodeName":"slipway-{NAME}-{number}","hostUsers":false}}}}"#);
            let name = format!("sleeper-{number}");
            kubectl(&[
                "run",
                &name,
                "--image=slipway.test/busybox:1",
                "--overrides",
                &node,
                "--",
                "sleep",
                "1000",
            ]);
            kubectl(&[
                "wait",
                "--for=condition=Ready",
                &format!("pod/{name}"),
                "--timeout=60s",
            ]);
        }
        let pid = |name: &str| {
            let status = succeeds(&["status"]);
            let line = status.lines().find(|l| l.contains(name)).unwrap().to_owned();
            line.split_whitespace().last().unwrap().to_owned()
        };
        let (before, other) = (pid("kube-apiserver"), pid("etcd"));
        run("kill", &["-KILL", &before]);
        assert!(succeeds(&["up"]).contains("is mended"));
        assert_ne!(pid("kube-apiserver"), before);
        assert_eq!(pid("etcd"), other, "what runs is left alone");
        assert_eq!(
            kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"]),
            "Running Running"
        );
    });
    succeeds(&["down"]);
    let left = traces();
    assert!(left.is_empty(), "left behind: {left:#?}");
    succeeds(&["down"]);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
