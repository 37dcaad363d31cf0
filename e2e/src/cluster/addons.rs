//! What a cluster needs besides Kubernetes: DNS, a storage class, and the rights of both. Both run as programs of the
//! machine: no image to make, no pod to wait for.

use std::fs;

use anyhow::Result;
use serde_json::json;

use super::control::{component, shown};
use crate::{
    config::{Layout, REGISTRY_HOST, Spec, write_atomically},
    images,
    pki::Authority,
    process::Program,
    tools::Tools,
};

/// A node's label: the architecture that it is to claim. The kubelet says every few seconds what its own program was made
/// for; a policy of the API server changes that into this.
pub const CLAIMED_ARCHITECTURE: &str = "slipway.build/claimed-arch";

/// CoreDNS on the machine's bridge address: services, `*.slipway.test`, and nothing else unless the internet is allowed.
pub(super) fn coredns(layout: &Layout, spec: &Spec, tools: &Tools, ca: &Authority) -> Result<Program> {
    let kubeconfig = component(layout, spec, ca, "coredns", "slipway:coredns", None)?;
    add_host(layout, REGISTRY_HOST, &spec.host().to_string())?;
    let host = spec.host();
    // A name that cannot be is refused at once, instead of after a resolver's patience.
    let world = if spec.internet {
        "forward . /etc/resolv.conf\n  cache 30"
    } else {
        "template ANY ANY {\n    rcode NXDOMAIN\n  }"
    };
    let config = format!(
        "cluster.local:53 in-addr.arpa:53 {{
  bind {host}
  errors
  ready 127.0.0.1:{ready}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig}
    pods insecure
    ttl 1
  }}
}}
slipway.test:53 {{
  bind {host}
  errors
  hosts {hosts} slipway.test {{
    ttl 1
    reload 1s
  }}
}}
.:53 {{
  bind {host}
  errors
  {world}
}}
",
        ready = spec.ports.dns_ready,
        hosts = shown(layout.hosts_file()),
    );
    let file = layout.root.join("dns/Corefile");
    write_atomically(&file, config.as_bytes())?;
    let mut program = Program::new("coredns", tools.file("coredns")?, ["-conf".into(), shown(&file)]);
    program.config = config;
    Ok(program)
}

/// Puts a name into CoreDNS's hosts file, in place of what it was before.
pub(super) fn add_host(layout: &Layout, name: &str, address: &str) -> Result<()> {
    let file = layout.hosts_file();
    let old = fs::read_to_string(&file).unwrap_or_default();
    let mut lines: Vec<&str> = old
        .lines()
        .filter(|l| l.split_whitespace().nth(1) != Some(name))
        .collect();
    let line = format!("{address} {name}");
    lines.push(&line);
    let text = lines.join("\n") + "\n";
    if text == old {
        return Ok(());
    }
    write_atomically(&file, text.as_bytes())
}

/// The provisioner of the default storage class.
pub(super) fn local_path(layout: &Layout, spec: &Spec, tools: &Tools, ca: &Authority) -> Result<Program> {
    let kubeconfig = component(layout, spec, ca, "local-path", "slipway:local-path", None)?;
    let file = layout.root.join("local-path.json");
    write_atomically(&file, local_path_config(layout)?.as_bytes())?;
    let config = shown(&file);
    let args = [
        "start",
        "--config",
        &config,
        "--kubeconfig",
        &kubeconfig,
        "--namespace",
        "kube-system",
    ]
    .into_iter()
    .chain([
        "--helper-image",
        images::BUSYBOX,
        "--service-account-name",
        "default",
    ])
    .map(str::to_owned);
    let mut program = Program::new(
        "local-path-provisioner",
        tools.file("local-path-provisioner")?,
        args,
    );
    // The provisioner reads this folder's config for changes.
    program
        .env
        .push(("CONFIG_MOUNT_PATH".into(), shown(&layout.root)));
    Ok(program)
}

fn local_path_config(layout: &Layout) -> Result<String> {
    let paths = [layout.root.join("volumes")];
    Ok(serde_json::to_string(
        &json!({"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": paths}]}),
    )?)
}

/// Everything of the add-ons that is stored in the API server: a list for `kubectl apply`.
pub(super) fn manifests(layout: &Layout) -> Result<String> {
    let role = |name: &str, rules: serde_json::Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let binding = |name: &str| {
        let api = "rbac.authorization.k8s.io";
        json!({
            "apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": api, "kind": "User", "name": name}],
        })
    };
    let read = ["get", "list", "watch"];
    let all = ["get", "list", "watch", "create", "patch", "update", "delete"];
    let helper = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "helper-pod"},
        "spec": {
            "automountServiceAccountToken": false,
            // A volume's folder is waited for by a pod that is waited for: no grace when it goes.
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "helper-pod", "image": images::BUSYBOX, "imagePullPolicy": "IfNotPresent"}],
        },
    });
    let admission = "admissionregistration.k8s.io/v1";
    let claim = "slipway-claimed-architecture";
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": admission, "kind": "MutatingAdmissionPolicy", "metadata": {"name": claim},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["nodes", "nodes/status"],
                }]},
                "matchConditions": [{
                    "name": "claims",
                    "expression": format!("has(object.metadata.labels) && '{CLAIMED_ARCHITECTURE}' in object.metadata.labels"),
                }],
                "failurePolicy": "Fail", "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": format!(
                    "[JSONPatch{{op: 'add', path: '/metadata/labels/kubernetes.io~1arch', value: object.metadata.labels['{CLAIMED_ARCHITECTURE}']}}]"
                )}}],
            },
        },
        {
            "apiVersion": admission, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": claim},
            "spec": {"policyName": claim},
        },
        role("slipway:coredns", json!([
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces", "endpoints"], "verbs": read},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        ])),
        binding("slipway:coredns"),
        role("slipway:local-path", json!([
            {"apiGroups": [""], "resources": ["nodes", "persistentvolumeclaims", "configmaps", "pods/log"], "verbs": read},
            {"apiGroups": [""], "resources": ["persistentvolumes", "pods", "endpoints"], "verbs": all},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": all},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
            {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": read},
        ])),
        binding("slipway:local-path"),
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "local-path-config", "namespace": "kube-system"},
            "data": {
                "config.json": local_path_config(layout)?,
                "setup": "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"$VOL_DIR\"\n",
                "teardown": "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n",
                "helperPod.yaml": serde_json::to_string(&helper)?,
            },
        },
        {
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete",
        },
    ]});
    Ok(serde_json::to_string(&list)?)
}
