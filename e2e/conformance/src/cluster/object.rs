//! A case as objects of Kubernetes: a ConfigMap of its files, a Secret, an ImageBuild. And which cases can be said so.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Value, json};

use crate::case::{Build, Case, FileSpec, Kind, NoCache, Output};

/// Why the cluster cannot be asked for a case; `None` when it can.
pub(super) fn unsuitable(case: &Case) -> Option<&'static str> {
    if !case.later.is_empty() {
        return Some("it builds more than once in one store");
    }
    let first = &case.first;
    let expect = &first.expect;
    if !expect.log_contains.0.is_empty()
        || !expect.log_lacks.0.is_empty()
        || expect.warnings.is_some()
        || expect.error_lines.is_some()
    {
        return Some("it is about the output of the command line");
    }
    if expect.error_matches.is_some() || expect.index_ref_names.is_some() {
        return Some("it is about the words of the command line");
    }
    first
        .images
        .0
        .iter()
        .map(|(_, image)| image)
        .chain([first])
        .find_map(unsuitable_build)
}

fn unsuitable_build(build: &Build) -> Option<&'static str> {
    let asks_more = build.output != Output::Oci
        || build.call.is_some()
        || build.ssh
        || build.cache.is_some()
        || build.daemon != 0
        || build.filename.is_some()
        || build.dockerfile_in_context
        || !(build.allow.is_empty()
            && build.opts.is_empty()
            && build.export.is_empty()
            && build.contexts.is_empty()
            && build.http.is_empty()
            && build.git.is_empty()
            && build.needs.is_empty()
            && build.dockerfile_files.is_empty());
    if asks_more {
        return Some("an ImageBuild of these objects cannot ask for it");
    }
    if build.args.contains_key("SOURCE_DATE_EPOCH") {
        return Some("a cluster's layers never have times later than SOURCE_DATE_EPOCH");
    }
    if build
        .dockerfile
        .as_ref()
        .is_some_and(|text| text.contains("/proc/self/status"))
    {
        return Some("a pod has fewer capabilities than a daemon of root's");
    }
    if build.platform.is_some() {
        return Some("it is for another platform");
    }
    if matches!(build.no_cache, Some(NoCache::Stage(_))) {
        return Some("an ImageBuild cannot ignore the cache for one stage");
    }
    let Some(dockerfile) = build.dockerfile.as_deref().filter(|text| !text.is_empty()) else {
        return Some("it has no Dockerfile of its own");
    };
    // Names that come out of variables cannot be pointed at the test registry.
    if dockerfile
        .lines()
        .any(|line| line.contains("busybox") && line.trim_start().starts_with("ARG"))
    {
        return Some("its base is named by a variable");
    }
    if !build.files.iter().all(|(path, file)| is_plain(path, file)) {
        return Some("a ConfigMap cannot hold its files");
    }
    None
}

/// Whether a ConfigMap can hold a file: text, with the mode and owner that every file of a ConfigMap gets.
fn is_plain(path: &str, file: &FileSpec) -> bool {
    let text = file.body.base64.is_none() && file.body.repeat.is_none() && file.body.tar.is_none();
    file.kind == Kind::File
        && text
        && file
            .mode
            .as_deref()
            .is_none_or(|mode| mode.trim_start_matches('0') == "644")
        && file.uid.is_none()
        && file.gid.is_none()
        && file.mtime.is_none()
        && !path.split('/').any(|part| part == "..")
}

/// Points the images of a Dockerfile at the registry.
pub(super) fn with_images(dockerfile: &str, images: &BTreeMap<String, String>) -> String {
    let mut text = dockerfile.to_owned();
    for (name, reference) in images {
        let name = regex::escape(name);
        for pattern in [
            format!(r"(?im)^(\s*FROM\s+(?:--platform=\S+\s+)?){name}(\s|$)"),
            format!(r"(--from=){name}(\s|$)"),
            format!(r"(\bfrom=){name}(,|\s|$)"),
        ] {
            if let Ok(pattern) = Regex::new(&pattern) {
                text = pattern
                    .replace_all(&text, format!("${{1}}{reference}${{2}}"))
                    .into_owned();
            }
        }
    }
    text
}

/// The objects that ask for a build.
pub(super) fn objects(build: &Build, name: &str, image: &str, dockerfile: &str) -> Value {
    let mut data = BTreeMap::new();
    let mut items = Vec::new();
    for (at, (path, file)) in build.files.iter().enumerate() {
        let key = format!("file{at}");
        data.insert(key.clone(), file.body.content.clone().unwrap_or_default());
        items.push(json!({"key": key, "path": path}));
    }
    let mut spec = json!({
        "dockerfile": {"inline": dockerfile},
        "output": {"images": [image]},
        "args": build.args.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>(),
        "labels": build.labels,
        "timeout": "5m",
    });
    let meta = json!({"name": name});
    let mut all = Vec::new();
    if !items.is_empty() {
        spec["source"] = json!({"configMap": {"name": name, "items": items}});
        all.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}));
    }
    if let Some(target) = &build.target {
        spec["target"] = json!(target);
    }
    if build.no_cache == Some(NoCache::All(true)) {
        spec["cache"] = json!({"noCache": true});
    }
    if !build.secrets.is_empty() {
        // An id may hold letters that a Secret's key may not.
        let keys: Vec<String> = (0..build.secrets.len()).map(|at| format!("secret{at}")).collect();
        spec["secrets"] = build
            .secrets
            .keys()
            .zip(&keys)
            .map(|(id, key)| json!({"id": id, "secretRef": {"name": name, "key": key}}))
            .collect();
        let values: BTreeMap<&String, &String> = keys.iter().zip(build.secrets.values()).collect();
        all.push(json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": values}));
    }
    all.push(json!({
        "apiVersion": "slipway.build/v1alpha1", "kind": "ImageBuild", "metadata": meta, "spec": spec,
    }));
    json!({"apiVersion": "v1", "kind": "List", "items": all})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_where_a_dockerfile_names_images() {
        let images = BTreeMap::from([("busybox".to_owned(), "r:5000/b:1".to_owned())]);
        let text = "FROM busybox AS a\nfrom --platform=$X busybox\nCOPY --from=busybox /x /\n\
                    RUN --mount=type=bind,from=busybox,target=/b echo busybox\nFROM busyboxes\n";
        assert_eq!(
            with_images(text, &images),
            "FROM r:5000/b:1 AS a\nfrom --platform=$X r:5000/b:1\nCOPY --from=r:5000/b:1 /x /\n\
             RUN --mount=type=bind,from=r:5000/b:1,target=/b echo busybox\nFROM busyboxes\n"
        );
    }

    #[test]
    fn what_a_config_map_cannot_hold_is_not_asked_for() {
        let suitable = |line: &str| unsuitable(&Case::parse(line).unwrap()).is_none();
        assert!(suitable(
            r#"{"id": "a", "files": {"d/f": "x"}, "dockerfile": "FROM busybox\n"}"#
        ));
        for line in [
            r#"{"id": "a", "files": {"f": {"content": "x", "mode": "0755"}}, "dockerfile": "FROM busybox\n"}"#,
            r#"{"id": "a", "files": {"l": {"symlink": "x"}}, "dockerfile": "FROM busybox\n"}"#,
            r#"{"id": "a", "dockerfile": "FROM busybox\n", "then": [{}]}"#,
            r#"{"id": "a", "dockerfile": "ARG B=busybox\nFROM $B\n"}"#,
            r#"{"id": "a", "dockerfile": "FROM busybox\n", "expect": {"log_contains": "x"}}"#,
        ] {
            assert!(!suitable(line), "{line}");
        }
    }
}
