use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::json;

use super::*;
use crate::fixtures;

fn secret(key: &str) -> Secret {
    Secret {
        data: Some(BTreeMap::from([(key.to_owned(), ByteString(Vec::new()))])),
        ..Secret::default()
    }
}

fn map(key: &str, value: &str) -> ConfigMap {
    ConfigMap {
        data: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    }
}

#[test]
fn the_first_thing_that_is_not_there_is_named_with_its_field_and_its_remedy() {
    let (npm, credentials, files) = (secret("token"), secret(DOCKER_CONFIG), map("version", "1.4"));
    let reference = |name: &str, key: &str| json!({"name": name, "key": key});
    let arg = |name: &str, key: &str| json!([{"name": "V", "valueFrom": {"configMapKeyRef": reference(name, key)}}]);
    let secrets = |name: &str, key: &str| json!([{"id": "npm", "secretRef": reference(name, key)}]);
    let output = |name: &str| json!({"images": ["r/a:1"], "credentials": [{"name": name}]});
    let source =
        |name: &str, key: &str| json!({"configMap": {"name": name, "items": [{"key": key, "path": "f"}]}});
    for (field, value, missing) in [
        ("secrets", secrets("npm", "token"), None),
        (
            "secrets",
            secrets("gone", "token"),
            Some((reasons::SECRET_NOT_FOUND, "Secret team/gone; create it")),
        ),
        (
            "secrets",
            secrets("npm", "gone"),
            Some((reasons::SECRET_NOT_FOUND, "Secret team/npm has no key gone")),
        ),
        ("output", output("credentials"), None),
        (
            "output",
            output("gone"),
            Some((
                reasons::SECRET_NOT_FOUND,
                "spec.output.credentials: there is no Secret team/gone",
            )),
        ),
        (
            "output",
            output("npm"),
            Some((
                reasons::CREDENTIALS_INVALID,
                "kubectl create secret docker-registry",
            )),
        ),
        ("source", source("files", "version"), None),
        (
            "source",
            source("gone", "version"),
            Some((reasons::CONFIG_MAP_NOT_FOUND, "ConfigMap team/gone; create it")),
        ),
        (
            "source",
            source("files", "gone"),
            Some((reasons::CONFIG_MAP_NOT_FOUND, "has no key gone")),
        ),
        ("args", arg("files", "version"), None),
        (
            "args",
            arg("files", "gone"),
            Some((reasons::CONFIG_MAP_NOT_FOUND, "spec.args[V]")),
        ),
    ] {
        let mut build = serde_json::to_value(fixtures::build()).unwrap();
        build["spec"][field] = value.clone();
        let build: ImageBuild = serde_json::from_value(build).unwrap();
        let mut args = Args::new();
        let secrets = |name: &str| match name {
            "npm" => Some(&npm),
            "credentials" => Some(&credentials),
            _ => None,
        };
        let result = check(
            &build,
            "team",
            secrets,
            |name| (name == "files").then_some(&files),
            &mut args,
        );
        match (missing, result) {
            (None, Ok(())) => {}
            (Some((reason, part)), Err(fault)) => {
                assert_eq!(fault.reason, reason, "{value}");
                assert!(fault.message.contains(part), "{}", fault.message);
            }
            (missing, result) => panic!("{field} {value}: {missing:?}, but {result:?}"),
        }
        if field == "args" && missing.is_none() {
            assert_eq!(args["V"], "1.4");
        }
    }
}
