//! Specs that the rules must accept or reject, for the test without and the test with an API server.

use serde_json::{Value, json};

/// A spec and what must come of it.
pub(crate) struct Case {
    /// What is tried.
    pub name: &'static str,
    /// The spec, whole.
    pub spec: Value,
    /// A part of the message if it must be refused.
    pub refused: Option<&'static str>,
    /// The schema refuses it, not a CEL rule: only an API server sees that.
    #[allow(dead_code, reason = "the test with an API server takes all cases")]
    pub by_schema: bool,
}

fn with(pointer: &str, value: Value) -> Value {
    let mut spec = json!({
        "source": {"configMap": {"name": "files"}},
        "dockerfile": {"path": "Dockerfile"},
        "platforms": ["linux/amd64"],
        "timeout": "1h",
        "output": {"images": ["registry.example.com/team/app:1.4"]},
    });
    let mut place = &mut spec;
    for part in pointer.split('.') {
        place = &mut place[part];
    }
    *place = value;
    if let Some(object) = spec.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    spec
}

fn accept(name: &'static str, pointer: &str, value: Value) -> Case {
    Case {
        name,
        spec: with(pointer, value),
        refused: None,
        by_schema: false,
    }
}

fn refuse(name: &'static str, pointer: &str, value: Value, message: &'static str) -> Case {
    Case {
        name,
        spec: with(pointer, value),
        refused: Some(message),
        by_schema: false,
    }
}

fn refuse_by_schema(name: &'static str, pointer: &str, value: Value, message: &'static str) -> Case {
    Case {
        name,
        spec: with(pointer, value),
        refused: Some(message),
        by_schema: true,
    }
}

