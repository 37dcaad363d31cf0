//! What changes a key and what does not, what of the contexts is read, and what the operator sees.

use crate::common::{amd64, arm64, plan_text, planned, request, stage};
use slipway_oci::Digest;
use slipway_plan::{
    BuildPlan, Input, Key, Keys, PlanRequest, Selection, Sharing, Source, context_needs, keys as keys_of,
    keys::{Change, step},
    schedule,
};

/// A context whose every part has the content that its path says, with `salt`.
fn contents(salt: &str) -> impl Fn(&Input) -> Option<Digest> {
    move |input| match &input.source {
        Source::Context | Source::Named(_) => Some(Digest::of(
            format!("{salt}{}", serde_json::to_string(&input.selection).unwrap()).as_bytes(),
        )),
        _ => None,
    }
}

fn keys(plan: &BuildPlan) -> Keys {
    keys_of(plan, &contents(""))
}

fn keys_of_text(text: &str) -> Keys {
    keys(&plan_text(text))
}

/// The key of the root and of the result of the last stage.
fn last(keys: &Keys) -> (Key, Key) {
    let stage = keys.stages.last().unwrap();
    (stage.root.clone(), stage.result.clone())
}

#[test]
fn what_does_not_change_the_files_does_not_change_the_key_of_the_root() {
    let root = last(&keys_of_text("FROM alpine\nRUN x\n")).0;
    for text in [
        "# a comment\nFROM alpine AS named\n\nRUN   x\n",
        "FROM alpine\nLABEL a=b\nRUN x\nEXPOSE 80\n",
        "FROM alpine\nRUN x\nENV a=b\n",
        "FROM alpine\nRUN x\nARG a=b\nCMD y\n",
        "FROM alpine AS base\nFROM base\nRUN x\n",
    ] {
        assert_eq!(last(&keys_of_text(text)).0, root, "{text}");
    }
    let mut with_proxy = request("FROM alpine\nRUN x\n");
    with_proxy.args.insert("HTTPS_PROXY".into(), "p".into());
    with_proxy.args.insert("UNUSED".into(), "1".into());
    with_proxy.labels.insert("a".into(), "b".into());
    assert_eq!(last(&keys(&planned(&with_proxy))).0, root);
}

#[test]
fn what_changes_the_files_changes_the_key() {
    let texts = [
        "FROM alpine\nRUN x\n",
        "FROM scratch\nRUN x\n",
        "FROM alpine\nRUN y\n",
        "FROM alpine\nRUN [\"x\"]\n",
        "FROM alpine\nENV a=b\nRUN x\n",
        "FROM alpine\nENV a=c\nRUN x\n",
        "FROM alpine\nARG a=c\nARG b=d\nRUN x\n",
        "FROM alpine\nARG b=d\nARG a=c\nRUN x\n",
        "FROM alpine\nUSER me\nRUN x\n",
        "FROM alpine\nRUN --network=none x\n",
        "FROM alpine\nRUN --mount=type=cache,target=/c x\n",
        "FROM alpine\nRUN --mount=type=cache,target=/c,id=d x\n",
        "FROM alpine\nRUN --mount=type=secret,id=s x\n",
        "FROM alpine\nRUN --mount=target=/m x\n",
        "FROM alpine\nCOPY a /\n",
        "FROM alpine\nCOPY b /\n",
        "FROM alpine\nCOPY a /b\n",
        "FROM alpine\nCOPY --chown=1 a /\n",
        "FROM alpine\nCOPY --link a /\n",
        "FROM alpine\nADD a /\n",
        "FROM alpine\nCOPY <<a /\nx\na\n",
        "FROM alpine\nCOPY <<a /\ny\na\n",
        "FROM alpine\nWORKDIR /a\n",
        "FROM alpine\nRUN x\nRUN x\n",
    ];
    let mut roots: Vec<(Key, &str)> = texts
        .iter()
        .map(|text| (last(&keys_of_text(text)).0, *text))
        .collect();
    roots.push((
        last(&keys(&planned(&PlanRequest {
            platforms: vec![arm64()],
            ..request(texts[0])
        })))
        .0,
        "arm64",
    ));
    for (at, (key, text)) in roots.iter().enumerate() {
        for (other, other_text) in &roots[..at] {
            assert_ne!(key, other, "{text} and {other_text}");
        }
    }
}

#[test]
fn a_copy_is_keyed_by_what_it_reads_of_the_context() {
    let plan = plan_text("FROM alpine\nCOPY a /\n");
    let (one, two) = (keys_of(&plan, &contents("1")), keys_of(&plan, &contents("2")));
    assert_ne!(last(&one).0, last(&two).0);
    let inputs = |keys: &Keys| keys.stages[0].steps[0].as_ref().unwrap().inputs.clone();
    assert_eq!(
        inputs(&two).changes(&inputs(&one)),
        [Change::Files("context:/a".into())]
    );
    assert!(
        keys_of(&plan, &|_| None).stages[0].steps[0]
            .as_ref()
            .is_some_and(|key| !key.inputs.certain)
    );
}

