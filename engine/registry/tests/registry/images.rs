//! Manifests, images, artifacts, referrers and copies.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use slipway_oci::{Digest, media_type};
use slipway_registry::{Class, NewArtifact, NewLayer, Registries, copy_image};

use crate::fake::{Fake, answer, noise};

/// Adds a one-layer image; returns its manifest's digest.
fn add_image(fake: &Fake, repository: &str, tag: &str, os: &str, architecture: &str, docker: bool) -> Digest {
    let layer = noise(5000);
    let config = json!({
        "architecture": architecture, "os": os, "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
    })
    .to_string();
    fake.add_blob(repository, layer.clone());
    fake.add_blob(repository, config.clone());
    let (manifest, config_type, layer_type) = if docker {
        (
            media_type::DOCKER_MANIFEST,
            media_type::DOCKER_CONFIG,
            media_type::DOCKER_LAYER_GZIP,
        )
    } else {
        (
            media_type::OCI_MANIFEST,
            media_type::OCI_CONFIG,
            media_type::OCI_LAYER,
        )
    };
    let bytes = json!({
        "schemaVersion": 2, "mediaType": manifest,
        "config": {"mediaType": config_type, "digest": Digest::of(config.as_bytes()), "size": config.len()},
        "layers": [{"mediaType": layer_type, "digest": Digest::of(&layer), "size": layer.len()}],
    })
    .to_string();
    fake.add_manifest(repository, tag, manifest, bytes)
}

fn index(
    fake: &Fake,
    repository: &str,
    tag: &str,
    media: &str,
    entries: &[(&Digest, &str, &str, Option<&str>)],
) -> Digest {
    let manifests: Vec<Value> = entries
        .iter()
        .map(|(digest, os, architecture, variant)| {
            let mut platform = json!({"os": os, "architecture": architecture});
            if let Some(variant) = variant {
                platform["variant"] = json!(variant);
            }
            json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 1, "platform": platform})
        })
        .collect();
    let bytes = json!({"schemaVersion": 2, "mediaType": media, "manifests": manifests}).to_string();
    fake.add_manifest(repository, tag, media, bytes)
}

