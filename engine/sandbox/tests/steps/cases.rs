//! The cases.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use slipway_sandbox::{
    Exit, Mount, MountKind, Network, SecretBytes, Security, Step, Ulimit, passwd, probe, spawn,
};

use super::{Room, finish, run, tree};

mod lifetimes;

use lifetimes::{builder_killed, daemons, dropping, helper_killed, kill, out_of_memory, signals};

pub(crate) use lifetimes::roles;

type Case = fn(&Room);

pub(crate) const ALL: &[(&str, Case)] = &[
    ("output and exit code come back apart", output),
    (
        "the environment keeps its order and nothing else is in it",
        environment,
    ),
    ("changes stand in the upper directory", upper),
    ("injected files are seen and leave no trace", injected),
    ("the image's own hosts file is hidden and kept", image_hosts),
    ("a link that leads nowhere is a mount point", dangling),
    (
        "mount points are made and removed with their parents",
        mount_points,
    ),
    ("binds are read-only or writable", binds),
    ("a secret is a file of its mode and owner in memory", secrets),
    ("users and groups are those asked for", users),
    ("capabilities are docker's", capabilities),
    ("an insecure step may mount", insecure),
    ("proc shows the step alone and cannot be uncovered", proc),
    ("the usual devices work", devices),
    ("no network is a loopback that works", network),
    ("limits are set", limits),
    ("the working directory must exist", cwd),
    ("a command that cannot be run is explained", programs),
    ("a signal is told from an exit code", signals),
    ("daemons end with the step", daemons),
    ("killing ends the whole tree", kill),
    ("dropping ends the step", dropping),
    ("the step dies with its helper", helper_killed),
    ("the step dies with its builder", builder_killed),
    ("want of memory is told from a kill", out_of_memory),
    ("a broken pipe is silent", broken_pipe),
    ("two hundred layers can be mounted", many_layers),
    ("six hundred layers can be mounted", very_many_layers),
    ("a lower layer alone can be mounted", one_layer),
    ("chroot does not lead out", chroot),
    ("two steps run side by side", side_by_side),
    ("a step is fast", fast),
    ("the probe finds what the cases use", probing),
];

fn ok(step: &Step) -> String {
    let said = run(step).unwrap();
    assert_eq!((said.exit, said.err.as_str()), (Exit::Code(0), ""), "{said:?}");
    said.out
}

fn output(room: &Room) {
    let root = room.root();
    let said = run(&room.step(&root, "echo out; echo err >&2; exit 7")).unwrap();
    assert_eq!(
        (said.exit, said.out.as_str(), said.err.as_str()),
        (Exit::Code(7), "out\n", "err\n")
    );
}

fn environment(room: &Room) {
    let root = room.root();
    let mut step = room.step(&root, "");
    step.argv = vec!["env".into()];
    step.env = ["Z=1", "PATH=/bin", "A=2", "M=a b"].map(String::from).to_vec();
    step.cwd = "/etc".into();
    assert_eq!(ok(&step), "Z=1\nPATH=/bin\nA=2\nM=a b\n");
    step.argv = vec!["pwd".into()];
    assert_eq!(ok(&step), "/etc\n");
}

fn upper(room: &Room) {
    let root = room.root();
    ok(&room.step(
        &root,
        "echo new > /new; rm /etc/keep; mkdir /d; chmod 1777 /d; echo $$",
    ));
    assert_eq!(tree(&root.upper), ["/d", "/etc", "/etc/keep", "/new"]);
    let gone = fs::symlink_metadata(root.upper.join("etc/keep")).unwrap();
    assert!(
        gone.file_type().is_char_device() && gone.rdev() == 0,
        "a whiteout"
    );
    assert_eq!(
        fs::metadata(root.upper.join("d")).unwrap().permissions().mode() & 0o7777,
        0o1777
    );
}

fn injected(room: &Room) {
    let root = room.root();
    let mut step = room.step(
        &root,
        "cat /etc/hosts; cat /etc/resolv.conf; hostname; echo x > /etc/hosts || echo ro",
    );
    step.resolv_conf = Some("nameserver 10.0.0.10\n".into());
    step.extra_hosts = vec![("db".into(), "10.1.2.3".into())];
    let said = run(&step).unwrap();
    assert_eq!(
        said.out,
        "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tdb\n\
         nameserver 10.0.0.10\nbuildkitsandbox\nro\n"
    );
    assert_eq!(
        tree(&root.upper),
        ["/etc"],
        "a copied-up directory that is the same as before"
    );
    let before = fs::metadata(room.path("base/etc")).unwrap();
    let after = fs::metadata(root.upper.join("etc")).unwrap();
    assert_eq!((before.mode(), before.uid()), (after.mode(), after.uid()));
}

