//! `slipway-runner probe`: what a pod or machine lets a build do, for people and programs.

use slipway_plan::protocol::STORE_DIR;
use slipway_sandbox::Probe;
use std::{path::Path, process::ExitCode};

/// How to tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// Lines to read.
    Text,
    /// One JSON object.
    Json,
}

/// Probes on the filesystem that layers would be stored on.
pub(crate) fn run(output: Output) -> ExitCode {
    let dir = if Path::new(STORE_DIR).is_dir() {
        Path::new(STORE_DIR).to_owned()
    } else {
        std::env::temp_dir()
    };
    match slipway_sandbox::probe(&dir) {
        Ok(probe) => {
            match output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&probe).unwrap_or_default()),
                Output::Text => print!("{}", describe(&probe)),
            }
            if probe.can_build() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn describe(probe: &Probe) -> String {
    let can = |why_not: &Option<String>| {
        why_not
            .as_ref()
            .map_or_else(|| "yes".to_owned(), |why_not| format!("no: {why_not}"))
    };
    let needed = [
        ("mount namespaces", can(&probe.mount_namespace)),
        ("overlayfs", can(&probe.overlay)),
        ("whiteouts", can(&probe.whiteout)),
        ("a procfs of its own", can(&probe.fresh_proc)),
    ];
    let apart = if probe.in_user_namespace {
        format!(
            "yes, with {} ids: root here is nobody on the node",
            probe.mapped_uids
        )
    } else {
        "no: root here is root on the node".to_owned()
    };
    let seccomp = match probe.seccomp_mode {
        0 => "off".to_owned(),
        2 => "on".to_owned(),
        other => format!("mode {other}"),
    };
    let useful = [
        ("in a user namespace", apart),
        ("seccomp filter", seccomp),
        (
            "setuid programs",
            if probe.no_new_privs {
                "no: no_new_privs is set, so sudo, su and ping fail in a RUN".to_owned()
            } else {
                "yes".to_owned()
            },
        ),
        ("a further user namespace", can(&probe.user_namespace)),
        (
            "pivot_root",
            match &probe.pivot_root {
                None => "yes".to_owned(),
                Some(why_not) => format!("no ({why_not}): steps use a moved mount and chroot"),
            },
        ),
        ("capabilities", format!("{:#x}", probe.capabilities)),
    ];
    let mut text = String::new();
    let lines = |title: &str, list: &[(&str, String)]| {
        let lines: Vec<String> = list
            .iter()
            .map(|(what, answer)| format!("  {what:<26}{answer}\n"))
            .collect();
        format!("{title}\n{}", lines.concat())
    };
    text += &lines("needed for a build:", &needed);
    text += &lines("good to know:", &useful);
    text += if probe.can_build() {
        "A build can run here.\n"
    } else {
        "A build cannot run here: see what is needed above.\n"
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_what_is_needed_and_whether_it_is_there() {
        let good = Probe {
            in_user_namespace: true,
            mapped_uids: 65536,
            seccomp_mode: 2,
            pivot_root: Some("Operation not permitted".into()),
            ..Probe::default()
        };
        let text = describe(&good);
        assert!(text.ends_with("A build can run here.\n"), "{text}");
        assert!(
            text.contains("in a user namespace       yes, with 65536 ids"),
            "{text}"
        );
        let bad = Probe {
            fresh_proc: Some("Operation not permitted".into()),
            ..good
        };
        let text = describe(&bad);
        assert!(
            text.contains("a procfs of its own       no: Operation not permitted"),
            "{text}"
        );
        assert!(text.ends_with("see what is needed above.\n"), "{text}");
    }
}
