//! The cache of layers in the registry: which steps run, which do not, and why.

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use slipway_crd::{ImageBuild, StageState, StageStatus};
use slipway_e2e::scenario::{self, Scenario};

use crate::build::{Build, ended, pods, succeeded};

/// Two stages; the second one reads a file of the first in the middle.
fn dockerfile(tool: &str, last: &str) -> String {
    format!(
        "FROM debian:bookworm AS tool\n\
         COPY tool.txt /in\n\
         RUN {tool}\n\
         FROM debian:bookworm\n\
         RUN date +%s%N > /stamp\n\
         COPY a.txt /a\n\
         COPY --from=tool /out /tool\n\
         RUN cat /a /tool > /both\n\
         RUN {last}\n\
         CMD [\"cat\", \"/both\"]\n"
    )
}

const TOOL: &str = "tr a-z A-Z < /in > /out";
/// Steps of the second stage that make a layer.
const STEPS: u32 = 5;

fn build<'a>(s: &'a Scenario, name: &str, text: &str, cache: &Value) -> Build<'a> {
    Build::new(s, name, text)
        .file("tool.txt", "tool\n")
        .file("a.txt", "a\n")
        .with("dockerfile", json!({"inline": text}))
        .with("cache", cache.clone())
}

fn stage<'a>(build: &'a ImageBuild, name: &str) -> Result<&'a StageStatus> {
    let stages = build.status.as_ref().map_or(&[][..], |status| &status.stages);
    let found = stages.iter().find(|stage| stage.name == name);
    found.with_context(|| format!("there is no stage {name} in {stages:?}"))
}

/// Steps executed and cached of a stage that had a pod.
fn steps(build: &ImageBuild, name: &str) -> Result<(u32, u32)> {
    let stage = stage(build, name)?;
    ensure!(stage.state == StageState::Succeeded, "{stage:?}");
    Ok((stage.steps.done - stage.steps.cached, stage.steps.cached))
}

fn is_cached(build: &ImageBuild, name: &str) -> Result<()> {
    let stage = stage(build, name)?;
    ensure!(stage.state == StageState::Cached, "{stage:?}");
    Ok(())
}

/// No stage of the newest run of a build had a pod.
async fn had_no_stage_pod(s: &Scenario, name: &str) -> Result<()> {
    let build = ended(s, name).await?;
    let generation = build.metadata.generation.unwrap_or_default().to_string();
    for pod in pods(s, name).await? {
        let labels = pod.metadata.labels.unwrap_or_default();
        let stage = labels.get("slipway.build/stage");
        ensure!(
            labels.get("slipway.build/generation") != Some(&generation) || stage.is_none(),
            "{name} has a pod for stage {stage:?}"
        );
    }
    is_cached(&build, "stage-1")
}

/// What the plan of a build says of its steps, as `slipway explain` reads it.
async fn explanation(s: &Scenario, repository: &str, build: &ImageBuild) -> Result<Value> {
    let registry = s.cluster.registry()?;
    let plan = build.status.as_ref().and_then(|status| status.plan.as_ref());
    let digest = plan.and_then(|plan| plan.digest.as_ref()).context("no plan")?;
    let manifest = registry
        .manifest(repository, digest)
        .await?
        .context("the plan is gone")?;
    let layers = manifest.json["layers"].as_array().into_iter().flatten();
    let layer = layers
        .filter(|layer| layer["mediaType"] == "application/vnd.slipway.explanation.v1+json")
        .find_map(|layer| layer["digest"].as_str())
        .context("the plan explains nothing")?;
    registry.blob_json(repository, layer).await
}

/// The steps of the second stage in an explanation.
fn explained(explanation: &Value) -> Vec<Value> {
    let stages = explanation["stages"].as_array().into_iter().flatten();
    let last = stages.last().and_then(|stage| stage["steps"].as_array().cloned());
    last.unwrap_or_default()
}

async fn plan_log(s: &Scenario, build: &ImageBuild) -> Result<String> {
    let plan = build.status.as_ref().and_then(|status| status.plan.as_ref());
    s.logs(plan.and_then(|plan| plan.pod.as_ref()).context("no plan pod")?)
        .await
}

/// The tag of the entry of a step.
fn tag(step: &Value) -> String {
    format!("slipway-step-{}", &step["key"].as_str().unwrap_or_default()[..40])
}

