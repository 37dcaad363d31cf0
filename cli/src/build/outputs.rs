//! `--output`, `--push`, `--tag`.

use crate::{
    csv::{boolean, fields},
    options::BuildOptions,
};
use anyhow::{Context as _, Result, anyhow, bail};
use slipway_engine::{
    Packing,
    export::{AnnotationSet, Destination},
};
use slipway_layer::Compression;
use slipway_oci::Reference;
use slipway_plan::BuildPlan;
use std::path::{Path, PathBuf};

/// One place that the result goes to.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub(super) kind: Kind,
    pub(super) annotations: AnnotationSet,
    pub(super) epoch: Option<i64>,
    pub(super) rewrite_timestamp: bool,
    name: Option<String>,
    compression: Compression,
    force: bool,
    oci: Option<bool>,
}

/// What kind of place.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// A registry, or nothing but the store.
    Image { push: bool },
    /// An OCI image layout.
    Layout {
        tar: bool,
        docker: bool,
        dest: Destination,
    },
    /// One tar of the files.
    Tar { dest: Destination },
    /// A directory of the files.
    Local { dest: PathBuf },
}

impl Kind {
    pub(super) fn is_image(&self) -> bool {
        matches!(self, Self::Image { .. } | Self::Layout { .. })
    }
}

impl Output {
    /// How its layers are packed.
    pub(super) fn packing(&self, plan: &BuildPlan) -> Packing {
        let docker_archive = matches!(self.kind, Kind::Layout { docker: true, .. });
        Packing {
            force: self.force,
            // What `docker load` of every age reads.
            docker: !self.oci.unwrap_or(!docker_archive),
            clamp: if self.rewrite_timestamp {
                self.epoch.or(plan.epoch)
            } else {
                None
            },
            ..Packing::new(self.compression)
        }
    }

    /// The names of the image: the output's own, or the `--tag`s.
    pub(super) fn names(&self, tags: &[String]) -> Result<Vec<Reference>> {
        let own: Vec<&str> = self
            .name
            .iter()
            .flat_map(|names| names.split(','))
            .map(str::trim)
            .collect();
        let names: Vec<&str> = if own.is_empty() {
            tags.iter().map(String::as_str).collect()
        } else {
            own
        };
        names
            .into_iter()
            .filter(|name| !name.is_empty())
            .map(|name| {
                name.parse()
                    .with_context(|| format!("invalid image name {name:?}"))
            })
            .collect()
    }
}

/// All outputs that the flags ask for.
pub(super) fn parse(options: &BuildOptions) -> Result<Vec<Output>> {
    let mut outputs = options
        .outputs
        .iter()
        .map(|spec| one(spec))
        .collect::<Result<Vec<_>>>()?;
    if options.push {
        match outputs.iter_mut().find_map(|output| match &mut output.kind {
            Kind::Image { push } => Some(push),
            _ => None,
        }) {
            Some(push) => *push = true,
            None => outputs.push(one("type=image,push=true")?),
        }
    }
    if outputs.is_empty() {
        outputs.push(one("type=image")?);
    }
    Ok(outputs)
}

