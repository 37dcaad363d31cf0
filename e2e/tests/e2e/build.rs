//! What the scenarios share: making builds, waiting for them, looking at what they left.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, ObjectMeta, PostParams};
use serde_json::{Value, json};
use slipway_crd::{FailureStatus, ImageBuild, Phase};
use slipway_e2e::{scenario::Scenario, wait};

/// No scenario's build takes longer, even when several run at once on two cores.
pub(crate) const LIMIT: Duration = Duration::from_mins(4);

/// A build of these files from a ConfigMap, pushed as `name:v1` of a repository of the test's own.
pub(crate) struct Build<'a> {
    scenario: &'a Scenario,
    name: String,
    files: Vec<(String, String)>,
    spec: Value,
}

impl<'a> Build<'a> {
    pub(crate) fn new(scenario: &'a Scenario, name: &str, dockerfile: &str) -> Self {
        let image = format!("{}/{}/{name}:v1", scenario.cluster.registry, scenario.namespace);
        Self {
            scenario,
            name: name.into(),
            files: vec![("Dockerfile".into(), dockerfile.into())],
            spec: json!({"platforms": ["linux/amd64"], "output": {"images": [image]}}),
        }
    }

    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.into(), text.into()));
        self
    }

    /// Sets a field of the spec.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.spec[field] = value;
        self
    }

    /// Creates the source and the ImageBuild.
    pub(crate) async fn create(mut self) -> Result<String> {
        let source = format!("{}-source", self.name);
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(source.clone()),
                ..ObjectMeta::default()
            },
            data: Some(self.files.drain(..).collect()),
            ..ConfigMap::default()
        };
        self.scenario
            .api::<ConfigMap>()
            .create(&PostParams::default(), &map)
            .await?;
        self.spec["source"] = json!({"configMap": {"name": source}});
        let build: ImageBuild = serde_json::from_value(json!({
            "apiVersion": "slipway.build/v1alpha1",
            "kind": "ImageBuild",
            "metadata": {"name": self.name},
            "spec": self.spec,
        }))?;
        self.scenario
            .api::<ImageBuild>()
            .create(&PostParams::default(), &build)
            .await?;
        Ok(self.name)
    }
}

/// Where a test's build `name` is pushed to, as the registry's own client names it.
pub(crate) fn repository(scenario: &Scenario, name: &str) -> String {
    format!("{}/{name}", scenario.namespace)
}

pub(crate) fn phase(build: &ImageBuild) -> Option<Phase> {
    build.status.as_ref().and_then(|status| status.phase)
}

/// Waits until a build's newest generation has ended.
pub(crate) async fn ended(scenario: &Scenario, name: &str) -> Result<ImageBuild> {
    wait::object(
        &scenario.api::<ImageBuild>(),
        name,
        "the build ends",
        LIMIT,
        |build| {
            let seen = build
                .status
                .as_ref()
                .and_then(|status| status.observed_generation);
            seen == build.metadata.generation && phase(build).is_some_and(Phase::is_final)
        },
    )
    .await
}

/// The image's digest of a build that must succeed.
pub(crate) async fn succeeded(scenario: &Scenario, name: &str) -> Result<String> {
    let build = ended(scenario, name).await?;
    if phase(&build) != Some(Phase::Succeeded) {
        bail!(
            "{name} failed: {:?}",
            build.status.and_then(|status| status.failure)
        );
    }
    let image = build
        .status
        .and_then(|status| status.image)
        .context("a succeeded build has an image")?;
    Ok(image.digest)
}

/// How a build failed that must fail.
pub(crate) async fn failed(scenario: &Scenario, name: &str) -> Result<FailureStatus> {
    let build = ended(scenario, name).await?;
    if phase(&build) != Some(Phase::Failed) {
        bail!("{name} succeeded, and should not");
    }
    build
        .status
        .and_then(|status| status.failure)
        .context("a failed build says how")
}

/// Waits until a build is in a phase, or past it.
pub(crate) async fn reached(scenario: &Scenario, name: &str, wanted: Phase) -> Result<ImageBuild> {
    wait::object(
        &scenario.api::<ImageBuild>(),
        name,
        wanted.as_str(),
        LIMIT,
        |build| phase(build).is_some_and(|now| now as u8 >= wanted as u8),
    )
    .await
}

/// The pods of a build.
pub(crate) async fn pods(scenario: &Scenario, name: &str) -> Result<Vec<Pod>> {
    let params = ListParams::default().labels(&format!("slipway.build/build={name}"));
    Ok(scenario.api::<Pod>().list(&params).await?.items)
}

/// Whether a pod's containers may still be running.
pub(crate) fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Waits until a stage pod of the build runs, and returns its name.
pub(crate) async fn running_stage(scenario: &Scenario, name: &str) -> Result<String> {
    wait::until("a stage pod runs", LIMIT, || async {
        let all = pods(scenario, name).await?;
        Ok(all.into_iter().find_map(|pod| {
            let labels = pod.metadata.labels.as_ref()?;
            labels.get("slipway.build/stage")?;
            let running = pod.status.as_ref()?.phase.as_deref() == Some("Running");
            running.then(|| pod.metadata.name.clone()).flatten()
        }))
    })
    .await
}
