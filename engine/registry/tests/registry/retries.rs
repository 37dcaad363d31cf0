//! Registries that are busy, broken or gone.

use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use slipway_registry::{Class, Registries};

use crate::fake::{Fake, answer, impatient, noise, refuse};

#[tokio::test]
async fn passing_failures_are_sat_out() {
    for status in [408, 429, 500, 502, 503, 504] {
        let fake =
            Fake::with(move |_, state| (state.count("HEAD", "/blobs/") < 3).then(|| answer(status))).await;
        let digest = fake.add_blob("a", "x");
        assert_eq!(
            fake.repository("a").blob_size(&digest).await.unwrap(),
            Some(1),
            "{status}"
        );
        assert_eq!(fake.log().len(), 3, "{status}");
    }
}

#[tokio::test]
async fn failures_that_do_not_pass_are_reported_with_what_the_registry_said() {
    let fake = Fake::with(|_, _| Some(refuse(500, "UNKNOWN", "disk full"))).await;
    let error = fake.repository("a").get_manifest("1").await.unwrap_err();
    assert_eq!((error.class(), error.status()), (Class::Server, Some(500)));
    assert!(error.is_transient());
    assert!(error.to_string().contains("(UNKNOWN: disk full)"), "{error}");
    assert_eq!(fake.log().len(), 4);
}

#[tokio::test]
async fn what_will_not_change_is_not_tried_again() {
    for (status, class) in [
        (400, Class::Invalid),
        (403, Class::Denied),
        (404, Class::NotFound),
        (405, Class::Unsupported),
    ] {
        let fake = Fake::with(move |_, _| Some(answer(status))).await;
        let error = fake.repository("a").get_manifest("1").await.unwrap_err();
        assert_eq!(error.class(), class);
        assert_eq!(fake.log().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_honoured_and_a_long_one_is_passed_on_at_once() {
    let fake = Fake::with(|_, state| {
        (state.count("HEAD", "/blobs/") < 2)
            .then(|| (axum::http::StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response())
    })
    .await;
    let digest = fake.add_blob("a", "x");
    let start = Instant::now();
    assert_eq!(fake.repository("a").blob_size(&digest).await.unwrap(), Some(1));
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());

    let fake = Fake::with(|_, _| {
        let headers = [("retry-after", "3600")];
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#;
        Some((axum::http::StatusCode::TOO_MANY_REQUESTS, headers, body).into_response())
    })
    .await;
    let start = Instant::now();
    let error = fake.repository("a").get_manifest("1").await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(error.class(), Class::RateLimited);
    assert_eq!(error.retry_after(), Some(Duration::from_hours(1)));
    assert!(
        error.to_string().contains("pull rate limit") && error.to_string().contains("3600 s"),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_there_is_found_out_quickly_and_said_plainly() {
    // A port that was just free; nobody listens on it.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let registries = Registries::new(impatient()).unwrap();
    let start = Instant::now();
    let repository = registries.repository(&format!("{host}/a").parse().unwrap());
    let error = repository.get_manifest("1").await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable);
    assert!(
        error
            .to_string()
            .contains(&format!("{host} refuses the connection")),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(2));

    let repository = registries.repository(&"no-such-host.invalid/a".parse().unwrap());
    let error = repository.get_manifest("1").await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable, "{error}");
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn an_upload_that_fails_in_the_middle_is_started_again_and_not_doubled() {
    let fake = Fake::with(|seen, state| {
        (seen.is("PUT", "/uploads/") && state.count("PUT", "/uploads/") < 3).then(|| answer(502))
    })
    .await;
    let bytes = noise(100_000);
    let digest = slipway_oci::Digest::of(&bytes);
    let repository = fake.repository("a");
    let source = slipway_registry::BlobSource::Bytes(bytes.clone());
    let put = repository
        .put_blob(&digest, 100_000, source, &slipway_registry::PutOptions::default())
        .await
        .unwrap();
    assert_eq!(put, slipway_registry::Put::Uploaded);
    assert_eq!(fake.blob("a", &digest), Some(bytes));
    assert_eq!(
        fake.seen("POST", "/uploads/").len(),
        3,
        "each try has its own session"
    );
}

#[tokio::test]
async fn a_silent_registry_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let mut config = impatient();
    config.retry.stall_timeout = Duration::from_millis(50);
    config.hosts.insert(
        host.clone(),
        slipway_registry::HostConfig {
            insecure: true,
            ..Default::default()
        },
    );
    let repository = Registries::new(config)
        .unwrap()
        .repository(&format!("{host}/a").parse().unwrap());
    let error = repository.get_manifest("1").await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable);
    assert!(error.to_string().contains("silent"), "{error}");
    drop(listener);
}
