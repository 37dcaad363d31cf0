//! Which sources are git repositories, and the parts of their names: `https://host/x.git?tag=v1#ref:dir`, `git@host:x`.

use super::paths;
use crate::source::GitSource;
use std::collections::BTreeMap;

/// A git repository as a source names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GitRef {
    pub(crate) remote: String,
    pub(crate) reference: Option<String>,
    pub(crate) subdir: Option<String>,
    pub(crate) checksum: Option<String>,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) submodules: Option<bool>,
    pub(crate) fetch_by_commit: bool,
    /// `github.com/a/b`, which may as well be a directory.
    pub(crate) maybe_local: bool,
}

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Detected {
    /// No git repository.
    Other,
    /// One.
    Git(GitRef),
    /// One, but with options that make no sense.
    Broken(String),
}

/// Tells whether a source is a git repository: any URL of the schemes `git` and `ssh`, an http(s) URL whose path ends in
/// `.git`, and `user@host:path`.
pub(crate) fn detect(source: &str) -> Detected {
    if source.starts_with("./") || source.starts_with("../") {
        return Detected::Other;
    }
    if source.starts_with("github.com/") {
        return finish(&format!("https://{source}"), true);
    }
    if let Some((scheme, rest)) = source.split_once("://")
        && !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        let scheme = scheme.to_ascii_lowercase();
        let before_options = rest.split(['#', '?']).next().unwrap_or_default();
        return match scheme.as_str() {
            "git" | "ssh" => finish(source, false),
            "http" | "https"
                if before_options.contains('/') && before_options.strip_suffix(".git").is_some() =>
            {
                finish(source, false)
            }
            _ => Detected::Other,
        };
    }
    if is_scp_style(source) {
        finish(source, false)
    } else {
        Detected::Other
    }
}

/// What a build context or a named one means that is a git URL; `None` if it is none. The error says which option of the
/// URL makes no sense.
pub fn git_source(source: &str) -> Option<Result<GitSource, String>> {
    match detect(source) {
        Detected::Other => None,
        Detected::Broken(message) => Some(Err(message)),
        Detected::Git(git) => Some(Ok(GitSource {
            remote: if git.maybe_local {
                format!("https://{}", git.remote)
            } else {
                git.remote
            },
            reference: git.reference,
            subdir: git.subdir,
            checksum: git.checksum,
            keep_git_dir: git.keep_git_dir.unwrap_or(false),
            submodules: git.submodules.unwrap_or(true),
            fetch_by_commit: git.fetch_by_commit,
        })),
    }
}

/// Whether it is an http(s) URL of a plain file.
pub(crate) fn is_http(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://"))
        && !matches!(detect(source), Detected::Git(_))
}

/// `git@host.example:path/x.git`.
fn is_scp_style(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else {
        return false;
    };
    let Some((host, path)) = rest.split_once(':') else {
        return false;
    };
    let is_word = |text: &str, extra: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    is_word(user, "_-") && is_word(host, "._-") && !path.is_empty()
}