#[tokio::test(flavor = "multi_thread")]
async fn layer_cache() -> Result<()> {
    scenario::run("layer_cache", |s| async move {
        let path = format!("{}/cache", s.namespace);
        let cache = json!({"repository": format!("{}/{path}", s.cluster.registry)});
        a_late_change_runs_one_step(&s, &path, &cache).await?;
        what_is_no_layer_needs_no_pod(&s, &cache).await?;
        other_namespaces_share_it(&s, &cache).await?;
        a_stage_without_cache_runs_alone(&s, &cache).await?;
        a_stage_that_becomes_the_image_is_packed_anew(&s, &cache).await?;
        what_is_broken_is_a_miss(&s, &path, &cache).await?;
        a_scope_keeps_to_itself(&s, &cache).await?;
        another_repository_is_read_and_not_written(&s, &path, &cache).await
    })
    .await
}

async fn a_late_change_runs_one_step(s: &Scenario, path: &str, cache: &Value) -> Result<()> {
    let first = build(s, "first", &dockerfile(TOOL, "echo 1 > /last"), cache)
        .create()
        .await?;
    succeeded(s, &first).await?;
    let ran = ended(s, &first).await?;
    ensure!(steps(&ran, "tool")? == (2, 0) && steps(&ran, "stage-1")? == (STEPS, 0));

    let patch = json!({"spec": {"dockerfile": {"inline": dockerfile(TOOL, "echo 2 > /last")}}});
    s.api::<ImageBuild>()
        .patch(&first, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    succeeded(s, &first).await?;
    let ran = ended(s, &first).await?;
    is_cached(&ran, "tool")?;
    ensure!(
        steps(&ran, "stage-1")? == (1, STEPS - 1),
        "{:?}",
        stage(&ran, "stage-1")?
    );
    let why = explained(&explanation(s, path, &ran).await?);
    let cached: Vec<_> = why.iter().map(|step| step["cached"] == true).collect();
    ensure!(cached == [true, true, true, true, false], "{why:?}");
    ensure!(why[4]["why"] == json!([{"changed": "instruction"}]), "{why:?}");
    let log = plan_log(s, &ran).await?;
    ensure!(
        log.contains("4 of 5 steps in the cache")
            && log.contains("echo 2 > /last runs because the instruction has changed"),
        "{log}"
    );

    // A comment in the first stage: it runs, to the same file, and the second one notices nothing.
    let text = dockerfile(&format!("{TOOL} # a comment"), "echo 2 > /last");
    let comment = build(s, "comment", &text, cache).create().await?;
    succeeded(s, &comment).await?;
    let ran = ended(s, &comment).await?;
    ensure!(steps(&ran, "tool")? == (1, 1), "{:?}", stage(&ran, "tool")?);
    ensure!(
        steps(&ran, "stage-1")? == (0, STEPS),
        "{:?}",
        stage(&ran, "stage-1")?
    );
    Ok(())
}

/// The build that the ones below repeat.
fn again<'a>(s: &'a Scenario, name: &str, cache: &Value) -> Build<'a> {
    build(s, name, &dockerfile(TOOL, "echo 2 > /last"), cache)
}

async fn what_is_no_layer_needs_no_pod(s: &Scenario, cache: &Value) -> Result<()> {
    let same = again(s, "same", cache).create().await?;
    let renamed = again(s, "renamed", cache)
        .with(
            "output",
            json!({"images": [format!("{}/{}/elsewhere:v2", s.cluster.registry, s.namespace)]}),
        )
        .create()
        .await?;
    let labelled = again(s, "labelled", cache)
        .with("labels", json!({"team": "shop"}))
        .create()
        .await?;
    let digest = succeeded(s, &same).await?;
    ensure!(succeeded(s, &renamed).await? == digest);
    let other = succeeded(s, &labelled).await?;
    ensure!(other != digest);
    for name in [&same, &renamed, &labelled] {
        had_no_stage_pod(s, name).await?;
    }
    let repository = crate::build::repository(s, &labelled);
    let registry = s.cluster.registry()?;
    let manifest = registry
        .manifest(&repository, &other)
        .await?
        .context("no image")?;
    let config = manifest.json["config"]["digest"].as_str().unwrap_or_default();
    let config = registry.blob_json(&repository, config).await?;
    ensure!(config["config"]["Labels"]["team"] == "shop", "{config}");
    // It is whole: a node can run it.
    let image = format!("{}/{repository}@{other}", s.cluster.registry);
    s.kubectl(&["run", "labelled-run", "--restart=Never", "--image", &image])?;
    s.pod_end("labelled-run", crate::build::LIMIT).await?;
    ensure!(s.logs("labelled-run").await? == "a\nTOOL\n");
    Ok(())
}

