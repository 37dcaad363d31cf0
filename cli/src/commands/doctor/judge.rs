//! What was found, judged. Pure.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Node},
    storage::v1::StorageClass,
};
use serde::Serialize;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// Builds run, with something less.
    Warn,
    /// Builds do not run, or not all.
    Bad,
    /// It could not be seen.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What.
    pub(super) name: &'static str,
    /// How it is.
    pub(super) verdict: Verdict,
    /// What was found, and what to do.
    pub(super) detail: String,
}

impl Check {
    pub(super) fn new(name: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict,
            detail: detail.into(),
        }
    }
}

/// The operator's Deployments, of all namespaces.
pub(super) fn operator(found: &[Deployment]) -> Check {
    let name = "operator";
    let Some(deployment) = found.first() else {
        return Check::new(
            name,
            Verdict::Bad,
            "no Deployment with the label app.kubernetes.io/name=slipway-operator; install the chart",
        );
    };
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    if found.len() > 1 {
        return Check::new(
            name,
            Verdict::Warn,
            format!("{} Deployments; only one may watch a namespace", found.len()),
        );
    }
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let ready = deployment
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0);
    let (verdict, advice) = match ready {
        0 => (
            Verdict::Bad,
            format!("; kubectl --namespace {namespace} logs -l app.kubernetes.io/name=slipway-operator"),
        ),
        ready if ready < wanted => (Verdict::Warn, String::new()),
        _ => (Verdict::Good, String::new()),
    };
    Check::new(
        name,
        verdict,
        format!("{ready} of {wanted} replicas ready in {namespace}{advice}"),
    )
}

/// Whether nodes give pods user namespaces, as far as versions tell: KEP-127 wants Kubernetes 1.33 (on by default), Linux
/// 6.3 (idmapped tmpfs), containerd 2.0 or CRI-O 1.25.
pub(super) fn user_namespaces(version: &str, nodes: &[Node]) -> Check {
    let name = "user namespaces";
    if numbers(version) < (1, 33) {
        return Check::new(
            name,
            Verdict::Bad,
            format!("Kubernetes {version} has them not on by default; 1.33 or later is needed"),
        );
    }
    let mut fit = 0;
    let mut unfit = Vec::new();
    for node in nodes {
        let node_name = node.metadata.name.as_deref().unwrap_or_default();
        let Some(info) = node.status.as_ref().and_then(|status| status.node_info.as_ref()) else {
            continue;
        };
        let (runtime, runtime_version) = info
            .container_runtime_version
            .split_once("://")
            .unwrap_or_default();
        let runtime_fits = match runtime {
            "containerd" => numbers(runtime_version) >= (2, 0),
            "cri-o" => numbers(runtime_version) >= (1, 25),
            _ => false,
        };
        if info.operating_system != "linux" {
            continue;
        }
        if numbers(&info.kernel_version) < (6, 3) {
            unfit.push(format!(
                "{node_name}: Linux {} (6.3 is needed)",
                info.kernel_version
            ));
        } else if !runtime_fits {
            unfit.push(format!(
                "{node_name}: {} (containerd 2.0 or CRI-O 1.25 is needed)",
                info.container_runtime_version
            ));
        } else {
            fit += 1;
        }
    }
    match (fit, unfit.as_slice()) {
        (0, []) => Check::new(name, Verdict::Unknown, "no Linux node"),
        (1, []) => Check::new(name, Verdict::Good, "the one node has what they need"),
        (n, []) => Check::new(name, Verdict::Good, format!("{n} nodes have what they need")),
        (0, unfit) => Check::new(
            name,
            Verdict::Bad,
            format!(
                "no node has what they need: {}; see docs/security.md",
                unfit.join("; ")
            ),
        ),
        (n, unfit) => Check::new(
            name,
            Verdict::Warn,
            format!(
                "{n} nodes have what they need, others not: {}; keep builds off them by spec.pods.nodeSelector",
                unfit.join("; ")
            ),
        ),
    }
}

/// The two first numbers of a version: `v1.37.2`, `6.18.0-cloud`, `2.4.2`.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Whether a namespace lets runner pods in. They add capabilities that act inside their user namespace, which Pod Security's
/// `baseline` does not know to be harmless.
pub(super) fn pod_security(namespace: &Namespace) -> Check {
    let labels = namespace.metadata.labels.as_ref();
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    match labels
        .and_then(|labels| labels.get("pod-security.kubernetes.io/enforce"))
        .map(String::as_str)
    {
        Some(level @ ("baseline" | "restricted")) => Check::new(
            "namespace",
            Verdict::Bad,
            format!(
                "{name} enforces Pod Security {level}, which refuses the pods that build; \
                 kubectl label namespace {name} pod-security.kubernetes.io/enforce=privileged --overwrite (docs/security.md says why)"
            ),
        ),
        _ => Check::new(
            "namespace",
            Verdict::Good,
            format!("{name} lets the pods in that build"),
        ),
    }
}

