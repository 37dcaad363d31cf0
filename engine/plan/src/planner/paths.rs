//! Slash-separated paths by Go's rules, and the few rules for Windows images that a Linux builder needs.

pub(crate) use slipway_dockerfile::paths::clean;

/// As [`clean`], but a trailing `/` or `/.`, which says that a path is a directory, stays.
pub(crate) fn clean_keeping_end(path: &str) -> String {
    let cleaned = clean(path);
    let slash = if cleaned == "/" { "" } else { "/" };
    if path.ends_with("/.") {
        format!("{cleaned}{slash}.")
    } else if path.ends_with('/') {
        format!("{cleaned}{slash}")
    } else {
        cleaned
    }
}

/// Both parts with a slash between them, cleaned; empty parts do not count.
pub(crate) fn join(first: &str, second: &str) -> String {
    match (first.is_empty(), second.is_empty()) {
        (true, true) => String::new(),
        (true, false) => clean(second),
        (false, true) => clean(first),
        (false, false) => clean(&format!("{first}/{second}")),
    }
}

/// The last part; `/` for a root and `.` for nothing.
pub(crate) fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// Removes `C:` from a path for a Windows image and turns its backslashes; other systems' paths stay as they are.
fn local(path: &str, os: &str, keep_slash: bool) -> Result<String, String> {
    if os != "windows" {
        return Ok(path.to_owned());
    }
    let path = path.replace('\\', "/");
    if path.len() == 2 && path.ends_with(':') {
        return Err(format!("No relative path specified in {path:?}"));
    }
    if path.starts_with("//") {
        return Err("UNC paths are not supported".to_owned());
    }
    let rest = match path.split_once(':') {
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => return Err("The specified path is not on the system drive (C:)".to_owned()),
        None => path.as_str(),
    };
    let mut cleaned = clean(rest);
    if keep_slash && rest.ends_with('/') && !cleaned.ends_with('/') {
        cleaned.push('/');
    }
    Ok(cleaned)
}

/// Whether a path is absolute in an image for `os`.
pub(crate) fn is_absolute(path: &str, os: &str) -> bool {
    local(path, os, false).is_ok_and(|path| path.starts_with('/'))
}

/// `path` as seen from the directory `parent`. An absolute path stays as it is written. With `keep_slash`, a trailing
/// `/` or `/.`, which says that a destination is a directory, stays too.
pub(crate) fn resolve(parent: &str, path: &str, os: &str, keep_slash: bool) -> Result<String, String> {
    let written = if os == "windows" {
        path.replace('\\', "/")
    } else {
        path.to_owned()
    };
    let mut parent = local(if parent.is_empty() { "/" } else { parent }, os, keep_slash)?;
    if !parent.starts_with('/') {
        parent = join("/", &parent);
    }
    let mut resolved = if written.is_empty() {
        parent.clone()
    } else {
        local(&written, os, keep_slash)?
    };
    if !resolved.starts_with('/') {
        resolved = join(&parent, &resolved);
    }
    if keep_slash {
        if written.ends_with('/') && !resolved.ends_with('/') {
            resolved.push('/');
        } else if written.ends_with("/.") {
            if resolved != "/" {
                resolved.push('/');
            }
            resolved.push('.');
        }
    }
    Ok(resolved)
}

/// The destination of a copy as seen from the working directory.
pub(crate) fn destination(cwd: &str, path: &str, os: &str) -> Result<String, String> {
    if is_absolute(path, os) {
        return resolve("/", path, os, true);
    }
    resolve(cwd, if matches!(path, "" | ".") { "./" } else { path }, os, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("a/./b/../c", "a/c"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("a/..", "."),
            ("a/../../b", "../b"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert_eq!(
            (base("/a/b/"), base("/"), base(""), base("c")),
            ("b", "/", ".", "c")
        );
        assert_eq!(
            (join("/", "a"), join("", "b/"), join("/a", "../..")),
            ("/a".into(), "b".into(), "/".into())
        );
    }

    #[test]
    fn destinations_keep_what_says_directory() {
        for (cwd, path, os, wanted) in [
            ("/", "b", "linux", "/b"),
            ("/w", "b/", "linux", "/w/b/"),
            ("/w", ".", "linux", "/w/"),
            ("/w", "", "linux", "/w/"),
            ("", "b/.", "linux", "/b/."),
            ("/w", "/x", "linux", "/x"),
            ("/w", "/x/", "linux", "/x/"),
            ("/w", "..", "linux", "/"),
            ("/w", "C:\\x\\", "windows", "/x/"),
            ("/w", "x", "windows", "/w/x"),
        ] {
            assert_eq!(destination(cwd, path, os).unwrap(), wanted, "{cwd} {path}");
        }
        assert!(destination("/", "D:\\x", "windows").is_err());
    }

    #[test]
    fn working_directories_chain() {
        let mut cwd = "/".to_owned();
        for (path, wanted) in [
            ("a", "/a"),
            ("b", "/a/b"),
            ("../c/", "/a/c"),
            ("./d//e", "/a/c/d/e"),
            ("/x y", "/x y"),
        ] {
            cwd = resolve(&cwd, path, "linux", false).unwrap();
            assert_eq!(cwd, wanted);
        }
    }
}