#[expect(clippy::too_many_lines, reason = "one arm for each attribute")]
fn one(spec: &str) -> Result<Output> {
    let mut attributes = fields(spec).map_err(anyhow::Error::msg)?;
    // `--output DIR` and `--output -`.
    if let [(path, None)] = attributes.as_slice() {
        let path = path.clone();
        let kind = if path == "-" { "tar" } else { "local" };
        attributes = vec![("type".into(), Some(kind.into())), ("dest".into(), Some(path))];
    }
    let mut kind = None;
    let mut dest = None;
    let mut tar = true;
    let mut push = false;
    let mut level = None;
    let mut compression = None;
    let mut output = Output {
        kind: Kind::Image { push: false },
        annotations: AnnotationSet::default(),
        epoch: None,
        rewrite_timestamp: false,
        name: None,
        compression: Compression::GZIP,
        force: false,
        oci: None,
    };
    for (key, value) in &attributes {
        let value_text = value.as_deref();
        let flag = || boolean(key, value_text).map_err(anyhow::Error::msg);
        if let Some(added) = output
            .annotations
            .add_attribute(key, value_text.unwrap_or_default())
        {
            added.map_err(anyhow::Error::msg)?;
            continue;
        }
        match key.as_str() {
            "type" => kind.clone_from(value),
            "dest" | "destination" => dest.clone_from(value),
            "name" => output.name.clone_from(value),
            "tar" => tar = flag()?,
            "push" => push = flag()?,
            "oci-mediatypes" => output.oci = Some(flag()?),
            "force-compression" => output.force = flag()?,
            "rewrite-timestamp" => output.rewrite_timestamp = flag()?,
            "compression" => compression.clone_from(value),
            "compression-level" => {
                let text = value_text.unwrap_or_default();
                level = Some(
                    text.parse::<i32>()
                        .with_context(|| format!("compression-level={text}"))?,
                );
            }
            "source-date-epoch" => {
                output.epoch = match value_text {
                    None | Some("") => None,
                    Some(text) => Some(
                        text.parse()
                            .map_err(|_| anyhow!("invalid source-date-epoch: {text}"))?,
                    ),
                };
            }
            // What other builders know and what changes nothing here.
            "platform-split"
            | "store"
            | "unpack"
            | "dangling-name-prefix"
            | "registry.insecure"
            | "push-by-digest"
            | "name-canonical" => {}
            other => bail!("output attribute {other:?} is not known"),
        }
    }
    if let Some(name) = compression {
        output.compression = Compression::from_name(&name, level)
            .with_context(|| format!("compression {name:?}: gzip, zstd or uncompressed is expected"))?;
    } else if let Some(level) = level {
        output.compression = Compression::Gzip(level.clamp(0, 9).unsigned_abs());
    }
    let path = |dest: Option<String>| -> Result<PathBuf> {
        let dest = dest.context("the output needs dest=PATH")?;
        Ok(std::path::absolute(Path::new(&dest))?)
    };
    let file = |dest: Option<String>| match dest.as_deref() {
        None | Some("-") => Ok(Destination::Stdout),
        Some(_) => path(dest).map(Destination::Path),
    };
    output.kind = match kind.as_deref().unwrap_or("image") {
        "image" => Kind::Image { push },
        "registry" => Kind::Image { push: true },
        "oci" if tar => Kind::Layout {
            tar,
            docker: false,
            dest: file(dest)?,
        },
        "oci" => Kind::Layout {
            tar,
            docker: false,
            dest: Destination::Path(path(dest)?),
        },
        "docker" if tar => Kind::Layout {
            tar,
            docker: true,
            dest: file(dest)?,
        },
        "docker" => Kind::Layout {
            tar,
            docker: true,
            dest: Destination::Path(path(dest)?),
        },
        "tar" => Kind::Tar { dest: file(dest)? },
        "local" => Kind::Local { dest: path(dest)? },
        "cacheonly" => Kind::Image { push: false },
        other => bail!("output type {other:?}: image, registry, oci, docker, tar or local is expected"),
    };
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_as_buildx_reads_them() {
        assert!(matches!(one("out").unwrap().kind, Kind::Local { .. }));
        assert!(matches!(
            one("-").unwrap().kind,
            Kind::Tar {
                dest: Destination::Stdout
            }
        ));
        let oci =
            one(r#"type=oci,tar=false,dest=/x,"name=a:1,b:2",annotation.k=v,compression=zstd"#).unwrap();
        assert!(matches!(
            oci.kind,
            Kind::Layout {
                tar: false,
                docker: false,
                ..
            }
        ));
        assert_eq!(oci.names(&[]).unwrap().len(), 2);
        assert!(one("type=oci,tar=false").is_err());
        assert!(one("type=nothing").is_err());
    }
}