#[tokio::test]
async fn images_of_both_formats_are_resolved_through_indexes_of_both_formats() {
    for (docker, media) in [(false, media_type::OCI_INDEX), (true, media_type::DOCKER_INDEX)] {
        let fake = Fake::start().await;
        let amd = add_image(&fake, "a", "amd", "linux", "amd64", docker);
        let v7 = add_image(&fake, "a", "v7", "linux", "arm", docker);
        let attestation = Digest::of(b"attestation");
        let index = index(
            &fake,
            "a",
            "1",
            media,
            &[
                (&attestation, "unknown", "unknown", None),
                (&v7, "linux", "arm", Some("v7")),
                (&amd, "linux", "amd64", None),
            ],
        );
        let registries = Registries::new(fake.config()).unwrap();
        let image = registries
            .resolve(&fake.reference("a:1"), &"linux/amd64".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(
            (&image.manifest_digest, image.index_digest.as_ref()),
            (&amd, Some(&index))
        );
        assert_eq!(image.reference.digest(), Some(&index));
        assert_eq!(image.descriptors.len(), 1);
        assert_eq!(image.config.config.env, ["A=b"]);
        assert_eq!(image.platform.to_string(), "linux/amd64");
        let layer = &image.manifest.layers()[0];
        let digest = Digest::try_from(layer.digest()).unwrap();
        assert_eq!(
            image.repository.read_blob(&digest, 1 << 20).await.unwrap().len() as u64,
            layer.size()
        );
        // v8 in 32 bit runs v7.
        let image = registries
            .resolve(&fake.reference("a:1"), &"linux/arm/v8".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(image.manifest_digest, v7);
        let error = registries
            .resolve(&fake.reference("a:1"), &"linux/s390x".parse().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.class(), Class::NotFound);
        assert!(
            error
                .to_string()
                .contains("nothing for linux/s390x; it is there for: linux/amd64, linux/arm/v7"),
            "{error}"
        );
        // Without an index there is no choice.
        let image = registries
            .resolve(&fake.reference("a:amd"), &"linux/s390x".parse().unwrap())
            .await
            .unwrap();
        assert_eq!((image.index_digest, image.reference.digest()), (None, Some(&amd)));
    }
}

#[tokio::test]
async fn what_is_no_image_is_said_to_be_what_it_is() {
    let fake = Fake::start().await;
    let registries = Registries::new(fake.config()).unwrap();
    let repository = fake.repository("a");
    let artifact = NewArtifact {
        artifact_type: "application/vnd.example.chart".into(),
        ..NewArtifact::default()
    };
    repository.put_artifact("chart", artifact).await.unwrap();
    fake.add_manifest(
        "a",
        "v1",
        media_type::DOCKER_MANIFEST_V1,
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
    );
    fake.add_manifest(
        "a",
        "both",
        media_type::OCI_INDEX,
        r#"{"manifests":[],"layers":[]}"#,
    );
    for (tag, class, text) in [
        (
            "chart",
            Class::Unsupported,
            "no container image but an artifact of type application/vnd.example.chart",
        ),
        ("v1", Class::Unsupported, "schema 1"),
        ("both", Class::InvalidResponse, "both an index and an image"),
        ("none", Class::NotFound, "manifest unknown"),
    ] {
        let reference = fake.reference(&format!("a:{tag}"));
        let error = registries
            .resolve(&reference, &"linux/amd64".parse().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.class(), class, "{tag}: {error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().starts_with("cannot "), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_what_it_is_called_is_refused() {
    let fake = Fake::with(|seen, _| {
        let bytes = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let response = Response::builder().header("content-type", media_type::OCI_MANIFEST);
        seen.is("GET", "/manifests/").then(|| {
            response
                .header("docker-content-digest", Digest::of(b"other").to_string())
                .body(Body::from(bytes))
                .unwrap()
        })
    })
    .await;
    let repository = fake.repository("a");
    for name in ["1".to_owned(), Digest::of(b"wanted").to_string()] {
        assert_eq!(
            repository.get_manifest(name).await.unwrap_err().class(),
            Class::DigestMismatch
        );
    }
    let error = repository
        .put_manifest(&Digest::of(b"x"), media_type::OCI_MANIFEST, "y")
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::DigestMismatch);
}

#[tokio::test]
async fn a_manifest_without_end_is_cut_off() {
    let fake = Fake::with(|_, _| {
        let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(noise(65536)));
        Some(Response::new(Body::from_stream(endless)))
    })
    .await;
    assert_eq!(
        fake.repository("a").get_manifest("1").await.unwrap_err().class(),
        Class::TooLarge
    );
}

#[tokio::test]
async fn heads_tags_and_deletes_work_page_by_page() {
    let fake = Fake::with(|seen, _| {
        if !seen.path.ends_with("/tags/list") {
            return None;
        }
        let page = |tags: Value, next: Option<&str>| {
            let mut response = axum::Json(json!({ "tags": tags })).into_response();
            if let Some(next) = next {
                response
                    .headers_mut()
                    .insert("link", format!("<{next}>; rel=\"next\"").parse().unwrap());
            }
            Some(response)
        };
        match seen.param("last").as_deref() {
            None => page(json!(["a", "b"]), Some("/v2/a/tags/list?n=2&last=b")),
            Some("b") => page(json!(["c"]), Some("/v2/a/tags/list?n=2&last=c")),
            _ => page(json!(null), None),
        }
    })
    .await;
    let repository = fake.repository("a");
    assert_eq!(repository.tags().await.unwrap(), ["a", "b", "c"]);
    let digest = add_image(&fake, "a", "1", "linux", "amd64", false);
    let info = repository.head_manifest("1").await.unwrap().unwrap();
    assert_eq!(info.digest.as_ref(), Some(&digest));
    assert_eq!(info.media_type.as_deref(), Some(media_type::OCI_MANIFEST));
    assert!(info.size > Some(100));
    assert_eq!(repository.head_manifest("none").await.unwrap(), None);
    repository.delete_manifest("1").await.unwrap();
    assert_eq!(
        repository.delete_manifest("1").await.unwrap_err().class(),
        Class::NotFound
    );
}

#[tokio::test]
async fn artifacts_come_back_as_they_went_and_are_the_same_bytes_every_time() {
    let fake = Fake::start().await;
    let repository = fake.repository("cache");
    let artifact = || NewArtifact {
        artifact_type: "application/vnd.slipway.plan.v1".into(),
        config: Some((
            "application/vnd.slipway.plan.config.v1+json".into(),
            r#"{"a":1}"#.into(),
        )),
        layers: vec![
            NewLayer::bytes("application/vnd.slipway.schedule.v1+json", "[]")
                .annotate("z", "1")
                .annotate("a", "2"),
            NewLayer::bytes("application/octet-stream", noise(1000)),
        ],
        annotations: BTreeMap::from([("b".into(), "1".into()), ("a".into(), "2".into())]),
        subject: None,
    };
    let digest = repository
        .put_artifact("slipway-plan-1", artifact())
        .await
        .unwrap();
    assert_eq!(artifact().manifest_digest().unwrap(), digest);
    assert_eq!(
        repository.put_artifact("again", artifact()).await.unwrap(),
        digest
    );
    let back = repository.get_artifact("slipway-plan-1").await.unwrap();
    assert_eq!(back.digest, digest);
    assert_eq!(back.artifact_type, "application/vnd.slipway.plan.v1");
    let schedule = back.layer("application/vnd.slipway.schedule.v1+json").unwrap();
    assert_eq!(repository.read_blob(&schedule.digest, 100).await.unwrap(), "[]");
    assert_eq!(schedule.annotations["z"], "1");
    assert_eq!(back.annotations["a"], "2");
    assert_eq!(
        repository.read_blob(&back.config.digest, 100).await.unwrap(),
        r#"{"a":1}"#
    );
}

fn signature(subject: &Digest, n: u8) -> String {
    json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/vnd.example.sig",
        "config": {"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}"), "size": 2},
        "layers": [], "annotations": {"n": n.to_string()},
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": subject, "size": 1},
    })
    .to_string()
}