fn image_hosts(room: &Room) {
    let root = room.root();
    fs::write(root.overlay.path().join("etc/hosts"), "image\n").unwrap();
    assert!(ok(&room.step(&root, "cat /etc/hosts")).contains("buildkitsandbox"));
    assert_eq!(
        fs::read_to_string(root.upper.join("etc/hosts")).unwrap(),
        "image\n"
    );
}

fn dangling(room: &Room) {
    let root = room.root();
    let link = |name: &str, to: &str| std::os::unix::fs::symlink(to, root.overlay.path().join(name)).unwrap();
    link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
    link("etc/hosts", "/nowhere");
    link("secrets", "../../../var/secrets");
    let mut step = room.step(
        &root,
        "cat /etc/resolv.conf /secrets/s; grep -c localhost /etc/hosts",
    );
    step.resolv_conf = Some("nameserver 10.0.0.10\n".into());
    let content = SecretBytes(b"hidden\n".to_vec());
    step.mounts = vec![Mount {
        target: "/secrets/s".into(),
        kind: MountKind::Secret {
            content,
            mode: 0o400,
            uid: 0,
            gid: 0,
        },
    }];
    assert_eq!(ok(&step), "nameserver 10.0.0.10\nhidden\n2\n");
    assert_eq!(
        tree(&root.upper),
        ["/etc", "/etc/hosts", "/etc/resolv.conf", "/secrets"]
    );
}

fn mount_points(room: &Room) {
    let root = room.root();
    let mut step = room.step(
        &root,
        "touch /p/q/r/x; grep -c ' /p/q/r tmpfs' /proc/mounts; cat /f/g; mkdir /s/kept; touch /s/kept/t",
    );
    let file = room.path("file");
    fs::write(&file, "bound\n").unwrap();
    step.mounts = vec![
        Mount {
            target: "/p/q/r".into(),
            kind: MountKind::Tmpfs { size: Some(64 << 20) },
        },
        Mount {
            target: "/f/g".into(),
            kind: MountKind::Bind {
                source: file,
                readonly: true,
            },
        },
        Mount {
            target: "/s/t".into(),
            kind: MountKind::Tmpfs { size: None },
        },
        // A link in the image that leads outside: the target is inside.
        Mount {
            target: "/out/x".into(),
            kind: MountKind::Tmpfs { size: None },
        },
    ];
    std::os::unix::fs::symlink("../../../../../tmp/there", root.overlay.path().join("out")).unwrap();
    fs::create_dir(root.overlay.path().join("tmp/there")).unwrap();
    assert_eq!(ok(&step), "1\nbound\n");
    assert_eq!(
        tree(&root.upper),
        ["/etc", "/out", "/s", "/s/kept", "/s/kept/t", "/tmp", "/tmp/there"]
    );
    assert!(!Path::new("/tmp/there").exists());
}

