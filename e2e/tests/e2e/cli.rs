//! The command line against a cluster.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use serde_json::Value;
use slipway_e2e::{
    scenario::{self, Scenario},
    wait,
};
use tokio::process::Command;

use crate::build::{Build, LIMIT, failed, pods, succeeded};

/// Two stages that know nothing of each other, and one that reads from both.
const DIAMOND: &str = "FROM debian:bookworm AS left\nRUN echo this-is-left > /left; cat /left\n\
                       FROM debian:bookworm AS right\nRUN echo this-is-right > /right; cat /right\n\
                       FROM scratch\nCOPY --from=left /left /\nCOPY --from=right /right /\n";

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

/// `slipway` in the scenario's namespace. The program stands beside the tests' folder; `make` builds it.
pub(crate) fn slipway(s: &Scenario, args: &[&str]) -> Result<Command> {
    let test = std::env::current_exe()?;
    let folder = test
        .parent()
        .and_then(|deps| deps.parent())
        .context("the test has no folder")?;
    let program: PathBuf = folder.join("slipway");
    ensure!(
        program.is_file(),
        "{} is missing: cargo build -p slipway-cli",
        program.display()
    );
    let mut command = Command::new(program);
    command
        .args(args)
        .args(["--namespace", &s.namespace, "--kubeconfig"])
        .arg(&s.cluster.kubeconfig)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

async fn run(s: &Scenario, args: &[&str]) -> Result<Ended> {
    let output = tokio::time::timeout(LIMIT, slipway(s, args)?.output())
        .await
        .with_context(|| format!("slipway {args:?} does not end"))??;
    Ok(Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn cli_shows_a_build() -> Result<()> {
    scenario::run("cli_shows_a_build", |s| async move {
        let name = Build::new(&s, "app", DIAMOND).create().await?;
        let (logs, status) = tokio::join!(
            run(&s, &["logs", "app", "--follow"]),
            run(&s, &["status", "app", "--watch"])
        );
        let (logs, status) = (logs?, status?);
        let digest = succeeded(&s, &name).await?;
        ensure!(logs.code == 0, "{}", logs.err);
        for part in [
            "│ #1 [internal] plan",
            "left    │ #",
            "this-is-left",
            "right   │ #",
            "this-is-right",
            "stage-2 │ #",
        ] {
            ensure!(logs.out.contains(part), "{part:?} is not in\n{}", logs.out);
        }
        ensure!(
            status.code == 0 && status.out.contains("app  Succeeded"),
            "{}",
            status.out
        );
        ensure!(status.out.contains(&digest), "{}", status.out);

        let json: Value = serde_json::from_str(&run(&s, &["status", "app", "-o", "json"]).await?.out)?;
        ensure!(json["phase"] == "Succeeded" && json["digest"] == digest, "{json}");
        let path = json["criticalPath"].as_array().context("a critical path")?;
        ensure!(
            path.len() == 3 && path[0]["name"] == "plan" && path[2]["name"] == "stage-2",
            "{json}"
        );

        let one = run(&s, &["logs", "app", "--stage", "left", "--no-label"]).await?;
        ensure!(
            one.out.contains("this-is-left") && !one.out.contains("this-is-right"),
            "{}",
            one.out
        );
        let wrong = run(&s, &["logs", "app", "--stage", "middle"]).await?;
        ensure!(
            wrong.code == 2 && wrong.err.contains("left, right, stage-2"),
            "{}",
            wrong.err
        );

        let graph = run(&s, &["graph", "app"]).await?;
        ensure!(
            graph.out.contains("├─ ✓ left") && graph.out.contains("└─ ✓ right"),
            "{}",
            graph.out
        );
        let list = run(&s, &["list"]).await?;
        ensure!(
            list.out.contains("app") && list.out.contains("Succeeded"),
            "{}",
            list.out
        );
        let absent = run(&s, &["status", "nothing"]).await?;
        ensure!(
            absent.code == 3 && absent.err.contains("no ImageBuild \"nothing\""),
            "{}",
            absent.err
        );

        s.api::<Pod>()
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        wait::until("the pods are gone", LIMIT, || async {
            Ok(pods(&s, &name).await?.is_empty().then_some(()))
        })
        .await?;
        let gone = run(&s, &["logs", "app"]).await?;
        ensure!(
            gone.code == 3 && gone.err.contains("the pods of the build app are gone"),
            "{}",
            gone.err
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn cli_shows_a_failure() -> Result<()> {
    scenario::run("cli_shows_a_failure", |s| async move {
        let file = "FROM debian:bookworm AS bad\nRUN echo about-to-fail; exit 7\n";
        let name = Build::new(&s, "app", file).create().await?;
        let (logs, status) = tokio::join!(
            run(&s, &["logs", "app", "--follow"]),
            run(&s, &["status", "app", "--watch"])
        );
        failed(&s, &name).await?;
        let (logs, status) = (logs?, status?);
        ensure!(
            logs.code == 0 && logs.out.contains("about-to-fail"),
            "{}",
            logs.out
        );
        ensure!(status.code == 1, "the build failed, so does the command");
        for part in [
            "✗ StepFailed in stage bad",
            "Dockerfile:2: ",
            "RUN echo about-to-fail; exit 7",
            "(exit code 7)",
            "│ about-to-fail",
        ] {
            ensure!(status.out.contains(part), "{part:?} is not in\n{}", status.out);
        }
        Ok(())
    })
    .await
}