/// Where cache mounts can be kept.
pub(super) fn storage(classes: &[StorageClass]) -> Check {
    let is_default = |class: &&StorageClass| {
        let annotations = class.metadata.annotations.as_ref();
        annotations.is_some_and(|all| {
            all.get("storageclass.kubernetes.io/is-default-class")
                .is_some_and(|value| value == "true")
        })
    };
    let names: Vec<&str> = classes
        .iter()
        .filter_map(|class| class.metadata.name.as_deref())
        .collect();
    match (classes.iter().find(is_default), names.as_slice()) {
        (Some(class), _) => Check::new(
            "storage class",
            Verdict::Good,
            format!(
                "{} is the default",
                class.metadata.name.as_deref().unwrap_or_default()
            ),
        ),
        (None, []) => Check::new(
            "storage class",
            Verdict::Warn,
            "none: cache mounts do not outlive their pod",
        ),
        (None, names) => Check::new(
            "storage class",
            Verdict::Warn,
            format!(
                "none is the default; name one in spec.cache.mounts or the chart: {}",
                names.join(", ")
            ),
        ),
    }
}

/// What the user may not do.
pub(super) fn rights(namespace: &str, missing: &[String]) -> Check {
    if missing.is_empty() {
        return Check::new(
            "your rights",
            Verdict::Good,
            format!("all that the commands need in {namespace}"),
        );
    }
    Check::new(
        "your rights",
        Verdict::Warn,
        format!("in {namespace} you may not: {}", missing.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, kernel: &str, runtime: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "status": {"nodeInfo": {
                "kernelVersion": kernel, "containerRuntimeVersion": runtime, "operatingSystem": "linux", "architecture": "amd64",
                "bootID": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "osImage": "", "systemUUID": "",
            }},
        }))
        .unwrap()
    }

    #[test]
    fn user_namespaces_need_kubernetes_kernel_and_runtime() {
        let good = node("a", "6.18.0-cloud-amd64", "containerd://2.4.2");
        let old_kernel = node("b", "5.15.0", "containerd://2.0.0");
        let old_runtime = node("c", "6.3.0", "containerd://1.7.20");
        let crio = node("d", "6.6.1", "cri-o://1.33.0");
        for (version, nodes, verdict, part) in [
            ("v1.37.2", vec![good.clone(), crio], Verdict::Good, "2 nodes"),
            (
                "v1.37.2",
                vec![good.clone(), old_kernel.clone()],
                Verdict::Warn,
                "b: Linux 5.15.0",
            ),
            (
                "v1.37.2",
                vec![old_runtime, old_kernel],
                Verdict::Bad,
                "c: containerd://1.7.20",
            ),
            ("v1.32.9", vec![good], Verdict::Bad, "1.33"),
            ("v1.37.2", vec![], Verdict::Unknown, "no Linux node"),
        ] {
            let check = user_namespaces(version, &nodes);
            assert_eq!(check.verdict, verdict, "{}", check.detail);
            assert!(check.detail.contains(part), "{}", check.detail);
        }
    }

    fn deployment(ready: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "slipway", "namespace": "slipway-system"},
            "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"readyReplicas": ready},
        }))
        .unwrap()
    }

    #[test]
    fn an_operator_is_there_once_and_ready() {
        assert_eq!(operator(&[]).verdict, Verdict::Bad);
        assert_eq!(operator(&[deployment(0)]).verdict, Verdict::Bad);
        assert_eq!(operator(&[deployment(1)]).verdict, Verdict::Warn);
        assert_eq!(operator(&[deployment(2)]).verdict, Verdict::Good);
        assert_eq!(operator(&[deployment(2), deployment(2)]).verdict, Verdict::Warn);
    }

    #[test]
    fn pod_security_and_storage_are_read_from_labels_and_annotations() {
        let namespace = |labels: Value| {
            serde_json::from_value(json!({"metadata": {"name": "web", "labels": labels}})).unwrap()
        };
        let level = |level: &str| namespace(json!({"pod-security.kubernetes.io/enforce": level}));
        assert_eq!(pod_security(&namespace(json!({}))).verdict, Verdict::Good);
        assert_eq!(pod_security(&level("privileged")).verdict, Verdict::Good);
        let refused = pod_security(&level("baseline"));
        assert!(refused.verdict == Verdict::Bad && refused.detail.contains("kubectl label namespace web"));
        let class = |annotations: Value| -> StorageClass {
            serde_json::from_value(
                json!({"metadata": {"name": "fast", "annotations": annotations}, "provisioner": "x"}),
            )
            .unwrap()
        };
        let default = class(json!({"storageclass.kubernetes.io/is-default-class": "true"}));
        assert_eq!(storage(&[default]).verdict, Verdict::Good);
        let other = storage(&[class(json!({}))]);
        assert!(other.verdict == Verdict::Warn && other.detail.contains("fast"));
        assert_eq!(storage(&[]).verdict, Verdict::Warn);
        assert_eq!(rights("web", &["create pods/log".into()]).verdict, Verdict::Warn);
    }
}
