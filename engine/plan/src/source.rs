//! Where the files come from that a step reads.

use serde::{Deserialize, Serialize};
use slipway_oci::{Digest, Platform, Reference};

/// Index of a stage in [`crate::BuildPlan::stages`].
pub type StageIndex = usize;

/// A tree of files that a step reads, or that a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// Nothing.
    Scratch,
    /// The build context, ignore rules applied.
    Context,
    /// A named context that is a local directory, by its name as the request has it; its own ignore rules applied.
    Named(String),
    /// The finished root of another stage.
    Stage(StageIndex),
    /// The flattened root of an image.
    Image(Box<ImageSource>),
    /// Files whose content is in the plan.
    Inline(Vec<InlineFile>),
    /// One downloaded file, under [`HttpSource::filename`].
    Http(HttpSource),
    /// A checked-out git repository.
    Git(GitSource),
}

/// An image, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// Its name with the digest that was resolved; what `image.base.name` says is this without the digest.
    pub reference: Reference,
    /// Digest of the manifest of `platform` (not of the index that lists it).
    pub digest: Digest,
    /// The platform that was asked for.
    pub platform: Platform,
    /// The OCI image layout that it is in, as the request names it; in a registry when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
}

/// A file whose content is in the plan (a heredoc).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineFile {
    /// Its path below the root of the source, without a leading slash.
    pub path: String,
    /// Its content.
    pub data: String,
    /// Its mode: `0o644`, or `0o755` for a script that is run.
    pub mode: u32,
}

/// A file to download.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpSource {
    /// Where it is.
    pub url: String,
    /// What to call it: the last part of the URL's path, unless the response's `Content-Disposition` names it (then a
    /// destination directory gets that name).
    pub filename: String,
    /// What it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Digest>,
}

/// A git repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GitSource {
    /// What `git fetch` takes.
    pub remote: String,
    /// Branch, tag, ref or commit; the remote's HEAD when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The directory of the repository that becomes the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdir: Option<String>,
    /// A commit (or, for an annotated tag, a tag object) id, or the start of one, that `reference` must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Leave `.git` there.
    pub keep_git_dir: bool,
    /// Check submodules out too.
    pub submodules: bool,
    /// Ask for the commit `checksum` itself; the reference may have moved on.
    pub fetch_by_commit: bool,
}
