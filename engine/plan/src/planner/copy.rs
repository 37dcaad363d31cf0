//! `COPY` and `ADD`.

use super::{
    Fallible, Planner,
    config::root_as_number,
    dispatch::{At, Built, Done},
    git::{Detected, GitRef, detect, is_http},
    paths,
};
use crate::{
    model::{Chmod, CopyOp, CopySource, Op},
    source::{GitSource, HttpSource, InlineFile, Source},
};
use slipway_dockerfile::{
    ast::{Add, Copy, SourcesAndDest, Word},
    expand::Lexer,
    glob,
    lint::rules,
};
use slipway_oci::Digest;

/// What `COPY` and `ADD` say, variables replaced.
struct Expanded {
    paths: Vec<String>,
    dest: String,
    contents: Vec<InlineFile>,
    chown: Option<String>,
    chmod: Option<String>,
}

/// `ADD`'s own flags.
#[derive(Default)]
struct AddFlags {
    checksum: Option<String>,
    keep_git_dir: Option<bool>,
    unpack: Option<bool>,
}

impl<'a> Planner<'a> {
    pub(super) fn copy(&mut self, built: &mut Built, at: &At<'_, 'a>, copy: &Copy) -> Fallible<Done> {
        let expanded = self.expand_files(built, at, &copy.files, copy.chown.as_ref(), copy.chmod.as_ref())?;
        let source = match at.command.sources.first().copied().flatten() {
            Some(source) if !self.is_ready(source) => {
                let from = copy.from.as_ref().map_or("", |from| from.text.as_str());
                let own = &self.nodes[at.id].name;
                return self.fail(
                    at,
                    "copy-order",
                    format!(
                        "cannot copy from stage {from:?}, it needs to be defined before current stage {own:?}"
                    ),
                );
            }
            Some(source) => self.source_of(source),
            None => Source::Context,
        };
        let mut sources = Vec::with_capacity(expanded.paths.len() + expanded.contents.len());
        for path in &expanded.paths {
            match detect(path) {
                Detected::Broken(message) => return self.fail(at, "git", message),
                Detected::Git(git) if !git.maybe_local => {
                    return self.fail(at, "copy-remote", "source can't be a git ref for COPY");
                }
                _ if is_http(path) => {
                    return self.fail(at, "copy-remote", "source can't be a URL for COPY");
                }
                _ => {}
            }
            if source == Source::Context && at.command.sources.is_empty() {
                self.check_ignored(at, path);
            }
            sources.push(self.local(built, at, &source, path, copy.parents, false)?);
        }
        let flags = if copy.parents { " --parents" } else { "" };
        let exclude = &copy.exclude;
        self.finish(built, at, expanded, sources, ("COPY", flags), copy.link, exclude)
    }

    pub(super) fn add(&mut self, built: &mut Built, at: &At<'_, 'a>, add: &Add) -> Fallible<Done> {
        let expanded = self.expand_files(built, at, &add.files, add.chown.as_ref(), add.chmod.as_ref())?;
        let flags = AddFlags {
            checksum: self.expand_optional(built, at, add.checksum.as_ref())?,
            keep_git_dir: add.keep_git_dir,
            unpack: add.unpack,
        };
        if flags.checksum.is_some() {
            let [path] = &expanded.paths[..] else {
                return self.fail(at, "checksum", "checksum can't be specified for multiple sources");
            };
            if !is_http(path) && !matches!(detect(path), Detected::Git(_)) {
                return self.fail(at, "checksum", "checksum requires HTTP(S) or Git sources");
            }
        }
        let mut sources = Vec::with_capacity(expanded.paths.len() + expanded.contents.len());
        for path in &expanded.paths {
            let source = match detect(path) {
                Detected::Broken(message) => return self.fail(at, "git", message),
                Detected::Git(git) if !git.maybe_local => self.git(at, git, &flags)?,
                _ if is_http(path) => self.http(at, path, &flags)?,
                _ => {
                    self.check_ignored(at, path);
                    self.local(
                        built,
                        at,
                        &Source::Context,
                        path,
                        false,
                        flags.unpack.unwrap_or(true),
                    )?
                }
            };
            sources.push(source);
        }
        self.finish(built, at, expanded, sources, ("ADD", ""), add.link, &add.exclude)
    }