#[test]
fn a_label_changes_the_result_but_not_what_is_copied_from_the_stage() {
    let text =
        |label: &str| format!("FROM alpine AS a\nRUN x\nLABEL l={label}\nFROM scratch\nCOPY --from=a /x /\n");
    let (one, two) = (keys_of_text(&text("1")), keys_of_text(&text("2")));
    assert_ne!(one.stages[0].result, two.stages[0].result);
    assert_eq!(one.stages[0].root, two.stages[0].root);
    assert_eq!(one.stages[1], two.stages[1]);
}

#[test]
fn a_stage_that_was_rebuilt_to_the_same_files_gives_the_same_key_by_content() {
    let plan_of = |run: &str| {
        plan_text(&format!(
            "FROM alpine AS a\nRUN {run}\nFROM scratch\nCOPY --from=a /x /\n"
        ))
    };
    let (old, new) = (plan_of("x"), plan_of("y"));
    let key = |plan: &BuildPlan, known: bool| {
        let keys = keys(plan);
        let files = Digest::of(b"the same files");
        let contents =
            |input: &Input| (known && matches!(input.source, Source::Stage(_))).then(|| files.clone());
        let stage = &plan.stages[1];
        step(
            plan,
            &keys.stages,
            &keys.stages[1].base,
            &stage.platform,
            &stage.steps[0],
            &contents,
        )
        .unwrap()
        .key
    };
    assert_ne!(key(&old, false), key(&new, false), "by stage");
    assert_eq!(key(&old, true), key(&new, true), "by content");
    assert_ne!(key(&old, false), key(&old, true), "the two kinds do not meet");
}

#[test]
fn a_linked_layer_does_not_depend_on_what_is_below() {
    let plan_of = |run: &str| plan_text(&format!("FROM alpine\nRUN {run}\nCOPY --link a /\nRUN z\n"));
    let (one, two) = (keys(&plan_of("x")), keys(&plan_of("y")));
    let key = |keys: &Keys, at: usize| keys.stages[0].steps[at].clone().unwrap();
    assert_eq!(key(&one, 1).key, key(&two, 1).key);
    assert_ne!(key(&one, 1).root, key(&two, 1).root);
    assert_ne!(key(&one, 2).key, key(&two, 2).key);
}

#[test]
fn what_changed_is_named() {
    let inputs = |text: &str| {
        keys_of_text(text).stages[0]
            .steps
            .iter()
            .flatten()
            .last()
            .unwrap()
            .inputs
            .clone()
    };
    let before = inputs("FROM alpine\nENV a=1 b=1\nRUN x\n");
    for (text, changes) in [
        ("FROM alpine\nENV a=1 b=1\nRUN x\n", vec![]),
        (
            "FROM alpine\nENV a=2 b=1\nRUN x\n",
            vec![Change::Variable("a".into())],
        ),
        ("FROM alpine\nENV a=1 b=1\nRUN y\n", vec![Change::Instruction]),
        ("FROM alpine\nRUN w\nENV a=1 b=1\nRUN x\n", vec![Change::Parent]),
    ] {
        assert_eq!(inputs(text).changes(&before), changes, "{text}");
    }
}

#[test]
fn no_secret_value_and_no_proxy_is_in_a_plan_or_key() {
    let mut request = request("FROM alpine\nRUN --mount=type=secret,id=tok x\n");
    request
        .args
        .insert("http_proxy".into(), "http://user:hunter2@proxy".into());
    let plan = planned(&request);
    assert!(!serde_json::to_string(&keys(&plan)).unwrap().contains("hunter2"));
}

#[test]
fn downloads_without_a_checksum_are_uncertain_until_looked_at() {
    let commit = "a".repeat(40);
    for (text, certain) in [
        ("ADD https://host/f /".to_owned(), false),
        (
            format!("ADD --checksum=sha256:{} https://host/f /", "a".repeat(64)),
            true,
        ),
        ("ADD https://host/x.git#main /".to_owned(), false),
        (format!("ADD https://host/x.git?commit={commit} /"), true),
        (
            format!("ADD --checksum={} https://host/x.git /", &commit[..7]),
            false,
        ),
        ("COPY <<a /\nx\na".to_owned(), true),
        ("COPY --from=alpine /x /".to_owned(), true),
    ] {
        let text = format!("FROM scratch AS a\n{text}\nFROM a\nRUN x\n");
        let keys = keys_of_text(&text);
        let got: Vec<bool> = keys.stages.iter().map(|stage| stage.certain).collect();
        assert_eq!(got, [certain, certain], "{text}: it goes for what follows too");
    }
}

