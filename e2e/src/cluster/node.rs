//! A node: containerd, kubelet and kube-proxy in a network namespace of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;

use super::control::{component, flags, shown};
use crate::{
    cgroup, command,
    config::{Layout, NodeLayout, REGISTRY_HOST, REGISTRY_PORT, Spec, write_atomically},
    images,
    pki::Authority,
    process::{self, Program},
    tools::Tools,
    wait,
};

/// The taint of a node that says it is an arm64 one: pods that do not ask for it go elsewhere if they can.
pub(super) const ARM64_TAINT: &str = "slipway.build/arm64";

/// The program names of node `number`, in the order in which they start.
pub(super) fn names(number: u8) -> [String; 3] {
    [
        format!("containerd-{number}"),
        format!("kubelet-{number}"),
        format!("kube-proxy-{number}"),
    ]
}

/// The cgroup of node `number`.
fn cgroup_of(layout: &Layout, number: u8) -> String {
    format!("{}/node-{number}", layout.cgroup())
}

/// containerd with its configuration, the CNI network and the registries' addresses.
pub(super) fn containerd(layout: &Layout, spec: &Spec, tools: &Tools, number: u8) -> Result<Program> {
    let node = layout.node(number);
    let root = &node.root;
    fs::create_dir_all(node.containerd_state())?;
    cni(spec, &node, number)?;
    certs_d(spec, &node)?;
    let toml = |path: PathBuf| serde_json::to_string(&path).unwrap_or_default();
    let config = format!(
        r#"version = 3
root = {root_dir}
state = {state}
# What no pod of ours uses, and what would leave files in the machine's own folders.
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = {socket}

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{pause}"
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = {certs}

[plugins.'io.containerd.cri.v1.runtime']
  # A machine that is itself a container or a small VM may not lower a score.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  tolerate_missing_hugetlb_controller = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [{cni_bin}]
    conf_dir = {cni_conf}
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = {shim}
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = {runc}
      Root = {runc_state}
      SystemdCgroup = false

[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "runc"
"#,
        root_dir = toml(root.join("containerd")),
        state = toml(node.containerd_state()),
        socket = toml(node.containerd_socket()),
        pause = images::PAUSE,
        certs = toml(root.join("certs.d")),
        cni_bin = toml(tools.folder("ptp")?),
        cni_conf = toml(root.join("cni")),
        shim = toml(tools.file("containerd-shim-runc-v2")?),
        runc = toml(tools.file("runc")?),
        runc_state = toml(root.join("run/runc")),
    );
    let file = root.join("containerd.toml");
    write_atomically(&file, config.as_bytes())?;
    let mut program = Program::new(
        format!("containerd-{number}"),
        tools.file("containerd")?,
        ["--config".into(), shown(&file)],
    );
    program.netns = Some(node.netns());
    program.config = config;
    Ok(program)
}

/// Every packet of a pod is routed by its node, even to a pod beside it: replies to a service's address come back
/// through the place that rewrote it, without the kernel's bridge firewall. That is why `ptp` and not `bridge`.
fn cni(spec: &Spec, node: &NodeLayout, number: u8) -> Result<()> {
    let config = json!({
        "cniVersion": "1.0.0", "name": node.name, "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local", "dataDir": node.root.join("cni-data"),
                "ranges": [[{"subnet": spec.node_pod_range(number)}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    write_atomically(
        &node.root.join("cni/10-slipway.conflist"),
        &serde_json::to_vec_pretty(&config)?,
    )
}

/// Where the node finds registries: the cluster's by name, and short names in the cluster's too.
fn certs_d(spec: &Spec, node: &NodeLayout) -> Result<()> {
    let url = spec.registry_url();
    let host = format!("[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    let own = format!("server = \"{url}\"\n{host}");
    // Without a way out there is no second place to ask, and asking it would only take time.
    let docker = if spec.internet {
        format!("server = \"https://registry-1.docker.io\"\n{host}")
    } else {
        own.clone()
    };
    let by_name = format!("{REGISTRY_HOST}:{REGISTRY_PORT}");
    let by_address = format!("{}:{REGISTRY_PORT}", spec.host());
    for (name, text) in [
        (by_name.as_str(), &own),
        (&by_address, &own),
        ("slipway.test", &own),
        ("docker.io", &docker),
    ] {
        write_atomically(
            &node.root.join("certs.d").join(name).join("hosts.toml"),
            text.as_bytes(),
        )?;
    }
    Ok(())
}

/// The kubelet.
pub(super) fn kubelet(
    layout: &Layout,
    spec: &Spec,
    tools: &Tools,
    ca: &Authority,
    number: u8,
) -> Result<Program> {
    let node = layout.node(number);
    let root = &node.root;
    let address = spec.node_address(number).to_string();
    let serving = ca.issue(
        &format!("kubelet-{number}-serving"),
        &format!("system:node:{}", node.name),
        None,
        &[&node.name],
        &[address.parse()?],
    )?;
    let user = format!("system:node:{}", node.name);
    let kubeconfig = component(
        layout,
        spec,
        ca,
        &format!("kubelet-{number}"),
        &user,
        Some("system:nodes"),
    )?;
    cgroup::create(&cgroup_of(layout, number))?;
    // Pods get the cluster's DNS alone, whatever the machine itself asks.
    let resolv = root.join("resolv.conf");
    write_atomically(&resolv, b"# the cluster's DNS is put in by the kubelet\n")?;
    fs::create_dir_all(root.join("pods"))?;
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": address, "port": 10250, "readOnlyPort": 0,
        "tlsCertFile": serving.cert, "tlsPrivateKeyFile": serving.key,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": ca.cert()}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{}", node.containerd_socket().display()),
        "clusterDomain": "cluster.local", "clusterDNS": [spec.host()], "resolvConf": resolv,
        "podLogsDir": root.join("pod-logs"), "volumePluginDir": root.join("volume-plugins"),
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", cgroup_of(layout, number)),
        "failCgroupV1": false, "failSwapOn": false, "localStorageCapacityIsolation": false, "enforceNodeAllocatable": [],
        // A build machine's disk is often nearly full, and that is not what a test is about.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        // Tests look for events and start pods side by side: nothing is to be dropped or queued.
        "eventRecordQPS": 0, "registryPullQPS": 0, "serializeImagePulls": false,
        "kubeAPIQPS": 200, "kubeAPIBurst": 400, "maxPods": 250,
        "syncFrequency": "10s", "volumeStatsAggPeriod": "0s",
    });
    if spec.arm64_node == Some(number) {
        let taint = json!({"key": ARM64_TAINT, "effect": "PreferNoSchedule"});
        config["registerWithTaints"] = json!([taint]);
    }
    let config = serde_json::to_string_pretty(&config)?;
    let file = root.join("kubelet.json");
    write_atomically(&file, config.as_bytes())?;
    let args = flags([
        ("config", shown(&file)),
        ("kubeconfig", kubeconfig),
        ("hostname-override", node.name.clone()),
        ("node-ip", address),
        ("root-dir", shown(root.join("kubelet"))),
        ("cert-dir", shown(root.join("kubelet/pki"))),
    ]);
    let mut program = Program::new(format!("kubelet-{number}"), tools.file("kubelet")?, args);
    program.netns = Some(node.netns());
    program.config = config;
    Ok(program)
}

/// kube-proxy, whose rules live and die with the node's network namespace.
pub(super) fn kube_proxy(
    layout: &Layout,
    spec: &Spec,
    tools: &Tools,
    ca: &Authority,
    number: u8,
) -> Result<Program> {
    let node = layout.node(number);
    let kubeconfig = component(layout, spec, ca, "kube-proxy", "system:kube-proxy", None)?;
    let address = spec.node_address(number).to_string();
    let config = serde_json::to_string_pretty(&json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables", "hostnameOverride": node.name, "clientConnection": {"kubeconfig": kubeconfig},
        "clusterCIDR": spec.pod_range(), "bindAddress": address,
        "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
        // Limits of the whole machine, not of the namespace: left as they are.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "nftables": {"minSyncPeriod": "0s"},
    }))?;
    let file = node.root.join("kube-proxy.json");
    write_atomically(&file, config.as_bytes())?;
    let mut program = Program::new(
        format!("kube-proxy-{number}"),
        tools.file("kube-proxy")?,
        [format!("--config={}", shown(&file))],
    );
    program.netns = Some(node.netns());
    program.config = config;
    Ok(program)
}

