//! Keys: what a step's and a stage's result is known by before it exists.
//!
//! ```text
//! base ──▶ root ──step──▶ root ──step──▶ root ──▶ result
//! digest     │      ▲       │      ▲                 ▲
//!            └──────┤       └──────┤                 └── config
//!     instruction, variables, platform, digests of the files that it reads
//! ```
//! A key is a digest over its [`KeyInputs`]. Same key, same result. What is no input, on purpose: the values of secrets,
//! what a cache mount holds, proxies, times of files, labels and the other config of the parent.
//!
//! What a step reads from another stage counts in one of two ways. The *key by stage* uses that stage's own key, so it is known
//! before anything has run. The *key by content* uses the digest of the files themselves, so it can be known only when that
//! stage is done, and is the same when that stage was rebuilt to the same files. [`step`] makes either: by content if the
//! caller knows the digest.

use crate::{
    inputs::Input,
    model::{BuildPlan, Mount, Op, StagePlan, Step},
    source::{ImageSource, Source, StageIndex},
};
use serde::{Deserialize, Serialize};
use slipway_oci::{Digest, Platform};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Part of every key: raise it when a change of the engine makes other results of the same instructions.
const VERSION: &str = "slipway.key.v1";

/// 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    fn of(kind: &str, value: &impl Serialize) -> Self {
        // Plain values of this crate: writing them as JSON cannot fail.
        let json = serde_json::to_string(value).unwrap_or_default();
        Self(
            Digest::of(format!("{VERSION}\n{kind}\n{json}").as_bytes())
                .hex()
                .to_owned(),
        )
    }

    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 40, which tags are made of.
    pub fn short(&self) -> &str {
        &self.0[..40]
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that a step's key is made of, by name, so that it can be told later what has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyInputs {
    /// The root that it works on; none for `COPY --link`, which does not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Key>,
    /// The instruction, normalised: the step's [`Op`] as JSON, without values of variables and without what sources hold.
    pub instruction: String,
    /// The platform that it runs on.
    pub platform: Platform,
    /// The variables that it sees.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// What it reads, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileInput>,
    /// Whether all that it reads is known. If not, the key stands for nothing and must not be looked up.
    pub certain: bool,
}

/// Files that a step reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInput {
    /// For people: `context:/src`, `stage build:/out`.
    pub name: String,
    /// What they are: `content:sha256:…`, `stage:<key>`, `image:sha256:…`.
    pub identity: String,
}

/// What differs between the inputs of two keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// An instruction before it.
    Parent,
    /// The instruction.
    Instruction,
    /// The platform.
    Platform,
    /// The value of a variable, or whether it is there.
    Variable(String),
    /// Files, by the name of [`FileInput`].
    Files(String),
}

impl KeyInputs {
    /// The key.
    pub fn key(&self) -> Key {
        // The names of files are for people: the paths are in the instruction, and a stage's name is no input.
        let files: Vec<&str> = self.files.iter().map(|file| file.identity.as_str()).collect();
        Key::of(
            "step",
            &(
                &self.parent,
                &self.instruction,
                &self.platform,
                &self.variables,
                files,
            ),
        )
    }

    /// What has changed since `before`, nearest cause last: a changed parent explains all that follows from it.
    pub fn changes(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.parent != before.parent {
            changes.push(Change::Parent);
        }
        if self.platform != before.platform {
            changes.push(Change::Platform);
        }
        if self.instruction != before.instruction {
            changes.push(Change::Instruction);
        }
        let names: BTreeSet<&String> = self.variables.keys().chain(before.variables.keys()).collect();
        for name in names {
            if self.variables.get(name) != before.variables.get(name) {
                changes.push(Change::Variable(name.clone()));
            }
        }
        for (at, file) in self.files.iter().enumerate() {
            if before
                .files
                .get(at)
                .is_none_or(|old| old.identity != file.identity)
            {
                changes.push(Change::Files(file.name.clone()));
            }
        }
        changes
    }
}

/// The keys of a plan by stage: `stages[i]` belongs to [`BuildPlan::stages`]`[i]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// One for each stage.
    pub stages: Vec<StageKeys>,
}

/// The keys of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageKeys {
    /// The root that it starts from.
    pub base: Key,
    /// One for each of its steps; none for a step that makes no layer.
    pub steps: Vec<Option<StepKey>>,
    /// Its files when it is done: what `COPY --from` reads.
    pub root: Key,
    /// Its result: files and config.
    pub result: Key,
    /// Whether all of it is known; if not, the result must not be looked up.
    pub certain: bool,
}

