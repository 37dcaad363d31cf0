//! Blobs out of registries that lie, stop half-way or send one elsewhere.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use futures::TryStreamExt as _;
use slipway_oci::Digest;
use slipway_registry::{Class, Credentials, Error, Repository, Result};
use tokio::io::AsyncReadExt as _;

use crate::fake::{Fake, answer, cut, noise};

async fn all(repository: &Repository, digest: &Digest, size: Option<u64>) -> Result<Vec<u8>> {
    let mut reader = repository.open_blob(digest, size).await?;
    let mut out = Vec::new();
    while let Some(piece) = reader.try_next().await? {
        out.extend_from_slice(&piece);
    }
    Ok(out)
}

#[tokio::test]
async fn a_blob_comes_as_stream_and_as_reader() {
    let fake = Fake::start().await;
    let bytes = noise(3_000_000);
    let digest = fake.add_blob("a", bytes.clone());
    let repository = fake.repository("a");
    assert_eq!(all(&repository, &digest, Some(3_000_000)).await.unwrap(), bytes);
    let mut out = Vec::new();
    repository
        .open_blob(&digest, None)
        .await
        .unwrap()
        .read_to_end(&mut out)
        .await
        .unwrap();
    assert_eq!(out, bytes);
    assert_eq!(repository.read_blob(&digest, 3_000_000).await.unwrap(), bytes);
    assert_eq!(
        repository
            .read_blob(&digest, 2_999_999)
            .await
            .unwrap_err()
            .class(),
        Class::TooLarge
    );
    assert_eq!(
        repository.read_blob_range(&digest, 1000..2000).await.unwrap(),
        bytes.slice(1000..2000)
    );
    let beyond = repository
        .read_blob_range(&digest, 2_999_990..3_000_010)
        .await
        .unwrap_err();
    assert_eq!(beyond.class(), Class::InvalidResponse);
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was() {
    // Three cuts, by a server that does ranges and by one that starts over.
    for ranges in [true, false] {
        let bytes = noise(400_000);
        let digest = Digest::of(&bytes);
        let served = bytes.clone();
        let fake = Fake::with(move |seen, state| {
            let count = state.count("GET", "/blobs/");
            if count > 3 {
                return (!ranges).then(|| served.clone().into_response());
            }
            let end = 100_000 * count;
            Some(match (ranges, seen.header("range")) {
                (true, Some(range)) => {
                    let start: usize = range
                        .trim_start_matches("bytes=")
                        .trim_end_matches('-')
                        .parse()
                        .unwrap();
                    let headers = [
                        ("content-range", format!("bytes {start}-399999/400000")),
                        ("content-length", (400_000 - start).to_string()),
                    ];
                    cut(206, &headers, served.slice(start..end))
                }
                _ => cut(200, &[("content-length", "400000".into())], served.slice(..end)),
            })
        })
        .await;
        fake.add_blob("a", bytes.clone());
        assert_eq!(
            all(&fake.repository("a"), &digest, Some(400_000)).await.unwrap(),
            bytes,
            "ranges: {ranges}"
        );
        let asked: Vec<_> = fake
            .log()
            .iter()
            .map(|seen| seen.header("range").map(ToOwned::to_owned))
            .collect();
        assert_eq!(asked[0], None);
        assert!(asked[1].as_deref().unwrap().starts_with("bytes="), "{asked:?}");
    }
}

#[tokio::test]
async fn a_download_that_makes_no_progress_ends() {
    let fake = Fake::with(|_, _| Some(cut(200, &[("content-length", "10".into())], "".into()))).await;
    let error = all(&fake.repository("a"), &Digest::of(b"x"), None)
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Unreachable);
    assert_eq!(fake.log().len(), 4);
}

