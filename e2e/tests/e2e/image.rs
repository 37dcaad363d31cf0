//! The image is right: every file, owner and mode, the config and the history, read with another program's eyes.

use std::{collections::BTreeMap, io::Read as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use slipway_e2e::scenario;

use crate::build::{Build, LIMIT, repository, succeeded};

const DOCKERFILE: &str = r#"FROM debian:bookworm AS build
WORKDIR /work
COPY text.txt .
RUN tr a-z A-Z < text.txt > upper.txt && mkdir -p out/empty && ln upper.txt out/hard && ln -s upper.txt out/soft && chmod 4755 upper.txt
FROM debian:bookworm
LABEL one=1 two="zwei Wörter"
ENV GREETING=hello
RUN useradd -u 1234 app && rm /etc/motd && mkdir -p /srv/keep && echo old > /srv/keep/old
RUN rm -r /srv/keep && mkdir /srv/keep && echo new > /srv/keep/new
COPY --from=build --chown=app:app /work/upper.txt /work/out /srv/
WORKDIR /srv/app
EXPOSE 8080
USER app
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo $GREETING; id -u; cat /srv/upper.txt"]
"#;

/// One file of the flattened image.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    link: Option<String>,
    pub(crate) content: Vec<u8>,
}

/// Reads an image that skopeo copied into a folder, layers laid one over the other.
pub(crate) fn flatten(folder: &Path) -> Result<(Value, BTreeMap<String, Entry>)> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json"))?)?;
    let blob = |descriptor: &Value| -> Result<Vec<u8>> {
        let digest = descriptor["digest"]
            .as_str()
            .context("a descriptor has a digest")?;
        Ok(std::fs::read(folder.join(digest.trim_start_matches("sha256:")))?)
    };
    let config = serde_json::from_slice(&blob(&manifest["config"])?)?;
    let mut files = BTreeMap::new();
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        let bytes = blob(layer)?;
        let reader: Box<dyn std::io::Read> = if bytes.starts_with(&[0x1f, 0x8b]) {
            Box::new(flate2::read::MultiGzDecoder::new(&bytes[..]))
        } else {
            Box::new(&bytes[..])
        };
        lay(&mut tar::Archive::new(reader), &mut files)?;
    }
    Ok((config, files))
}

