//! One random instruction at a time.

use super::{copy, generate::State, run};

/// Paths of the base image.
pub(super) fn base_paths() -> Vec<String> {
    ["/bin/busybox", "/etc/passwd", "/etc", "/usr/bin", "/home"]
        .map(str::to_owned)
        .to_vec()
}

/// An instruction with its line end.
pub(super) fn any(state: &mut State) -> String {
    let shell = match (state.current.shell, state.foreign) {
        (true, _) => 26,
        (false, false) => 1,
        (false, true) => 0,
    };
    let weights = [shell, 24, 8, 10, 6, 8, 5, 5, 3, 3, 4, 4, 2, 2, 2, 3, 1, 5];
    let text = match state.random.weighted(&weights) {
        0 => run::run(state),
        1 => copy::copy(state),
        2 => copy::add(state),
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
        "A=new B2=$A C2=${B2:-none}",
        "K1=${OPTION:+given} K2=${OPTION-unset} K3=${EMPTY:-empty}",
        "VERSION=$VERSION-env",
        "Q=\"a 'b' \\\"c\\\"\" R='d \"e\"'",
        "S=$$A T=\\$A U=${A}x V=$Ax",
        "W=${PATH##*:} X1=${VERSION%%.*} Y=${A/x} Z1=${A//1/2}",
        "HOME=/somewhere",
        "TARGETARCH=mine",
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
        "A",
        "B=${A:-b}",
        "SUFFIX",
        "BUILDPLATFORM TARGETOS TARGETVARIANT",
        "EMPTY",
        "SOURCE_DATE_EPOCH",
        "HTTP_PROXY",
        "PATH",
        "VERSION=${OPTION:-2}",
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
        "$A/x",
        "/tmp/../etc/w",
        "~",
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
        ":33",
        "$UID_OF",
        "1000:wheel",
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
        "[\"/bin/busybox\", \"sh\", \"-euc\"]",
        "[\"/bin/sh\", \"-c\", \"echo shell > /shelled; eval \\\"$0\\\"\"]",
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
        "ENV A=${A}-on",
        "COPY --chown=1:1 dir /onbuild/",
        "CMD [\"on\"]",
        "VOLUME /onvol",
        "ADD archive.tar.gz /onadd/",
    ];
    let line = state.random.pick(&lines);
    if line.starts_with("RUN") && !state.current.shell {
        "ONBUILD ENV ON=2".to_owned()
    } else {
        format!("ONBUILD {line}")
    }
}
