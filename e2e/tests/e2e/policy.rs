//! What the platform team wants of every build: refused at admission, told by the plan, or given. `install` sets the
//! policies, for the namespaces of this scenario alone.

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Error,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use slipway_crd::{ImageBuild, names};
use slipway_e2e::scenario::{self, Scenario};

use crate::build::{Build, failed, succeeded};

fn manifest(spec: &Value) -> Result<ImageBuild> {
    let mut whole = json!({"dockerfile": {"inline": "FROM debian:bookworm\nRUN true\n"}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    Ok(serde_json::from_value(json!({
        "apiVersion": "slipway.build/v1alpha1",
        "kind": "ImageBuild",
        "metadata": {"name": "policy"},
        "spec": whole,
    }))?)
}

/// The API server's words against an ImageBuild; nothing if it accepts it.
async fn refusal(api: &Api<ImageBuild>, spec: &Value) -> Result<Option<String>> {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match api.create(&dry_run, &manifest(spec)?).await {
        Ok(_) => Ok(None),
        Err(Error::Api(status)) => Ok(Some(status.message)),
        Err(error) => Err(error.into()),
    }
}

async fn in_another_namespace(s: &Scenario) -> Result<()> {
    let name = s.namespace.replacen("e2e-", "elsewhere-", 1);
    let spaces: Api<Namespace> = Api::all(s.cluster.client.clone());
    let wanted = Namespace {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    spaces.create(&PostParams::default(), &wanted).await?;
    let api: Api<ImageBuild> = Api::namespaced(s.cluster.client.clone(), &name);
    let spec = json!({"output": {"images": ["r.example.com/any:1"]}});
    let said = refusal(&api, &spec).await;
    spaces.delete(&name, &DeleteParams::default()).await?;
    let said = said?.context("an ImageBuild was accepted where none may be")?;
    ensure!(
        said.contains(&name) && said.contains("the platform team allows them in default, e2e-*"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_of_the_platform_team_is_enforced_with_a_clear_word() -> Result<()> {
    scenario::run("policy", |s| async move {
        let registry = s.cluster.registry.clone();
        let good = json!({"images": [format!("{registry}/e2e-policy-apps/app:1")]});
        let api = s.api::<ImageBuild>();
        for (change, parts) in [
            (json!({}), vec![]),
            (
                json!({"output": {"images": [format!("{registry}/e2e-policy-apps/app:1"), format!("{registry}/elsewhere/app:1")]}}),
                vec!["spec.output.images: ", "/elsewhere/app:1", "push to", "e2e-policy-apps"],
            ),
            (
                json!({"output": {"images": [format!("{registry}/e2e-policy-apps-not/app:1")]}}),
                vec!["spec.output.images: "],
            ),
            (json!({"output": {"images": ["team/app:1"]}}), vec!["spec.output.images: docker.io/team/app:1"]),
            (
                json!({"cache": {"repository": format!("{registry}/elsewhere/cache")}}),
                vec!["spec.cache.repository: ", "/elsewhere/cache"],
            ),
            (json!({"cache": {"repository": format!("{registry}/e2e-policy-apps")}}), vec![]),
            (json!({"timeout": "1h1s"}), vec!["spec.timeout: 1h1s", "1h that the platform team"]),
            (json!({"timeout": "60m"}), vec![]),
            (
                json!({"pods": {"resources": {"limits": {"cpu": "4001m"}}}}),
                vec!["spec.pods.resources.limits.cpu: ", "4 that the platform team"],
            ),
            (
                json!({"pods": {"resources": {"requests": {"memory": "5Gi"}}}}),
                vec!["spec.pods.resources.requests.memory: ", "4Gi"],
            ),
            (json!({"pods": {"resources": {"limits": {"cpu": 4, "memory": "4096Mi"}}}}), vec![]),
            (
                json!({"pods": {"stages": {"build": {"resources": {"limits": {"cpu": 5}}}}}}),
                vec!["spec.pods.resources.limits.cpu: ", "spec.pods.stages"],
            ),
            (json!({"gates": ["lint"]}), vec!["spec.gates: must have checked"]),
            (json!({"gates": ["lint", "checked"]}), vec![]),
        ] {
            let mut spec = json!({"output": good, "gates": ["checked"]});
            for (key, value) in change.as_object().into_iter().flatten() {
                spec[key] = value.clone();
            }
            match (refusal(&api, &spec).await?, parts.as_slice()) {
                (None, []) => {}
                (None, _) => bail!("{spec} was accepted"),
                (Some(said), []) => bail!("{spec} was refused: {said}"),
                (Some(said), parts) => {
                    for part in parts {
                        ensure!(said.contains(part), "{part:?} is not in: {said}");
                    }
                }
            }
        }
        in_another_namespace(&s).await?;

        // A base that is not allowed is told with its line, by the plan.
        let dockerfile = format!("FROM debian:bookworm AS checked\nCOPY --from={registry}/library/busybox /bin/sh /sh\n");
        let name = Build::new(&s, "bases", &dockerfile)
            .with("output", good.clone())
            .with("gates", json!(["checked"]))
            .create()
            .await?;
        let failure = failed(&s, &name).await?;
        ensure!(failure.reason == "PolicyViolation" && failure.line == Some(2), "{failure:?}");
        ensure!(failure.message.contains("library/busybox"), "{failure:?}");

        // What keeps to the policies is built, with the forced label, and its results are where the platform team keeps them.
        let name = Build::new(&s, "good", "FROM debian:bookworm AS checked\nLABEL org.opencontainers.image.vendor=me\nRUN true\n")
            .with("output", good)
            .with("gates", json!(["checked"]))
            .create()
            .await?;
        let digest = succeeded(&s, &name).await?;
        let registry = s.cluster.registry()?;
        let repository = "e2e-policy-apps/app";
        let manifest = registry.manifest(repository, &digest).await?.context("the image")?.json;
        let config = manifest["config"]["digest"].as_str().context("its config")?;
        let config = registry.blob_json(repository, config).await?;
        let labels = &config["config"]["Labels"];
        ensure!(labels["org.opencontainers.image.vendor"] == "The platform team", "{labels}");
        let kept = registry.tags(&format!("e2e-policy-cache/{}", s.namespace)).await?;
        ensure!(!kept.is_empty(), "nothing is in the cache repository of the policy");

        // It may be annotated although a later policy would not let it in; its spec may not leave the policies.
        let annotation = json!({"metadata": {"annotations": {names::ANNOTATION_CANCEL: "true"}}});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&annotation)).await?;
        let change = json!({"spec": {"timeout": "5h"}});
        let changed = api.patch(&name, &PatchParams::default(), &Patch::Merge(&change)).await;
        ensure!(changed.is_err_and(|error| error.to_string().contains("spec.timeout: 5h")));
        Ok(())
    })
    .await
}
