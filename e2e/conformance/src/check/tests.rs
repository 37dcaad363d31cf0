//! Each check must be able to fail: every expectation is met once and missed once.

use serde_json::json;

use super::*;
use crate::{case::Case, tree, wording};

const ROOT: &str = r#"[{"name": "d", "type": "dir", "mode": "0750"}, {"name": "d/f", "content": "text", "uid": 7,
    "gid": 8, "mtime": 9}, {"name": "d/g", "type": "hardlink", "link": "d/f"}, {"name": "l", "type": "symlink",
    "link": "d"}, {"name": ".wh.gone"}]"#;

fn base() -> Base {
    Base {
        dir: "/none".into(),
        digest: String::new(),
        layers: vec!["sha256:other".to_owned()],
        diff_ids: vec!["sha256:other".to_owned()],
        history: 2,
    }
}

/// An OCI layout of one layer.
fn layout(dir: &Path) {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |data: &[u8]| {
        let digest = crate::base::digest(data);
        std::fs::write(blobs.join(&digest[7..]), data).unwrap();
        digest
    };
    let entries: Vec<crate::case::TarEntry> = serde_json::from_str(ROOT).unwrap();
    let raw = tree::archive(&entries).unwrap();
    let layer = put(&tree::compress(&raw, "gz").unwrap());
    let config = put(
        json!({"os": "linux", "architecture": "amd64", "config": {"Env": ["A=1"], "User": "u"},
            "rootfs": {"diff_ids": [crate::base::digest(&raw)]},
            "history": [{"created_by": "COPY x /", "created": "2020"}, {"created_by": "ENV A=1", "empty_layer": true}]})
        .to_string()
        .as_bytes(),
    );
    let manifest = put(
        json!({"config": {"digest": config}, "layers": [{"digest": layer}], "annotations": {"k": "v"}})
            .to_string()
            .as_bytes(),
    );
    let index = json!({"manifests": [{"digest": manifest, "annotations": {"org.opencontainers.image.ref.name": "t"}}]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

fn errors_of(expect: &str, log: &str, success: bool) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    layout(dir.path());
    let case = Case::parse(&format!(r#"{{"id": "a", "expect": {expect}}}"#)).unwrap();
    let mut before = FileSystem::new();
    before.insert(
        "/d/f".to_owned(),
        image::Entry {
            data: Some(b"text".to_vec()),
            ..image::Entry::default()
        },
    );
    before.insert(
        "/l".to_owned(),
        image::Entry {
            data: Some(b"other".to_vec()),
            ..image::Entry::default()
        },
    );
    let first = Result1 {
        files: before,
        digest: Some("sha256:else".to_owned()),
    };
    let base = base();
    let know = Knowledge {
        base: &base,
        table: wording::TABLE,
    };
    let outcome = Outcome {
        success,
        broken: None,
        log: log.to_owned(),
    };
    check(know, &case.first, &outcome, dir.path(), Some(&first)).0
}

#[test]
// A table of all expectations is long and still one thing.
#[allow(clippy::too_many_lines)]
fn every_expectation_of_a_result_can_hold_and_can_fail() {
    let table = [
        (
            r#"{"files": {"/d/f": "text"}}"#,
            r#"{"files": {"/d/f": "texts"}}"#,
        ),
        (
            r#"{"files": {"/d/f": {"content_matches": "^t"}}}"#,
            r#"{"files": {"/d/f": {"content_matches": "^e"}}}"#,
        ),
        (
            r#"{"files": {"/d/f": {"size": 4}}}"#,
            r#"{"files": {"/d/f": {"size": 5}}}"#,
        ),
        (
            r#"{"files": {"/d": {"type": "dir"}}}"#,
            r#"{"files": {"/d": {"type": "file"}}}"#,
        ),
        (
            r#"{"files": {"/d": {"mode": "0750"}}}"#,
            r#"{"files": {"/d": {"mode": "0755"}}}"#,
        ),
        (
            r#"{"files": {"/d/f": {"uid": 7}}}"#,
            r#"{"files": {"/d/f": {"uid": 0}}}"#,
        ),
        (
            r#"{"files": {"/d/f": {"gid": 8}}}"#,
            r#"{"files": {"/d/f": {"gid": 7}}}"#,
        ),
        (
            r#"{"files": {"/d/f": {"mtime": 9}}}"#,
            r#"{"files": {"/d/f": {"mtime": 8}}}"#,
        ),
        (
            r#"{"files": {"/l": {"link": "d"}}}"#,
            r#"{"files": {"/l": {"link": "e"}}}"#,
        ),
        (
            r#"{"files": {"/d/g": {"same_inode_as": "/d/f"}}}"#,
            r#"{"files": {"/d/g": {"same_inode_as": "/l"}}}"#,
        ),
        (
            r#"{"files": {"/d/f": {"same_inode_as": "/d/g"}}}"#,
            r#"{"files": {"/l": {"same_inode_as": "/d/g"}}}"#,
        ),
        (
            r#"{"files": {"/no": {"absent": true}}}"#,
            r#"{"files": {"/l": {"absent": true}}}"#,
        ),
        (r#"{"files": {"/l": {}}}"#, r#"{"files": {"/no": {}}}"#),
        (
            r#"{"files": {"/d/f": {"same_as_first": true}}}"#,
            r#"{"files": {"/l": {"same_as_first": true}}}"#,
        ),
        (
            r#"{"files": {"/l": {"differs_from_first": true}}}"#,
            r#"{"files": {"/d/f": {"differs_from_first": true}}}"#,
        ),
        (
            r#"{"files": {"/l": {"differs_from_first": true}}}"#,
            r#"{"files": {"/d": {"differs_from_first": true}}}"#,
        ),
        (
            r#"{"files": {"/d/f": {"sha256": "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"}}}"#,
            r#"{"files": {"/d/f": {"sha256": "00"}}}"#,
        ),
        (r#"{"config": {"User": "u"}}"#, r#"{"config": {"User": "v"}}"#),
        (r#"{"config": {"Cmd": null}}"#, r#"{"config": {"User": null}}"#),
        (r#"{"config": {"Env": ["A=1"]}}"#, r#"{"config": {"Env": []}}"#),
        (r#"{"image": {"os": "linux"}}"#, r#"{"image": {"author": "me"}}"#),
        (
            r#"{"manifest": {"annotations": {"k": "v"}}}"#,
            r#"{"manifest": {"annotations": {"k": "w"}}}"#,
        ),
        (
            r#"{"index": {"manifests": null}}"#,
            r#"{"index": {"schemaVersion": 2}}"#,
        ),
        (r#"{"env_has": ["A=1"]}"#, r#"{"env_has": ["A=2"]}"#),
        (r#"{"env_lacks": ["B"]}"#, r#"{"env_lacks": ["A"]}"#),
        (r#"{"layers": 1}"#, r#"{"layers": 2}"#),
        (
            r#"{"layer_files": {"0": {"has": ["/.wh.gone"]}}}"#,
            r#"{"layer_files": {"0": {"has": ["/x"]}}}"#,
        ),
        (
            r#"{"layer_files": {"0": {"lacks": ["/x"]}}}"#,
            r#"{"layer_files": {"0": {"lacks": ["d/f"]}}}"#,
        ),
        (
            r#"{"layer_files": {"0": {"only": ["d", "d/f", "d/g", "l", ".wh.gone"]}}}"#,
            r#"{"layer_files": {"0": {"only": ["d"]}}}"#,
        ),
        (r#"{"layer_files": {"0": {}}}"#, r#"{"layer_files": {"1": {}}}"#),
        (
            r#"{"history": ["COPY", {"is": "ENV A=1", "empty_layer": true}]}"#,
            r#"{"history": ["COPY"]}"#,
        ),
        (
            r#"{"history": [{"created": "2020"}, {}]}"#,
            r#"{"history": [{}, {"created": "2020"}]}"#,
        ),
        (
            r#"{"history": [{"empty_layer": false}, {}]}"#,
            r#"{"history": [{"empty_layer": true}, {}]}"#,
        ),
        (
            r#"{"history": ["COPY x", {}]}"#,
            r#"{"history": [{"is": "COPY x"}, {}]}"#,
        ),
        (
            r#"{"platforms": {"linux/amd64": {"layers": 1}}}"#,
            r#"{"platforms": {"linux/amd64": {"layers": 2}}}"#,
        ),
        (
            r#"{"platforms": {"linux/amd64": {}}}"#,
            r#"{"platforms": {"linux/arm64": {}}}"#,
        ),
        (
            r#"{"index_ref_names": ["t"]}"#,
            r#"{"index_ref_names": ["t", "u"]}"#,
        ),
        ("{}", r#"{"base_layers_kept": true}"#),
        ("{}", r#"{"same_digest_as_first": true}"#),
    ];
    for (holds, fails) in table {
        // `index.manifests` is never empty: this row's good half is the absence of complaints about other keys.
        if !holds.contains("manifests") {
            assert_eq!(errors_of(holds, "", true), Vec::<String>::new(), "{holds}");
        }
        assert_eq!(errors_of(fails, "", true).len(), 1, "{fails}");
    }
}

#[test]
fn every_expectation_of_the_output_can_hold_and_can_fail() {
    let log = "#1 x\n - WARN: RuleA: a (detail) (line 3)\n - WARN: RuleA: a (detail) (line 3)\nerror: early\nmore\n\
               error: it broke\n   1 |     FROM x\n   2 | >>> RUN y\n";
    let table = [
        (
            r#"{"error_contains": "it broke"}"#,
            r#"{"error_contains": ["early"]}"#,
        ),
        (
            r#"{"error_contains": []}"#,
            r#"{"error_contains": ["it broke", "nothing"]}"#,
        ),
        (r#"{"error_matches": "it\\s+b"}"#, r#"{"error_matches": ["^it"]}"#),
        (
            r#"{"error_contains": [], "error_lines": [2]}"#,
            r#"{"error_contains": [], "error_lines": [1, 2]}"#,
        ),
        (
            r#"{"error_contains": [], "log_contains": "early"}"#,
            r#"{"error_contains": [], "log_contains": "late"}"#,
        ),
        (
            r#"{"error_contains": [], "log_lacks": "late"}"#,
            r#"{"error_contains": [], "log_lacks": "early"}"#,
        ),
        (
            r#"{"error_contains": [], "warnings": [{"rule": "RuleA", "line": 3, "detail_contains": "(detail)"}]}"#,
            r#"{"error_contains": [], "warnings": []}"#,
        ),
        (
            r#"{"error_contains": [], "warnings": [{"rule": "RuleA"}]}"#,
            r#"{"error_contains": [], "warnings": [{"rule": "RuleA"}, {"rule": "RuleA"}]}"#,
        ),
        (
            r#"{"error_contains": [], "call_output_contains": "x"}"#,
            r#"{"error_contains": [], "call_output_contains": "y y"}"#,
        ),
    ];
    for (holds, fails) in table {
        assert_eq!(errors_of(holds, log, false), Vec::<String>::new(), "{holds}");
        assert_eq!(errors_of(fails, log, false).len(), 1, "{fails}");
    }
}

#[test]
fn a_build_must_fail_or_succeed_as_expected() {
    assert_eq!(
        errors_of("{}", "error: no", false),
        ["the build failed: error: no"]
    );
    assert_eq!(errors_of(r#"{"error_contains": []}"#, "", true).len(), 1);
}

#[test]
fn a_crash_is_never_an_expected_failure() {
    let base = base();
    let know = Knowledge {
        base: &base,
        table: wording::TABLE,
    };
    let case = Case::parse(r#"{"id": "a", "expect": {"error_contains": []}}"#).unwrap();
    let outcome = Outcome {
        success: false,
        broken: Some("killed".to_owned()),
        log: String::new(),
    };
    assert_eq!(
        check(know, &case.first, &outcome, Path::new("/none"), None).0,
        ["killed"]
    );
}
