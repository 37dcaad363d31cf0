//! Brings Slipway itself into a cluster: its images and its chart.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    config::{Layout, Spec, write_atomically},
    foreign, images, oci, servers,
};

/// The namespace that Slipway is installed into.
pub const NAMESPACE: &str = "slipway-system";
/// The release's name.
pub const RELEASE: &str = "slipway";

/// Makes the operator and runner images from the binaries in `binaries`, writes them as OCI archives next to that
/// folder, loads them into the embedded cluster's nodes, and pushes them to the cluster's registry.
pub async fn images(binaries: &Path) -> Result<()> {
    let cluster = Cluster::from_env_or_embedded().await?;
    let registry = cluster.registry()?;
    let mut all = vec![
        (images::OPERATOR, images::operator(binaries)?),
        (images::RUNNER, images::runner(binaries)?),
    ];
    if cluster.embedded.is_some() {
        all.push((images::EMULATORS, foreign::emulators()?));
    }
    for (reference, image) in all {
        let archive = archive(binaries, reference)?;
        oci::write_archive(&archive, &[(reference, &image)])?;
        if let Some(layout) = &cluster.embedded {
            crate::cluster::load(layout, &archive)?;
        }
        let (repository, tag) = pushed(&cluster, reference)?;
        registry.push(&repository, &tag, &image).await?;
        println!(
            "{reference}@{} {:.1} MB, {}",
            image.digest(),
            image.size() as f64 / 1e6,
            archive.display()
        );
    }
    Ok(())
}

/// Where an image's archive lies.
fn archive(binaries: &Path, reference: &str) -> Result<PathBuf> {
    let (name, _) = short(reference)?;
    Ok(binaries
        .parent()
        .context("a profile's folder has a parent")?
        .join(format!("images/{name}.tar")))
}

/// `operator`, `dev` of `slipway.test/operator:dev`.
fn short(reference: &str) -> Result<(&str, &str)> {
    let (_, name) = reference.split_once('/').context("a reference has a host")?;
    name.split_once(':').context("a reference has a tag")
}

/// Repository and tag in the cluster's registry. In the embedded one it is where a node looks for `slipway.test/…`.
fn pushed(cluster: &Cluster, reference: &str) -> Result<(String, String)> {
    let (name, tag) = short(reference)?;
    let repository = if cluster.embedded.is_some() {
        name.to_owned()
    } else {
        format!("slipway/{name}")
    };
    Ok((repository, tag.to_owned()))
}

/// The reference by which the cluster's nodes know an image.
pub fn reference(cluster: &Cluster, reference: &str) -> Result<String> {
    if cluster.embedded.is_some() {
        return Ok(reference.to_owned());
    }
    let (repository, tag) = pushed(cluster, reference)?;
    Ok(format!("{}/{repository}:{tag}", cluster.registry))
}

/// What the chart is told in a test: the images of this workspace, and that the test registry speaks plain HTTP.
/// `digest` is the operator image's: the tag stays, so an annotation is what makes a new image new pods.
pub fn values(cluster: &Cluster, digest: &str) -> Result<Value> {
    let image = |of: &str| -> Result<Value> {
        let reference = reference(cluster, of)?;
        let (repository, tag) = reference.rsplit_once(':').context("a reference has a tag")?;
        Ok(json!({"repository": repository, "tag": tag}))
    };
    let mut registries = vec![
        json!({"host": cluster.registry, "insecure": cluster.registry_url.starts_with("http://")}),
        // The examples name their bases as everybody does; the test registry has them.
        json!({"host": "docker.io", "mirrors": [cluster.registry]}),
    ];
    registries.extend(servers::settings(cluster)?);
    let mut emulation = json!({});
    if cluster.embedded.is_some() {
        emulation = json!({"enabled": true, "image": images::EMULATORS});
    }
    Ok(json!({
        "emulation": emulation,
        "image": image(images::OPERATOR)?,
        "runner": {"image": image(images::RUNNER)?},
        // The weaker mode can be tried with the same scenarios: SLIPWAY_ISOLATION=Privileged.
        "isolation": {"mode": std::env::var("SLIPWAY_ISOLATION").unwrap_or_else(|_| "UserNamespace".into())},
        // Scenarios that start more at once see them queue; the scenario `concurrency` looks for it.
        "limits": {"maxRunning": 20, "maxRunningPerNamespace": 4},
        // They hold in the namespaces of the scenario `policy` alone.
        "policies": {
            "appliesTo": ["e2e-policy-*"],
            "allowedNamespaces": ["default", "e2e-*", "slipway*"],
            "allowedOutputs": [format!("{}/e2e-policy-apps", cluster.registry)],
            "allowedBases": [format!("{}/library/debian", cluster.registry), "docker.io/library/debian"],
            "maxTimeout": "1h",
            "maxResources": {"cpu": 4, "memory": "4Gi"},
            "requiredGates": ["checked"],
            "forcedLabels": {"org.opencontainers.image.vendor": "The platform team"},
            "defaultCacheRepository": format!("{}/e2e-policy-cache/{{namespace}}", cluster.registry),
        },
        "podAnnotations": {"slipway.build/image-digest": digest},
        "registries": registries,
    }))
}

/// Installs the chart, or upgrades it, and waits until the operator of these very images serves.
pub async fn install() -> Result<()> {
    let cluster = Cluster::from_env_or_embedded().await?;
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/slipway");
    let folder = images::release_folder()?;
    let (_, image) = oci::read_archive(&archive(&folder, images::OPERATOR)?)?.remove(0);
    let file = folder.parent().unwrap_or(&folder).join("images/values.json");
    write_atomically(
        &file,
        &serde_json::to_vec_pretty(&values(&cluster, &image.digest())?)?,
    )?;
    let file = file.display().to_string();
    let args = [
        "upgrade",
        "--install",
        RELEASE,
        chart,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--values",
        &file,
    ];
    cluster.helm(&args)?;
    let selector = format!("app.kubernetes.io/instance={RELEASE}");
    let names = cluster.kubectl(&[
        "get",
        "deployment",
        "-n",
        NAMESPACE,
        "-l",
        &selector,
        "-o",
        "name",
    ])?;
    for name in names.split_whitespace() {
        cluster.kubectl(&["rollout", "status", name, "-n", NAMESPACE, "--timeout=120s"])?;
        println!("{name} in {NAMESPACE} is ready");
    }
    Ok(())
}

/// Becomes `command`, with the variables that name the cluster. Those that the user has set stay.
pub fn env(command: &[String]) -> Result<()> {
    let (program, args) = command.split_first().context("no command given")?;
    let mut run = Command::new(program);
    run.args(args);
    if std::env::var_os("KUBECONFIG").is_none_or(|k| k.is_empty()) {
        let layout = Layout::from_env()?;
        let spec = Spec::load(&layout)?.context("no cluster runs: start one with `make cluster-up`")?;
        run.env("KUBECONFIG", layout.kubeconfig());
        run.env("SLIPWAY_REGISTRY", Spec::registry_name());
        run.env("SLIPWAY_REGISTRY_URL", spec.registry_url());
        let mut path = vec![layout.bin()];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        run.env("PATH", std::env::join_paths(path)?);
    }
    Err(run.exec()).with_context(|| format!("failed to run {program}"))
}
