//! Compares what a build did with what the case expects. Every difference becomes one readable line; nothing is
//! checked that the case does not speak of.

mod files;
mod json;
mod log;

use std::path::Path;

use anyhow::Result;

pub(crate) use self::files::quote;
use self::json::subset;
use crate::{
    base::Base,
    case::{Build, Output},
    expect::{Expect, HistoryWant},
    image::{self, FileSystem, Image, Layout},
    wording::Row,
};

/// What a build did.
pub(crate) struct Outcome {
    pub(crate) success: bool,
    /// Set where the program ended in a way that no case may count as an expected failure.
    pub(crate) broken: Option<String>,
    /// All that it printed.
    pub(crate) log: String,
}

/// What later builds of the case are compared with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Result1 {
    pub(crate) files: FileSystem,
    /// Digest of the manifest, for an OCI output.
    pub(crate) digest: Option<String>,
}

/// What checks may know beside the build.
#[derive(Clone, Copy)]
pub(crate) struct Knowledge<'a> {
    pub(crate) base: &'a Base,
    pub(crate) table: &'a [Row],
}

/// Checks one build; gives the differences, and the result where there is one.
pub(crate) fn check(
    know: Knowledge<'_>,
    build: &Build,
    outcome: &Outcome,
    out: &Path,
    first: Option<&Result1>,
) -> (Vec<String>, Option<Result1>) {
    let expect = &build.expect;
    if let Some(broken) = &outcome.broken {
        return (vec![broken.clone()], None);
    }
    if expect.is_failure() && outcome.success {
        return (
            vec!["the build succeeded; an error was expected".to_owned()],
            None,
        );
    }
    if !expect.is_failure() && !outcome.success {
        return (
            vec![format!(
                "the build failed: {}",
                log::error_text(&outcome.log).trim_end()
            )],
            None,
        );
    }
    let mut errors = log::check(expect, &outcome.log, know.table);
    if build.call.is_some() || !outcome.success {
        return (errors, None);
    }
    match read_result(know, build, out, first, &mut errors) {
        Ok(result) => (errors, Some(result)),
        Err(error) => {
            errors.push(format!("the result cannot be read: {error:#}"));
            (errors, None)
        }
    }
}

fn read_result(
    know: Knowledge<'_>,
    build: &Build,
    out: &Path,
    first: Option<&Result1>,
    errors: &mut Vec<String>,
) -> Result<Result1> {
    let expect = &build.expect;
    let plain = match build.output {
        Output::Oci => None,
        Output::Tar => Some(image::from_tar(out)?),
        Output::Local => Some(image::from_dir(out)?),
    };
    if let Some(found) = plain {
        files::check(&expect.files, &found, first.map(|first| &first.files), errors);
        if let Some(only) = &expect.only {
            files::exactly("the output", only, found.keys(), errors);
        }
        return Ok(Result1 {
            files: found,
            digest: None,
        });
    }
    let layout = Layout::open(out)?;
    let mut images = layout.images()?;
    if let Some(want) = &expect.index {
        subset(want, &layout.index, "index", errors);
    }
    let mut result = Result1 {
        digest: images.first().map(|image| image.digest.clone()),
        ..Result1::default()
    };
    if let Some(platforms) = &expect.platforms {
        let mut found: Vec<&str> = images.iter().map(|image| image.platform.as_str()).collect();
        found.sort_unstable();
        let want: Vec<&str> = platforms.keys().map(String::as_str).collect();
        if found != want {
            errors.push(format!("platforms: expected {want:?}, got {found:?}"));
        }
        for image in &images {
            if let Some(expect) = platforms.get(&image.platform) {
                let mut inner = Vec::new();
                check_image(know, &layout, image, expect, None, &mut inner)?;
                errors.extend(
                    inner
                        .into_iter()
                        .map(|error| format!("{}: {error}", image.platform)),
                );
            }
        }
        return Ok(result);
    }
    if let Some(names) = &expect.index_ref_names {
        check_names(&layout, names, errors);
        images.truncate(1);
    }
    if let [image] = &images[..] {
        result.files = check_image(know, &layout, image, expect, first, errors)?;
    } else {
        errors.push(format!("expected one image in the result, got {}", images.len()));
    }
    if expect.same_digest_as_first {
        let before = first.and_then(|first| first.digest.as_deref());
        if before.is_none() || before != result.digest.as_deref() {
            errors.push(format!(
                "manifest digest: expected the first build's {before:?}, got {:?}",
                result.digest
            ));
        }
    }
    Ok(result)
}

fn check_names(layout: &Layout, names: &[String], errors: &mut Vec<String>) {
    let descriptors = image::list(&layout.index, "manifests");
    let found: Vec<&str> = descriptors
        .iter()
        .map(|descriptor| {
            descriptor["annotations"]["org.opencontainers.image.ref.name"]
                .as_str()
                .unwrap_or("(none)")
        })
        .collect();
    if found != names.iter().map(String::as_str).collect::<Vec<_>>() {
        errors.push(format!("names in the index: expected {names:?}, got {found:?}"));
    }
    if descriptors
        .iter()
        .any(|descriptor| descriptor["digest"] != descriptors[0]["digest"])
    {
        errors.push("the index's entries point at different manifests".to_owned());
    }
}

