//! The claims of a stage's cache mounts, before its pod: made at first use, grown, their use written down.

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use slipway_crd::{names, reasons};

use super::{Applier, ApplyError, api_error, is_quota};
use crate::{
    claims::{self, Grant, Next, Wanted},
    decide::Turn,
    facts::Refusal,
    pods::CacheVolume,
};

impl Applier<'_> {
    /// Sees to the claims that were granted; gives the pod's volumes, or why it cannot have them.
    pub(super) async fn claims(
        &self,
        grants: &[Grant],
    ) -> Result<Result<Vec<CacheVolume>, Refusal>, ApplyError> {
        let mut volumes = Vec::with_capacity(grants.len());
        let all = join_all(grants.iter().map(|grant| self.claim(grant))).await;
        for (grant, claim) in grants.iter().zip(all) {
            let claim = match claim? {
                Ok(claim) => claim,
                Err(refusal) => return Ok(Err(refusal)),
            };
            volumes.push(CacheVolume {
                place: grant.place,
                claim: grant.which.name(),
                sharing: grant.sharing,
                follows: grant.joins && claims::is_for_one_node(&claim),
            });
        }
        Ok(Ok(volumes))
    }

    /// One claim, as it is in the end.
    async fn claim(&self, grant: &Grant) -> Result<Result<PersistentVolumeClaim, Refusal>, ApplyError> {
        let wanted = self.wanted(grant);
        let name = grant.which.name();
        let what = format!("see to the claim {name}");
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.namespace());
        let existing = api
            .get_opt(&name)
            .await
            .map_err(|source| api_error(&what, source))?;
        let refused = |message: String, wait| Refusal {
            reason: reasons::CACHE_CLAIM_REFUSED,
            message,
            wait,
        };
        let (claim, grows) = match claims::next(existing.as_ref(), &wanted, Timestamp::now()) {
            Next::Keep => return Ok(Ok(existing.unwrap_or_default())),
            Next::Wait(message) => return Ok(Err(refused(message, true))),
            Next::Refuse(message) => return Ok(Err(refused(message, false))),
            Next::Apply { claim, grows } => (claim, grows),
        };
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        match (api.patch(&name, &params, &Patch::Apply(&*claim)).await, &existing) {
            (Ok(claim), _) => Ok(Ok(claim)),
            (Err(kube::Error::Api(status)), Some(existing)) if grows && matches!(status.code, 403 | 422) => {
                let note = format!(
                    "the PersistentVolumeClaim {name} of the cache mount {} stays as it is, smaller than {}: {}; its StorageClass needs allowVolumeExpansion, or delete the claim to get a new one",
                    grant.which.id, wanted.size, status.message
                );
                let claim = claims::not_grown(*claim, existing);
                let claim = api
                    .patch(&name, &params, &Patch::Apply(&claim))
                    .await
                    .map_err(|source| api_error(&what, source))?;
                self.told.turns(
                    self.build,
                    vec![Turn {
                        reason: reasons::CACHE_CLAIM_NOT_GROWN.to_owned(),
                        note,
                        warning: true,
                        pod: None,
                    }],
                );
                Ok(Ok(claim))
            }
            (Err(kube::Error::Api(status)), _) if is_quota(&status) => Ok(Err(Refusal {
                reason: reasons::QUOTA_EXCEEDED,
                message: format!(
                    "the API server refuses the claim {name} of the cache mount {}: {}; waiting until the namespace's quota has room; raise it, lower spec.cache.mounts.size, or prune claims",
                    grant.which.id, status.message
                ),
                wait: true,
            })),
            (Err(kube::Error::Api(status)), _) if matches!(status.code, 400 | 403 | 422) => Ok(Err(refused(
                format!(
                    "the API server refuses the claim {name} of the cache mount {}: {}; change spec.cache.mounts, or the policy that refuses it",
                    grant.which.id, status.message
                ),
                false,
            ))),
            (Err(source), _) => Err(api_error(&what, source)),
        }
    }

    fn wanted(&self, grant: &Grant) -> Wanted {
        let (asked, chart) = (&self.build.spec.cache.mounts, &self.config.cache.mounts);
        Wanted {
            which: grant.which.clone(),
            namespace: self.namespace(),
            class: asked
                .storage_class_name
                .clone()
                .or_else(|| chart.storage_class_name.clone()),
            size: asked.size.clone().unwrap_or_else(|| chart.size.clone()),
            access: asked.access_mode.unwrap_or(chart.access_mode),
        }
    }
}
