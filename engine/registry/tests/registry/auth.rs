//! Who we are, and what happens when a registry doubts it.

use axum::response::{IntoResponse, Response};
use slipway_registry::{Class, Config, Credentials, Repository};

use crate::fake::{Fake, Seen, answer, refuse};

/// 401 with a Bearer challenge for what the request is about, unless it brings one of `tokens`.
fn want_token(seen: &Seen, realm: &str, tokens: &[&str]) -> Option<Response> {
    let given = seen
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    if given.is_some_and(|given| tokens.contains(&given)) {
        return None;
    }
    let name = seen.path.strip_prefix("/v2/")?;
    let name = name.split("/blobs/").next()?.split("/manifests/").next()?;
    let actions = if matches!(seen.method.as_str(), "GET" | "HEAD") {
        "pull"
    } else {
        "pull,push"
    };
    let challenge = format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:{name}:{actions}\"");
    Some(
        (
            axum::http::StatusCode::UNAUTHORIZED,
            [("www-authenticate", challenge)],
        )
            .into_response(),
    )
}

fn token(value: &str, expires: &str) -> Response {
    format!(r#"{{"token":"{value}","expires_in":{expires}}}"#).into_response()
}

fn realm(seen: &Seen) -> String {
    format!("http://{}/token", seen.header("host").unwrap())
}

fn with_login(fake: &Fake, user: &str, password: &str) -> Config {
    let credentials = Credentials::none()
        .with_basic(&fake.host(), user, password)
        .unwrap();
    Config {
        credentials,
        ..fake.config()
    }
}

fn with_document(fake: &Fake, entries: &[(&str, &str)]) -> Config {
    let auths: Vec<_> = entries
        .iter()
        .map(|(path, entry)| format!("\"{}{path}\":{entry}", fake.host()))
        .collect();
    let json = format!("{{\"auths\":{{{}}}}}", auths.join(","));
    Config {
        credentials: Credentials::from_documents([("secret shop/creds", json)]).unwrap(),
        ..fake.config()
    }
}

async fn read(repository: &Repository) -> slipway_registry::Result<()> {
    repository.get_manifest("1").await.map(|_| ())
}

const MANIFEST: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn add(fake: &Fake, repository: &str) {
    fake.add_manifest(
        repository,
        "1",
        "application/vnd.oci.image.manifest.v1+json",
        MANIFEST,
    );
}

#[tokio::test]
async fn a_token_is_fetched_for_the_challenge_of_the_request_itself_and_kept() {
    // `/v2/` is open here: only the repository asks. Gap 8.
    let fake = Fake::with(|seen, _| match seen.path.as_str() {
        "/token" => Some(token("t1", "300")),
        "/v2/" => Some(answer(200)),
        _ => want_token(seen, &realm(seen), &["t1"]),
    })
    .await;
    add(&fake, "shop/web");
    let repository = fake.repository("shop/web");
    read(&repository).await.unwrap();
    read(&repository).await.unwrap();
    let tokens = fake.seen("GET", "/token");
    assert_eq!(tokens.len(), 1, "one token for two reads");
    assert_eq!(tokens[0].param("service").as_deref(), Some("reg"));
    assert_eq!(
        tokens[0].param("scope").as_deref(),
        Some("repository:shop/web:pull")
    );
    assert_eq!(
        fake.seen("GET", "/manifests/").len(),
        3,
        "the second read brings its token along"
    );
}

#[tokio::test]
async fn a_cached_token_that_is_refused_is_dropped_and_fetched_again_once() {
    let fake = Fake::with(|seen, state| {
        let issued = state.count("GET", "/token");
        if seen.path == "/token" {
            return Some(token(&format!("t{issued}"), "300"));
        }
        // The registry forgets its first token after the first read.
        let good = if state.count("GET", "/manifests/") <= 2 {
            "t1"
        } else {
            "t2"
        };
        want_token(seen, &realm(seen), &[good])
    })
    .await;
    add(&fake, "shop/web");
    let repository = fake.repository("shop/web");
    read(&repository).await.unwrap();
    read(&repository).await.unwrap();
    assert_eq!(fake.seen("GET", "/token").len(), 2);
}

#[tokio::test]
async fn a_token_that_is_never_good_enough_ends_in_unauthorized_not_in_a_loop() {
    let fake = Fake::with(|seen, _| match seen.path.as_str() {
        "/token" => Some(token("bad", "300")),
        _ => want_token(seen, &realm(seen), &["good"]),
    })
    .await;
    let error = read(&fake.repository_with(with_login(&fake, "bob", "hunter2"), "shop/web"))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Unauthorized);
    assert_eq!(fake.seen("GET", "/token").len(), 1);
    assert_eq!(fake.seen("GET", "/manifests/").len(), 2);
}

