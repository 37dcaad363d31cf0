//! A stage's instructions, one after the other, each in the environment that the ones before it left.

use super::{
    Fallible, Planner, Vars,
    outline::Used,
    paths,
    scope::NOT_IN_ENVIRONMENT,
    stages::{Command, NodeId},
    text,
};
use crate::{
    model::{Op, Step},
    source::{ImageSource, Source},
};
use slipway_dockerfile::{
    Diagnostic, InstructionKind, Span,
    ast::{ArgDeclaration, Word},
    expand::Lexer,
    lint::{self, LintConfig, rules},
};
use slipway_oci::{History, ImageConfig, Platform};
use std::rc::Rc;

/// `history[].comment` of what a Dockerfile made; tools tell BuildKit's images by it.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage in the making, and when it is done, what later stages take over from it.
#[derive(Debug, Clone)]
pub(super) struct Built {
    /// What it starts from. A stage base that makes no layer is replaced by what that one starts from.
    pub(super) base: Source,
    pub(super) base_config: ImageConfig,
    pub(super) config: ImageConfig,
    /// The image at the bottom.
    pub(super) image: Option<ImageSource>,
    pub(super) platform: Platform,
    /// The environment of steps: the config's and the build arguments.
    pub(super) env: Vars,
    /// The working directory in slashes.
    pub(super) cwd: String,
    /// The `ARG`s in scope, those of the base stage first.
    pub(super) build_args: Vec<(String, Option<String>)>,
    /// A `WORKDIR` of this Dockerfile was seen.
    pub(super) workdir_set: bool,
    pub(super) steps: Vec<Step>,
    /// The stage has a `CMD` of its own, which an `ENTRYPOINT` keeps.
    pub(super) cmd_set: bool,
    pub(super) used: Used,
    number: u32,
}

impl Built {
    /// Whether it adds a layer to its base.
    pub(super) fn makes_layers(&self) -> bool {
        self.steps.iter().any(Step::makes_layer)
    }

    /// Adds a history entry; its position.
    fn commit(&mut self, created_by: String, layer: bool, epoch: Option<i64>) -> usize {
        self.config.history.push(History {
            created: epoch.map(text::timestamp),
            created_by,
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: !layer,
            ..History::default()
        });
        self.config.history.len() - 1
    }
}

/// What an instruction came to.
pub(super) struct Done {
    pub(super) op: Op,
    /// The text of its history entry, without ` # buildkit`; none for `ONBUILD`.
    pub(super) history: Option<String>,
    pub(super) display: Option<String>,
}

impl Done {
    /// An instruction that changes only the config.
    pub(super) fn metadata(history: String) -> Self {
        Self {
            op: Op::Metadata,
            history: Some(history),
            display: None,
        }
    }
}

impl<'a> Planner<'a> {
    /// Plans the instructions of a stage.
    pub(super) fn dispatch_stage(&mut self, id: NodeId) -> Fallible<()> {
        if self.nodes[id].stage.is_none() || self.nodes[id].built.is_some() {
            return Ok(());
        }
        let mut built = self.start(id)?;
        let commands = std::mem::take(&mut self.nodes[id].commands);
        if let Some(stage) = self.nodes[id].stage
            && self.nodes[id].is_stage()
        {
            let shell_is_set = !built.config.config.shell.is_empty();
            self.warnings
                .extend(lint::check_stage(stage, &self.lint, shell_is_set));
            for command in &commands {
                self.dispatch(id, &mut built, command)?;
            }
        }
        self.nodes[id].commands = commands;
        self.nodes[id].built = Some(Rc::new(built));
        Ok(())
    }

