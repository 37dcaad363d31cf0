use serde_json::{Value, json};

use super::*;
use crate::{fixtures, validate};

fn config() -> Config {
    Config::parse(
        "runner:\n  image: r.example.com/runner:1\n  imagePullSecrets: [{name: chart-pull}]\n  resources: {limits: {memory: 1Gi}}\n  nodeSelector: {pool: builders}\n  storeSizeLimit: 20Gi\nregistries: [{host: 'r.example.com', insecure: true}]\n",
    )
    .unwrap()
}

/// A build that uses everything.
fn full() -> ImageBuild {
    let mut build = serde_json::to_value(fixtures::build()).unwrap();
    build["spec"] = json!({
        "source": {"configMap": {"name": "files", "items": [{"key": "main.go", "path": "cmd/main.go"}]}},
        "dockerfile": {"path": "build/Dockerfile"},
        "target": "final",
        "args": [{"name": "VERSION", "value": "1"}],
        "labels": {"a": "b"},
        "secrets": [
            {"id": "npm", "secretRef": {"name": "npm-secret", "key": "token"}},
            {"id": "other", "secretRef": {"name": "other-secret", "key": "k"}},
        ],
        "output": {"images": ["r.example.com/shop:1"], "credentials": [{"name": "creds-a"}, {"name": "creds-b"}]},
        "pods": {
            "resources": {"limits": {"cpu": "2"}},
            "nodeSelector": {"disk": "fast", "kubernetes.io/arch": "s390x"},
            "tolerations": [{"key": "builders", "operator": "Exists"}],
            "labels": {"kueue.x-k8s.io/queue-name": "q"},
            "annotations": {"example.com/team": "shop"},
            "priorityClassName": "low",
            "runtimeClassName": "kata",
            "serviceAccountName": "builder",
            "imagePullSecrets": [{"name": "own-pull"}],
        },
        "cache": {"noCache": true},
    });
    serde_json::from_value(build).unwrap()
}

fn stage_pod(build: &ImageBuild, secrets: &[&str], platform: &str) -> Value {
    let config = config();
    let maker = Maker {
        config: &config,
        build,
        run: 1,
    };
    let mut stage = fixtures::stage("build", &[]);
    stage.platform = platform.parse().unwrap();
    stage.secrets = secrets.iter().map(ToString::to_string).collect();
    serde_json::to_value(maker.stage_pod(&fixtures::digest(9), &stage, 2)).unwrap()
}

fn plan_pod(build: &ImageBuild) -> Value {
    let config = config();
    serde_json::to_value(
        Maker {
            config: &config,
            build,
            run: 1,
        }
        .plan_pod(1),
    )
    .unwrap()
}

#[test]
fn the_pods_of_a_build_that_uses_everything() {
    let mut plan = plan_pod(&full());
    // The one thing that depends on the machine of the test.
    plan["spec"]["nodeSelector"]["kubernetes.io/arch"] = "HOST".into();
    insta::assert_yaml_snapshot!("plan_pod", plan);
    insta::assert_yaml_snapshot!("stage_pod", stage_pod(&full(), &["npm"], "linux/arm/v7"));
}

#[test]
fn no_pod_has_more_rights_than_a_build_needs() {
    for pod in [
        plan_pod(&full()),
        stage_pod(&fixtures::build(), &[], "linux/amd64"),
    ] {
        let spec = &pod["spec"];
        assert_eq!(spec["hostUsers"], false);
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["enableServiceLinks"], false);
        assert_eq!(
            spec["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(spec[host].is_null(), "{host}");
        }
        let security = &spec["containers"][0]["securityContext"];
        assert_eq!(security["privileged"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        assert!(
            spec["containers"][0]["env"].is_null(),
            "nothing leaks through the environment"
        );
        for volume in spec["volumes"].as_array().unwrap() {
            assert!(volume["hostPath"].is_null(), "{volume}");
        }
        for mount in spec["containers"][0]["volumeMounts"].as_array().unwrap() {
            let writable = mount["readOnly"] != true;
            assert_eq!(
                writable,
                ["store", "tmp"].contains(&mount["name"].as_str().unwrap()),
                "{mount}"
            );
        }
    }
}

#[test]
fn a_secret_is_only_in_the_pods_of_the_stages_that_name_it() {
    let with = stage_pod(&full(), &["npm"], "linux/amd64").to_string();
    assert!(with.contains("npm-secret") && !with.contains("other-secret"));
    assert!(
        !stage_pod(&full(), &[], "linux/amd64")
            .to_string()
            .contains("npm-secret")
    );
    assert!(!plan_pod(&full()).to_string().contains("npm-secret"));
}

#[test]
fn a_stage_runs_on_a_node_of_its_platform_whatever_else_is_asked() {
    for (platform, arch) in [
        ("linux/amd64", "amd64"),
        ("linux/arm64", "arm64"),
        ("linux/arm/v7", "arm"),
    ] {
        let pod = stage_pod(&full(), &[], platform);
        let expected = json!({"pool": "builders", "disk": "fast", "kubernetes.io/os": "linux", "kubernetes.io/arch": arch});
        assert_eq!(pod["spec"]["nodeSelector"], expected);
    }
}

#[test]
fn a_users_label_never_takes_the_place_of_ours() {
    let mut build = full();
    build
        .spec
        .pods
        .labels
        .insert(names::LABEL_RUN.into(), "99".into());
    let pod = stage_pod(&build, &[], "linux/amd64");
    assert_eq!(pod["metadata"]["labels"][names::LABEL_RUN], "1");
    assert_eq!(pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "q");
}

#[test]
fn a_request_says_what_the_spec_says_and_belongs_to_its_build() {
    let build = full();
    let (config, valid) = (config(), validate::validate(&build.spec).unwrap());
    let args = BTreeMap::from([("VERSION".to_owned(), "1".to_owned())]);
    let request = request(&build, &valid, &args, &config.registries);
    insta::assert_json_snapshot!("request", request);
    let maker = Maker {
        config: &config,
        build: &build,
        run: 1,
    };
    let map = request_config_map(&maker, &request).unwrap();
    assert_eq!(map.metadata.name.as_deref(), Some("shop-1-request"));
    assert_eq!(map.metadata.owner_references.unwrap()[0].uid, "uid-1");
    let read: slipway_plan::protocol::Request =
        serde_json::from_str(&map.data.unwrap()[protocol::REQUEST_FILE]).unwrap();
    assert_eq!(read, request);
}
