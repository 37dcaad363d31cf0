//! No secret is ever seen: not in errors, not in `Debug`, not in logs.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use axum::response::IntoResponse;
use slipway_registry::{ClientCertificate, Config, Credentials, HostConfig, Registries};
use tracing_subscriber::fmt::MakeWriter;

use crate::fake::{Fake, answer, refuse};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Every form in which the two secrets below could appear.
const SECRETS: [&str; 5] = ["hunter2", "Ym9iOmh1bnRlcjI", "t0ps3cret", "sig=s1gn3d", "s1gn3d"];

fn assert_clean(text: &str, place: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {place}: {text}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn secrets_do_not_show_in_errors_debug_output_or_logs() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("slipway_registry=trace,reqwest=info,hyper=info")
        .with_writer(captured.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    // Hands out a token, then refuses everything, echoing what it was sent.
    let fake = Fake::with(|seen, state| {
        if seen.path == "/token" {
            return Some(r#"{"token":"t0ps3cret"}"#.into_response());
        }
        let Some(sent) = seen.header("authorization") else {
            let challenge = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
            return Some(
                (
                    axum::http::StatusCode::UNAUTHORIZED,
                    [("www-authenticate", challenge)],
                )
                    .into_response(),
            );
        };
        match state.count("GET", "/blobs/") {
            0..=2 => Some(refuse(400, "DENIED", &format!("you sent {sent}"))),
            3 => Some(
                (
                    axum::http::StatusCode::FOUND,
                    [("location", "http://127.0.0.1:1/bucket?sig=s1gn3d")],
                )
                    .into_response(),
            ),
            _ => Some(
                (
                    axum::http::StatusCode::BAD_GATEWAY,
                    format!("no upstream for {sent}"),
                )
                    .into_response(),
            ),
        }
    })
    .await;
    let json = format!(
        r#"{{"auths":{{"{}":{{"auth":"Ym9iOmh1bnRlcjI="}}}}}}"#,
        fake.host()
    );
    let credentials = Credentials::from_documents([("creds", json)]).unwrap();
    let mut config = Config {
        credentials,
        ..fake.config()
    };
    if let Some(host) = config.hosts.get_mut(&fake.host()) {
        host.client_certificate = None;
    }
    let registries = Registries::new(config).unwrap();
    let repository = registries.repository(&fake.reference("a"));
    let digest = slipway_oci::Digest::of(b"x");
    for _ in 0..3 {
        let error = repository.open_blob(&digest, None).await.unwrap_err();
        assert_clean(
            &format!(
                "{error} {error:?} {:?}",
                std::error::Error::source(&error).map(ToString::to_string)
            ),
            "error",
        );
    }
    assert_clean(&format!("{registries:#?} {repository:?}"), "debug");
    let shown = HostConfig {
        client_certificate: Some(ClientCertificate::new("c", "hunter2")),
        ..Default::default()
    };
    assert_clean(&format!("{shown:?}"), "debug of settings");

    let logs = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(logs.contains("/v2/a/blobs/"), "something was logged: {logs}");
    assert_clean(&logs, "logs");
}

#[tokio::test]
async fn a_password_in_a_realm_or_location_is_not_shown_either() {
    let fake = Fake::with(|seen, _| {
        if seen.is("POST", "/uploads/") {
            let location = format!(
                "http://bob:hunter2@{}/up?state=t0ps3cret",
                seen.header("host").unwrap()
            );
            return Some((axum::http::StatusCode::ACCEPTED, [("location", location)]).into_response());
        }
        Some(answer(if seen.path == "/up" { 500 } else { 404 }))
    })
    .await;
    let source = slipway_registry::BlobSource::Bytes("x".into());
    let digest = slipway_oci::Digest::of(b"x");
    let error = fake
        .repository("a")
        .put_blob(&digest, 1, source, &slipway_registry::PutOptions::default())
        .await
        .unwrap_err();
    assert_clean(&format!("{error} {error:?}"), "error");
}
