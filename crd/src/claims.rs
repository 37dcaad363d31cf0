//! The PersistentVolumeClaims that cache mounts live in: their names and labels, what they tell, and which may go. Pure;
//! the operator makes them, and whoever lists or prunes them goes by this page.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::{names, quantity};

/// A label selector for all claims of cache mounts.
pub fn selector() -> String {
    format!(
        "{}={},{}={KIND}",
        names::LABEL_MANAGED_BY,
        names::MANAGED_BY,
        names::LABEL_KIND
    )
}

/// Value of [`names::LABEL_KIND`] of a cache mount's claim.
pub const KIND: &str = "cache";
/// Annotation: the id of the cache mount as the Dockerfile has it. The label [`names::LABEL_CACHE`] is its short form.
pub const ANNOTATION_ID: &str = "slipway.build/cache-id";
/// Annotation: when a stage last began to use it, RFC 3339; written at most once an hour.
pub const ANNOTATION_LAST_USED: &str = "slipway.build/last-used";
/// Annotation: the size that the claim could not be grown to, so that it is neither tried nor told again.
pub const ANNOTATION_NOT_GROWN: &str = "slipway.build/not-grown-to";

/// A claim of a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheClaim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The id of the cache mount.
    pub id: String,
    /// The architecture that its content is for, like `amd64` or `arm-v7`.
    pub architecture: String,
    /// 0 for the one of `shared` and `locked` mounts, from 1 for those of `private` ones.
    pub number: u32,
    /// Its storage class, once it has one.
    pub storage_class: Option<String>,
    /// Bytes: what the volume has, or what is asked for while there is none.
    pub size: u64,
    /// When it was created.
    pub created: Timestamp,
    /// When a stage last began to use it, to the hour.
    pub last_used: Timestamp,
    /// Somebody has deleted it, and it is not gone yet.
    pub deleting: bool,
    /// For a precondition: a claim that a build has begun to use meanwhile is another version.
    pub resource_version: Option<String>,
}

impl CacheClaim {
    /// The view of a claim, or `None` for one that holds no cache mount.
    pub fn of(claim: &PersistentVolumeClaim) -> Option<Self> {
        let metadata = &claim.metadata;
        let labels = metadata.labels.as_ref()?;
        let ours = labels.get(names::LABEL_MANAGED_BY)? == names::MANAGED_BY
            && labels.get(names::LABEL_KIND)? == KIND;
        if !ours {
            return None;
        }
        let annotation = |name: &str| metadata.annotations.as_ref()?.get(name);
        let created = metadata
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let spec = claim.spec.as_ref();
        let amount = |of: Option<&BTreeMap<String, _>>| {
            let quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity = of?.get("storage")?;
            quantity::bytes(&quantity.0)
        };
        let capacity = amount(claim.status.as_ref().and_then(|status| status.capacity.as_ref()));
        let request = amount(
            spec.and_then(|spec| spec.resources.as_ref())
                .and_then(|resources| resources.requests.as_ref()),
        );
        Some(Self {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            id: annotation(ANNOTATION_ID)
                .or_else(|| labels.get(names::LABEL_CACHE))?
                .clone(),
            architecture: labels.get(names::LABEL_ARCHITECTURE)?.clone(),
            number: labels.get(names::LABEL_NUMBER)?.parse().ok()?,
            storage_class: spec.and_then(|spec| spec.storage_class_name.clone()),
            size: capacity.or(request).unwrap_or_default(),
            created,
            last_used: annotation(ANNOTATION_LAST_USED)
                .and_then(|text| text.parse().ok())
                .unwrap_or(created),
            deleting: metadata.deletion_timestamp.is_some(),
            resource_version: metadata.resource_version.clone(),
        })
    }
}

/// The claims, as namespace and name, that pods which have not ended mount: anybody's pods, not only those of builds.
pub fn in_use<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> BTreeSet<(String, String)> {
    pods.into_iter()
        .filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        })
        .flat_map(|pod| {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
            volumes.into_iter().flatten().filter_map(move |volume| {
                let claim = volume.persistent_volume_claim.as_ref()?;
                Some((namespace.clone(), claim.claim_name.clone()))
            })
        })
        .collect()
}

/// Which claims may go. Without any rule none does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prune {
    /// Those that no stage has used for so long. The time of use is known to the hour.
    pub max_age: Option<Duration>,
    /// Bytes that may stay in all; the longest unused go first.
    pub max_size: Option<u64>,
    /// Only the claims of these ids; of all when empty. The size counts these alone.
    pub ids: BTreeSet<String>,
}

/// Why a claim goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody has used it for too long.
    Age,
    /// All together are too large.
    Size,
}

