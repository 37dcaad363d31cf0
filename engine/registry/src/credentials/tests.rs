//! Documents as people write them.

use super::*;

fn find(credentials: &Credentials, registry: &str, repository: &str) -> Option<Arc<Credential>> {
    futures::executor::block_on(credentials.find(registry, repository)).unwrap()
}

fn user(credentials: &Credentials, registry: &str, repository: &str) -> Option<String> {
    find(credentials, registry, repository).map(|found| match &found.kind {
        Kind::Basic { username, password } => format!("{username}:{}", password.expose()),
        Kind::Identity { token } => format!("identity {}", token.expose()),
        Kind::Bearer { token } => format!("bearer {}", token.expose()),
    })
}

#[test]
fn every_form_of_an_entry_is_understood() {
    let cases = [
        (r#"{"auth":"Ym9iOnMzY3JldA=="}"#, Some("bob:s3cret")),
        (r#"{"auth":"Ym9iOnMzY3JldA"}"#, Some("bob:s3cret")),
        (r#"{"auth":"Ym9iOnMzY3JldAo="}"#, Some("bob:s3cret")),
        (r#"{"auth":"Ym9iOmE6YjpjAAA="}"#, Some("bob:a:b:c")),
        (r#"{"username":"bob","password":"s3cret"}"#, Some("bob:s3cret")),
        (
            r#"{"username":"old","password":"old","auth":"Ym9iOnMzY3JldA=="}"#,
            Some("bob:s3cret"),
        ),
        (
            r#"{"auth":"Ym9iOnMzY3JldA==","identitytoken":"idt"}"#,
            Some("identity idt"),
        ),
        (r#"{"registrytoken":"rt"}"#, Some("bearer rt")),
        (r#"{"username":"<token>","password":"idt"}"#, Some("identity idt")),
        (r#"{"email":"bob@example.com"}"#, None),
        (r#"{"auth":null,"username":"bob","password":"x"}"#, Some("bob:x")),
    ];
    for (entry, expected) in cases {
        let json = format!(r#"{{"auths":{{"r.example.com":{entry}}}}}"#);
        let credentials = Credentials::from_documents([("d", json)]).unwrap();
        assert_eq!(
            user(&credentials, "r.example.com", "a/b").as_deref(),
            expected,
            "{entry}"
        );
    }
}

#[test]
fn the_longest_path_wins_over_all_documents_then_the_exact_host_then_the_first() {
    let entry = |name: &str| format!(r#"{{"username":"{name}","password":"p"}}"#);
    let first = format!(
        r#"{{"auths":{{"*.example.com":{},"r.example.com":{},"r.example.com/shop":{},"https://index.docker.io/v1/":{}}}}}"#,
        entry("wild"),
        entry("host"),
        entry("shop"),
        entry("hub")
    );
    let second = format!(
        r#"{{"auths":{{"r.example.com/shop/web":{},"r.example.com":{}}}}}"#,
        entry("web"),
        entry("late")
    );
    let credentials = Credentials::from_documents([("one", first), ("two", second)]).unwrap();
    for (registry, repository, expected) in [
        ("r.example.com", "shop/web", Some("web:p")),
        ("r.example.com", "shop/web/x", Some("web:p")),
        ("r.example.com", "shop/api", Some("shop:p")),
        ("r.example.com", "shopper", Some("host:p")),
        ("q.example.com", "shop/web", Some("wild:p")),
        ("docker.io", "library/debian", Some("hub:p")),
        ("elsewhere.org", "a", None),
    ] {
        assert_eq!(
            user(&credentials, registry, repository).as_deref(),
            expected,
            "{registry}/{repository}"
        );
    }
    let found = find(&credentials, "r.example.com", "shop/web").unwrap();
    assert_eq!(found.origin, "auths[\"r.example.com/shop/web\"] of two");
}

#[test]
fn the_old_dockercfg_form_is_read_too() {
    let json = r#"{"https://r.example.com/v1/":{"auth":"Ym9iOnMzY3JldA==","email":"x"}}"#;
    let credentials = Credentials::from_documents([("d", json)]).unwrap();
    assert_eq!(
        user(&credentials, "r.example.com", "a").as_deref(),
        Some("bob:s3cret")
    );
}

#[test]
fn a_broken_document_is_named_without_showing_what_is_in_it() {
    for (json, expected) in [
        (
            "{",
            "secret a/b is not a docker config document (line 1, column 1)",
        ),
        (
            r#"{"auths":{"r":{"password":{"hunter2":1}}}}"#,
            "secret a/b is not a docker config document",
        ),
        (
            r#"{"auths":{"r":{"auth":"hunter2!"}}}"#,
            "auths[\"r\"] of secret a/b: auth is not base64",
        ),
        (
            r#"{"auths":{"r":{"auth":"aHVudGVyMg=="}}}"#,
            "auths[\"r\"] of secret a/b: auth has no colon",
        ),
        (
            r#"{"auths":{"https://":{"username":"hunter2"}}}"#,
            "names no registry host",
        ),
    ] {
        let error = Credentials::from_documents([("secret a/b", json)]).unwrap_err();
        assert_eq!(error.class(), Class::Invalid);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn nothing_prints_a_secret() {
    let json = r#"{"auths":{"r":{"auth":"Ym9iOmh1bnRlcjI="},"s":{"identitytoken":"hunter2"},"t":{"registrytoken":"hunter2"}}}"#;
    let credentials = Credentials::from_documents([("d", json)]).unwrap();
    let shown = format!("{credentials:?} {:#?}", find(&credentials, "r", "x"));
    assert!(
        !shown.contains("hunter2") && !shown.contains("Ym9iOmh1bnRlcjI"),
        "{shown}"
    );
    let found = find(&credentials, "r", "x").unwrap();
    assert!(!format!("{:?}", found.kind).contains("hunter2"));
    assert_eq!(
        found.redact("you sent Basic Ym9iOmh1bnRlcjI= (hunter2)"),
        "you sent Basic [redacted] ([redacted])"
    );
}