fn binds(room: &Room) {
    let root = room.root();
    let (source, writable) = (room.path("ro"), room.path("rw"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&writable).unwrap();
    fs::write(source.join("a"), "a\n").unwrap();
    let mut step = room.step(
        &root,
        "cat /ro/a; touch /ro/b 2>/dev/null || echo refused; touch /rw/b",
    );
    step.mounts = vec![
        Mount {
            target: "/ro".into(),
            kind: MountKind::Bind {
                source: source.clone(),
                readonly: true,
            },
        },
        Mount {
            target: "/rw".into(),
            kind: MountKind::Bind {
                source: writable.clone(),
                readonly: false,
            },
        },
    ];
    assert_eq!(ok(&step), "a\nrefused\n");
    assert!(writable.join("b").exists() && !source.join("b").exists());
    fs::remove_dir_all(source).unwrap();
    fs::remove_dir_all(writable).unwrap();
}

fn secrets(room: &Room) {
    let root = room.root();
    let mut step = room.step(
        &root,
        "cat /run/secrets/s; stat -c '%a %u:%g' /run/secrets/s; grep -c ' /run/secrets/s tmpfs' /proc/mounts",
    );
    let (uid, gid) = if room.all_ids { (5, 6) } else { (0, 0) };
    let content = SecretBytes(b"hidden\n".to_vec());
    step.mounts = vec![Mount {
        target: "/run/secrets/s".into(),
        kind: MountKind::Secret {
            content,
            mode: 0o400,
            uid,
            gid,
        },
    }];
    assert_eq!(ok(&step), format!("hidden\n400 {uid}:{gid}\n1\n"));
    assert_eq!(tree(&root.upper), ["/etc"], "not even its directory");
    assert!(!format!("{step:?}").contains("hidden"));
}

fn users(room: &Room) {
    let root = room.root();
    if !room.all_ids {
        return;
    }
    let mut step = room.step(&root, "id -u; id -g; id -G; touch /tmp/mine || echo refused");
    fs::set_permissions(
        root.overlay.path().join("tmp"),
        fs::Permissions::from_mode(0o1777),
    )
    .unwrap();
    step.user = passwd::lookup(root.overlay.path(), "user").unwrap();
    assert_eq!(ok(&step), "5\n6\n6 7\n");
    let mine = fs::metadata(root.upper.join("tmp/mine")).unwrap();
    assert_eq!((mine.uid(), mine.gid()), (5, 6));
}

fn capabilities(room: &Room) {
    let root = room.root();
    let mut step = room.step(
        &root,
        "grep -E 'Cap(Prm|Eff|Bnd|Inh|Amb)|NoNewPrivs' /proc/self/status",
    );
    // Docker's list, as far as the builder itself has it: a runner pod lacks NET_RAW.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("CapPrm:\t"))
        .unwrap();
    let all = format!("{:08x}", 0xa804_25fb & u64::from_str_radix(own, 16).unwrap());
    assert_eq!(
        ok(&step),
        format!(
            "CapInh:\t0000000000000000\nCapPrm:\t00000000{all}\nCapEff:\t00000000{all}\nCapBnd:\t00000000{all}\n\
             CapAmb:\t0000000000000000\nNoNewPrivs:\t0\n"
        )
    );
    if room.all_ids {
        (step.user.uid, step.user.gid) = (5, 6);
        let said = ok(&step);
        assert!(
            said.contains(&format!(
                "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000{all}"
            )),
            "{said}"
        );
    }
}

fn insecure(room: &Room) {
    let root = room.root();
    let mut step = room.step(&root, "mount -t tmpfs t /tmp && echo mounted; umount /tmp");
    let said = run(&step).unwrap();
    assert!(said.exit != Exit::Code(0) && said.out.is_empty(), "{said:?}");
    step.security = Security::Insecure;
    assert_eq!(ok(&step), "mounted\n");
}

fn proc(room: &Room) {
    let root = room.root();
    let script = "ls /proc | grep -c '^[0-9]'; echo $$; umount /proc 2>/dev/null || echo stays; \
                  (echo x > /proc/sys/kernel/domainname) 2>/dev/null || echo ro; \
                  cat /proc/timer_list 2>/dev/null | wc -c; touch /sys/x 2>/dev/null || echo ro";
    let said = ok(&room.step(&root, script));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].parse::<u32>().unwrap() <= 3, "{said}");
    assert_eq!(lines[1..], ["1", "stays", "ro", "0", "ro"]);
}

fn devices(room: &Room) {
    let root = room.root();
    let script = "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c; test -c /dev/tty && \
                  test -e /dev/ptmx && test -d /dev/pts && test -d /dev/mqueue && test -e /dev/full && echo all; \
                  echo x > /dev/shm/gone; echo e > /dev/stderr; grep -c ' /dev/shm tmpfs.*size=65536k' /proc/mounts";
    let said = run(&room.step(&root, script)).unwrap();
    assert_eq!(
        (said.out.as_str(), said.err.as_str()),
        ("3\n2\nall\n1\n", "e\n"),
        "{said:?}"
    );
    assert_eq!(tree(&root.upper), ["/etc"]);
}

fn network(room: &Room) {
    let root = room.root();
    let mut step = room.step(&root, "ip -o link | wc -l; ip -o link | grep -c 'lo:.*UP'");
    step.network = Network::None;
    assert_eq!(ok(&step), "1\n1\n");
}

fn limits(room: &Room) {
    let root = room.root();
    let mut step = room.step(
        &root,
        "ulimit -n; ulimit -Hn; grep -o '/dev/shm tmpfs.*size=131072k' /proc/mounts | wc -l",
    );
    step.ulimits
        .insert("nofile".into(), Ulimit { soft: 100, hard: 200 });
    step.shm_size = Some(128 << 20);
    assert_eq!(ok(&step), "100\n200\n1\n");
    step.ulimits
        .insert("nonsense".into(), Ulimit { soft: 1, hard: 1 });
    assert!(
        run(&step)
            .unwrap_err()
            .to_string()
            .contains("unknown ulimit \"nonsense\"")
    );
}

