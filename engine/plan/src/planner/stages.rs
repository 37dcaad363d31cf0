//! The graph: a node for each stage, and one for each image or context that a `COPY --from` or a mount names.

use super::{Fallible, Planner, Vars, dispatch::Built};
use crate::{
    protocol::NoCache,
    source::{ImageSource, Source},
};
use slipway_dockerfile::{
    Diagnostic, Instruction, InstructionKind, Span, Stage, distance::closest, expand::Expansion, lint::rules,
    parse_onbuild,
};
use slipway_oci::{ImageConfig, Platform, Reference};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

pub(super) type NodeId = usize;

/// Something that files can be read from.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// The stage; none for an image or context that an instruction names.
    pub(super) stage: Option<&'a Stage>,
    /// The base's name, expanded.
    pub(super) base_name: String,
    /// For people: the stage's name or `stage-N`.
    pub(super) name: String,
    pub(super) span: Span,
    /// From `--platform`; after resolving, what it is for.
    pub(super) platform: Option<Platform>,
    /// The named context that replaces the stage.
    pub(super) context: Option<String>,
    /// The stage that it starts from.
    pub(super) base: Option<NodeId>,
    /// What its instructions read from, and the instruction.
    pub(super) deps: BTreeMap<NodeId, Span>,
    pub(super) commands: Vec<Command<'a>>,
    pub(super) onbuild_done: bool,
    /// What the base is, when it is no stage.
    pub(super) resolved: Option<Resolved>,
    pub(super) built: Option<Rc<Built>>,
    pub(super) no_cache: bool,
    /// Global arguments that its `FROM` uses, for the outline.
    pub(super) used_args: BTreeSet<String>,
}

/// An instruction with what it reads from.
#[derive(Debug, Clone)]
pub(super) struct Command<'a> {
    pub(super) instruction: Cow<'a, Instruction>,
    /// For `COPY --from`, one; for `RUN`, one for each mount, none where it names no `from`.
    pub(super) sources: Vec<Option<NodeId>>,
    pub(super) onbuild: bool,
}

/// A base that is no stage.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) source: Source,
    pub(super) config: ImageConfig,
    pub(super) image: Option<ImageSource>,
}

impl Node<'_> {
    /// Whether its instructions are run: it is a stage, and no named context stands in for it.
    pub(super) fn is_stage(&self) -> bool {
        self.stage.is_some() && self.context.is_none()
    }
}

impl<'a> Planner<'a> {
    /// `InvalidDefaultArgInFrom`: whether each base has a name if no build argument is given.
    pub(super) fn check_default_bases(&mut self) {
        let Ok((defaults, _)) = self.global_scope(self.predefined(), &BTreeMap::new()) else {
            return;
        };
        for stage in &self.file.stages {
            let Ok(name) = self.lexer.process(&stage.base.text, &defaults) else {
                return;
            };
            if name.text.parse::<Reference>().is_err() {
                self.warnings
                    .extend(rules::invalid_default_arg_in_from(&self.lint, stage));
            }
        }
    }

