//! The mounts of a `RUN`.

use super::{
    Fallible, Planner,
    dispatch::{At, Built},
    paths,
};
use crate::{
    model::{Mount, Sharing},
    source::Source,
};
use slipway_dockerfile::{
    ast::{self, MountKind, Run},
    expand::ExpandError,
    mount,
};
use std::collections::BTreeSet;

impl<'a> Planner<'a> {
    /// The mounts, and the names of the variables that secrets are given in.
    pub(super) fn mounts(
        &mut self,
        built: &mut Built,
        at: &At<'_, 'a>,
        run: &Run,
    ) -> Fallible<(Vec<Mount>, Vec<String>)> {
        let (mut mounts, mut names) = (Vec::with_capacity(run.mounts.len()), Vec::new());
        for (index, word) in run.mounts.iter().enumerate() {
            let mut unmatched = BTreeSet::new();
            let lexer = self.lexer;
            let env = &built.env;
            let parsed = mount::parse(&word.text, &mut |value: &str| -> Result<String, ExpandError> {
                let mut expansion = lexer.process(value, env)?;
                unmatched.append(&mut expansion.unmatched);
                Ok(expansion.text)
            });
            let parsed = match parsed {
                Ok(parsed) => parsed,
                Err(error) => return self.fail(at, "mount", error.to_string()),
            };
            self.report_undefined(built, at, &unmatched);
            let from = match (&parsed.from, at.command.sources.get(index).copied().flatten()) {
                (Some(from), Some(source)) if !from.is_empty() => {
                    if !self.is_ready(source) {
                        let target = parsed.target.as_deref().unwrap_or("");
                        return self.fail(
                            at,
                            "mount-order",
                            format!(
                                "cannot mount from stage {from:?} to {target:?}, stage needs to be defined before current command"
                            ),
                        );
                    }
                    Some(self.source_of(source))
                }
                _ => None,
            };
            let resolved = match parsed.kind {
                MountKind::Secret => self.secret(built, at, &parsed)?,
                MountKind::Ssh => self.ssh(built, at, &parsed)?,
                kind => self.directory(built, at, &parsed, kind, from)?,
            };
            if let Mount::Secret { env: Some(name), .. } = &resolved {
                names.push(name.clone());
            }
            mounts.push(resolved);
        }
        Ok((mounts, names))
    }

    fn directory(
        &self,
        built: &Built,
        at: &At<'_, 'a>,
        mount: &ast::Mount,
        kind: MountKind,
        from: Option<Source>,
    ) -> Fallible<Mount> {
        // Without a target it is the working directory.
        let target = in_cwd(built, mount.target.as_deref().unwrap_or(""));
        if target == "/" {
            return self.fail(at, "mount-target", format!("invalid mount target {target:?}"));
        }
        let path = paths::join("/", mount.source.as_deref().unwrap_or(""));
        let readonly = mount.readonly;
        Ok(match kind {
            MountKind::Tmpfs => Mount::Tmpfs {
                target,
                size: mount
                    .size
                    .and_then(|size| u64::try_from(size).ok())
                    .filter(|size| *size > 0),
                readonly,
            },
            MountKind::Cache => {
                let own = match mount.id.as_deref().filter(|id| !id.is_empty()) {
                    Some(id) => id.to_owned(),
                    None => paths::clean(mount.target.as_deref().unwrap_or("")),
                };
                let id = match self
                    .args
                    .get("BUILDKIT_CACHE_MOUNT_NS")
                    .filter(|space| !space.is_empty())
                {
                    Some(space) => format!("{space}/{own}"),
                    None => own,
                };
                // Owner and mode make a directory of their own in the source, but only where no path is given.
                let with_mode = path == "/";
                Mount::Cache {
                    target,
                    id,
                    sharing: match mount.sharing.unwrap_or_default() {
                        ast::Sharing::Shared => Sharing::Shared,
                        ast::Sharing::Private => Sharing::Private,
                        ast::Sharing::Locked => Sharing::Locked,
                    },
                    readonly,
                    source: from.unwrap_or(Source::Scratch),
                    path,
                    mode: mount.mode.filter(|_| with_mode),
                    uid: mount.uid.filter(|_| with_mode),
                    gid: mount.gid.filter(|_| with_mode),
                }
            }
            _ => Mount::Bind {
                target,
                source: from.unwrap_or(Source::Context),
                path,
                readonly,
            },
        })
    }

    fn secret(&self, built: &mut Built, at: &At<'_, 'a>, mount: &ast::Mount) -> Fallible<Mount> {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let target = text(&mount.target);
        let id = match (text(&mount.source).or_else(|| text(&mount.id)), &target) {
            (Some(id), _) => id,
            (None, Some(target)) => paths::base(target).to_owned(),
            (None, None) => {
                return self.fail(
                    at,
                    "mount",
                    "invalid secret mount. one of source, target required",
                );
            }
        };
        let target = match (&mount.env, target) {
            (Some(_), target) => target,
            (None, Some(target)) => Some(target),
            (None, None) => Some(format!("/run/secrets/{}", paths::base(&id))),
        };
        let target = target.map(|target| in_cwd(built, &target));
        built.used.secret(&id, mount.required, at.span());
        Ok(Mount::Secret {
            id,
            required: mount.required,
            target,
            env: mount.env.clone(),
            mode: mount.mode.unwrap_or(0o400),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        })
    }

    fn ssh(&self, built: &mut Built, at: &At<'_, 'a>, mount: &ast::Mount) -> Fallible<Mount> {
        if mount.source.as_deref().is_some_and(|source| !source.is_empty()) {
            return self.fail(at, "mount", "ssh does not support source");
        }
        let id = mount
            .id
            .clone()
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        built.used.ssh(&id, mount.required, at.span());
        Ok(Mount::Ssh {
            id,
            required: mount.required,
            target: mount
                .target
                .as_deref()
                .filter(|target| !target.is_empty())
                .map(|target| in_cwd(built, target)),
            mode: mount.mode.unwrap_or(0o600),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        })
    }
}

/// A mount's target: a relative one lies in the working directory.
fn in_cwd(built: &Built, written: &str) -> String {
    paths::clean(&if written.starts_with('/') {
        written.to_owned()
    } else {
        format!("/{}/{written}", built.cwd)
    })
}
