//! What single instructions come to.

use crate::common::{error_of, plan_text, planned, request, runs, work};
use slipway_plan::{Chmod, CopyOp, Entitlements, MkdirOp, Mount, Network, Op, PlanRequest, Sharing, Source};

/// The first `COPY` or `ADD` of the result.
fn copy_of(text: &str) -> CopyOp {
    let plan = plan_text(text);
    let found = plan.stages[plan.results[0].stage]
        .steps
        .iter()
        .find_map(|step| match &step.op {
            Op::Copy(copy) => Some(copy.clone()),
            _ => None,
        });
    found.expect("a COPY")
}

/// The first mount of the last stage's first `RUN`.
fn mount_of(text: &str) -> Mount {
    let plan = plan_text(text);
    runs(&plan.stages[plan.results[0].stage])[0].mounts[0].clone()
}

#[test]
fn a_run_gets_environment_directory_and_user() {
    let plan = plan_text(
        "ARG G=global\nFROM alpine\nENV E=1\nARG A=arg G\nARG E=2\nWORKDIR /w\nUSER 5:6\nRUN echo $A\nRUN [\"a\", \"$A\"]\n",
    );
    let runs = runs(&plan.stages[0]);
    assert_eq!(runs[0].args, ["/bin/sh", "-c", "echo $A"]);
    assert_eq!(runs[1].args, ["a", "$A"]);
    assert_eq!(runs[0].env[1..], ["BASE=1", "A=arg", "G=global", "E=2"]);
    assert!(runs[0].env[0].starts_with("PATH="));
    assert_eq!((runs[0].cwd.as_str(), runs[0].user.as_str()), ("/w", "5:6"));
    assert_eq!(
        plan.results[0].config.config.env("E"),
        Some("1"),
        "an ARG does not change the image"
    );
}

#[test]
fn proxies_are_seen_but_kept_apart() {
    let mut request = request("FROM alpine\nRUN x\n");
    request.args.insert("http_proxy".into(), "p".into());
    request.args.insert("NO_PROXY".into(), "n".into());
    let plan = planned(&request);
    let run = runs(&plan.stages[0])[0];
    assert_eq!(
        run.proxy_env,
        ["HTTP_PROXY=p", "http_proxy=p", "NO_PROXY=n", "no_proxy=n"]
    );
    assert!(!run.env.iter().any(|entry| entry.to_lowercase().contains("proxy")));
    assert!(
        plan.results[0]
            .config
            .history
            .last()
            .unwrap()
            .created_by
            .ends_with("RUN /bin/sh -c x # buildkit")
    );
}

#[test]
fn the_options_of_the_request_reach_each_run() {
    let mut request = request("FROM alpine\nRUN a\nRUN --network=none b\nRUN --security=insecure c\n");
    request.network = Network::Host;
    request.hostname = Some("box".into());
    request.shm_size = Some(1 << 20);
    assert_eq!(error_of(&request), "network.host is not allowed");
    request.allow = Entitlements {
        network_host: true,
        security_insecure: false,
    };
    assert_eq!(error_of(&request), "security.insecure is not allowed");
    request.allow.security_insecure = true;
    let plan = planned(&request);
    let all = runs(&plan.stages[0]);
    assert_eq!(
        all.iter().map(|run| run.network).collect::<Vec<_>>(),
        [Network::Host, Network::None, Network::Host]
    );
    assert_eq!(
        all.iter().map(|run| run.insecure).collect::<Vec<_>>(),
        [false, false, true]
    );
    assert_eq!(
        (all[0].hostname.as_deref(), all[0].shm_size),
        (Some("box"), Some(1 << 20))
    );
    request
        .args
        .insert("BUILDKIT_SANDBOX_HOSTNAME".into(), "other".into());
    assert_eq!(
        runs(&planned(&request).stages[0])[0].hostname.as_deref(),
        Some("other")
    );
}

#[test]
fn heredocs_become_scripts() {
    for (text, args) in [
        ("RUN <<EOF\necho $a\nEOF\n", vec!["/bin/sh", "-c", "echo $a\n"]),
        ("RUN <<-EOF\n\techo\n\tEOF\n", vec!["/bin/sh", "-c", "echo\n"]),
        (
            "RUN cat <<EOF\nx\nEOF\n",
            vec!["/bin/sh", "-c", "cat <<EOF\nx\nEOF"],
        ),
        (
            "RUN <<EOF\n#!/bin/x\nEOF\n",
            vec!["/bin/sh", "-c", "/dev/pipes/EOF"],
        ),
    ] {
        let plan = plan_text(&format!("FROM alpine\n{text}"));
        assert_eq!(runs(&plan.stages[0])[0].args, args, "{text}");
    }
    let Mount::Bind {
        target,
        source: Source::Inline(files),
        readonly: true,
        ..
    } = mount_of("FROM alpine\nRUN <<EOF\n#!/bin/x\nEOF\n")
    else {
        panic!("a mount with the script")
    };
    assert_eq!(
        (target.as_str(), files[0].path.as_str(), files[0].mode),
        ("/dev/pipes/", "EOF", 0o755)
    );
}