    /// A node for each stage.
    pub(super) fn make_nodes(&mut self) -> Fallible<()> {
        for stage in &self.file.stages {
            let name = self.expand_from(stage, &stage.base.text)?;
            if name.text.is_empty() {
                return Err(self.error(
                    "base-blank",
                    format!("base name ({}) should not be blank", stage.base.text),
                    stage.span,
                ));
            }
            let mut used_args = name.matched;
            let platform = match &stage.platform {
                Some(word) => Some(self.stage_platform(stage, &word.text, &mut used_args)?),
                None => None,
            };
            let context = match &stage.name {
                Some(name) => {
                    self.named_context(name, platform.as_ref().unwrap_or(&self.target), stage.span)?
                }
                None => None,
            };
            let no_cache = match &self.request.no_cache {
                NoCache::No => false,
                NoCache::All => true,
                NoCache::Stages(names) => {
                    let own = stage.name.as_deref().unwrap_or("");
                    names.iter().any(|name| name.eq_ignore_ascii_case(own))
                }
            };
            let base = if context.is_some() {
                None
            } else {
                self.names.get(&name.text).copied()
            };
            let id = self.nodes.len();
            self.nodes.push(Node {
                stage: Some(stage),
                base_name: name.text,
                name: stage
                    .name
                    .clone()
                    .unwrap_or_else(|| format!("stage-{}", stage.index)),
                span: stage.span,
                platform,
                context,
                base,
                deps: BTreeMap::new(),
                commands: stage
                    .instructions
                    .iter()
                    .map(|instruction| Command {
                        instruction: Cow::Borrowed(instruction),
                        sources: Vec::new(),
                        onbuild: false,
                    })
                    .collect(),
                onbuild_done: false,
                resolved: None,
                built: None,
                no_cache,
                used_args,
            });
            if let Some(name) = &stage.name {
                self.names.insert(name.to_lowercase(), id);
            }
        }
        Ok(())
    }

    /// Expands a word of a `FROM`, which sees the global scope.
    fn expand_from(&mut self, stage: &Stage, word: &str) -> Fallible<Expansion> {
        let expansion = self
            .lexer
            .process(word, &self.globals)
            .map_err(|error| self.error("expansion", error.to_string(), stage.span))?;
        for name in &expansion.unmatched {
            if self.declared.contains_key(name) {
                continue;
            }
            let known = self
                .globals
                .names()
                .chain(self.declared.keys().map(String::as_str));
            self.warnings
                .extend(rules::undefined_arg_in_from(&self.lint, stage, name, known));
        }
        Ok(expansion)
    }

    fn stage_platform(
        &mut self,
        stage: &Stage,
        word: &str,
        used: &mut BTreeSet<String>,
    ) -> Fallible<Platform> {
        let expansion = self.expand_from(stage, word)?;
        let target = self.globals.value("TARGETPLATFORM").unwrap_or_default();
        self.warnings.extend(rules::redundant_target_platform(
            &self.lint, stage, &expansion, target,
        ));
        let did_you_mean = || {
            expansion
                .unmatched
                .iter()
                .find_map(|name| closest(name, self.globals.names()))
                .map(|close| format!(" (did you mean {close}?)"))
                .unwrap_or_default()
        };
        if expansion.text.is_empty() {
            let message = format!("empty platform value from expression {word}{}", did_you_mean());
            return Err(self.error("platform-empty", message, stage.span));
        }
        let platform: Platform = expansion
            .text
            .parse()
            .map_err(|error: slipway_oci::PlatformError| {
                let message = format!("failed to parse platform {word}: {error}{}", did_you_mean());
                self.error("platform-invalid", message, stage.span)
            })?;
        let (os, architecture) = (&platform.os, &platform.architecture);
        self.warnings.extend(rules::from_platform_const(
            &self.lint,
            stage,
            &expansion,
            os,
            architecture,
        ));
        used.extend(expansion.matched);
        Ok(platform)
    }

    /// The stage to build.
    pub(super) fn find_target(&self) -> Fallible<NodeId> {
        let Some(target) = self.request.target.as_deref().filter(|target| !target.is_empty()) else {
            return Ok(self.nodes.len() - 1);
        };
        if let Some(id) = self.names.get(&target.to_lowercase()) {
            return Ok(*id);
        }
        Err(self.unknown_stage("unknown-target", "target stage", target))
    }

    /// The stages that must succeed beside the target.
    pub(super) fn find_gates(&self) -> Fallible<Vec<NodeId>> {
        let find = |gate: &String| {
            let id = *self
                .names
                .get(&gate.to_lowercase())
                .ok_or_else(|| self.unknown_stage("unknown-gate", "gate", gate))?;
            // A check that a build context stands in for would pass without being made.
            match &self.nodes[id].context {
                Some(context) => Err(self.error(
                    "replaced-gate",
                    format!("gate {gate:?} is replaced by the build context {context:?}, so it would check nothing"),
                    self.nodes[id].span,
                )),
                None => Ok(id),
            }
        };
        self.request.gates.iter().map(find).collect()
    }