#[tokio::test]
async fn a_token_lives_as_long_as_its_answer_says() {
    let fake = Fake::with(|seen, state| match seen.path.as_str() {
        // As text and as number: both are seen. A second that is nearly over is over.
        "/token" => Some(token(
            &format!("t{}", state.count("GET", "/token")),
            "\"0.000001\"",
        )),
        _ => want_token(seen, &realm(seen), &["t1", "t2", "t3"]),
    })
    .await;
    add(&fake, "shop/web");
    let repository = fake.repository("shop/web");
    for _ in 0..3 {
        read(&repository).await.unwrap();
    }
    assert_eq!(fake.seen("GET", "/token").len(), 3);
    assert_eq!(
        fake.seen("GET", "/manifests/").len(),
        4,
        "renewed before it is used, not after a 401"
    );
}

#[tokio::test]
async fn fifty_requests_without_a_token_fetch_one() {
    let fake = Fake::with(|seen, _| match seen.path.as_str() {
        "/token" => Some(token("t1", "300")),
        _ => want_token(seen, &realm(seen), &["t1"]),
    })
    .await;
    let digests: Vec<_> = (0..50_u8).map(|n| fake.add_blob("shop/web", vec![n])).collect();
    let found = fake.repository("shop/web").exists_many(&digests).await.unwrap();
    assert_eq!(found, vec![true; 50]);
    assert_eq!(fake.seen("GET", "/token").len(), 1);
}

