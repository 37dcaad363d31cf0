//! Random `RUN` instructions.

use super::generate::State;

/// Commands of a step, each meant to show something of the file system or the environment.
const COMMANDS: &[&str] = &[
    "echo one > /one",
    "mkdir -p /m/n && echo 1 > /m/n/f && chmod 0711 /m",
    "rm -rf /m/n",
    "rm -f /etc/shadow",
    "ln -s /etc/passwd /pw && ln /bin/busybox /bb",
    "chown 33:33 /home && chmod 2775 /home",
    "mv /etc/group /etc/group2; mkdir -p /etc/group",
    "echo $A-$VERSION-$OPTION-$HOME-$PATH > /vars; pwd >> /vars; id -u >> /vars",
    "env | grep -v -e HOSTNAME -e ^OTEL_ -e ^TRACEPARENT | sort > /env",
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
    "mkdir -p /a1/b1 && echo x > /a1/b1/x && mv /a1 /a2",
    "rm -rf /etc; mkdir /etc; echo root:x:0:0::/:/bin/sh > /etc/passwd",
    "echo s > /su && chmod 6755 /su && ln /su /su2",
    "rm -rf /m /var; ln -s /tmp /var",
    "mv /home /home2 && mkdir /home",
    "touch /etc/passwd && chmod 600 /etc/group",
    "echo a > '/sp ace' && echo b > /uml\u{e4}ut",
    "dd if=/dev/zero of=/sparse bs=1 count=1 seek=1000000 2>/dev/null",
    "id > /id; cat /proc/self/status | grep -e NoNewPrivs -e CapEff > /caps; echo $0 > /zero",
    "test ! -e /dev/console || echo c > /dev-console; ls /dev | grep -v otel > /dev-list",
    "echo $- > /flags; echo \"${UNSET:-unset}\" '$A' \"$A\" >> /flags",
    "mkdir -p /var/run && mkdir /proc/x 2>/dev/null || echo no > /noproc",
    "rm -f /tmp/* && echo t > /tmp/t",
];

/// Flags, and what is added to the command so that their effect shows.
const MOUNTS: &[(&str, &str)] = &[
    (
        "--mount=type=tmpfs,target=/tmp ",
        "; echo t > /tmp/t; stat -c '%a' /tmp > /tmpstat",
    ),
    (
        "--mount=type=cache,target=/cache ",
        "; stat -c '%a %u %g' /cache > /cstat",
    ),
    ("--mount=target=/ctx ", "; ls -aR /ctx > /ctxls"),
    (
        "--mount=type=bind,source=dir,target=/mnt/d ",
        "; cat /mnt/d/one > /one2; stat -c '%a %u %g' /mnt/d >> /one2",
    ),
    (
        "--mount=type=secret,id=token ",
        "; stat -c '%a %u %g' /run/secrets/token > /sec",
    ),
    ("--mount=type=secret,id=token,env=TOKEN ", "; echo $TOKEN > /sec"),
    (
        "--mount=type=secret,id=token,target=/deep/er/sec,mode=0440,uid=5,gid=6 ",
        "; stat -c '%a %u %g' /deep/er/sec > /sec",
    ),
    (
        "--mount=type=secret,id=absent,target=/run/absent ",
        "; ls /run > /runls",
    ),
    (
        "--mount=type=bind,from=busybox,source=/etc,target=/e ",
        "; ls /e > /els",
    ),
    ("--network=none ", ""),
    ("--mount=type=bind,target=/rw,rw ", "; echo w > /rw/w"),
    (
        "--mount=type=cache,target=/c2,mode=0700,uid=5,gid=6 ",
        "; stat -c '%a %u %g' /c2 > /c2stat",
    ),
    (
        "--mount=type=bind,source=a.txt,target=file ",
        "; cat file > /copied",
    ),
    (
        "--mount=type=tmpfs,target=/new/mount/point ",
        "; stat -c %a /new/mount/point > /npstat",
    ),
    (
        "--mount=type=tmpfs,target=/t1 --mount=type=tmpfs,target=/t1/t2 ",
        "",
    ),
];

/// A `RUN`.
pub(super) fn run(state: &mut State) -> String {
    let random = &mut state.random;
    let command = random.pick(COMMANDS);
    let (mut flags, mut extra) = if random.chance(30) {
        MOUNTS[random.below(MOUNTS.len())]
    } else {
        ("", "")
    };
    if state.extra && random.chance(12) {
        (flags, extra) = (
            "--mount=type=bind,from=extra,target=/x ",
            "; find /x | sort > /xls",
        );
    }
    state
        .current
        .paths
        .extend(["/one", "/m", "/home", "/ls", "/etc"].map(str::to_owned));
    let random = &mut state.random;
    match random.weighted(&[60, 22, 10, 8]) {
        0 => format!("RUN {flags}{command}{extra}"),
        1 => heredoc(random.below(7), flags, command),
        2 => format!(
            "RUN {flags}[\"/bin/sh\", \"-c\", \"{}\"]",
            command.replace('\\', "\\\\").replace('"', "\\\"")
        ),
        _ => format!("RUN {flags}{command} && {}\n    echo second{extra}", state.escape),
    }
}

fn heredoc(form: usize, flags: &str, command: &str) -> String {
    match form {
        0 => format!("RUN {flags}<<EOF\n{command}\necho heredoc > /here\nEOF"),
        1 => format!("RUN {flags}<<-EOF\n\t{command}\n\techo \"dash $A\" > /here\n\tEOF"),
        2 => format!("RUN {flags}<<'EOF'\n{command}\necho 'quoted' $A > /here\nEOF"),
        3 => format!("RUN {flags}<<EOF\n#!/bin/sh -e\n{command}\necho \"$0\" > /here\nEOF"),
        4 => format!("RUN {flags}cat <<EOF > /here\nkept $A\n\\$A `echo sub`\nEOF"),
        5 => format!("RUN {flags}cat <<one <<\"two\" > /here\nfirst\none\nsecond $A\ntwo"),
        _ => format!("RUN {flags}<<EOF\n\nfalse\n{command}\nEOF"),
    }
}
