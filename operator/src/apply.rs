//! Fourth step: does what was decided. Every action may be done twice without harm.

mod claims;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::Status,
};
use slipway_crd::{ImageBuild, names, reasons};
use slipway_oci::Digest;
use slipway_plan::protocol::Schedule;

use crate::{
    config::Config,
    decide::Action,
    facts::{Args, Refusal},
    memory::Memory,
    placement::Cluster,
    pods::{self, Maker},
    report::Told,
    validate,
};

/// What the actions of a decision are done with.
#[derive(Clone, Copy)]
pub struct Applier<'a> {
    /// The API.
    pub client: &'a Client,
    /// The settings.
    pub config: &'a Config,
    /// Where created pods are remembered.
    pub memory: &'a Memory,
    /// The build.
    pub build: &'a ImageBuild,
    /// The number of its run.
    pub run: i64,
    /// Values of its arguments; needed for the first plan pod only.
    pub args: &'a Args,
    /// The nodes that its pods are placed on.
    pub cluster: Cluster<'a>,
    /// Its plan and schedule, once they are known.
    pub plan: Option<(&'a Digest, &'a Schedule)>,
    /// Where turns of claims are told.
    pub told: &'a Told,
}

/// Why an action could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server did not do it.
    #[error("failed to {what}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// Its words.
        source: Box<kube::Error>,
    },
    /// A decision that makes no sense here: a fault of Slipway.
    #[error("failed to {what}: {why}; this is a fault of Slipway, please report it")]
    Fault {
        /// What was tried.
        what: String,
        /// What is wrong.
        why: String,
    },
}

impl Applier<'_> {
    /// Does every action that is not slow, all at once; deletions first in the list stay first. Gives the pods that were
    /// refused.
    pub async fn apply(&self, actions: &[Action]) -> Result<Vec<Refusal>, ApplyError> {
        // Of pods that share a volume for one node, the scheduler should see the first one first: it chooses the node.
        let joins = |action: &&Action| matches!(action, Action::StartStage { claims, .. } if claims.iter().any(|claim| claim.joins));
        let (later, first): (Vec<&Action>, Vec<&Action>) = actions.iter().partition(joins);
        let mut refusals = Vec::new();
        for actions in [first, later] {
            for result in join_all(actions.into_iter().map(|action| self.one(action))).await {
                refusals.extend(result?);
            }
        }
        Ok(refusals)
    }

    async fn one(&self, action: &Action) -> Result<Option<Refusal>, ApplyError> {
        let maker = Maker {
            config: self.config,
            build: self.build,
            run: self.run,
            cluster: self.cluster,
        };
        match action {
            Action::StartPlan { attempt } => {
                if *attempt == 1 {
                    self.request(&maker).await?;
                }
                self.create(maker.plan_pod(*attempt)).await
            }
            Action::StartStage {
                stage,
                attempt,
                out_of_memory,
                claims,
            } => {
                let known = self
                    .plan
                    .and_then(|(plan, schedule)| Some((plan, schedule.stages.get(*stage)?)));
                let (plan, stage) = known.ok_or_else(|| ApplyError::Fault {
                    what: format!("start stage {stage}"),
                    why: "the plan has no such stage".to_owned(),
                })?;
                let volumes = match self.claims(claims).await? {
                    Ok(volumes) => volumes,
                    Err(refusal) => return Ok(Some(refusal)),
                };
                self.create(maker.stage_pod(plan, stage, *attempt, *out_of_memory, &volumes))
                    .await
            }
            Action::DeletePod { name } => self.delete(name).await.map(|()| None),
            Action::DeleteBuild => self.delete_build().await.map(|()| None),
            Action::FetchSchedule { .. } | Action::Publish(_) => Ok(None),
        }
    }

    fn namespace(&self) -> String {
        self.build.namespace().unwrap_or_default()
    }

    async fn request(&self, maker: &Maker<'_>) -> Result<(), ApplyError> {
        let what = "write the build's request";
        let fault = |why: String| ApplyError::Fault {
            what: what.to_owned(),
            why,
        };
        let valid = validate::validate(self.build, &self.config.policies)
            .map_err(|error| fault(error.to_string()))?;
        let request = pods::request(self.build, &valid, self.args, self.config);
        let map = pods::request_config_map(maker, &request).map_err(|error| fault(error.to_string()))?;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace());
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        api.patch(&map.name_any(), &params, &Patch::Apply(&map))
            .await
            .map(|_| ())
            .map_err(|source| api_error(what, source))
    }

    /// Pods cannot be changed, so they are created, not applied: one of that name that is ours is the one wanted.
    async fn create(&self, pod: Pod) -> Result<Option<Refusal>, ApplyError> {
        let name = pod.name_any();
        let what = format!("create pod {name}");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace());
        let params = PostParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let uid = self.build.uid().unwrap_or_default();
        if !self.memory.user_namespaces() {
            // Asked before the first pod, since one without its user namespace might have begun before it is deleted. What
            // else is wrong with the pod, its creation tells.
            let dry_run = PostParams {
                dry_run: true,
                ..params.clone()
            };
            match api.create(&dry_run, &pod).await {
                Ok(shown) if !pods::keeps_user_namespace(&pod, &shown) => {
                    return Ok(Some(no_user_namespace(&name)));
                }
                Ok(_) => self.memory.has_user_namespaces(),
                Err(_) => {}
            }
        }
        match api.create(&params, &pod).await {
            Ok(created) if !pods::keeps_user_namespace(&pod, &created) => {
                self.delete(&name).await?;
                Ok(Some(no_user_namespace(&name)))
            }
            Ok(created) => {
                self.memory.created(&uid, created);
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let found = api
                    .get_opt(&name)
                    .await
                    .map_err(|source| api_error(&what, source))?;
                match found {
                    Some(found) if found.owner_references().iter().any(|owner| owner.uid == uid) => {
                        self.memory.created(&uid, found);
                        Ok(None)
                    }
                    // Of a build of the same name that was deleted a moment ago; the garbage collector is at it.
                    _ => Ok(Some(Refusal {
                        reason: reasons::POD_REFUSED,
                        message: format!("a pod {name} of another owner is in the way; waiting for it to go"),
                        wait: true,
                    })),
                }
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
                Ok(Some(refusal(&name, &status)))
            }
            Err(source) => Err(api_error(&what, source)),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), ApplyError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace());
        gone_is_fine(
            api.delete(name, &DeleteParams::default()).await.map(|_| ()),
            &format!("delete pod {name}"),
        )
    }

    async fn delete_build(&self) -> Result<(), ApplyError> {
        let api: Api<ImageBuild> = Api::namespaced(self.client.clone(), &self.namespace());
        let preconditions = Preconditions {
            uid: self.build.uid(),
            // Not if it has changed meanwhile: it may be about to build again.
            resource_version: self.build.resource_version(),
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::background()
        };
        gone_is_fine(
            api.delete(&self.build.name_any(), &params).await.map(|_| ()),
            "delete the expired ImageBuild",
        )
    }
}

