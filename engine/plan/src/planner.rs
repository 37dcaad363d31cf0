//! The planner: a Dockerfile and a request to a plan, by the rules of BuildKit's Dockerfile front end.
//!
//! ```text
//! for each platform:  scope ─▶ stages ─▶ link ─▶ bases ⇄ ONBUILD ─▶ dispatch (run, copy, config) ─▶ Planned
//! all of them:        merge: equal stages become one ─▶ BuildPlan
//! ```
//! Each platform is planned by itself, as if it were the only one; a stage that comes out the same for two platforms
//! does not depend on the target platform, and is kept once.

mod bases;
mod config;
mod copy;
mod dispatch;
mod epoch;
mod git;
mod merge;
mod mounts;
mod outline;
pub(crate) mod paths;
mod run;
mod scope;
mod signals;
mod stages;
pub(crate) mod text;

pub use git::git_source;
pub(crate) use merge::unique_id;
pub use outline::{Outline, OutlineArg, OutlineSecret};

use crate::request::{BaseRequest, Bases, Outcome, PlanRequest};
use scope::{GlobalArg, Vars};
use slipway_dockerfile::{
    Diagnostic, Dockerfile, Span,
    expand::Lexer,
    ignore::Matcher,
    lint::{self, LintConfig, Warning},
};
use slipway_oci::Platform;
use stages::{Node, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// A result, or the one thing that is wrong. Boxed: the good case is the usual one and small.
type Fallible<T> = Result<T, Box<Diagnostic>>;

/// The state of planning for one platform.
struct Planner<'a> {
    request: &'a PlanRequest,
    bases: &'a Bases,
    file: &'a Dockerfile,
    /// The target platform.
    target: Platform,
    /// The request names no platform.
    implicit: bool,
    /// The build arguments; `SOURCE_DATE_EPOCH` in its resolved form.
    args: BTreeMap<String, String>,
    globals: Vars,
    declared: BTreeMap<String, GlobalArg>,
    epoch: Option<i64>,
    lexer: Lexer,
    lint: LintConfig,
    /// The context's ignore rules.
    ignore: Option<Matcher>,
    /// Named contexts by normalised name: the name as given and what it is.
    contexts: BTreeMap<String, (String, String)>,
    warnings: Vec<Warning>,
    needs: BTreeSet<BaseRequest>,
    nodes: Vec<Node<'a>>,
    names: BTreeMap<String, NodeId>,
}

/// A platform that is planned.
struct Planned<'a> {
    platform: Platform,
    implicit: bool,
    nodes: Vec<Node<'a>>,
    target: NodeId,
    /// The stages that must succeed beside it.
    gates: Vec<NodeId>,
    /// The nodes that target and gates need.
    reachable: BTreeSet<NodeId>,
    epoch: Option<i64>,
    declared: BTreeMap<String, GlobalArg>,
}

/// All platforms, planned, and what the build checks found; or the images that are wanted first.
enum Plans<'a> {
    Need(BTreeSet<BaseRequest>),
    Ready(Vec<Planned<'a>>, Vec<Warning>),
}

/// See [`crate::plan`].
pub(crate) fn plan(request: &PlanRequest, bases: &Bases) -> Result<Outcome, Vec<Diagnostic>> {
    match plan_all(request, bases)? {
        Plans::Need(needs) => Ok(Outcome::Need(needs.into_iter().collect())),
        Plans::Ready(planned, warnings) => Ok(Outcome::Ready(Box::new(merge::merge(
            request, &planned, warnings,
        )))),
    }
}

/// See [`crate::outline`].
pub(crate) fn outline(
    request: &PlanRequest,
    bases: &Bases,
) -> Result<Result<Outline, Vec<BaseRequest>>, Vec<Diagnostic>> {
    match plan_all(request, bases)? {
        Plans::Need(needs) => Ok(Err(needs.into_iter().collect())),
        Plans::Ready(planned, _) => Ok(Ok(planned.first().map(outline::outline).unwrap_or_default())),
    }
}

