//! One random instruction at a time.

use std::fmt::Write as _;

use super::generate::State;

/// Paths of the base image.
pub(super) fn base_paths() -> Vec<String> {
    ["/bin/busybox", "/etc/passwd", "/etc", "/usr/bin", "/home"]
        .map(str::to_owned)
        .to_vec()
}

/// An instruction with its line end.
pub(super) fn any(state: &mut State) -> String {
    let shell = if state.current.shell { 26 } else { 1 };
    let weights = [shell, 24, 8, 10, 6, 8, 5, 5, 3, 3, 4, 4, 2, 2, 2, 3, 1, 5];
    let text = match state.random.weighted(&weights) {
        0 => run(state),
        1 => copy(state),
        2 => add(state),
        3 => env(state),
        4 => arg(state),
        5 => workdir(state),
        6 => user(state),
        7 => label(state),
        8 => format!(
            "EXPOSE {}",
            state
                .random
                .pick(&["80", "80/tcp 443/udp", "8000-8003", "$PORT 53/udp", "3000/sctp"])
        ),
        9 => format!(
            "VOLUME {}",
            state
                .random
                .pick(&["/data", "[\"/v 1\", \"/v2\"]", "/data /var/log", "/w"])
        ),
        10 => format!(
            "ENTRYPOINT {}",
            state
                .random
                .pick(&["[\"/bin/sh\", \"-c\"]", "echo $HOME", "[]", "[\"a\"]"])
        ),
        11 => format!(
            "CMD {}",
            state.random.pick(&[
                "[\"echo\", \"hi\"]",
                "echo hi  there",
                "[ \"x\" , \"\\u0041\" ]",
                "[]"
            ])
        ),
        12 => shell_form(state),
        13 => healthcheck(state),
        14 => format!(
            "STOPSIGNAL {}",
            state.random.pick(&["SIGTERM", "9", "${SIGNAL:-SIGINT}"])
        ),
        15 => onbuild(state),
        16 => "MAINTAINER Some One <one@example.test>".to_owned(),
        _ => comment(state),
    };
    let mut text = text;
    if state.random.chance(5) && !text.contains("<<") {
        // Folded over two lines, with a comment between them.
        if let Some(at) = text.find(' ') {
            text = format!(
                "{}{}\n  # between\n{}",
                &text[..=at],
                state.escape,
                &text[at + 1..]
            );
        }
    }
    text.push('\n');
    text
}

fn comment(state: &mut State) -> String {
    state
        .random
        .pick(&["# a comment", "", "   # an indented one", "# syntax-like=no"])
        .to_owned()
}

