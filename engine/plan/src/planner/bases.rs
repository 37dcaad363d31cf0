//! What stages start from and copy from: images (by what the caller looked up), named contexts, nothing.

use super::{
    Fallible, Planner,
    git::{Detected, detect},
    stages::{NodeId, Resolved},
};
use crate::{
    protocol::FailureReason,
    request::BaseRequest,
    source::{GitSource, HttpSource, ImageSource, Source},
};
use slipway_dockerfile::{
    Diagnostic, Span,
    distance::closest,
    lint::{Warning, rules},
};
use slipway_oci::{ImageConfig, Platform, Reference};
use std::collections::{BTreeMap, BTreeSet};

const SCRATCH: &str = "scratch";

/// Names that people misspell.
const COMMON_IMAGES: [&str; 7] = [
    "alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora",
];

/// The name of a context as it is looked up: an image's familiar name without `:latest`.
fn context_name(name: &str) -> Result<String, String> {
    let reference: Reference = name
        .parse()
        .map_err(|error: slipway_oci::ReferenceError| error.to_string())?;
    let familiar = reference.familiar();
    Ok(familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned())
}

/// The named contexts of a request by the names under which they are looked up.
pub(super) fn normalize_contexts(
    contexts: &BTreeMap<String, String>,
) -> Fallible<BTreeMap<String, (String, String)>> {
    contexts
        .iter()
        .map(|(name, input)| {
            let (plain, platform) = match name.split_once("::") {
                Some((plain, platform)) => (plain, Some(platform)),
                None => (name.as_str(), None),
            };
            let normal = context_name(plain).map_err(|error| {
                Box::new(Diagnostic::error(
                    "context-name",
                    format!("invalid context name {name}: {error}"),
                ))
            })?;
            let key = match platform {
                Some(platform) => format!("{normal}::{platform}"),
                None => normal,
            };
            Ok((key, (name.clone(), input.clone())))
        })
        .collect()
}