/// All cases.
#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn all() -> Vec<Case> {
    let mut cases = vec![
        accept("the plain case", "target", json!("final")),
        // Source and Dockerfile.
        refuse(
            "no source, no inline",
            "source",
            Value::Null,
            "spec.source: is required unless",
        ),
        refuse(
            "an empty source",
            "source",
            json!({}),
            "spec.source: give exactly one source",
        ),
        accept(
            "an inline Dockerfile beside a source",
            "dockerfile",
            json!({"inline": "FROM scratch"}),
        ),
        refuse(
            "path and inline",
            "dockerfile",
            json!({"path": "a", "inline": "FROM scratch"}),
            "spec.dockerfile: give either path",
        ),
        refuse(
            "neither path nor inline",
            "dockerfile",
            json!({}),
            "spec.dockerfile: give either path",
        ),
        accept(
            "a Dockerfile in a folder",
            "dockerfile.path",
            json!("build/Dockerfile.web"),
        ),
        refuse(
            "an absolute path",
            "dockerfile.path",
            json!("/etc/passwd"),
            "spec.dockerfile.path: must be relative",
        ),
        refuse(
            "a path that leaves",
            "dockerfile.path",
            json!("a/../../b"),
            "spec.dockerfile.path: must be relative",
        ),
        accept("a name with dots", "dockerfile.path", json!("..a/b..c")),
        accept(
            "items",
            "source.configMap.items",
            json!([{"key": "main.go", "path": "cmd/main.go"}]),
        ),
        refuse(
            "an item that leaves",
            "source.configMap.items",
            json!([{"key": "a", "path": "../a"}]),
            "items[].path: must be relative",
        ),
        // Gates.
        accept("gates", "gates", json!(["test", "Lint-2", "a_b.c"])),
        refuse(
            "a gate by number",
            "gates",
            json!(["0"]),
            "spec.gates: each must be the name of a stage",
        ),
        refuse_by_schema("a gate twice", "gates", json!(["a", "a"]), "Duplicate value"),
        // Platforms.
        accept(
            "platforms with variants",
            "platforms",
            json!([
                "linux/amd64",
                "linux/arm64",
                "linux/arm/v7",
                "linux/amd64/v3",
                "linux/riscv64"
            ]),
        ),
        accept("emulation", "emulation", json!("Never")),
        refuse_by_schema(
            "an emulation that is none",
            "emulation",
            json!("Sometimes"),
            "spec.emulation",
        ),
        accept("publishing the rest", "platformFailure", json!("PublishRest")),
        refuse_by_schema(
            "a platform failure that is none",
            "platformFailure",
            json!("Ignore"),
            "spec.platformFailure",
        ),
        accept(
            "annotations",
            "output.annotations",
            json!({"org.opencontainers.image.source": "https://git.example.com/shop"}),
        ),
        refuse(
            "an annotation without a key",
            "output.annotations",
            json!({"": "x"}),
            "spec.output.annotations: a key must have",
        ),
        refuse(
            "a platform without a system",
            "platforms",
            json!(["arm64"]),
            "spec.platforms: each must be",
        ),
        refuse(
            "a system that is not linux",
            "platforms",
            json!(["windows/amd64"]),
            "spec.platforms: each must be",
        ),
        refuse(
            "a variant that is none",
            "platforms",
            json!(["linux/arm/v9"]),
            "spec.platforms: each must be",
        ),
        refuse(
            "an architecture that is none",
            "platforms",
            json!(["linux/x64"]),
            "spec.platforms: each must be",
        ),
        refuse_by_schema("no platform", "platforms", json!([]), "spec.platforms"),
        refuse_by_schema(
            "a platform twice",
            "platforms",
            json!(["linux/arm64", "linux/arm64"]),
            "Duplicate value",
        ),
        // Images.
        accept(
            "a registry with a port",
            "output.images",
            json!([
                "localhost:5000/app:1",
                "registry.example.com/a/b/c_d-e.f:v1.2.3-rc.1"
            ]),
        ),
        accept(
            "a name of Docker Hub",
            "output.images",
            json!(["team/app:latest"]),
        ),
        refuse(
            "no tag",
            "output.images",
            json!(["registry.example.com/team/app"]),
            "spec.output.images: each must be",
        ),
        refuse(
            "a port taken for a tag",
            "output.images",
            json!(["registry.example.com:5000/app"]),
            "spec.output.images: each must be",
        ),
        refuse(
            "a digest",
            "output.images",
            json!([format!("r.example.com/app@sha256:{}", "0".repeat(64))]),
            "spec.output.images: a digest cannot be chosen",
        ),
        refuse(
            "upper case",
            "output.images",
            json!(["registry.example.com/Team/app:1"]),
            "spec.output.images: each must be",
        ),
        refuse(
            "a scheme",
            "output.images",
            json!(["https://registry.example.com/app:1"]),
            "spec.output.images: each must be",
        ),
        refuse_by_schema("no image", "output.images", json!([]), "spec.output.images"),
        refuse_by_schema(
            "17 images",
            "output.images",
            (0..17).map(|n| json!(format!("r.example.com/a:{n}"))).collect(),
            "spec.output.images",
        ),
        refuse_by_schema(
            "an image twice",
            "output.images",
            json!(["r.example.com/a:1", "r.example.com/a:1"]),
            "Duplicate value",
        ),
        // Cache.
        accept(
            "a cache repository",
            "cache",
            json!({"repository": "registry.example.com:5000/team/cache"}),
        ),
        refuse(
            "a cache with a tag",
            "cache",
            json!({"repository": "registry.example.com/team/cache:main"}),
            "spec.cache.repository: must be",
        ),
        accept(
            "everything about the cache",
            "cache",
            json!({
                "repository": "registry.example.com/team/cache",
                "from": ["registry.example.com:5000/team/main", "team/other"],
                "mode": "min",
                "scope": "pr-17",
                "noCacheStages": ["build"],
            }),
        ),
        accept(
            "no cache at all",
            "cache",
            json!({"noCache": true, "noCacheStages": []}),
        ),
        accept(
            "no cache for a stage",
            "cache",
            json!({"noCache": false, "noCacheStages": ["build"]}),
        ),
        refuse(
            "no cache for all and for some",
            "cache",
            json!({"noCache": true, "noCacheStages": ["build"]}),
            "spec.cache: give either noCache",
        ),
        refuse(
            "a cache to read from with a tag",
            "cache.from",
            json!(["registry.example.com/team/cache:main"]),
            "spec.cache.from: each must be",
        ),
        refuse_by_schema(
            "nine caches",
            "cache.from",
            (0..9).map(|n| json!(format!("r.example.com/a{n}"))).collect(),
            "spec.cache.from",
        ),
        refuse_by_schema(
            "a cache twice",
            "cache.from",
            json!(["r.example.com/a", "r.example.com/a"]),
            "Duplicate value",
        ),
        refuse(
            "a scope with a slash",
            "cache.scope",
            json!("feature/x"),
            "spec.cache.scope: must be",
        ),
        refuse_by_schema(
            "a long scope",
            "cache.scope",
            json!("a".repeat(41)),
            "spec.cache.scope",
        ),
        refuse_by_schema(
            "a mode that is none",
            "cache.mode",
            json!("all"),
            "spec.cache.mode",
        ),
        accept(
            "cache mounts",
            "cache",
            json!({"mounts": {"storageClassName": "fast.example.com", "size": "1.5Gi", "accessMode": "ReadWriteMany"}}),
        ),
        refuse(
            "a size that is none",
            "cache",
            json!({"mounts": {"size": "10GB"}}),
            "spec.cache.mounts.size: must be",
        ),
        refuse(
            "a size of nothing",
            "cache",
            json!({"mounts": {"size": "0Gi"}}),
            "spec.cache.mounts.size: must be",
        ),
        refuse(
            "a class that is none",
            "cache",
            json!({"mounts": {"storageClassName": "Fast!"}}),
            "spec.cache.mounts.storageClassName: must be",
        ),
        refuse_by_schema(
            "an access mode that is none",
            "cache",
            json!({"mounts": {"accessMode": "ReadOnlyMany"}}),
            "spec.cache.mounts.accessMode",
        ),
        // Arguments.
        accept(
            "arguments",
            "args",
            json!([{"name": "VERSION", "value": ""}, {"name": "_x1", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]),
        ),
        refuse(
            "an argument with a dash",
            "args",
            json!([{"name": "MY-ARG", "value": "x"}]),
            "spec.args[].name: must be the name of an ARG",
        ),
        refuse(
            "an argument without value",
            "args",
            json!([{"name": "A"}]),
            "spec.args[]: give either value or valueFrom",
        ),
        refuse(
            "an argument with two values",
            "args",
            json!([{"name": "A", "value": "x", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]),
            "spec.args[]: give either value or valueFrom",
        ),
        refuse_by_schema(
            "an argument twice",
            "args",
            json!([{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]),
            "Duplicate value",
        ),
        // Secrets.
        accept(
            "secrets",
            "secrets",
            json!([{"id": "npm_token", "secretRef": {"name": "npm", "key": "token"}}, {"id": "b.c-d", "secretRef": {"name": "npm", "key": "token"}}]),
        ),
        refuse(
            "an id with a slash",
            "secrets",
            json!([{"id": "../x", "secretRef": {"name": "npm", "key": "token"}}]),
            "spec.secrets[].id: must be",
        ),
        refuse(
            "an id twice",
            "secrets",
            json!([{"id": "a", "secretRef": {"name": "x", "key": "k"}}, {"id": "a", "secretRef": {"name": "y", "key": "k"}}]),
            "spec.secrets: each id may stand once",
        ),
        refuse_by_schema(
            "a secret without key",
            "secrets",
            json!([{"id": "a", "secretRef": {"name": "x"}}]),
            "secretRef.key",
        ),
        // Pods.
        accept(
            "labels of others",
            "pods",
            json!({"labels": {"kueue.x-k8s.io/queue-name": "builds"}, "nodeSelector": {"pool": "builders"}}),
        ),
        refuse(
            "labels of ours",
            "pods",
            json!({"labels": {"slipway.build/stage": "x"}}),
            "spec.pods.stages.*.labels: the prefixes",
        ),
        refuse(
            "labels of ours for claims",
            "pods",
            json!({"labels": {"cache.slipway.build/x": "locked"}}),
            "spec.pods.labels and spec.pods.stages.*.labels: the prefixes",
        ),
        refuse(
            "recommended labels",
            "pods",
            json!({"labels": {"app.kubernetes.io/managed-by": "x"}}),
            "spec.pods.stages.*.labels: the prefixes",
        ),
        accept(
            "settings of a stage",
            "pods",
            json!({"env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}], "stages": {
                "build": {"resources": {"limits": {"memory": "8Gi"}}, "nodeSelector": {"disk": "nvme"}, "labels": {"a": "b"}},
                "stage-2": {"priorityClassName": "low", "tolerations": [{"operator": "Exists"}], "env": [{"name": "A"}]},
            }, "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}]}),
        ),
        refuse(
            "labels of ours in a stage",
            "pods",
            json!({"stages": {"build": {"labels": {"slipway.build/stage": "x"}}}}),
            "spec.pods.stages.*.labels: the prefixes",
        ),
        refuse(
            "a variable with a dash",
            "pods",
            json!({"env": [{"name": "A-B", "value": "x"}]}),
            "spec.pods.env[].name: must be the name of a variable",
        ),
        refuse(
            "a stage's variable with a dash",
            "pods",
            json!({"stages": {"build": {"env": [{"name": "A-B"}]}}}),
            "spec.pods.env[].name: must be the name of a variable",
        ),
        refuse_by_schema(
            "a variable twice",
            "pods",
            json!({"env": [{"name": "A"}, {"name": "A"}]}),
            "Duplicate value",
        ),
        // Concurrency.
        accept(
            "a group",
            "concurrency",
            json!({"group": "feature_login.v2", "policy": "Latest", "successfulHistoryLimit": 3, "failedHistoryLimit": 0}),
        ),
        accept("a group of one letter", "concurrency", json!({"group": "a"})),
        refuse(
            "a group with a slash",
            "concurrency",
            json!({"group": "feature/login"}),
            "spec.concurrency.group: must be letters",
        ),
        refuse_by_schema(
            "no group",
            "concurrency",
            json!({"policy": "Queue"}),
            "spec.concurrency.group",
        ),
        refuse_by_schema(
            "a policy that is none",
            "concurrency",
            json!({"group": "a", "policy": "Replace"}),
            "spec.concurrency.policy",
        ),
        refuse_by_schema(
            "a negative history",
            "concurrency",
            json!({"group": "a", "failedHistoryLimit": -1}),
            "spec.concurrency.failedHistoryLimit",
        ),
        // Numbers.
        refuse_by_schema(
            "a factor that is a number",
            "retryMemoryFactor",
            json!(1.5),
            "spec.retryMemoryFactor",
        ),
        refuse_by_schema("11 retries", "retries", json!(11), "spec.retries"),
        refuse_by_schema(
            "a negative time to live",
            "ttlSecondsAfterFinished",
            json!(-1),
            "spec.ttlSecondsAfterFinished",
        ),
    ];
    for good in ["1s", "90s", "30m", "1h30m", "2h5m10s", "168h"] {
        cases.push(accept("a timeout", "timeout", json!(good)));
    }
    for bad in ["0s", "10", "-5m", "1d", "169h", "1m1h", "1.5h", "99999999999h"] {
        cases.push(refuse(
            "a timeout that is none",
            "timeout",
            json!(bad),
            "spec.timeout: must be a length of time",
        ));
    }
    for good in ["1.01", "1.1", "1.10", "1.5", "2", "3.25", "4", "4.00"] {
        cases.push(accept("a memory factor", "retryMemoryFactor", json!(good)));
    }
    for bad in ["1", "1.0", "1.00", "0.5", "4.1", "5", "-2", "1,5", "1.x"] {
        cases.push(refuse(
            "a memory factor that is none",
            "retryMemoryFactor",
            json!(bad),
            "spec.retryMemoryFactor: must be a factor above 1",
        ));
    }
    for good in ["1s", "15m", "24h"] {
        cases.push(accept("a time to hold", "debug", json!({"holdFailed": good})));
    }
    for bad in ["0s", "15", "25h", "1d"] {
        cases.push(refuse(
            "a time to hold that is none",
            "debug",
            json!({"holdFailed": bad}),
            "spec.debug.holdFailed: must be a length of time",
        ));
    }
    let mut no_source = with("dockerfile", json!({"inline": "FROM scratch"}));
    no_source.as_object_mut().unwrap().remove("source");
    cases.push(Case {
        name: "inline without source",
        spec: no_source,
        refused: None,
        by_schema: false,
    });
    cases
}
