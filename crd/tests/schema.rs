//! The CRD as the types give it: fresh in the chart, documented, bounded, and its rules right and cheap. No API server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod cases;

use kube_cel::{Validator, compile_schema, estimate_rule_cost};
use serde_json::Value;

fn schema() -> Value {
    let crd = serde_json::to_value(slipway_crd::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `visit` with the path and the schema of every field below `schema`.
fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, child) in properties {
            walk(&format!("{path}.{name}"), child, visit);
        }
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&format!("{path}{suffix}"), &schema[key], visit);
        }
    }
}

/// Types of Kubernetes itself: their bounds are not ours to set, and no rule of ours walks them.
fn is_foreign(path: &str) -> bool {
    let path = path.replace(".stages{}", "");
    [
        "spec.pods.affinity",
        "spec.pods.tolerations",
        "spec.pods.topologySpreadConstraints[]",
        "spec.pods.resources",
        "status.conditions[]",
    ]
    .iter()
    .any(|foreign| path.starts_with(&format!(".{foreign}")))
}

#[test]
fn the_chart_has_this_crd() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../charts/slipway/templates/crd.yaml"
    );
    let in_chart = std::fs::read_to_string(path).unwrap_or_default();
    let fresh = slipway_crd::chart_template(&serde_yaml::to_string(&slipway_crd::crd()).unwrap());
    assert!(
        in_chart == fresh,
        "charts/slipway/templates/crd.yaml is stale: run `make generate` and commit it"
    );
}

#[test]
fn helm_takes_nothing_in_the_crd_for_a_template() {
    assert!(!serde_yaml::to_string(&slipway_crd::crd()).unwrap().contains("{{"));
}

#[test]
fn every_field_has_a_description() {
    let mut bare = Vec::new();
    walk("", &schema(), &mut |path, field| {
        let named = path
            .rsplit('.')
            .next()
            .is_some_and(|last| !last.is_empty() && !last.ends_with(['}', ']']));
        if named && !is_foreign(path) && field["description"].as_str().is_none_or(str::is_empty) {
            bare.push(path.to_owned());
        }
    });
    assert_eq!(bare, [""; 0], "fields without a doc comment");
}

#[test]
fn every_list_of_the_spec_is_bounded() {
    let mut unbounded = Vec::new();
    walk("", &schema()["properties"]["spec"], &mut |path, field| {
        let path = format!(".spec{path}");
        let bound = match field["type"].as_str() {
            Some("array") => "maxItems",
            Some("object") if field["additionalProperties"].is_object() => "maxProperties",
            _ => return,
        };
        if !is_foreign(&path) && field[bound].is_null() {
            unbounded.push(path);
        }
    });
    assert_eq!(unbounded, [""; 0], "lists without a bound");
}

#[test]
fn every_text_that_a_rule_reads_is_bounded() {
    let mut unbounded = Vec::new();
    walk("", &schema()["properties"]["spec"], &mut |path, field| {
        if field["x-kubernetes-validations"].is_array()
            && field["type"] == "string"
            && field["maxLength"].is_null()
        {
            unbounded.push(path.to_owned());
        }
        let ruled_list = field["x-kubernetes-validations"].is_array() && field["type"] == "array";
        if ruled_list && field["items"]["type"] == "string" && field["items"]["maxLength"].is_null() {
            unbounded.push(format!("{path}[]"));
        }
    });
    assert_eq!(unbounded, [""; 0], "texts without a bound");
}

#[test]
fn no_rule_costs_what_an_api_server_would_refuse() {
    let mut found = 0;
    let mut warnings = Vec::new();
    walk("", &schema(), &mut |path, field| {
        for rule in field["x-kubernetes-validations"].as_array().into_iter().flatten() {
            found += 1;
            let rule = rule["rule"].as_str().unwrap();
            for warning in estimate_rule_cost(rule, &compile_schema(field)) {
                warnings.push(format!("{path}: {warning:?}"));
            }
        }
    });
    assert!(
        found >= 15,
        "only {found} rules found: does the walk still see them?"
    );
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn every_rule_says_field_and_remedy() {
    walk("", &schema(), &mut |path, field| {
        for rule in field["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(message.starts_with("spec."), "{path}: {message}");
            assert!(message.len() > 60, "{path}: names no remedy: {message}");
        }
    });
}

#[test]
fn the_rules_accept_and_refuse_what_they_should() {
    let schema = schema();
    for case in cases::all().into_iter().filter(|case| !case.by_schema) {
        let object = serde_json::json!({"metadata": {"name": "x"}, "spec": case.spec});
        let result = Validator::new().validate(&schema, &object, None);
        match (case.refused, result) {
            (None, Ok(())) => {}
            (Some(part), Err(errors)) => {
                let text = format!("{errors:?}");
                assert!(text.contains(part), "{}: {part:?} is not in {text}", case.name);
            }
            (None, Err(errors)) => panic!("{} {}: refused: {errors:?}", case.name, case.spec),
            (Some(part), Ok(())) => {
                panic!("{} {}: accepted, not refused with {part:?}", case.name, case.spec)
            }
        }
    }
}

#[test]
fn a_spec_of_two_fields_has_all_defaults() {
    let spec: slipway_crd::ImageBuildSpec =
        serde_json::from_value(serde_json::json!({"output": {"images": ["r.example.com/a:1"]}})).unwrap();
    assert_eq!(spec.platforms, ["linux/amd64"]);
    assert_eq!(spec.dockerfile.path.as_deref(), Some("Dockerfile"));
    assert_eq!(
        (spec.timeout.as_str(), spec.retries, spec.suspend),
        ("1h", 2, false)
    );
    let defaults = &schema()["properties"]["spec"]["properties"];
    assert_eq!(
        defaults["platforms"]["default"],
        serde_json::json!(["linux/amd64"])
    );
    assert_eq!(defaults["timeout"]["default"], "1h");
    assert_eq!(defaults["retries"]["default"], 2);
    assert_eq!(
        defaults["dockerfile"]["default"],
        serde_json::json!({"path": "Dockerfile"})
    );
}
