//! What Slipway keeps, as tables. Pure.

use super::{
    list::age,
    table::{Table, cell, faint},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde::Serialize;
use slipway_engine::progress::{Line, Paint, size};
use slipway_oci::Reference;
use slipway_registry::kept::Row;
use std::{collections::BTreeSet, time::Duration};

/// All that is kept, or was (or would be) removed.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// It was removed.
    pub removed: bool,
    /// It would be removed.
    pub dry_run: bool,
    /// Claims of cache mounts.
    pub claims: Vec<Claim>,
    /// The layer cache, by repository.
    pub registry: Vec<Kept>,
    /// The store of local builds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<Local>,
}

/// A claim of a cache mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// The cache mount's id, as the Dockerfile has it.
    pub id: String,
    /// The architecture that its content is for.
    pub architecture: String,
    /// The size of its volume, as Kubernetes tells it.
    pub capacity: String,
    /// Its storage class.
    pub class: String,
    /// When a stage used it last, to the hour.
    pub last_used: Option<Timestamp>,
    /// A pod uses it now.
    pub in_use: bool,
}

impl Claim {
    /// Reads a claim; `used` are the names of claims that pods use.
    pub fn of(claim: &PersistentVolumeClaim, used: &BTreeSet<String>) -> Self {
        let name = claim.metadata.name.clone().unwrap_or_default();
        let annotation = |name: &str| claim.metadata.annotations.as_ref()?.get(name).cloned();
        let label = |name: &str| claim.metadata.labels.as_ref()?.get(name).cloned();
        let spec = claim.spec.as_ref();
        let bound = claim
            .status
            .as_ref()
            .and_then(|status| status.capacity.as_ref()?.get("storage"));
        let asked = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
        let made = claim.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self {
            in_use: used.contains(&name),
            name,
            id: annotation("slipway.build/cache-id")
                .or_else(|| label("slipway.build/cache"))
                .unwrap_or_default(),
            architecture: label("slipway.build/architecture").unwrap_or_default(),
            capacity: bound
                .or(asked)
                .map(|quantity| quantity.0.clone())
                .unwrap_or_default(),
            class: spec
                .and_then(|spec| spec.storage_class_name.clone())
                .unwrap_or_default(),
            last_used: annotation("slipway.build/last-used")
                .and_then(|time| time.parse().ok())
                .or(made),
        }
    }

    /// Whether it may be removed: nobody uses it, nobody has for so long, and it is of the id that is asked for.
    pub fn may_go(&self, id: Option<&str>, older_than: Duration, now: Timestamp) -> bool {
        let unused = self
            .last_used
            .is_none_or(|last| now.duration_since(last).unsigned_abs() >= older_than);
        !self.in_use && unused && id.is_none_or(|id| self.id == id)
    }
}

/// What is kept in a repository.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The repository.
    pub repository: String,
    /// By kind and build.
    pub rows: Vec<Row>,
    /// Why it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Kept {
    /// From what the registry answered.
    pub fn of(repository: &Reference, answer: Result<Vec<Row>, slipway_registry::Error>) -> Self {
        let (rows, error) = match answer {
            Ok(rows) => (rows, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Self {
            repository: repository.without_tag_and_digest(),
            rows,
            error,
        }
    }
}

/// The store of local builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Local {
    /// Layers and results, unpacked.
    pub snapshots: u64,
    /// Layers, packed.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Cache mounts.
    pub cache_mounts: u64,
}

impl From<slipway_engine::store::Usage> for Local {
    fn from(usage: slipway_engine::store::Usage) -> Self {
        Self {
            snapshots: usage.snapshots,
            blobs: usage.blobs,
            blob_bytes: usage.blob_bytes,
            cache_mounts: usage.caches,
        }
    }
}

