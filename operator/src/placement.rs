//! On which nodes a stage's pod may run: from the stage's platform, `spec.emulation` and the nodes of the cluster to node
//! labels. Pure.
//!
//! ```text
//! the stage runs nothing ───────────────────────▶ a node of the operator's own kind: any node could
//! nodes of its architecture, or of one that runs it (arm64 runs arm) ─▶ these
//! none, and a node can emulate it ──────────────▶ nodes with the label emulation.slipway.build/ARCHITECTURE
//! none at all ──────────────────────────────────▶ a pod that waits for such a node; NoNodeForPlatform
//! ```

use std::collections::{BTreeMap, BTreeSet};

use slipway_crd::{Emulation, names};
use slipway_oci::Platform;
use slipway_plan::protocol::ScheduledStage;

/// The label of a node's operating system.
const OS: &str = "kubernetes.io/os";
/// The label of a node's architecture.
const ARCHITECTURE: &str = "kubernetes.io/arch";

/// A node of the cluster, as its labels describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its operating system, in Go's words.
    pub os: String,
    /// Its architecture, in Go's words.
    pub architecture: String,
    /// Architectures that it can emulate.
    pub emulates: BTreeSet<String>,
    /// What it was probed with, if it was.
    pub probed: Option<String>,
}

impl Node {
    /// A node from its labels; `None` until the kubelet has said what it is.
    pub fn of(name: &str, labels: &BTreeMap<String, String>) -> Option<Self> {
        let emulates = labels
            .iter()
            .filter(|(_, value)| *value == "true")
            .filter_map(|(key, _)| Some(key.strip_prefix(names::LABEL_EMULATES)?.to_owned()))
            .collect();
        Some(Self {
            name: name.to_owned(),
            os: labels.get(OS)?.clone(),
            architecture: labels.get(ARCHITECTURE)?.clone(),
            emulates,
            probed: labels.get(names::LABEL_PROBED).cloned(),
        })
    }

    /// Whether it runs programs of a platform by itself. What variant a node has is not told by Kubernetes: one of the
    /// platform's own architecture counts, and one that runs the platform as containerd sees it.
    fn runs(&self, platform: &Platform) -> bool {
        self.os == platform.os
            && (self.architecture == platform.architecture
                || Platform::new(&self.os, &self.architecture, "").matches(platform))
    }
}

/// What is known of the nodes.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// The nodes; `None` where the operator may not see them (it watches one namespace).
    pub nodes: Option<&'a [Node]>,
    /// What nodes are being probed with; `None` where nobody probes them.
    pub probe: Option<&'a str>,
}

/// Where a pod may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Labels that a node must have.
    pub labels: BTreeMap<String, String>,
    /// Its programs run under emulation there.
    pub emulated: bool,
    /// Why there is no such node.
    pub obstacle: Option<Obstacle>,
}

/// Why there is no node for a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It is being found out what the nodes can emulate: wait for that before a pod is made.
    Unprobed,
    /// There is none; for people.
    None(String),
}

impl Place {
    fn native(os: &str, architecture: &str) -> Self {
        Self {
            labels: BTreeMap::from([
                (OS.to_owned(), os.to_owned()),
                (ARCHITECTURE.to_owned(), architecture.to_owned()),
            ]),
            emulated: false,
            obstacle: None,
        }
    }

    /// The nodes that this operator's own kind of binary runs on: for work that is the same wherever it is done.
    pub fn anywhere() -> Self {
        let host = Platform::host();
        Self::native(&host.os, &host.architecture)
    }

