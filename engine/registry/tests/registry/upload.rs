//! Blobs into registries that want it their way.

use std::io::Write as _;

use axum::{body::Body, response::Response};
use slipway_oci::Digest;
use slipway_registry::{BlobSource, Class, Put, PutOptions, Repository, Result};

use crate::fake::{Fake, answer, noise, refuse};

const KIB: usize = 1024;

async fn put(repository: &Repository, bytes: &axum::body::Bytes, options: &PutOptions) -> Result<Put> {
    let source = BlobSource::Bytes(bytes.clone());
    repository
        .put_blob(&Digest::of(bytes), bytes.len() as u64, source, options)
        .await
}

/// Writes in small pieces, as a packer does.
async fn stream(
    repository: &Repository,
    bytes: &axum::body::Bytes,
) -> Result<slipway_registry::UploadedBlob> {
    let mut upload = repository.start_upload().await?;
    for piece in bytes.chunks(16 * KIB) {
        upload.write(bytes.slice_ref(piece)).await?;
    }
    upload.finish().await
}

#[tokio::test]
async fn a_known_blob_is_one_post_and_one_put_and_not_sent_twice() {
    let fake = Fake::start().await;
    let repository = fake.repository("a");
    let bytes = noise(1_000_000);
    assert_eq!(
        put(&repository, &bytes, &PutOptions::default()).await.unwrap(),
        Put::Uploaded
    );
    let methods: Vec<_> = fake.log().iter().map(|seen| seen.method.to_string()).collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT"]);
    assert_eq!(fake.log()[2].header("content-length"), Some("1000000"));
    assert_eq!(fake.log()[1].header("content-length"), Some("0"));
    assert_eq!(fake.blob("a", &Digest::of(&bytes)), Some(bytes.clone()));
    assert_eq!(
        put(&repository, &bytes, &PutOptions::default()).await.unwrap(),
        Put::Present
    );
}

#[tokio::test]
async fn a_blob_goes_up_from_a_file_and_a_changed_file_is_found_out() {
    let fake = Fake::start().await;
    let repository = fake.repository("a");
    let bytes = noise(700_000);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let source = BlobSource::File(file.path().to_owned());
    for chunked in [false, true] {
        let options = PutOptions {
            chunked,
            known_absent: true,
            ..PutOptions::default()
        };
        repository
            .put_blob(&Digest::of(&bytes), 700_000, source.clone(), &options)
            .await
            .unwrap();
        assert_eq!(fake.blob("a", &Digest::of(&bytes)), Some(bytes.clone()));
        let wrong = Digest::of(b"what it was");
        let error = repository
            .put_blob(&wrong, 700_000, source.clone(), &options)
            .await
            .unwrap_err();
        assert_eq!(error.class(), Class::DigestMismatch, "{error}");
        assert_eq!(fake.blob("a", &wrong), None);
    }
    assert!(!fake.seen("PATCH", "/uploads/").is_empty());
    let gone = BlobSource::File("/nonexistent/blob".into());
    let error = repository
        .put_blob(&Digest::of(b"y"), 1, gone, &PutOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Local);
    assert!(
        error.to_string().contains("cannot open /nonexistent/blob"),
        "{error}"
    );
}

#[tokio::test]
async fn small_writes_are_joined_into_chunks() {
    // Gap 1: 64 writes of 16 KiB, chunks of 256 KiB.
    let fake = Fake::start().await;
    let bytes = noise(1024 * KIB + 5);
    let done = stream(&fake.repository("a"), &bytes).await.unwrap();
    assert_eq!(
        (done.digest.clone(), done.size),
        (Digest::of(&bytes), bytes.len() as u64)
    );
    let patches = fake.seen("PATCH", "/uploads/");
    let lengths: Vec<_> = patches.iter().map(|seen| seen.body.len()).collect();
    assert_eq!(lengths, [256 * KIB, 256 * KIB, 256 * KIB, 256 * KIB, 5]);
    assert_eq!(patches[1].header("content-range"), Some("262144-524287"));
    assert_eq!(fake.blob("a", &done.digest), Some(bytes));
}

#[tokio::test]
async fn the_registrys_smallest_chunk_is_respected() {
    let with_minimum = |minimum: &'static str| {
        Fake::with(move |seen, state| {
            if !seen.is("POST", "/uploads/") {
                return None;
            }
            state.uploads.lock().unwrap().insert("u0".into(), Vec::new());
            let response = Response::builder()
                .status(202)
                .header("location", "/v2/a/blobs/uploads/u0");
            Some(
                response
                    .header("oci-chunk-min-length", minimum)
                    .body(Body::empty())
                    .unwrap(),
            )
        })
    };
    let bytes = noise(1100 * KIB);
    let fake = with_minimum("524288").await;
    stream(&fake.repository("a"), &bytes).await.unwrap();
    let lengths: Vec<_> = fake
        .seen("PATCH", "/uploads/")
        .iter()
        .map(|seen| seen.body.len())
        .collect();
    assert_eq!(lengths, [512 * KIB, 512 * KIB, 76 * KIB]);
    // More than is held in memory: then in one piece.
    let fake = with_minimum("1000000000").await;
    let done = stream(&fake.repository("a"), &bytes).await.unwrap();
    assert!(fake.seen("PATCH", "/uploads/").is_empty());
    assert_eq!(fake.blob("a", &done.digest), Some(bytes));
}

