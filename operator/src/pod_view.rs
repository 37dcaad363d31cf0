//! A runner pod as a decision sees it: what it is for, and how far it is. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use slipway_crd::{FailureStatus, names, reasons};
use slipway_oci::Digest;
use slipway_plan::protocol::{FailureReason, TerminationMessage};

use crate::pods::CONTAINER;

/// A pod that has its node and does not start for so long is asked about; most take a second or two.
pub const STUCK_AFTER: SignedDuration = SignedDuration::from_secs(15);

/// What a pod is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It makes the plan.
    Plan,
    /// It builds the stage of this id.
    Stage(String),
}

/// A runner pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// The number of the run that it belongs to.
    pub run: i64,
    /// What it is for.
    pub kind: Kind,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// The node that it was given.
    pub node: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// Somebody has deleted it, and it is not gone yet.
    pub deleting: bool,
    /// If somebody has deleted it: when it should be gone, its grace period over.
    pub gone_by: Option<Timestamp>,
    /// How far it is.
    pub state: PodState,
}

/// How far a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodState {
    /// It does not run yet.
    Waiting(Wait),
    /// It runs.
    Running,
    /// A plan pod is done.
    Planned {
        /// The plan's manifest.
        plan: Digest,
        /// Warnings that the Dockerfile got.
        warnings: u32,
    },
    /// A stage pod is done.
    Finished {
        /// The manifest of its result.
        manifest: Digest,
        /// Steps executed.
        executed: u32,
        /// Steps taken from the cache.
        cached: u32,
        /// When.
        at: Timestamp,
    },
    /// It failed.
    Failed(Failed),
}

/// Why a pod does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The usual: a node is sought, volumes are mounted, the container is made.
    Starting,
    /// No node can take it; the scheduler's words.
    Unschedulable(String),
    /// The runner image does not come; the kubelet's words.
    ImagePull(String),
    /// Its container cannot be made; the kubelet's words.
    CannotStart(String),
    /// Its node cannot give it a user namespace; the kubelet's words.
    NoUserNamespaces(String),
}

/// How a pod failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// For the status; without stage, platform and pod, which the decision adds.
    pub failure: FailureStatus,
    /// Not its own fault: it may be tried again.
    pub transient: bool,
    /// Not before this time is over: a registry asked for it.
    pub retry_after: Option<Duration>,
    /// When.
    pub at: Timestamp,
}

impl PodView {
    /// The view of a pod, or `None` for one that Slipway did not make.
    pub fn of(pod: &Pod) -> Option<Self> {
        let labels = pod.metadata.labels.as_ref()?;
        let kind = match labels.get(names::LABEL_KIND)?.as_str() {
            "plan" => Kind::Plan,
            _ => Kind::Stage(labels.get(names::LABEL_STAGE)?.clone()),
        };
        let created = pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        Some(Self {
            name: pod.metadata.name.clone()?,
            run: labels.get(names::LABEL_RUN)?.parse().ok()?,
            state: state(pod, &kind, created),
            kind,
            attempt: labels.get(names::LABEL_ATTEMPT)?.parse().ok()?,
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            created,
            deleting: pod.metadata.deletion_timestamp.is_some(),
            gone_by: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
        })
    }

    /// Whether it may still do something: it must not be left behind.
    pub fn is_alive(&self) -> bool {
        matches!(self.state, PodState::Waiting(_) | PodState::Running)
    }

    /// Whether it has its node, and should have started by now.
    pub fn is_stuck(&self, now: Timestamp) -> bool {
        let usual = matches!(self.state, PodState::Waiting(Wait::Starting)) && self.node.is_some();
        usual && !self.deleting && now.duration_since(self.created) >= STUCK_AFTER
    }

    /// Whether it failed in a way that another attempt does not mend.
    pub fn failed_for_good(&self) -> bool {
        matches!(&self.state, PodState::Failed(failed) if !failed.transient)
    }

    /// Whether it ended because it, or a step in it, ran out of memory.
    pub fn ran_out_of_memory(&self) -> bool {
        matches!(&self.state, PodState::Failed(failed) if failed.failure.reason == FailureReason::OutOfMemory.as_str())
    }
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let mut all = pod.status.as_ref()?.container_statuses.as_ref()?.iter();
    // Beside it there may be one that holds the files of a failed step.
    all.find(|container| container.name == CONTAINER)
}

