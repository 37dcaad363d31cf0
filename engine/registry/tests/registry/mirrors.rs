//! Bases through mirrors, in order; everything else at the registry itself.

use axum::response::IntoResponse;
use slipway_oci::Digest;
use slipway_registry::{Class, Config, HostConfig, Mirror, Registries};

use crate::fake::{Fake, answer, impatient};

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn config(origin: &Fake, mirrors: Vec<Mirror>) -> Config {
    let mut config = impatient();
    for mirror in &mirrors {
        let host = mirror.host.split('/').next().unwrap().to_owned();
        config.hosts.insert(
            host,
            HostConfig {
                insecure: true,
                ..HostConfig::default()
            },
        );
    }
    config.hosts.insert(
        origin.host(),
        HostConfig {
            insecure: true,
            mirrors,
            ..HostConfig::default()
        },
    );
    config
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_fallen_through() {
    let gone = "127.0.0.1:1";
    for status in [401, 403, 404, 500] {
        let broken = Fake::with(move |_, _| Some(answer(status))).await;
        let (good, origin) = (Fake::start().await, Fake::start().await);
        good.add_manifest("hub/a/b", "1", OCI, MANIFEST);
        let mirrors = vec![
            Mirror::new(gone),
            Mirror::new(broken.host()),
            Mirror::new(format!("{}/hub", good.host())),
        ];
        let registries = Registries::new(config(&origin, mirrors)).unwrap();
        let found = registries
            .mirrored(&origin.reference("a/b"))
            .get_manifest("1")
            .await
            .unwrap();
        assert_eq!(found.bytes, MANIFEST);
        assert!(origin.log().is_empty());
        assert_eq!(good.log()[0].param("ns"), Some(origin.host()));
    }
}

#[tokio::test]
async fn the_registry_itself_has_the_last_word() {
    let (mirror, origin) = (Fake::start().await, Fake::start().await);
    let registries = Registries::new(config(&origin, vec![Mirror::new(mirror.host())])).unwrap();
    let repository = registries.mirrored(&origin.reference("a"));
    let error = repository.get_manifest("1").await.unwrap_err();
    assert_eq!(
        (error.class(), error.registry()),
        (Class::NotFound, origin.host().as_str())
    );
    origin.add_manifest("a", "1", OCI, MANIFEST);
    assert_eq!(repository.get_manifest("1").await.unwrap().bytes, MANIFEST);
    let digest = origin.add_blob("a", "layer");
    assert_eq!(repository.read_blob(&digest, 100).await.unwrap(), "layer");
}

#[tokio::test]
async fn writes_and_reads_of_what_was_written_never_go_to_a_mirror() {
    let (mirror, origin) = (Fake::start().await, Fake::start().await);
    let registries = Registries::new(config(&origin, vec![Mirror::new(mirror.host())])).unwrap();
    let repository = registries.repository(&origin.reference("a"));
    repository.put_manifest("1", OCI, MANIFEST).await.unwrap();
    repository.get_manifest("1").await.unwrap();
    registries
        .mirrored(&origin.reference("a"))
        .put_manifest("2", OCI, MANIFEST)
        .await
        .unwrap();
    assert!(mirror.log().is_empty());
}

#[tokio::test]
async fn a_mirror_without_tags_serves_digests_only() {
    let (mirror, origin) = (Fake::start().await, Fake::start().await);
    mirror.add_manifest(
        "a",
        "1",
        OCI,
        r#"{"schemaVersion":2,"config":{},"layers":[],"annotations":{"old":"yes"}}"#,
    );
    mirror.add_manifest("a", "x", OCI, MANIFEST);
    origin.add_manifest("a", "1", OCI, MANIFEST);
    let mirrors = vec![Mirror {
        tags: false,
        ..Mirror::new(mirror.host())
    }];
    let registries = Registries::new(config(&origin, mirrors)).unwrap();
    let repository = registries.mirrored(&origin.reference("a"));
    assert_eq!(repository.get_manifest("1").await.unwrap().bytes, MANIFEST);
    assert!(mirror.log().is_empty());
    repository
        .get_manifest(&Digest::of(MANIFEST.as_bytes()))
        .await
        .unwrap();
    assert_eq!((mirror.log().len(), origin.log().len()), (1, 1));
}

#[tokio::test]
async fn the_credentials_of_the_registry_are_not_shown_to_its_mirror() {
    let mirror = Fake::with(|seen, _| {
        assert_eq!(seen.header("authorization"), None);
        Some(
            (
                axum::http::StatusCode::UNAUTHORIZED,
                [("www-authenticate", "Basic realm=\"m\"")],
            )
                .into_response(),
        )
    })
    .await;
    let origin = Fake::start().await;
    origin.add_manifest("a", "1", OCI, MANIFEST);
    let mut config = config(&origin, vec![Mirror::new(mirror.host())]);
    config.credentials = slipway_registry::Credentials::none()
        .with_basic(&origin.host(), "bob", "hunter2")
        .unwrap();
    let registries = Registries::new(config).unwrap();
    registries
        .mirrored(&origin.reference("a"))
        .get_manifest("1")
        .await
        .unwrap();
    assert!(!mirror.log().is_empty());
}
