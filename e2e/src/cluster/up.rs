//! Starts the cluster, or mends it, and waits until it is really ready.

use std::{fs, fs::File, net::TcpListener, os::unix::fs::symlink, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use super::{addons, control, node};
use crate::{
    binfmt, cgroup,
    command::{self, say},
    config::{Layout, Ports, REGISTRY_PORT, Spec},
    images, network, oci,
    pki::Authority,
    preflight,
    process::{self, Record},
    registry::Registry,
    tools::Tools,
    wait,
};

/// What `up` is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// At least so many nodes; `None` for as many as there are, one at first.
    pub nodes: Option<u8>,
    /// Whether pods and nodes may reach the world. Decided at the first start.
    pub internet: bool,
    /// A further node that says it is an arm64 one, with QEMU behind it.
    pub arm64: bool,
}

/// Kernel settings of the whole machine that the kubelet changes.
const SYSCTLS: [&str; 7] = [
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "net.ipv4.ip_forward",
];

/// Folders of the machine that containerd, CNI and the kubelet write to and that no option moves.
const FOREIGN: [&str; 5] = [
    "/run/containerd",
    "/var/lib/cni",
    "/var/log/containers",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
];

/// Opens the cluster's lock file and waits for its turn.
pub(super) fn lock(layout: &Layout) -> Result<File> {
    fs::create_dir_all(layout.state())
        .with_context(|| format!("failed to create {}", layout.state().display()))?;
    let file = layout.lock_file();
    let lock = File::create(&file).with_context(|| format!("failed to create {}", file.display()))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        println!(
            "another start or stop of cluster {} is under way; waiting for it",
            layout.name
        );
        flock(&lock, FlockOperation::LockExclusive).context("failed to lock the cluster")?;
    }
    Ok(lock)
}

/// Brings the cluster up. Harmless when it is up; what is missing or has crashed is started anew.
///
/// # Errors
/// When this machine lacks something, or a component does not become ready: with the last lines of its log.
pub async fn up(options: Options) -> Result<()> {
    super::install_tls_provider();
    let layout = Layout::from_env()?;
    preflight::check()?;
    let tools = Tools::build(false)?;
    let _lock = lock(&layout)?;
    let spec = decide(&layout, options)?;
    let ran = Record::all(&layout).iter().filter(|r| r.alive()).count();
    if spec.arm64_node.is_some() {
        binfmt::ensure(&layout)?;
    }
    let ca = Authority::open(&layout.pki())?;
    write_admin(&layout, &spec, &tools, &ca)?;

    cgroup::create(&format!("{}/system", layout.cgroup()))?;
    network::ensure_bridge(&layout, &spec)?;
    for number in 1..=spec.nodes {
        network::ensure_node(&layout, &spec, number)?;
    }

    let started = std::time::Instant::now();
    let mut changed = 0;
    let mut start = |program: &process::Program| -> Result<()> {
        changed += u32::from(process::ensure(&layout, program)?);
        Ok(())
    };
    // What needs nobody: all at once. The API server waits for etcd by itself.
    start(&control::etcd(&layout, &spec, &tools, &ca)?)?;
    start(&control::apiserver(&spec, &tools, &ca)?)?;
    start(&control::registry(&layout, &spec, &tools)?)?;
    for number in 1..=spec.nodes {
        start(&node::containerd(&layout, &spec, &tools, number)?)?;
    }
    let archive = system_images(&layout)?;
    for number in 1..=spec.nodes {
        node::containerd_ready(&layout, &tools, number).await?;
        node::load(&layout, &tools.file("ctr")?, number, &archive)?;
    }
    let client = super::client(&layout.kubeconfig()).await?;
    apiserver_ready(&layout, &client).await?;
    start(&control::controller_manager(&layout, &spec, &tools, &ca)?)?;
    start(&control::scheduler(&layout, &spec, &tools, &ca)?)?;
    for number in 1..=spec.nodes {
        start(&node::kubelet(&layout, &spec, &tools, &ca, number)?)?;
        start(&node::kube_proxy(&layout, &spec, &tools, &ca, number)?)?;
    }
    apply_addons(&layout, &tools).await?;
    start(&addons::coredns(&layout, &spec, &tools, &ca)?)?;
    start(&addons::local_path(&layout, &spec, &tools, &ca)?)?;
    ready(&layout, &spec, &client).await?;
    if let Some(number) = spec.arm64_node {
        claim_arm64(&client, &layout.node(number).name).await?;
    }

    let nodes = spec.nodes;
    let took = started.elapsed().as_secs_f32();
    match (changed, ran) {
        (0, _) => say(format!(
            "cluster {} runs already, {nodes} node(s), healthy",
            layout.name
        )),
        (n, 0) => println!(
            "cluster {} is ready, {nodes} node(s), {n} programs, {took:.1} s",
            layout.name
        ),
        (n, _) => println!(
            "cluster {} is mended: {n} programs started anew, {nodes} node(s), {took:.1} s",
            layout.name
        ),
    }
    say(format!("export KUBECONFIG={}", layout.kubeconfig().display()));
    say(format!("export SLIPWAY_REGISTRY={}", Spec::registry_name()));
    say(format!(
        "# the registry from this machine: {}",
        spec.registry_url()
    ));
    say(format!("# kubectl, helm and ctr: {}", layout.bin().display()));
    Ok(())
}