fn plan_all<'a>(request: &'a PlanRequest, bases: &'a Bases) -> Result<Plans<'a>, Vec<Diagnostic>> {
    let file = &request.dockerfile;
    let mut warnings = Vec::new();
    let fail = |error: Diagnostic, warnings: &[Warning]| {
        let mut all = vec![error];
        all.extend(warnings.iter().map(|warning| warning.diagnostic(file)));
        all
    };
    let check = request.args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
    let lint = LintConfig::of(file, check).map_err(|message| {
        vec![Diagnostic::error(
            "check-options",
            format!("failed to parse check options: {message}"),
        )]
    })?;
    warnings.extend(lint::check(file, &lint));
    if file.stages.is_empty() {
        let error = Diagnostic::error("no-stages", "dockerfile contains no stages to build")
            .advise("Add a FROM; \"FROM scratch\" starts from nothing.");
        return Err(fail(error, &warnings));
    }
    let platforms = if request.platforms.is_empty() {
        vec![(request.build_platform.clone(), true)]
    } else {
        request
            .platforms
            .iter()
            .map(|platform| (platform.clone(), false))
            .collect()
    };
    let (mut planned, mut needs) = (Vec::new(), BTreeSet::new());
    for (platform, implicit) in platforms {
        let mut planner = match Planner::new(request, bases, platform, implicit, lint.clone()) {
            Ok(planner) => planner,
            Err(error) => return Err(fail(*error, &warnings)),
        };
        let result = planner.run();
        add_new(&mut warnings, std::mem::take(&mut planner.warnings));
        match result {
            Err(error) => return Err(fail(*error, &warnings)),
            Ok(None) => needs.append(&mut planner.needs),
            Ok(Some(one)) => planned.push(one),
        }
    }
    if !needs.is_empty() {
        return Ok(Plans::Need(needs));
    }
    if let Some(violation) = lint::violation(&lint, &warnings) {
        return Err(fail(violation, &warnings));
    }
    Ok(Plans::Ready(planned, warnings))
}

/// Adds the warnings that are not there yet: each platform finds the same ones.
fn add_new(warnings: &mut Vec<Warning>, found: Vec<Warning>) {
    for warning in found {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

impl<'a> Planner<'a> {
    fn new(
        request: &'a PlanRequest,
        bases: &'a Bases,
        target: Platform,
        implicit: bool,
        lint: LintConfig,
    ) -> Fallible<Self> {
        let file = &request.dockerfile;
        let contexts = bases::normalize_contexts(&request.contexts)?;
        // Patterns that cannot be read are the context's fault and reported where it is read.
        let ignore = Matcher::new(&request.ignore).ok();
        Ok(Self {
            request,
            bases,
            file,
            target,
            implicit,
            args: request.args.clone(),
            globals: Vars::default(),
            declared: BTreeMap::new(),
            epoch: None,
            lexer: Lexer::new(file.escape),
            lint,
            ignore,
            contexts,
            warnings: Vec::new(),
            needs: BTreeSet::new(),
            nodes: Vec::new(),
            names: BTreeMap::new(),
        })
    }

    /// Plans for the platform; `None` when images have to be looked up first.
    fn run(&mut self) -> Fallible<Option<Planned<'a>>> {
        self.check_default_bases();
        let (globals, declared) = self.global_scope(self.predefined(), &self.args)?;
        (self.globals, self.declared) = (globals, declared);
        self.resolve_epoch()?;
        self.make_nodes()?;
        let target = self.find_target()?;
        let gates = self.find_gates()?;
        self.link()?;
        let reachable = loop {
            let reachable = self.reachable(std::iter::once(target).chain(gates.iter().copied()));
            self.resolve(&reachable)?;
            if !self.needs.is_empty() {
                return Ok(None);
            }
            if !self.apply_onbuild(&reachable)? {
                break reachable;
            }
        };
        for id in 0..self.nodes.len() {
            if self.request.all_stages || reachable.contains(&id) {
                self.dispatch_stage(id)?;
            }
        }
        Ok(Some(Planned {
            platform: self.target.clone(),
            implicit: self.implicit,
            nodes: std::mem::take(&mut self.nodes),
            target,
            gates,
            reachable,
            epoch: self.epoch,
            declared: std::mem::take(&mut self.declared),
        }))
    }

    /// An error at a place of the Dockerfile.
    fn error(&self, code: &str, message: impl Into<String>, span: Span) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(code, message).at(self.file.name.clone(), &self.file.source, span))
    }
}