#[tokio::test]
async fn an_early_end_is_noticed_by_the_size_when_the_server_gives_none() {
    let bytes = noise(1000);
    let served = bytes.clone();
    let fake = Fake::with(move |_, state| {
        let half = Body::from_stream(futures::stream::iter([Ok::<_, Error>(served.slice(..500))]));
        (state.count("GET", "/blobs/") == 1).then(|| Response::new(half))
    })
    .await;
    let digest = fake.add_blob("a", bytes.clone());
    assert_eq!(
        all(&fake.repository("a"), &digest, Some(1000)).await.unwrap(),
        bytes
    );
}

#[tokio::test]
async fn wrong_bytes_never_end_well() {
    let fake = Fake::with(|seen, _| seen.is("GET", "/blobs/").then(|| "other bytes".into_response())).await;
    let digest = Digest::of(b"the bytes");
    let error = all(&fake.repository("a"), &digest, None).await.unwrap_err();
    assert_eq!(error.class(), Class::DigestMismatch);
    assert!(
        error.to_string().contains(digest.as_str())
            && error.to_string().contains(Digest::of(b"other bytes").as_str()),
        "{error}"
    );
    let mut reader = fake.repository("a").open_blob(&digest, None).await.unwrap();
    let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(Error::from_io(error).class(), Class::DigestMismatch);
    // A bomb: more than the manifest promised.
    let error = all(&fake.repository("a"), &Digest::of(b"other bytes"), Some(5))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::DigestMismatch);
    assert!(
        error.to_string().contains("more than the promised 5 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn credentials_stay_at_home_when_a_download_is_sent_elsewhere() {
    let storage =
        Fake::with(|seen, _| Some(format!("content for {}", seen.param("sig").unwrap()).into_response()))
            .await;
    let elsewhere = storage.url("/bucket/x?sig=s1");
    let fake = Fake::with(move |seen, _| match seen.header("authorization") {
        None => Some(
            (
                axum::http::StatusCode::UNAUTHORIZED,
                [("www-authenticate", "Basic realm=\"r\"")],
            )
                .into_response(),
        ),
        Some(_) => Some(
            (
                axum::http::StatusCode::TEMPORARY_REDIRECT,
                [("location", elsewhere.clone())],
            )
                .into_response(),
        ),
    })
    .await;
    let mut config = fake.config();
    config.credentials = Credentials::none()
        .with_basic(&fake.host(), "bob", "hunter2")
        .unwrap();
    let repository = fake.repository_with(config, "a");
    let bytes = all(&repository, &Digest::of(b"content for s1"), None)
        .await
        .unwrap();
    assert_eq!(bytes, b"content for s1");
    assert_eq!(storage.log()[0].header("authorization"), None, "CVE-2020-15157");
    assert!(fake.log().last().unwrap().header("authorization").is_some());
}

#[tokio::test]
async fn redirects_in_circles_end() {
    let fake = Fake::with(|seen, _| {
        Some((axum::http::StatusCode::FOUND, [("location", seen.path.clone())]).into_response())
    })
    .await;
    let error = all(&fake.repository("a"), &Digest::of(b"x"), None)
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::InvalidResponse);
    assert_eq!(fake.log().len(), 6);
}

#[tokio::test]
async fn a_missing_blob_is_not_found_and_names_where() {
    let fake = Fake::start().await;
    let digest = Digest::of(b"x");
    let repository = fake.repository("shop/web");
    assert_eq!(repository.blob_size(&digest).await.unwrap(), None);
    let error = repository.open_blob(&digest, None).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert!(
        error.to_string().starts_with(&format!(
            "cannot read blob {digest} in {}/shop/web: ",
            fake.host()
        )),
        "{error}"
    );
    assert_eq!(
        repository.delete_blob(&digest).await.unwrap_err().class(),
        Class::NotFound
    );
}

#[tokio::test]
async fn deletion_switched_off_is_unsupported_with_advice() {
    let fake = Fake::with(|seen, _| (seen.method == "DELETE").then(|| answer(405))).await;
    let error = fake.repository("a").delete_manifest("1").await.unwrap_err();
    assert_eq!(error.class(), Class::Unsupported);
    assert!(error.to_string().contains("deletion is switched off"), "{error}");
}