fn state(pod: &Pod, kind: &Kind, created: Timestamp) -> PodState {
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending");
    let terminated = container(pod).and_then(|container| container.state.as_ref()?.terminated.as_ref());
    // The container's end is known before the pod's phase follows: the next stage need not wait for that.
    match (phase, terminated) {
        ("Succeeded" | "Failed", None) => failed_without_container(pod, created),
        (_, Some(terminated)) => ended(pod, kind, terminated, created),
        ("Running" | "Unknown", None) => PodState::Running,
        _ => PodState::Waiting(wait(pod)),
    }
}

fn wait(pod: &Pod) -> Wait {
    let status = pod.status.as_ref();
    let unscheduled = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled
        && condition.reason.as_deref() == Some("Unschedulable")
    {
        return Wait::Unschedulable(condition.message.clone().unwrap_or_default());
    }
    let Some(waiting) = container(pod).and_then(|container| container.state.as_ref()?.waiting.as_ref())
    else {
        return Wait::Starting;
    };
    let message = || {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        match waiting.message.as_deref() {
            Some(message) if !message.is_empty() => format!("{reason}: {message}"),
            _ => reason.to_owned(),
        }
    };
    match waiting.reason.as_deref().unwrap_or_default() {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => Wait::ImagePull(message()),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" | "CrashLoopBackOff" => {
            Wait::CannotStart(message())
        }
        _ => Wait::Starting,
    }
}

/// What an event of a pod that does not start says of it, if it is about that.
pub fn of_event(reason: &str, message: &str) -> Option<Wait> {
    let about_starting = [
        "FailedCreatePodSandBox",
        "FailedMount",
        "FailedAttachVolume",
        "FailedMapVolume",
        "NetworkNotReady",
    ];
    if !about_starting.contains(&reason) {
        return None;
    }
    let text = format!("{reason}: {message}");
    let small = message.to_lowercase();
    // The kubelet's, containerd's and CRI-O's ways to say it.
    let words = ["user namespace", "usernamespace", "hostusers", "userns", "idmap"];
    Some(if words.iter().any(|word| small.contains(word)) {
        Wait::NoUserNamespaces(text)
    } else {
        Wait::CannotStart(text)
    })
}

fn ended(pod: &Pod, kind: &Kind, terminated: &ContainerStateTerminated, created: Timestamp) -> PodState {
    let at = terminated.finished_at.as_ref().map_or(created, |time| time.0);
    let text = terminated.message.as_deref().unwrap_or_default();
    match (serde_json::from_str::<TerminationMessage>(text), kind) {
        (Ok(TerminationMessage::Planned { plan, warnings }), Kind::Plan) => {
            PodState::Planned { plan, warnings }
        }
        (
            Ok(TerminationMessage::Finished {
                manifest,
                executed,
                cached,
                size: _,
            }),
            Kind::Stage(_),
        ) => PodState::Finished {
            manifest,
            executed,
            cached,
            at,
        },
        (Ok(TerminationMessage::Failed(failure)), _) => {
            // A pod that was told to stop may say that its network went away; why it was told comes first.
            if let Some(disruption) = disruption(pod) {
                return failed(reasons::POD_EVICTED, disruption, true, at);
            }
            if failure.reason == FailureReason::Stopped {
                let message = "the pod was deleted before it was done".to_owned();
                return failed(reasons::POD_LOST, message, true, at);
            }
            let transient = is_transient(failure.reason);
            let log = (!failure.log.is_empty()).then_some(failure.log);
            PodState::Failed(Failed {
                failure: FailureStatus {
                    reason: failure.reason.as_str().to_owned(),
                    message: failure.message,
                    stage: failure.stage,
                    file: failure.file,
                    line: failure.line,
                    instruction: failure.instruction,
                    exit_code: failure.exit_code,
                    log,
                    ..FailureStatus::default()
                },
                transient,
                retry_after: failure
                    .retry_after
                    .map(|seconds| Duration::from_secs(seconds.into())),
                at,
            })
        }
        (Ok(_), _) => failed(
            reasons::INTERNAL,
            "the pod answered what is not its work to answer".to_owned(),
            false,
            at,
        ),
        (Err(_), _) => wordless(pod, terminated, at),
    }
}