fn run(state: &mut State) -> String {
    let random = &mut state.random;
    let commands = [
        "echo one > /one",
        "mkdir -p /m/n && echo 1 > /m/n/f && chmod 0711 /m",
        "rm -rf /m/n",
        "rm -f /etc/shadow",
        "ln -s /etc/passwd /pw && ln /bin/busybox /bb",
        "chown 33:33 /home && chmod 2775 /home",
        "mv /etc/group /etc/group2; mkdir -p /etc/group",
        "echo $A-$VERSION-$OPTION-$HOME-$PATH > /vars; pwd >> /vars; id -u >> /vars",
        "env | grep -v HOSTNAME | sort > /env",
        "touch -d '2001-02-03 04:05:06' /old && touch /new",
        "rm -rf /usr/bin && mkdir /usr/bin && echo x > /usr/bin/x",
        "mkfifo /p; mknod /null c 1 3; chmod 666 /null",
        "echo more >> /one; echo more >> /etc/passwd",
        "for i in 1 2 3; do echo $i; done > /loop",
        "true",
        "umask 077; mkdir -p /u && echo u > /u/f",
        "test -d /data && echo d > /data/f || mkdir /data",
        "chmod 0700 /root; mkdir -p /root/.config",
        "ls -a / > /ls; ls -a > /ls2; umask >> /ls2; ulimit -n > /dev/null",
        "cat /etc/hosts | wc -l > /dev/null; echo -n > /empty",
        "find / -xdev -name '*.md' | sort > /md",
        "dd if=/dev/zero of=/big bs=1k count=100 2>/dev/null",
    ];
    let command = random.pick(&commands);
    let mounts = [
        "--mount=type=tmpfs,target=/tmp ",
        "--mount=type=cache,target=/cache ",
        "--mount=target=/ctx ",
        "--mount=type=bind,source=dir,target=/mnt/d ",
        "--mount=type=secret,id=token ",
        "--mount=type=secret,id=token,env=TOKEN ",
        "--mount=type=bind,from=busybox,source=/etc,target=/e ",
        "--network=none ",
        "--mount=type=bind,target=/rw,rw ",
        "--mount=type=cache,target=/c2,mode=0700,uid=5,gid=6 ",
    ];
    let flags = if random.chance(30) {
        random.pick(&mounts)
    } else {
        ""
    };
    let extra = match flags.trim_end() {
        "--mount=target=/ctx" => "; ls -aR /ctx > /ctxls",
        "--mount=type=bind,source=dir,target=/mnt/d" => {
            "; cat /mnt/d/one > /one2; stat -c '%a %u %g' /mnt/d >> /one2"
        }
        "--mount=type=secret,id=token" => "; stat -c '%a %u %g' /run/secrets/token > /sec",
        "--mount=type=secret,id=token,env=TOKEN" => "; echo $TOKEN > /sec",
        "--mount=type=bind,target=/rw,rw" => "; echo w > /rw/w",
        "--mount=type=cache,target=/c2,mode=0700,uid=5,gid=6" => "; stat -c '%a %u %g' /c2 > /c2stat",
        "--mount=type=tmpfs,target=/tmp" => "; echo t > /tmp/t; stat -c '%a' /tmp > /tmpstat",
        _ => "",
    };
    state
        .current
        .paths
        .extend(["/one", "/m", "/home", "/ls"].map(str::to_owned));
    match state.random.weighted(&[70, 12, 10, 8]) {
        0 => format!("RUN {flags}{command}{extra}"),
        1 => format!("RUN {flags}<<EOF\n{command}\necho heredoc > /here\nEOF"),
        2 => format!(
            "RUN {flags}[\"/bin/sh\", \"-c\", \"{}\"]",
            command.replace('\\', "\\\\").replace('"', "\\\"")
        ),
        _ => format!("RUN {flags}{command} && {}\n    echo second{extra}", state.escape),
    }
}

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
    ])
}

fn copy(state: &mut State) -> String {
    let mut flags = owner_flags(state);
    let to = destination(state);
    if state.random.chance(8) {
        let names = [
            "<<EOF /heredoc\nhello $A\nEOF",
            "<<\"EOF\" h2\nno $A\nEOF",
            "<<one.txt <<two.txt /two/\n1\none.txt\n2\ntwo.txt",
        ];
        return format!("COPY {flags}{}", state.random.pick(&names));
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
        return format!("COPY --from={from} {flags}{path} {to}");
    }
    if state.random.chance(6) {
        return format!(
            "COPY --from=busybox {flags}{} {to}",
            state.random.pick(&["/etc/passwd", "/etc", "/bin/sh", "/root"])
        );
    }
    if state.random.chance(12) {
        let _ = write!(
            flags,
            "--exclude={} ",
            state.random.pick(&["*.md", "sub", "**/*.md", "one"])
        );
    }
    if state.random.chance(10) {
        flags.push_str("--parents ");
        let sources = [
            "dir/sub/three",
            "dir/./sub",
            "./dir/sub/deep",
            "**/*.md",
            "a.txt dir/one",
            "dir/*/three",
            "dir",
        ];
        return format!("COPY {flags}{} {to}", state.random.pick(&sources));
    }
    let several = [
        "a.txt b.txt",
        "a.txt dir",
        "*.txt",
        "dir/* run.sh",
        "[ab].txt dir/sub",
    ];
    if state.random.chance(25) {
        let sources = state.random.pick(&several);
        let to = if to.ends_with('/') || to == "." {
            to.to_owned()
        } else {
            format!("{to}/")
        };
        return format!("COPY {flags}{sources} {to}");
    }
    if state.random.chance(6) {
        return format!("COPY {flags}[\"with space/x y\", \"{to}\"]");
    }
    let sources = [
        "a.txt", "run.sh", "dir", "dir/", "dir/sub", "empty", "dir/link", "dir/up", ".", "with*", "di?/o*",
        "nothing*", "./b.txt", "/dir/one",
    ];
    state.current.paths.extend(["/app", "/home"].map(str::to_owned));
    format!("COPY {flags}{} {to}", state.random.pick(&sources))
}

