//! Runs one case: writes its inputs, builds, compares, and takes everything away again.

use std::{
    fs,
    os::unix::fs::lchown,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use regex::Regex;

use crate::{
    base::Base,
    builder::{Asked, Builder, Prepared, Source},
    case::{Build, Case, NamedContext, Output},
    check::{self, Knowledge, Outcome, Result1},
    image::Layout,
    servers, tree,
};

/// What all cases share.
#[derive(Clone)]
pub(crate) struct Runner<'a> {
    pub(crate) builder: &'a dyn Builder,
    pub(crate) base: Base,
    /// Folder in which each case gets one of its own.
    pub(crate) work: PathBuf,
    pub(crate) ssh_key: PathBuf,
    pub(crate) run_id: String,
    /// Build as this user and group.
    pub(crate) user: Option<u32>,
    pub(crate) keep: bool,
}

/// What became of a case.
pub(crate) struct Report {
    pub(crate) id: String,
    pub(crate) area: String,
    /// One line for each difference; none where the case holds.
    pub(crate) failures: Vec<String>,
    /// Why the case could not be run.
    pub(crate) skipped: Option<String>,
    /// Output of the last build.
    pub(crate) log: String,
    pub(crate) took: Duration,
    /// Folder of the case, where it was kept.
    pub(crate) kept: Option<PathBuf>,
}

/// Texts with which the engine, or the kernel in a step, says that a mapping of one user cannot express what the case
/// asks for. With a range of ids (`/etc/subuid`) none of them may come.
const UNMAPPED: &[&str] = &[
    "is not mapped into this user namespace",
    "which this user namespace does not map",
    r"chown: [^\n]*: Invalid argument",
];

/// What a program says where it wants to make a device: no process of a user namespace may, whatever its ids.
const NO_DEVICES: &str = r"mknod: [^\n]*: Operation not permitted";

/// What the program says at its start where there is no range of ids.
const ONE_ID: &str = "note: only one id is mapped";

/// Why an ordinary user's build could not do what the case asks for, if it is the user's and not ours.
fn excuse(log: &str) -> Option<&'static str> {
    if needs_more_ids(log) {
        return Some("it needs more ids than the one that a user without a range may map");
    }
    Regex::new(NO_DEVICES)
        .is_ok_and(|pattern| pattern.is_match(log))
        .then_some("it makes a device, which no process of a user namespace may")
}

fn needs_more_ids(log: &str) -> bool {
    log.contains(ONE_ID)
        && UNMAPPED
            .iter()
            .any(|pattern| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(log)))
}

