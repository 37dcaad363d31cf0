//! Commands that follow a build.

use crate::{fake::Fake, terminal::Terminal};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_slipway");

fn stage(name: &str, state: &str, needs: &[&str]) -> Value {
    json!({
        "id": format!("{name}-linux-amd64"), "name": name, "platform": "linux/amd64", "state": state, "attempts": 1,
        "steps": {"done": 0, "cached": 0, "total": 2}, "startedAt": "2026-11-27T22:00:00Z", "node": "node-1",
        "needs": needs.iter().map(|need| format!("{need}-linux-amd64")).collect::<Vec<_>>(),
    })
}

fn status(phase: &str, stages: &[Value]) -> Value {
    json!({
        "observedGeneration": 1, "phase": phase, "runs": 1,
        "run": {"generation": 1, "inputs": "x", "startedAt": "2026-11-27T22:00:00Z"},
        "stages": stages,
    })
}

fn succeeded() -> Value {
    let mut status = status("Succeeded", &[stage("build", "Succeeded", &[])]);
    status["run"]["finishedAt"] = json!("2026-11-27T22:01:00Z");
    status["image"] =
        json!({"digest": "sha256:4be1", "names": ["registry.example.com/shop/web:1.4"], "platforms": []});
    status
}

struct World {
    fake: Fake,
    _dir: tempfile::TempDir,
    kubeconfig: PathBuf,
}

impl World {
    fn new() -> Self {
        let (fake, dir) = (Fake::start(), tempfile::tempdir().unwrap());
        let kubeconfig = dir.path().join("config");
        fake.kubeconfig(&kubeconfig);
        Self {
            fake,
            _dir: dir,
            kubeconfig,
        }
    }