/// Has a node say that it is an arm64 one, and waits until it does.
async fn claim_arm64(client: &Client, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({"metadata": {"labels": {addons::CLAIMED_ARCHITECTURE: binfmt::ARCHITECTURE}}});
    let claims = |node: &Node| {
        let labels = node.metadata.labels.as_ref();
        labels.is_some_and(|labels| {
            labels
                .get("kubernetes.io/arch")
                .is_some_and(|arch| arch == binfmt::ARCHITECTURE)
        })
    };
    // A policy counts a moment after it is stored.
    wait::until("the arm64 node says so", Duration::from_mins(1), || async {
        let node = nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(claims(&node).then_some(()))
    })
    .await
}

/// Takes the decisions of the first start, or reads them.
fn decide(layout: &Layout, options: Options) -> Result<Spec> {
    let wanted = options.nodes.unwrap_or(1);
    if !(1..=20).contains(&wanted) {
        bail!("--nodes {wanted}: a cluster has 1 to 20 nodes");
    }
    if let Some(mut spec) = Spec::load(layout)? {
        if options.internet && !spec.internet {
            bail!(
                "cluster {} was started without --internet; run `down` first",
                layout.name
            );
        }
        if wanted > spec.nodes {
            spec.nodes = wanted;
        }
        if options.arm64 && spec.arm64_node.is_none() {
            spec.nodes += 1;
            spec.arm64_node = Some(spec.nodes);
        }
        spec.save(layout)?;
        return Ok(spec);
    }
    let index = network::free_index()?;
    let mut taken = Vec::new();
    let mut free = |preferred: u16| -> Result<u16> {
        // On the loopback address, where clusters of one machine could meet; held until all are chosen.
        let socket =
            TcpListener::bind(("127.0.0.1", preferred)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
        let port = socket.local_addr()?.port();
        taken.push(socket);
        Ok(port)
    };
    let ports = Ports {
        apiserver: 6443,
        etcd: free(2379)?,
        etcd_peer: free(2380)?,
        controller_manager: free(10257)?,
        scheduler: free(10259)?,
        dns_ready: free(8181)?,
    };
    let sysctls = SYSCTLS
        .iter()
        .filter_map(|n| Some(((*n).to_owned(), network::read_sysctl(n)?)))
        .collect();
    let foreign = FOREIGN
        .iter()
        .map(PathBuf::from)
        .filter(|f| !f.exists())
        .collect();
    let spec = Spec {
        index,
        internet: options.internet,
        nodes: wanted + u8::from(options.arm64),
        arm64_node: options.arm64.then_some(wanted + 1),
        ports,
        sysctls,
        foreign,
    };
    // A wildcard listener takes the port on every address, the new bridge's too.
    for (port, what) in [
        (6443, "kube-apiserver"),
        (REGISTRY_PORT, "the registry"),
        (53, "CoreDNS"),
    ] {
        if let Some(who) = wildcard_listener(port) {
            bail!(
                "port {port} is needed by {what}, but {who} listens on it on all addresses: stop that, or bind it to one address"
            );
        }
    }
    spec.save(layout)?;
    Ok(spec)
}

/// Who listens on `port` of every address, as `/proc/net/tcp` shows it.
fn wildcard_listener(port: u16) -> Option<String> {
    let listens = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1).and_then(|l| l.split_once(':'));
        let everywhere = local.is_some_and(|(a, p)| {
            a.chars().all(|c| c == '0') && u16::from_str_radix(p, 16).is_ok_and(|p| p == port)
        });
        everywhere && fields.get(3) == Some(&"0A")
    };
    let files = ["/proc/net/tcp", "/proc/net/tcp6"];
    let found = files
        .iter()
        .any(|f| fs::read_to_string(f).unwrap_or_default().lines().any(listens));
    found.then(|| format!("another program (see: ss -ltnp 'sport = :{port}')"))
}

