//! What a random Dockerfile reads: the context with its ignore file, archives, a named context, base images.

use serde_json::{Map, Value, json};

use super::random::Random;

/// A time long past, so that it is told from the build's own.
const OLD: i64 = 1_500_000_000;

/// Lines of ignore files.
const IGNORED: &[&str] = &[
    "*.md\n",
    "dir/sub\n!dir/sub/three\n",
    "**/*.md\n!dir/two.md\n",
    "# nothing\n\n/b.txt\n",
    "*\n!dir\n!a.txt\n!*.tar*\n!run.sh\n",
    "dir/*\n!dir/one\n",
    "with*\nempty/\n",
    "**\n!**/*.txt\n!archive.tar.gz\n",
    "./dir/sub/deep\nlinked\n",
    "dir/**/four.md\n!dir/sub/deep\n",
    "?.txt\n!b.txt\n",
    "dir/sub/..\n",
];

/// A context that has something of everything.
pub(super) fn context(random: &mut Random) -> Map<String, Value> {
    let mut files = Map::new();
    let mut put = |path: &str, value: Value| files.insert(path.to_owned(), value);
    put("a.txt", json!({"content": "a\n", "mtime": OLD}));
    put(
        "b.txt",
        json!({"content": "b\n", "mode": "0600", "mtime": OLD + 1}),
    );
    put(
        "run.sh",
        json!({"content": "#!/bin/sh\necho run\n", "mode": "0755", "mtime": OLD + 2}),
    );
    put("dir/one", json!({"content": "1", "mtime": OLD + 3}));
    put(
        "dir/two.md",
        json!({"content": "2", "mode": "0640", "mtime": OLD + 4}),
    );
    put("dir/sub/three", json!({"content": "3", "mtime": OLD + 5}));
    put("dir/sub/deep/four.md", json!({"content": "4", "mtime": OLD + 6}));
    put("dir/link", json!({"symlink": "one", "mtime": OLD + 7}));
    put("dir/up", json!({"symlink": "../a.txt", "mtime": OLD + 7}));
    put("empty", json!({"dir": true, "mode": "0700", "mtime": OLD + 8}));
    put("dir", json!({"dir": true, "mode": "0751", "mtime": OLD + 9}));
    put("dir/sub", json!({"dir": true, "mtime": OLD + 9}));
    put(
        "dir/sub/deep",
        json!({"dir": true, "mode": "0750", "mtime": OLD + 9}),
    );
    put("with space/x y", json!({"content": "space", "mtime": OLD + 10}));
    put("with space", json!({"dir": true, "mtime": OLD + 10}));
    put("archive.tar.gz", archive(random, "gz"));
    if random.chance(85) {
        let compress = random.pick(&["", "gz", "bz2", "xz"]);
        put("other.tar", archive(random, compress));
    }
    if random.chance(75) {
        put(
            "special/setuid",
            json!({"content": "s", "mode": "4711", "mtime": OLD}),
        );
        put(
            "special/first",
            json!({"content": "same", "mode": "0604", "mtime": OLD}),
        );
        put("special/second", json!({"hardlink": "special/first"}));
        put("special/ünï", json!({"content": "u", "mtime": OLD}));
        put(
            "special/sticky",
            json!({"dir": true, "mode": "1777", "mtime": OLD}),
        );
        put("special", json!({"dir": true, "mode": "2755", "mtime": OLD}));
        put("linked", json!({"symlink": "dir/sub", "mtime": OLD}));
    }
    if random.chance(35) {
        put(".dockerignore", json!(random.pick(IGNORED)));
    }
    files
}

