//! What a target takes: its arguments, secrets and SSH keys (`--call outline`).

use super::{Planned, stages::NodeId};
use serde::{Deserialize, Serialize};
use slipway_dockerfile::{Span, ast::ArgDeclaration};
use std::collections::{BTreeMap, BTreeSet};

/// What a target takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outline {
    /// The target's name, empty if it has none.
    pub name: String,
    /// What the comment above its `FROM` says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Build arguments, by line.
    pub args: Vec<OutlineArg>,
    /// Build secrets, by line.
    pub secrets: Vec<OutlineSecret>,
    /// SSH agents, by line.
    pub ssh: Vec<OutlineSecret>,
}

/// A build argument.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment above it says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its value: the one given, or the default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Where it is declared, from 1.
    pub line: u32,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlineSecret {
    /// Its id.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
    /// Where it is used first, from 1.
    pub line: u32,
}

/// What a stage uses.
#[derive(Debug, Clone, Default)]
pub(super) struct Used {
    names: BTreeSet<String>,
    args: BTreeMap<String, OutlineArg>,
    secrets: BTreeMap<String, OutlineSecret>,
    ssh: BTreeMap<String, OutlineSecret>,
}

impl Used {
    /// Starts with the arguments that the `FROM` uses.
    pub(super) fn begin(&mut self, from: &BTreeSet<String>) {
        self.names.extend(from.iter().cloned());
    }

    /// An `ARG`. One without a default of its own is described where the global one is.
    pub(super) fn arg(
        &mut self,
        declaration: &ArgDeclaration,
        value: Option<&str>,
        span: Span,
        global: bool,
    ) {
        let name = declaration.name.text.clone();
        if !global {
            self.args.insert(
                name.clone(),
                OutlineArg {
                    name: name.clone(),
                    description: declaration.doc.clone(),
                    value: value.unwrap_or_default().to_owned(),
                    line: span.first_line,
                },
            );
        }
        self.names.insert(name);
    }

    pub(super) fn secret(&mut self, id: &str, required: bool, span: Span) {
        note(&mut self.secrets, id, required, span);
    }

    pub(super) fn ssh(&mut self, id: &str, required: bool, span: Span) {
        note(&mut self.ssh, id, required, span);
    }
}

fn note(map: &mut BTreeMap<String, OutlineSecret>, id: &str, required: bool, span: Span) {
    map.entry(id.to_owned()).or_insert_with(|| OutlineSecret {
        name: id.to_owned(),
        required,
        line: span.first_line,
    });
}

/// The outline of a planned target.
pub(super) fn outline(planned: &Planned<'_>) -> Outline {
    let target = &planned.nodes[planned.target];
    let (mut args, mut secrets, mut ssh) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    // The target first: what it says of a name counts.
    let others = planned
        .reachable
        .iter()
        .copied()
        .filter(|id| *id != planned.target);
    for id in std::iter::once(planned.target).chain(others) {
        add_args(planned, id, &mut args);
        if let Some(built) = &planned.nodes[id].built {
            for (from, to) in [(&built.used.secrets, &mut secrets), (&built.used.ssh, &mut ssh)] {
                for (name, secret) in from {
                    to.entry(name.clone()).or_insert_with(|| secret.clone());
                }
            }
        }
    }
    let mut args: Vec<OutlineArg> = args.into_values().collect();
    args.sort_by_key(|arg| arg.line);
    let by_line = |map: BTreeMap<String, OutlineSecret>| {
        let mut list: Vec<_> = map.into_values().collect();
        list.sort_by_key(|secret| secret.line);
        list
    };
    Outline {
        name: target
            .stage
            .and_then(|stage| stage.name.clone())
            .unwrap_or_default(),
        description: target.stage.map(|stage| stage.doc.clone()).unwrap_or_default(),
        args,
        secrets: by_line(secrets),
        ssh: by_line(ssh),
    }
}

fn add_args(planned: &Planned<'_>, id: NodeId, args: &mut BTreeMap<String, OutlineArg>) {
    let node = &planned.nodes[id];
    let Some(built) = &node.built else { return };
    let mut todo: Vec<&String> = built.used.names.iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = todo.pop() {
        if !seen.insert(name) {
            continue;
        }
        if let Some(arg) = built.used.args.get(name) {
            args.entry(name.clone()).or_insert_with(|| arg.clone());
        }
        if let Some(global) = planned.declared.get(name) {
            args.entry(name.clone()).or_insert_with(|| OutlineArg {
                name: name.clone(),
                description: global.doc.clone(),
                value: global.value.clone(),
                line: global.line,
            });
            todo.extend(&global.uses);
        }
    }
}
