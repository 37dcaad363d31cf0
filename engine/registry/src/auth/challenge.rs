//! `WWW-Authenticate` headers and token scopes, parsed. No IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use http::{HeaderMap, header::WWW_AUTHENTICATE};
use url::Url;

/// What a 401 asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        /// Where tokens are had.
        realm: Url,
        service: Option<String>,
        scopes: Scopes,
        /// `invalid_token`, `insufficient_scope` (RFC 6750 §3.1).
        error: Option<String>,
    },
}

/// All challenges of an answer that this client can meet; others (Negotiate, Digest) are left out.
pub(crate) fn parse(headers: &HeaderMap) -> Vec<Challenge> {
    let mut found = Vec::new();
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        // A broken challenge ends this header, not the others.
        for challenge in http_auth::ChallengeParser::new(text).map_while(Result::ok) {
            let param = |wanted: &str| {
                challenge
                    .params
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                    .map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                found.push(Challenge::Basic);
            } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let Some(realm) = param("realm").and_then(|realm| Url::parse(&realm).ok()) else {
                    continue;
                };
                found.push(Challenge::Bearer {
                    realm,
                    service: param("service"),
                    scopes: Scopes::parse(&param("scope").unwrap_or_default()),
                    error: param("error"),
                });
            }
        }
    }
    found
}

/// Rights on resources: `repository:shop/web` → {pull, push}. Ordered, so equal sets have equal texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    pub(crate) fn repository(name: &str, actions: &[&str]) -> Self {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        Self(BTreeMap::from([(format!("repository:{name}"), actions)]))
    }

    fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for scope in text.split_whitespace() {
            let (resource, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
            let actions = actions
                .split(',')
                .filter(|action| !action.is_empty())
                .map(ToOwned::to_owned);
            all.0.entry(resource.to_owned()).or_default().extend(actions);
        }
        all
    }

    /// The union of both.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (resource, actions) in &other.0 {
            all.0
                .entry(resource.clone())
                .or_default()
                .extend(actions.iter().cloned());
        }
        all
    }

    /// One text per resource, as token services want them.
    pub(crate) fn each(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.each().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (WWW_AUTHENTICATE, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn challenges_are_found_among_others_in_any_number_of_headers() {
        let bearer = |scope: &str, error: Option<&str>| Challenge::Bearer {
            realm: "https://auth.example.com/token".parse().unwrap(),
            service: Some("registry".to_owned()),
            scopes: Scopes::parse(scope),
            error: error.map(ToOwned::to_owned),
        };
        let cases: &[(&[&str], Vec<Challenge>)] = &[
            (&["Basic realm=\"x\""], vec![Challenge::Basic]),
            (
                &[
                    "Bearer realm=\"https://auth.example.com/token\",service=\"registry\",scope=\"repository:a/b:pull,push\"",
                ],
                vec![bearer("repository:a/b:push,pull", None)],
            ),
            (
                &[
                    "bearer Realm=\"https://auth.example.com/token\", service=registry, error=\"insufficient_scope\"",
                ],
                vec![bearer("", Some("insufficient_scope"))],
            ),
            (
                &[
                    "Negotiate",
                    "Basic realm=\"a\", Bearer realm=\"https://auth.example.com/token\", service=\"registry\"",
                ],
                vec![Challenge::Basic, bearer("", None)],
            ),
            (&["Bearer realm=\"not a url\""], vec![]),
            (&["Digest realm=\"x\", nonce=\"y\""], vec![]),
            (&["=,=,"], vec![]),
            (&[], vec![]),
        ];
        for (values, expected) in cases {
            assert_eq!(parse(&headers(values)), *expected, "{values:?}");
        }
    }

    #[test]
    fn scopes_merge_by_resource() {
        let ours = Scopes::repository("a/b", &["pull"]);
        let theirs = Scopes::parse("repository:a/b:push repository:host:5000/c:pull registry:catalog:*");
        assert_eq!(
            ours.merged(&theirs).to_string(),
            "registry:catalog:* repository:a/b:pull,push repository:host:5000/c:pull"
        );
    }
}
