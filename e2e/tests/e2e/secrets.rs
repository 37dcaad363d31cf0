//! A build secret is seen by its `RUN` alone: its value is in no layer, artifact, log or object of the cluster.

use std::io::Read as _;

use anyhow::{Result, ensure};
use base64::Engine as _;
use serde_json::{Value, json};
use slipway_e2e::scenario::{self, Scenario};

use crate::build::{Build, failed, pods, repository, succeeded};

/// Nothing else in the world has this text.
const VALUE: &str = "sl1pway-e2e-Secret-Value-7f3a9c";

/// The value as it is, in base64 and in hex.
fn forms() -> [String; 3] {
    let hex = VALUE
        .bytes()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    // The end of base64 depends on what follows, so it is left out.
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&VALUE[..30]);
    [VALUE.into(), base64, hex]
}

fn clean(place: &str, bytes: &[u8]) -> Result<()> {
    for form in forms() {
        let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
        ensure!(!found, "{place} holds the secret (as {form})");
    }
    Ok(())
}

/// A blob as it is, and unpacked.
fn clean_blob(place: &str, bytes: &[u8]) -> Result<()> {
    clean(place, bytes)?;
    let mut plain = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain)?;
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        plain = zstd::decode_all(bytes)?;
    }
    clean(&format!("{place}, unpacked"), &plain)
}

/// Every manifest and blob that a build left in the registry. Returns how many were looked at.
async fn clean_registry(s: &Scenario, name: &str) -> Result<usize> {
    let (registry, repository) = (s.cluster.registry()?, repository(s, name));
    let mut count = 0;
    let mut open = registry.tags(&repository).await?;
    while let Some(name) = open.pop() {
        let Some(manifest) = registry.manifest(&repository, &name).await? else {
            continue;
        };
        clean(&name, &manifest.bytes)?;
        let list = |field: &str| manifest.json[field].as_array().cloned().unwrap_or_default();
        let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap_or_default().to_owned();
        open.extend(list("manifests").iter().map(digest));
        let config = manifest.json.get("config").cloned();
        for digest in config.iter().chain(&list("layers")).map(digest) {
            clean_blob(
                &format!("{name} {digest}"),
                &registry.blob(&repository, &digest).await?,
            )?;
            count += 1;
        }
    }
    Ok(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_its_step_and_nothing_else() -> Result<()> {
    scenario::run("secret_leak", |s| async move {
        s.kubectl(&["create", "secret", "generic", "token", &format!("--from-literal=value={VALUE}")])?;
        let offered: Value = json!([{"id": "token", "secretRef": {"name": "token", "key": "value"}}]);
        let mount = "--mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN";
        let good = Build::new(
            &s,
            "good",
            &format!(
                "FROM debian:bookworm\nCOPY public.txt /\nRUN {mount} cat /run/secrets/token; echo \"$TOKEN\" >&2; \
                 test \"$(cat /run/secrets/token)\" = \"$TOKEN\" && printf %s \"$TOKEN\" | wc -c > /length\n\
                 RUN test ! -e /run/secrets/token && test -z \"$TOKEN\"\nCMD [\"cat\", \"/length\"]\n"
            ),
        )
        .file("public.txt", "nothing to hide\n")
        .with("secrets", offered.clone())
        .create()
        .await?;
        let bad = Build::new(
            &s,
            "bad",
            &format!("FROM debian:bookworm\nRUN {mount} cat /run/secrets/token; echo token is $TOKEN; exit 7\n"),
        )
        .with("secrets", offered)
        .create()
        .await?;

        let digest = succeeded(&s, &good).await?;
        let failure = failed(&s, &bad).await?;
        let log = failure.log.unwrap_or_default();
        ensure!(log.contains("token is ***"), "the log should show that something was hidden: {log:?}");

        let image = format!("{}/{}@{digest}", s.cluster.registry, repository(&s, &good));
        s.kubectl(&["run", "length", "--restart=Never", "--image", &image])?;
        s.pod_end("length", crate::build::LIMIT).await?;
        ensure!(s.logs("length").await?.trim() == VALUE.len().to_string(), "the step did not see the secret");

        // All but the Secret itself, which is where the value belongs.
        let objects = s.kubectl(&["get", "imagebuilds,pods,configmaps,events", "-o", "yaml"])?;
        clean("an object of the namespace", objects.as_bytes())?;
        for name in [&good, &bad] {
            for pod in pods(&s, name).await? {
                let pod = pod.metadata.name.unwrap_or_default();
                clean(&format!("the log of {pod}"), s.logs(&pod).await?.as_bytes())?;
            }
            let seen = clean_registry(&s, name).await?;
            ensure!(seen > 1, "{name}: only {seen} blobs were looked at");
        }
        Ok(())
    })
    .await
}