/// The key of a step that makes a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepKey {
    /// What its layer is found by.
    pub key: Key,
    /// The root after it: the parent of the next one. The same as `key`, but for `COPY --link`.
    pub root: Key,
    /// What the key is made of.
    pub inputs: KeyInputs,
}

/// The keys of all stages. `contents` gives the digest of the content that an input selects (path, type, mode, owner,
/// bytes; no times), or of a git source the commit, where the caller knows it.
///
/// An image and a stage need none; a context, a named context and a download without a checksum do. Without it the
/// keys that depend on it are not [`KeyInputs::certain`].
pub fn keys(plan: &BuildPlan, contents: &dyn Fn(&Input) -> Option<Digest>) -> Keys {
    let mut stages: Vec<StageKeys> = Vec::with_capacity(plan.stages.len());
    for stage in &plan.stages {
        let (base, mut certain) = base_key(stage, &stages, contents);
        let mut root = base.clone();
        let mut steps = Vec::with_capacity(stage.steps.len());
        for step_plan in &stage.steps {
            let key = step(plan, &stages, &root, &stage.platform, step_plan, contents);
            if let Some(key) = &key {
                certain &= key.inputs.certain;
                root = key.root.clone();
            }
            steps.push(key);
        }
        let result = Key::of("result", &(&root, &stage.config));
        stages.push(StageKeys {
            base,
            steps,
            root,
            result,
            certain,
        });
    }
    Keys { stages }
}

/// The key of the root that a stage starts from, and whether it is known.
fn base_key(
    stage: &StagePlan,
    done: &[StageKeys],
    contents: &dyn Fn(&Input) -> Option<Digest>,
) -> (Key, bool) {
    match (&stage.base, stage.base_input()) {
        (Source::Stage(base), _) => match done.get(*base) {
            Some(base) => (base.root.clone(), base.certain),
            None => (Key::of("base", &"missing"), false),
        },
        (Source::Image(image), _) => (image_key(image), true),
        (_, Some(input)) => {
            let (identity, certain) = identity(done, &input, contents);
            (Key::of("base", &identity), certain)
        }
        (_, None) => (Key::of("base", &"scratch"), true),
    }
}

/// The key of an image's files.
pub fn image_key(image: &ImageSource) -> Key {
    Key::of("base", &format!("image:{}", image.digest))
}

/// The key of one step on the root `parent`; none if it makes no layer. `done` are the keys of the stages before its own.
/// What `contents` knows of a stage counts by content, the rest by stage.
pub fn step(
    plan: &BuildPlan,
    done: &[StageKeys],
    parent: &Key,
    platform: &Platform,
    step: &Step,
    contents: &dyn Fn(&Input) -> Option<Digest>,
) -> Option<StepKey> {
    let linked = match &step.op {
        Op::Metadata => return None,
        Op::Copy(copy) => copy.link,
        Op::Run(_) | Op::Mkdir(_) => false,
    };
    let mut certain = true;
    let files = step
        .inputs()
        .iter()
        .map(|input| {
            let (identity, known) = identity(done, input, contents);
            certain &= known;
            FileInput {
                name: describe(plan, input),
                identity,
            }
        })
        .collect();
    let (instruction, variables) = normalize(&step.op);
    let inputs = KeyInputs {
        parent: (!linked).then(|| parent.clone()),
        instruction,
        platform: platform.clone(),
        variables,
        files,
        certain,
    };
    let key = inputs.key();
    let root = if linked {
        Key::of("link", &(parent, &key))
    } else {
        key.clone()
    };
    Some(StepKey { key, root, inputs })
}

/// What a part of a source is, in one word, and whether it is known.
fn identity(
    done: &[StageKeys],
    input: &Input,
    contents: &dyn Fn(&Input) -> Option<Digest>,
) -> (String, bool) {
    if let Some(digest) = contents(input) {
        return (format!("content:{digest}"), true);
    }
    match &input.source {
        Source::Stage(stage) => match done.get(*stage) {
            Some(stage) => (format!("stage:{}", stage.root), stage.certain),
            None => ("stage:missing".to_owned(), false),
        },
        Source::Image(image) => (format!("image:{}", image.digest), true),
        Source::Http(http) => match &http.checksum {
            Some(checksum) => (format!("http:{checksum}:{}", http.filename), true),
            None => (format!("http:{}", http.url), false),
        },
        Source::Git(git) => match git.checksum.as_deref().filter(|commit| commit.len() >= 40) {
            Some(commit) => {
                let shape = (&git.remote, &git.subdir, git.keep_git_dir, git.submodules);
                (format!("git:{commit}:{}", Key::of("git", &shape)), true)
            }
            None => (format!("git:{}", git.remote), false),
        },
        Source::Scratch | Source::Inline(_) => ("plan".to_owned(), true),
        Source::Context | Source::Named(_) => ("unknown".to_owned(), false),
    }
}

