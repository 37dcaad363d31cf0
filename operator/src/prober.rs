//! Finds out what each node can emulate, and says it in labels of the node: one small pod a node, when it is new or the
//! emulator is. The work of the leader, beside the builds; nothing waits for it but builds that need emulation.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use slipway_crd::names;
use slipway_plan::protocol::TerminationMessage;

use crate::{config::Config, nodes::Nodes, placement::Node, pods};

/// Between two looks whether there are new nodes.
const LOOK: Duration = Duration::from_secs(5);
/// Between two looks at a probe's pod.
const POLL: Duration = Duration::from_millis(500);

/// Probes nodes for ever.
pub async fn run(client: Client, config: Arc<Config>, nodes: Nodes) {
    let Some(with) = config.probe() else {
        return std::future::pending().await;
    };
    loop {
        for node in nodes.known().iter().flat_map(|nodes| nodes.iter()) {
            if node.os != "linux" || node.probed.as_deref() == Some(&with) {
                continue;
            }
            if let Err(error) = probe(&client, &config, node, &with).await {
                tracing::warn!(node = node.name, %error, "failed to find out what the node can emulate; trying again");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn probe(client: &Client, config: &Config, node: &Node, with: &str) -> Result<(), kube::Error> {
    let namespace = client.default_namespace();
    let pods: Api<v1::Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods::probe_pod(config, namespace, &node.name);
    let name = pod.name_any();
    match pods.create(&PostParams::default(), &pod).await {
        // Left by an operator that ended in the middle; its answer is as good.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => {
            other?;
        }
    }
    let ended = loop {
        match pods.get_opt(&name).await? {
            Some(pod) if !has_ended(&pod) => tokio::time::sleep(POLL).await,
            other => break other,
        }
    };
    let answer = ended.as_ref().and_then(answer);
    if answer.is_none() {
        // A node that cannot be asked cannot build either; it is not asked again until the runner is another.
        tracing::warn!(
            node = node.name,
            "the probe left no answer: the node counts as one that emulates nothing"
        );
    }
    let labels = labels(node, &answer.unwrap_or_default(), with);
    let nodes: Api<v1::Node> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    nodes
        .patch_metadata(&node.name, &PatchParams::default(), &patch)
        .await?;
    match pods.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(|_| ()),
    }
}

fn has_ended(pod: &v1::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The architectures that a probe has found.
fn answer(pod: &v1::Pod) -> Option<Vec<String>> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let message = containers
        .first()?
        .state
        .as_ref()?
        .terminated
        .as_ref()?
        .message
        .as_deref()?;
    match serde_json::from_str(message) {
        Ok(TerminationMessage::Probed { emulates }) => Some(emulates),
        _ => None,
    }
}

/// The change of a node's labels: what it emulates, and no more what it does not.
fn labels(node: &Node, emulates: &[String], with: &str) -> BTreeMap<String, Value> {
    // It comes from a pod: nothing in it becomes a label that is no name of an architecture.
    let is_name = |text: &&String| {
        !text.is_empty()
            && text.len() < 20
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let label = |architecture: &String| format!("{}{architecture}", names::LABEL_EMULATES);
    let gone = node.emulates.iter().map(|of| (label(of), Value::Null));
    let found = emulates
        .iter()
        .filter(is_name)
        .map(|of| (label(of), Value::from("true")));
    gone.chain(found)
        .chain([(names::LABEL_PROBED.to_owned(), Value::from(with))])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_what_was_found_and_take_back_what_was_not() {
        let old = BTreeMap::from([
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), "amd64".to_owned()),
            ("emulation.slipway.build/arm".to_owned(), "true".to_owned()),
            ("emulation.slipway.build/arm64".to_owned(), "true".to_owned()),
        ]);
        let node = Node::of("n", &old).unwrap();
        let found = ["arm64", "s390x", "Not/One", ""].map(ToOwned::to_owned);
        let labels = serde_json::to_value(labels(&node, &found, "p")).unwrap();
        assert_eq!(
            labels,
            json!({
                "emulation.slipway.build/arm": null,
                "emulation.slipway.build/arm64": "true",
                "emulation.slipway.build/s390x": "true",
                "slipway.build/emulation-probed": "p",
            })
        );
    }

    #[test]
    fn only_a_probes_own_answer_counts() {
        let pod = |message: &str| -> v1::Pod {
            serde_json::from_value(json!({"status": {"phase": "Succeeded", "containerStatuses": [{
                "name": "runner", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "message": message}},
            }]}}))
            .unwrap()
        };
        assert_eq!(
            answer(&pod(r#"{"kind":"probed","emulates":["arm64"]}"#)),
            Some(vec!["arm64".to_owned()])
        );
        assert_eq!(answer(&pod("out of luck")), None);
        assert_eq!(answer(&v1::Pod::default()), None);
    }
}
