//! The stage graph on pods: what runs side by side, what does not run at all, and what runs again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api,
    api::{DeleteParams, EvictParams, ListParams},
};
use serde_json::json;
use slipway_crd::{ImageBuild, StageState, StageStatus};
use slipway_e2e::{
    scenario::{self, Scenario},
    wait,
};

use crate::build::{Build, LIMIT, ended, failed, is_active, pods, repository, succeeded};

/// The stage of that name in a build's status.
fn stage<'a>(build: &'a ImageBuild, name: &str) -> Result<&'a StageStatus> {
    let stages = build.status.as_ref().map(|status| &status.stages);
    stages
        .into_iter()
        .flatten()
        .find(|stage| stage.name == name)
        .with_context(|| format!("the status has no stage {name}"))
}

/// Waits until the log of the pod of a stage has a line with `word` that its step wrote, and returns the pod's name.
async fn step_says(s: &Scenario, build: &str, id: &str, word: &str) -> Result<String> {
    wait::until(&format!("{id} of {build} says {word}"), LIMIT, || async {
        for pod in pods(s, build).await? {
            let labels = pod.metadata.labels.unwrap_or_default();
            let name = pod.metadata.name.unwrap_or_default();
            if labels.get("slipway.build/stage").map(String::as_str) != Some(id) {
                continue;
            }
            // Before the container runs there is no log.
            let log = s.logs(&name).await.unwrap_or_default();
            if log
                .lines()
                .any(|line| line.ends_with(word) && !line.contains("RUN"))
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    })
    .await
}

/// Two independent stages; `work` is long enough to be met while it runs.
const TWO_STAGES: &str = "FROM debian:bookworm AS work\nRUN echo begun; sleep 10; echo done > /work\n\
                          FROM debian:bookworm AS other\nRUN echo done > /other\n\
                          FROM debian:bookworm\nCOPY --from=work /work /\nCOPY --from=other /other /\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_retry_costs_the_stage_and_no_other() -> Result<()> {
    scenario::run("stage_retry", |s| async move {
        for name in ["deleted", "evicted"] {
            // Not the same stages twice: each build has to run its own.
            let dockerfile = TWO_STAGES.replace(
                "debian:bookworm AS work\n",
                &format!("debian:bookworm AS work\nENV BUILD={name}\n"),
            );
            Build::new(&s, name, &dockerfile).create().await?;
        }
        let tight = json!({"limits": {"memory": "192Mi"}, "requests": {"memory": "64Mi"}});
        // `tail` keeps all of a line that never ends; its code is the pipe's.
        let hungry = "FROM debian:bookworm AS hungry\nRUN head -c 300M /dev/zero | tail > /dev/null && echo fits > /size\n\
                      FROM debian:bookworm\nCOPY --from=hungry /size /\n";
        Build::new(&s, "hungry", hungry)
            .with("pods", json!({"resources": tight}))
            .with("retryMemoryFactor", json!("3"))
            .create()
            .await?;
        Build::new(&s, "starved", &hungry.replace("/size", "/starved"))
            .with("pods", json!({"resources": tight}))
            .with("retries", json!(0))
            .create()
            .await?;
        Build::new(&s, "wrong", "FROM debian:bookworm AS wrong\nRUN exit 3\n")
            .create()
            .await?;

        let deleted = step_says(&s, "deleted", "work-linux-amd64", "begun").await?;
        s.api::<Pod>().delete(&deleted, &DeleteParams::default()).await?;
        let evicted = step_says(&s, "evicted", "work-linux-amd64", "begun").await?;
        s.api::<Pod>().evict(&evicted, &EvictParams::default()).await?;
        for name in ["deleted", "evicted"] {
            succeeded(&s, name).await?;
            let build = ended(&s, name).await?;
            for (of, attempts) in [("work", 2), ("other", 1), ("stage-2", 1)] {
                let seen = stage(&build, of)?.attempts;
                ensure!(
                    seen == attempts,
                    "{name}: {of} was tried {seen} times, not {attempts}"
                );
            }
            let events = s.events(name).await?;
            ensure!(
                events.iter().any(|event| event.starts_with("Retrying: ")),
                "{name}: {events:?}"
            );
        }

        succeeded(&s, "hungry").await?;
        let build = ended(&s, "hungry").await?;
        let row = stage(&build, "hungry")?;
        ensure!((row.attempts, row.out_of_memory) == (2, 1), "{row:?}");
        let second = s.api::<Pod>().get(row.pod.as_deref().unwrap_or_default()).await?;
        let limits = second.spec.context("a spec")?.containers[0]
            .resources
            .clone()
            .and_then(|all| all.limits);
        ensure!(
            limits
                .as_ref()
                .is_some_and(|limits| limits["memory"].0 == "576Mi"),
            "{limits:?}"
        );

        let failure = failed(&s, "starved").await?;
        ensure!(
            failure.reason == "OutOfMemory" && failure.exit_code == Some(137),
            "{failure:?}"
        );
        ensure!(
            failure.stage.as_deref() == Some("hungry") && failure.line == Some(2),
            "{failure:?}"
        );
        let failure = failed(&s, "wrong").await?;
        ensure!(
            failure.reason == "StepFailed" && failure.exit_code == Some(3),
            "{failure:?}"
        );
        let build = ended(&s, "wrong").await?;
        let row = stage(&build, "wrong")?;
        ensure!(
            row.attempts == 1 && row.state == StageState::Failed,
            "a failing RUN is not tried again: {row:?}"
        );
        Ok(())
    })
    .await
}

