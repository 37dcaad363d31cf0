//! An ImageBuild as `status` shows it: the facts, for people and for programs alike.

use super::path::{Ran, critical_path};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use slipway_crd::{
    FailureStatus, ImageBuild, ImageBuildStatus, StageState, StageStatus, StepCounts, conditions,
};

/// What is known of a build. Its JSON form is part of the command line's promises: fields are added, never changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The ImageBuild's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How far it is: the word of `status.phase`.
    pub phase: String,
    /// Whether it has ended.
    pub finished: bool,
    /// Whether it has an image.
    pub succeeded: bool,
    /// Why this run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The reason of the condition `Ready`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Seconds from the beginning of the run to its end, or until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The names that the image is to have, or has.
    pub images: Vec<String>,
    /// The image's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes of the image in the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// The plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// The stages, each after those that it reads from.
    pub stages: Vec<Stage>,
    /// What decided when it ended: the plan and stages, with the time by which each moved the end.
    pub critical_path: Vec<PathPart>,
    /// Why there is no image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureStatus>,
}

/// The plan of a build.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Whether it is there.
    pub done: bool,
    /// Seconds that it took, or has taken until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How many pods have tried.
    pub attempts: u32,
    /// Warnings about the Dockerfile.
    pub warnings: u32,
    /// Its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// A stage of one platform.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Unique in the build.
    pub id: String,
    /// Its name in the Dockerfile.
    pub name: String,
    /// The platform whose node it runs on.
    pub platform: String,
    /// How far it is.
    pub state: StageState,
    /// Seconds since it began, or that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Steps done, cached, in all.
    pub steps: StepCounts,
    /// How many pods have tried.
    pub attempts: u32,
    /// Its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Ids of the stages that it reads from.
    pub needs: Vec<String>,
    /// Ids of those of them that have no result yet.
    pub waits_for: Vec<String>,
    /// The build that runs the same stage just now, for both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<String>,
    /// It is on the critical path.
    pub critical: bool,
}

/// A part of the critical path.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathPart {
    /// `plan`, or a stage's name.
    pub name: String,
    /// The stage's id; none for the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// By how many seconds it moved the end.
    pub seconds: f64,
}

impl Status {
    /// What is known of a build at this time.
    pub fn of(build: &ImageBuild, now: Timestamp) -> Self {
        let absent = ImageBuildStatus::default();
        let status = build.status.as_ref().unwrap_or(&absent);
        let phase = status.phase.unwrap_or_default();
        let ready = conditions::get(&status.conditions, conditions::READY);
        let image = status.image.as_ref();
        let end = ended(status).unwrap_or(now);
        let planned = planned_at(status);
        let mut stages: Vec<_> = status
            .stages
            .iter()
            .map(|stage| row(stage, &status.stages, end))
            .collect();
        let began = planned.or(status.run.as_ref().map(|run| run.started_at.0));
        let path = began
            .map(|began| critical_path(&runs(&status.stages), began, end))
            .unwrap_or_default();
        let plan = status.plan.as_ref().map(|plan| Plan {
            done: plan.digest.is_some(),
            seconds: status.run.as_ref().map(|run| {
                let until = if plan.digest.is_some() {
                    planned.unwrap_or(end)
                } else {
                    end
                };
                seconds(until.duration_since(run.started_at.0))
            }),
            attempts: plan.attempts,
            warnings: plan.warnings,
            pod: plan.pod.clone(),
        });
        let planning = plan
            .as_ref()
            .and_then(|plan| plan.seconds)
            .map(|seconds| PathPart {
                name: "plan".to_owned(),
                stage: None,
                seconds,
            });
        let mut critical_path: Vec<_> = planning.into_iter().collect();
        for part in path {
            if let Some(stage) = stages.get_mut(part.stage) {
                stage.critical = true;
                critical_path.push(PathPart {
                    name: stage.name.clone(),
                    stage: Some(stage.id.clone()),
                    seconds: seconds(part.took),
                });
            }
        }
        Self {
            namespace: build.metadata.namespace.clone().unwrap_or_default(),
            name: build.metadata.name.clone().unwrap_or_default(),
            phase: phase.as_str().to_owned(),
            finished: phase.is_final(),
            succeeded: phase == slipway_crd::Phase::Succeeded,
            cause: status.reason.clone(),
            reason: ready.map(|ready| ready.reason.clone()),
            message: ready.map(|ready| ready.message.clone()),
            seconds: status
                .run
                .as_ref()
                .map(|run| seconds(end.duration_since(run.started_at.0))),
            images: image.map_or_else(|| build.spec.output.images.clone(), |image| image.names.clone()),
            digest: image.map(|image| image.digest.clone()),
            size: image.and_then(|image| image.size),
            plan,
            stages,
            critical_path,
            failure: status.failure.clone(),
        }
    }

    /// Whether stages of several platforms are in it, so that a stage's name alone does not tell which.
    pub fn has_platforms(&self) -> bool {
        let mut platforms = self.stages.iter().map(|stage| &stage.platform);
        let first = platforms.next();
        platforms.any(|platform| Some(platform) != first)
    }
}

fn ended(status: &ImageBuildStatus) -> Option<Timestamp> {
    Some(status.run.as_ref()?.finished_at.as_ref()?.0)
}

/// When the plan of this run was there.
fn planned_at(status: &ImageBuildStatus) -> Option<Timestamp> {
    let planned = conditions::get(&status.conditions, conditions::PLANNED)?;
    let began = status.run.as_ref()?.started_at.0;
    // A condition keeps the time of an earlier run where it has held ever since.
    let here = planned.status == conditions::Status::True.as_str() && planned.last_transition_time.0 >= began;
    here.then_some(planned.last_transition_time.0)
}

fn seconds(time: SignedDuration) -> f64 {
    time.max(SignedDuration::ZERO).as_secs_f64()
}

fn runs(stages: &[StageStatus]) -> Vec<Ran> {
    let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    let places = |needs: &[String]| {
        let place = |id: &String| stages.iter().position(|stage| stage.id == *id);
        needs.iter().filter_map(place).collect()
    };
    stages
        .iter()
        .map(|stage| Ran {
            from: time(&stage.started_at),
            to: time(&stage.finished_at),
            needs: places(&stage.needs),
        })
        .collect()
}

fn row(stage: &StageStatus, all: &[StageStatus], end: Timestamp) -> Stage {
    let waits_for = if stage.state.is_final() {
        Vec::new()
    } else {
        let open = |id: &&String| {
            all.iter()
                .any(|other| other.id == **id && !other.state.has_result())
        };
        stage.needs.iter().filter(open).cloned().collect()
    };
    Stage {
        id: stage.id.clone(),
        name: stage.name.clone(),
        platform: stage.platform.clone(),
        state: stage.state,
        seconds: stage.started_at.as_ref().map(|from| {
            let to = stage.finished_at.as_ref().map_or(end, |to| to.0);
            seconds(to.duration_since(from.0))
        }),
        steps: stage.steps,
        attempts: stage.attempts,
        pod: stage.pod.clone(),
        node: stage.node.clone(),
        needs: stage.needs.clone(),
        waits_for,
        shared_with: stage.shared_with.as_ref().map(|shared| shared.build.clone()),
        critical: false,
    }
}