#[tokio::test]
async fn a_blob_smaller_than_a_chunk_needs_no_patch() {
    let fake = Fake::start().await;
    for length in [0, 1, 100 * KIB] {
        let bytes = noise(length);
        let done = stream(&fake.repository("a"), &bytes).await.unwrap();
        assert_eq!(fake.blob("a", &done.digest), Some(bytes));
    }
    assert!(fake.seen("PATCH", "/uploads/").is_empty());
}

#[tokio::test]
async fn a_failed_chunk_is_resumed_from_what_the_registry_has() {
    // The second chunk is stored to its half, then the server fails: 500, or no answer at all. Gap 2.
    for cut_off in [false, true] {
        let fake = Fake::with(move |seen, state| {
            if !(seen.is("PATCH", "/uploads/") && state.count("PATCH", "/uploads/") == 2) {
                return None;
            }
            state
                .uploads
                .lock()
                .unwrap()
                .get_mut("u0")
                .unwrap()
                .extend_from_slice(&seen.body[..100_000]);
            if cut_off {
                // The connection's task ends, and the connection with it; silent, unlike a panic.
                std::panic::resume_unwind(Box::new("cut"));
            }
            Some(answer(500))
        })
        .await;
        let bytes = noise(800 * KIB);
        let done = stream(&fake.repository("a"), &bytes).await.unwrap();
        assert_eq!(fake.blob("a", &done.digest), Some(bytes), "cut: {cut_off}");
        assert_eq!(fake.seen("GET", "/uploads/").len(), 1);
        let third = &fake.seen("PATCH", "/uploads/")[2];
        assert_eq!(third.header("content-range"), Some("362144-524287"));
    }
}