fn lay(archive: &mut tar::Archive<impl std::io::Read>, files: &mut BTreeMap<String, Entry>) -> Result<()> {
    let below = |dir: &str, path: &str| {
        path.strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_matches('/').to_owned();
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            files.retain(|known, _| known == dir || !below(dir, known));
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            let hidden = format!("{dir}/{hidden}").trim_matches('/').to_owned();
            files.retain(|known, _| !below(&hidden, known));
        } else {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            let header = entry.header();
            let link = entry.link_name()?.map(|link| link.to_string_lossy().into_owned());
            let (kind, mode) = (header.entry_type(), header.mode()?);
            files.insert(
                path,
                Entry {
                    kind,
                    mode,
                    owner: (header.uid()?, header.gid()?),
                    link,
                    content,
                },
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn image_is_right() -> Result<()> {
    scenario::run("image_is_right", |s| async move {
        let name = Build::new(&s, "right", DOCKERFILE)
            .file("text.txt", "shouted\n")
            .create()
            .await?;
        let digest = succeeded(&s, &name).await?;
        let pulled = tempfile::tempdir()?;
        let from = s
            .cluster
            .registry_url
            .split("://")
            .last()
            .unwrap_or_default()
            .to_owned();
        let status = Command::new("skopeo")
            .args(["copy", "--quiet", "--src-tls-verify=false"])
            .arg(format!("docker://{from}/{}:v1", repository(&s, &name)))
            .arg(format!("dir:{}", pulled.path().display()))
            .status()?;
        ensure!(status.success(), "skopeo could not pull the image");
        let (config, files) = flatten(pulled.path())?;

        let file = |path: &str| {
            files
                .get(path)
                .with_context(|| format!("/{path} is not in the image"))
        };
        let upper = file("srv/upper.txt")?;
        ensure!(
            upper.content == b"SHOUTED\n" && upper.mode & 0o7777 == 0o4755 && upper.owner == (1234, 1234),
            "{upper:?}"
        );
        ensure!(file("srv/empty")?.kind.is_dir() && file("srv/empty")?.owner == (1234, 1234));
        ensure!(file("srv/soft")?.link.as_deref() == Some("upper.txt"));
        ensure!(file("srv/hard")?.content == b"SHOUTED\n");
        ensure!(file("srv/keep/new")?.content == b"new\n");
        ensure!(file("srv/app")?.kind.is_dir());
        for gone in ["etc/motd", "srv/keep/old", "work/text.txt", "slipway"] {
            ensure!(!files.contains_key(gone), "/{gone} is in the image");
        }
        for untouched in ["etc/resolv.conf", "etc/hosts", "etc/hostname"] {
            let content = files
                .get(untouched)
                .map(|entry| entry.content.clone())
                .unwrap_or_default();
            ensure!(
                !String::from_utf8_lossy(&content).contains("slipway"),
                "/{untouched} has the pod's content"
            );
        }

        let expected = json!({
            "User": "app",
            "WorkingDir": "/srv/app",
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["echo $GREETING; id -u; cat /srv/upper.txt"],
            "Labels": {"one": "1", "two": "zwei Wörter"},
            "ExposedPorts": {"8080/tcp": {}},
        });
        for (key, value) in expected.as_object().into_iter().flatten() {
            ensure!(
                config["config"][key] == *value,
                "config.{key} is {}",
                config["config"][key]
            );
        }
        let env = config["config"]["Env"].to_string();
        ensure!(env.contains("GREETING=hello") && env.contains("PATH="), "{env}");
        let history: Vec<&Value> = config["history"].as_array().into_iter().flatten().collect();
        let layers = config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
        ensure!(
            history
                .iter()
                .filter(|entry| entry["empty_layer"] != true)
                .count()
                == layers,
            "{history:?}"
        );
        ensure!(history.iter().any(|entry| {
            entry["created_by"]
                .as_str()
                .is_some_and(|by| by.contains("useradd -u 1234"))
        }));

        // The nodes' runtime is the third reader of the image.
        let image = format!("{}/{}@{digest}", s.cluster.registry, repository(&s, &name));
        s.kubectl(&["run", "reader", "--restart=Never", "--image", &image])?;
        let phase = s.pod_end("reader", LIMIT).await?;
        ensure!(phase == "Succeeded", "the image's pod ended as {phase}");
        let log = s.logs("reader").await?;
        ensure!(log == "hello\n1234\nSHOUTED\n", "{log:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_builds_at_once_do_not_disturb_each_other() -> Result<()> {
    scenario::run("two_builds_at_once", |s| async move {
        let dockerfile = |word: &str| format!("FROM debian:bookworm\nRUN for i in 1 2 3; do echo {word} >> /out; done\nCMD [\"cat\", \"/out\"]\n");
        let one = Build::new(&s, "one", &dockerfile("first")).create().await?;
        let two = Build::new(&s, "two", &dockerfile("second")).create().await?;
        let (one_digest, two_digest) = tokio::try_join!(succeeded(&s, &one), succeeded(&s, &two))?;
        ensure!(one_digest != two_digest);
        for (name, digest, text) in [(one, one_digest, "first\n"), (two, two_digest, "second\n")] {
            let image = format!("{}/{}@{digest}", s.cluster.registry, repository(&s, &name));
            let pod = format!("read-{name}");
            s.kubectl(&["run", &pod, "--restart=Never", "--image", &image])?;
            s.pod_end(&pod, LIMIT).await?;
            let log = s.logs(&pod).await?;
            ensure!(log == text.repeat(3), "{name}: {log:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_build_schedules_no_stage() -> Result<()> {
    scenario::run("unchanged_build", |s| async move {
        let dockerfile =
            "FROM debian:bookworm AS a\nRUN echo a > /a\nFROM debian:bookworm\nCOPY --from=a /a /\n";
        let first = Build::new(&s, "first", dockerfile).create().await?;
        let digest = succeeded(&s, &first).await?;
        // Another ImageBuild of the same content and cache: planned, and found done.
        let image = format!("{}/{}:again", s.cluster.registry, repository(&s, &first));
        let again = Build::new(&s, "again", dockerfile)
            .with("output", json!({"images": [image]}))
            .create()
            .await?;
        ensure!(succeeded(&s, &again).await? == digest);
        let pods = crate::build::pods(&s, &again).await?;
        let stages = pods.iter().filter(|pod| {
            pod.metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.contains_key("slipway.build/stage"))
        });
        ensure!(stages.count() == 0, "a stage pod was made");
        let tags = s.cluster.registry()?.tags(&repository(&s, &first)).await?;
        ensure!(
            tags.contains(&"again".to_owned()) && tags.contains(&"v1".to_owned()),
            "{tags:?}"
        );
        Ok(())
    })
    .await
}