/// The nanoseconds that each step wrote into the build's logs as `at WORD NANOSECONDS`, by word.
async fn times(s: &Scenario, name: &str) -> Result<BTreeMap<String, u128>> {
    let mut times = BTreeMap::new();
    for pod in pods(s, name).await? {
        let log = s.logs(&pod.metadata.name.unwrap_or_default()).await?;
        for line in log.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [.., "at", word, time] = words.as_slice()
                && let Ok(time) = time.parse()
            {
                times.insert((*word).to_owned(), time);
            }
        }
    }
    Ok(times)
}

/// A `RUN` that takes `seconds` and writes when it began and ended.
fn step(word: &str, seconds: u32, command: &str) -> String {
    format!(
        "RUN echo at {word}-begin $(date +%s%N); sleep {seconds}; {command}; echo at {word}-end $(date +%s%N)\n"
    )
}

/// How long a finished run took, in seconds.
fn took(build: &ImageBuild) -> Result<f64> {
    let run = build
        .status
        .as_ref()
        .and_then(|status| status.run.as_ref())
        .context("a run")?;
    let end = run.finished_at.as_ref().context("it has ended")?;
    Ok(end.0.duration_since(run.started_at.0).as_secs_f64())
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_stages_take_as_long_as_the_longest_path() -> Result<()> {
    scenario::run("parallel_stages", |s| async move {
        const STAGES: u32 = 4;
        const SECONDS: u32 = 15;
        let stages: Vec<String> = (0..STAGES)
            .map(|n| {
                let step = step(&format!("s{n}"), SECONDS, &format!("echo {n} > /out-{n}"));
                format!("FROM debian:bookworm AS s{n}\n{step}")
            })
            .collect();
        let mut fanout = stages.concat();
        fanout += "FROM debian:bookworm\n";
        fanout.extend((0..STAGES).map(|n| format!("COPY --from=s{n} /out-{n} /\n")));
        let small = json!({"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}});
        Build::new(&s, "fanout", &fanout)
            .with("pods", small.clone())
            .create()
            .await?;
        succeeded(&s, "fanout").await?;
        let build = ended(&s, "fanout").await?;
        let seen = times(&s, "fanout").await?;
        let at = |word: String| {
            seen.get(&word)
                .copied()
                .with_context(|| format!("no log has {word}: {seen:?}"))
        };
        let (mut last_begin, mut first_end) = (0, u128::MAX);
        for n in 0..STAGES {
            last_begin = last_begin.max(at(format!("s{n}-begin"))?);
            first_end = first_end.min(at(format!("s{n}-end"))?);
        }
        ensure!(
            last_begin < first_end,
            "the four stages did not all run at the same time: {seen:?}"
        );
        // Status tells the same, in whole seconds.
        let rows: Vec<_> = (0..STAGES)
            .map(|n| stage(&build, &format!("s{n}")))
            .collect::<Result<_>>()?;
        let begins = rows
            .iter()
            .filter_map(|row| row.started_at.as_ref())
            .map(|time| time.0)
            .max();
        let ends = rows
            .iter()
            .filter_map(|row| row.finished_at.as_ref())
            .map(|time| time.0)
            .min();
        ensure!(
            begins.is_some() && begins < ends,
            "status: the last began at {begins:?}, the first ended at {ends:?}"
        );
        let (total, one_after_the_other) = (took(&build)?, f64::from(SECONDS * STAGES));
        println!(
            "fanout: {total:.1} s, longest path {SECONDS} s, one after the other {one_after_the_other} s"
        );
        ensure!(
            total < one_after_the_other,
            "{total} s: no faster than one after the other"
        );

        // The last stage's own step stands before what it copies: it runs while `build` does.
        let diamond = format!(
            "FROM debian:bookworm AS build\n{}FROM debian:bookworm\n{}COPY --from=build /out /\n",
            step("build", SECONDS, "echo built > /out"),
            step("final", SECONDS, "echo prepared > /prepared"),
        );
        Build::new(&s, "diamond", &diamond)
            .with("pods", small)
            .create()
            .await?;
        succeeded(&s, "diamond").await?;
        let seen = times(&s, "diamond").await?;
        let at = |word: &str| {
            seen.get(word)
                .copied()
                .with_context(|| format!("no log has {word}: {seen:?}"))
        };
        ensure!(
            at("final-begin")? < at("build-end")? && at("build-begin")? < at("final-end")?,
            "{seen:?}"
        );
        println!(
            "diamond: {:.1} s, longest path {SECONDS} s",
            took(&ended(&s, "diamond").await?)?
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_stages_cost_no_pod_and_no_second() -> Result<()> {
    scenario::run("unused_stages", |s| async move {
        let dockerfile = "FROM debian:bookworm AS never\nRUN sleep 60\n\
                          FROM debian:bookworm AS beside\nCOPY --from=never /etc/hostname /\nRUN sleep 60\n\
                          FROM debian:bookworm\nRUN echo hi > /hi\n";
        Build::new(&s, "unused", dockerfile).create().await?;
        succeeded(&s, "unused").await?;
        let build = ended(&s, "unused").await?;
        let names: Vec<_> = build
            .status
            .iter()
            .flat_map(|status| &status.stages)
            .map(|row| &row.name)
            .collect();
        ensure!(names == ["stage-2"], "the plan has {names:?}");
        let pods = pods(&s, "unused").await?;
        ensure!(
            pods.len() == 2,
            "a plan pod and one stage pod, not {}",
            pods.len()
        );
        let total = took(&build)?;
        println!("unused: {total:.1} s of which none in the 60 s");
        ensure!(total < 60.0, "{total} s");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_hold_the_tags_back_until_they_are_done() -> Result<()> {
    scenario::run("gates", |s| async move {
        let dockerfile = |lint: &str| {
            format!(
                "FROM debian:bookworm AS build\nRUN echo app > /app\n\
                 FROM build AS test\nRUN grep -q app /app\n\
                 FROM debian:bookworm AS lint\nRUN echo begun; {lint}\n\
                 FROM debian:bookworm\nCOPY --from=build /app /\n"
            )
        };
        let gates = json!(["test", "lint"]);
        Build::new(&s, "good", &dockerfile("sleep 12"))
            .with("gates", gates.clone())
            .create()
            .await?;
        Build::new(&s, "bad", &dockerfile("sleep 3; exit 9"))
            .with("gates", gates)
            .create()
            .await?;
        Build::new(&s, "misspelt", &dockerfile("true"))
            .with("gates", json!(["tset"]))
            .create()
            .await?;

        // Everything but the gate is done, and the tag is not there.
        let waits = wait::object(
            &s.api::<ImageBuild>(),
            "good",
            "only the gate is left",
            LIMIT,
            |build| {
                let done = |name| stage(build, name).is_ok_and(|row| row.state.has_result());
                done("stage-3") && done("test") && !done("lint")
            },
        )
        .await?;
        let tags = s.cluster.registry()?.tags(&repository(&s, "good")).await?;
        let still = s.api::<ImageBuild>().get("good").await?;
        if stage(&still, "lint")?.state == StageState::Running {
            ensure!(
                !tags.contains(&"v1".to_owned()),
                "tagged before its gate was done: {:?}",
                waits.status
            );
        }
        succeeded(&s, "good").await?;
        ensure!(
            s.cluster
                .registry()?
                .tags(&repository(&s, "good"))
                .await?
                .contains(&"v1".to_owned())
        );
        for name in ["test", "lint"] {
            ensure!(
                stage(&ended(&s, "good").await?, name)?.state == StageState::Succeeded,
                "{name}"
            );
        }

        let failure = failed(&s, "bad").await?;
        ensure!(
            failure.stage.as_deref() == Some("lint") && failure.exit_code == Some(9),
            "{failure:?}"
        );
        let tags = s.cluster.registry()?.tags(&repository(&s, "bad")).await?;
        ensure!(
            !tags.contains(&"v1".to_owned()),
            "a failed gate, and yet tagged: {tags:?}"
        );
        let failure = failed(&s, "misspelt").await?;
        ensure!(failure.reason == "DockerfileInvalid", "{failure:?}");
        ensure!(failure.message.contains("did you mean test?"), "{failure:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_failed_keeps_the_files_of_a_failed_step_to_be_looked_at() -> Result<()> {
    scenario::run("hold_failed", |s| async move {
        s.kubectl(&[
            "create",
            "secret",
            "generic",
            "token",
            "--from-literal=value=opened",
        ])?;
        let mount = "--mount=type=secret,id=token,env=TOKEN";
        let dockerfile = format!(
            "FROM debian:bookworm AS bad\nWORKDIR /work\nENV COLOUR=blue\nUSER nobody:nogroup\n\
             RUN {mount} echo kept > /tmp/made; exit 4\n\
             FROM debian:bookworm\nCOPY --from=bad /tmp/made /\n"
        );
        for (name, text) in [
            ("bad", dockerfile.as_str()),
            ("good", "FROM debian:bookworm\nRUN true\n"),
        ] {
            Build::new(&s, name, text)
                .with(
                    "secrets",
                    json!([{"id": "token", "secretRef": {"name": "token", "key": "value"}}]),
                )
                .with("debug", json!({"holdFailed": "10m"}))
                .create()
                .await?;
        }
        let failure = failed(&s, "bad").await?;
        ensure!(
            failure.reason == "StepFailed" && failure.exit_code == Some(4),
            "{failure:?}"
        );
        let pod = failure.pod.clone().unwrap_or_default();
        ensure!(
            failure
                .message
                .contains(&format!("-it {pod} -c hold -- slipway-runner enter")),
            "{failure:?}"
        );

        wait::until("the files are held", LIMIT, || async {
            let log = s.kubectl(&["logs", &pod, "-c", "hold"])?;
            Ok(log.contains("held for 600 s").then_some(()))
        })
        .await?;
        let look =
            "cat /tmp/made; pwd; echo $COLOUR; id -un; echo token:$TOKEN; test -e /proc/self && echo proc";
        let seen = s.kubectl(&[
            "exec",
            &pod,
            "-c",
            "hold",
            "--",
            "slipway-runner",
            "enter",
            "/bin/sh",
            "-c",
            look,
        ])?;
        ensure!(seen == "kept\n/work\nblue\nnobody\ntoken:\nproc\n", "{seen:?}");
        let still = s.api::<Pod>().get(&pod).await?;
        ensure!(is_active(&still), "the pod is held");
        s.api::<Pod>().delete(&pod, &DeleteParams::default()).await?;
        wait::gone(&s.api::<Pod>(), &pod, LIMIT).await?;
        ensure!(
            ended(&s, "bad").await?.status.and_then(|status| status.failure) == Some(failure),
            "and the failure stands"
        );

        succeeded(&s, "good").await?;
        wait::until("nothing of a good build is held", LIMIT, || async {
            Ok((!pods(&s, "good").await?.iter().any(is_active)).then_some(()))
        })
        .await
    })
    .await
}

/// A stage that two builds have in common, and a result of each one's own.
fn with_common(own: &str, seconds: u32, salt: &str) -> String {
    format!(
        "FROM debian:bookworm AS common\nENV SALT={salt}\nRUN echo begun; sleep {seconds}; date +%s%N > /stamp\n\
         FROM debian:bookworm\nENV OWN={own}\nCOPY --from=common /stamp /\nRUN echo {own} > /own\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_stage_is_made_by_one_build_and_taken_over_when_that_one_goes() -> Result<()> {
    scenario::run("shared_stage", |s| async move {
        let cache = json!({"repository": format!("{}/{}/cache", s.cluster.registry, s.namespace)});
        let create = async |name: &str, seconds: u32, salt: &str| {
            Build::new(&s, name, &with_common(name, seconds, salt))
                .with("cache", cache.clone())
                .create()
                .await
        };
        let relies_on = async |name: &str, other: &str| {
            wait::object(
                &s.api::<ImageBuild>(),
                name,
                "it relies on the other build",
                LIMIT,
                |build| {
                    let row = stage(build, "common");
                    row.is_ok_and(|row| {
                        row.shared_with
                            .as_ref()
                            .is_some_and(|shared| shared.build == other)
                    })
                },
            )
            .await
        };
        create("elder", 20, "a").await?;
        step_says(&s, "elder", "common-linux-amd64", "begun").await?;
        create("younger", 20, "a").await?;
        relies_on("younger", "elder").await?;
        for name in ["elder", "younger"] {
            succeeded(&s, name).await?;
        }
        let (elder, younger) = (ended(&s, "elder").await?, ended(&s, "younger").await?);
        let (made, taken) = (stage(&elder, "common")?, stage(&younger, "common")?);
        ensure!(
            (made.attempts, taken.attempts) == (1, 0),
            "made {made:?}, taken {taken:?}"
        );
        ensure!(
            made.digest.is_some() && made.digest == taken.digest,
            "made {made:?}, taken {taken:?}"
        );
        ensure!(
            pods(&s, "younger").await?.len() == 2,
            "a plan pod and the pod of its own stage"
        );

        create("dying", 600, "b").await?;
        step_says(&s, "dying", "common-linux-amd64", "begun").await?;
        // The same stage for the operator; how long it sleeps is part of its key, so this one sleeps as long.
        create("heir", 600, "b").await?;
        relies_on("heir", "dying").await?;
        s.api::<ImageBuild>()
            .delete("dying", &DeleteParams::background())
            .await?;
        step_says(&s, "heir", "common-linux-amd64", "begun").await?;
        let heir = s.api::<ImageBuild>().get("heir").await?;
        let row = stage(&heir, "common")?;
        ensure!(row.attempts == 1 && row.shared_with.is_none(), "{row:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn small_cluster_where_a_waiting_pod_makes_room_for_what_it_waits_for() -> Result<()> {
    scenario::run("small_cluster", |s| async move {
        let nodes: Api<Node> = Api::all(s.cluster.client.clone());
        let list = ListParams::default().labels("kubernetes.io/arch=amd64");
        let node = nodes
            .list(&list)
            .await?
            .items
            .into_iter()
            .next()
            .context("an amd64 node")?;
        let allocatable = node
            .status
            .and_then(|status| status.allocatable)
            .unwrap_or_default();
        let memory = allocatable.get("memory").context("the node's memory")?;
        let kibibytes: u64 = memory.0.trim_end_matches("Ki").parse().context("memory in Ki")?;
        // Two such pods never fit on one node.
        let large = json!({"resources": {"requests": {"memory": format!("{}Ki", kibibytes * 3 / 5)}}});
        let dockerfile = "FROM debian:bookworm AS first\nRUN echo first > /first\n\
                          FROM first AS late\nRUN echo late > /late\n\
                          FROM debian:bookworm AS waits\nRUN echo begun\nCOPY --from=late /late /\n\
                          FROM debian:bookworm\nCOPY --from=waits /late /\n";
        Build::new(&s, "squeezed", dockerfile)
            .with("retries", json!(0))
            .with(
                "pods",
                json!({
                    "nodeSelector": {"kubernetes.io/hostname": node.metadata.name},
                    "stages": {"late": large, "waits": large},
                }),
            )
            .create()
            .await?;
        succeeded(&s, "squeezed").await?;
        let build = ended(&s, "squeezed").await?;
        let row = stage(&build, "waits")?;
        ensure!((row.gave_way, row.attempts) == (1, 2), "{row:?}");
        ensure!(
            stage(&build, "late")?.attempts == 1,
            "{:?}",
            stage(&build, "late")
        );
        let events = s.events("squeezed").await?;
        ensure!(
            events.iter().any(|event| event.starts_with("MadeRoom: ")),
            "{events:?}"
        );
        Ok(())
    })
    .await
}