impl Planner<'_> {
    /// The key in [`Planner::contexts`] of the context that stands for `name` on a platform.
    pub(super) fn named_context(
        &self,
        name: &str,
        platform: &Platform,
        span: Span,
    ) -> Fallible<Option<String>> {
        if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        let name = context_name(name).map_err(|error| {
            self.error(
                "context-name",
                format!("invalid context name {name}: {error}"),
                span,
            )
        })?;
        let for_platform = format!("{name}::{platform}");
        Ok([for_platform, name]
            .into_iter()
            .find(|key| self.contexts.contains_key(key)))
    }

    /// Finds out what the bases are, as far as the images were looked up; asks for the others.
    pub(super) fn resolve(&mut self, reachable: &BTreeSet<NodeId>) -> Fallible<()> {
        for id in 0..self.nodes.len() {
            let node = &self.nodes[id];
            if node.base.is_some() || node.resolved.is_some() {
                continue;
            }
            if node.base_name == SCRATCH && node.context.is_none() {
                self.nodes[id].platform = Some(self.target.clone());
                self.nodes[id].resolved = Some(Resolved {
                    source: Source::Scratch,
                    config: empty_config(&self.target),
                    image: None,
                });
                continue;
            }
            let reference: Reference = node.base_name.parse().map_err(|error| {
                let message = format!("failed to parse stage name {:?}: {error}", node.base_name);
                self.error("base-name", message, node.span)
            })?;
            if self.request.all_stages && node.stage.is_some() || reachable.contains(&id) {
                self.resolve_base(id, &reference)?;
            }
        }
        Ok(())
    }

    fn resolve_base(&mut self, id: NodeId, reference: &Reference) -> Fallible<()> {
        let node = &self.nodes[id];
        let (span, base_name) = (node.span, node.base_name.clone());
        let platform = node.platform.clone().unwrap_or_else(|| self.target.clone());
        if let Some(key) = node.context.clone() {
            if let Some(mut resolved) = self.load_context(&key, &platform, span)? {
                if resolved.image.is_some() {
                    self.nodes[id].platform = Some(resolved.config.platform());
                } else {
                    self.nodes[id].platform.get_or_insert(platform);
                    resolved.config.config.working_dir.clear();
                }
                self.nodes[id].resolved = Some(resolved);
            }
            return Ok(());
        }
        let found = match self.named_context(&reference.to_string(), &platform, span)? {
            Some(key) => self.load_context(&key, &platform, span)?,
            None => self.load_image(&base_name, reference.clone(), None, &platform, span)?,
        };
        if let Some(resolved) = found {
            if matches!(resolved.source, Source::Image(_)) {
                let actual = resolved.config.platform();
                if (&platform.os, &platform.architecture) != (&actual.os, &actual.architecture) {
                    self.report_platform(id, &base_name, &actual.to_string(), &platform.to_string());
                }
            }
            self.nodes[id].platform = Some(platform);
            self.nodes[id].resolved = Some(resolved);
        }
        Ok(())
    }

    /// `InvalidBaseImagePlatform`, at the `FROM`, or at the instruction that names the image.
    fn report_platform(&mut self, id: NodeId, image: &str, got: &str, want: &str) {
        let node = &self.nodes[id];
        let at_from = |stage| rules::invalid_base_image_platform(&self.lint, stage, image, got, want);
        let warning = match node.stage {
            Some(stage) => at_from(stage),
            // The rule speaks of stages; its finding is the same anywhere.
            None => self.file.stages.first().and_then(at_from).map(|found| Warning {
                line: node.span.first_line,
                span: node.span,
                ..found
            }),
        };
        self.warnings.extend(warning);
    }

    /// What a named context is; `None` while it waits for an image.
    fn load_context(&mut self, key: &str, platform: &Platform, span: Span) -> Fallible<Option<Resolved>> {
        let Some((name, input)) = self.contexts.get(key).cloned() else {
            return Ok(None);
        };
        let files = |source| {
            Ok(Some(Resolved {
                source,
                config: empty_config(platform),
                image: None,
            }))
        };
        let broken = |planner: &Self, message: String| {
            planner.error("context", format!("named context {name}: {message}"), span)
        };
        let Some((kind, rest)) = input.split_once(':') else {
            return Err(broken(self, format!("invalid context specifier {input}")));
        };
        let rest = rest.trim_start_matches("//");
        match kind {
            "docker-image" if rest == SCRATCH => files(Source::Scratch),
            "docker-image" => {
                let reference: Reference = rest
                    .parse()
                    .map_err(|error: slipway_oci::ReferenceError| broken(self, error.to_string()))?;
                self.load_image(rest, reference, None, platform, span)
            }
            "oci-layout" => {
                let (store, digest) = match rest.rsplit_once('@') {
                    Some((store, digest)) => (store, Some(digest)),
                    None => (rest, None),
                };
                // The name of the image in the layout is only for messages; the layout and the digest find it.
                let plain = key.split("::").next().unwrap_or(key);
                let named = match digest {
                    Some(digest) => format!("{}@{digest}", plain.split('@').next().unwrap_or(plain)),
                    None => plain.to_owned(),
                };
                let reference: Reference = named
                    .parse()
                    .map_err(|error: slipway_oci::ReferenceError| broken(self, error.to_string()))?;
                self.load_image(plain, reference, Some(store.to_owned()), platform, span)
            }
            "local" => files(Source::Named(name)),
            kind if kind == "git" || kind == "http" || kind == "https" || kind.starts_with("git@") => {
                match detect(&input) {
                    Detected::Git(git) => files(Source::Git(GitSource {
                        remote: git.remote,
                        reference: git.reference,
                        subdir: git.subdir,
                        checksum: git.checksum,
                        keep_git_dir: git.keep_git_dir.unwrap_or(false),
                        submodules: git.submodules.unwrap_or(true),
                        fetch_by_commit: git.fetch_by_commit,
                    })),
                    Detected::Broken(message) => Err(broken(self, message)),
                    Detected::Other if kind.starts_with("http") => files(Source::Http(HttpSource {
                        url: input,
                        filename: "context".to_owned(),
                        checksum: None,
                    })),
                    Detected::Other => Err(broken(self, format!("invalid git context {input}"))),
                }
            }
            kind => Err(broken(self, format!("unsupported context source {kind}"))).map_err(
                |error: Box<Diagnostic>| {
                    Box::new(error.advise(
                        "Use docker-image://NAME, oci-layout://PATH, local:PATH, or a git or http(s) URL.",
                    ))
                },
            ),
        }
    }

    /// An image from what was looked up; `None`, and a request, when it was not.
    fn load_image(
        &mut self,
        written: &str,
        reference: Reference,
        layout: Option<String>,
        platform: &Platform,
        span: Span,
    ) -> Fallible<Option<Resolved>> {
        let request = BaseRequest {
            reference,
            platform: platform.clone(),
            layout,
        };
        let base = match self.bases.get(&request) {
            None => {
                self.needs.insert(request);
                return Ok(None);
            }
            Some(Err(error)) => {
                let mut message = format!("{written}: {}", error.message);
                let names = self.nodes.iter().map(|node| node.name.as_str());
                if error.reason == FailureReason::ImageNotFound
                    && let Some(close) = closest(
                        written,
                        names.filter(|name| *name != written).chain(COMMON_IMAGES),
                    )
                {
                    message = format!("{message} (did you mean {close}?)");
                }
                return Err(self.error(error.code(), message, span));
            }
            Some(Ok(base)) => base,
        };
        let config = inherited(&base.config);
        let has_layers =
            !config.rootfs.diff_ids.is_empty() || config.history.iter().any(|entry| !entry.empty_layer);
        let image = ImageSource {
            reference: request.reference.with_digest(&base.digest),
            digest: base.digest.clone(),
            platform: request.platform,
            layout: request.layout,
        };
        let source = if has_layers {
            Source::Image(Box::new(image.clone()))
        } else {
            Source::Scratch
        };
        Ok(Some(Resolved {
            source,
            config,
            image: Some(image),
        }))
    }
}

/// The config of an image with nothing in it; Windows sets its own `PATH`.
fn empty_config(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::scratch(platform);
    if platform.os == "windows" {
        config.config.env.clear();
    }
    config
}

/// What a build takes over from its base's config: what the specification knows. What old tools left there (the id of a
/// container, a host name) is about the base's own build.
fn inherited(config: &ImageConfig) -> ImageConfig {
    let mut config = config.clone();
    config.created = None;
    config.extra.clear();
    config.config.extra.clear();
    config.config.stop_timeout = None;
    config
}
