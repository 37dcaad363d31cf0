//! The control plane: etcd, API server, controller manager, scheduler and registry, all in the machine's own namespaces.

use std::{fs, net::IpAddr, path::Path};

use anyhow::Result;
use serde_json::json;

use crate::{
    config::{Layout, REGISTRY_PORT, SERVICE_FIRST, SERVICE_RANGE, Spec, write_atomically},
    pki::Authority,
    process::Program,
    tools::Tools,
};

/// `--name=value` for each pair.
pub(super) fn flags<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Vec<String> {
    pairs
        .into_iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}

pub(super) fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// etcd: loopback only, clients by certificate.
pub(super) fn etcd(layout: &Layout, spec: &Spec, tools: &Tools, ca: &Authority) -> Result<Program> {
    let server = ca.issue(
        "etcd",
        "etcd",
        None,
        &["localhost"],
        &[IpAddr::from([127, 0, 0, 1])],
    )?;
    let client = format!("https://127.0.0.1:{}", spec.ports.etcd);
    let peer = format!("http://127.0.0.1:{}", spec.ports.etcd_peer);
    let args = flags([
        ("data-dir", shown(layout.root.join("etcd"))),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", format!("default={peer}")),
        ("cert-file", shown(&server.cert)),
        ("key-file", shown(&server.key)),
        ("client-cert-auth", "true".into()),
        ("trusted-ca-file", shown(ca.cert())),
        // A test cluster's data need not survive a power cut, and its disk may be slow.
        ("unsafe-no-fsync", "true".into()),
        ("log-level", "warn".into()),
    ]);
    Ok(Program::new("etcd", tools.file("etcd")?, args))
}

/// kube-apiserver, on the bridge: nodes, pods and the machine reach it by one address.
pub(super) fn apiserver(spec: &Spec, tools: &Tools, ca: &Authority) -> Result<Program> {
    let host = spec.host().to_string();
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let addresses = [
        host.parse()?,
        SERVICE_FIRST.parse()?,
        IpAddr::from([127, 0, 0, 1]),
    ];
    let serving = ca.issue("apiserver", "kube-apiserver", None, &names, &addresses)?;
    let kubelet = ca.issue(
        "apiserver-kubelet",
        "kube-apiserver-kubelet",
        Some("system:masters"),
        &[],
        &[],
    )?;
    let etcd = ca.issue("apiserver-etcd", "kube-apiserver-etcd", None, &[], &[])?;
    let accounts = ca.service_account()?;
    let args = flags([
        ("etcd-servers", format!("https://127.0.0.1:{}", spec.ports.etcd)),
        ("etcd-cafile", shown(ca.cert())),
        ("etcd-certfile", shown(&etcd.cert)),
        ("etcd-keyfile", shown(&etcd.key)),
        ("bind-address", host.clone()),
        ("advertise-address", host),
        ("secure-port", spec.ports.apiserver.to_string()),
        ("tls-cert-file", shown(&serving.cert)),
        ("tls-private-key-file", shown(&serving.key)),
        ("client-ca-file", shown(ca.cert())),
        (
            "service-account-issuer",
            "https://kubernetes.default.svc.cluster.local".into(),
        ),
        ("service-account-key-file", shown(&accounts.cert)),
        ("service-account-signing-key-file", shown(&accounts.key)),
        ("service-cluster-ip-range", SERVICE_RANGE.into()),
        ("authorization-mode", "Node,RBAC".into()),
        ("enable-admission-plugins", "NodeRestriction".into()),
        ("kubelet-client-certificate", shown(&kubelet.cert)),
        ("kubelet-client-key", shown(&kubelet.key)),
        ("kubelet-certificate-authority", shown(ca.cert())),
        ("kubelet-preferred-address-types", "InternalIP".into()),
        // No pod of Slipway is privileged; the API server itself holds us to it.
        ("allow-privileged", "false".into()),
        ("anonymous-auth", "false".into()),
        ("profiling", "false".into()),
        // Seconds of grace before an unwatched connection ends are seconds of `down`.
        ("shutdown-delay-duration", "0s".into()),
    ]);
    Ok(Program::new(
        "kube-apiserver",
        tools.file("kube-apiserver")?,
        args,
    ))
}

/// kube-controller-manager.
pub(super) fn controller_manager(
    layout: &Layout,
    spec: &Spec,
    tools: &Tools,
    ca: &Authority,
) -> Result<Program> {
    let config = component(
        layout,
        spec,
        ca,
        "kube-controller-manager",
        "system:kube-controller-manager",
        None,
    )?;
    let args = flags([
        ("kubeconfig", config.clone()),
        ("authentication-kubeconfig", config.clone()),
        ("authorization-kubeconfig", config),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", spec.ports.controller_manager.to_string()),
        (
            "service-account-private-key-file",
            shown(ca.service_account()?.key),
        ),
        ("root-ca-file", shown(ca.cert())),
        ("cluster-signing-cert-file", shown(ca.cert())),
        ("cluster-signing-key-file", shown(ca.key())),
        ("use-service-account-credentials", "true".into()),
        ("leader-elect", "false".into()),
        // A node's pod range follows from its number.
        ("allocate-node-cidrs", "false".into()),
        ("kube-api-qps", "200".into()),
        ("kube-api-burst", "400".into()),
    ]);
    Ok(Program::new(
        "kube-controller-manager",
        tools.file("kube-controller-manager")?,
        args,
    ))
}

/// kube-scheduler.
pub(super) fn scheduler(layout: &Layout, spec: &Spec, tools: &Tools, ca: &Authority) -> Result<Program> {
    let config = component(layout, spec, ca, "kube-scheduler", "system:kube-scheduler", None)?;
    let args = flags([
        ("kubeconfig", config.clone()),
        ("authentication-kubeconfig", config.clone()),
        ("authorization-kubeconfig", config),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", spec.ports.scheduler.to_string()),
        ("leader-elect", "false".into()),
        ("kube-api-qps", "200".into()),
        ("kube-api-burst", "400".into()),
    ]);
    Ok(Program::new(
        "kube-scheduler",
        tools.file("kube-scheduler")?,
        args,
    ))
}

/// The CNCF registry: plain HTTP, deletion allowed.
pub(super) fn registry(layout: &Layout, spec: &Spec, tools: &Tools) -> Result<Program> {
    let file = layout.root.join("registry.yaml");
    let config = serde_json::to_string_pretty(&json!({
        "version": "0.1",
        "log": {"level": "info", "fields": {"service": "registry"}},
        "storage": {
            "filesystem": {"rootdirectory": layout.root.join("registry")},
            "delete": {"enabled": true},
            "maintenance": {"uploadpurging": {"enabled": false}},
        },
        "http": {"addr": format!("{}:{REGISTRY_PORT}", spec.host()), "secret": "of no use with one replica"},
    }))?;
    fs::create_dir_all(layout.root.join("registry"))?;
    write_atomically(&file, config.as_bytes())?;
    let mut program = Program::new(
        "registry",
        tools.file("registry")?,
        ["serve".into(), shown(&file)],
    );
    program.env.push(("OTEL_TRACES_EXPORTER".into(), "none".into()));
    program.config = config;
    Ok(program)
}

/// Writes the kubeconfig of a component and returns its path.
pub(super) fn component(
    layout: &Layout,
    spec: &Spec,
    ca: &Authority,
    name: &str,
    user: &str,
    group: Option<&str>,
) -> Result<String> {
    let pair = ca.issue(name, user, group, &[], &[])?;
    let file = layout.component_kubeconfig(name);
    ca.kubeconfig(&file, &spec.apiserver_url(), &pair)?;
    Ok(shown(file))
}
