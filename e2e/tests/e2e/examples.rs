//! The examples, each as its manifest has it; only the registry is the test's. Packages come from this machine: nothing
//! of a pod reaches the internet.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use slipway_crd::ImageBuild;
use slipway_e2e::{
    base::Toolchain,
    config::Spec,
    packages::{Files, Server},
    scenario::{self, Scenario},
    yaml,
};

use crate::build::{LIMIT, ended, repository, succeeded};

const GO: &str = include_str!("../../../examples/golang/golang.yaml");
const MAVEN: &str = include_str!("../../../examples/maven/maven.yaml");
const SECRET: &str = include_str!("../../../examples/build-secret/build-secret.yaml");
const IGNORE: &str = include_str!("../../../examples/dockerignore/dockerignore.yaml");

/// Applies an example. Its images go below the test's namespace; `change` is applied to each ImageBuild.
fn apply(s: &Scenario, example: &str, change: &dyn Fn(&mut Value)) -> Result<()> {
    let registry = format!("{}/{}", s.cluster.registry, s.namespace);
    let mut all = yaml::documents(&example.replace(&Spec::registry_name(), &registry))?;
    for document in &mut all {
        document["metadata"]["namespace"] = s.namespace.as_str().into();
        if document["kind"] == "ImageBuild" {
            change(document);
        }
    }
    s.cluster
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string())?;
    Ok(())
}

/// A file of an example's source.
fn file(example: &str, name: &str) -> Result<String> {
    let all = yaml::documents(example)?;
    let map = all
        .iter()
        .find(|document| document["kind"] == "ConfigMap")
        .context("an example has a source")?;
    Ok(map["data"][name]
        .as_str()
        .with_context(|| format!("the example has no {name}"))?
        .to_owned())
}

/// What the image of a finished build prints.
async fn printed(s: &Scenario, name: &str) -> Result<String> {
    let digest = succeeded(s, name).await?;
    let image = format!("{}/{}@{digest}", s.cluster.registry, repository(s, name));
    let pod = format!("run-{name}");
    s.kubectl(&["run", &pod, "--restart=Never", "--image", &image])?;
    s.pod_end(&pod, LIMIT).await?;
    s.logs(&pod).await
}

/// A package server where the pods of the embedded cluster can reach it; `None` for a cluster of the user's, whose pods
/// cannot reach this machine.
async fn server(s: &Scenario) -> Result<Option<Server>> {
    if s.cluster.embedded.is_none() {
        println!("skipped: pods of this cluster reach no server of this machine");
        return Ok(None);
    }
    let url = s.cluster.registry_url.as_str();
    let host = url
        .trim_start_matches("http://")
        .split(':')
        .next()
        .unwrap_or_default();
    let address: Ipv4Addr = host.parse().context("the embedded registry has an address")?;
    Ok(Some(Server::start(address).await?))
}

/// Builds again without the layer cache, with this file changed, and says how many steps ran.
async fn again(s: &Scenario, name: &str, file: &str, text: &str) -> Result<u32> {
    let source = format!("{name}-source");
    s.api::<ConfigMap>()
        .patch(
            &source,
            &PatchParams::default(),
            &Patch::Merge(&json!({"data": {file: text}})),
        )
        .await?;
    s.api::<ImageBuild>()
        .patch(
            name,
            &PatchParams::default(),
            &Patch::Merge(&json!({"spec": {"cache": {"noCache": true}}})),
        )
        .await?;
    succeeded(s, name).await?;
    let build = ended(s, name).await?;
    let rows = build.status.map(|status| status.stages).unwrap_or_default();
    Ok(rows.iter().map(|row| row.steps.done - row.steps.cached).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_mount_go_fetches_nothing_the_second_time() -> Result<()> {
    scenario::run("cache_mount_go", |s| async move {
        let Some(server) = server(&s).await? else {
            return Ok(());
        };
        Toolchain::Go.push(&s.cluster.registry()?).await?;
        server.serve(Files::go(&file(GO, "go.mod")?, &file(GO, "go.sum")?)?);
        let proxy = json!([{"name": "GOPROXY", "value": server.url()}]);
        apply(&s, GO, &|build| build["spec"]["args"] = proxy.clone())?;
        let text = printed(&s, "golang").await?;
        ensure!(text.starts_with("hello from Go, "), "{text}");
        let first = server.requests();
        ensure!(
            first.iter().any(|path| path.ends_with("/@v/v1.6.0.zip")),
            "{first:?}"
        );

        let main = file(GO, "main.go")?.replace("hello from Go", "hello again");
        let executed = again(&s, "golang", "main.go", &main).await?;
        ensure!(executed > 0, "nothing ran");
        let second = server.requests();
        ensure!(second.is_empty(), "the second build asked for {second:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_mount_maven_fetches_nothing_the_second_time() -> Result<()> {
    scenario::run("cache_mount_maven", |s| async move {
        let Some(server) = server(&s).await? else { return Ok(()) };
        Toolchain::Maven.push(&s.cluster.registry()?).await?;
        let main = file(MAVEN, "Greet.java")?;
        let source = [("src/main/java/com/example/Greet.java", main.as_str())];
        let goals = ["package", "dependency:copy-dependencies"];
        server.serve(Files::maven(&file(MAVEN, "pom.xml")?, &source, &goals)?);
        let settings = format!(
            "<settings><mirrors><mirror><id>test</id><mirrorOf>*</mirrorOf><url>{}</url></mirror></mirrors></settings>",
            server.url()
        );
        s.kubectl(&[
            "create",
            "secret",
            "generic",
            "maven",
            &format!("--from-literal=settings.xml={settings}"),
        ])?;
        let offered =
            json!([{"id": "maven-settings", "secretRef": {"name": "maven", "key": "settings.xml"}}]);
        apply(&s, MAVEN, &|build| build["spec"]["secrets"] = offered.clone())?;
        let text = printed(&s, "maven").await?;
        ensure!(text.starts_with("hello from Java, 59cfdfa7"), "{text}");
        let first = server.requests();
        ensure!(
            first.iter().any(|path| path.ends_with("/commons-codec-1.17.1.jar")),
            "{first:?}"
        );

        let main = main.replace("hello from Java", "hello again");
        let executed = again(&s, "maven", "Greet.java", &main).await?;
        ensure!(executed > 0, "nothing ran");
        let second = server.requests();
        ensure!(second.is_empty(), "the second build asked for {second:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn example_build_secret_works() -> Result<()> {
    scenario::run("example_build_secret", |s| async move {
        apply(&s, SECRET, &|_| {})?;
        let text = printed(&s, "build-secret").await?;
        ensure!(text.trim().len() == 12, "{text}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn example_dockerignore_publishes_only_what_is_read() -> Result<()> {
    scenario::run("example_dockerignore", |s| async move {
        apply(&s, IGNORE, &|_| {})?;
        let text = printed(&s, "dockerignore").await?;
        ensure!(text.trim() == "only what was copied is here: run.sh", "{text}");
        let published = crate::secrets::published(&s, "dockerignore").await?;
        let holds = |text: &str| {
            published
                .iter()
                .any(|blob| blob.windows(text.len()).any(|window| window == text.as_bytes()))
        };
        ensure!(
            holds("only what was copied"),
            "the context is not among what was published"
        );
        for text in ["ignored-notes", "ignored-log", "nobody-reads-this-file"] {
            ensure!(!holds(text), "{text} was published");
        }
        Ok(())
    })
    .await
}
