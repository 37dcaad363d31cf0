//! The build plan: what the executor runs. Everything is resolved; nothing in it refers to the syntax tree.
//!
//! ```text
//! BuildPlan
//! ├─ stages  [StagePlan]      each after those that it reads from; one for each platform where it depends on one
//! │          ├─ base           scratch, a stage, an image, a tree of files
//! │          ├─ steps [Step]   one for each instruction; an Op that makes a layer, or none
//! │          └─ config         the image's config when all steps are done, without diff ids and times
//! ├─ results [PlanResult]      one stage for each requested platform
//! └─ gates   [StageIndex]      stages to be done before the results count
//! ```

use crate::source::{Source, StageIndex};
use serde::{Deserialize, Serialize};
use slipway_dockerfile::{Span, lint::Warning};
use slipway_oci::{ImageConfig, Platform};
use std::collections::BTreeMap;

/// Version of the plan's JSON; a runner refuses another.
pub const PLAN_VERSION: u32 = 1;

/// The proxy variables that reach every `RUN` in both cases, given as build arguments or by a pod's environment.
pub const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// All that is to be done for a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildPlan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// The Dockerfile's name, for messages.
    pub dockerfile: String,
    /// The Dockerfile's text, for excerpts.
    pub source: String,
    /// The needed stages, each after those that it reads from.
    pub stages: Vec<StagePlan>,
    /// The stage that is the result for each requested platform, in the order of the request.
    pub results: Vec<PlanResult>,
    /// The stages of the request's gates, of every platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<StageIndex>,
    /// What the build checks found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// `SOURCE_DATE_EPOCH` in seconds since 1970: the time of all history entries of this build and of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

/// Which stage is the image of a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanResult {
    /// The requested platform.
    pub platform: Platform,
    /// Its stage.
    pub stage: StageIndex,
    /// The image's config: the stage's, with the labels of the request and the requested platform. Its `rootfs.diff_ids`
    /// are the base's; times are absent where the executor has to fill them.
    pub config: ImageConfig,
    /// The image that the chain of stages starts from, for the `org.opencontainers.image.base.*` annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<crate::source::ImageSource>,
    /// Annotations of the image's manifest. The planner gives none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StagePlan {
    /// Unique in the plan and fit for a Kubernetes label value: `build-linux-amd64`.
    pub id: String,
    /// Its name in the Dockerfile, or `stage-N`.
    pub name: String,
    /// Position of its `FROM` in the Dockerfile, from 0.
    pub index: usize,
    /// The platform that its programs are for.
    pub platform: Platform,
    /// What it starts from.
    pub base: Source,
    /// Where its `FROM` stands.
    pub span: Span,
    /// The `FROM` line as written, continuation lines joined.
    pub instruction: String,
    /// Its instructions, those of the base's ONBUILD first.
    pub steps: Vec<Step>,
    /// The config that its base brings: the executor starts from its history and diff ids.
    pub base_config: ImageConfig,
    /// The config after the last step: history entries of all steps included, `rootfs` still the base's. A history
    /// entry without `created` gets the time of its layer (or, with no layer, of the layer before it).
    pub config: ImageConfig,
    /// Do not look its steps up in the cache.
    pub no_cache: bool,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What to do.
    pub op: Op,
    /// Where it stands. For an instruction from a base's ONBUILD: the `FROM`.
    pub span: Span,
    /// As written, continuation lines joined.
    pub instruction: String,
    /// For people: keyword in upper case, variables replaced, `[build 2/5]` not included.
    pub display: String,
    /// It comes from the base's ONBUILD.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub onbuild: bool,
    /// Position of its entry in the history of [`StagePlan::config`]; ONBUILD makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<usize>,
    /// Its number among the steps that make a layer, counted, from 1 (the `2` of `[build 2/5]`), if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

impl Step {
    /// Whether it makes a layer.
    pub fn makes_layer(&self) -> bool {
        !matches!(self.op, Op::Metadata)
    }
}

/// What a step does to the stage's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Op {
    /// Nothing: only the config changes.
    Metadata,
    /// `RUN`
    Run(Box<RunOp>),
    /// `COPY` and `ADD`
    Copy(CopyOp),
    /// `WORKDIR`: make a directory and its missing parents, mode 0755. It makes a layer even if the directory is there.
    Mkdir(MkdirOp),
}