#[tokio::test]
async fn a_registry_that_lost_the_upload_says_so() {
    let fake = Fake::with(|seen, state| {
        let lost = state.count("PATCH", "/uploads/") >= 2;
        match seen.method.as_str() {
            "PATCH" if lost => Some(answer(503)),
            "GET" if lost => Some(refuse(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")),
            _ => None,
        }
    })
    .await;
    let error = stream(&fake.repository("a"), &noise(800 * KIB))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Server);
    assert!(
        error.is_transient() && error.to_string().contains("lost an upload"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_without_chunks_gets_it_in_one_piece() {
    // Gap 11; the second time it is not even tried.
    for (status, code) in [
        (404, "UNSUPPORTED"),
        (405, "UNSUPPORTED"),
        (501, "UNSUPPORTED"),
        (400, "BLOB_UPLOAD_INVALID"),
    ] {
        let fake =
            Fake::with(move |seen, _| (seen.method == "PATCH").then(|| refuse(status, code, "no chunks")))
                .await;
        let repository = fake.repository("a");
        for length in [1000 * KIB, 900 * KIB] {
            let bytes = noise(length);
            let done = stream(&repository, &bytes).await.unwrap();
            assert_eq!(fake.blob("a", &done.digest), Some(bytes));
        }
        assert_eq!(fake.seen("PATCH", "/uploads/").len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_proxy_that_limits_request_sizes_gets_chunks() {
    let fake = Fake::with(|seen, _| (seen.body.len() > 300 * KIB).then(|| answer(413))).await;
    let bytes = noise(1000 * KIB);
    assert_eq!(
        put(&fake.repository("a"), &bytes, &PutOptions::default())
            .await
            .unwrap(),
        Put::Uploaded
    );
    assert_eq!(fake.blob("a", &Digest::of(&bytes)), Some(bytes));
    let fake = Fake::with(|seen, _| (seen.body.len() > 1000).then(|| answer(413))).await;
    let error = put(&fake.repository("a"), &noise(1000 * KIB), &PutOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::TooLarge);
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories_and_needs_no_bytes() {
    let fake = Fake::with(|seen, _| {
        if seen.path == "/token" {
            let scopes: Vec<_> = url::form_urlencoded::parse(seen.query.as_bytes())
                .filter(|(name, _)| name == "scope")
                .map(|(_, value)| value.into_owned())
                .collect();
            let body = serde_json::json!({ "token": scopes.join(" "), "expires_in": 300 }).to_string();
            return Some(Response::new(Body::from(body)));
        }
        let token = seen.header("authorization").unwrap_or_default();
        // Docker Hub's way: without the right to read the source in the token, 401.
        let enough = token.contains("repository:target:")
            && (seen.param("from").is_none() || token.contains("repository:source:pull"));
        (!enough).then(|| {
            let realm = format!("http://{}/token", seen.header("host").unwrap());
            Response::builder()
                .status(401)
                .header(
                    "www-authenticate",
                    format!("Bearer realm=\"{realm}\",scope=\"repository:target:pull,push\""),
                )
                .body(Body::empty())
                .unwrap()
        })
    })
    .await;
    let bytes = noise(1000);
    let digest = fake.add_blob("source", bytes.clone());
    let target = fake.repository("target");
    let options = PutOptions {
        mount_from: vec![fake.repository("source")],
        ..PutOptions::default()
    };
    assert_eq!(put(&target, &bytes, &options).await.unwrap(), Put::Mounted);
    assert!(fake.seen("PUT", "/uploads/").is_empty());
    assert_eq!(fake.blob("target", &digest), Some(bytes));
    assert!(
        target
            .mount_blob(&digest, &fake.repository("source"))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn the_session_that_a_refused_mount_opens_is_used() {
    // Gap 4: 202 is no error, and no second POST.
    let fake = Fake::start().await;
    let bytes = noise(1000);
    let options = PutOptions {
        mount_from: vec![fake.repository("source")],
        ..PutOptions::default()
    };
    assert_eq!(
        put(&fake.repository("target"), &bytes, &options).await.unwrap(),
        Put::Uploaded
    );
    assert_eq!(fake.seen("POST", "/uploads/").len(), 1);
    assert_eq!(fake.blob("target", &Digest::of(&bytes)), Some(bytes.clone()));
    let mounted = fake
        .repository("target")
        .mount_blob(&Digest::of(b"n"), &fake.repository("source"))
        .await;
    assert!(!mounted.unwrap());
    assert!(
        fake.state.uploads.lock().unwrap().is_empty(),
        "the session is given back"
    );
    // A registry that refuses the very offer gets the bytes.
    let fake = Fake::with(|seen, _| seen.param("mount").map(|_| answer(400))).await;
    let options = PutOptions {
        mount_from: vec![fake.repository("source")],
        ..PutOptions::default()
    };
    assert_eq!(
        put(&fake.repository("target"), &bytes, &options).await.unwrap(),
        Put::Uploaded
    );
}

#[tokio::test]
async fn a_lost_answer_to_the_last_put_is_not_a_lost_blob() {
    let fake = Fake::with(|seen, state| {
        if !(seen.is("PUT", "/uploads/") && state.count("PUT", "/uploads/") == 1) {
            return None;
        }
        // Stored, but the answer says otherwise.
        let id = seen.path.rsplit('/').next().unwrap().to_owned();
        let mut bytes = state.uploads.lock().unwrap().remove(&id).unwrap();
        bytes.extend_from_slice(&seen.body);
        state
            .blobs
            .lock()
            .unwrap()
            .insert(("a".into(), seen.param("digest").unwrap()), bytes.into());
        Some(answer(504))
    })
    .await;
    let bytes = noise(600 * KIB);
    stream(&fake.repository("a"), &bytes).await.unwrap();
    assert_eq!(fake.seen("PUT", "/uploads/").len(), 1);
}

#[tokio::test]
async fn a_blocking_packer_writes_and_learns_of_failures() {
    let fake = Fake::start().await;
    let bytes = noise(2000 * KIB);
    let mut writer = fake.repository("a").start_upload().await.unwrap().into_writer();
    let data = bytes.clone();
    let done = tokio::task::spawn_blocking(move || {
        for piece in data.chunks(10_000) {
            writer.write_all(piece).unwrap();
        }
        writer.finish()
    })
    .await
    .unwrap()
    .unwrap();
    assert_eq!(fake.blob("a", &done.digest), Some(bytes));

    let fake = Fake::with(|seen, _| (seen.method == "PATCH").then(|| refuse(403, "DENIED", "quota"))).await;
    let mut writer = fake.repository("a").start_upload().await.unwrap().into_writer();
    let error = tokio::task::spawn_blocking(move || {
        loop {
            if let Err(error) = writer.write_all(&[7; 10_000]) {
                return error;
            }
        }
    })
    .await
    .unwrap();
    let error = slipway_registry::Error::from_io(error);
    assert_eq!(error.class(), Class::Denied);
    assert!(error.to_string().contains("quota"), "{error}");

    // Dropped half-way: nothing is left open.
    let fake = Fake::start().await;
    let mut writer = fake.repository("a").start_upload().await.unwrap().into_writer();
    tokio::task::spawn_blocking(move || writer.write_all(&vec![7; 600_000]).unwrap())
        .await
        .unwrap();
    while !fake.state.uploads.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_source_that_fails_is_not_the_registrys_fault() {
    let fake = Fake::start().await;
    let source = BlobSource::Reopen(std::sync::Arc::new(|| {
        Box::pin(async {
            let items = [Ok("half".into()), Err(std::io::Error::other("disk gone"))];
            Ok(futures::StreamExt::boxed(futures::stream::iter(items)))
        })
    }));
    let error = fake
        .repository("a")
        .put_blob(&Digest::of(b"x"), 100, source, &PutOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Local, "{error}");
    assert!(error.to_string().contains("disk gone"), "{error}");
}
