//! Makes a random case: a context, a Dockerfile in pieces, build arguments. Mostly valid, so that results are compared
//! and not refusals; a few pieces fail on purpose, which both builders must agree on.

use serde_json::{Map, Value, json};

use super::{inputs, instructions, random::Random};

/// A case in pieces that can be left out one by one.
#[derive(Clone)]
pub(super) struct Recipe {
    /// Directives and global arguments: always kept.
    head: String,
    /// The Dockerfile's pieces: a FROM or an instruction each.
    pieces: Vec<String>,
    files: Map<String, Value>,
    args: Map<String, Value>,
    /// Further keys of the case.
    more: Map<String, Value>,
}

impl Recipe {
    /// Number of pieces.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The same without one piece.
    pub(super) fn without(&self, at: usize) -> Self {
        let mut smaller = self.clone();
        smaller.pieces.remove(at);
        smaller
    }

    /// As a case of the format.
    pub(super) fn case(&self, seed: u64) -> Value {
        let mut case = self.more.clone();
        case.insert("id".into(), json!(format!("found-{seed}")));
        case.insert("area".into(), json!("FOUND"));
        case.insert("files".into(), Value::Object(self.files.clone()));
        case.insert(
            "dockerfile".into(),
            json!(format!("{}{}", self.head, self.pieces.concat())),
        );
        if !self.args.is_empty() {
            case.insert("args".into(), Value::Object(self.args.clone()));
        }
        Value::Object(case)
    }
}

/// What the generator remembers of a stage.
#[derive(Clone, Default)]
pub(super) struct Stage {
    pub(super) name: Option<String>,
    /// Has a shell, so RUN may work.
    pub(super) shell: bool,
    /// Absolute paths that are believed to exist.
    pub(super) paths: Vec<String>,
}

/// State of the generator while it writes.
pub(super) struct State {
    pub(super) random: Random,
    pub(super) stages: Vec<Stage>,
    pub(super) current: Stage,
    /// Line continuation of this file.
    pub(super) escape: char,
    /// There is the named context `extra`.
    pub(super) extra: bool,
    /// There is the image `onbase`.
    pub(super) onbase: bool,
    /// For platforms that cannot run here: no RUN.
    pub(super) foreign: bool,
}

/// The case of a seed.
pub(super) fn recipe(seed: u64) -> Recipe {
    let mut random = Random::new(seed);
    let foreign = random.chance(12);
    let mut state = State {
        extra: random.chance(30),
        onbase: !foreign && random.chance(25),
        random,
        stages: Vec::new(),
        current: Stage::default(),
        escape: '\\',
        foreign,
    };
    let mut args = Map::new();
    let (head, global) = head(&mut state, &mut args);
    let mut pieces = Vec::new();
    let count = 1 + state.random.weighted(&[35, 35, 20, 10]);
    for at in 0..count {
        pieces.push(from(&mut state, at, global));
        let length = 1 + state.random.below(8);
        for _ in 0..length {
            pieces.push(instructions::any(&mut state));
        }
        let done = std::mem::take(&mut state.current);
        state.stages.push(done);
    }
    let more = more(&mut state);
    let files = inputs::context(&mut state.random);
    Recipe {
        head,
        pieces,
        files,
        args,
        more,
    }
}

/// Directives, comments and global arguments, with the build arguments; whether there are global ones.
fn head(state: &mut State, args: &mut Map<String, Value>) -> (String, bool) {
    let mut head = String::new();
    if state.random.chance(6) {
        state.escape = '`';
        head.push_str("# escape=`\n");
    }
    if state.random.chance(20) {
        head.push_str("# a comment about it\n\n");
    }
    let global = state.random.chance(40);
    if global {
        head.push_str("ARG BASE=busybox\nARG VERSION=1.2-rc3 OTHER\n");
        if state.random.chance(30) {
            head.push_str("ARG SUFFIX=${VERSION%-*} EMPTY=\n");
        }
        if state.random.chance(40) {
            args.insert(
                "VERSION".into(),
                json!(state.random.pick(&["9", "a b", "$x", "1.2.3", "\"q\""])),
            );
        }
    }
    if state.random.chance(30) {
        args.insert(
            "OPTION".into(),
            json!(state.random.pick(&["", "given", "with space", "a/b", "${A}"])),
        );
    }
    if state.random.chance(8) {
        args.insert("SOURCE_DATE_EPOCH".into(), json!("1600000000"));
    }
    if state.random.chance(8) {
        args.insert("HTTP_PROXY".into(), json!("http://127.0.0.1:1"));
    }
    (head, global)
}