fn gone_is_fine(result: Result<(), kube::Error>, what: &str) -> Result<(), ApplyError> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map_err(|source| api_error(what, source)),
    }
}

fn api_error(what: &str, source: kube::Error) -> ApplyError {
    ApplyError::Api {
        what: what.to_owned(),
        source: Box::new(source),
    }
}

/// The API server has dropped `hostUsers: false`.
fn no_user_namespace(name: &str) -> Refusal {
    Refusal {
        reason: reasons::USER_NAMESPACES_UNAVAILABLE,
        message: format!(
            "the API server drops hostUsers from pod {name}, so it would run without a user namespace: upgrade to Kubernetes 1.33 or later, look for a webhook that changes pods, or allow weaker isolation for all builds by the chart's isolation.mode"
        ),
        wait: true,
    }
}

/// Whether a namespace's quota is what the API server refuses for.
fn is_quota(status: &Status) -> bool {
    status.code == 403 && status.message.contains("exceeded quota")
}

/// The API server's no, told as a person needs it.
fn refusal(name: &str, status: &Status) -> Refusal {
    let quota = is_quota(status);
    let (reason, advice) = if quota {
        (
            reasons::QUOTA_EXCEEDED,
            "waiting until the namespace's quota has room; raise it, or lower spec.pods.resources",
        )
    } else if status.code == 403 && status.message.contains("PodSecurity") {
        (
            reasons::POD_REFUSED,
            "the namespace's Pod Security level does not allow a build pod: label the namespace pod-security.kubernetes.io/enforce=privileged (build pods run in a user namespace and are not privileged)",
        )
    } else {
        (
            reasons::POD_REFUSED,
            "change what spec.pods asks for, or the policy that refuses it",
        )
    };
    Refusal {
        reason,
        message: format!("the API server refuses pod {name}: {}; {advice}", status.message),
        wait: quota,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_up_quota_is_waited_out_and_everything_else_is_final() {
        for (code, message, reason, wait) in [
            (
                403,
                "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1",
                reasons::QUOTA_EXCEEDED,
                true,
            ),
            (
                403,
                "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\"",
                reasons::POD_REFUSED,
                false,
            ),
            (
                422,
                "Pod \"x\" is invalid: spec.nodeSelector",
                reasons::POD_REFUSED,
                false,
            ),
        ] {
            let mut status = Status::failure(message, "Forbidden");
            status.code = code;
            let refusal = refusal("x", &status);
            assert_eq!((refusal.reason, refusal.wait), (reason, wait), "{message}");
            assert!(refusal.message.contains(message));
        }
    }
}
