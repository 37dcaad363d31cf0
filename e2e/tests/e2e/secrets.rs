//! A build secret is seen by its `RUN` alone: its value is in no layer, artifact, log or object of the cluster.

use std::{collections::BTreeSet, io::Read as _};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use serde_json::{Value, json};
use slipway_e2e::scenario::{self, Scenario};

use crate::build::{Build, failed, pods, repository, succeeded};

/// Nothing else in the world has this text.
const VALUE: &str = "sl1pway-e2e-Secret-Value-7f3a9c";

/// The value as it is, in hex, and in base64 at each of the three places that it can have in what is encoded.
fn forms() -> Vec<String> {
    let mut forms = vec![VALUE.to_owned(), hex::encode(VALUE), hex::encode_upper(VALUE)];
    for before in 0..3 {
        let bytes = [&vec![0; before][..], VALUE.as_bytes()].concat();
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&bytes);
        // The first character or two hold bits of what is before, the last ones bits of what follows.
        let first = [0, 2, 3][before];
        let whole = bytes.len() / 3 * 4;
        let inner = &text[first..whole];
        forms.extend([inner.to_owned(), inner.replace('+', "-").replace('/', "_")]);
    }
    forms
}

#[test]
fn the_value_is_found_wherever_it_stands() {
    for before in ["", "x", "xy", "xyz", "wxyz"] {
        let text = format!("{before}{VALUE} and more");
        let encoded = base64::engine::general_purpose::STANDARD.encode(&text);
        for found in [text.clone(), encoded, hex::encode_upper(&text)] {
            assert!(clean("here", found.as_bytes()).is_err(), "{found}");
        }
    }
    assert!(clean("here", b"nothing to hide").is_ok());
}

fn clean(place: &str, bytes: &[u8]) -> Result<()> {
    for form in forms() {
        let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
        ensure!(!found, "{place} holds the secret (as {form})");
    }
    Ok(())
}

/// A blob as it is, and what it unpacks to.
fn unpacked(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain)?;
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        plain = zstd::decode_all(bytes)?;
    }
    Ok(plain)
}

/// Everything that is under some tag of a repository of the test: manifests and blobs, as they are and unpacked.
pub(crate) async fn published(s: &Scenario, name: &str) -> Result<Vec<Vec<u8>>> {
    let (registry, repository) = (s.cluster.registry()?, repository(s, name));
    let mut all = Vec::new();
    // The base's own layers are known, and large.
    let base = registry.manifest("library/debian", "bookworm").await?;
    let base = base.context("the registry has the base")?.json;
    let layers = base["layers"].as_array().into_iter().flatten();
    let mut seen: BTreeSet<String> = layers
        .filter_map(|layer| layer["digest"].as_str().map(ToOwned::to_owned))
        .collect();
    for tag in registry.tags(&repository).await? {
        let mut open = vec![tag];
        while let Some(reference) = open.pop() {
            if !seen.insert(reference.clone()) {
                continue;
            }
            let Some(manifest) = registry.manifest(&repository, &reference).await? else {
                continue;
            };
            let list = |field: &str| manifest.json[field].as_array().cloned().unwrap_or_default();
            let digest = |descriptor: &Value| descriptor["digest"].as_str().map(ToOwned::to_owned);
            open.extend(list("manifests").iter().filter_map(digest));
            let blobs = std::iter::once(manifest.json["config"].clone()).chain(list("layers"));
            for blob in blobs.filter_map(|descriptor| digest(&descriptor)) {
                if seen.insert(blob.clone()) {
                    let bytes = registry.blob(&repository, &blob).await?;
                    all.push(unpacked(&bytes)?);
                    all.push(bytes);
                }
            }
            all.push(manifest.bytes);
        }
    }
    Ok(all)
}

/// Searches everything that builds left in a repository. Gives how much was looked at.
async fn clean_registry(s: &Scenario, name: &str) -> Result<usize> {
    let all = published(s, name).await?;
    for bytes in &all {
        clean(&format!("something in the repository {name}"), bytes)?;
    }
    Ok(all.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_leak_nothing_but_its_step_sees_a_secret() -> Result<()> {
    scenario::run("secret_leak", |s| async move {
        s.kubectl(&["create", "secret", "generic", "token", &format!("--from-literal=value={VALUE}")])?;
        let offered: Value = json!([{"id": "token", "secretRef": {"name": "token", "key": "value"}}]);
        let cache = json!({"repository": format!("{}/{}", s.cluster.registry, repository(&s, "results"))});
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
        .with("cache", cache.clone())
        .create()
        .await?;
        let bad = Build::new(
            &s,
            "bad",
            &format!("FROM debian:bookworm\nRUN {mount} cat /run/secrets/token; echo token is $TOKEN; exit 7\n"),
        )
        .with("secrets", offered)
        .with("cache", cache)
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
        }
        for name in [good.as_str(), "results"] {
            let seen = clean_registry(&s, name).await?;
            ensure!(seen > 3, "{name}: only {seen} things were looked at");
        }
        Ok(())
    })
    .await
}

/// Each line of it fails the build with a number of its own.
const DETAILS: &str = r#"FROM debian:bookworm
RUN --mount=type=secret,id=token test "$(stat -c %u:%g:%a /run/secrets/token)" = 0:0:400 || exit 11
RUN --mount=type=secret,id=token,uid=1000,gid=1001,mode=0440 test "$(stat -c %u:%g:%a /run/secrets/token)" = 1000:1001:440 || exit 12
RUN --mount=type=secret,id=token,target=/etc/deep/er,env=TOKEN test "$TOKEN" = "$(cat /etc/deep/er)" && test ! -e /run/secrets/token || exit 13
RUN --mount=type=secret,id=token,required --mount=type=secret,source=token,target=again test -s /run/secrets/token && test -s again || exit 14
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent || exit 15
RUN --mount=type=secret,id=absent,env=ABSENT test -z "${ABSENT+set}" || exit 16
USER 1000:1001
RUN --mount=type=secret,id=token,uid=1000 test -s /run/secrets/token && cat /run/secrets/token > /dev/null || exit 17
RUN --mount=type=secret,id=token cat /run/secrets/token > /dev/null 2>&1 && exit 18 || true
RUN test ! -e /run/secrets/token && test ! -s /etc/deep/er && test -z "$TOKEN" || exit 19
"#;

#[tokio::test(flavor = "multi_thread")]
async fn secret_details_owner_mode_and_absence() -> Result<()> {
    scenario::run("secret_details", |s| async move {
        s.kubectl(&[
            "create",
            "secret",
            "generic",
            "token",
            &format!("--from-literal=value={VALUE}"),
        ])?;
        let offered = json!([{"id": "token", "secretRef": {"name": "token", "key": "value"}}]);
        let good = Build::new(&s, "details", DETAILS)
            .with("secrets", offered.clone())
            .create()
            .await?;
        let bad = Build::new(
            &s,
            "required",
            "FROM debian:bookworm\nRUN --mount=type=secret,id=absent,required true\n",
        )
        .with("secrets", offered)
        .create()
        .await?;
        succeeded(&s, &good).await?;
        let failure = failed(&s, &bad).await?;
        ensure!(
            failure.reason == "SecretNotFound" && failure.message.contains("absent"),
            "{failure:?}"
        );
        Ok(())
    })
    .await
}