fn cwd(room: &Room) {
    let root = room.root();
    let mut step = room.step(&root, "pwd");
    step.cwd = "/not/there".into();
    let error = run(&step).unwrap_err().to_string();
    assert!(error.contains("\"/not/there\" does not exist"), "{error}");
    step.cwd = "/mounted".into();
    step.mounts = vec![Mount {
        target: "/mounted".into(),
        kind: MountKind::Tmpfs { size: None },
    }];
    assert_eq!(ok(&step), "/mounted\n");
}

fn programs(room: &Room) {
    let root = room.root();
    let path = |name: &str| root.overlay.path().join(name);
    for (name, content, mode) in [
        ("bin/noexec", "x", 0o644),
        ("bin/text", "hello", 0o755),
        ("bin/nointerp", "#!/no/such/interpreter\n", 0o755),
    ] {
        fs::write(path(name), content).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (program, part) in [
        ("nothing", "\"nothing\": executable file not found in $PATH"),
        ("/no/thing", "\"/no/thing\": no such file or directory"),
        ("noexec", "permission denied"),
        ("/bin/noexec", "permission denied"),
        ("text", "exec format error"),
        ("nointerp", "but not the interpreter"),
    ] {
        let mut step = room.step(&root, "");
        step.argv = vec![program.into()];
        let error = run(&step).unwrap_err().to_string();
        assert!(error.contains(part), "{program}: {error}");
    }
}

fn broken_pipe(room: &Room) {
    let root = room.root();
    assert_eq!(ok(&room.step(&root, "yes | head -n 1")), "y\n");
}

fn stack(room: &Room, count: usize) -> Vec<PathBuf> {
    let mut lower: Vec<PathBuf> = (0..count)
        .map(|i| {
            let dir = room.path(&format!("stack-with-a-rather-long-name-{i}"));
            fs::create_dir_all(dir.join("layers")).unwrap();
            fs::write(dir.join("layers").join(i.to_string()), "").unwrap();
            dir
        })
        .collect();
    lower.reverse();
    lower.push(room.path("base"));
    lower
}

fn many_layers(room: &Room) {
    let root = room.root_over(stack(room, 200));
    assert_eq!(ok(&room.step(&root, "ls /layers | wc -l")), "200\n");
}

fn very_many_layers(room: &Room) {
    let root = room.root_over(stack(room, 600));
    assert_eq!(
        ok(&room.step(&root, "ls /layers | wc -l; rm /layers/0; ls /layers | wc -l")),
        "600\n599\n"
    );
}

fn one_layer(room: &Room) {
    let target = room.path("one");
    fs::create_dir_all(&target).unwrap();
    let spec = slipway_sandbox::OverlaySpec {
        lower: vec![room.path("base")],
        target,
        ..Default::default()
    };
    let overlay = slipway_sandbox::Overlay::mount(&spec).unwrap();
    assert_eq!(
        fs::read_to_string(overlay.path().join("etc/keep")).unwrap(),
        "base\n"
    );
    assert!(fs::write(overlay.path().join("new"), "").is_err(), "read-only");
    overlay.unmount().unwrap();
}

fn chroot(room: &Room) {
    let root = room.root();
    let up = "../".repeat(50);
    let script = format!(
        "mkdir /jail; cd /; chroot /jail /bin/sh 2>/dev/null; cd {up}; ls -d etc/keep; cd /proc/1/root; ls -d etc/keep"
    );
    assert_eq!(ok(&room.step(&root, &script)), "etc/keep\netc/keep\n");
}

fn side_by_side(room: &Room) {
    let root = room.root();
    let first = spawn(&room.step(&root, "while ! test -e /tmp/go; do sleep 0.01; done; echo first")).unwrap();
    let second = spawn(&room.step(&root, "touch /tmp/go; echo second")).unwrap();
    assert_eq!(finish(second).unwrap().out, "second\n");
    assert_eq!(finish(first).unwrap().out, "first\n");
}

fn fast(room: &Room) {
    let root = room.root();
    let step = room.step(&root, "true");
    ok(&step);
    let start = Instant::now();
    for _ in 0..20 {
        ok(&step);
    }
    println!(
        "    {:.1} ms a step",
        start.elapsed().as_secs_f64() * 1000.0 / 20.0
    );
}

fn probing(room: &Room) {
    let probe = probe(&room.path("")).unwrap();
    assert!(probe.can_build(), "{probe:?}");
    assert_eq!(probe.mapped_uids > 65_535, room.all_ids);
}
