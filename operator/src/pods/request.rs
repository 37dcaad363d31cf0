//! The request: what a run's pods are told, in a ConfigMap of their own.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use slipway_crd::{CacheMode, DEFAULT_DOCKERFILE, ImageBuild, names};
use slipway_plan::protocol::{
    BuildName, CacheRequest, DockerfileFrom, NoCache, REQUEST_FILE, Request, SourceFrom,
};

use super::Maker;
use crate::{config::Config, facts::Args, naming, validate::Valid};

/// The request of a run.
pub fn request(build: &ImageBuild, valid: &Valid, args: &Args, config: &Config) -> Request {
    let spec = &build.spec;
    let dockerfile = match (&spec.dockerfile.inline, &spec.dockerfile.path) {
        (Some(text), _) => DockerfileFrom::Inline(text.clone()),
        (None, Some(path)) => DockerfileFrom::Path(path.clone()),
        (None, None) => DockerfileFrom::Path(DEFAULT_DOCKERFILE.to_owned()),
    };
    let has_source = spec
        .source
        .as_ref()
        .is_some_and(|source| source.config_map.is_some());
    Request {
        build: BuildName {
            namespace: build.metadata.namespace.clone().unwrap_or_default(),
            name: build.metadata.name.clone().unwrap_or_default(),
            generation: build.metadata.generation.unwrap_or_default(),
        },
        dockerfile,
        target: spec.target.clone(),
        gates: spec.gates.clone(),
        platforms: valid.platforms.clone(),
        args: args.clone(),
        labels: config.policies.labels(build),
        annotations: spec.output.annotations.clone(),
        secrets: spec.secrets.iter().map(|secret| secret.id.clone()).collect(),
        source: if has_source {
            SourceFrom::Directory
        } else {
            SourceFrom::Empty
        },
        cache_repository: valid.cache_repository.clone(),
        cache: CacheRequest {
            from: valid.cache_from.clone(),
            scope: spec.cache.scope.clone(),
            result_only: spec.cache.mode == CacheMode::Min,
        },
        outputs: valid.images.clone(),
        registries: config.registries.clone(),
        allowed_bases: config
            .policies
            .allowed_bases(build.metadata.namespace.as_deref().unwrap_or_default())
            .to_vec(),
        no_cache: match (spec.cache.no_cache, spec.cache.no_cache_stages.as_slice()) {
            (true, _) => NoCache::All,
            (false, []) => NoCache::No,
            (false, stages) => NoCache::Stages(stages.to_vec()),
        },
    }
}

/// The ConfigMap that holds a request.
pub fn request_config_map(maker: &Maker<'_>, request: &Request) -> Result<ConfigMap, serde_json::Error> {
    let name = naming::request(maker.name(), maker.run);
    Ok(ConfigMap {
        metadata: maker.metadata(name, [(names::LABEL_KIND, "request".to_owned())]),
        data: Some(BTreeMap::from([(
            REQUEST_FILE.to_owned(),
            serde_json::to_string(request)?,
        )])),
        ..ConfigMap::default()
    })
}
