//! Registries that want something of us: a password, a certificate, patience.

use anyhow::{Result, ensure};
use base64::Engine as _;
use serde_json::json;
use slipway_e2e::{
    images,
    scenario::{self, Scenario},
    servers::{self, Server},
};

use crate::{
    build::{Build, failed, succeeded},
    failures::no_pod_goes_on,
};

/// Nothing else in the world has this text.
const WRONG: &str = "sl1pway-e2e-Wr0ng-Passw0rd";

/// Makes a dockerconfigjson Secret with one entry a host.
fn secret(s: &Scenario, name: &str, entries: &[(&str, &str)]) -> Result<()> {
    let auths: serde_json::Map<String, serde_json::Value> = entries
        .iter()
        .map(|(target, password)| {
            let pair = format!("{}:{password}", servers::USER);
            let auth = base64::engine::general_purpose::STANDARD.encode(pair);
            ((*target).to_owned(), json!({"auth": auth}))
        })
        .collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": s.namespace},
        "stringData": {".dockerconfigjson": json!({"auths": auths}).to_string()},
    });
    s.cluster.apply(&secret.to_string()).map(|_| ())
}

/// Registries of a scenario's own stand beside the embedded cluster alone, whose DNS can name them.
fn embedded(s: &Scenario) -> bool {
    let embedded = s.cluster.embedded.is_some();
    if !embedded {
        println!("skipped: this scenario starts registries beside the embedded cluster");
    }
    embedded
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_auth_a_password_is_shown_where_it_is_wanted_and_a_wrong_one_is_told() -> Result<()> {
    scenario::run("registry_auth", |s| async move {
        if !embedded(&s) {
            return Ok(());
        }
        let locked = Server::locked(&s.cluster).await?;
        let client = locked
            .client()?
            .with_login(servers::USER, servers::PASSWORD);
        client.push("library/busybox", "1", &images::busybox()?).await?;
        secret(&s, "right", &[(&locked.name, servers::PASSWORD)])?;
        secret(&s, "wrong", &[(&locked.name, WRONG)])?;
        let local = format!("{}/{}/base-wrong:v1", s.cluster.registry, s.namespace);
        let output = |name: &str| format!("{}/{}/{name}:v1", locked.name, s.namespace);
        let base = format!("FROM scratch AS one\nCOPY Dockerfile /\nFROM {}/library/busybox:1\nRUN true\n", locked.name);
        let good = Build::new(&s, "good", &base)
            .with("output", json!({"images": [output("good")], "credentials": [{"name": "right"}]}))
            .create()
            .await?;
        let pushing = Build::new(&s, "output-wrong", "FROM busybox\nRUN true\n")
            .with("output", json!({"images": [output("output-wrong")], "credentials": [{"name": "wrong"}]}))
            .create()
            .await?;
        let pulling = Build::new(&s, "base-wrong", &base)
            .with("output", json!({"images": [local], "credentials": [{"name": "wrong"}]}))
            .create()
            .await?;
        let away = Build::new(&s, "base-away", "FROM away.slipway.test:5999/base\nRUN true\n")
            .with("retries", json!(0))
            .create()
            .await?;
        // A closer entry of a second Secret wins over the host's: pull and push apart.
        secret(&s, "closer", &[(&format!("{}/{}", locked.name, s.namespace), servers::PASSWORD)])?;
        let apart = Build::new(&s, "apart", "FROM busybox\nRUN true\n")
            .with("output", json!({"images": [output("apart")], "credentials": [{"name": "wrong"}, {"name": "closer"}]}))
            .create()
            .await?;

        for (name, line) in [(&pushing, None), (&pulling, Some(3))] {
            let failure = failed(&s, name).await?;
            ensure!(failure.reason == "RegistryUnauthorized", "{name}: {failure:?}");
            ensure!(failure.line == line, "{name}: {failure:?}");
            ensure!(failure.message.contains(&locked.name), "{name}: {failure:?}");
            no_pod_goes_on(&s, name).await?;
        }
        let failure = failed(&s, &away).await?;
        ensure!(failure.reason == "RegistryUnreachable" && failure.line == Some(1), "{failure:?}");
        let digest = succeeded(&s, &good).await?;
        succeeded(&s, &apart).await?;

        let found = client.manifest(&format!("{}/good", s.namespace), "v1").await?;
        ensure!(found.is_some_and(|found| found.digest == digest), "the image is not where it should be");
        ensure!(client.tags(&format!("{}/output-wrong", s.namespace)).await?.is_empty());
        ensure!(s.cluster.registry()?.tags(&format!("{}/base-wrong", s.namespace)).await?.is_empty());
        ensure!(!locked.client()?.ready().await, "the registry lets everybody in");
        let objects = s.kubectl(&["get", "imagebuilds,pods,configmaps,events", "-o", "yaml"])?;
        ensure!(!objects.contains(WRONG), "an object of the namespace holds the password");
        Ok(())
    })
    .await
}