    fn terminal(&self, columns: u16, rows: u16, environment: &str, arguments: &[&str]) -> Terminal {
        let kubeconfig = self.kubeconfig.to_str().unwrap();
        let arguments = [arguments, &["--kubeconfig", kubeconfig]].concat();
        Terminal::start(columns, rows, environment, Path::new(PROGRAM), &arguments)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

#[test]
fn status_watch_is_drawn_in_place_until_the_end() {
    let world = World::new();
    world.fake.build(status(
        "Running",
        &[
            stage("build", "Running", &[]),
            stage("final", "Waiting", &["build"]),
        ],
    ));
    let terminal = world.terminal(80, 24, "", &["status", "shop", "--watch"]);
    let screen = terminal.shows("waits for build");
    assert_eq!(screen.matches("shop  Running").count(), 1, "{screen}");
    world.fake.build(status(
        "Running",
        &[
            stage("build", "Succeeded", &[]),
            stage("final", "Running", &["build"]),
        ],
    ));
    let screen = terminal.until("the change", |screen| screen.contains("▸ final"));
    assert!(
        !screen.contains("waits for build"),
        "drawn over, not below:\n{screen}"
    );
    assert!(terminal.raw().contains("\x1b[36m"), "a terminal has colour");
    world.fake.build(succeeded());
    let (ended, screen) = terminal.end();
    assert!(ended.success());
    assert_eq!(screen.matches("shop  Succeeded").count(), 1, "{screen}");
    assert!(
        !screen.contains("Running") && screen.contains("sha256:4be1"),
        "{screen}"
    );
}

#[test]
fn a_window_that_changes_its_size_shows_one_tree() {
    let world = World::new();
    let stages = [
        stage("a-stage-with-a-rather-long-name", "Running", &[]),
        stage("final", "Waiting", &["a-stage-with-a-rather-long-name"]),
    ];
    world.fake.build(status("Running", &stages));
    let terminal = world.terminal(100, 20, "", &["status", "shop", "--watch"]);
    terminal.shows("waits for a-stage-with-a-rather-long-name");
    terminal.resize(30, 20);
    let narrow = terminal.until("the narrow frame", |screen| {
        screen.contains("a-stage-with-a-rathe") && screen.contains('…')
    });
    assert!(narrow.lines().all(|line| line.chars().count() <= 30), "{narrow}");
    terminal.resize(100, 4);
    terminal.shows("the window is too low");
    world.fake.build(succeeded());
    assert!(terminal.end().0.success());
}

#[test]
fn without_colour_there_are_no_colours_on_a_terminal() {
    let world = World::new();
    world.fake.build(succeeded());
    let terminal = world.terminal(80, 24, "NO_COLOR=1", &["status", "shop"]);
    terminal.shows("shop  Succeeded");
    let raw = terminal.raw();
    assert!(!raw.contains("\x1b["), "{raw:?}");
    assert!(terminal.end().0.success());
}

#[test]
fn a_pipe_gets_lines_and_no_escape_sequences() {
    let world = World::new();
    world.fake.build(succeeded());
    for arguments in [&["status", "shop"][..], &["status", "shop", "--watch"], &["list"]] {
        let (code, out, err) = world.run(arguments);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("Succeeded") && !out.contains('\x1b'), "{out:?}");
    }
    let (_, out, _) = world.run(&["status", "shop", "-o", "json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["digest"], "sha256:4be1");
    let (_, out, _) = world.run(&["status", "shop", "-o", "yaml"]);
    assert!(out.contains("digest: sha256:4be1"), "{out}");
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let world = World::new();
    let mut failed = status("Failed", &[stage("build", "Failed", &[])]);
    failed["failure"] =
        json!({"reason": "StepFailed", "message": "exit code 2", "stage": "build", "log": "oh no"});
    world.fake.build(failed);
    assert_eq!(world.run(&["status", "shop", "--watch"]).0, 1);
    assert_eq!(
        world.run(&["status", "shop"]).0,
        0,
        "shown without waiting: the question was answered"
    );
    assert_eq!(world.run(&["status"]).0, 2);
    let (code, _, err) = world.run(&["status", "absent"]);
    assert_eq!(code, 3);
    assert!(
        err.contains("no ImageBuild \"absent\" in namespace \"web\""),
        "{err}"
    );
    let (code, _, err) = world.run(&["status", "shop", "--context", "nowhere"]);
    assert_eq!(code, 3, "{err}");
}

#[test]
fn logs_of_all_pods_are_labelled_and_followed_to_the_end() {
    let world = World::new();
    let fake = &world.fake;
    fake.build(status("Planning", &[]));
    fake.pod("plan-1", "plan", "node-1");
    fake.print("plan-1", &["#1 [internal] plan", "#1 DONE 0.1s"]);
    let child = world.command(&["logs", "shop", "--follow"]).spawn().unwrap();
    fake.end("plan-1");
    fake.build(status(
        "Running",
        &[stage("build", "Running", &[]), stage("a", "Running", &[])],
    ));
    fake.pod("build-1", "build-linux-amd64", "node-1");
    fake.pod("a-1", "a-linux-amd64", "node-2");
    fake.print("build-1", &["#1 [build 1/1] RUN x", "#1 0.100 hello", ""]);
    fake.print("a-1", &["#1 [a 1/1] RUN y"]);
    fake.end("a-1");
    let mut ended = succeeded();
    ended["stages"] = json!([stage("build", "Succeeded", &[]), stage("a", "Succeeded", &[])]);
    fake.build(ended);
    // Printed after the build has ended, and not lost.
    fake.print("build-1", &["#1 DONE 0.2s"]);
    fake.end("build-1");
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(!out.contains("│ \n"), "empty lines in\n{out}");
    for line in [
        "plan  │ #1 DONE 0.1s",
        "build │ #1 0.100 hello",
        "build │ #1 DONE 0.2s",
        "a     │ #1 [a 1/1] RUN y",
    ] {
        assert_eq!(out.matches(line).count(), 1, "{line:?} in\n{out}");
    }
}

#[test]
fn logs_that_are_gone_are_said_to_be() {
    let world = World::new();
    let mut failed = status("Failed", &[stage("build", "Failed", &[])]);
    failed["failure"] =
        json!({"reason": "StepFailed", "message": "exit code 2", "stage": "build", "log": "oh no"});
    world.fake.build(failed);
    let (code, out, err) = world.run(&["logs", "shop"]);
    assert_eq!(code, 3);
    assert!(out.contains("│ oh no"), "{out}");
    assert!(err.contains("are gone"), "{err}");
    let (code, _, err) = world.run(&["logs", "shop", "--stage", "nothing"]);
    assert_eq!(code, 2);
    assert!(err.contains("it has plan, build"), "{err}");
}

#[test]
fn cancel_and_rebuild_set_their_annotations() {
    for (command, annotation) in [
        ("cancel", "slipway.build/cancel"),
        ("rebuild", "slipway.build/rebuild"),
    ] {
        let world = World::new();
        world
            .fake
            .build(status("Running", &[stage("build", "Running", &[])]));
        let (code, out, err) = world.run(&[command, "shop"]);
        assert_eq!(code, 0, "{err}");
        assert!(out.starts_with("imagebuild/shop "), "{out}");
        assert!(world.fake.patched()["metadata"]["annotations"][annotation].is_string());
    }
}

#[test]
fn a_rebuild_is_followed_live_with_all_its_nodes() {
    let world = World::new();
    let fake = &world.fake;
    fake.build(succeeded());
    let mut terminal = world.terminal(72, 20, "", &["rebuild", "shop", "--follow"]);
    fake.patched();
    let running = |state: &str| {
        let mut status = status(
            "Running",
            &[stage("build", state, &[]), stage("final", "Waiting", &["build"])],
        );
        status["run"]["startedAt"] = json!("2026-11-27T23:00:00Z");
        status
    };
    fake.build(running("Running"));
    fake.pod("build-1", "build-linux-amd64", "node-2");
    fake.print(
        "build-1",
        &[
            "#1 [build 1/2] COPY . .",
            "#1 DONE 0.2s",
            "#2 [build 2/2] RUN make",
            "#2 0.300 cc -c main.c",
        ],
    );
    let screen = terminal.until("step and footer", |screen| {
        screen.contains("│ cc -c main.c") && screen.contains("0 of 2 stages, 1 node")
    });
    for line in [
        " ✓    0.2s  [build 1/2] COPY . .  node-2",
        "[build 2/2] RUN make  node-2",
        "[final]  waits for build",
        "0 of 2 stages, 1 node",
    ] {
        assert!(screen.contains(line), "{line:?} in\n{screen}");
    }
    // Ctrl-C leaves; the build, which is not this command's own, goes on.
    terminal.press("\x03");
    let (ended, _) = terminal.end();
    assert_eq!(ended.code(), Some(130));
}