    fn expand_files(
        &mut self,
        built: &Built,
        at: &At<'_, 'a>,
        files: &SourcesAndDest,
        chown: Option<&Word>,
        chmod: Option<&Word>,
    ) -> Fallible<Expanded> {
        let chown = self.expand_optional(built, at, chown)?;
        let chmod = self.expand_optional(built, at, chmod)?;
        let mut paths = Vec::with_capacity(files.paths.len());
        for path in &files.paths {
            paths.push(self.expand(built, at, path)?);
        }
        let dest = self.expand(built, at, &files.dest)?;
        let mut contents = Vec::with_capacity(files.contents.len());
        for file in &files.contents {
            let data = if file.expand {
                self.expand_text(built, at, &file.data, Lexer::heredoc())?
            } else {
                file.data.clone()
            };
            contents.push(InlineFile {
                path: file.path.clone(),
                data,
                mode: 0o644,
            });
        }
        Ok(Expanded {
            paths,
            dest,
            contents,
            chown,
            chmod,
        })
    }

    /// A path of a context, a stage or an image.
    fn local(
        &self,
        built: &Built,
        at: &At<'_, 'a>,
        source: &Source,
        path: &str,
        parents: bool,
        unpack: bool,
    ) -> Fallible<CopySource> {
        let os = &built.platform.os;
        let normal = |path: &str| {
            paths::resolve("/", path, os, false).map_err(|message| self.error("path", message, at.span()))
        };
        let (mut include, mut required) = (None, None);
        let mut pivot = path;
        if parents {
            // What comes before `/./` is not kept.
            let pattern = if let Some((before, after)) = path.split_once("/./") {
                pivot = before;
                after
            } else {
                pivot = "/";
                path
            };
            let pattern = normal(pattern)?;
            if !glob::has_wildcards(pivot) && !glob::has_wildcards(&pattern) {
                required = Some(normal(&paths::join(pivot, &pattern))?);
            }
            include = Some(pattern.trim_start_matches('/').to_owned());
        }
        let path = paths::clean_keeping_end(&normal(pivot)?);
        Ok(CopySource {
            source: source.clone(),
            wildcard: glob::has_wildcards(&path),
            path,
            follow: true,
            contents_only: true,
            unpack,
            include,
            required,
        })
    }

    fn http(&self, at: &At<'_, 'a>, url: &str, flags: &AddFlags) -> Fallible<CopySource> {
        let checksum = match &flags.checksum {
            Some(text) => match text.parse::<Digest>() {
                Ok(digest) => Some(digest),
                Err(error) => {
                    return self.fail(at, "checksum", format!("invalid checksum digest format: {error}"));
                }
            },
            None => None,
        };
        // The last part of the path of `scheme://host/path?query#fragment`.
        let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
        let path = after_scheme.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once('/').map_or("", |(_, path)| path);
        let filename = match paths::base(path) {
            "." | "/" => "__unnamed__",
            name => name,
        };
        Ok(CopySource {
            path: format!("/{filename}"),
            source: Source::Http(HttpSource {
                url: url.to_owned(),
                filename: filename.to_owned(),
                checksum,
            }),
            wildcard: false,
            follow: false,
            contents_only: false,
            unpack: flags.unpack.unwrap_or(false),
            include: None,
            required: None,
        })
    }

