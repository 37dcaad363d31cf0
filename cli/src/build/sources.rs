//! Where Dockerfile and contexts come from: directories, standard input, git, HTTP.

use crate::options::BuildOptions;
use anyhow::{Context as _, Result, bail};
use slipway_dockerfile::{
    Dockerfile,
    ignore::{self, Matcher},
};
use slipway_engine::{
    BuildError, Store,
    context::{Context, DirContext, MemContext, resolve},
    driver::{Driver, OpenContext},
};
use slipway_layer::{Mode, UnpackOptions};
use slipway_plan::{GitSource, HttpSource};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A Dockerfile is text for people; more than this is a mistake.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

/// All that a build reads, opened.
pub(super) struct Sources {
    /// The Dockerfile's name, for messages.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
    /// The build context.
    pub(super) context: OpenContext,
    /// Named contexts that are directories.
    pub(super) named: BTreeMap<String, OpenContext>,
    /// All named contexts, as planning takes them.
    pub(super) contexts: BTreeMap<String, String>,
    /// The ignore patterns of the build context.
    pub(super) ignore: Vec<String>,
    /// Times of sources that have one.
    pub(super) times: BTreeMap<String, i64>,
}

impl Sources {
    /// The Dockerfile as a tree.
    pub(super) fn parse(&self) -> Result<Dockerfile> {
        let parsed = slipway_dockerfile::parse(&self.name, &self.text);
        Ok(parsed.map_err(|errors| BuildError::dockerfile(errors, &self.text))?)
    }
}

/// What the context argument named.
enum Origin {
    /// A directory of this machine.
    Local(PathBuf),
    /// A tree that came from elsewhere and lies in the store.
    Fetched {
        dir: PathBuf,
        time: Option<i64>,
        owners: bool,
        keep: Option<Arc<dyn std::any::Any + Send + Sync>>,
    },
    /// A Dockerfile alone.
    Dockerfile(String),
}

/// Opens all that the flags name.
pub(super) async fn open(options: &BuildOptions, driver: &Driver) -> Result<Sources> {
    let origin = origin(&options.context, driver).await?;
    let (name, text, beside) = dockerfile(options, &origin)?;
    let mut times = BTreeMap::new();
    let (context, ignore) = match origin {
        Origin::Local(dir) => directory(&dir, beside, "the build context", true, None)?,
        Origin::Fetched {
            dir,
            time,
            owners,
            keep,
        } => {
            if let Some(time) = time {
                times.insert("context".to_owned(), time);
            }
            directory(&dir, beside, "the build context", !owners, keep)?
        }
        Origin::Dockerfile(_) => {
            let empty: Arc<dyn Context> = Arc::new(MemContext::default());
            (always(empty), Vec::new())
        }
    };
    let mut named = BTreeMap::new();
    let mut contexts = BTreeMap::new();
    for spec in &options.build_contexts {
        let (name, source) = spec
            .split_once('=')
            .filter(|(name, source)| !name.is_empty() && !source.is_empty())
            .with_context(|| format!("--build-context {spec:?} is not NAME=SOURCE"))?;
        if is_remote(source) {
            contexts.insert(name.to_owned(), source.to_owned());
            continue;
        }
        let dir = std::path::absolute(source.trim_start_matches("local:"))?;
        if !dir.is_dir() {
            bail!("--build-context {name}: {} is no directory", dir.display());
        }
        let (context, _) = directory(&dir, None, &format!("context {name:?}"), true, None)?;
        named.insert(name.to_owned(), context);
        contexts.insert(name.to_owned(), format!("local:{}", dir.display()));
    }
    Ok(Sources {
        name,
        text,
        context,
        named,
        contexts,
        ignore,
        times,
    })
}

fn is_remote(source: &str) -> bool {
    source.starts_with("docker-image://")
        || source.starts_with("oci-layout://")
        || source.starts_with("http://")
        || source.starts_with("https://")
        || matches!(slipway_plan::git_source(source), Some(Ok(_)))
}

fn always(context: Arc<dyn Context>) -> OpenContext {
    Arc::new(move || {
        let context = context.clone();
        Box::pin(async move { Ok(context) })
    })
}

/// A directory with its ignore rules; `beside` is the text of an ignore file that belongs to the Dockerfile.
fn directory(
    dir: &Path,
    beside: Option<Vec<u8>>,
    name: &str,
    as_root: bool,
    keep: Option<Arc<dyn std::any::Any + Send + Sync>>,
) -> Result<(OpenContext, Vec<String>)> {
    let text = match beside {
        Some(text) => text,
        None => fs::read(dir.join(".dockerignore")).unwrap_or_default(),
    };
    let patterns: Vec<String> = ignore::read(&text).into_iter().map(|line| line.pattern).collect();
    let matcher = if patterns.is_empty() {
        None
    } else {
        Some(Matcher::new(&patterns).with_context(|| format!("the ignore file of {name}"))?)
    };
    let mut context = DirContext::open(dir, name)
        .with_context(|| format!("failed to open {}", dir.display()))?
        .ignoring(matcher);
    if as_root {
        context = context.owned_by_root();
    }
    if let Some(keep) = keep {
        context = context.keeping(keep);
    }
    Ok((always(Arc::new(context)), patterns))
}

