//! Several platforms: each stage on a node of its own, foreign programs really run, one index over all.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use slipway_crd::{ImageBuild, Phase, conditions};
use slipway_e2e::{
    cluster::CLAIMED_ARCHITECTURE,
    foreign,
    scenario::{self, Scenario},
    wait,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    build::{Build, LIMIT, ended, failed, phase, pods, repository, succeeded},
    failures::no_pod_goes_on,
    image::flatten,
};

/// The second node is one, and these scenarios change what it says it is.
static ARM64: Mutex<()> = Mutex::const_new(());

/// The node that says it is an arm64 one, and the base images for several platforms. `None`: not on this cluster.
async fn arm64_node(s: &Scenario) -> Result<Option<(String, MutexGuard<'static, ()>)>> {
    let turn = ARM64.lock().await;
    if s.cluster.embedded.is_some() {
        let added = Command::new(env!("CARGO_BIN_EXE_slipway-e2e"))
            .args(["up", "--arm64"])
            .env_remove("KUBECONFIG")
            .output()?;
        ensure!(
            added.status.success(),
            "no arm64 node: {}",
            String::from_utf8_lossy(&added.stderr)
        );
        foreign::push(&s.cluster).await?;
    }
    let nodes: Api<Node> = Api::all(s.cluster.client.clone());
    let arm64 = ListParams::default().labels("kubernetes.io/arch=arm64");
    let found = nodes.list(&arm64).await?.items.pop();
    let name = found.and_then(|node| node.metadata.name);
    if name.is_none() || s.cluster.embedded.is_none() {
        println!("skipped: this scenario adds an arm64 node to the embedded cluster");
        return Ok(None);
    }
    Ok(name.map(|name| (name, turn)))
}

/// The multi-platform base as a Dockerfile names it.
fn base(s: &Scenario) -> String {
    format!("{}/{}:{}", s.cluster.registry, foreign::REPOSITORY, foreign::TAG)
}

/// Nodes of a build's stages by stage id, from the status.
fn nodes_of(build: &ImageBuild) -> BTreeMap<String, String> {
    let stages = build.status.iter().flat_map(|status| &status.stages);
    stages
        .filter_map(|stage| Some((stage.id.clone(), stage.node.clone()?)))
        .collect()
}

/// Reads an image for one architecture with skopeo: its config and its files.
fn pulled(s: &Scenario, name: &str, architecture: &str) -> Result<(Value, BTreeMap<String, String>)> {
    let folder = tempfile::tempdir()?;
    let from = s.cluster.registry_url.split("://").last().unwrap_or_default();
    let status = Command::new("skopeo")
        .args(["--override-arch", architecture])
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{from}/{}:v1", repository(s, name)))
        .arg(format!("dir:{}", folder.path().display()))
        .status()?;
    ensure!(
        status.success(),
        "skopeo could not pull the image for {architecture}"
    );
    let (config, files) = flatten(folder.path())?;
    let text = files
        .into_iter()
        .map(|(path, entry)| (path, String::from_utf8_lossy(&entry.content).trim().to_owned()))
        .collect();
    Ok((config, text))
}