    /// No stage has the name that the request gives.
    fn unknown_stage(&self, code: &str, what: &str, name: &str) -> Box<Diagnostic> {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let mut message = format!("{what} {name:?} could not be found");
        if let Some(close) = closest(name, names.iter().copied()) {
            message = format!("{message} (did you mean {close}?)");
        }
        let named: Vec<&str> = self
            .file
            .stages
            .iter()
            .filter_map(|stage| stage.name.as_deref())
            .collect();
        let advice = if named.is_empty() {
            "No stage of this Dockerfile has a name; give one with FROM … AS name.".to_owned()
        } else {
            format!("The stages are: {}.", named.join(", "))
        };
        let mut error = Diagnostic::error(code, message).advise(advice);
        error.file.clone_from(&self.file.name);
        Box::new(error)
    }

    /// Finds what each instruction reads from, and refuses circles.
    pub(super) fn link(&mut self) -> Fallible<()> {
        for id in 0..self.file.stages.len() {
            let mut commands = std::mem::take(&mut self.nodes[id].commands);
            for command in &mut commands {
                self.link_command(id, command)?;
            }
            self.nodes[id].commands = commands;
        }
        self.check_circles()
    }

    fn link_command(&mut self, id: NodeId, command: &mut Command<'a>) -> Fallible<()> {
        let span = command.instruction.span;
        let sources = match &command.instruction.kind {
            InstructionKind::Copy(copy) => match copy.from.as_ref().filter(|from| !from.text.is_empty()) {
                Some(from) => vec![Some(self.copy_source(&from.text.clone(), span)?)],
                None => Vec::new(),
            },
            InstructionKind::Run(run) => {
                let from: Vec<_> = run.mounts.iter().map(|mount| mount_from(&mount.text)).collect();
                from.into_iter()
                    .map(|from| from.map(|from| self.source_node(&from, span)))
                    .collect()
            }
            _ => Vec::new(),
        };
        for source in sources.iter().flatten() {
            self.nodes[id].deps.entry(*source).or_insert(span);
        }
        command.sources = sources;
        Ok(())
    }

    fn copy_source(&mut self, from: &str, span: Span) -> Fallible<NodeId> {
        let plain = self
            .lexer
            .process(from, &Vars::default())
            .map_err(|error| self.error("expansion", error.to_string(), span))?;
        if plain.text != from {
            return Err(self.error(
                "from-variable",
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
                span,
            ));
        }
        match from.parse::<i64>() {
            Ok(index) => usize::try_from(index)
                .ok()
                .filter(|index| *index < self.file.stages.len())
                .ok_or_else(|| self.error("stage-index", format!("invalid stage index {index}"), span)),
            Err(_) => Ok(self.source_node(from, span)),
        }
    }

    /// The stage of that name; or a new node for an image or named context.
    fn source_node(&mut self, from: &str, span: Span) -> NodeId {
        if let Some(id) = self.names.get(&from.to_lowercase()) {
            return *id;
        }
        self.nodes.push(Node {
            stage: None,
            base_name: from.to_owned(),
            name: from.to_owned(),
            span,
            platform: None,
            context: None,
            base: None,
            deps: BTreeMap::new(),
            commands: Vec::new(),
            onbuild_done: true,
            resolved: None,
            built: None,
            no_cache: false,
            used_args: BTreeSet::new(),
        });
        self.nodes.len() - 1
    }

