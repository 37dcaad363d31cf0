//! The claim as an object: what it should be, given what it is. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use slipway_crd::{
    AccessMode,
    claims::{ANNOTATION_ID, ANNOTATION_LAST_USED, ANNOTATION_NOT_GROWN, CacheClaim, KIND},
    names, quantity,
};

use super::Which;
use crate::naming;

/// The last use is written down at most this often.
const USE_IS_TOLD: SignedDuration = SignedDuration::from_hours(1);

/// What a build asks of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which one.
    pub which: Which,
    /// Its namespace.
    pub namespace: String,
    /// Its class, for one that is made; the cluster's default when absent.
    pub class: Option<String>,
    /// Its size, a quantity.
    pub size: String,
    /// Its access mode, for one that is made.
    pub access: AccessMode,
}

/// What to do about a claim before a pod uses it.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// It is as it should be.
    Keep,
    /// Apply this; `grows` if it asks for more than the claim has, which its class may not allow.
    Apply {
        /// The claim.
        claim: Box<PersistentVolumeClaim>,
        /// Whether it is made larger.
        grows: bool,
    },
    /// It cannot be used for now, for this reason.
    Wait(String),
    /// It cannot be used, for this reason.
    Refuse(String),
}

/// What to do about a claim, given how it is.
pub fn next(existing: Option<&PersistentVolumeClaim>, wanted: &Wanted, now: Timestamp) -> Next {
    let name = wanted.which.name();
    let Some(existing) = existing else {
        return apply(made(wanted, &name, now), false);
    };
    let Some(known) = CacheClaim::of(existing) else {
        return Next::Refuse(format!(
            "there is a PersistentVolumeClaim {name} that Slipway did not make, in the place of the one for the cache mount {}; rename it",
            wanted.which.id
        ));
    };
    if known.deleting {
        return Next::Wait(format!(
            "the PersistentVolumeClaim {name} of the cache mount {} is being deleted; waiting for it to go",
            known.id
        ));
    }
    if existing
        .status
        .as_ref()
        .is_some_and(|status| status.phase.as_deref() == Some("Lost"))
    {
        return Next::Refuse(format!(
            "the volume of the PersistentVolumeClaim {name} of the cache mount {} is lost; delete the claim, and the next build makes a new one",
            known.id
        ));
    }
    let request = request(existing);
    let not_grown = annotation(existing, ANNOTATION_NOT_GROWN);
    let grows =
        quantity::bytes(&wanted.size) > quantity::bytes(&request) && not_grown != Some(wanted.size.as_str());
    let told = annotation(existing, ANNOTATION_LAST_USED).is_some();
    let stale = !told || now.duration_since(known.last_used) >= USE_IS_TOLD;
    if !grows && !stale {
        return Next::Keep;
    }
    // All that was applied before is applied again, as it is now: what were left out would be taken away, and a claim's
    // class and access modes may not change.
    let mut claim = made(wanted, &name, now);
    if let (Some(spec), Some(is)) = (&mut claim.spec, &existing.spec) {
        spec.storage_class_name.clone_from(&is.storage_class_name);
        spec.access_modes.clone_from(&is.access_modes);
    }
    if !grows {
        set_request(&mut claim, request);
        if let (Some(not_grown), Some(annotations)) = (not_grown, &mut claim.metadata.annotations) {
            annotations.insert(ANNOTATION_NOT_GROWN.to_owned(), not_grown.to_owned());
        }
    }
    apply(claim, grows)
}

/// The same claim with the size that it has, and a note of the size that it could not be grown to.
pub(crate) fn not_grown(
    mut claim: PersistentVolumeClaim,
    existing: &PersistentVolumeClaim,
) -> PersistentVolumeClaim {
    let wanted = request(&claim);
    set_request(&mut claim, request(existing));
    if let Some(annotations) = &mut claim.metadata.annotations {
        annotations.insert(ANNOTATION_NOT_GROWN.to_owned(), wanted);
    }
    claim
}

/// A claim of no name of ours, to ask the API server by a dry run what class it would give it.
pub fn probe(namespace: &str) -> PersistentVolumeClaim {
    let wanted = Wanted {
        which: Which {
            id: "probe".to_owned(),
            architecture: "none".to_owned(),
            number: 0,
        },
        namespace: namespace.to_owned(),
        class: None,
        size: "1Mi".to_owned(),
        access: AccessMode::ReadWriteOnce,
    };
    made(&wanted, "slipway-cache-probe", Timestamp::UNIX_EPOCH)
}

/// Whether its volume can be used from one node only at a time.
pub(crate) fn is_for_one_node(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    !modes
        .into_iter()
        .flatten()
        .any(|mode| mode == AccessMode::ReadWriteMany.as_str())
}

fn apply(claim: PersistentVolumeClaim, grows: bool) -> Next {
    Next::Apply {
        claim: Box::new(claim),
        grows,
    }
}

fn made(wanted: &Wanted, name: &str, now: Timestamp) -> PersistentVolumeClaim {
    let Which {
        id,
        architecture,
        number,
    } = &wanted.which;
    let text = |(key, value): (&str, String)| (key.to_owned(), value);
    let labels = [
        (names::LABEL_MANAGED_BY, names::MANAGED_BY.to_owned()),
        ("app.kubernetes.io/part-of", "slipway".to_owned()),
        (names::LABEL_KIND, KIND.to_owned()),
        (names::LABEL_CACHE, naming::cache_label(id)),
        (names::LABEL_ARCHITECTURE, architecture.clone()),
        (names::LABEL_NUMBER, number.to_string()),
    ];
    let annotations = [(ANNOTATION_ID, id.clone()), (ANNOTATION_LAST_USED, seconds(now))];
    let mut claim = PersistentVolumeClaim {
        // No owner: it outlives every build.
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(wanted.namespace.clone()),
            labels: Some(labels.map(text).into()),
            annotations: Some(annotations.map(text).into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![wanted.access.as_str().to_owned()]),
            storage_class_name: wanted.class.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    };
    set_request(&mut claim, wanted.size.clone());
    claim
}

fn seconds(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn request(claim: &PersistentVolumeClaim) -> String {
    claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"))
        .map_or_else(String::new, |quantity| quantity.0.clone())
}

fn set_request(claim: &mut PersistentVolumeClaim, size: String) {
    let requests = BTreeMap::from([("storage".to_owned(), Quantity(size))]);
    if let Some(spec) = &mut claim.spec {
        spec.resources = Some(VolumeResourceRequirements {
            requests: Some(requests),
            limits: None,
        });
    }
}

#[cfg(test)]
mod tests;
