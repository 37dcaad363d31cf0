//! What the platform team wants of every build, as far as the operator sees to it. Pure.
//!
//! What can be refused is refused by the API server at admission (the chart's ValidatingAdmissionPolicy): there the user
//! who asks learns it at once. Here is what only a build that runs can show (its bases), and what is given rather than
//! refused (labels, a place for the cache).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_crd::ImageBuild;
use slipway_oci::Reference;

/// The policies of the chart that the operator sees to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policies {
    /// The namespaces in which they hold, each a name or a beginning with `*`.
    pub applies_to: Vec<String>,
    /// What images a Dockerfile may name: registries and repositories with all below them. Any when empty.
    pub allowed_bases: Vec<String>,
    /// Labels for every image.
    pub forced_labels: BTreeMap<String, String>,
    /// The cache repository of builds that name none; `{namespace}` stands for their namespace.
    pub default_cache_repository: String,
}

impl Policies {
    /// Whether they hold in a namespace.
    pub fn hold_in(&self, namespace: &str) -> bool {
        self.applies_to
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => namespace.starts_with(beginning),
                None => namespace == pattern,
            })
    }

    /// What images a Dockerfile of this namespace may name; any when empty.
    pub fn allowed_bases(&self, namespace: &str) -> &[String] {
        if self.hold_in(namespace) {
            &self.allowed_bases
        } else {
            &[]
        }
    }

    /// The labels of an image: those of the spec, and before them those of the platform team.
    pub fn labels(&self, build: &ImageBuild) -> BTreeMap<String, String> {
        let mut labels = build.spec.labels.clone();
        if self.hold_in(namespace(build)) {
            labels.extend(self.forced_labels.clone());
        }
        labels
    }

    /// Where plans and results of a build are kept: the same text for the same place. Nothing of a spec without a usable
    /// image.
    pub fn cache_repository(&self, build: &ImageBuild) -> Option<String> {
        let (spec, namespace) = (&build.spec, namespace(build));
        let default = &self.default_cache_repository;
        if spec.cache.repository.is_none() && !default.is_empty() && self.hold_in(namespace) {
            return Some(default.replace("{namespace}", namespace));
        }
        match (&spec.cache.repository, spec.output.images.first()) {
            (Some(repository), _) => Some(repository.clone()),
            (None, Some(image)) => Some(image.parse::<Reference>().ok()?.without_tag_and_digest()),
            (None, None) => None,
        }
    }
}

fn namespace(build: &ImageBuild) -> &str {
    build.metadata.namespace.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn policies() -> Policies {
        Policies {
            applies_to: vec!["tea*".into(), "exact".into()],
            allowed_bases: vec!["r.example.com/base".into()],
            forced_labels: [("owner".to_owned(), "platform".to_owned())].into(),
            default_cache_repository: "r.example.com/cache/{namespace}".into(),
        }
    }

    #[test]
    fn they_hold_where_they_are_said_to() {
        for (namespace, holds) in [
            ("team", true),
            ("tea", true),
            ("exact", true),
            ("exactly", false),
            ("te", false),
        ] {
            assert_eq!(policies().hold_in(namespace), holds, "{namespace}");
        }
        assert!(!Policies::default().hold_in("team"));
    }

    #[test]
    fn where_they_hold_labels_are_forced_and_the_cache_has_a_place() {
        let mut build = fixtures::build();
        build.spec.labels = [("owner", "me"), ("app", "shop")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let labels = policies().labels(&build);
        assert_eq!(
            (labels["owner"].as_str(), labels["app"].as_str()),
            ("platform", "shop")
        );
        assert_eq!(
            policies().cache_repository(&build).unwrap(),
            "r.example.com/cache/team"
        );
        assert_eq!(policies().allowed_bases("team").len(), 1);
        build.spec.cache.repository = Some("r.example.com/own".into());
        assert_eq!(policies().cache_repository(&build).unwrap(), "r.example.com/own");
        build.spec.cache.repository = None;
        build.metadata.namespace = Some("free".into());
        assert_eq!(policies().labels(&build)["owner"], "me");
        assert_eq!(
            policies().cache_repository(&build).unwrap(),
            "r.example.com/team/shop"
        );
        assert!(policies().allowed_bases("free").is_empty());
    }
}