/// The lines.
pub fn lines(usage: &Usage, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    let verb = match (usage.removed, usage.dry_run) {
        (_, true) => "would be removed",
        (true, false) => "removed",
        (false, false) => "",
    };
    if let Some(local) = &usage.local {
        lines.push(cell(format!(
            "{} snapshots, {} blobs ({}), {} cache mounts",
            local.snapshots,
            local.blobs,
            size(local.blob_bytes),
            local.cache_mounts
        )));
        return lines;
    }
    let ago = |time: Option<Timestamp>| {
        time.map_or_else(|| "-".to_owned(), |time| age(now.duration_since(time).as_secs()))
    };
    if !usage.claims.is_empty() {
        lines.push(heading("cache mounts", verb));
        let mut table = Table::new(&["ID", "ARCHITECTURE", "SIZE", "CLASS", "LAST USED", "CLAIM"]);
        for claim in &usage.claims {
            let used = if claim.in_use {
                "now".to_owned()
            } else {
                ago(claim.last_used)
            };
            table.row(vec![
                Line::new().with(Paint::Strong, &claim.id),
                cell(&claim.architecture),
                cell(&claim.capacity),
                cell(&claim.class),
                cell(used),
                faint(&claim.name),
            ]);
        }
        lines.extend(table.lines());
    }
    for kept in &usage.registry {
        if !lines.is_empty() {
            lines.push(Line::new());
        }
        if let Some(error) = &kept.error {
            lines.push(heading(&kept.repository, ""));
            lines.push(Line::new().with(Paint::Warn, format!("  cannot be told: {error}")));
            continue;
        }
        let bytes: u64 = kept.rows.iter().map(|row| row.bytes).sum();
        lines.push(heading(&format!("{}  {}", kept.repository, size(bytes)), verb));
        if kept.rows.is_empty() {
            lines.push(faint("  nothing"));
            continue;
        }
        let mut table = Table::new(&["KIND", "BUILD", "COUNT", "SIZE", "LAST USED"]);
        for row in &kept.rows {
            table.row(vec![
                cell(row.kind.as_str()),
                cell(if row.build.is_empty() { "-" } else { &row.build }),
                cell(row.count.to_string()),
                cell(size(row.bytes)),
                cell(ago(row.last_used)),
            ]);
        }
        lines.extend(table.lines());
    }
    if lines.is_empty() {
        let text = if usage.removed {
            "nothing to remove"
        } else {
            "nothing is kept"
        };
        lines.push(cell(text));
    }
    lines
}

fn heading(text: &str, verb: &str) -> Line {
    let line = Line::new().with(Paint::Strong, text);
    if verb.is_empty() {
        line
    } else {
        line.with(Paint::Warn, format!("  {verb}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures::{at, plain};
    use serde_json::json;
    use slipway_registry::kept::Kind;

    fn claim(name: &str, used: i64) -> Claim {
        let claim = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": {"slipway.build/kind": "cache", "slipway.build/architecture": "amd64"},
                "annotations": {"slipway.build/cache-id": "/root/.npm", "slipway.build/last-used": at(used).to_string()},
            },
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "10Gi"}}},
        }))
        .unwrap();
        Claim::of(&claim, &BTreeSet::from(["busy".to_owned()]))
    }

    #[test]
    fn claims_and_repositories_are_shown() {
        let row = Row {
            kind: Kind::Step,
            build: "web/shop".into(),
            count: 3,
            bytes: 1_500_000,
            oldest: Some(at(0)),
            last_used: Some(at(0)),
        };
        let usage = Usage {
            claims: vec![claim("a", 0), claim("busy", 0)],
            registry: vec![
                Kept {
                    repository: "r.example.com/cache".into(),
                    rows: vec![row],
                    error: None,
                },
                Kept {
                    repository: "r.example.com/other".into(),
                    rows: vec![],
                    error: Some("it does not answer".into()),
                },
            ],
            ..Usage::default()
        };
        insta::assert_snapshot!(plain(&lines(&usage, at(7200))), @"
        cache mounts
        ID           ARCHITECTURE   SIZE   CLASS   LAST USED   CLAIM
        /root/.npm   amd64          10Gi   fast    2h          a
        /root/.npm   amd64          10Gi   fast    now         busy

        r.example.com/cache  1.5MB
        KIND   BUILD      COUNT   SIZE    LAST USED
        step   web/shop   3       1.5MB   2h

        r.example.com/other
          cannot be told: it does not answer
        ");
    }

    #[test]
    fn a_claim_goes_when_nobody_uses_it_and_nobody_has_for_long() {
        let day = Duration::from_hours(24);
        let now = at(2 * 86400);
        assert!(claim("a", 0).may_go(None, day, now));
        assert!(claim("a", 0).may_go(Some("/root/.npm"), day, now));
        assert!(!claim("a", 0).may_go(Some("npm"), day, now));
        assert!(!claim("busy", 0).may_go(None, day, now));
        assert!(!claim("a", 86401).may_go(None, day, now));
    }

    #[test]
    fn a_dry_run_says_so() {
        let usage = Usage {
            dry_run: true,
            removed: true,
            claims: vec![claim("a", 0)],
            ..Usage::default()
        };
        assert!(plain(&lines(&usage, at(0))).starts_with("cache mounts  would be removed\n"));
        let nothing = Usage {
            removed: true,
            ..Usage::default()
        };
        assert_eq!(plain(&lines(&nothing, at(0))), "nothing to remove\n");
    }
}