/// The claims that go, by their place in `claims`, the longest unused first. One that `used` tells to be in use never
/// goes, nor one that is going already; the first still counts for the size.
pub fn prune(
    claims: &[CacheClaim],
    used: impl Fn(&CacheClaim) -> bool,
    rules: &Prune,
    now: Timestamp,
) -> Vec<(usize, Why)> {
    let mut open: Vec<usize> = (0..claims.len())
        .filter(|&at| !claims[at].deleting)
        .filter(|&at| rules.ids.is_empty() || rules.ids.contains(&claims[at].id))
        .collect();
    open.sort_by_key(|&at| (claims[at].last_used, claims[at].created, &claims[at].name));
    let mut left: u64 = open.iter().map(|&at| claims[at].size).sum();
    let mut gone = Vec::new();
    for at in open {
        let claim = &claims[at];
        if used(claim) {
            continue;
        }
        let unused = now.duration_since(claim.last_used);
        let old = rules
            .max_age
            .is_some_and(|age| SignedDuration::try_from(age).is_ok_and(|age| unused >= age));
        let why = if old {
            Why::Age
        } else if rules.max_size.is_some_and(|size| left > size) {
            Why::Size
        } else {
            continue;
        };
        left = left.saturating_sub(claim.size);
        gone.push((at, why));
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + hour * 3600).unwrap()
    }

    fn claim(name: &str, last_used: i64, size: u64) -> CacheClaim {
        CacheClaim {
            namespace: "team".into(),
            name: name.into(),
            id: format!("/{name}"),
            architecture: "amd64".into(),
            number: 0,
            storage_class: None,
            size,
            created: at(0),
            last_used: at(last_used),
            deleting: false,
            resource_version: None,
        }
    }

    fn pruned(claims: &[CacheClaim], used: &[&str], rules: &Prune) -> Vec<(String, Why)> {
        prune(
            claims,
            |claim| used.contains(&claim.name.as_str()),
            rules,
            at(100),
        )
        .into_iter()
        .map(|(at, why)| (claims[at].name.clone(), why))
        .collect()
    }

    #[test]
    fn a_claim_tells_what_it_is() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {
                "name": "c", "namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "7",
                "labels": {
                    "app.kubernetes.io/managed-by": "slipway", "slipway.build/kind": "cache",
                    "slipway.build/cache": "root-npm-12345678", "slipway.build/architecture": "amd64",
                    "slipway.build/number": "2",
                },
                "annotations": {"slipway.build/cache-id": "/root/.npm", "slipway.build/last-used": "2026-02-01T00:00:00Z"},
            },
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
        }))
        .unwrap();
        let mut expected = CacheClaim {
            namespace: "team".into(),
            name: "c".into(),
            id: "/root/.npm".into(),
            architecture: "amd64".into(),
            number: 2,
            storage_class: Some("fast".into()),
            size: 1 << 30,
            created: "2026-01-01T00:00:00Z".parse().unwrap(),
            last_used: "2026-02-01T00:00:00Z".parse().unwrap(),
            deleting: false,
            resource_version: Some("7".into()),
        };
        assert_eq!(CacheClaim::of(&claim), Some(expected.clone()));
        let mut bound = claim.clone();
        bound.status = serde_json::from_value(json!({"capacity": {"storage": "2Gi"}})).unwrap();
        bound.metadata.annotations = None;
        expected.size = 2 << 30;
        expected.id = "root-npm-12345678".into();
        expected.last_used = expected.created;
        assert_eq!(CacheClaim::of(&bound), Some(expected));
        let mut other = claim;
        other
            .metadata
            .labels
            .as_mut()
            .unwrap()
            .insert("slipway.build/kind".into(), "source".into());
        assert_eq!(CacheClaim::of(&other), None);
    }

    #[test]
    fn a_claim_is_in_use_until_its_pod_has_ended() {
        let pod = |phase: &str, claim: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "team"},
                "spec": {"containers": [], "volumes": [
                    {"name": "a", "emptyDir": {}}, {"name": "b", "persistentVolumeClaim": {"claimName": claim}},
                ]},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        let pods = [
            pod("Pending", "a"),
            pod("Running", "b"),
            pod("Succeeded", "c"),
            pod("Failed", "d"),
        ];
        let used: Vec<_> = in_use(&pods).into_iter().map(|(_, name)| name).collect();
        assert_eq!(used, ["a", "b"]);
    }

    #[test]
    fn without_a_rule_nothing_goes() {
        assert_eq!(pruned(&[claim("a", 0, 1)], &[], &Prune::default()), []);
    }

    #[test]
    fn the_old_go_but_never_one_that_is_in_use() {
        let claims = [claim("a", 10, 1), claim("b", 90, 1), claim("c", 20, 1)];
        let rules = Prune {
            max_age: Some(Duration::from_hours(24)),
            ..Prune::default()
        };
        let old = |name: &str| (name.to_owned(), Why::Age);
        assert_eq!(pruned(&claims, &[], &rules), [old("a"), old("c")]);
        assert_eq!(pruned(&claims, &["a"], &rules), [old("c")]);
        let mut going = claims.clone();
        going[0].deleting = true;
        assert_eq!(pruned(&going, &[], &rules), [old("c")]);
    }

    #[test]
    fn the_longest_unused_go_until_the_rest_fits() {
        let claims = [
            claim("a", 30, 4),
            claim("b", 10, 4),
            claim("c", 20, 4),
            claim("d", 40, 4),
        ];
        let rules = |size| Prune {
            max_size: Some(size),
            ..Prune::default()
        };
        let large = |name: &str| (name.to_owned(), Why::Size);
        assert_eq!(pruned(&claims, &[], &rules(16)), []);
        assert_eq!(pruned(&claims, &[], &rules(8)), [large("b"), large("c")]);
        assert_eq!(pruned(&claims, &["b"], &rules(8)), [large("c"), large("a")]);
        assert_eq!(
            pruned(&claims, &[], &rules(0)).len(),
            4,
            "everything that nobody uses"
        );
    }

    #[test]
    fn ids_narrow_what_a_rule_looks_at() {
        let claims = [claim("a", 10, 4), claim("b", 10, 4), claim("c", 99, 4)];
        let rules = Prune {
            max_age: Some(Duration::ZERO),
            max_size: None,
            ids: ["/b".to_owned(), "/c".to_owned()].into(),
        };
        let names: Vec<_> = pruned(&claims, &[], &rules)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["b", "c"]);
        let rules = Prune {
            max_age: None,
            max_size: Some(8),
            ..rules
        };
        assert_eq!(pruned(&claims, &[], &rules), [], "the size counts these alone");
    }
}