/// Checks an image; gives its flattened file system.
fn check_image(
    know: Knowledge<'_>,
    layout: &Layout,
    image: &Image,
    expect: &Expect,
    first: Option<&Result1>,
    errors: &mut Vec<String>,
) -> Result<FileSystem> {
    if let Some(want) = &expect.config {
        subset(want, &image.config["config"], "config", errors);
    }
    if let Some(want) = &expect.image {
        subset(want, &image.config, "image", errors);
    }
    if let Some(want) = &expect.manifest {
        subset(want, &image.manifest, "manifest", errors);
    }
    check_env(expect, image, errors);

    let base = know.base;
    let diffs: Vec<&str> = image::list(&image.config["rootfs"], "diff_ids")
        .iter()
        .filter_map(|id| id.as_str())
        .collect();
    let on_base = diffs.len() >= base.diff_ids.len() && base.diff_ids.iter().zip(&diffs).all(|(a, b)| a == b);
    let below = if on_base { base.diff_ids.len() } else { 0 };
    if let Some(want) = expect.layers
        && diffs.len() - below != want
    {
        errors.push(format!(
            "layers: expected {want} new ones, got {}",
            diffs.len() - below
        ));
    }
    let digests = image::list(&image.manifest, "layers")
        .iter()
        .map(|layer| layer["digest"].as_str());
    if expect.base_layers_kept
        && !base
            .layers
            .iter()
            .map(|layer| Some(layer.as_str()))
            .eq(digests.take(base.layers.len()))
    {
        errors.push("the base image's layers do not have their own digests any more".to_owned());
    }
    if let Some(want) = &expect.history {
        let found = image::list(&image.config, "history");
        let found = found
            .get(if on_base { base.history } else { 0 }..)
            .unwrap_or_default();
        check_history(want.iter().map(|want| &want.0), found, errors);
    }
    let (flat, paths) = layout.flatten(image)?;
    if paths.len() != diffs.len() {
        errors.push(format!(
            "the config lists {} layers, the manifest {}",
            diffs.len(),
            paths.len()
        ));
    }
    files::check(&expect.files, &flat, first.map(|first| &first.files), errors);
    let new = paths.get(below..).unwrap_or_default();
    for (at, want) in &expect.layer_files {
        if let Some(found) = new.get(*at) {
            files::check_layer(*at, want, found, errors);
        } else {
            errors.push(format!("layer {at}: there is none; {} are new", new.len()));
        }
    }
    Ok(flat)
}

fn check_env(expect: &Expect, image: &Image, errors: &mut Vec<String>) {
    let env: Vec<&str> = image::list(&image.config["config"], "Env")
        .iter()
        .filter_map(|entry| entry.as_str())
        .collect();
    for want in &expect.env_has {
        if !env.contains(&want.as_str()) {
            errors.push(format!("Env: expected {want:?} in it, got {env:?}"));
        }
    }
    for lacks in &expect.env_lacks {
        if env.iter().any(|entry| entry.split('=').next() == Some(lacks)) {
            errors.push(format!("Env: expected no {lacks} in it, got {env:?}"));
        }
    }
}

fn check_history<'w>(
    want: impl ExactSizeIterator<Item = &'w HistoryWant>,
    found: &[serde_json::Value],
    errors: &mut Vec<String>,
) {
    let by: Vec<&str> = found
        .iter()
        .map(|entry| entry["created_by"].as_str().unwrap_or_default())
        .collect();
    if want.len() != found.len() {
        errors.push(format!(
            "history: expected {} entries, got {}: {by:#?}",
            want.len(),
            found.len()
        ));
        return;
    }
    for (at, ((want, found), by)) in want.zip(found).zip(by).enumerate() {
        if let Some(text) = want.contains.as_deref().filter(|text| !by.contains(*text)) {
            errors.push(format!("history[{at}]: expected {text:?} in it, got {by:?}"));
        }
        if let Some(text) = want.is.as_deref().filter(|text| *text != by) {
            errors.push(format!("history[{at}]: expected {text:?}, got {by:?}"));
        }
        let empty = found["empty_layer"].as_bool().unwrap_or(false);
        if let Some(want) = want.empty_layer.filter(|want| *want != empty) {
            errors.push(format!("history[{at}]: expected empty_layer {want}, got {empty}"));
        }
        let created = found["created"].as_str();
        if let Some(want) = want.created.as_deref().filter(|want| Some(*want) != created) {
            errors.push(format!(
                "history[{at}]: expected created {want:?}, got {created:?}"
            ));
        }
    }
}

#[cfg(test)]
mod tests;
