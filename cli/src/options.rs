//! The flags of `slipway build`, by the names that docker buildx gave them.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// `tty` on a terminal, else `plain`
    Auto,
    /// Live lines
    Tty,
    /// One line an event
    Plain,
    /// One JSON object a line
    Rawjson,
    /// Nothing; the image's id at the end
    Quiet,
}

/// Flags of `slipway build`.
#[derive(Debug, Args)]
pub struct BuildOptions {
    /// Build on this machine, without a cluster
    #[arg(long)]
    pub local: bool,
    /// Build context: a directory, `-` (a tar or a Dockerfile on standard input), a git or an HTTP URL
    #[arg(default_value = ".")]
    pub context: String,
    /// The Dockerfile [default: CONTEXT/Dockerfile]; `-` reads it from standard input
    #[arg(short, long, value_name = "PATH")]
    pub file: Option<String>,
    /// Name of the image; may be given several times
    #[arg(short, long = "tag", value_name = "NAME")]
    pub tags: Vec<String>,
    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Build argument; without a value it is taken from the environment
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    pub build_args: Vec<String>,
    /// Platforms to build for
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Secret for the steps that ask for it: `id=ID,src=FILE` or `id=ID,env=NAME`
    #[arg(long = "secret", value_name = "SPEC")]
    pub secrets: Vec<String>,
    /// SSH agent or keys for the steps that ask for them: `default`, `ID=SOCKET` or `ID=KEY[,KEY]`
    #[arg(long = "ssh", value_name = "SPEC")]
    pub ssh: Vec<String>,
    /// A further context: a directory, `docker-image://`, `oci-layout://DIR[@DIGEST]`, a git or an HTTP URL
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    pub build_contexts: Vec<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Annotation of manifest or index
    #[arg(long = "annotation", value_name = "[LEVEL:]KEY=VALUE")]
    pub annotations: Vec<String>,
    /// Take nothing from the cache
    #[arg(long)]
    pub no_cache: bool,
    /// Take nothing from the cache for these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Take results from this cache too: `type=registry,ref=NAME` or `type=local,src=DIR`
    #[arg(long, value_name = "SPEC")]
    pub cache_from: Vec<String>,
    /// Keep results there too: `type=registry,ref=NAME[,mode=max]` or `type=local,dest=DIR[,mode=max]`
    #[arg(long, value_name = "SPEC")]
    pub cache_to: Vec<String>,
    /// Where the result goes: `type=image|oci|docker|tar|local[,dest=PATH][,…]`, or a directory
    #[arg(short, long = "output", value_name = "SPEC")]
    pub outputs: Vec<String>,
    /// Push the image: the same as `--output type=image,push=true`
    #[arg(long)]
    pub push: bool,
    /// Write the image's id to this file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built, as JSON, to this file
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressMode,
    /// Nothing but the image's id
    #[arg(short, long)]
    pub quiet: bool,
    /// Network of steps: `default`, `none` or `host`
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,
    /// A further line of the steps' /etc/hosts
    #[arg(long = "add-host", value_name = "NAME:IP")]
    pub add_hosts: Vec<String>,
    /// Host name of steps
    #[arg(long)]
    pub hostname: Option<String>,
    /// Size of the steps' /dev/shm: `64m`, bytes without a unit
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// Resource limit of steps
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub ulimits: Vec<String>,
    /// What steps may do beyond the usual: `network.host`, `security.insecure`
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// Check the Dockerfile and build nothing: the same as `--call check`
    #[arg(long)]
    pub check: bool,
    /// Tell about the Dockerfile and build nothing: `outline`, `targets`, `check`; `,format=json` for programs
    #[arg(long, value_name = "CALL")]
    pub call: Option<String>,
    /// Where layers and results are kept between builds
    #[arg(long, value_name = "DIR", env = "SLIPWAY_STORE")]
    pub store: Option<PathBuf>,
    /// Speak plain HTTP to this registry
    #[arg(long = "insecure-registry", value_name = "HOST")]
    pub insecure_registries: Vec<String>,
}

impl BuildOptions {
    /// How progress is shown; `--quiet` wins.
    pub fn progress(&self) -> ProgressMode {
        if self.quiet {
            ProgressMode::Quiet
        } else {
            self.progress
        }
    }
}
