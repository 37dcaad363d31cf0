//! Whatever fails is told where the user looks: reason, place, last log lines; nothing is pushed, no pod goes on.

use anyhow::{Result, ensure};
use serde_json::json;
use slipway_e2e::scenario::{self, Scenario};

use crate::build::{Build, failed, is_active, pods, repository};

/// After a failure: no tag, and no pod that may still run.
async fn left_nothing(s: &Scenario, name: &str) -> Result<()> {
    let tags = s.cluster.registry()?.tags(&repository(s, name)).await?;
    ensure!(!tags.contains(&"v1".to_owned()), "{name}: pushed {tags:?}");
    no_pod_goes_on(s, name).await
}

/// Waits until no pod of a build may still run.
pub(crate) async fn no_pod_goes_on(s: &Scenario, name: &str) -> Result<()> {
    slipway_e2e::wait::until("no pod goes on", crate::build::LIMIT, || async {
        let active = pods(s, name).await?.iter().any(is_active);
        Ok((!active).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_that_cannot_be_built_is_told_by_file_and_line() -> Result<()> {
    scenario::run("dockerfile_failures", |s| async move {
        let cases = [
            (
                "syntax",
                "FROM debian:bookworm\nRUN true\nFOO bar\n",
                "DockerfileInvalid",
                Some(3),
                "FOO",
            ),
            (
                "missing",
                "FROM debian:bookworm\n\nCOPY absent.txt /\n",
                "FileNotFound",
                Some(3),
                "absent.txt",
            ),
            (
                "base",
                "FROM registry.slipway.test:5000/library/debian:nosuchtag\nRUN true\n",
                "ImageNotFound",
                Some(1),
                "nosuchtag",
            ),
        ];
        for (name, dockerfile, ..) in &cases {
            Build::new(&s, name, dockerfile).create().await?;
        }
        for (name, _, reason, line, word) in &cases {
            let failure = failed(&s, name).await?;
            ensure!(failure.reason == *reason, "{name}: {failure:?}");
            ensure!(
                failure.file.as_deref() == Some("Dockerfile"),
                "{name}: {failure:?}"
            );
            ensure!(failure.line == *line, "{name}: {failure:?}");
            ensure!(failure.message.contains(word), "{name}: {failure:?}");
            left_nothing(&s, name).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_is_told_with_its_exit_code_and_last_lines() -> Result<()> {
    scenario::run("failing_step", |s| async move {
        // The other stage would go on for minutes: the failure must stop it.
        let dockerfile = "FROM debian:bookworm AS slow\nRUN sleep 600 && touch /slow\n\
                          FROM debian:bookworm AS bad\nRUN echo the last words >&2; exit 42\n\
                          FROM debian:bookworm\nCOPY --from=slow /slow /\nCOPY --from=bad /bad /\n";
        let name = Build::new(&s, "bad", dockerfile).create().await?;
        let failure = failed(&s, &name).await?;
        ensure!(
            failure.reason == "StepFailed" && failure.exit_code == Some(42),
            "{failure:?}"
        );
        ensure!(
            failure.stage.as_deref() == Some("bad") && failure.line == Some(4),
            "{failure:?}"
        );
        ensure!(
            failure
                .log
                .as_deref()
                .is_some_and(|log| log.contains("the last words")),
            "{failure:?}"
        );
        left_nothing(&s, &name).await?;
        let described = s.kubectl(&["describe", "imagebuild", &name])?;
        ensure!(
            described.contains("StepFailed") && described.contains("exit 42"),
            "{described}"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_answer_is_told_by_its_name() -> Result<()> {
    scenario::run("registry_away", |s| async move {
        let name = Build::new(&s, "away", "FROM debian:bookworm\nRUN true\n")
            .with("output", json!({"images": ["away.slipway.test:5999/away:v1"]}))
            .with("retries", json!(0))
            .create()
            .await?;
        let failure = failed(&s, &name).await?;
        ensure!(failure.reason == "RegistryUnreachable", "{failure:?}");
        ensure!(failure.message.contains("away.slipway.test"), "{failure:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_fails_the_build_and_heals_when_it_appears() -> Result<()> {
    scenario::run("missing_secret", |s| async move {
        let dockerfile = "FROM debian:bookworm\nRUN --mount=type=secret,id=token,required=true test \"$(cat /run/secrets/token)\" = opened\n";
        let name = Build::new(&s, "secretive", dockerfile)
            .with("secrets", json!([{"id": "token", "secretRef": {"name": "token", "key": "value"}}]))
            .create()
            .await?;
        let failure = failed(&s, &name).await?;
        ensure!(failure.reason == "SecretNotFound" && failure.message.contains("token"), "{failure:?}");
        left_nothing(&s, &name).await?;
        s.kubectl(&["create", "secret", "generic", "token", "--from-literal=value=opened"])?;
        slipway_e2e::wait::object(&s.api::<slipway_crd::ImageBuild>(), &name, "the build heals", crate::build::LIMIT, |build| {
            crate::build::phase(build) == Some(slipway_crd::Phase::Succeeded)
        })
        .await?;
        Ok(())
    })
    .await
}