/// Pulls an image for one platform with containerd's own client, whose word is the image's digest.
fn pulled_by_ctr(s: &Scenario, name: &str, platform: &str) -> Result<()> {
    let layout = s.cluster.embedded.as_ref().context("an embedded cluster")?;
    let from = s.cluster.registry_url.split("://").last().unwrap_or_default();
    let image = format!("{from}/{}:v1", repository(s, name));
    let out = Command::new(layout.bin().join("ctr"))
        .arg("--address")
        .arg(layout.node(1).containerd_socket())
        .args([
            "--namespace",
            "slipway-e2e",
            "images",
            "pull",
            "--local",
            "--plain-http",
        ])
        .args(["--platform", platform, &image])
        .output()?;
    if !out.status.success() {
        bail!(
            "ctr could not pull for {platform}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn multi_platform_stages_run_on_their_nodes_and_shared_ones_once() -> Result<()> {
    scenario::run("multi_platform", |s| async move {
        let Some((arm64, _turn)) = arm64_node(&s).await? else {
            return Ok(());
        };
        let base = base(&s);
        let dockerfile = format!(
            "FROM --platform=$BUILDPLATFORM {base} AS tools\nARG BUILDPLATFORM\n\
             RUN echo $BUILDPLATFORM > /built-on && uname -m > /tools-machine && cat /proc/sys/kernel/random/uuid > /once\n\
             FROM {base}\nARG TARGETPLATFORM\nCOPY --from=tools /built-on /tools-machine /once /\n\
             RUN uname -m > /machine && echo $TARGETPLATFORM > /target\nCMD [\"uname\", \"-m\"]\n"
        );
        let other = format!("{}/{}/copy:v2", s.cluster.registry, s.namespace);
        let image = format!("{}/{}/multi:v1", s.cluster.registry, s.namespace);
        let name = Build::new(&s, "multi", &dockerfile)
            .with("platforms", json!(["linux/amd64", "linux/arm64"]))
            .with("output", json!({"images": [image, other], "annotations": {"org.opencontainers.image.title": "multi"}}))
            .create()
            .await?;
        let digest = succeeded(&s, &name).await?;

        let build = ended(&s, &name).await?;
        let nodes = nodes_of(&build);
        ensure!(
            nodes.keys().collect::<Vec<_>>() == ["stage-1-linux-amd64", "stage-1-linux-arm64", "tools-linux-amd64"],
            "{nodes:?}"
        );
        for (stage, node) in &nodes {
            ensure!((*node == arm64) == stage.ends_with("arm64"), "{stage} ran on {node}");
        }
        let image = build.status.and_then(|status| status.image).context("an image")?;
        ensure!(
            image.platforms.iter().map(|one| one.platform.as_str()).collect::<Vec<_>>() == ["linux/amd64", "linux/arm64"]
                && image.platforms.iter().all(|one| one.size > Some(0))
                && image.size == image.platforms.iter().map(|one| one.size).sum::<Option<i64>>(),
            "{image:?}"
        );

        let registry = s.cluster.registry()?;
        let index = registry.manifest(&repository(&s, &name), "v1").await?.context("no index")?;
        ensure!(index.digest == digest && index.media_type.ends_with("image.index.v1+json"), "{index:?}");
        ensure!(index.json["annotations"]["org.opencontainers.image.title"] == "multi", "{}", index.json);
        let copy = registry.manifest(&repository(&s, "copy"), "v2").await?.context("no second name")?;
        ensure!(copy.digest == digest, "another repository has another image");
        for part in &image.platforms {
            let manifest = registry.manifest(&repository(&s, "copy"), &part.digest).await?.context("a part is missing")?;
            let notes = &manifest.json["annotations"];
            ensure!(notes["org.opencontainers.image.title"] == "multi", "{notes}");
            ensure!(
                notes["org.opencontainers.image.base.name"].as_str().is_some_and(|name| name.ends_with("library/multi:1"))
                    && notes["org.opencontainers.image.base.digest"].as_str().is_some_and(|of| of.starts_with("sha256:")),
                "{notes}"
            );
        }

        let mut once = Vec::new();
        for (architecture, machine) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
            let (config, files) = pulled(&s, &name, architecture)?;
            ensure!(config["architecture"] == architecture, "{config}");
            let file = |path: &str| files.get(path).cloned().unwrap_or_default();
            ensure!(file("machine") == machine, "{architecture}: RUN saw {:?}", file("machine"));
            ensure!(file("target") == format!("linux/{architecture}"));
            ensure!(file("built-on") == "linux/amd64" && file("tools-machine") == "x86_64");
            once.push(file("once"));
            pulled_by_ctr(&s, &name, &format!("linux/{architecture}"))?;
        }
        ensure!(once[0] == once[1] && !once[0].is_empty(), "the shared stage ran twice: {once:?}");

        // And the image's own program, on its node.
        let of_arm64 = image.platforms.last().map(|one| one.digest.clone()).unwrap_or_default();
        let reference = format!("{}/{}@{of_arm64}", s.cluster.registry, repository(&s, &name));
        let place = json!({"spec": {"nodeSelector": {"kubernetes.io/arch": "arm64"}}}).to_string();
        s.kubectl(&["run", "arm", "--restart=Never", "--image", &reference, "--overrides", &place])?;
        s.pod_end("arm", LIMIT).await?;
        ensure!(s.logs("arm").await?.trim() == "aarch64", "{:?}", s.logs("arm").await?);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn platform_failure_fails_the_build_or_publishes_the_rest() -> Result<()> {
    scenario::run("platform_failure", |s| async move {
        let Some((_, _turn)) = arm64_node(&s).await? else {
            return Ok(());
        };
        let dockerfile = format!(
            "FROM {}\nRUN echo on $(uname -m); test \"$(uname -m)\" != aarch64\nCMD [\"true\"]\n",
            base(&s)
        );
        let platforms = json!(["linux/arm64", "linux/amd64"]);
        let all = Build::new(&s, "all", &dockerfile)
            .with("platforms", platforms.clone())
            .create()
            .await?;
        let rest = Build::new(&s, "rest", &dockerfile)
            .with("platforms", platforms)
            .with("platformFailure", json!("PublishRest"))
            .create()
            .await?;
        let failure = failed(&s, &all).await?;
        ensure!(
            failure.reason == "StepFailed" && failure.platform.as_deref() == Some("linux/arm64"),
            "{failure:?}"
        );
        let tags = s.cluster.registry()?.tags(&repository(&s, &all)).await?;
        ensure!(!tags.contains(&"v1".to_owned()), "{tags:?}");
        no_pod_goes_on(&s, &all).await?;

        succeeded(&s, &rest).await?;
        let status = ended(&s, &rest).await?.status.context("a status")?;
        let ready = conditions::get(&status.conditions, conditions::READY).context("Ready")?;
        ensure!(
            ready.status == "True"
                && ready.reason == "PlatformsMissing"
                && ready.message.contains("linux/arm64"),
            "{ready:?}"
        );
        ensure!(
            status
                .failure
                .is_some_and(|failure| failure.reason == "StepFailed")
        );
        let index = s
            .cluster
            .registry()?
            .manifest(&repository(&s, &rest), "v1")
            .await?;
        let index = index.context("nothing was published")?.json;
        let parts: Vec<_> = index["manifests"].as_array().into_iter().flatten().collect();
        ensure!(
            parts.len() == 1 && parts[0]["platform"]["architecture"] == "amd64",
            "{index}"
        );
        no_pod_goes_on(&s, &rest).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_is_a_condition_that_heals_when_a_node_joins() -> Result<()> {
    scenario::run("no_node", |s| async move {
        let Some((node, _turn)) = arm64_node(&s).await? else {
            return Ok(());
        };
        // What runs nothing needs no such node: it is built at once.
        let copied = Build::new(&s, "copied", &format!("FROM {}\nCOPY Dockerfile /\n", base(&s)))
            .with("platforms", json!(["linux/s390x"]))
            .with("emulation", json!("Never"))
            .create()
            .await?;
        let name = Build::new(&s, "waits", "FROM busybox\nRUN uname -m\n")
            .with("platforms", json!(["linux/s390x"]))
            .with("emulation", json!("Never"))
            .create()
            .await?;
        let told = wait::object(&s.api::<ImageBuild>(), &name, "it is told", LIMIT, |build| {
            let conditions = build.status.iter().flat_map(|status| &status.conditions);
            conditions
                .filter(|condition| condition.type_ == conditions::READY)
                .any(|ready| ready.status == "Unknown" && ready.reason == "NoNodeForPlatform")
        })
        .await?;
        ensure!(phase(&told) == Some(Phase::Running), "{:?}", phase(&told));
        succeeded(&s, &copied).await?;
        ensure!(
            pods(&s, &name).await?.len() == 2,
            "the plan pod and the one that waits"
        );

        let nodes: Api<Node> = Api::all(s.cluster.client.clone());
        let label = |architecture: &str| {
            let labels = json!({CLAIMED_ARCHITECTURE: architecture});
            Patch::Merge(json!({"metadata": {"labels": labels}}))
        };
        let params = PatchParams::default();
        nodes.patch(&node, &params, &label("s390x")).await?;
        let built = succeeded(&s, &name).await;
        nodes.patch(&node, &params, &label("arm64")).await?;
        built?;
        let build = ended(&s, &name).await?;
        ensure!(
            nodes_of(&build).values().all(|on| *on == node),
            "{:?}",
            nodes_of(&build)
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn emulation_is_brought_by_the_pod_and_the_node_says_that_it_can() -> Result<()> {
    scenario::run("emulation", |s| async move {
        let Some((_, _turn)) = arm64_node(&s).await? else {
            return Ok(());
        };
        // No node says it is s390x, and the machine itself cannot run it: the pods bring QEMU along.
        ensure!(
            !std::path::Path::new("/proc/sys/fs/binfmt_misc/qemu-s390x").exists(),
            "this machine runs s390x by itself: nothing is shown here"
        );
        let dockerfile = format!(
            "FROM {}\nRUN uname -m > /machine && ls / | wc -l > /count\nCMD [\"true\"]\n",
            base(&s)
        );
        let mut names = Vec::new();
        for emulation in ["IfNoNativeNode", "Always"] {
            let name = Build::new(&s, &emulation.to_lowercase(), &dockerfile)
                .with("platforms", json!(["linux/s390x"]))
                .with("emulation", json!(emulation))
                .create()
                .await?;
            names.push(name);
        }
        for name in &names {
            succeeded(&s, name).await?;
            let (config, files) = pulled(&s, name, "s390x")?;
            ensure!(config["architecture"] == "s390x", "{config}");
            ensure!(
                files.get("machine").is_some_and(|machine| machine == "s390x"),
                "{files:?}"
            );
        }
        let nodes: Api<Node> = Api::all(s.cluster.client.clone());
        let can = ListParams::default().labels("emulation.slipway.build/s390x=true");
        ensure!(!nodes.list(&can).await?.items.is_empty(), "no node has the label");
        ensure!(
            !std::path::Path::new("/proc/sys/fs/binfmt_misc/slipway-s390x").exists(),
            "the handler is seen outside of the pod"
        );
        Ok(())
    })
    .await
}