/// The administrator's kubeconfig and a folder of programs to use it with.
fn write_admin(layout: &Layout, spec: &Spec, tools: &Tools, ca: &Authority) -> Result<()> {
    let admin = ca.issue("admin", "slipway:admin", Some("system:masters"), &[], &[])?;
    ca.kubeconfig(&layout.kubeconfig(), &spec.apiserver_url(), &admin)?;
    fs::create_dir_all(layout.bin())?;
    for (name, file) in tools
        .all()
        .filter(|(n, _)| ["kubectl", "helm", "ctr", "runc"].contains(n))
    {
        let link = layout.bin().join(name);
        if fs::read_link(&link).ok().as_deref() != Some(file) {
            let _ = fs::remove_file(&link);
            symlink(file, &link).with_context(|| format!("failed to create {}", link.display()))?;
        }
    }
    Ok(())
}

/// The images that every node needs before its first pod.
fn system_images(layout: &Layout) -> Result<PathBuf> {
    let file = layout.root.join("images/system.tar");
    if !file.exists() {
        oci::write_archive(
            &file,
            &[
                (images::PAUSE, &images::pause()?),
                (images::BUSYBOX, &images::busybox()?),
            ],
        )?;
    }
    Ok(file)
}

async fn apiserver_ready(layout: &Layout, client: &Client) -> Result<()> {
    wait::until("kube-apiserver is ready", Duration::from_secs(90), || async {
        process::check(layout, "etcd")?;
        process::check(layout, "kube-apiserver")?;
        let request = http::Request::get("/readyz").body(Vec::new())?;
        Ok(client
            .request_text(request)
            .await
            .is_ok_and(|t| t == "ok")
            .then_some(()))
    })
    .await
    .with_context(|| format!("see {}", layout.logs().join("kube-apiserver.log").display()))
}

async fn apply_addons(layout: &Layout, tools: &Tools) -> Result<()> {
    let kubectl = tools.file("kubectl")?;
    let manifests = addons::manifests(layout)?;
    let kubeconfig = layout.kubeconfig().display().to_string();
    // The namespace kube-system is made by a start-up hook a moment after the API server calls itself ready.
    let mut last = String::new();
    let applied = wait::until("the add-ons are stored", Duration::from_secs(30), || {
        let args = [
            "--kubeconfig",
            &kubeconfig,
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
        ];
        let result = command::with_input(&kubectl, &args, &manifests);
        let done = result.map_err(|error| last = error.to_string()).is_ok();
        async move { Ok(done.then_some(())) }
    })
    .await;
    applied.with_context(|| last)
}

/// Real readiness: what a pod needs to be scheduled, to start, and to find its peers.
async fn ready(layout: &Layout, spec: &Spec, client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    for number in 1..=spec.nodes {
        let name = layout.node(number).name;
        let is_ready = |node: &Node| {
            let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
            conditions
                .into_iter()
                .flatten()
                .any(|c| c.type_ == "Ready" && c.status == "True")
                && node
                    .spec
                    .as_ref()
                    .is_none_or(|s| s.taints.iter().flatten().all(|t| t.key == node::ARM64_TAINT))
        };
        let waited = wait::object(&nodes, &name, "is ready", Duration::from_secs(90), is_ready).await;
        if let Err(error) = waited {
            for program in node::names(number) {
                process::check(layout, &program)?;
            }
            return Err(error.context(format!(
                "see {}",
                layout.logs().join(format!("kubelet-{number}.log")).display()
            )));
        }
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    wait::object(&accounts, "default", "exists", Duration::from_mins(1), |_| true).await?;

    let registry = Registry::new(spec.registry_url())?;
    wait::until("the registry answers", Duration::from_secs(30), || async {
        process::check(layout, "registry")?;
        Ok(registry.ready().await.then_some(()))
    })
    .await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://127.0.0.1:{}/ready", spec.ports.dns_ready);
    wait::until("CoreDNS is ready", Duration::from_mins(1), || async {
        process::check(layout, "coredns")?;
        Ok(http
            .get(&url)
            .send()
            .await
            .is_ok_and(|r| r.status().is_success())
            .then_some(()))
    })
    .await?;
    for record in Record::all(layout) {
        process::check(layout, &record.name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_seen() {
        let socket = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        assert!(wildcard_listener(socket.local_addr().unwrap().port()).is_some());
        let one = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert!(wildcard_listener(one.local_addr().unwrap().port()).is_none());
    }
}
