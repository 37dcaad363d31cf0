//! Against the CNCF registry itself, where its program is: `SLIPWAY_TEST_REGISTRY_BIN`, the tools folder, or the
//! distribution's package. oci-client's own client reads what we wrote, and we read what it wrote.

use bytes::Bytes;
use oci_client::{client as oci, secrets::RegistryAuth};
use slipway_oci::{Digest, media_type};
use slipway_registry::{
    BlobSource, Class, Credentials, NewArtifact, NewLayer, Put, PutOptions, Registries, copy_image,
};

use crate::{fake::noise, process::Real};

fn oci_client(real: &Real) -> oci::Client {
    let config = oci::ClientConfig {
        protocol: oci::ClientProtocol::HttpsExcept(vec![real.host.clone()]),
        ..oci::ClientConfig::default()
    };
    oci::Client::try_from(config).unwrap()
}

#[tokio::test]
async fn everything_goes_in_and_out_of_the_real_registry() {
    let Some(real) = Real::start(false).await else {
        return;
    };
    let registries = Registries::new(real.config()).unwrap();
    let repository = registries.repository(&real.reference("shop/web"));

    let bytes = noise(3_000_000);
    let digest = Digest::of(&bytes);
    let source = BlobSource::Bytes(bytes.clone());
    let put = repository
        .put_blob(&digest, 3_000_000, source.clone(), &PutOptions::default())
        .await
        .unwrap();
    assert_eq!(put, Put::Uploaded);
    assert_eq!(repository.blob_size(&digest).await.unwrap(), Some(3_000_000));
    assert_eq!(repository.read_blob(&digest, u64::MAX).await.unwrap(), bytes);
    assert_eq!(
        repository.read_blob_range(&digest, 5..10).await.unwrap(),
        bytes.slice(5..10)
    );

    let other = registries.repository(&real.reference("shop/api"));
    let mount = PutOptions {
        mount_from: vec![repository.clone()],
        ..PutOptions::default()
    };
    assert_eq!(
        other.put_blob(&digest, 3_000_000, source, &mount).await.unwrap(),
        Put::Mounted
    );
    let absent = PutOptions {
        mount_from: vec![registries.repository(&real.reference("none"))],
        ..PutOptions::default()
    };
    let small = BlobSource::Bytes("small".into());
    assert_eq!(
        other
            .put_blob(&Digest::of(b"small"), 5, small, &absent)
            .await
            .unwrap(),
        Put::Uploaded
    );

    for length in [0, 100, 256 << 10, 1_500_000] {
        let bytes = noise(length);
        let done = repository.put_blob_stream(&bytes[..]).await.unwrap();
        assert_eq!(done.digest, Digest::of(&bytes));
        assert_eq!(repository.read_blob(&done.digest, u64::MAX).await.unwrap(), bytes);
    }

    let (z, y) = (Digest::of(b"z"), BlobSource::Bytes("y".into()));
    let error = repository
        .put_blob(&z, 1, y, &PutOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::DigestMismatch);
    assert_eq!(
        repository.get_manifest("none").await.unwrap_err().class(),
        Class::NotFound
    );
    let missing = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":5}},"layers":[]}}"#,
        media_type::OCI_MANIFEST,
        media_type::OCI_CONFIG,
        Digest::of(b"gone!")
    );
    let error = repository
        .put_manifest("1", media_type::OCI_MANIFEST, missing)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("push the image again"), "{error}");

    let artifact = NewArtifact {
        artifact_type: "application/vnd.example".into(),
        layers: vec![
            NewLayer::bytes("text/plain", "hello"),
            NewLayer::stored("text/x", digest.clone(), 3_000_000),
        ],
        ..NewArtifact::default()
    };
    let manifest = repository.put_artifact("plan", artifact).await.unwrap();
    assert_eq!(
        repository.head_manifest("plan").await.unwrap().unwrap().digest,
        Some(manifest.clone())
    );
    assert_eq!(repository.get_artifact("plan").await.unwrap().layers.len(), 2);
    assert_eq!(repository.tags().await.unwrap(), ["plan"]);
    copy_image(&repository, &manifest, &other).await.unwrap();
    assert_eq!(other.get_manifest(&manifest).await.unwrap().digest, manifest);
    assert_eq!(repository.referrers(&manifest, None).await.unwrap(), []);

    repository.delete_manifest(&manifest).await.unwrap();
    repository.delete_blob(&digest).await.unwrap();
    assert_eq!(
        repository
            .exists_many(&[digest, Digest::of(b"hello")])
            .await
            .unwrap(),
        [false, true]
    );
}

#[tokio::test]
async fn what_oci_client_pushed_is_resolved_and_what_was_copied_it_pulls() {
    let Some(real) = Real::start(false).await else {
        return;
    };
    let client = oci_client(&real);
    let reference: oci_client::Reference = format!("{}/theirs:1", real.host).parse().unwrap();
    let layer = noise(100_000);
    let diff = Digest::of(&layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
    );
    let layers = [oci::ImageLayer::new(
        layer.clone(),
        media_type::OCI_LAYER.to_owned(),
        None,
    )];
    let config = oci::Config::new(Bytes::from(config), media_type::OCI_CONFIG.to_owned(), None);
    client
        .push(&reference, &layers, config, &RegistryAuth::Anonymous, None)
        .await
        .unwrap();

    let registries = Registries::new(real.config()).unwrap();
    let image = registries
        .resolve(&real.reference("theirs:1"), &"linux/amd64".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(image.config.rootfs.diff_ids, [diff]);
    let ours = registries.repository(&real.reference("ours"));
    copy_image(&image.repository, &image.manifest_digest, &ours)
        .await
        .unwrap();
    ours.put_manifest("1", &image.media_type, image.manifest_bytes)
        .await
        .unwrap();

    let back: oci_client::Reference = format!("{}/ours:1", real.host).parse().unwrap();
    let pulled = client
        .pull(&back, &RegistryAuth::Anonymous, vec![media_type::OCI_LAYER])
        .await
        .unwrap();
    assert_eq!(pulled.digest.as_deref(), Some(image.manifest_digest.as_str()));
    assert_eq!(pulled.layers[0].data, layer);
}

#[tokio::test]
async fn the_real_registry_with_htpasswd_lets_the_right_password_in_only() {
    let Some(real) = Real::start(true).await else {
        return;
    };
    let with = |password: Option<&str>| {
        let mut config = real.config();
        if let Some(password) = password {
            config.credentials = Credentials::none()
                .with_basic(&real.host, "bob", password)
                .unwrap();
        }
        Registries::new(config)
            .unwrap()
            .repository(&real.reference("shop/web"))
    };
    let done = with(Some("s3cret"))
        .put_blob_stream(&noise(600_000)[..])
        .await
        .unwrap();
    assert_eq!(
        with(Some("s3cret")).blob_size(&done.digest).await.unwrap(),
        Some(600_000)
    );
    for password in [Some("hunter2"), None] {
        let error = with(password).put_blob_stream(&b"x"[..]).await.unwrap_err();
        assert_eq!(error.class(), Class::Unauthorized);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
