//! `slipway-runner plan`: source → Dockerfile → plan, keys, schedule; publishes what the stage pods need.

use crate::{
    artifacts::{self, StoredPlan},
    context::write_packs,
    pod::Pod,
    policy, source,
};
use futures::future::join_all;
use slipway_engine::{
    BuildError, Place, Result,
    cache::RegistryCache,
    context::{Context, DirContext, resolve},
    images::Images,
    selection,
};
use slipway_oci::{Digest, Platform};
use slipway_plan::{
    BaseRequest, Bases, BuildPlan, Input, Keys, Outcome, PlanRequest, Source, StagePlan, Step,
    explain::explain,
    protocol::{
        DockerfileFrom, FailureReason, NoCache, SOURCE_DIR, Schedule, SourceFrom, TerminationMessage,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Read as _,
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

mod have;

use have::Have;

/// A Dockerfile larger than this is not one.
const DOCKERFILE_LIMIT: u64 = 4 << 20;
/// ONBUILD triggers may name images whose configs have triggers; nobody needs more rounds than this.
const ROUNDS: usize = 64;

/// Runs the plan pod.
pub(crate) async fn run(_cancel: CancellationToken) -> Result<TerminationMessage> {
    let pod = Pod::open()?;
    let tree = open_source(&pod)?;
    let (name, text) = dockerfile(&pod, &tree)?;
    let vertex = pod.progress.start(format!("[internal] plan {name}"));
    let parsed =
        slipway_dockerfile::parse(&name, &text).map_err(|errors| BuildError::dockerfile(errors, &text))?;
    warn_of_unknown_stages(&pod, &parsed);
    let ignore = slipway_engine::context::ignore_file(&tree, &name)?;
    let mut request = PlanRequest::new(parsed, Platform::host());
    request.target.clone_from(&pod.request.target);
    request.gates.clone_from(&pod.request.gates);
    request.platforms.clone_from(&pod.request.platforms);
    request.args.clone_from(&pod.request.args);
    request.labels.clone_from(&pod.request.labels);
    request.no_cache.clone_from(&pod.request.no_cache);
    request.ignore.clone_from(&ignore);
    let images = Images::new(pod.registries.clone());
    let mut plan = plan(&request, &images, &pod.request.allowed_bases).await?;
    slipway_plan::split_results(&mut plan);
    annotate(&mut plan, &pod.request.annotations);
    for warning in &plan.warnings {
        pod.progress
            .warn(&format!("{:?}", warning.rule), &warning.detail, warning.line);
    }
    vertex.done();

    let context = tree.ignoring(slipway_engine::context::matcher(&ignore)?);
    let contents = digests(&plan, &context)?;
    let keys = slipway_plan::keys(&plan, &|input| contents.get(input).cloned());
    let cache = RegistryCache::new(pod.places(), pod.build_name(), false, pod.progress.clone());
    let have = have::look(&pod, &cache, &plan, &keys, &images).await?;
    let message = publish(&pod, plan, keys, have, &context).await?;
    cache.finish().await;
    Ok(message)
}

/// Puts the annotations of each image into the plan: those of the request over what is known of the base (OCI image
/// specification, "Pre-Defined Annotation Keys").
fn annotate(plan: &mut BuildPlan, asked: &BTreeMap<String, String>) {
    for result in &mut plan.results {
        if let Some(base) = &result.base {
            let name = base.reference.without_tag_and_digest();
            let name = match base.reference.tag() {
                Some(tag) => format!("{name}:{tag}"),
                None => name,
            };
            let digest = base.digest.to_string();
            result
                .annotations
                .insert("org.opencontainers.image.base.name".into(), name);
            result
                .annotations
                .insert("org.opencontainers.image.base.digest".into(), digest);
        }
        result.annotations.extend(asked.clone());
    }
}

/// Stages that the cache shall not be used for and that are not there: most likely misspelt.
fn warn_of_unknown_stages(pod: &Pod, dockerfile: &slipway_dockerfile::Dockerfile) {
    let NoCache::Stages(names) = &pod.request.no_cache else {
        return;
    };
    for name in names {
        let is_there = dockerfile.stages.iter().any(|stage| {
            stage
                .name
                .as_deref()
                .is_some_and(|own| own.eq_ignore_ascii_case(name))
        });
        if !is_there {
            let detail =
                format!("spec.cache.noCacheStages names {name:?}, and the Dockerfile has no such stage");
            pod.progress.warn("UnknownStage", &detail, 0);
        }
    }
}

/// The source's files, nothing ignored yet.
fn open_source(pod: &Pod) -> Result<DirContext> {
    let dir = Pod::scratch("source");
    match pod.request.source {
        SourceFrom::Directory => source::materialise(Path::new(SOURCE_DIR), &dir)
            .map_err(|error| BuildError::new(FailureReason::SourceUnreachable, error.to_string()))?,
        SourceFrom::Empty => {
            std::fs::create_dir_all(&dir).map_err(|error| BuildError::io("make an empty context", error))?;
        }
    }
    DirContext::open(dir, "the build context")
        .map(DirContext::owned_by_root)
        .map_err(|error| BuildError::io("open the source", error))
}

/// Name and text of the Dockerfile.
fn dockerfile(pod: &Pod, tree: &DirContext) -> Result<(String, String)> {
    let path = match &pod.request.dockerfile {
        DockerfileFrom::Inline(text) => return Ok(("Dockerfile".into(), text.clone())),
        DockerfileFrom::Path(path) => path,
    };
    let read = || -> std::io::Result<Option<Vec<u8>>> {
        let resolved = resolve(tree, Path::new(path), true)?;
        if tree.lookup(&resolved)?.is_none_or(|entry| entry.is_dir()) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        tree.open(&resolved)?
            .take(DOCKERFILE_LIMIT + 1)
            .read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    };
    let bytes = read()
        .map_err(|error| BuildError::io(format!("read {path}"), error))?
        .ok_or_else(|| {
            BuildError::not_found(format!(
                "the Dockerfile {path:?} is not in the source; set spec.dockerfile.path to where it is"
            ))
        })?;
    if bytes.len() as u64 > DOCKERFILE_LIMIT {
        return Err(BuildError::new(
            FailureReason::DockerfileInvalid,
            format!("{path} is larger than {} MiB", DOCKERFILE_LIMIT >> 20),
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        BuildError::new(
            FailureReason::DockerfileInvalid,
            format!("{path} is not UTF-8: {error}"),
        )
    })?;
    Ok((path.clone(), text))
}

/// Plans, looking up the images that planning asks for, all of a round side by side.
async fn plan(request: &PlanRequest, images: &Images, allowed: &[String]) -> Result<BuildPlan> {
    let mut bases = Bases::new();
    let mut wait = None;
    for _ in 0..ROUNDS {
        let outcome = slipway_plan::plan(request, &bases).map_err(|errors| {
            BuildError::dockerfile(errors, &request.dockerfile.source).with_retry_after(wait)
        })?;
        match outcome {
            Outcome::Ready(plan) => return Ok(*plan),
            Outcome::Need(needed) => {
                if let Some((base, refusal)) = policy::first_refusal(&needed, allowed) {
                    // With this answer the planner names the instruction; the registry is not asked.
                    bases.insert(base, Err(refusal));
                    continue;
                }
                let look_up = |request: BaseRequest| async {
                    let answer = images.resolve(&request).await;
                    (request, answer)
                };
                for (request, answer) in join_all(needed.into_iter().map(look_up)).await {
                    // The longest of the round: before that, the next attempt would meet the same limit.
                    wait = wait.max(answer.as_ref().err().and_then(|error| error.retry_after));
                    bases.insert(request, answer);
                }
            }
        }
    }
    Err(BuildError::new(
        FailureReason::DockerfileInvalid,
        "the ONBUILD triggers of the base images never end",
    ))
}

/// Digests of all that the plan reads of the context. A file that is missing fails here, with its instruction.
fn digests(plan: &BuildPlan, context: &dyn Context) -> Result<HashMap<Input, Digest>> {
    let mut digests = HashMap::new();
    for stage in &plan.stages {
        for step in &stage.steps {
            for input in step.inputs() {
                if input.source == Source::Context && !digests.contains_key(&input) {
                    let digest = selection::digest(context, &input.selection)
                        .map_err(|error| error.at(&stage.name, &place(plan, step)))?;
                    digests.insert(input, digest);
                }
            }
        }
        if let Some(input) = base_in_context(stage) {
            let digest = selection::digest(context, &input.selection)?;
            digests.insert(input, digest);
        }
    }
    Ok(digests)
}

fn base_in_context(stage: &StagePlan) -> Option<Input> {
    stage.base_input().filter(|input| input.source == Source::Context)
}

fn place(plan: &BuildPlan, step: &Step) -> Place {
    Place {
        file: plan.dockerfile.clone(),
        source: plan.source.as_str().into(),
        span: step.span,
        instruction: step.instruction.clone(),
    }
}

async fn publish(
    pod: &Pod,
    plan: BuildPlan,
    keys: Keys,
    have: Have,
    context: &DirContext,
) -> Result<TerminationMessage> {
    let places = pod.places();
    let place = places.own();
    let vertex = pod.progress.start("[internal] publish plan and context");
    let schedule = have.schedule;
    let outcome = schedule.results.iter();
    let outcome: Vec<Digest> = outcome
        .filter_map(|result| schedule.stages[result.stage].cached.clone())
        .collect();
    let build = pod.build_name();
    let (context, before) = tokio::join!(
        publish_needed(pod, &plan, &schedule, context),
        artifacts::get_last_plan(place, &build)
    );
    let context = context?;
    let before = before.as_ref().map(|before| (&before.plan, &before.keys));
    let explanation = explain(&plan, &keys, &have.had, before);
    for line in explanation.summary() {
        vertex.line(&line);
    }
    let warnings = u32::try_from(plan.warnings.len()).unwrap_or(u32::MAX);
    let stored = StoredPlan {
        plan,
        keys,
        schedule,
        context,
        names: have.names,
        roots: have.roots,
        steps: have.steps,
    };
    let digest = artifacts::put_plan(place, &stored, &explanation, &pod.stamp(), &build).await?;
    // Results that need no pod are brought to the image's repositories here.
    for manifest in outcome {
        for output in pod.output_repositories() {
            slipway_registry::copy_image(&place.repository, &manifest, &output).await?;
        }
    }
    vertex.done();
    Ok(TerminationMessage::Planned {
        plan: digest,
        warnings,
    })
}

fn reads_context(plan: &BuildPlan) -> bool {
    plan.stages
        .iter()
        .flat_map(StagePlan::inputs)
        .any(|input| input.source == Source::Context)
}

/// The paths of the context that a stage which is not cached can read.
fn needed_paths(plan: &BuildPlan, schedule: &Schedule, context: &dyn Context) -> Result<BTreeSet<PathBuf>> {
    let mut selections = BTreeSet::new();
    for (stage, scheduled) in plan.stages.iter().zip(&schedule.stages) {
        if scheduled.cached.is_none() {
            let inputs = stage.inputs().filter(|input| input.source == Source::Context);
            selections.extend(inputs.map(|input| input.selection));
        }
    }
    let mut paths = BTreeSet::new();
    for selection in selections {
        paths.append(&mut selection::paths(context, &selection)?);
    }
    Ok(paths)
}

/// Publishes what the stages that run read of the context; nothing if no stage reads it.
async fn publish_needed(
    pod: &Pod,
    plan: &BuildPlan,
    schedule: &Schedule,
    context: &DirContext,
) -> Result<Option<Digest>> {
    let paths = needed_paths(plan, schedule, context)?;
    if paths.is_empty() && !reads_context(plan) {
        return Ok(None);
    }
    publish_context(pod, context, &paths).await.map(Some)
}

async fn publish_context(pod: &Pod, context: &DirContext, paths: &BTreeSet<PathBuf>) -> Result<Digest> {
    let (index, packs) = write_packs(context, &|path, _| paths.contains(path), &Pod::scratch("packs"))
        .map_err(|error| BuildError::io("pack the build context", error))?;
    artifacts::put_context(pod.places().own(), &index, packs, &pod.stamp()).await
}