impl Runner<'_> {
    /// Runs a case to its report.
    pub(crate) fn run(&self, case: &Case) -> Report {
        let start = Instant::now();
        let work = self.work.join(&case.first.id);
        let mut log = String::new();
        let failures = self
            .run_in(&work, case, &mut log)
            .unwrap_or_else(|error| vec![format!("{error:#}")]);
        let skipped = if self.user.is_some() && !failures.is_empty() {
            excuse(&log).map(str::to_owned)
        } else {
            None
        };
        if !self.keep {
            let _ = fs::remove_dir_all(&work);
        }
        Report {
            id: case.first.id.clone(),
            area: case.first.area.clone(),
            failures: if skipped.is_some() { Vec::new() } else { failures },
            skipped,
            log,
            took: start.elapsed(),
            kept: self.keep.then_some(work),
        }
    }

    fn run_in(&self, work: &Path, case: &Case, log: &mut String) -> Result<Vec<String>> {
        fs::create_dir_all(work)?;
        let know = Knowledge {
            base: &self.base,
            table: self.builder.wording(),
        };
        let server = servers::start(&case.first, &work.join("www"))?;
        let replace = server.as_ref().map_or(&[][..], |server| &server.substitutions);
        let images = match self.images(case, work, replace)? {
            Ok(images) => images,
            Err(outcome) => {
                log.clone_from(&outcome.log);
                return Ok(vec!["an image of the case could not be built".to_owned()]);
            }
        };
        let mut failures = Vec::new();
        let mut first: Option<Result1> = None;
        for (at, build) in std::iter::once(&case.first).chain(&case.later).enumerate() {
            let out = work.join(format!("out{at}"));
            let outcome = self.build(build, work, &out, &images, replace)?;
            log.clone_from(&outcome.log);
            let (errors, result) =
                check::check(know, build, &outcome, &out, first.as_ref().filter(|_| at > 0));
            let prefix = if at == 0 {
                String::new()
            } else {
                format!("build {}: ", at + 1)
            };
            failures.extend(errors.into_iter().map(|error| format!("{prefix}{error}")));
            if at == 0 {
                first = result;
            }
            // Later builds speak of the first one's result; their failures would only repeat its.
            if !failures.is_empty() {
                break;
            }
        }
        Ok(failures)
    }

    /// Builds the images that the case builds on, in order; gives them by name, or the build that failed.
    pub(crate) fn images(
        &self,
        case: &Case,
        work: &Path,
        replace: &[(String, String)],
    ) -> Result<Result<Vec<(String, Source)>, Outcome>> {
        let mut images: Vec<(String, Source)> = Vec::new();
        for (at, (name, image)) in case.first.images.0.iter().enumerate() {
            let out = work.join(format!("image{at}"));
            let outcome = self.build(image, work, &out, &images, replace)?;
            if !outcome.success {
                return Ok(Err(outcome));
            }
            let found = Layout::open(&out)?.images()?;
            let digest = found
                .first()
                .context("the image's layout is empty")?
                .digest
                .clone();
            images.push((name.clone(), Source::Layout { dir: out, digest }));
        }
        Ok(Ok(images))
    }

    /// Runs one build.
    pub(crate) fn build(
        &self,
        build: &Build,
        work: &Path,
        out: &Path,
        images: &[(String, Source)],
        replace: &[(String, String)],
    ) -> Result<Outcome> {
        let replaced = |text: &str| {
            replace
                .iter()
                .fold(text.to_owned(), |text, (placeholder, value)| {
                    text.replace(placeholder, value)
                })
        };
        let prepared = self.prepare(build, work, out, images, &replaced)?;
        if let Some(user) = self.user {
            own(work, user)?;
        }
        self.builder.build(&Asked {
            build,
            prepared: &prepared,
            replaced: &replaced,
            user: self.user,
            keep: self.keep,
        })
    }

    fn prepare(
        &self,
        build: &Build,
        work: &Path,
        out: &Path,
        images: &[(String, Source)],
        replaced: &dyn Fn(&str) -> String,
    ) -> Result<Prepared> {
        let fresh = |name: &str| -> Result<PathBuf> {
            let dir = work.join(name);
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            Ok(dir)
        };
        let context = fresh("context")?;
        tree::write(&context, &build.files)?;
        let beside = fresh("dockerfile")?;
        tree::write(&beside, &build.dockerfile_files)?;
        if let Some(text) = &build.dockerfile {
            let path = beside.join(build.filename.as_deref().unwrap_or("Dockerfile"));
            fs::create_dir_all(path.parent().unwrap_or(&beside))?;
            fs::write(path, replaced(text))?;
        }
        let mut secrets = Vec::new();
        for (at, (id, value)) in build.secrets.iter().enumerate() {
            let path = work.join(format!("secret{at}"));
            fs::write(&path, value)?;
            secrets.push((id.clone(), path));
        }
        let mut named = Vec::new();
        for (at, (name, context)) in build.contexts.iter().enumerate() {
            named.push((
                name.clone(),
                match context {
                    NamedContext::Source(source) => Source::Other(source.clone()),
                    NamedContext::Tree(files) => {
                        let dir = fresh(&format!("named{at}"))?;
                        tree::write(&dir, files)?;
                        Source::Dir(dir)
                    }
                },
            ));
        }
        for (name, source) in images {
            let Source::Layout { dir, digest } = source else {
                bail!("{name} is no image")
            };
            named.push((
                name.clone(),
                Source::Layout {
                    dir: dir.clone(),
                    digest: digest.clone(),
                },
            ));
        }
        if build.output == Output::Local && out.exists() {
            fs::remove_dir_all(out)?;
        }
        Ok(Prepared {
            dockerfile_dir: if build.dockerfile_in_context {
                context.clone()
            } else {
                beside
            },
            context,
            secrets,
            named,
            ssh_key: self.ssh_key.clone(),
            cache: work.join("cache"),
            out: out.to_owned(),
            work: work.to_owned(),
            run_id: self.run_id.clone(),
        })
    }
}

/// Gives a tree to the user who builds, save what a case has given to somebody else.
fn own(path: &Path, user: u32) -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let meta = fs::symlink_metadata(path)?;
    if meta.uid() == 0 && user != 0 {
        lchown(path, Some(user), Some(user))?;
        // A change of owner takes set-id bits away.
        if !meta.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        }
    }
    if meta.is_dir() && !path.ends_with("store") && !path.ends_with("store2") {
        for item in fs::read_dir(path)? {
            own(&item?.path(), user)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::needs_more_ids;

    #[test]
    fn only_a_mapping_of_one_id_is_an_excuse() {
        let note = "note: only one id is mapped: no range for this user in /etc/subuid\n";
        for text in [
            "b belongs to 3:4, which this user namespace does not map; …",
            "#3 0.9 chown: /d/a: Invalid argument",
        ] {
            assert!(needs_more_ids(&format!("{note}{text}")), "{text}");
            assert!(!needs_more_ids(text), "{text}");
        }
        assert!(!needs_more_ids(&format!("{note}chmod: /d: Invalid argument")));
    }
}
