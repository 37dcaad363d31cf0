//! Second step: the spec as typed values, or what is wrong with it. Pure.
//!
//! The API server has applied the CRD's rules already; here is what they cannot see, and what a spec that came in before
//! a rule existed may say.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use slipway_crd::{ImageBuild, ImageBuildSpec};
use slipway_oci::{Platform, Reference};

use crate::policy::Policies;

/// A spec that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid {
    /// The platforms, normalised, without doubles.
    pub platforms: Vec<Platform>,
    /// The image's names.
    pub images: Vec<Reference>,
    /// Where plans and results are kept.
    pub cache_repository: Reference,
    /// Further repositories to take results from.
    pub cache_from: Vec<Reference>,
    /// Names of the stages that must be done before any tag is written.
    pub gates: Vec<String>,
    /// How long a run may take.
    pub timeout: Duration,
    /// How long the files of a failed `RUN` are held.
    pub hold_failed: Option<Duration>,
}

/// Why a spec cannot be built: names the field and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// Checks the spec of a build.
pub fn validate(build: &ImageBuild, policies: &Policies) -> Result<Valid, Invalid> {
    let spec = &build.spec;
    let mut platforms: Vec<Platform> = Vec::with_capacity(spec.platforms.len());
    for text in &spec.platforms {
        let platform = text
            .parse::<Platform>()
            .map_err(|error| Invalid(format!("spec.platforms: {error}")))?;
        if platforms.contains(&platform) {
            return Err(Invalid(format!(
                "spec.platforms: {text} is {platform}, which is there already; remove one"
            )));
        }
        platforms.push(platform);
    }
    let images = spec
        .output
        .images
        .iter()
        .map(|text| {
            let image = text
                .parse::<Reference>()
                .map_err(|error| Invalid(format!("spec.output.images: {error}")))?;
            match (image.tag(), image.digest()) {
                (Some(_), None) => Ok(image),
                _ => Err(Invalid(format!(
                    "spec.output.images: {text} must have a tag and no digest"
                ))),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let cache = policies
        .cache_repository(build)
        .ok_or_else(|| Invalid("spec.output.images: name at least one image".to_owned()))?;
    let cache_repository = cache
        .parse()
        .map_err(|error| Invalid(format!("spec.cache.repository: {cache}: {error}")))?;
    let cache_from = spec
        .cache
        .from
        .iter()
        .map(|name| {
            name.parse()
                .map_err(|error| Invalid(format!("spec.cache.from: {name}: {error}")))
        })
        .collect::<Result<_, _>>()?;
    let timeout = duration("spec.timeout", &spec.timeout)?;
    let hold_failed = spec
        .debug
        .as_ref()
        .and_then(|debug| debug.hold_failed.as_deref())
        .map(|text| duration("spec.debug.holdFailed", text))
        .transpose()?;
    Ok(Valid {
        platforms,
        images,
        cache_repository,
        cache_from,
        gates: spec.gates.clone(),
        timeout,
        hold_failed,
    })
}

fn duration(field: &str, text: &str) -> Result<Duration, Invalid> {
    text.parse::<kube::core::Duration>()
        .map(Duration::from)
        .map_err(|error| Invalid(format!("{field}: {error}; write 90s, 30m or 1h30m")))
}

/// A digest of the part of the spec that the image depends on. A change of the rest does not build a finished image
/// again, nor does it disturb a running build.
pub fn inputs(spec: &ImageBuildSpec) -> String {
    // Without `..`, so that a new field must be put on one of the two sides.
    let ImageBuildSpec {
        source,
        dockerfile,
        target,
        gates,
        platforms,
        emulation: _,
        platform_failure: _,
        args,
        labels,
        secrets,
        cache,
        output,
        pods: _,
        timeout: _,
        retries: _,
        debug: _,
        retry_memory_factor: _,
        concurrency: _,
        ttl_seconds_after_finished: _,
        suspend: _,
    } = spec;
    let slipway_crd::Cache {
        repository,
        from: _,
        mode: _,
        scope,
        no_cache,
        no_cache_stages,
        // Where cache mounts are kept is nothing that an image depends on.
        mounts: _,
    } = cache;
    let cache = (repository, scope, no_cache, no_cache_stages);
    let inputs = serde_json::json!([
        source, dockerfile, target, gates, platforms, args, labels, secrets, cache, output
    ]);
    let hash = hex::encode(Sha256::digest(inputs.to_string()));
    hash.get(..16).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[allow(clippy::needless_pass_by_value, reason = "reads better at the many calls")]
    fn spec(change: serde_json::Value) -> ImageBuildSpec {
        let mut spec = json!({"output": {"images": ["r.example.com:5000/team/app:1.4"]}});
        spec.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn build(change: serde_json::Value) -> ImageBuild {
        ImageBuild::new("shop", spec(change))
    }

    #[test]
    fn results_are_kept_beside_the_first_image_unless_told_otherwise() {
        let valid = validate(&build(json!({})), &Policies::default()).unwrap();
        assert_eq!(
            valid.cache_repository.without_tag_and_digest(),
            "r.example.com:5000/team/app"
        );
        assert_eq!(valid.timeout, Duration::from_hours(1));
        let valid = validate(
            &build(json!({
                "cache": {"repository": "r.example.com/cache", "from": ["r.example.com/main"]}
            })),
            &Policies::default(),
        )
        .unwrap();
        assert_eq!(valid.cache_from[0].without_tag_and_digest(), "r.example.com/main");
        assert_eq!(
            valid.cache_repository.without_tag_and_digest(),
            "r.example.com/cache"
        );
    }

    #[test]
    fn what_the_schema_cannot_see_is_refused_with_the_field() {
        for (change, part) in [
            (
                json!({"platforms": ["linux/arm64", "linux/arm64/v8"]}),
                "spec.platforms: linux/arm64/v8 is linux/arm64",
            ),
            (json!({"platforms": ["a/b/c/d"]}), "spec.platforms"),
            (json!({"output": {"images": ["UPPER"]}}), "spec.output.images"),
            (json!({"output": {"images": []}}), "spec.output.images"),
            (json!({"timeout": "soon"}), "spec.timeout"),
            (json!({"debug": {"holdFailed": "soon"}}), "spec.debug.holdFailed"),
        ] {
            let error = validate(&build(change), &Policies::default())
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn only_what_the_image_depends_on_is_an_input() {
        let plain = inputs(&spec(json!({})));
        for change in [
            json!({"suspend": true}),
            json!({"concurrency": {"group": "a", "policy": "Queue"}}),
            json!({"ttlSecondsAfterFinished": 5}),
            json!({"timeout": "5m"}),
            json!({"retries": 0}),
            json!({"debug": {"holdFailed": "5m"}}),
            json!({"retryMemoryFactor": "2"}),
            json!({"emulation": "Never"}),
            json!({"platformFailure": "PublishRest"}),
            json!({"pods": {"nodeSelector": {"a": "b"}}}),
            json!({"cache": {"from": ["r.example.com/main"], "mode": "min"}}),
            json!({"cache": {"mounts": {"size": "1Gi"}}}),
        ] {
            assert_eq!(inputs(&spec(change.clone())), plain, "{change}");
        }
        for change in [
            json!({"target": "x"}),
            json!({"gates": ["test"]}),
            json!({"dockerfile": {"inline": "FROM scratch"}}),
            json!({"args": [{"name": "A", "value": "b"}]}),
            json!({"cache": {"noCache": true}}),
        ] {
            assert_ne!(inputs(&spec(change.clone())), plain, "{change}");
        }
    }
}