async fn other_namespaces_share_it(s: &Scenario, cache: &Value) -> Result<()> {
    let other = format!("{}-other", s.namespace);
    s.cluster.kubectl(&["create", "namespace", &other])?;
    let outcome = async {
        let text = dockerfile(TOOL, "echo 2 > /last");
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files", "namespace": other},
             "data": {"tool.txt": "tool\n", "a.txt": "a\n"}},
            {"apiVersion": "slipway.build/v1alpha1", "kind": "ImageBuild",
             "metadata": {"name": "shared", "namespace": other},
             "spec": {"source": {"configMap": {"name": "files"}}, "dockerfile": {"inline": text},
                      "platforms": ["linux/amd64"], "cache": cache,
                      "output": {"images": [format!("{}/{other}/shared:v1", s.cluster.registry)]}}},
        ]});
        s.cluster.apply(&objects.to_string())?;
        let wait = [
            "wait",
            "-n",
            &other,
            "imagebuild/shared",
            "--for=condition=Ready",
            "--timeout=240s",
        ];
        s.cluster.kubectl(&wait)?;
        let pods = s.cluster.kubectl(&[
            "get",
            "pods",
            "-n",
            &other,
            "-l",
            "slipway.build/stage",
            "-o",
            "name",
        ])?;
        ensure!(pods.trim().is_empty(), "{pods}");
        Ok(())
    }
    .await;
    s.cluster
        .kubectl(&["delete", "namespace", &other, "--wait=false"])?;
    outcome
}

async fn a_stage_without_cache_runs_alone(s: &Scenario, cache: &Value) -> Result<()> {
    let mut cache = cache.clone();
    cache["noCacheStages"] = json!(["tool"]);
    let named = again(s, "no-cache-tool", &cache).create().await?;
    succeeded(s, &named).await?;
    let ran = ended(s, &named).await?;
    ensure!(steps(&ran, "tool")? == (2, 0), "{:?}", stage(&ran, "tool")?);
    ensure!(
        steps(&ran, "stage-1")? == (0, STEPS),
        "{:?}",
        stage(&ran, "stage-1")?
    );
    Ok(())
}

/// What lies between stages is packed for speed, an image for clients of any age.
async fn a_stage_that_becomes_the_image_is_packed_anew(s: &Scenario, cache: &Value) -> Result<()> {
    let name = again(s, "only-tool", cache)
        .with("target", json!("tool"))
        .create()
        .await?;
    let digest = succeeded(s, &name).await?;
    let ran = ended(s, &name).await?;
    ensure!(steps(&ran, "tool")? == (0, 2), "{:?}", stage(&ran, "tool")?);
    let registry = s.cluster.registry()?;
    let repository = crate::build::repository(s, &name);
    let manifest = registry
        .manifest(&repository, &digest)
        .await?
        .context("no image")?;
    let layers = manifest.json["layers"].as_array().cloned().unwrap_or_default();
    let gzip = |layer: &Value| {
        layer["mediaType"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("gzip"))
    };
    ensure!(layers.len() == 3 && layers.iter().all(gzip), "{layers:?}");
    let image = format!("{}/{repository}@{digest}", s.cluster.registry);
    s.kubectl(&[
        "run",
        "tool-run",
        "--restart=Never",
        "--image",
        &image,
        "--",
        "cat",
        "/out",
    ])?;
    s.pod_end("tool-run", crate::build::LIMIT).await?;
    ensure!(s.logs("tool-run").await? == "TOOL\n");
    Ok(())
}