    /// The state before the first instruction: what the base hands on.
    fn start(&self, id: NodeId) -> Fallible<Built> {
        let node = &self.nodes[id];
        let from_stage = node
            .base
            .and_then(|base| Some((base, self.nodes[base].built.as_deref()?)));
        let mut built = match (from_stage, &node.resolved) {
            (Some((base, built)), _) => Built {
                base: self.source_of(base),
                ..built.clone()
            },
            (None, Some(resolved)) => Built {
                base: resolved.source.clone(),
                base_config: ImageConfig::default(),
                config: resolved.config.clone(),
                image: resolved.image.clone(),
                platform: node.platform.clone().unwrap_or_else(|| self.target.clone()),
                env: Vars::default(),
                cwd: String::new(),
                build_args: Vec::new(),
                workdir_set: false,
                steps: Vec::new(),
                cmd_set: false,
                used: Used::default(),
                number: 0,
            },
            // Only for a stage that is checked though nothing needs it, and whose base could not be read.
            _ => {
                return Err(self.error(
                    "base-unknown",
                    format!("what {:?} starts from is not known", node.name),
                    node.span,
                ));
            }
        };
        built.steps = Vec::new();
        built.cmd_set = false;
        built.config.config.on_build = Vec::new();
        // BuildKit counts the pull of the base image as the stage's first step.
        built.number = u32::from(node.base.is_none() && matches!(built.base, Source::Image(_)));
        built.used.begin(&node.used_args);

        if built.config.config.env("PATH").is_none() && built.platform.os != "windows" {
            built.config.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for entry in &built.config.config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            built.env.set(name, value);
        }
        let workdir = built.config.config.working_dir.clone();
        if !workdir.is_empty() {
            self.change_directory(&mut built, &workdir, node.span)?;
        }
        built.base_config = built.config.clone();
        Ok(built)
    }

    /// Sets the working directory, in the config and for what follows.
    pub(super) fn change_directory(&self, built: &mut Built, path: &str, span: Span) -> Fallible<()> {
        let os = built.platform.os.clone();
        let resolved = paths::resolve(&built.config.config.working_dir, path, &os, false)
            .map_err(|message| self.error("path", format!("normalizing workdir: {message}"), span))?;
        built.config.config.working_dir = if os == "windows" {
            resolved.replace('/', "\\")
        } else {
            resolved.clone()
        };
        built.cwd = resolved;
        Ok(())
    }

    /// Where to read a node's files. A stage without layers has its base's files.
    pub(super) fn source_of(&self, id: NodeId) -> Source {
        let node = &self.nodes[id];
        match (&node.built, &node.resolved) {
            (Some(built), _) if node.is_stage() && built.makes_layers() => Source::Stage(id),
            (Some(built), _) => built.base.clone(),
            (None, Some(resolved)) => resolved.source.clone(),
            (None, None) => Source::Scratch,
        }
    }

    /// Whether a node's files can be read by the instructions that follow.
    pub(super) fn is_ready(&self, id: NodeId) -> bool {
        let node = &self.nodes[id];
        node.built.is_some() || (!node.is_stage() && node.resolved.is_some())
    }

    fn dispatch(&mut self, id: NodeId, built: &mut Built, command: &Command<'a>) -> Fallible<()> {
        let instruction = command.instruction.as_ref();
        let lint = self.lint.for_comments(&instruction.comments);
        let at = At { id, command, lint };
        let done = match &instruction.kind {
            InstructionKind::Arg(declarations) => self.arg(built, &at, declarations)?,
            InstructionKind::Run(run) => self.run_step(built, &at, run)?,
            InstructionKind::Copy(copy) => self.copy(built, &at, copy)?,
            InstructionKind::Add(add) => self.add(built, &at, add)?,
            InstructionKind::Workdir(path) => self.workdir(built, &at, path)?,
            kind => self.configure(built, &at, kind)?,
        };
        let makes_layer = !matches!(done.op, Op::Metadata);
        let history = done.history.map(|mut message| {
            if matches!(done.op, Op::Run(_) | Op::Copy(_)) {
                message.push_str(" # buildkit");
            }
            built.commit(message, makes_layer, self.epoch)
        });
        let number = makes_layer.then(|| {
            built.number += 1;
            built.number
        });
        built.steps.push(Step {
            op: done.op,
            span: instruction.span,
            instruction: instruction.original.clone(),
            display: done.display.unwrap_or_else(|| instruction.original.clone()),
            onbuild: command.onbuild,
            history,
            number,
        });
        Ok(())
    }

