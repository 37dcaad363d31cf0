//! What holds for every Dockerfile: planning ends without a panic, the plan is well formed, its keys are a function of it.

use crate::common::{amd64, arm64, base_config, plan_with};
use proptest::prelude::*;
use slipway_dockerfile::parse;
use slipway_oci::Digest;
use slipway_plan::{BuildPlan, PlanRequest, Source, keys, schedule};
use std::collections::BTreeSet;

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "a", "b", "$a", "${b:-x}", "/x", "x/", ".", "..", "*", "", "\"q r\"", "'s'", "scratch", "alpine", "one", "two",
            "0", "1", "http://h/f", "https://h/r.git", "git@h:r", "=", "a=b", "<<E", "80/tcp", "--", "$TARGETARCH", "é",
        ])
        .prop_map(str::to_owned),
        1 => "[ -~]{0,8}",
    ]
}

fn instruction() -> impl Strategy<Value = String> {
    let keyword = prop::sample::select(vec![
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "WORKDIR",
        "USER",
        "VOLUME",
        "EXPOSE",
        "CMD",
        "ENTRYPOINT",
        "ONBUILD RUN",
        "ONBUILD COPY",
        "SHELL",
        "STOPSIGNAL",
        "HEALTHCHECK CMD",
        "FROM",
        "MAINTAINER",
        "COPY --from=one",
        "COPY --from=0",
        "COPY --from=$a",
        "COPY --link --chmod=755",
        "COPY --parents",
        "RUN --mount=type=cache,target=/c",
        "RUN --mount=from=one,target=$a",
        "RUN --mount=type=secret,id=s,env=S",
        "ADD --checksum=sha256:0",
        "ARG SOURCE_DATE_EPOCH=5",
        "FROM --platform=$BUILDPLATFORM",
    ]);
    (keyword, prop::collection::vec(word(), 0..4))
        .prop_map(|(keyword, words)| format!("{keyword} {}", words.join(" ")))
}

/// Mostly Dockerfiles that parse: three stages, some of them with names.
fn dockerfile() -> impl Strategy<Value = String> {
    let stage = |from: &'static str| {
        prop::collection::vec(instruction(), 0..5)
            .prop_map(move |lines| format!("{from}\n{}\n", lines.join("\n")))
    };
    (
        stage("ARG a=x\nFROM alpine AS one"),
        stage("FROM one AS two"),
        stage("FROM scratch"),
    )
        .prop_map(|(one, two, three)| format!("{one}{two}{three}"))
}

fn build(text: &str) -> Option<BuildPlan> {
    let dockerfile = parse("Dockerfile", text).ok()?;
    let mut request = PlanRequest::new(dockerfile, amd64());
    request.platforms.push(arm64());
    request.args.insert("b".into(), "given".into());
    plan_with(&request, |_, platform| {
        let mut config = base_config(platform);
        config.config.on_build = vec!["ENV fromparent=1".into()];
        Some(config)
    })
    .ok()
}

/// Sources point back, results exist, ids and history positions are right.
fn assert_well_formed(plan: &BuildPlan) {
    let ids: BTreeSet<&str> = plan.stages.iter().map(|stage| stage.id.as_str()).collect();
    assert_eq!(ids.len(), plan.stages.len());
    for (at, stage) in plan.stages.iter().enumerate() {
        assert!(!stage.id.is_empty() && stage.id.len() <= 63);
        if let Source::Stage(base) = stage.base {
            assert!(base < at);
        }
        for step in &stage.steps {
            assert!(step.stages().iter().all(|read| *read < at));
            if let Some(entry) = step.history {
                assert_eq!(stage.config.history[entry].empty_layer, !step.makes_layer());
            }
        }
        let layers = stage
            .config
            .history
            .iter()
            .filter(|entry| !entry.empty_layer)
            .count();
        let before = stage
            .base_config
            .history
            .iter()
            .filter(|entry| !entry.empty_layer)
            .count();
        assert_eq!(
            layers - before,
            stage.steps.iter().filter(|step| step.makes_layer()).count()
        );
    }
    assert_eq!(plan.results.len(), 2);
    assert!(plan.results.iter().all(|result| result.stage < plan.stages.len()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn planning_never_panics_and_plans_are_well_formed(text in dockerfile()) {
        if let Some(plan) = build(&text) {
            assert_well_formed(&plan);
            let json = serde_json::to_string(&plan).unwrap();
            let again: BuildPlan = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&again, &plan);
            // The same input gives the same plan, and the same plan the same keys, also after a way through JSON.
            prop_assert_eq!(&build(&text).unwrap(), &plan);
            let contents = |_: &_| Some(Digest::of(b"x"));
            let all = keys(&plan, &contents);
            prop_assert_eq!(&keys(&again, &contents), &all);
            prop_assert_eq!(schedule(&plan, &all, &|_| None).stages.len(), plan.stages.len());
            // Equal roots only where the steps are equal.
            for stage in &all.stages {
                let keys: BTreeSet<_> = stage.steps.iter().flatten().map(|step| &step.root).collect();
                prop_assert_eq!(keys.len(), stage.steps.iter().flatten().count());
            }
        }
    }

    #[test]
    fn planning_never_panics_on_any_text(text in "(FROM|RUN|COPY|ARG|ENV| |\\n|[a-z$\\\\{}\"'=:/<-]){0,60}") {
        let _ = build(&text);
    }
}
