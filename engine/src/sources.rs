//! The trees that a stage's steps read, opened when first needed, and their digests.

use crate::{
    context::{Context, DirContext, MemContext},
    copy::{self, Request},
    error::{BuildError, Result},
    exec::{Environment, reads},
    root::{Mounted, Root, join},
};
use slipway_plan::{BuildPlan, Op, Source};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Opens sources for one stage.
pub(crate) struct Sources {
    environment: Arc<Environment>,
    plan: Arc<BuildPlan>,
    trees: BTreeMap<Source, Arc<dyn Context>>,
    roots: BTreeMap<Source, Root>,
}

impl Sources {
    pub(crate) fn new(environment: Arc<Environment>, plan: Arc<BuildPlan>) -> Self {
        Self {
            environment,
            plan,
            trees: BTreeMap::new(),
            roots: BTreeMap::new(),
        }
    }

    /// The root of a stage or image; waits for it.
    pub(crate) async fn root(&mut self, source: &Source) -> Result<Option<Root>> {
        if let Some(root) = self.roots.get(source) {
            return Ok(Some(root.clone()));
        }
        let root = match source {
            Source::Stage(index) => self.environment.inputs.stage(*index).await?,
            Source::Image(image) => self.environment.inputs.image(image).await?,
            _ => return Ok(None),
        };
        self.roots.insert(source.clone(), root.clone());
        Ok(Some(root))
    }

    /// The files of a source.
    pub(crate) async fn tree(&mut self, source: &Source) -> Result<Arc<dyn Context>> {
        if let Some(tree) = self.trees.get(source) {
            return Ok(tree.clone());
        }
        let tree: Arc<dyn Context> = match source {
            // Nothing, and that since now: a copy of it is a directory with this time.
            Source::Scratch => Arc::new(MemContext::new([], (now(), 0))),
            Source::Context => self.environment.inputs.context(None).await?,
            Source::Named(name) => self.environment.inputs.context(Some(name)).await?,
            Source::Stage(_) | Source::Image(_) => {
                let root = self.root(source).await?.unwrap_or_default();
                Arc::new(open_root(&self.environment, &root, self.name(source)).await?)
            }
            Source::Inline(files) => Arc::new(MemContext::new(
                files.iter().map(|file| {
                    (
                        PathBuf::from(&file.path),
                        file.data.clone().into_bytes(),
                        file.mode,
                    )
                }),
                (now(), 0),
            )),
            Source::Http(http) => Arc::new(self.environment.fetcher.http(&self.environment, http).await?),
            Source::Git(git) => Arc::new(self.environment.fetcher.git(&self.environment, git).await?),
        };
        self.trees.insert(source.clone(), tree.clone());
        Ok(tree)
    }

    fn name(&self, source: &Source) -> String {
        match source {
            Source::Stage(index) => format!("stage {:?}", self.plan.stages[*index].name),
            Source::Image(image) => format!("image {}", image.reference),
            _ => String::new(),
        }
    }

    /// Digests of all that an operation reads, in order.
    pub(crate) async fn digests(&mut self, op: &Op) -> Result<Vec<String>> {
        let mut digests = Vec::new();
        for (source, request) in reads(op) {
            digests.push(self.digest(source, &request).await?);
        }
        Ok(digests)
    }

    /// The digest of what is at a path of a source, links followed.
    pub(crate) async fn digest_of(&mut self, source: &Source, path: &str) -> Result<String> {
        self.digest(
            source,
            &Request {
                path,
                follow: true,
                ..Request::default()
            },
        )
        .await
    }

    /// What was read of a root before is remembered by its content.
    pub(crate) async fn digest(&mut self, source: &Source, request: &Request<'_>) -> Result<String> {
        let memo = match self.root(source).await? {
            Some(root) => Some(format!("{}\0{request:?}", root.content_key)),
            None => None,
        };
        let store = self.environment.store.clone();
        if let Some(known) = memo
            .as_ref()
            .and_then(|memo| store.memo::<String>("digests", memo))
        {
            return Ok(known);
        }
        let tree = self.tree(source).await?;
        let owned = OwnedRequest::from(request);
        let digest = tokio::task::spawn_blocking(move || copy::digest(&*tree, &owned.borrow()))
            .await
            .map_err(join)??
            .to_string();
        if let Some(memo) = memo {
            store.put_memo("digests", &memo, &digest)?;
        }
        Ok(digest)
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

/// A root mounted read-only, as a tree that keeps the mount alive.
pub(crate) async fn open_root(
    environment: &Arc<Environment>,
    root: &Root,
    name: String,
) -> Result<DirContext> {
    root.materialise(&environment.store, &environment.progress)
        .await?;
    let (store, root) = (environment.store.clone(), root.clone());
    tokio::task::spawn_blocking(move || {
        let mounted: Mounted = root.mount(&store)?;
        let path = mounted.path().to_owned();
        DirContext::open(&path, name)
            .map(|tree| tree.keeping(mounted))
            .map_err(|error| BuildError::io("open a stage's root", error))
    })
    .await
    .map_err(join)?
}

/// A request that can go to another thread.
struct OwnedRequest {
    path: String,
    wildcard: bool,
    follow: bool,
    include: Option<String>,
    required: Option<String>,
    exclude: Vec<String>,
}

impl OwnedRequest {
    fn from(request: &Request<'_>) -> Self {
        Self {
            path: request.path.to_owned(),
            wildcard: request.wildcard,
            follow: request.follow,
            include: request.include.map(ToOwned::to_owned),
            required: request.required.map(ToOwned::to_owned),
            exclude: request.exclude.to_vec(),
        }
    }

    fn borrow(&self) -> Request<'_> {
        Request {
            path: &self.path,
            wildcard: self.wildcard,
            follow: self.follow,
            include: self.include.as_deref(),
            required: self.required.as_deref(),
            exclude: &self.exclude,
        }
    }
}