/// The keys of a case beside its files, arguments and Dockerfile.
fn more(state: &mut State) -> Map<String, Value> {
    let mut more = Map::new();
    let random = &mut state.random;
    if random.chance(12) {
        more.insert("labels".into(), json!({"by.request": "yes", "version": "2"}));
    }
    if state.foreign {
        let platforms = [
            "linux/arm64",
            "linux/arm/v7",
            "linux/amd64",
            "linux/amd64,linux/arm64",
            "linux/arm64,linux/riscv64,linux/amd64",
        ];
        more.insert("platform".into(), json!(random.pick(&platforms)));
    }
    if state.stages.len() > 1 && random.chance(12) {
        let named: Vec<&String> = state
            .stages
            .iter()
            .filter_map(|stage| stage.name.as_ref())
            .collect();
        if !named.is_empty() {
            more.insert("target".into(), json!(named[random.below(named.len())]));
        }
    }
    let mut contexts = Map::new();
    if state.extra {
        contexts.insert("extra".into(), inputs::extra());
        // A context with a stage's name stands in for the stage.
        if state.stages.len() > 1 && random.chance(10) {
            contexts.insert("stage0".into(), inputs::extra());
            // Of an image that is nothing but a folder BuildKit knows the platform only when it is told.
            more.entry("platform").or_insert(json!("linux/amd64"));
        }
    }
    if !contexts.is_empty() {
        more.insert("contexts".into(), Value::Object(contexts));
    }
    if state.onbase {
        more.insert("images".into(), json!({"onbase": inputs::base_image(random)}));
    }
    if random.chance(6) {
        more.insert(
            "dockerfile_files".into(),
            json!({"Dockerfile.dockerignore": "*.md\ndir/sub\n"}),
        );
    }
    more.insert("secrets".into(), json!({"token": "s3cret"}));
    more
}

fn from(state: &mut State, at: usize, global: bool) -> String {
    let earlier = state.stages.len();
    let foreign = state.foreign;
    let random = &mut state.random;
    let weights = [
        60,
        20,
        if earlier > 0 { 30 } else { 0 },
        if state.onbase { 60 } else { 0 },
        if state.extra { 8 } else { 0 },
    ];
    let shell = || Stage {
        shell: !foreign,
        paths: instructions::base_paths(),
        ..Stage::default()
    };
    let (base, mut stage) = match random.weighted(&weights) {
        0 if global && random.chance(40) => ("$BASE".to_owned(), shell()),
        0 => ("busybox".to_owned(), shell()),
        1 => ("scratch".to_owned(), Stage::default()),
        2 => {
            let of = random.below(earlier);
            match state.stages[of].name.clone() {
                Some(name) => (name, state.stages[of].clone()),
                None => ("scratch".to_owned(), Stage::default()),
            }
        }
        3 => ("onbase".to_owned(), shell()),
        _ => (
            "extra".to_owned(),
            Stage {
                paths: vec!["/tree".to_owned(), "/note.txt".to_owned()],
                ..Stage::default()
            },
        ),
    };
    stage.name = random.chance(75).then(|| format!("stage{at}"));
    let keyword = random.pick(&["FROM", "FROM", "FROM", "from"]);
    let platform = if random.chance(6) {
        random.pick(&["--platform=$BUILDPLATFORM ", "--platform=${TARGETPLATFORM} "])
    } else {
        ""
    };
    let name = stage
        .name
        .as_ref()
        .map(|name| format!(" {} {name}", random.pick(&["AS", "as"])))
        .unwrap_or_default();
    state.current = stage;
    format!("{keyword} {platform}{base}{name}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::Case;

    #[test]
    fn a_seed_gives_one_case_and_all_of_them_are_in_the_format() {
        let mut words = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for seed in 0..400 {
            let recipe_of = recipe(seed).case(seed);
            let text = recipe_of.to_string();
            assert_eq!(text, recipe(seed).case(seed).to_string());
            keys.extend(recipe_of.as_object().unwrap().keys().cloned());
            let case = Case::parse(&text).unwrap();
            for line in case.first.dockerfile.unwrap().lines() {
                words.insert(line.split_whitespace().next().unwrap_or_default().to_uppercase());
            }
        }
        for instruction in
            "FROM RUN COPY ADD ENV ARG WORKDIR USER LABEL EXPOSE VOLUME ENTRYPOINT CMD SHELL HEALTHCHECK \
                            STOPSIGNAL ONBUILD MAINTAINER"
                .split_whitespace()
        {
            assert!(words.contains(instruction), "no case has {instruction}");
        }
        for key in [
            "contexts",
            "images",
            "platform",
            "target",
            "labels",
            "dockerfile_files",
        ] {
            assert!(keys.contains(key), "no case has {key}");
        }
    }

    #[test]
    fn pieces_can_be_left_out() {
        let recipe = recipe(1);
        assert_eq!(recipe.without(0).len(), recipe.len() - 1);
    }
}
