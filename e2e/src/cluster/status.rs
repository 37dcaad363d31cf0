//! Says what runs.

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::ListParams};

use crate::{
    command::say,
    config::{Layout, Spec},
    process::Record,
    registry::Registry,
};

/// Prints each program, each node and the addresses.
///
/// # Errors
/// When the cluster is not there or not whole, so that scripts can ask.
pub async fn status() -> Result<()> {
    super::install_tls_provider();
    let layout = Layout::from_env()?;
    let Some(spec) = Spec::load(&layout)? else {
        bail!("cluster {} is down", layout.name);
    };
    let mut broken = Vec::new();
    for record in Record::all(&layout) {
        let state = if record.alive() { "running" } else { "ENDED" };
        say(format!("{state:8} {:26} pid {}", record.name, record.pid));
        if !record.alive() {
            broken.push(record.name);
        }
    }
    let client = super::client(&layout.kubeconfig()).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.list(&ListParams::default()).await {
        Ok(list) => {
            for node in list {
                let name = node.metadata.name.unwrap_or_default();
                let status = node.status.unwrap_or_default();
                let conditions = status.conditions.unwrap_or_default();
                let ready = conditions
                    .iter()
                    .any(|c| c.type_ == "Ready" && c.status == "True");
                let version = status.node_info.map(|i| i.kubelet_version).unwrap_or_default();
                say(format!(
                    "{:8} node {name} {version}",
                    if ready { "ready" } else { "NOTREADY" }
                ));
                if !ready {
                    broken.push(name);
                }
            }
            let pods = Api::<Pod>::all(client).list(&ListParams::default()).await?;
            say(format!("{:8} pods", pods.items.len()));
        }
        Err(error) => broken.push(format!("the API server does not answer ({error})")),
    }
    if !Registry::new(spec.registry_url())?.ready().await {
        broken.push("the registry does not answer".into());
    }
    say(format!(
        "registry {} from this machine, {} from pods and nodes",
        spec.registry_url(),
        Spec::registry_name()
    ));
    say(format!("logs     {}", layout.logs().display()));
    say(format!("export KUBECONFIG={}", layout.kubeconfig().display()));
    say(format!("export SLIPWAY_REGISTRY={}", Spec::registry_name()));
    if !broken.is_empty() {
        bail!("not whole: {}; `up` mends it", broken.join(", "));
    }
    Ok(())
}