    fn check_circles(&self) -> Fallible<()> {
        // 0: not seen, 1: on the path, 2: done.
        let mut state = vec![0_u8; self.nodes.len()];
        for start in 0..self.nodes.len() {
            let mut path: Vec<(NodeId, Vec<NodeId>)> = Vec::new();
            if state[start] == 0 {
                state[start] = 1;
                path.push((start, self.nodes[start].deps.keys().rev().copied().collect()));
            }
            while let Some((id, rest)) = path.last_mut() {
                let id = *id;
                let Some(next) = rest.pop() else {
                    state[id] = 2;
                    path.pop();
                    continue;
                };
                match state[next] {
                    0 => {
                        state[next] = 1;
                        path.push((next, self.nodes[next].deps.keys().rev().copied().collect()));
                    }
                    1 => {
                        let span = self.nodes[id].deps.get(&next).copied().unwrap_or_default();
                        let name = &self.nodes[start].name;
                        let message = format!("circular dependency detected on stage: {name}");
                        return Err(self.error("circular", message, span));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The nodes that `roots` need, themselves included.
    pub(super) fn reachable(&self, roots: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let (mut seen, mut todo) = (BTreeSet::new(), Vec::from_iter(roots));
        while let Some(id) = todo.pop() {
            if seen.insert(id) {
                todo.extend(self.nodes[id].base);
                todo.extend(self.nodes[id].deps.keys());
            }
        }
        seen
    }

    /// Puts the `ONBUILD` instructions of each base before the stage's own. Whether there is something new to read from.
    pub(super) fn apply_onbuild(&mut self, reachable: &BTreeSet<NodeId>) -> Fallible<bool> {
        let mut new_sources = false;
        for &id in reachable {
            if self.nodes[id].onbuild_done || !self.nodes[id].is_stage() {
                continue;
            }
            self.nodes[id].onbuild_done = true;
            let triggers: Vec<String> = match (self.nodes[id].base, &self.nodes[id].resolved) {
                (Some(base), _) => self.nodes[base]
                    .commands
                    .iter()
                    .filter_map(|command| match &command.instruction.kind {
                        InstructionKind::Onbuild(onbuild) => Some(onbuild.expression.clone()),
                        _ => None,
                    })
                    .collect(),
                (None, Some(resolved)) => resolved.config.config.on_build.clone(),
                (None, None) => Vec::new(),
            };
            let mut commands = Vec::with_capacity(triggers.len());
            for trigger in &triggers {
                let span = self.nodes[id].span;
                let mut instruction =
                    parse_onbuild(&self.nodes[id].base_name, trigger).map_err(|mut errors| {
                        let mut message = if errors.is_empty() {
                            "it cannot be read".to_owned()
                        } else {
                            errors.swap_remove(0).message
                        };
                        message = format!("ONBUILD {trigger} of {}: {message}", self.nodes[id].base_name);
                        self.error("onbuild", message, span)
                    })?;
                instruction.span = span;
                let mut command = Command {
                    instruction: Cow::Owned(instruction),
                    sources: Vec::new(),
                    onbuild: true,
                };
                self.link_command(id, &mut command)?;
                new_sources |= command.sources.iter().any(Option::is_some);
                commands.push(command);
            }
            commands.append(&mut self.nodes[id].commands);
            self.nodes[id].commands = commands;
        }
        Ok(new_sources)
    }
}

/// The `from` of a mount, without reading the rest: the graph needs it before any variable has a value, and it may have none.
fn mount_from(mount: &str) -> Option<String> {
    mount
        .split(',')
        .map(|field| field.trim().trim_matches('"'))
        .filter_map(|field| field.split_once('='))
        .filter(|(key, _)| key.eq_ignore_ascii_case("from"))
        .map(|(_, value)| value.to_owned())
        .next_back()
        .filter(|from| !from.is_empty())
}

#[cfg(test)]
mod tests {
    use super::mount_from;

    #[test]
    fn the_source_of_a_mount_is_found() {
        for (mount, from) in [
            ("type=bind,from=a,target=/x", Some("a")),
            ("from=A,target=/x", Some("A")),
            ("type=cache,target=/from=x", None),
            ("\"from=b\",target=/x", Some("b")),
            ("target=/x", None),
            ("from=,target=/x", None),
        ] {
            assert_eq!(mount_from(mount).as_deref(), from, "{mount}");
        }
    }
}