#[tokio::test]
async fn basic_credentials_are_sent_only_when_asked_for_and_a_wrong_one_is_explained() {
    let fake = Fake::with(|seen, _| {
        // bob:s3cret
        (seen.header("authorization") != Some("Basic Ym9iOnMzY3JldA==")).then(|| {
            (
                axum::http::StatusCode::UNAUTHORIZED,
                [("www-authenticate", "Basic realm=\"r\"")],
            )
                .into_response()
        })
    })
    .await;
    add(&fake, "shop/web");
    read(&fake.repository_with(with_login(&fake, "bob", "s3cret"), "shop/web"))
        .await
        .unwrap();
    assert_eq!(fake.log()[0].header("authorization"), None);

    let config = with_document(&fake, &[("/shop", r#"{"username":"bob","password":"hunter2"}"#)]);
    let error = read(&fake.repository_with(config, "shop/web")).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.class(), Class::Unauthorized);
    for part in [
        format!("cannot read manifest 1 in {}/shop/web", fake.host()),
        "does not accept the credentials of user \"bob\"".to_owned(),
        format!("auths[\"{}/shop\"] of secret shop/creds", fake.host()),
        format!("docker login {}", fake.host()),
    ] {
        assert!(text.contains(&part), "{part:?} not in {text}");
    }

    let config = with_document(&fake, &[("/other", r#"{"username":"bob","password":"hunter2"}"#)]);
    let error = read(&fake.repository_with(config, "shop/web")).await.unwrap_err();
    let expected = format!(
        "secret shop/creds has an entry in auths for {}/shop/web",
        fake.host()
    );
    assert!(error.to_string().contains(&expected), "{error}");
    assert_eq!(error.class(), Class::Unauthorized);
}

#[tokio::test]
async fn a_wrong_password_at_the_token_service_is_not_a_missing_blob() {
    let fake = Fake::with(|seen, _| match seen.path.as_str() {
        "/token" => Some(refuse(
            401,
            "UNAUTHORIZED",
            "incorrect username or password: hunter2",
        )),
        _ => want_token(seen, &realm(seen), &[]),
    })
    .await;
    let error = read(&fake.repository_with(with_login(&fake, "bob", "hunter2"), "shop/web"))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Unauthorized);
    let text = error.to_string();
    assert!(
        text.contains(&format!(
            "the token service {} does not accept the credentials of user \"bob\"",
            fake.url("/token")
        )),
        "{text}"
    );
    assert!(
        text.contains("incorrect username or password: [redacted]"),
        "{text}"
    );
    assert_eq!(error.repository(), Some("shop/web"));
}

#[tokio::test]
async fn a_failing_token_service_is_told_apart_from_the_registry_and_from_a_wrong_password() {
    let fake = Fake::with(|seen, _| match seen.path.as_str() {
        "/token" => Some(answer(503)),
        _ => want_token(seen, &realm(seen), &[]),
    })
    .await;
    let error = read(&fake.repository("shop/web")).await.unwrap_err();
    assert_eq!(error.class(), Class::Server);
    assert!(
        error.to_string().contains("token service") && error.to_string().contains("answered 503"),
        "{error}"
    );
    assert_eq!(fake.seen("GET", "/token").len(), 4, "tried again first");

    let fake = Fake::with(|seen, _| want_token(seen, "http://127.0.0.1:1/token", &[])).await;
    let error = read(&fake.repository("shop/web")).await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable);
    assert!(
        error
            .to_string()
            .contains("cannot get a token from http://127.0.0.1:1/token"),
        "{error}"
    );

    let fake = Fake::with(|seen, _| match seen.path.as_str() {
        "/token" => Some("{}".into_response()),
        _ => want_token(seen, &realm(seen), &[]),
    })
    .await;
    let error = read(&fake.repository("shop/web")).await.unwrap_err();
    assert_eq!(error.class(), Class::InvalidResponse);
    assert!(error.to_string().contains("answered without a token"), "{error}");
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let fake = Fake::with(|seen, _| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/token") => Some(r#"{"access_token":"t1","expires_in":300}"#.into_response()),
        (_, "/token") => Some(answer(405)),
        _ => want_token(seen, &realm(seen), &["t1"]),
    })
    .await;
    add(&fake, "shop/web");
    let config = with_document(
        &fake,
        &[("", r#"{"auth":"MDAwOg==","identitytoken":"refresh+me"}"#)],
    );
    read(&fake.repository_with(config, "shop/web")).await.unwrap();
    let post = &fake.seen("POST", "/token")[0];
    let form: std::collections::HashMap<_, _> =
        url::form_urlencoded::parse(&post.body).into_owned().collect();
    assert_eq!(form["grant_type"], "refresh_token");
    assert_eq!(form["refresh_token"], "refresh+me");
    assert_eq!(form["scope"], "repository:shop/web:pull");
    assert_eq!(form["service"], "reg");
    assert_eq!(post.header("authorization"), None);
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let fake = Fake::with(|seen, _| want_token(seen, &realm(seen), &["ready"])).await;
    add(&fake, "shop/web");
    let config = with_document(&fake, &[("", r#"{"registrytoken":"ready"}"#)]);
    read(&fake.repository_with(config, "shop/web")).await.unwrap();
    assert_eq!(fake.log().len(), 1);
}

#[tokio::test]
async fn repositories_of_one_host_have_each_their_own_credentials() {
    let fake = Fake::with(|seen, _| match seen.path.as_str() {
        "/token" => {
            // web:w and api:a
            let who = match seen.header("authorization") {
                Some("Basic d2ViOnc=") => "web",
                Some("Basic YXBpOmE=") => "api",
                _ => "nobody",
            };
            Some(token(who, "300"))
        }
        path if path.contains("/web/") => want_token(seen, &realm(seen), &["web"]),
        path if path.contains("/api/") => want_token(seen, &realm(seen), &["api"]),
        _ => want_token(seen, &realm(seen), &["nobody"]),
    })
    .await;
    let config = with_document(
        &fake,
        &[
            ("/shop/web", r#"{"username":"web","password":"w"}"#),
            ("/shop/api", r#"{"username":"api","password":"a"}"#),
        ],
    );
    let registries = slipway_registry::Registries::new(config).unwrap();
    for name in ["shop/web", "shop/api", "public/thing"] {
        add(&fake, name);
        read(&registries.repository(&fake.reference(name))).await.unwrap();
    }
}

#[tokio::test]
async fn a_known_user_without_the_right_is_denied_not_unauthorized() {
    let fake = Fake::with(|seen, _| {
        if seen.path == "/token" {
            return Some(token("t1", "300"));
        }
        let challenge = format!(
            "Bearer realm=\"{}\",service=\"reg\",error=\"insufficient_scope\"",
            realm(seen)
        );
        Some(
            (
                axum::http::StatusCode::UNAUTHORIZED,
                [("www-authenticate", challenge)],
            )
                .into_response(),
        )
    })
    .await;
    let error = read(&fake.repository_with(with_login(&fake, "bob", "x"), "shop/web"))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    assert!(
        error
            .to_string()
            .contains("user \"bob\" is known to the registry but not allowed"),
        "{error}"
    );

    let fake = Fake::with(|_, _| {
        Some(refuse(
            403,
            "DENIED",
            "requested access to the resource is denied",
        ))
    })
    .await;
    let error = read(&fake.repository_with(with_login(&fake, "bob", "x"), "shop/web"))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    assert!(
        error
            .to_string()
            .contains("(DENIED: requested access to the resource is denied)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_hides_repositories_from_strangers_is_asked_who_it_wants_to_see() {
    // 404 instead of 401 to anonymous; only `/v2/` tells how to log in.
    let fake = Fake::with(|seen, _| {
        let known = seen.header("authorization") == Some("Basic Ym9iOnMzY3JldA==");
        match (known, seen.path.as_str()) {
            (true, _) => None,
            (false, "/v2/") => Some(
                (
                    axum::http::StatusCode::UNAUTHORIZED,
                    [("www-authenticate", "Basic realm=\"r\"")],
                )
                    .into_response(),
            ),
            (false, _) => Some(answer(404)),
        }
    })
    .await;
    add(&fake, "shop/web");
    read(&fake.repository_with(with_login(&fake, "bob", "s3cret"), "shop/web"))
        .await
        .unwrap();
    let error = read(&fake.repository("shop/web")).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
}