    /// Where a stage may run.
    pub fn of(stage: &ScheduledStage, emulation: Emulation, cluster: Cluster<'_>) -> Self {
        if !stage.runs {
            return Self::anywhere();
        }
        let platform = &stage.platform;
        let own = Self::native(&platform.os, &platform.architecture);
        let Some(nodes) = cluster.nodes else { return own };
        let native = nodes
            .iter()
            .find(|node| node.os == platform.os && node.architecture == platform.architecture)
            .or_else(|| nodes.iter().find(|node| node.runs(platform)))
            .map(|node| Self::native(&node.os, &node.architecture));
        let foreign = platform.architecture != Platform::host().architecture;
        let wants = match emulation {
            Emulation::Never => false,
            Emulation::IfNoNativeNode => native.is_none(),
            Emulation::Always => foreign,
        };
        if !wants {
            return native.unwrap_or_else(|| Self {
                obstacle: Some(Obstacle::None(format!(
                    "no node of the cluster is for {platform}, and spec.emulation is {emulation:?}: add such a node, or change spec.emulation or spec.platforms"
                ))),
                ..own
            });
        }
        let emulates = |node: &Node| node.os == platform.os && node.emulates.contains(&platform.architecture);
        if nodes.iter().any(emulates) {
            let label = format!("{}{}", names::LABEL_EMULATES, platform.architecture);
            return Self {
                labels: BTreeMap::from([(OS.to_owned(), platform.os.clone()), (label, "true".to_owned())]),
                emulated: true,
                obstacle: None,
            };
        }
        let unprobed = |probe: &str| {
            nodes
                .iter()
                .any(|node| node.os == platform.os && node.probed.as_deref() != Some(probe))
        };
        if cluster.probe.is_some_and(unprobed) {
            return Self {
                obstacle: Some(Obstacle::Unprobed),
                ..own
            };
        }
        let advice = if cluster.probe.is_some() {
            "add such a node, or an emulator to emulation.image of the chart"
        } else {
            "add such a node, or have nodes emulate it (emulation.enabled of the chart)"
        };
        let which = if native.is_some() {
            "no node of the cluster can emulate"
        } else {
            "no node of the cluster is for, or can emulate,"
        };
        Self {
            obstacle: Some(Obstacle::None(format!(
                "{which} {platform}: {advice}, or change spec.emulation or spec.platforms"
            ))),
            ..own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn node(architecture: &str, emulates: &[&str], probed: Option<&str>) -> Node {
        let mut labels = BTreeMap::from([
            (OS.to_owned(), "linux".to_owned()),
            (ARCHITECTURE.to_owned(), architecture.to_owned()),
        ]);
        for one in emulates {
            labels.insert(format!("{}{one}", names::LABEL_EMULATES), "true".to_owned());
        }
        labels.insert(format!("{}sparc64", names::LABEL_EMULATES), "false".to_owned());
        labels.extend(probed.map(|probe| (names::LABEL_PROBED.to_owned(), probe.to_owned())));
        Node::of(architecture, &labels).unwrap()
    }

    fn place(platform: &str, emulation: Emulation, nodes: &[Node], probe: Option<&str>) -> Place {
        let mut stage = fixtures::stage("a", &[]);
        stage.platform = platform.parse().unwrap();
        let nodes = Some(nodes);
        Place::of(&stage, emulation, Cluster { nodes, probe })
    }

    /// Foreign whatever machine runs these tests.
    fn foreign() -> (&'static str, &'static str) {
        match Platform::host().architecture.as_str() {
            "arm64" => ("linux/s390x", "s390x"),
            _ => ("linux/arm64", "arm64"),
        }
    }

    #[test]
    fn a_node_of_the_architecture_is_taken_or_one_that_runs_it() {
        use Emulation::{IfNoNativeNode, Never};
        for (platform, nodes, architecture) in [
            ("linux/amd64", &["amd64", "arm64"][..], "amd64"),
            ("linux/arm64", &["amd64", "arm64"], "arm64"),
            ("linux/amd64/v3", &["amd64"], "amd64"),
            ("linux/arm/v7", &["arm64"], "arm64"),
            ("linux/arm/v6", &["arm64", "arm"], "arm"),
            ("linux/386", &["amd64"], "amd64"),
        ] {
            let nodes: Vec<Node> = nodes.iter().map(|one| node(one, &[], None)).collect();
            for emulation in [Never, IfNoNativeNode] {
                let place = place(platform, emulation, &nodes, Some("p"));
                assert_eq!(place.labels[ARCHITECTURE], architecture, "{platform}");
                assert_eq!((place.emulated, place.obstacle), (false, None), "{platform}");
            }
        }
    }

    #[test]
    fn emulation_is_used_as_the_spec_allows() {
        use Emulation::{Always, IfNoNativeNode, Never};
        let host = Platform::host().architecture;
        let (platform, architecture) = foreign();
        let (emulator, native) = (
            node(&host, &[architecture], Some("p")),
            node(architecture, &[], Some("p")),
        );
        let both = [emulator.clone(), native.clone()];
        for (emulation, nodes, emulated, lacks) in [
            (Never, &both[..], false, false),
            (Never, &both[..1], false, true),
            (IfNoNativeNode, &both, false, false),
            (IfNoNativeNode, &both[..1], true, false),
            (Always, &both, true, false),
            (Always, &both[1..], false, true),
        ] {
            let place = place(platform, emulation, nodes, Some("p"));
            assert_eq!(place.emulated, emulated, "{emulation:?} {nodes:?}");
            assert_eq!(place.obstacle.is_some(), lacks, "{emulation:?} {nodes:?}");
            let label = format!("{}{architecture}", names::LABEL_EMULATES);
            assert_eq!(place.labels.contains_key(&label), emulated);
        }
        let own = place(&format!("linux/{host}"), Always, &both, Some("p"));
        assert!(!own.emulated, "the operator's own architecture is never emulated");
    }

    #[test]
    fn nodes_that_are_not_probed_yet_are_waited_for_and_absent_ones_are_named() {
        let host = Platform::host().architecture;
        let (platform, _) = foreign();
        for (probed, probe, unprobed) in [
            (None, Some("new"), true),
            (Some("old"), Some("new"), true),
            (Some("new"), Some("new"), false),
            (None, None, false),
        ] {
            let nodes = [node(&host, &[], probed)];
            let place = place(platform, Emulation::IfNoNativeNode, &nodes, probe);
            match place.obstacle {
                Some(Obstacle::Unprobed) => assert!(unprobed, "{probed:?} {probe:?}"),
                Some(Obstacle::None(message)) => {
                    assert!(!unprobed && message.contains(platform), "{message}");
                }
                None => panic!("{probed:?} {probe:?}: no obstacle"),
            }
        }
    }

    #[test]
    fn what_runs_nothing_is_built_anywhere_and_unseen_nodes_are_believed_in() {
        let mut stage = fixtures::stage("a", &[]);
        stage.platform = "linux/s390x".parse().unwrap();
        let unseen = Cluster {
            nodes: None,
            probe: None,
        };
        let place = Place::of(&stage, Emulation::IfNoNativeNode, unseen);
        assert_eq!(
            (place.labels[ARCHITECTURE].as_str(), place.obstacle),
            ("s390x", None)
        );
        stage.runs = false;
        assert_eq!(Place::of(&stage, Emulation::Never, unseen), Place::anywhere());
    }
}