/// Cuts the options off.
fn finish(source: &str, maybe_local: bool) -> Detected {
    let (rest, fragment) = source.split_once('#').unwrap_or((source, ""));
    let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
    let remote = if maybe_local {
        remote.trim_start_matches("https://")
    } else {
        remote
    };
    let mut git = GitRef {
        remote: remote.to_owned(),
        maybe_local,
        ..GitRef::default()
    };
    if !fragment.is_empty() {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        git.reference = some(&decode(reference));
        git.subdir = some(paths::join("/", &decode(subdir)).trim_start_matches('/'));
    }
    match read_query(&mut git, query) {
        Ok(()) => Detected::Git(git),
        Err(message) => Detected::Broken(message),
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn read_query(git: &mut GitRef, query: &str) -> Result<(), String> {
    let mut options: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        options.entry(decode(key)).or_default().push(decode(value));
    }
    let set_reference = |git: &mut GitRef, value: String| match &git.reference {
        Some(old) if *old != value => Err(format!("ref conflicts: {old:?} vs {value:?}")),
        _ => {
            git.reference = Some(value);
            Ok(())
        }
    };
    let with_prefix = |prefix: &str, value: &str| {
        if value.starts_with(prefix) {
            value.to_owned()
        } else {
            format!("{prefix}{value}")
        }
    };
    let (mut tag, mut branch) = (None, None);
    for (key, values) in options {
        let [value] = &values[..] else {
            return Err(format!("query {key:?} has multiple values"));
        };
        let is_flag = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
        if value.is_empty() && !is_flag {
            return Err(format!("query {key:?} has no value"));
        }
        let flag = || match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(format!("invalid {key} value: {value:?}")),
        };
        match key.as_str() {
            "ref" => set_reference(git, value.clone())?,
            "tag" => tag = Some(with_prefix("refs/tags/", value)),
            "branch" => branch = Some(with_prefix("refs/heads/", value)),
            "subdir" => match &git.subdir {
                Some(old) if old != value => return Err(format!("subdir conflicts: {old:?} vs {value:?}")),
                _ => git.subdir = Some(value.clone()),
            },
            "checksum" | "commit" => git.checksum = Some(value.clone()),
            "keep-git-dir" => git.keep_git_dir = Some(flag()?),
            "submodules" => git.submodules = Some(flag()?),
            "fetch-by-commit" => git.fetch_by_commit = flag()?,
            "mtime" if matches!(value.as_str(), "checkout" | "commit") => {}
            "mtime" => {
                return Err(format!(
                    "invalid mtime value: {value:?} (must be \"checkout\" or \"commit\")"
                ));
            }
            _ => return Err(format!("unexpected query {key:?}")),
        }
    }
    if tag.is_some() && branch.is_some() {
        return Err("branch conflicts with tag".to_owned());
    }
    for reference in [tag, branch].into_iter().flatten() {
        set_reference(git, reference)?;
    }
    Ok(())
}

/// Percent-decoding; what is no code stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = code {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(source: &str) -> GitRef {
        match detect(source) {
            Detected::Git(git) => git,
            other => panic!("{source}: {other:?}"),
        }
    }

    #[test]
    fn repositories_are_told_from_files() {
        for source in [
            "https://host/x.git",
            "http://127.0.0.1:80/r/.git#main",
            "git://host/x",
            "ssh://git@host/x",
            "git@host:x/y.git",
            "https://host/x.git?tag=v1",
        ] {
            assert!(!git(source).maybe_local, "{source}");
        }
        assert!(git("github.com/a/b").maybe_local);
        for source in [
            "a",
            "./x.git",
            "https://host/x.tar",
            "ftp://host/x.git",
            "a:b",
            "a@b",
            "/x.git",
        ] {
            assert_eq!(detect(source), Detected::Other, "{source}");
        }
        assert!(is_http("https://host/x.tar") && !is_http("https://host/x.git") && !is_http("a"));
    }

    #[test]
    fn options_are_read() {
        let it = git("https://host/x.git?branch=dev&keep-git-dir=1&submodules=0&checksum=abc#:sub/../dir");
        assert_eq!(it.remote, "https://host/x.git");
        assert_eq!(it.reference.as_deref(), Some("refs/heads/dev"));
        assert_eq!(it.subdir.as_deref(), Some("dir"));
        assert_eq!((it.keep_git_dir, it.submodules), (Some(true), Some(false)));
        assert_eq!(it.checksum.as_deref(), Some("abc"));
        assert_eq!(git("git@host:x.git#v1:a").reference.as_deref(), Some("v1"));
    }

    #[test]
    fn contradictions_are_told() {
        for (options, wanted) in [
            ("?ref=a#b", "ref conflicts"),
            ("?tag=a&branch=b", "branch conflicts with tag"),
            ("?ref=", "has no value"),
            ("?ref=a&ref=a", "multiple values"),
            ("?x=1", "unexpected query"),
            ("?submodules=maybe", "invalid submodules value"),
        ] {
            match detect(&format!("https://host/x.git{options}")) {
                Detected::Broken(message) => assert!(message.contains(wanted), "{options}: {message}"),
                other => panic!("{options}: {other:?}"),
            }
        }
    }
}
