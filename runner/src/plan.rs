//! `slipway-runner plan`: source → Dockerfile → plan, keys, schedule; publishes what the stage pods need.

use crate::{
    artifacts::{self, StoredPlan, stage_tag},
    context::write_packs,
    pod::{Pod, internal},
    source,
};
use futures::future::{join_all, try_join_all};
use slipway_engine::{
    BuildError, Place, Result,
    context::{Context, DirContext, resolve},
    images::Images,
    selection,
};
use slipway_oci::{Digest, Platform};
use slipway_plan::{
    BaseRequest, Bases, BuildPlan, Input, Keys, Outcome, PlanRequest, Source, StagePlan, Step,
    protocol::{DockerfileFrom, FailureReason, SOURCE_DIR, Schedule, SourceFrom, TerminationMessage},
};
use std::{
    collections::{BTreeSet, HashMap},
    io::Read as _,
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

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
    let plan = plan(&request, &images).await?;
    for warning in &plan.warnings {
        pod.progress
            .warn(&format!("{:?}", warning.rule), &warning.detail, warning.line);
    }
    vertex.done();

    let context = tree.ignoring(slipway_engine::context::matcher(&ignore)?);
    let contents = digests(&plan, &context)?;
    let keys = slipway_plan::keys(&plan, &|input| contents.get(input).cloned());
    let schedule = schedule(&pod, &plan, &keys).await?;
    publish(&pod, plan, keys, schedule, &context).await
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
async fn plan(request: &PlanRequest, images: &Images) -> Result<BuildPlan> {
    let mut bases = Bases::new();
    let mut missing = None;
    for _ in 0..ROUNDS {
        let outcome = slipway_plan::plan(request, &bases).map_err(|errors| {
            let error = BuildError::dockerfile(errors, &request.dockerfile.source);
            match missing {
                Some(reason) => error.with_reason(reason),
                None => error,
            }
        })?;
        match outcome {
            Outcome::Ready(plan) => return Ok(*plan),
            Outcome::Need(needed) => {
                let look_up = |request: BaseRequest| async {
                    let answer = images.resolve(&request).await;
                    (request, answer)
                };
                for (request, answer) in join_all(needed.into_iter().map(look_up)).await {
                    // The planner says where; only here is it known why.
                    if let Err(error) = &answer {
                        missing = Some(if error.not_found {
                            FailureReason::ImageNotFound
                        } else {
                            FailureReason::RegistryError
                        });
                    }
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

/// The schedule, with the results that the cache repository has.
async fn schedule(pod: &Pod, plan: &BuildPlan, keys: &Keys) -> Result<Schedule> {
    let mut schedule = slipway_plan::schedule(plan, keys, &|_| None);
    // A result's manifest holds the labels of the request, which its stage's key does not know.
    for result in &plan.results {
        let stage = &mut schedule.stages[result.stage];
        let config = serde_json::to_string(&result.config).map_err(|error| internal(error.to_string()))?;
        stage.key = Digest::of(format!("result\n{}\n{config}\n{:?}", stage.key, plan.epoch).as_bytes())
            .hex()
            .into();
    }
    let shared = plan.results.len()
        != plan
            .results
            .iter()
            .map(|result| result.stage)
            .collect::<BTreeSet<_>>()
            .len();
    if shared {
        return Err(BuildError::new(
            FailureReason::DockerfileInvalid,
            "the last stage is the same for several platforms (its FROM names a fixed --platform); build each platform \
             with an ImageBuild of its own",
        ));
    }
    let cache = pod.cache();
    let probes =
        schedule
            .stages
            .iter()
            .zip(&plan.stages)
            .zip(&keys.stages)
            .map(|((scheduled, stage), keys)| {
                let (cache, tag) = (&cache, stage_tag(&scheduled.key));
                async move {
                    if stage.no_cache || !keys.certain {
                        return Ok(None);
                    }
                    Ok::<_, BuildError>(
                        cache
                            .head_manifest(tag.as_str())
                            .await?
                            .and_then(|found| found.digest),
                    )
                }
            });
    let found = try_join_all(probes).await?;
    for (stage, cached) in schedule.stages.iter_mut().zip(found) {
        stage.cached = cached;
    }
    Ok(schedule)
}

async fn publish(
    pod: &Pod,
    plan: BuildPlan,
    keys: Keys,
    schedule: Schedule,
    context: &DirContext,
) -> Result<TerminationMessage> {
    let cache = pod.cache();
    let vertex = pod.progress.start("[internal] publish plan and context");
    let mut outcome = Vec::new();
    for result in &schedule.results {
        outcome.push(schedule.stages[result.stage].cached.clone());
    }
    let context = match needed_paths(&plan, &schedule, context)? {
        paths if paths.is_empty() && !reads_context(&plan) => None,
        paths => Some(publish_context(pod, context, &paths).await?),
    };
    let warnings = u32::try_from(plan.warnings.len()).unwrap_or(u32::MAX);
    let stored = StoredPlan {
        plan,
        keys,
        schedule,
        context,
    };
    let digest = artifacts::put_plan(&cache, &stored).await?;
    // Results that need no pod are brought to the image's repositories here.
    for manifest in outcome.into_iter().flatten() {
        for output in pod.output_repositories() {
            slipway_registry::copy_image(&cache, &manifest, &output).await?;
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

async fn publish_context(pod: &Pod, context: &DirContext, paths: &BTreeSet<PathBuf>) -> Result<Digest> {
    let (index, packs) = write_packs(context, &|path, _| paths.contains(path), &Pod::scratch("packs"))
        .map_err(|error| BuildError::io("pack the build context", error))?;
    artifacts::put_context(&pod.cache(), &index, packs).await
}