    /// Expands a word in the stage's environment.
    pub(super) fn expand(&mut self, built: &Built, at: &At<'_, 'a>, word: &Word) -> Fallible<String> {
        self.expand_text(built, at, &word.text, self.lexer)
    }

    /// As [`Planner::expand`], for a word that may be absent; an empty one is.
    pub(super) fn expand_optional(
        &mut self,
        built: &Built,
        at: &At<'_, 'a>,
        word: Option<&Word>,
    ) -> Fallible<Option<String>> {
        match word {
            Some(word) => Ok(Some(self.expand(built, at, word)?).filter(|text| !text.is_empty())),
            None => Ok(None),
        }
    }

    pub(super) fn expand_text(
        &mut self,
        built: &Built,
        at: &At<'_, 'a>,
        text: &str,
        lexer: Lexer,
    ) -> Fallible<String> {
        let expansion = lexer
            .process(text, &built.env)
            .map_err(|error| self.error("expansion", error.to_string(), at.span()))?;
        self.report_undefined(built, at, &expansion.unmatched);
        Ok(expansion.text)
    }

    /// `UndefinedVar`. A declared argument without a value is no mistake.
    pub(super) fn report_undefined<'n>(
        &mut self,
        built: &Built,
        at: &At<'_, 'a>,
        names: impl IntoIterator<Item = &'n String>,
    ) {
        for name in names {
            if built.build_args.iter().any(|(arg, _)| arg == name) {
                continue;
            }
            let instruction = at.command.instruction.as_ref();
            self.warnings.extend(rules::undefined_var(
                &at.lint,
                instruction,
                name,
                built.env.names(),
            ));
        }
    }

    /// A text for people with its variables replaced; the text itself if that cannot be done.
    pub(super) fn display(lexer: Lexer, text: &str, env: &Vars) -> String {
        let text = lexer
            .process(text, env)
            .map_or_else(|_| text.to_owned(), |expansion| expansion.text);
        match text.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => text.to_uppercase(),
        }
    }

    fn arg(&mut self, built: &mut Built, at: &At<'_, 'a>, declarations: &[ArgDeclaration]) -> Fallible<Done> {
        let mut words = Vec::with_capacity(declarations.len());
        for declaration in declarations {
            let name = declaration.name.text.as_str();
            let given = self.args.get(name).cloned();
            let from_global =
                given.is_none() && declaration.default.is_none() && self.globals.value(name).is_some();
            let value = match (given, &declaration.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.expand(built, at, default)?),
                (None, None) => self.globals.value(name).map(str::to_owned),
            };
            if let Some(value) = &value
                && !NOT_IN_ENVIRONMENT.contains(&name)
            {
                built.env.set(name, value);
            }
            built
                .used
                .arg(declaration, value.as_deref(), at.span(), from_global);
            words.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.to_owned(),
            });
            built.build_args.push((name.to_owned(), value));
        }
        Ok(Done::metadata(format!("ARG {}", words.join(" "))))
    }
}

/// Where a planner is: a stage's instruction and the checks that run for it.
pub(super) struct At<'c, 'a> {
    pub(super) id: NodeId,
    pub(super) command: &'c Command<'a>,
    pub(super) lint: LintConfig,
}

impl At<'_, '_> {
    pub(super) fn span(&self) -> Span {
        self.command.instruction.span
    }
}

impl Planner<'_> {
    /// An error at an instruction.
    pub(super) fn fail<T>(&self, at: &At<'_, '_>, code: &str, message: impl Into<String>) -> Fallible<T> {
        let error: Box<Diagnostic> = self.error(code, message, at.span());
        Err(error)
    }
}