/// `WORKDIR`'s directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MkdirOp {
    /// Absolute.
    pub path: String,
    /// Who owns what is made (`USER`): name or id, with group after `:`; root when absent. Names are looked up in the
    /// stage's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Modification time of what is made, in seconds since 1970 (`SOURCE_DATE_EPOCH`); now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunOp {
    /// The program and its arguments; the shell is in it for the shell form.
    pub args: Vec<String>,
    /// `NAME=value`, in order: the config's environment and the build arguments in scope. Secrets and proxies are not in it.
    pub env: Vec<String>,
    /// Proxy variables for the step alone, not part of any key: `HTTP_PROXY` and `http_proxy` and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy_env: Vec<String>,
    /// Where it starts; absolute.
    pub cwd: String,
    /// Who runs it: name or id, with group after `:`; root when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Its mounts, in order of the instruction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Its network.
    #[serde(default)]
    pub network: Network,
    /// Run without a sandbox; granted by the request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// The host name; the executor's default (`buildkitsandbox`) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Further lines of `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_hosts: Vec<HostEntry>,
    /// Bytes of `/dev/shm`; the executor's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    /// Resource limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
}

/// A step's network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// The pod's (or, for a local build, the builder's) network.
    #[default]
    Default,
    /// Only a loopback interface.
    None,
    /// The host's; granted by the request.
    Host,
}

/// A line for `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEntry {
    /// The name.
    pub host: String,
    /// Its address.
    pub ip: String,
}

/// A resource limit: `setrlimit`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ulimit {
    /// `nofile`, `nproc`, … without `RLIMIT_`, in lower case.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// A mount of a `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mount {
    /// Files of a source.
    #[serde(rename_all = "camelCase")]
    Bind {
        /// Absolute mount point.
        target: String,
        /// The files.
        source: Source,
        /// The path in the source, absolute; `/` for all of it. A file or a directory.
        path: String,
        /// If not, writes go to a layer of the mount that is thrown away.
        readonly: bool,
    },
    /// A directory that outlives the build.
    #[serde(rename_all = "camelCase")]
    Cache {
        /// Absolute mount point.
        target: String,
        /// What caches are told apart by.
        id: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// No writes.
        readonly: bool,
        /// What it holds when it is new.
        source: Source,
        /// The path in the source that is mounted, absolute.
        path: String,
        /// Mode of the directory when it is made for the option; 0755 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Owner of the directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        /// Group of the directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gid: Option<u32>,
    },
    /// Memory.
    #[serde(rename_all = "camelCase")]
    Tmpfs {
        /// Absolute mount point.
        target: String,
        /// Bytes; the kernel's default when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// No writes.
        readonly: bool,
    },
    /// A build secret, as a file, a variable or both.
    #[serde(rename_all = "camelCase")]
    Secret {
        /// Its id.
        id: String,
        /// Fail without it.
        required: bool,
        /// Absolute path of the file, if it is to be one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// The variable, if it is to be one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        env: Option<String>,
        /// Mode of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// The socket of an SSH agent; `SSH_AUTH_SOCK` names the first one.
    #[serde(rename_all = "camelCase")]
    Ssh {
        /// Its id (`default`).
        id: String,
        /// Fail without it.
        required: bool,
        /// Absolute path of the socket; `/run/buildkit/ssh_agent.N` (N counts the ssh mounts of the step from 0) when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// Mode of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
    },
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sharing {
    /// Several steps.
    #[default]
    Shared,
    /// One step; a second gets a fresh directory.
    Private,
    /// One step; a second waits.
    Locked,
}

impl Sharing {
    /// As it is written in a Dockerfile.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }
}

impl std::str::FromStr for Sharing {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Shared, Self::Private, Self::Locked]
            .into_iter()
            .find(|sharing| sharing.as_str() == text)
            .ok_or(())
    }
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyOp {
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Absolute destination. One that ends in `/` (or `/.`) is a directory.
    pub dest: String,
    /// Owner: name or id, with group after `:`; names are looked up in the stage's root. Root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chown: Option<String>,
    /// Mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chmod: Option<Chmod>,
    /// Make the layer without looking at what is below it (`--link`); then it does not depend on the parent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub link: bool,
    /// Ignore patterns, relative to each copied directory; they do not filter sources that are files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// `ADD`, for messages.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub add: bool,
}

/// `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Chmod {
    /// All twelve bits.
    Octal(u32),
    /// `u=rwX,go=rX`: applied to the source's mode.
    Symbolic(String),
}

/// One source of a `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopySource {
    /// Where it is.
    pub source: Source,
    /// The path in it, absolute. With `parents`: the pivot, below which [`CopySource::include`] selects.
    pub path: String,
    /// `path` may have `*`, `?` and `[…]`, which match within one level; no match is no error, and copies nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wildcard: bool,
    /// Follow symbolic links of the source itself, within the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// A directory is copied as its contents (not so for git, where the root's contents are copied anyway).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub contents_only: bool,
    /// Unpack it if it is a tar archive, compressed or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unpack: bool,
    /// `--parents`: copy what matches below `path` (here `**` is any number of levels) and keep its directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<String>,
    /// `--parents`: this path must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<String>,
}
