//! Which repositories an `auths` key stands for.

use super::DOCKER_HUB;

/// A parsed key: `host[:port][/path]`, with `*`, `?` and `[…]` allowed within a label of the host (as the kubelet does).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    host: String,
    port: Option<String>,
    path: String,
}

impl Pattern {
    /// Reads a key in any of the spellings found in the wild; `None` if no host is left.
    pub(super) fn parse(key: &str) -> Option<Self> {
        let key = key.trim();
        let key = key
            .strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"))
            .unwrap_or(key);
        let (authority, path) = key.split_once('/').unwrap_or((key, ""));
        let path = path.trim_matches('/');
        // `https://index.docker.io/v1/` and its like name the API's version, not a repository.
        let path = match path {
            "v1" | "v2" => "",
            path => path
                .strip_prefix("v1/")
                .or_else(|| path.strip_prefix("v2/"))
                .unwrap_or(path),
        };
        let authority = canonical(authority);
        let (host, port) = split_port(&authority);
        (!host.is_empty()).then(|| Self {
            host: host.to_owned(),
            port: port.map(ToOwned::to_owned),
            path: path.to_owned(),
        })
    }

    /// `(length of the matched path, host without wildcard)`, or `None`.
    pub(super) fn matches(&self, registry: &str, repository: &str) -> Option<(usize, bool)> {
        let registry = canonical(registry);
        let (host, port) = split_port(&registry);
        if self.port.as_deref() != port {
            return None;
        }
        let exact = self.host == host;
        if !exact && !labels_match(&self.host, host) {
            return None;
        }
        // Whole components only: credentials for `shop` are not shown to `shopper`.
        let rest = repository.strip_prefix(self.path.as_str())?;
        (self.path.is_empty() || rest.is_empty() || rest.starts_with('/')).then_some((self.path.len(), exact))
    }
}

/// Lower case, and one name for Docker Hub.
pub(super) fn canonical(authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    match authority.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.docker.io" | "registry.hub.docker.com" => {
            DOCKER_HUB.to_owned()
        }
        _ => authority,
    }
}

/// Splits a port off, leaving the brackets of an IPv6 address on.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, Some(port))
        }
        _ => (authority, None),
    }
}

/// Label by label, so `*.example.com` is neither `example.com` nor `a.b.example.com`.
fn labels_match(pattern: &str, host: &str) -> bool {
    if !pattern.contains(['*', '?', '[']) {
        return false;
    }
    let (patterns, labels) = (pattern.split('.'), host.split('.'));
    patterns.clone().count() == labels.clone().count()
        && patterns
            .zip(labels)
            .all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
}

/// `*`, `?` and `[a-z]` over one label. Labels have at most 63 bytes, so plain recursion is cheap.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|skip| glob(rest, text.get(skip..).unwrap_or_default())),
        [b'?', rest @ ..] => !text.is_empty() && glob(rest, text.get(1..).unwrap_or_default()),
        [b'[', rest @ ..] => {
            let (Some(end), [first, text @ ..]) = (rest.iter().position(|b| *b == b']'), text) else {
                return false;
            };
            let (set, rest) = rest.split_at(end);
            in_set(set, *first) && glob(rest.get(1..).unwrap_or_default(), text)
        }
        [byte, rest @ ..] => text.first() == Some(byte) && glob(rest, text.get(1..).unwrap_or_default()),
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let (negated, mut set) = match set {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    loop {
        set = match set {
            [low, b'-', high, rest @ ..] => {
                found |= (*low..=*high).contains(&byte);
                rest
            }
            [one, rest @ ..] => {
                found |= *one == byte;
                rest
            }
            [] => return found != negated,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_hosts_and_paths_as_the_kubelet_and_docker_mean_them() {
        type Case = (&'static str, &'static str, &'static str, Option<(usize, bool)>);
        let cases: &[Case] = &[
            (
                "registry.example.com",
                "registry.example.com",
                "a/b",
                Some((0, true)),
            ),
            (
                "https://registry.example.com/v2/",
                "registry.example.com",
                "a/b",
                Some((0, true)),
            ),
            (
                "http://registry.example.com",
                "registry.example.com",
                "a",
                Some((0, true)),
            ),
            (
                "REGISTRY.example.com",
                "registry.example.com",
                "a",
                Some((0, true)),
            ),
            ("registry.example.com", "registry.example.com:5000", "a", None),
            (
                "registry.example.com:5000",
                "registry.example.com:5000",
                "a",
                Some((0, true)),
            ),
            (
                "registry.example.com/shop",
                "registry.example.com",
                "shop/web",
                Some((4, true)),
            ),
            (
                "registry.example.com/shop/web",
                "registry.example.com",
                "shop/web",
                Some((8, true)),
            ),
            (
                "registry.example.com/shop/",
                "registry.example.com",
                "shopper/web",
                None,
            ),
            ("registry.example.com/shop", "registry.example.com", "other", None),
            (
                "https://index.docker.io/v1/",
                "docker.io",
                "library/debian",
                Some((0, true)),
            ),
            ("docker.io", "docker.io", "library/debian", Some((0, true))),
            ("registry-1.docker.io", "docker.io", "x/y", Some((0, true))),
            ("docker.io/acme", "docker.io", "acme/web", Some((4, true))),
            ("*.example.com", "registry.example.com", "a", Some((0, false))),
            ("*.example.com", "example.com", "a", None),
            ("*.example.com", "a.b.example.com", "a", None),
            ("*.*.example.com", "a.b.example.com", "a", Some((0, false))),
            (
                "*.dkr.ecr.*.amazonaws.com",
                "1.dkr.ecr.eu-west-1.amazonaws.com",
                "a",
                Some((0, false)),
            ),
            (
                "prefix*.example.com/team",
                "prefix7.example.com",
                "team/x",
                Some((4, false)),
            ),
            (
                "reg?stry[0-9].example.com",
                "registry3.example.com",
                "a",
                Some((0, false)),
            ),
            ("reg[^a-f]x.example.com", "regax.example.com", "a", None),
            ("*.example.com:5000", "r.example.com:5000", "a", Some((0, false))),
            ("*.example.com:5000", "r.example.com", "a", None),
            ("[::1]:5000", "[::1]:5000", "a", Some((0, true))),
        ];
        for (key, registry, repository, expected) in cases {
            let pattern = Pattern::parse(key).unwrap();
            assert_eq!(
                pattern.matches(registry, repository),
                *expected,
                "{key} for {registry}/{repository}"
            );
        }
        assert_eq!(Pattern::parse("https:///v1/"), None);
    }
}
