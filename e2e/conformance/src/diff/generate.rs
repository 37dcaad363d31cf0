//! Makes a random case: a context, a Dockerfile in pieces, build arguments. Mostly valid, so that results are compared
//! and not refusals; a few pieces fail on purpose, which both builders must agree on.

use serde_json::{Map, Value, json};

use super::{instructions, random::Random};

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
    /// Variables of the current stage.
    pub(super) variables: Vec<String>,
    /// Line continuation of this file.
    pub(super) escape: char,
}

/// The case of a seed.
pub(super) fn recipe(seed: u64) -> Recipe {
    let mut state = State {
        random: Random::new(seed),
        stages: Vec::new(),
        current: Stage::default(),
        variables: Vec::new(),
        escape: '\\',
    };
    let mut head = String::new();
    if state.random.chance(6) {
        state.escape = '`';
        head.push_str("# escape=`\n");
    }
    if state.random.chance(20) {
        head.push_str("# a comment about it\n\n");
    }
    let mut args = Map::new();
    let global = state.random.chance(40);
    if global {
        head.push_str("ARG BASE=busybox\nARG VERSION=1.2-rc3 OTHER\n");
        if state.random.chance(40) {
            args.insert(
                "VERSION".into(),
                json!(state.random.pick(&["9", "a b", "$x", "1.2.3"])),
            );
        }
    }
    if state.random.chance(30) {
        args.insert(
            "OPTION".into(),
            json!(state.random.pick(&["", "given", "with space", "a/b"])),
        );
    }
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
    let mut more = Map::new();
    if state.random.chance(12) {
        more.insert("labels".into(), json!({"by.request": "yes", "version": "2"}));
    }
    if state.random.chance(8) {
        more.insert(
            "platform".into(),
            json!(state.random.pick(&["linux/arm64", "linux/arm/v7", "linux/amd64"])),
        );
    }
    let files = context(&mut state.random);
    let runs = pieces.iter().any(|piece| piece.contains("RUN"));
    if runs {
        // Without an emulator a foreign platform's programs are started as they are: the base has none of its own.
        more.remove("platform");
    }
    more.insert("secrets".into(), json!({"token": "s3cret"}));
    Recipe {
        head,
        pieces,
        files,
        args,
        more,
    }
}

fn from(state: &mut State, at: usize, global: bool) -> String {
    let random = &mut state.random;
    let earlier = state.stages.len();
    let (base, mut stage) = match random.weighted(&[60, 20, if earlier > 0 { 30 } else { 0 }]) {
        0 => {
            let base = if global && random.chance(40) {
                "$BASE"
            } else {
                "busybox"
            };
            (
                base.to_owned(),
                Stage {
                    shell: true,
                    paths: instructions::base_paths(),
                    ..Stage::default()
                },
            )
        }
        1 => ("scratch".to_owned(), Stage::default()),
        _ => {
            let of = random.below(earlier);
            match state.stages[of].name.clone() {
                Some(name) => (name, state.stages[of].clone()),
                None => ("scratch".to_owned(), Stage::default()),
            }
        }
    };
    stage.name = random.chance(75).then(|| format!("stage{at}"));
    let keyword = random.pick(&["FROM", "FROM", "FROM", "from"]);
    let name = stage
        .name
        .as_ref()
        .map(|name| format!(" {} {name}", random.pick(&["AS", "as"])))
        .unwrap_or_default();
    state.current = stage;
    state.variables = vec!["PATH".to_owned()];
    format!("{keyword} {base}{name}\n")
}

/// A context that has something of everything.
fn context(random: &mut Random) -> Map<String, Value> {
    let mut files = Map::new();
    let mut put = |path: &str, value: Value| files.insert(path.to_owned(), value);
    let old = 1_500_000_000;
    put("a.txt", json!({"content": "a\n", "mtime": old}));
    put(
        "b.txt",
        json!({"content": "b\n", "mode": "0600", "mtime": old + 1}),
    );
    put(
        "run.sh",
        json!({"content": "#!/bin/sh\necho run\n", "mode": "0755", "mtime": old + 2}),
    );
    put("dir/one", json!({"content": "1", "mtime": old + 3}));
    put(
        "dir/two.md",
        json!({"content": "2", "mode": "0640", "mtime": old + 4}),
    );
    put("dir/sub/three", json!({"content": "3", "mtime": old + 5}));
    put("dir/sub/deep/four.md", json!({"content": "4", "mtime": old + 6}));
    put("dir/link", json!({"symlink": "one", "mtime": old + 7}));
    put("dir/up", json!({"symlink": "../a.txt", "mtime": old + 7}));
    put("empty", json!({"dir": true, "mode": "0700", "mtime": old + 8}));
    put("dir", json!({"dir": true, "mode": "0751", "mtime": old + 9}));
    put("dir/sub", json!({"dir": true, "mtime": old + 9}));
    put(
        "dir/sub/deep",
        json!({"dir": true, "mode": "0750", "mtime": old + 9}),
    );
    put("with space/x y", json!({"content": "space", "mtime": old + 10}));
    put("with space", json!({"dir": true, "mtime": old + 10}));
    put(
        "archive.tar.gz",
        json!({"compress": "gz", "mtime": old, "tar": [
        {"name": "in", "type": "dir", "mode": "0711", "uid": 3, "gid": 4, "mtime": old},
        {"name": "in/file", "content": "from archive", "uid": 5, "gid": 6, "mtime": old, "mode": "0604"},
        {"name": "in/link", "type": "symlink", "link": "file", "mtime": old},
        {"name": "in/hard", "type": "hardlink", "link": "in/file", "mtime": old}]}),
    );
    if random.chance(30) {
        let lines = [
            "*.md\n",
            "dir/sub\n!dir/sub/three\n",
            "**/*.md\n!dir/two.md\n",
            "# nothing\n\n/b.txt\n",
            "*\n!dir\n!a.txt\n!archive.tar.gz\n!run.sh\n",
            "dir/*\n!dir/one\n",
            "with*\nempty/\n",
        ];
        put(".dockerignore", json!(random.pick(&lines)));
    }
    files
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::Case;

    #[test]
    fn a_seed_gives_one_case_and_all_of_them_are_in_the_format() {
        let mut words = BTreeSet::new();
        for seed in 0..400 {
            let text = recipe(seed).case(seed).to_string();
            assert_eq!(text, recipe(seed).case(seed).to_string());
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
    }

    #[test]
    fn pieces_can_be_left_out() {
        let recipe = recipe(1);
        assert_eq!(recipe.without(0).len(), recipe.len() - 1);
    }
}