/// Arguments of `ctr` that name the node's containerd and Kubernetes' part of it.
pub(super) fn ctr_args(node: &NodeLayout) -> Vec<String> {
    vec![
        "--address".into(),
        shown(node.containerd_socket()),
        "--namespace".into(),
        "k8s.io".into(),
    ]
}

/// Waits until node `number`'s containerd answers.
pub(super) async fn containerd_ready(layout: &Layout, tools: &Tools, number: u8) -> Result<()> {
    let ctr = tools.file("ctr")?;
    let node = layout.node(number);
    let name = format!("containerd-{number}");
    wait::until(&format!("{name} answers"), Duration::from_secs(30), || async {
        process::check(layout, &name)?;
        let mut args = ctr_args(&node);
        args.push("version".into());
        Ok((node.containerd_socket().exists() && command::succeeds(&ctr, &args)).then_some(()))
    })
    .await
}

/// Loads an archive's images into a node, safe from its image garbage collection.
pub(crate) fn load(layout: &Layout, ctr: &Path, number: u8, archive: &Path) -> Result<()> {
    let node = layout.node(number);
    let mut args = ctr_args(&node);
    // `--local`: containerd's transfer service would unpack for the default snapshotter only after a second look-up.
    args.extend(
        [
            "images",
            "import",
            "--local",
            "--label",
            "io.cri-containerd.pinned=pinned",
        ]
        .map(str::to_owned),
    );
    args.push(shown(archive));
    command::output(ctr, &args)
        .with_context(|| format!("failed to load {} into {}", archive.display(), node.name))?;
    Ok(())
}