/// A container that ended without a word that can be understood.
fn wordless(pod: &Pod, terminated: &ContainerStateTerminated, at: Timestamp) -> PodState {
    if let Some(message) = disruption(pod) {
        return failed(reasons::POD_EVICTED, message, true, at);
    }
    let code = terminated.exit_code;
    match terminated.reason.as_deref().unwrap_or_default() {
        "OOMKilled" => failed(
            FailureReason::OutOfMemory.as_str(),
            "the pod ran out of memory: raise spec.pods.resources.limits.memory, or set spec.retryMemoryFactor"
                .to_owned(),
            true,
            at,
        ),
        "ContainerStatusUnknown" => failed(
            reasons::POD_LOST,
            "the node does not know any more what became of the pod".to_owned(),
            true,
            at,
        ),
        "StartError" | "ContainerCannotRun" => failed(
            reasons::POD_CANNOT_START,
            format!(
                "the node could not start the runner: {}",
                terminated.message.as_deref().unwrap_or_default()
            ),
            false,
            at,
        ),
        // Killed from outside (128 + SIGKILL, SIGTERM) and nothing says why: the node's doing, not the build's.
        _ if code == 137 || code == 143 => failed(
            reasons::POD_LOST,
            format!("the pod was killed (exit code {code})"),
            true,
            at,
        ),
        _ => {
            let mut state = failed(
                reasons::INTERNAL,
                format!("the runner ended with code {code} and left no message; see the pod's log"),
                false,
                at,
            );
            if let PodState::Failed(failed) = &mut state {
                failed.failure.exit_code = Some(code);
                failed.failure.log = terminated.message.clone().filter(|log| !log.is_empty());
            }
            state
        }
    }
}

/// The pod ended and nothing is known of its container: it never ran, or the node is gone.
fn failed_without_container(pod: &Pod, created: Timestamp) -> PodState {
    if let Some(message) = disruption(pod) {
        return failed(reasons::POD_EVICTED, message, true, created);
    }
    let status = pod.status.as_ref();
    let reason = status
        .and_then(|status| status.reason.as_deref())
        .unwrap_or("no reason given");
    let message = status
        .and_then(|status| status.message.as_deref())
        .unwrap_or_default();
    // Admission by the node (OutOfcpu, OutOfmemory, NodeAffinity, UnexpectedAdmissionError…): another node may take it.
    failed(
        reasons::POD_LOST,
        format!("the node refused or lost the pod: {reason} {message}")
            .trim_end()
            .to_owned(),
        true,
        created,
    )
}

/// Why somebody else ended the pod, if so.
fn disruption(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let target = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    if let Some(condition) = target {
        let reason = condition.reason.as_deref().unwrap_or("disrupted");
        let message = condition.message.as_deref().unwrap_or_default();
        return Some(format!("the pod was disrupted ({reason}): {message}"));
    }
    match status.reason.as_deref()? {
        reason @ ("Evicted" | "Preempting" | "NodeShutdown" | "Terminated" | "NodeLost" | "Shutdown") => {
            Some(format!(
                "the pod was evicted ({reason}): {}",
                status.message.as_deref().unwrap_or_default()
            ))
        }
        _ => None,
    }
}

/// Whether a failure that a runner tells may go away by itself.
pub const fn is_transient(reason: FailureReason) -> bool {
    match reason {
        FailureReason::RegistryUnreachable
        | FailureReason::RegistryError
        | FailureReason::RegistryRateLimited
        | FailureReason::SourceUnreachable
        | FailureReason::OutOfMemory
        | FailureReason::NoSpace
        | FailureReason::Stopped => true,
        FailureReason::DockerfileInvalid
        | FailureReason::FileNotFound
        | FailureReason::ImageNotFound
        | FailureReason::PolicyViolation
        | FailureReason::RegistryUnauthorized
        | FailureReason::StepFailed
        | FailureReason::SecretNotFound
        | FailureReason::SandboxUnavailable
        | FailureReason::Internal => false,
    }
}

fn failed(reason: &str, message: String, transient: bool, at: Timestamp) -> PodState {
    PodState::Failed(Failed {
        failure: FailureStatus {
            reason: reason.to_owned(),
            message,
            ..FailureStatus::default()
        },
        transient,
        retry_after: None,
        at,
    })
}

#[cfg(test)]
mod tests;