fn describe(plan: &BuildPlan, input: &Input) -> String {
    let path = &input.selection.path;
    match &input.source {
        Source::Context => format!("context:{path}"),
        Source::Named(name) => format!("context {name}:{path}"),
        Source::Stage(stage) => {
            let name = plan.stages.get(*stage).map_or("?", |stage| stage.name.as_str());
            format!("stage {name}:{path}")
        }
        Source::Image(image) => format!("image {}:{path}", image.reference.familiar()),
        Source::Http(http) => http.url.clone(),
        Source::Git(git) => git.remote.clone(),
        Source::Scratch | Source::Inline(_) => "plan".to_owned(),
    }
}

/// The instruction without what counts by itself (variables, sources) or not at all (proxies), and the variables.
fn normalize(op: &Op) -> (String, BTreeMap<String, String>) {
    let mut op = op.clone();
    let mut variables = BTreeMap::new();
    // What is in a source counts by its identity; which kind of source it is does not.
    let blank = |source: &mut Source| {
        if !matches!(source, Source::Inline(_)) {
            *source = Source::Scratch;
        }
    };
    match &mut op {
        Op::Run(run) => {
            run.proxy_env.clear();
            for entry in &mut run.env {
                let name = match entry.split_once('=') {
                    Some((name, value)) => {
                        variables.insert(name.to_owned(), value.to_owned());
                        name.to_owned()
                    }
                    None => entry.clone(),
                };
                // The order stays: `env` prints it.
                *entry = name;
            }
            for mount in &mut run.mounts {
                if let Mount::Bind { source, .. } | Mount::Cache { source, .. } = mount {
                    blank(source);
                }
            }
        }
        Op::Copy(copy) => copy
            .sources
            .iter_mut()
            .for_each(|source| blank(&mut source.source)),
        Op::Metadata | Op::Mkdir(_) => {}
    }
    (serde_json::to_string(&op).unwrap_or_default(), variables)
}

/// For each stage, whether its files may be others than those that were kept under its key: it ignores the cache, or it
/// reads from a stage of which that is so. What is kept under such a key is not to be taken for the stage's result.
pub fn fresh(plan: &BuildPlan) -> Vec<bool> {
    let mut fresh: Vec<bool> = Vec::with_capacity(plan.stages.len());
    for stage in &plan.stages {
        let is = |index: &usize| fresh.get(*index).copied().unwrap_or_default();
        let base = matches!(&stage.base, Source::Stage(base) if is(base));
        let reads = stage.steps.iter().any(|step| step.stages().iter().any(is));
        fresh.push(stage.no_cache || base || reads);
    }
    fresh
}

/// The key of a step, for the one who runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunKey {
    /// What its layer is kept under.
    pub key: Key,
    /// Whether what is kept under it may be taken; see [`fresh`].
    pub usable: bool,
}

/// The keys of a stage's steps for the one who runs it, one for each step; none for a step that makes no layer or
/// whose key is not certain.
pub fn run_keys(plan: &BuildPlan, keys: &Keys, stage: StageIndex) -> Vec<Option<RunKey>> {
    let (Some(stage_plan), Some(stage_keys)) = (plan.stages.get(stage), keys.stages.get(stage)) else {
        return Vec::new();
    };
    let fresh = fresh(plan);
    let is_fresh = |index: &usize| fresh.get(*index).copied().unwrap_or_default();
    let mut parent = stage_plan.no_cache || matches!(&stage_plan.base, Source::Stage(base) if is_fresh(base));
    let steps = stage_plan.steps.iter().zip(&stage_keys.steps);
    steps
        .map(|(step, step_key)| {
            let reads = step.stages().iter().any(is_fresh);
            let step_key = step_key.as_ref()?;
            let linked = step_key.inputs.parent.is_none();
            let usable = !stage_plan.no_cache && !reads && (linked || !parent);
            parent |= reads;
            step_key.inputs.certain.then(|| RunKey {
                key: step_key.key.clone(),
                usable,
            })
        })
        .collect()
}