#[test]
fn only_what_needed_stages_read_of_a_context_is_published() {
    let mut request = request(
        "FROM alpine AS unused\nCOPY secret /\nFROM alpine\nCOPY src/ go.* /w/\nCOPY src/main.go /m\n\
         RUN --mount=source=lib,target=/l x\nCOPY --exclude=*.md docs /d\nCOPY --from=extra /f /\n",
    );
    request.contexts.insert("extra".into(), "local:x".into());
    let needs = context_needs(&planned(&request));
    let paths = |source: &Source| -> Vec<String> { needs[source].iter().map(|it| it.path.clone()).collect() };
    assert_eq!(paths(&Source::Context), ["/docs", "/go.*", "/lib", "/src"]);
    assert_eq!(paths(&Source::Named("extra".into())), ["/f"]);
    let docs: &Selection = &needs[&Source::Context][0];
    assert_eq!(docs.exclude, ["*.md"]);
    let all = context_needs(&plan_text(
        "FROM alpine\nCOPY a /\nCOPY . /\nRUN --mount=target=/m x\n",
    ));
    assert_eq!(
        all[&Source::Context]
            .iter()
            .map(|it| it.path.as_str())
            .collect::<Vec<_>>(),
        ["/"]
    );
}

#[test]
fn a_stage_starts_when_its_first_step_can() {
    let plan = planned(&PlanRequest {
        platforms: vec![amd64(), arm64()],
        ..request(
            "FROM --platform=$BUILDPLATFORM alpine AS build\nRUN --mount=type=secret,id=tok x\n\
             FROM alpine AS late\nRUN y\nCOPY --from=build /x /\n\
             FROM late\nCOPY --from=build /x /\nRUN --mount=type=secret,id=b --mount=type=secret,id=a z\n",
        )
    });
    let keys = keys(&plan);
    let cached = Digest::of(b"manifest");
    let build_key = keys.stages[0].result.clone();
    let schedule = schedule(&plan, &keys, &|stage| {
        (stage.result == build_key).then(|| cached.clone())
    });
    let rows: Vec<_> = schedule
        .stages
        .iter()
        .map(|it| {
            (
                it.id.as_str(),
                it.start_after.clone(),
                it.needs.clone(),
                it.steps,
                it.cached.is_some(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("build-linux-amd64", vec![], vec![], 1, true),
            ("late-linux-amd64", vec![], vec![0], 2, false),
            ("late-linux-arm64", vec![], vec![0], 2, false),
            ("stage-2-linux-amd64", vec![0, 1], vec![0, 1], 2, false),
            ("stage-2-linux-arm64", vec![0, 2], vec![0, 2], 2, false),
        ]
    );
    assert_eq!(schedule.stages[3].secrets, ["a", "b"]);
    assert_eq!(
        schedule.results.iter().map(|it| it.stage).collect::<Vec<_>>(),
        [3, 4]
    );
    assert_eq!(schedule.stages[0].key.len(), 64);
}

#[test]
fn a_schedule_names_each_cache_mount_of_a_stage_once_for_each_sharing() {
    let plan = plan_text(
        "FROM alpine\nRUN --mount=type=cache,target=/b,sharing=locked --mount=type=cache,id=a,target=/x x\n\
         RUN --mount=type=cache,target=/b,sharing=locked --mount=type=cache,target=/b/c,id=/b,sharing=private y\n",
    );
    let schedule = schedule(&plan, &keys(&plan), &|_| None);
    let caches: Vec<_> = schedule.stages[0]
        .caches
        .iter()
        .map(|cache| (cache.id.as_str(), cache.sharing))
        .collect();
    assert_eq!(
        caches,
        [
            ("/b", Sharing::Private),
            ("/b", Sharing::Locked),
            ("a", Sharing::Shared)
        ]
    );
}

#[test]
fn the_cache_is_not_asked_for_what_ignores_it_or_is_unknown() {
    use slipway_plan::protocol::NoCache;
    let text =
        "FROM alpine AS a\nRUN x\nFROM alpine AS b\nADD https://host/f /\nFROM a\nCOPY --from=b /f /\n";
    let plan = planned(&PlanRequest {
        no_cache: NoCache::Stages(vec!["A".into()]),
        ..request(text)
    });
    assert!(stage(&plan, "a-linux-amd64").no_cache);
    let schedule = schedule(&plan, &keys(&plan), &|_| Some(Digest::of(b"x")));
    assert!(schedule.stages.iter().all(|stage| stage.cached.is_none()));
}
