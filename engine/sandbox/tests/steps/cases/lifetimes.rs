//! How steps end, and that nothing outlives them.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use slipway_sandbox::{Exit, Step, spawn};

use crate::{Room, finish, run};

pub(super) fn signals(room: &Room) {
    let root = room.root();
    assert_eq!(
        run(&room.step(&root, "(sleep 60 & kill -9 $!; wait $!)"))
            .unwrap()
            .exit,
        Exit::Code(137)
    );
    // PID 1 of a namespace is deaf to its own signals, as in any container: the code is the shell's.
    assert_eq!(
        run(&room.step(&root, "sh -c 'kill -TERM $$'; exit $?"))
            .unwrap()
            .exit,
        Exit::Code(143)
    );
}

pub(super) fn daemons(room: &Room) {
    let root = room.root();
    let said = run(&room.step(
        &root,
        "setsid sleep 1000 & setsid sh -c 'sleep 1000' & echo started",
    ))
    .unwrap();
    assert_eq!((said.exit, said.out.as_str()), (Exit::Code(0), "started\n"));
}

pub(super) fn kill(room: &Room) {
    let root = room.root();
    let mut running = spawn(&room.step(&root, "setsid sleep 1000 & echo ready; sleep 1000")).unwrap();
    let killer = running.killer();
    wait_for_line(running.stdout.as_mut().unwrap(), "ready\n");
    killer.kill();
    assert_eq!(finish(running).unwrap().exit, Exit::Cancelled);
    killer.kill();
}

pub(super) fn dropping(room: &Room) {
    let root = room.root();
    let mut running = spawn(&room.step(&root, "echo ready; sleep 1000")).unwrap();
    wait_for_line(running.stdout.as_mut().unwrap(), "ready\n");
}

pub(super) fn helper_killed(room: &Room) {
    let root = room.root();
    let mut running = spawn(&room.step(&root, "setsid sleep 1000 & echo ready; sleep 1000")).unwrap();
    wait_for_line(running.stdout.as_mut().unwrap(), "ready\n");
    let me = std::process::id();
    let helper = fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap();
    let killed = Command::new("kill").args(["-9", helper.trim()]).status().unwrap();
    assert!(killed.success());
    // Its output ends only when every process of it is gone.
    let error = finish(running).unwrap_err().to_string();
    assert!(error.contains("helper ended without an answer"), "{error}");
    // Nobody was there to remove its cgroup.
    for dir in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("slipway-{me}-"))
            {
                until("its cgroup is empty", || fs::remove_dir(entry.path()).is_ok());
            }
        }
    }
}

/// The builder is killed while a step runs: every process of the step must go, and its directory with them.
pub(super) fn builder_killed(room: &Room) {
    let mark = format!("77{}", std::process::id());
    let mut builder = Command::new("/proc/self/exe")
        .args(["--role", "builder"])
        .arg(room.path("base"))
        .arg(&mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = builder.stdout.take().unwrap();
    wait_for_line(&mut output, "ready\n");
    builder.kill().unwrap();
    builder.wait().unwrap();
    until("its processes are gone", || !running_with(&mark));
    until("its helper is gone", || !running_with("slipway-sandbox-step"));
    until("its directory is gone", || {
        fs::read_dir(room.path(""))
            .unwrap()
            .flatten()
            .all(|entry| !entry.file_name().to_string_lossy().starts_with("step-"))
    });
}

/// Whether a process has `mark` among its arguments.
fn running_with(mark: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let shell = line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes());
        shell && process.file_name() != *std::process::id().to_string()
    })
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 20, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

fn pod_limit() -> Option<u64> {
    [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
    .filter(|limit| *limit < 2 << 30)
}

pub(super) fn out_of_memory(room: &Room) {
    let limit = Path::new("/sys/fs/cgroup/memory").join(format!("slipway-test-{}", std::process::id()));
    if room.rootless || fs::create_dir(&limit).is_err() {
        // In a pod with a limit there is a cgroup already.
        let Some(limit) = pod_limit() else {
            println!(
                "    skipped: needs root and a memory cgroup of version 1, or a pod with a memory limit"
            );
            return;
        };
        let root = room.root();
        let step = room.step(
            &root,
            &format!("dd if=/dev/zero of=/dev/null bs={}M count=1", (limit >> 20) + 200),
        );
        assert_eq!(run(&step).unwrap().exit, Exit::Oom);
        return;
    }
    fs::write(limit.join("memory.limit_in_bytes"), "64M").unwrap();
    let output = Command::new("/proc/self/exe")
        .args(["--role", "hungry"])
        .args([&room.path("base"), &limit])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), "Oom", "{output:?}");
    fs::remove_dir(limit).unwrap();
}

fn wait_for_line(pipe: &mut impl std::io::Read, line: &str) {
    let mut read = vec![0; line.len()];
    pipe.read_exact(&mut read).unwrap();
    assert_eq!(String::from_utf8_lossy(&read), line);
}

/// Parts that this program plays when a case starts it again.
pub(crate) fn roles(arguments: &[String]) -> Option<ExitCode> {
    let [flag, role, base, rest @ ..] = arguments else {
        return None;
    };
    if flag != "--role" {
        return None;
    }
    let mut step = Step::new(base, ["sh", "-c", ""]);
    step.env = vec!["PATH=/bin".to_owned()];
    step.state_dir = Path::new(base).parent().unwrap().to_path_buf();
    match role.as_str() {
        "builder" => {
            step.argv[2] = format!("setsid sleep {0} & echo ready; sleep {0}", rest[0]);
            let mut running = spawn(&step).unwrap();
            let mut pipe = running.stdout.take().unwrap();
            wait_for_line(&mut pipe, "ready\n");
            println!("ready");
            running.wait().unwrap();
        }
        "hungry" => {
            fs::write(
                Path::new(&rest[0]).join("cgroup.procs"),
                std::process::id().to_string(),
            )
            .unwrap();
            step.argv[2] = String::from("dd if=/dev/zero of=/dev/null bs=200M count=1");
            let said = run(&step).unwrap();
            println!("{:?}", said.exit);
            let _ = fs::write(
                "/sys/fs/cgroup/memory/cgroup.procs",
                std::process::id().to_string(),
            );
        }
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}