/// An archive with the oddities that real ones have.
fn archive(random: &mut Random, compress: &str) -> Value {
    let mut entries = Vec::new();
    if random.chance(25) {
        entries.push(json!({"name": "./", "type": "dir", "mode": "0700", "uid": 9, "gid": 9, "mtime": OLD}));
    }
    entries.push(json!({"name": "in", "type": "dir", "mode": "0711", "uid": 3, "gid": 4, "mtime": OLD}));
    entries.push(json!(
        {"name": "in/file", "content": "from archive", "uid": 5, "gid": 6, "mtime": OLD, "mode": "0604"}
    ));
    entries.push(json!({"name": "in/link", "type": "symlink", "link": "file", "mtime": OLD}));
    let more = [
        json!({"name": "in/hard", "type": "hardlink", "link": "in/file", "mtime": OLD}),
        json!({"name": "in/hard", "type": "hardlink", "link": "in/file", "mtime": OLD + 5, "mode": "4750",
               "uid": 7, "gid": 8}),
        json!({"name": "in/hardlink", "type": "hardlink", "link": "in/link", "mtime": OLD, "uid": 2, "gid": 2}),
        json!({"name": "implied/by/file", "content": "i", "mtime": OLD, "uid": 1, "gid": 1}),
        json!({"name": "/absolute", "content": "abs", "mtime": OLD}),
        json!({"name": "in/file", "content": "again", "mtime": OLD + 1, "mode": "0640"}),
        json!({"name": "etc", "type": "dir", "mode": "0750", "mtime": OLD, "uid": 1, "gid": 2}),
        json!({"name": "setuid", "content": "su", "mode": "6755", "mtime": OLD, "uid": 33, "gid": 33}),
        json!({"name": "in", "type": "dir", "mode": "0755", "mtime": OLD + 2}),
        json!({"name": "abs", "type": "symlink", "link": "/in", "mtime": OLD}),
        json!({"name": "abs/through", "content": "t", "mtime": OLD}),
        json!({"name": ".wh.kept", "content": "no whiteout", "mtime": OLD}),
    ];
    for entry in more {
        if random.chance(22) {
            entries.push(entry);
        }
    }
    let mut value = json!({"mtime": OLD, "tar": entries});
    if !compress.is_empty() {
        value["compress"] = json!(compress);
    }
    value
}

/// The named context `extra`.
pub(super) fn extra() -> Value {
    json!({
        "note.txt": {"content": "note", "mtime": OLD},
        "tree": {"dir": true, "mode": "0700", "mtime": OLD},
        "tree/leaf": {"content": "leaf", "mode": "0640", "mtime": OLD},
        "tree/md.md": {"content": "m", "mtime": OLD},
        "tree/branch": {"dir": true, "mode": "0770", "mtime": OLD},
        "tree/branch/twig": {"content": "twig", "mtime": OLD},
        "etc": {"dir": true, "mode": "0711", "mtime": OLD},
        "etc/extra": {"content": "e", "mtime": OLD},
    })
}

/// The image `onbase`: a base that has instructions for those who build on it.
pub(super) fn base_image(random: &mut Random) -> Value {
    let lines = [
        "ONBUILD ENV ON=$A-base",
        "ONBUILD ARG VERSION=onbuild",
        "ONBUILD COPY a.txt /onbuild/",
        "ONBUILD RUN echo onbuild > /onbuild-run; id -u >> /onbuild-run",
        "ONBUILD WORKDIR sub",
        "ONBUILD LABEL on=build",
        "ONBUILD ADD archive.tar.gz /onbuild/",
        "ONBUILD RUN --mount=target=/ctx,ro ls /ctx | sort > /onbuild-ctx",
        "ONBUILD USER 33",
        "ENV A=from-base",
        "WORKDIR /base/dir",
        "USER www",
        "LABEL base=yes a=base",
        "EXPOSE 7777",
        "VOLUME /basevol",
        "SHELL [\"/bin/sh\", \"-ec\"]",
        "CMD [\"base\"]",
        "ENTRYPOINT [\"/base\"]",
        "HEALTHCHECK CMD true",
        "STOPSIGNAL SIGUSR1",
        "COPY --chmod=0700 . /srv/deep/",
    ];
    let mut dockerfile = String::from("FROM busybox\n");
    for line in lines {
        if random.chance(28) {
            dockerfile.push_str(line);
            dockerfile.push('\n');
        }
    }
    json!({"dockerfile": dockerfile})
}
