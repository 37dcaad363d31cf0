use serde_json::{Value, json};

use slipway_plan::Sharing;

use super::*;
use crate::{fixtures, validate};

fn config() -> Config {
    Config::parse(
        "runner:\n  image: r.example.com/runner:1\n  imagePullSecrets: [{name: chart-pull}]\n  resources: {limits: {memory: 1Gi}}\n  nodeSelector: {pool: builders}\n  storeSizeLimit: 20Gi\nregistries: [{host: 'r.example.com', insecure: true}]\n",
    )
    .unwrap()
}

fn unseen() -> Cluster<'static> {
    Cluster {
        nodes: None,
        probe: None,
    }
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
        "cache": {"noCache": false, "noCacheStages": ["build"], "from": ["r.example.com/main"], "scope": "pr-1", "mode": "min"},
    });
    serde_json::from_value(build).unwrap()
}

fn stage_pod(build: &ImageBuild, secrets: &[&str], platform: &str) -> Value {
    let config = config();
    let maker = Maker {
        config: &config,
        build,
        run: 1,
        cluster: unseen(),
    };
    let mut stage = fixtures::stage("build", &[]);
    stage.platform = platform.parse().unwrap();
    stage.secrets = secrets.iter().map(ToString::to_string).collect();
    serde_json::to_value(maker.stage_pod(&fixtures::digest(9), &stage, 2, 0, &[])).unwrap()
}

fn plan_pod(build: &ImageBuild) -> Value {
    let config = config();
    serde_json::to_value(
        Maker {
            config: &config,
            build,
            run: 1,
            cluster: unseen(),
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
fn the_weaker_mode_gives_up_the_user_namespace_and_nothing_else() {
    let build = fixtures::build();
    let pod = |mode| {
        let mut config = config();
        config.isolation.mode = mode;
        let maker = Maker {
            config: &config,
            build: &build,
            run: 1,
            cluster: unseen(),
        };
        let pod = maker.stage_pod(&fixtures::digest(9), &fixtures::stage("build", &[]), 1, 0, &[]);
        serde_json::to_value(pod).unwrap()
    };
    let mut usual = pod(crate::config::IsolationMode::UserNamespace);
    let weaker = pod(crate::config::IsolationMode::Privileged);
    assert_eq!(usual["spec"]["hostUsers"], false);
    usual["spec"].as_object_mut().unwrap().remove("hostUsers");
    assert_eq!(usual, weaker);
}

#[test]
fn what_holds_a_failed_step_shares_the_store_and_nothing_secret() {
    let mut build = full();
    build.spec.debug = Some(slipway_crd::DebugOptions {
        hold_failed: Some("15m".into()),
    });
    // `stage_pod` makes the second attempt.
    for (retries, args) in [(2, &["--hold"][..]), (1, &["--hold", "--last-attempt"])] {
        build.spec.retries = retries;
        let pod = stage_pod(&build, &["npm"], "linux/amd64");
        let [runner, holder] = pod["spec"]["containers"].as_array().unwrap().as_slice() else {
            panic!("two containers")
        };
        let given = runner["args"].as_array().unwrap();
        assert_eq!(given[5..], args.iter().map(|arg| json!(arg)).collect::<Vec<_>>());
        assert_eq!(holder["args"], json!(["hold", "--seconds", "900"]));
        assert_eq!(holder["securityContext"], runner["securityContext"]);
        assert_eq!(holder["resources"]["limits"], runner["resources"]["limits"]);
        let mounts: Vec<_> = holder["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["name"])
            .collect();
        assert_eq!(mounts, ["store", "tmp"]);
        assert_eq!(
            pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"],
            "runner"
        );
    }
    assert_eq!(
        plan_pod(&build)["spec"]["containers"].as_array().unwrap().len(),
        1
    );
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
fn cache_mounts_are_volumes_that_others_see_in_use_and_follow() {
    let config = config();
    let mut build = full();
    build.spec.pods.affinity = serde_json::from_value(json!({
        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]},
    }))
    .unwrap();
    let maker = Maker {
        config: &config,
        build: &build,
        run: 1,
        cluster: unseen(),
    };
    let volume = |place, claim: &str, sharing, follows| CacheVolume {
        place,
        claim: claim.into(),
        sharing,
        follows,
    };
    let caches = [
        volume(0, "a", Sharing::Shared, true),
        volume(1, "a", Sharing::Locked, false),
        volume(2, "b", Sharing::Private, false),
    ];
    let pod = maker.stage_pod(
        &fixtures::digest(9),
        &fixtures::stage("build", &[]),
        1,
        0,
        &caches,
    );
    let pod = serde_json::to_value(pod).unwrap();
    let claims: Vec<_> = pod["spec"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|volume| !volume["persistentVolumeClaim"].is_null())
        .map(|volume| (volume["name"].clone(), volume["persistentVolumeClaim"].clone()))
        .collect();
    assert_eq!(
        json!(claims),
        json!([["cache-0", {"claimName": "a"}], ["cache-2", {"claimName": "b"}]])
    );
    let mounts: Vec<_> = pod["spec"]["containers"][0]["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["name"].as_str().unwrap().starts_with("cache-"))
        .cloned()
        .collect();
    assert_eq!(
        json!(mounts),
        json!([
            {"name": "cache-0", "mountPath": "/slipway/caches/0"},
            {"name": "cache-0", "mountPath": "/slipway/caches/1"},
            {"name": "cache-2", "mountPath": "/slipway/caches/2"},
        ])
    );
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["cache.slipway.build/a"], "locked");
    assert_eq!(labels["cache.slipway.build/b"], "private");
    let terms = &pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(terms[0]["topologyKey"], "zone", "what the spec asks for stays");
    assert_eq!(terms[1]["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(
        terms[1]["labelSelector"]["matchExpressions"][0]["key"],
        "cache.slipway.build/a"
    );
    assert!(terms[2].is_null());
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
    let (config, valid) = (config(), validate::validate(&build, &config().policies).unwrap());
    let args = BTreeMap::from([("VERSION".to_owned(), "1".to_owned())]);
    let request = request(&build, &valid, &args, &config);
    insta::assert_json_snapshot!("request", request);
    let maker = Maker {
        config: &config,
        build: &build,
        run: 1,
        cluster: unseen(),
    };
    let map = request_config_map(&maker, &request).unwrap();
    assert_eq!(map.metadata.name.as_deref(), Some("shop-1-request"));
    assert_eq!(map.metadata.owner_references.unwrap()[0].uid, "uid-1");
    let read: slipway_plan::protocol::Request =
        serde_json::from_str(&map.data.unwrap()[protocol::REQUEST_FILE]).unwrap();
    assert_eq!(read, request);
}