async fn origin(context: &str, driver: &Driver) -> Result<Origin> {
    if context == "-" {
        return standard_input(&driver.store);
    }
    // A directory of that name wins: `./github.com/x` is one.
    if Path::new(context).is_dir() {
        return Ok(Origin::Local(std::path::absolute(context)?));
    }
    if let Some(git) = slipway_plan::git_source(context) {
        let git: GitSource = git.map_err(|error| anyhow::anyhow!("context {context:?}: {error}"))?;
        let vertex = driver.progress.start(format!("fetch {}", git.remote));
        let checkout = driver.fetcher.git_checkout(&driver.store, &git).await?;
        vertex.line(&format!("commit {}", checkout.commit));
        vertex.done();
        let dir = driver.store.snapshot_dir(&checkout.snapshot);
        return Ok(Origin::Fetched {
            dir,
            time: Some(checkout.time),
            owners: false,
            keep: None,
        });
    }
    if context.starts_with("http://") || context.starts_with("https://") {
        let vertex = driver.progress.start(format!("fetch {context}"));
        let source = HttpSource {
            url: context.into(),
            filename: "context".into(),
            checksum: None,
        };
        let download = driver.fetcher.download(&driver.store, &source).await?;
        vertex.done();
        let file = driver.store.snapshot_dir(&download.snapshot).join("context");
        let bytes = fs::File::open(&file).with_context(|| format!("failed to read {context}"))?;
        return unpack_or_read(&driver.store, bytes, download.modified);
    }
    bail!("the context {context:?} is no directory, and no git or HTTP URL")
}

fn standard_input(store: &Arc<Store>) -> Result<Origin> {
    unpack_or_read(store, io::stdin(), None)
}

/// A tar (compressed or not) is the context; anything else is the Dockerfile.
fn unpack_or_read(
    store: &Arc<Store>,
    input: impl Read + Send + 'static,
    time: Option<i64>,
) -> Result<Origin> {
    let temporary = store.temporary_dir("context")?;
    let raw = temporary.path().join("raw");
    let mut input = input;
    io::copy(&mut input, &mut fs::File::create(&raw)?).context("failed to read the context")?;
    match slipway_engine::context::open_archive(fs::File::open(&raw)?)? {
        Some(tar) => {
            let dir = temporary.path().join("tree");
            fs::create_dir(&dir)?;
            let options = UnpackOptions {
                mode: Mode::Apply,
                whiteouts: false,
                ..UnpackOptions::default()
            };
            slipway_layer::unpack(tar, &dir, &options).context("failed to unpack the context")?;
            Ok(Origin::Fetched {
                dir,
                time,
                owners: true,
                keep: Some(Arc::new(temporary)),
            })
        }
        None => Ok(Origin::Dockerfile(read_text(
            fs::File::open(&raw)?,
            "Dockerfile",
        )?)),
    }
}

fn read_text(file: impl Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    file.take(DOCKERFILE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("failed to read {name}"))?;
    if bytes.len() as u64 > DOCKERFILE_LIMIT {
        bail!("{name} exceeds maximum allowed size of {DOCKERFILE_LIMIT} bytes");
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Name and text of the Dockerfile, and the ignore file that lies beside it.
fn dockerfile(options: &BuildOptions, origin: &Origin) -> Result<(String, String, Option<Vec<u8>>)> {
    if options.file.as_deref() == Some("-") {
        return Ok(("Dockerfile".into(), read_text(io::stdin(), "Dockerfile")?, None));
    }
    match origin {
        Origin::Dockerfile(text) => Ok(("Dockerfile".into(), text.clone(), None)),
        Origin::Local(dir) => {
            let path = match &options.file {
                Some(file) => PathBuf::from(file),
                None => dir.join("Dockerfile"),
            };
            let (parent, name) = (path.parent().unwrap_or(Path::new("")), file_name(&path));
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            read_dockerfile(parent, &name)
        }
        Origin::Fetched { dir, .. } => {
            let file = options.file.as_deref().unwrap_or("Dockerfile");
            let path = Path::new(file);
            let tree = DirContext::open(dir, "the build context")?;
            let parent = resolve(&tree, path.parent().unwrap_or(Path::new("")), true)?;
            read_dockerfile(&dir.join(parent), &file_name(path))
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || "Dockerfile".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn read_dockerfile(dir: &Path, name: &str) -> Result<(String, String, Option<Vec<u8>>)> {
    // Links are followed inside the Dockerfile's own directory: a fetched one may hold what it likes.
    let tree = DirContext::open(dir, "the Dockerfile's directory")
        .with_context(|| format!("failed to open {}", dir.display()))?;
    let mut candidates = vec![name.to_owned()];
    if name == "Dockerfile" {
        candidates.push("dockerfile".into());
    }
    for candidate in &candidates {
        let path = resolve(&tree, Path::new(candidate), true)?;
        let Some(entry) = tree.lookup(&path)? else {
            continue;
        };
        if entry.is_dir() {
            bail!("{candidate} is a directory and not a Dockerfile");
        }
        let text = read_text(tree.open(&path)?, candidate)?;
        let beside = PathBuf::from(format!("{candidate}.dockerignore"));
        let ignore = match tree.lookup(&beside)? {
            Some(_) => {
                let mut bytes = Vec::new();
                tree.open(&beside)?
                    .take(DOCKERFILE_LIMIT)
                    .read_to_end(&mut bytes)?;
                Some(bytes)
            }
            None => None,
        };
        return Ok((candidate.clone(), text, ignore));
    }
    bail!(
        "failed to read the Dockerfile: open {name}: no such file or directory (looked in {}); name it with --file",
        dir.display()
    )
}