#[test]
fn mounts_are_resolved() {
    let bind = mount_of("FROM alpine\nWORKDIR /w\nARG D=src\nRUN --mount=source=$D,target=x y\n");
    assert_eq!(
        bind,
        Mount::Bind {
            target: "/w/x".into(),
            source: Source::Context,
            path: "/src".into(),
            readonly: true
        }
    );
    let cache = mount_of("FROM alpine\nRUN --mount=type=cache,target=/c/,sharing=locked,mode=0700,uid=5 y\n");
    assert_eq!(
        cache,
        Mount::Cache {
            target: "/c".into(),
            id: "/c".into(),
            sharing: Sharing::Locked,
            readonly: false,
            source: Source::Scratch,
            path: "/".into(),
            mode: Some(0o700),
            uid: Some(5),
            gid: None
        }
    );
    let secret = mount_of("FROM alpine\nRUN --mount=type=secret,id=a/tok y\n");
    assert!(
        matches!(&secret, Mount::Secret { id, target: Some(target), env: None, mode: 0o400, .. }
        if id == "a/tok" && target == "/run/secrets/tok")
    );
    let variable = mount_of("FROM alpine\nRUN --mount=type=secret,id=tok,env=TOKEN,required y\n");
    assert!(
        matches!(&variable, Mount::Secret { target: None, env: Some(env), required: true, .. } if env == "TOKEN")
    );
    let ssh = mount_of("FROM alpine\nRUN --mount=type=ssh y\n");
    assert!(matches!(&ssh, Mount::Ssh { id, target: None, mode: 0o600, .. } if id == "default"));
    let tmpfs = mount_of("FROM alpine\nRUN --mount=type=tmpfs,target=/t,size=1m y\n");
    assert_eq!(
        tmpfs,
        Mount::Tmpfs {
            target: "/t".into(),
            size: Some(1 << 20),
            readonly: false
        }
    );
    assert_eq!(
        error_of(&request("FROM alpine\nRUN --mount=target=/ y\n")),
        "invalid mount target \"/\""
    );
}

#[test]
fn a_secret_variable_is_masked_in_what_is_shown() {
    let plan = plan_text("FROM alpine\nENV TOKEN=old\nRUN --mount=type=secret,id=tok,env=TOKEN use $TOKEN\n");
    let run = work(&plan.stages[0])[0];
    assert!(run.display.ends_with("use ****"), "{}", run.display);
}