async fn what_is_broken_is_a_miss(s: &Scenario, path: &str, cache: &Value) -> Result<()> {
    let registry = s.cluster.registry()?;
    let steps_of = explained(&explanation(s, path, &ended(s, "first").await?).await?);
    // The entry of the fourth step leads to the layer of the first.
    let wrong = registry
        .manifest(path, &tag(&steps_of[0]))
        .await?
        .context("the first step is not in the cache")?;
    registry.put(path, &tag(&steps_of[3]), &wrong).await?;
    let text = dockerfile(TOOL, "echo 3 > /last");
    let tampered = build(s, "tampered", &text, cache).create().await?;
    succeeded(s, &tampered).await?;
    let ran = ended(s, &tampered).await?;
    // Its other entry, by content, is whole.
    ensure!(
        steps(&ran, "stage-1")? == (1, STEPS - 1),
        "{:?}",
        stage(&ran, "stage-1")?
    );
    let log = plan_log(s, &ran).await?;
    ensure!(
        log.contains("CacheEntryBroken") && log.contains("another step"),
        "{log}"
    );

    // The second step's is removed, under both keys.
    let entry = registry
        .manifest(path, &tag(&steps_of[1]))
        .await?
        .context("the second step is not in the cache")?;
    ensure!(registry.delete(path, &entry.digest).await?);
    let text = dockerfile(TOOL, "echo 4 > /last");
    let removed = build(s, "removed", &text, cache).create().await?;
    succeeded(s, &removed).await?;
    let ran = ended(s, &removed).await?;
    // A copy gives the same files again, so what stands on it is found by content.
    ensure!(
        steps(&ran, "stage-1")? == (2, STEPS - 2),
        "{:?}",
        stage(&ran, "stage-1")?
    );
    let image = format!(
        "{}/{}:v1",
        s.cluster.registry,
        crate::build::repository(s, &removed)
    );
    s.kubectl(&["run", "removed-run", "--restart=Never", "--image", &image])?;
    s.pod_end("removed-run", crate::build::LIMIT).await?;
    ensure!(s.logs("removed-run").await? == "a\nTOOL\n");
    Ok(())
}

async fn a_scope_keeps_to_itself(s: &Scenario, cache: &Value) -> Result<()> {
    let text = dockerfile(TOOL, "echo 5 > /last");
    let mut scoped = cache.clone();
    scoped["scope"] = json!("pr-5");
    let untrusted = build(s, "untrusted", &text, &scoped).create().await?;
    succeeded(s, &untrusted).await?;
    let ran = ended(s, &untrusted).await?;
    is_cached(&ran, "tool")?;
    ensure!(
        steps(&ran, "stage-1")? == (1, STEPS - 1),
        "{:?}",
        stage(&ran, "stage-1")?
    );
    // Within the scope it is known, outside of it nobody sees it.
    let same = build(s, "untrusted-same", &text, &scoped).create().await?;
    succeeded(s, &same).await?;
    had_no_stage_pod(s, &same).await?;
    let trusted = build(s, "trusted", &text, cache).create().await?;
    succeeded(s, &trusted).await?;
    let ran = ended(s, &trusted).await?;
    ensure!(
        steps(&ran, "stage-1")? == (1, STEPS - 1),
        "{:?}",
        stage(&ran, "stage-1")?
    );
    Ok(())
}

async fn another_repository_is_read_and_not_written(s: &Scenario, path: &str, cache: &Value) -> Result<()> {
    let registry = s.cluster.registry()?;
    let own = format!("{}/own", s.namespace);
    let from = json!({
        "repository": format!("{}/{own}", s.cluster.registry),
        "from": [cache["repository"]],
        "mode": "min",
    });
    let before = registry.tags(path).await?;
    let taken = build(s, "taken", &dockerfile(TOOL, "echo 5 > /last"), &from)
        .create()
        .await?;
    succeeded(s, &taken).await?;
    had_no_stage_pod(s, &taken).await?;
    let text = dockerfile(&format!("{TOOL} && true"), "echo 6 > /last");
    let changed = build(s, "changed", &text, &from).create().await?;
    succeeded(s, &changed).await?;
    let ran = ended(s, &changed).await?;
    ensure!(steps(&ran, "tool")? == (1, 1), "{:?}", stage(&ran, "tool")?);
    ensure!(
        steps(&ran, "stage-1")? == (1, STEPS - 1),
        "{:?}",
        stage(&ran, "stage-1")?
    );
    ensure!(
        registry.tags(path).await? == before,
        "the repository was written to"
    );
    // With mode min nothing of the first stage's steps is kept.
    let steps_of = explanation(s, &own, &ran).await?;
    let kept = registry.tags(&own).await?;
    let tool = steps_of["stages"][0]["steps"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    ensure!(
        !tool.is_empty() && tool.iter().all(|step| !kept.contains(&tag(step))),
        "{kept:?}"
    );
    ensure!(
        explained(&steps_of).iter().all(|step| kept.contains(&tag(step))),
        "{kept:?}"
    );
    Ok(())
}