#[tokio::test]
async fn referrers_are_listed_by_api_or_by_the_fallback_tag() {
    // Without the API: gap 10.
    let fake = Fake::start().await;
    let repository = fake.repository("a");
    let subject = Digest::of(b"subject");
    assert_eq!(repository.referrers(&subject, None).await.unwrap(), []);
    for n in [1, 2, 2] {
        repository
            .attach(&subject, media_type::OCI_MANIFEST, signature(&subject, n))
            .await
            .unwrap();
    }
    let found = repository
        .referrers(&subject, Some("application/vnd.example.sig"))
        .await
        .unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].annotations().as_ref().unwrap()["n"], "2");
    assert_eq!(repository.referrers(&subject, Some("other")).await.unwrap(), []);
    let wrong = repository
        .attach(
            &Digest::of(b"z"),
            media_type::OCI_MANIFEST,
            signature(&subject, 1),
        )
        .await;
    assert_eq!(wrong.unwrap_err().class(), Class::Invalid);

    // With it, in pages, and nothing is written to the tag.
    let fake = Fake::with(|seen, _| {
        if seen.is("PUT", "/manifests/") {
            return Some(
                Response::builder()
                    .status(201)
                    .header("oci-subject", "sha256:x")
                    .body(Body::empty())
                    .unwrap(),
            );
        }
        let entry =
            |n: &[u8]| json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(n), "size": 1});
        seen.path.contains("/referrers/").then(|| {
            let (entries, next) = if seen.query.is_empty() {
                (vec![entry(b"1")], true)
            } else {
                (vec![entry(b"2")], false)
            };
            let mut response = axum::Json(json!({"schemaVersion": 2, "manifests": entries})).into_response();
            if next {
                response.headers_mut().insert(
                    "link",
                    format!("<{}?page=2>; rel=next", seen.path).parse().unwrap(),
                );
            }
            response
        })
    })
    .await;
    let repository = fake.repository("a");
    assert_eq!(repository.referrers(&subject, None).await.unwrap().len(), 2);
    repository
        .attach(&subject, media_type::OCI_MANIFEST, signature(&subject, 1))
        .await
        .unwrap();
    assert_eq!(fake.seen("PUT", "/manifests/").len(), 1);
}

#[tokio::test]
async fn an_index_is_copied_whole_within_a_registry_and_across() {
    let fake = Fake::start().await;
    let amd = add_image(&fake, "from", "amd", "linux", "amd64", false);
    let arm = add_image(&fake, "from", "arm", "linux", "arm64", true);
    let top = index(
        &fake,
        "from",
        "1",
        media_type::OCI_INDEX,
        &[(&amd, "linux", "amd64", None), (&arm, "linux", "arm64", None)],
    );

    let registries = Registries::new(fake.config()).unwrap();
    let (from, to) = (
        registries.repository(&fake.reference("from")),
        registries.repository(&fake.reference("to")),
    );
    copy_image(&from, &top, &to).await.unwrap();
    assert!(fake.seen("PUT", "/uploads/").is_empty(), "mounted");
    for digest in [&amd, &arm, &top] {
        assert_eq!(
            to.get_manifest(digest).await.unwrap(),
            from.get_manifest(digest).await.unwrap()
        );
    }

    let other = Fake::start().await;
    let mut config = fake.config();
    config.hosts.extend(other.config().hosts);
    let across = Registries::new(config)
        .unwrap()
        .repository(&other.reference("copy"));
    copy_image(&from, &top, &across).await.unwrap();
    let manifest = across.get_manifest(&amd).await.unwrap();
    let manifest: slipway_oci::ImageManifest = serde_json::from_slice(&manifest.bytes).unwrap();
    let layer = Digest::try_from(manifest.layers()[0].digest()).unwrap();
    assert_eq!(other.blob("copy", &layer), fake.blob("from", &layer));
    other.forget();
    copy_image(&from, &top, &across).await.unwrap();
    assert!(
        other.seen("POST", "/uploads/").is_empty(),
        "nothing is sent twice"
    );
}

#[tokio::test]
async fn a_missing_blob_at_the_manifest_is_explained() {
    let fake = Fake::with(|seen, _| {
        (seen.method == "PUT")
            .then(|| crate::fake::refuse(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"))
    })
    .await;
    let error = fake
        .repository("a")
        .put_manifest("1", media_type::OCI_MANIFEST, "{}")
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Invalid);
    assert!(error.to_string().contains("push the image again"), "{error}");
    let fake = Fake::with(|_, _| Some(answer(418))).await;
    let error = fake
        .repository("a")
        .put_manifest("1", media_type::OCI_MANIFEST, "{}")
        .await
        .unwrap_err();
    assert_eq!((error.class(), error.status()), (Class::Invalid, Some(418)));
}
