//! Random `COPY` and `ADD` instructions.

use std::fmt::Write as _;

use super::generate::State;

fn owner_flags(state: &mut State) -> String {
    let mut flags = String::new();
    if state.random.chance(25) {
        let owners = if state.current.shell {
            &[
                "1:2",
                "www",
                "www:wheel",
                "7",
                "nobody:nobody",
                "0:0",
                "$UID_OF:3",
                ":5",
                "unknown",
                "33:unknown",
            ][..]
        } else {
            &["1:2", "7", "0:0", "5:5"][..]
        };
        let _ = write!(flags, "--chown={} ", state.random.pick(owners));
    }
    if state.random.chance(20) {
        let modes = [
            "0600",
            "755",
            "0444",
            "u=rwX,go=rX",
            "go-w",
            "a+x",
            "4755",
            "u+rwx,g=u",
            "1777",
            "a=rX,u+s",
        ];
        let _ = write!(flags, "--chmod={} ", state.random.pick(&modes));
    }
    if state.random.chance(14) {
        flags.push_str("--link ");
    }
    flags
}

fn destination(state: &mut State) -> &'static str {
    state.random.pick(&[
        "/",
        "/app/",
        "/app",
        ".",
        "./",
        "sub/dir/",
        "/x/y/z",
        "/home/",
        "/etc/",
        "/app/new/",
        "../up/",
        "/m",
        "dest",
        "/pw",
        "/tmp/",
        "$DEST/v/",
        "/var/lib/",
        "/app/./deep/../other/",
        "/etc",
        "/onbuild",
    ])
}

const HEREDOCS: &[&str] = &[
    "<<EOF /heredoc\nhello $A\nEOF",
    "<<\"EOF\" h2\nno $A\nEOF",
    "<<one.txt <<two.txt /two/\n1\none.txt\n2\ntwo.txt",
    "<<-EOF /dash\n\ttabs ${A:-none}\n\t\\$A\n\tEOF",
    "<<EOF a.txt /both/\nfrom here\nEOF",
];

/// Paths of the context, mostly there.
const SOURCES: &[&str] = &[
    "a.txt",
    "run.sh",
    "dir",
    "dir/",
    "dir/sub",
    "empty",
    "dir/link",
    "dir/up",
    ".",
    "with*",
    "di?/o*",
    "nothing*",
    "./b.txt",
    "/dir/one",
    "dir/.",
    "./",
    "dir/../a.txt",
    "special",
    "special/",
    "linked",
    "linked/",
    "specia[l]/*",
    "*",
    "dir/sub/deep/",
    "${A:-a}.txt",
];

const SEVERAL: &[&str] = &[
    "a.txt b.txt",
    "a.txt dir",
    "*.txt",
    "dir/* run.sh",
    "[ab].txt dir/sub",
    "dir empty",
    "special/* dir",
];

const PARENTS: &[&str] = &[
    "dir/sub/three",
    "dir/./sub",
    "./dir/sub/deep",
    "**/*.md",
    "a.txt dir/one",
    "dir/*/three",
    "dir",
    "dir/./sub/deep/four.md",
    "special/sticky",
    "**/four.md dir/two.md",
    "./**/one",
    "dir/sub/../one",
];

const EXCLUDES: &[&str] = &[
    "*.md",
    "sub",
    "**/*.md",
    "one",
    "sub/deep",
    "**",
    "sub --exclude=!sub/three",
    "*/deep",
    "link",
];

/// A `COPY`.
pub(super) fn copy(state: &mut State) -> String {
    let mut flags = owner_flags(state);
    let to = destination(state);
    if state.random.chance(8) {
        return format!("COPY {flags}{}", state.random.pick(HEREDOCS));
    }
    if state.random.chance(12) {
        let _ = write!(flags, "--exclude={} ", state.random.pick(EXCLUDES));
    }
    let earlier = state.stages.len();
    if earlier > 0 && state.random.chance(35) {
        let of = state.random.below(earlier);
        let stage = state.stages[of].clone();
        let from = stage.name.clone().unwrap_or_else(|| of.to_string());
        let path = if stage.paths.is_empty() || state.random.chance(15) {
            "/".to_owned()
        } else {
            stage.paths[state.random.below(stage.paths.len())].clone()
        };
        let parents = if state.random.chance(8) { "--parents " } else { "" };
        return format!("COPY --from={from} {flags}{parents}{path} {to}");
    }
    if state.extra && state.random.chance(25) {
        let path = state.random.pick(&[
            "/",
            "tree",
            "tree/",
            "note.txt",
            "tree/branch",
            "**/*.md",
            "tree/*",
            "etc",
        ]);
        let parents = if state.random.chance(15) { "--parents " } else { "" };
        return format!("COPY --from=extra {flags}{parents}{path} {to}");
    }
    if state.random.chance(6) {
        let path = state
            .random
            .pick(&["/etc/passwd", "/etc", "/bin/sh", "/root", "/tmp", "/usr/bin"]);
        return format!("COPY --from=busybox {flags}{path} {to}");
    }
    if state.random.chance(12) {
        flags.push_str("--parents ");
        return format!("COPY {flags}{} {to}", state.random.pick(PARENTS));
    }
    if state.random.chance(25) {
        return format!("COPY {flags}{} {}", state.random.pick(SEVERAL), as_directory(to));
    }
    if state.random.chance(6) {
        return format!("COPY {flags}[\"with space/x y\", \"{to}\"]");
    }
    state.current.paths.extend(["/app", "/home"].map(str::to_owned));
    format!("COPY {flags}{} {to}", state.random.pick(SOURCES))
}

/// The destination of several sources ends in a slash.
fn as_directory(to: &str) -> String {
    if to.ends_with('/') || to == "." {
        to.to_owned()
    } else {
        format!("{to}/")
    }
}

/// An `ADD`.
pub(super) fn add(state: &mut State) -> String {
    let flags = owner_flags(state);
    let to = destination(state);
    let sources = [
        "archive.tar.gz",
        "archive.tar.gz",
        "other.tar",
        "a.txt",
        "dir",
        "--unpack=false archive.tar.gz",
        "--unpack archive.tar.gz",
        "archive.tar.gz a.txt",
        "*.tar*",
        "--exclude=*.md dir/",
    ];
    let source = state.random.pick(&sources);
    let several = source.contains(' ') && !source.starts_with("--") || source.contains('*');
    let to = if several { as_directory(to) } else { to.to_owned() };
    format!("ADD {flags}{source} {to}")
}