#[test]
fn copies_are_resolved() {
    let copy = copy_of(
        "FROM alpine\nWORKDIR /w\nENV D=to\nCOPY --chown=5:6 --chmod=0755 --exclude=*.md a b*/ $D/\n",
    );
    assert_eq!(
        (copy.dest.as_str(), copy.chown.as_deref()),
        ("/w/to/", Some("5:6"))
    );
    assert_eq!(
        (copy.chmod, copy.link, copy.add),
        (Some(Chmod::Octal(0o755)), false, false)
    );
    assert_eq!(copy.exclude, ["*.md"]);
    let paths: Vec<_> = copy
        .sources
        .iter()
        .map(|it| (it.path.as_str(), it.wildcard, it.unpack))
        .collect();
    assert_eq!(paths, [("/a", false, false), ("/b*", true, false)]);

    let inline = copy_of("FROM alpine\nENV V=x\nCOPY <<A <<\"B\" /d/\n$V\nA\n$V\nB\n");
    let files: Vec<_> = inline
        .sources
        .iter()
        .map(|it| match &it.source {
            Source::Inline(files) => (files[0].path.as_str(), files[0].data.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(files, [("A", "x\n"), ("B", "$V\n")]);

    assert!(copy_of("FROM alpine\nCOPY --link a /\n").link);
    assert!(
        !copy_of("FROM alpine\nCOPY --link --chmod=u+x a /\n").link,
        "BuildKit does not link with --chmod"
    );
}

#[test]
fn parents_keep_the_directories_after_the_pivot() {
    for (path, pivot, include, required) in [
        ("a/b", "/", "a/b", Some("/a/b")),
        ("a/./b/c", "/a", "b/c", Some("/a/b/c")),
        ("a/*/c", "/", "a/*/c", None),
        ("./a/./b", "/a", "b", Some("/a/b")),
        ("**/x", "/", "**/x", None),
    ] {
        let copy = copy_of(&format!("FROM alpine\nCOPY --parents {path} /d/\n"));
        let source = &copy.sources[0];
        assert_eq!(
            (
                source.path.as_str(),
                source.include.as_deref(),
                source.required.as_deref()
            ),
            (pivot, Some(include), required),
            "{path}"
        );
    }
}

#[test]
fn add_knows_downloads_repositories_and_archives() {
    let archive = copy_of("FROM alpine\nADD a.tar /\n");
    assert!(archive.add && archive.sources[0].unpack);
    assert!(!copy_of("FROM alpine\nADD --unpack=false a.tar /\n").sources[0].unpack);

    let http = copy_of("FROM alpine\nADD https://host/d/f.tgz?x=1 /\n");
    let Source::Http(source) = &http.sources[0].source else {
        panic!("a download")
    };
    assert_eq!(
        (source.filename.as_str(), http.sources[0].path.as_str()),
        ("f.tgz", "/f.tgz")
    );
    assert!(!http.sources[0].unpack);
    let Source::Http(source) = &copy_of("FROM alpine\nADD https://host/ /x\n").sources[0]
        .source
        .clone()
    else {
        panic!("a download")
    };
    assert_eq!(source.filename, "__unnamed__");

    let git = copy_of("FROM alpine\nADD --keep-git-dir=true https://host/x.git#v1 /x\n");
    assert!(matches!(&git.sources[0].source, Source::Git(git) if git.keep_git_dir && git.submodules));
    for (text, wanted) in [
        (
            "ADD --checksum=sha256:00 https://host/f /x",
            "invalid checksum digest format",
        ),
        (
            "ADD --checksum=sha256:00 a /x",
            "checksum requires HTTP(S) or Git sources",
        ),
        (
            "ADD --checksum=sha256:00 a b /x/",
            "checksum can't be specified for multiple sources",
        ),
        (
            "ADD --keep-git-dir=true https://host/x.git?keep-git-dir=0 /x",
            "inconsistent keep-git-dir",
        ),
        ("COPY git@host:x /x", "source can't be a git ref for COPY"),
    ] {
        let message = error_of(&request(&format!("FROM alpine\n{text}\n")));
        assert!(message.contains(wanted), "{text}: {message}");
    }
}

#[test]
fn a_workdir_is_made_for_the_user_at_the_epoch() {
    let mut request = request("FROM alpine\nUSER me\nWORKDIR a\nWORKDIR /\n");
    request.args.insert("SOURCE_DATE_EPOCH".into(), "1".into());
    let plan = planned(&request);
    let steps = work(&plan.stages[0]);
    assert_eq!(steps.len(), 1, "the root is there");
    assert_eq!(
        steps[0].op,
        Op::Mkdir(MkdirOp {
            path: "/a".into(),
            owner: Some("me".into()),
            time: Some(1)
        })
    );
    let config = &plan.results[0].config;
    assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:01Z"));
    assert!(
        config
            .history
            .iter()
            .all(|entry| entry.created.as_deref() == Some("1970-01-01T00:00:01Z"))
    );
    assert_eq!(plan.epoch, Some(1));
}

#[test]
fn steps_are_numbered_as_buildkit_counts() {
    let plan = plan_text("FROM alpine\nENV a=b\nRUN x\nLABEL c=d\nCOPY a /\n");
    let numbers: Vec<_> = plan.stages[0].steps.iter().map(|step| step.number).collect();
    assert_eq!(numbers, [None, Some(2), None, Some(3)]);
    let plan = plan_text("FROM scratch\nRUN x\n");
    assert_eq!(plan.stages[0].steps[0].number, Some(1));
}

#[test]
fn each_step_knows_its_history_entry() {
    let plan = plan_text("FROM alpine\nONBUILD RUN z\nENV a=b\nRUN x\n");
    let stage = &plan.stages[0];
    let texts: Vec<Option<&str>> = stage
        .steps
        .iter()
        .map(|step| {
            step.history
                .map(|at| stage.config.history[at].created_by.as_str())
        })
        .collect();
    assert_eq!(
        texts,
        [None, Some("ENV a=b"), Some("RUN /bin/sh -c x # buildkit")]
    );
    assert!(
        stage
            .config
            .history
            .iter()
            .all(|entry| entry.comment == "buildkit.dockerfile.v0")
    );
}

#[test]
fn the_labels_of_the_request_are_in_the_result_only() {
    let mut request = request("FROM alpine\nLABEL a=1\n");
    request.labels.insert("a".into(), "2".into());
    let plan = planned(&PlanRequest {
        target: None,
        ..request
    });
    assert_eq!(plan.results[0].config.config.labels["a"], "2");
    assert_eq!(plan.stages[0].config.config.labels["a"], "1");
}