fn add(state: &mut State) -> String {
    let flags = owner_flags(state);
    let to = destination(state);
    let sources = [
        "archive.tar.gz",
        "archive.tar.gz",
        "a.txt",
        "dir",
        "--unpack=false archive.tar.gz",
        "archive.tar.gz a.txt",
    ];
    let source = state.random.pick(&sources);
    let to = if source.contains(' ') && !source.starts_with("--") && !to.ends_with('/') {
        format!("{to}/")
    } else {
        to.to_owned()
    };
    format!("ADD {flags}{source} {to}")
}

fn env(state: &mut State) -> String {
    let lines = [
        "A=1",
        "A=$A-2 B=\"x y\"",
        "C='single $A'",
        "D=${A:-default}/${B:+set}",
        "LEGACY some  text here",
        "A=",
        "E=a\\ b",
        "F=${PATH%%:*} G=${VERSION#*.}",
        "DEST=/srv PORT=99 UID_OF=12",
        "H=\"${OPTION:-none}\"",
        "PATH=/extra:$PATH",
        "I=\"tab\\tin $A\"",
        "J=${A/1/one} K=${B//x/y}",
        "SIGNAL=SIGHUP",
    ];
    format!("ENV {}", state.random.pick(&lines))
}

fn arg(state: &mut State) -> String {
    let lines = [
        "OPTION",
        "OPTION=fallback",
        "VERSION",
        "A=from-arg",
        "X=1 Y=$X",
        "TARGETARCH",
        "TARGETPLATFORM",
        "Z=\"q q\"",
        "OTHER=o",
    ];
    format!("ARG {}", state.random.pick(&lines))
}

fn workdir(state: &mut State) -> String {
    let dirs = [
        "/w",
        "sub",
        "/a/b/c",
        "../x",
        "$DEST/work",
        "/home",
        ".",
        "/w/",
        "\"/with space\"",
    ];
    format!("WORKDIR {}", state.random.pick(&dirs))
}

fn user(state: &mut State) -> String {
    let users = [
        "root",
        "0",
        "1000",
        "www",
        "33:wheel",
        "nobody",
        "1000:1000",
        "root:root",
    ];
    format!("USER {}", state.random.pick(&users))
}

fn label(state: &mut State) -> String {
    let lines = [
        "a=b",
        "\"quoted key\"=\"v w\"",
        "a=$A version=1",
        "legacy some text",
        "multi=1 b.c/d='x y'",
        "empty=",
    ];
    format!("LABEL {}", state.random.pick(&lines))
}

fn shell_form(state: &mut State) -> String {
    let shells = [
        "[\"/bin/sh\", \"-ec\"]",
        "[\"/bin/ash\", \"-c\"]",
        "[\"/bin/sh\", \"-c\"]",
    ];
    format!("SHELL {}", state.random.pick(&shells))
}

fn healthcheck(state: &mut State) -> String {
    let checks = [
        "NONE",
        "CMD true",
        "--interval=5s --timeout=1m30s --retries=3 CMD [\"check\", \"it\"]",
        "--start-period=10s --start-interval=500ms CMD curl x",
    ];
    format!("HEALTHCHECK {}", state.random.pick(&checks))
}

fn onbuild(state: &mut State) -> String {
    let lines = [
        "ENV ON=1",
        "LABEL on=build",
        "COPY a.txt /onbuild/",
        "WORKDIR /on",
        "USER 5",
        "ARG ONARG=2",
        "RUN echo on > /onrun",
    ];
    let line = state.random.pick(&lines);
    if line.starts_with("RUN") && !state.current.shell {
        "ONBUILD ENV ON=2".to_owned()
    } else {
        format!("ONBUILD {line}")
    }
}
