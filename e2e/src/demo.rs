//! `make demo`: examples/hello, from the manifest to a pod that runs the image.
//!
//! The last line printed is the built image, name and digest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api,
    api::{DeleteParams, LogParams, ObjectMeta, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use slipway_crd::{ImageBuild, Phase, StageState, StageStatus};

use crate::{cluster::Cluster, config::Spec, wait};

/// Where the demo happens.
const NAMESPACE: &str = "slipway-demo";
const HELLO: &str = include_str!("../../examples/hello/hello.yaml");
/// Longer than a cold pull of the base on a slow disk.
const LIMIT: Duration = Duration::from_mins(5);

/// Builds examples/hello, runs it, and measures what Slipway itself costs.
pub async fn run() -> Result<()> {
    let cluster = Cluster::from_env_or_embedded().await?;
    namespace(&cluster).await?;
    let builds: Api<ImageBuild> = Api::namespaced(cluster.client.clone(), NAMESPACE);

    println!("== kubectl apply -f examples/hello/hello.yaml");
    // A build that is there already would cost nothing, and show nothing.
    forget(&builds, "hello").await?;
    let manifest = HELLO.replace(&Spec::registry_name(), &cluster.registry);
    apply(&cluster, &manifest)?;
    let hello = follow(&builds, "hello").await?;
    let reference = image(&hello)?;
    println!(
        "{}",
        cluster
            .kubectl(&["get", "imagebuild", "hello", "-n", NAMESPACE, "-o", "wide"])?
            .trim_end()
    );

    println!("== a pod runs {reference}");
    print!("{}", run_image(&cluster, &reference).await?);

    println!("== what Slipway costs: a build of one trivial stage beside a bare pod");
    let (bare, build) = overhead(&cluster, &builds).await?;
    println!("bare pod, created to Succeeded: {bare:.1} s; trivial build, applied to Ready: {build:.1} s");

    println!("{reference}");
    Ok(())
}

async fn namespace(cluster: &Cluster) -> Result<()> {
    let spaces: Api<Namespace> = Api::all(cluster.client.clone());
    let space = Namespace {
        metadata: ObjectMeta {
            name: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    match spaces.create(&PostParams::default(), &space).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => {
            other?;
        }
    }
    // Its controller makes it a moment after the namespace, and no pod can be created before.
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(cluster.client.clone(), NAMESPACE);
    wait::object(&accounts, "default", "the service account exists", LIMIT, |_| {
        true
    })
    .await?;
    Ok(())
}

fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    // The manifests name no namespace: they are applied into whichever the user is in.
    let list: Vec<serde_json::Value> = crate::yaml::documents(manifest)?
        .into_iter()
        .map(|mut document| {
            document["metadata"]["namespace"] = NAMESPACE.into();
            document
        })
        .collect();
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": list}).to_string())?;
    Ok(())
}

async fn forget(builds: &Api<ImageBuild>, name: &str) -> Result<()> {
    match builds.delete(name, &DeleteParams::foreground()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => wait::gone(builds, name, LIMIT).await,
    }
}

/// Prints each turn of a build until it has ended.
async fn follow(builds: &Api<ImageBuild>, name: &str) -> Result<ImageBuild> {
    let began = Instant::now();
    let told = |line: &str| println!("{:6.1} s  {line}", began.elapsed().as_secs_f64());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let stream = watcher(builds.clone(), config)
        .default_backoff()
        .applied_objects();
    let mut stream = std::pin::pin!(stream);
    let mut phase = None;
    let mut stages: Vec<StageStatus> = Vec::new();
    let ended = async {
        while let Some(build) = stream.try_next().await? {
            let Some(status) = build.status.clone() else {
                continue;
            };
            if status.phase != phase {
                phase = status.phase;
                told(phase.map_or("", Phase::as_str));
            }
            for stage in &status.stages {
                let before = stages
                    .iter()
                    .find(|known| known.id == stage.id)
                    .map(|known| known.state);
                if before != Some(stage.state) && stage.state != StageState::Waiting {
                    told(&describe(stage));
                }
            }
            stages.clone_from(&status.stages);
            match phase {
                Some(Phase::Succeeded) => return Ok(build),
                Some(Phase::Failed) => bail!("the build failed: {}", failure(&build)),
                _ => {}
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(LIMIT, ended)
        .await
        .with_context(|| format!("{name} took longer than {LIMIT:?}"))?
}

fn describe(stage: &StageStatus) -> String {
    let took = match (&stage.started_at, &stage.finished_at) {
        (Some(from), Some(to)) => {
            format!(" in {:.1} s", to.0.duration_since(from.0).as_secs_f64())
        }
        _ => String::new(),
    };
    let node = stage
        .node
        .as_ref()
        .map(|node| format!(" on {node}"))
        .unwrap_or_default();
    let digest = stage
        .digest
        .as_ref()
        .map(|digest| format!(", {digest}"))
        .unwrap_or_default();
    format!(
        "  stage {} [{}] {:?}{node}{took}{digest}",
        stage.name, stage.platform, stage.state
    )
}

fn failure(build: &ImageBuild) -> String {
    let failure = build.status.as_ref().and_then(|status| status.failure.as_ref());
    failure.map_or_else(String::new, |failure| {
        format!(
            "{}: {}\n{}",
            failure.reason,
            failure.message,
            failure.log.clone().unwrap_or_default()
        )
    })
}

/// `name@digest` of a finished build's first name.
fn image(build: &ImageBuild) -> Result<String> {
    let image = build
        .status
        .as_ref()
        .and_then(|status| status.image.as_ref())
        .context("the build has no image")?;
    let name = build
        .spec
        .output
        .images
        .first()
        .context("the build has no name for the image")?;
    let repository = name
        .rsplit_once(':')
        .map_or(name.as_str(), |(repository, _)| repository);
    Ok(format!("{repository}@{}", image.digest))
}

/// Runs an image as a pod and returns what it printed.
async fn run_image(cluster: &Cluster, reference: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let pod = serde_json::from_value(json!({
        "metadata": {"generateName": "hello-"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "containers": [{"name": "hello", "image": reference}],
        },
    }))?;
    let name = finished(&pods, &pod).await?;
    let log = pods.logs(&name, &LogParams::default()).await?;
    pods.delete(&name, &DeleteParams::default()).await?;
    Ok(log)
}

/// Creates a pod and waits until it has succeeded.
async fn finished(pods: &Api<Pod>, pod: &Pod) -> Result<String> {
    let created = pods.create(&PostParams::default(), pod).await?;
    let name = created.metadata.name.context("a created pod has a name")?;
    let phase = |pod: &Pod| {
        pod.status
            .as_ref()
            .and_then(|status| status.phase.clone())
            .unwrap_or_default()
    };
    let done = wait::object(pods, &name, "the pod ends", LIMIT, |pod| {
        matches!(phase(pod).as_str(), "Succeeded" | "Failed")
    })
    .await?;
    if phase(&done) == "Failed" {
        bail!(
            "pod {name} failed: {}",
            pods.logs(&name, &LogParams::default()).await.unwrap_or_default()
        );
    }
    Ok(name)
}

/// Seconds for a bare pod, and for a one-stage build that no cache can answer.
async fn overhead(cluster: &Cluster, builds: &Api<ImageBuild>) -> Result<(f64, f64)> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let base = format!("{}/library/debian:bookworm", cluster.registry);
    let pod = |image: &str| {
        serde_json::from_value::<Pod>(json!({
            "metadata": {"generateName": "bare-"},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "hostUsers": false,
                "containers": [{"name": "bare", "image": image, "command": ["true"]}],
            },
        }))
    };
    // Once before it counts: the node may not have the image yet.
    let warm = finished(&pods, &pod(&base)?).await?;
    let began = Instant::now();
    let name = finished(&pods, &pod(&base)?).await?;
    let bare = began.elapsed().as_secs_f64();
    for pod in [warm, name] {
        pods.delete(&pod, &DeleteParams::default()).await?;
    }

    forget(builds, "trivial").await?;
    let nonce = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_nanos();
    let manifest = json!({
        "apiVersion": "slipway.build/v1alpha1",
        "kind": "ImageBuild",
        "metadata": {"name": "trivial"},
        "spec": {
            "dockerfile": {"inline": format!("FROM debian:bookworm\nRUN echo {nonce} > /nonce\n")},
            "platforms": ["linux/amd64"],
            "output": {"images": [format!("{}/trivial:latest", cluster.registry)]},
        },
    });
    let began = Instant::now();
    apply(cluster, &manifest.to_string())?;
    let ready = |build: &ImageBuild| {
        build
            .status
            .as_ref()
            .and_then(|status| status.phase)
            .is_some_and(Phase::is_final)
    };
    let build = wait::object(builds, "trivial", "the build ends", LIMIT, ready).await?;
    let took = began.elapsed().as_secs_f64();
    if build.status.as_ref().and_then(|status| status.phase) != Some(Phase::Succeeded) {
        bail!("the trivial build failed: {}", failure(&build));
    }
    builds.delete("trivial", &DeleteParams::default()).await?;
    Ok((bare, took))
}