    fn git(&self, at: &At<'_, 'a>, git: GitRef, flags: &AddFlags) -> Fallible<CopySource> {
        let keep_git_dir = match (flags.keep_git_dir, git.keep_git_dir) {
            (Some(flag), Some(query)) if flag != query => {
                return self.fail(at, "git", "inconsistent keep-git-dir configuration");
            }
            (flag, query) => query.or(flag).unwrap_or(false),
        };
        let checksum = match (&flags.checksum, git.checksum) {
            (Some(flag), Some(query)) if *flag != query => {
                return self.fail(at, "git", format!("checksum mismatch {flag:?} != {query:?}"));
            }
            (flag, query) => query.or_else(|| flag.clone()),
        };
        Ok(CopySource {
            source: Source::Git(GitSource {
                remote: git.remote,
                reference: git.reference,
                subdir: git.subdir,
                checksum,
                keep_git_dir,
                submodules: git.submodules.unwrap_or(true),
                fetch_by_commit: git.fetch_by_commit,
            }),
            path: "/".to_owned(),
            wildcard: false,
            follow: false,
            contents_only: false,
            unpack: false,
            include: None,
            required: None,
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one caller for each of the two instructions"
    )]
    fn finish(
        &self,
        built: &Built,
        at: &At<'_, 'a>,
        expanded: Expanded,
        mut sources: Vec<CopySource>,
        (keyword, flags): (&str, &str),
        link: bool,
        exclude: &[Word],
    ) -> Fallible<Done> {
        let dest = paths::destination(&built.cwd, &expanded.dest, &built.platform.os)
            .map(|dest| paths::clean_keeping_end(&dest))
            .map_err(|message| self.error("path", message, at.span()))?;
        if let Some(chown) = &expanded.chown
            && link
            && !is_numeric_owner(chown)
        {
            return self.fail(
                at,
                "chown-link",
                format!(
                    "--chown={chown}: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead"
                ),
            );
        }
        let chmod = match &expanded.chmod {
            Some(text) => Some(parse_chmod(text).or_else(|message| self.fail(at, "chmod", message))?),
            None => None,
        };

        let mut history = format!("{keyword}{flags}");
        for (flag, value) in [("chown", &expanded.chown), ("chmod", &expanded.chmod)] {
            if let Some(value) = value {
                history = format!("{history} --{flag}={value}");
            }
        }
        for path in &expanded.paths {
            history = format!("{history} {path}");
        }
        for file in &expanded.contents {
            history = format!("{history} <<{}", file.path);
        }
        history = format!("{history} {}", expanded.dest);

        sources.extend(expanded.contents.into_iter().map(|file| CopySource {
            path: paths::join("/", &file.path),
            source: Source::Inline(vec![InlineFile {
                path: paths::join("/", &file.path).trim_start_matches('/').to_owned(),
                ..file
            }]),
            wildcard: false,
            follow: false,
            contents_only: false,
            unpack: false,
            include: None,
            required: None,
        }));
        let op = CopyOp {
            sources,
            dest,
            chown: expanded.chown.as_deref().map(root_as_number),
            // A linked layer cannot change modes of what it does not see, so BuildKit does not link then.
            link: link && chmod.is_none(),
            chmod,
            exclude: exclude.iter().map(|word| word.text.clone()).collect(),
            add: keyword == "ADD",
        };
        let display = Self::display(self.lexer, &at.command.instruction.original, &built.env);
        Ok(Done {
            op: Op::Copy(op),
            history: Some(history),
            display: Some(display),
        })
    }

    /// `CopyIgnoredFile`.
    fn check_ignored(&mut self, at: &At<'_, 'a>, path: &str) {
        if let Some(ignore) = &self.ignore {
            self.warnings.extend(rules::copy_ignored(
                &at.lint,
                &at.command.instruction,
                path,
                ignore,
            ));
        }
    }
}

/// Whether both parts of `user[:group]` are numbers (or missing).
fn is_numeric_owner(chown: &str) -> bool {
    chown
        .splitn(2, ':')
        .all(|part| part.is_empty() || part.parse::<u32>().is_ok())
}

/// Reads `--chmod`: octal, or symbolic as chmod(1) takes it.
fn parse_chmod(text: &str) -> Result<Chmod, String> {
    let not_octal =
        || format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
    if let Ok(mode) = u32::from_str_radix(text, 8)
        && !text.starts_with('+')
    {
        return if mode <= 0o7777 {
            Ok(Chmod::Octal(mode))
        } else {
            Err(not_octal())
        };
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(not_octal());
    }
    if text.split(',').all(is_symbolic_clause) {
        Ok(Chmod::Symbolic(text.to_owned()))
    } else {
        Err(format!(
            "invalid chmod parameter: '{text}': invalid syntax; write octal digits or clauses like u=rwX,go=rX"
        ))
    }
}

/// `[ugoa…]` and then one or more of `+-=` each with letters of `rwxXst` or one of `ugo`.
fn is_symbolic_clause(clause: &str) -> bool {
    let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if rest.is_empty() {
        return false;
    }
    while let Some(after) = rest.strip_prefix(['+', '-', '=']) {
        let end = after.find(['+', '-', '=']).unwrap_or(after.len());
        let (letters, next) = after.split_at(end);
        let copies = matches!(letters, "u" | "g" | "o");
        if !copies && !letters.chars().all(|c| "rwxXst".contains(c)) {
            return false;
        }
        rest = next;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        for (text, mode) in [("0", 0), ("755", 0o755), ("07777", 0o7777), ("0644", 0o644)] {
            assert_eq!(parse_chmod(text), Ok(Chmod::Octal(mode)), "{text}");
        }
        for text in ["u=rwX,go=rX", "+x", "a-w", "g=u", "u+s,o+t", "u=rw+x", "go="] {
            assert_eq!(parse_chmod(text), Ok(Chmod::Symbolic(text.to_owned())), "{text}");
        }
        for text in ["10000", "64a", "8"] {
            assert!(parse_chmod(text).unwrap_err().contains("octal"), "{text}");
        }
        for text in ["u+q", "x", "u", "", "u+x,", "u+ru"] {
            assert!(
                parse_chmod(text).unwrap_err().contains("invalid syntax"),
                "{text}"
            );
        }
    }

    #[test]
    fn owners_are_numbers_or_names() {
        for (owner, numeric) in [
            ("1", true),
            ("1:2", true),
            (":2", true),
            ("a", false),
            ("1:a", false),
        ] {
            assert_eq!(is_numeric_owner(owner), numeric, "{owner}");
        }
    }
}
