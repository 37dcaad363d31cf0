//! Which stages a plan has, for which platforms, and what they read from.

use crate::common::{
    amd64, arm64, base_config, error_of, ids, plan_text, plan_with, planned, request, runs, stage, try_plan,
};
use slipway_plan::{
    BaseError, BaseRequest, Bases, Mount, Op, Outcome, PlanRequest, Source, failure_reason, keys, plan,
    protocol::FailureReason, schedule, split_results,
};

fn copy_source<'a>(plan: &'a slipway_plan::BuildPlan, id: &str) -> &'a Source {
    let step = stage(plan, id).steps.iter().find_map(|step| match &step.op {
        Op::Copy(copy) => Some(&copy.sources[0].source),
        _ => None,
    });
    step.expect("a COPY")
}

fn for_both(text: &str) -> PlanRequest {
    PlanRequest {
        platforms: vec![amd64(), arm64()],
        ..request(text)
    }
}

#[test]
fn only_what_the_target_needs_is_planned() {
    let text = "FROM alpine AS a\nRUN a\nFROM nowhere AS unused\nRUN b\nFROM alpine AS c\nCOPY --from=a /x /\nFROM c\nRUN d\n";
    let plan = plan_text(text);
    assert_eq!(
        ids(&plan),
        ["a-linux-amd64", "c-linux-amd64", "stage-3-linux-amd64"]
    );
    assert_eq!(stage(&plan, "stage-3-linux-amd64").base, Source::Stage(1));
    assert_eq!(copy_source(&plan, "c-linux-amd64"), &Source::Stage(0));
    let plan = planned(&PlanRequest {
        target: Some("A".into()),
        ..request(text)
    });
    assert_eq!(ids(&plan), ["a-linux-amd64"]);
}

#[test]
fn gates_are_planned_with_what_they_need_for_every_platform() {
    let text = "FROM --platform=$BUILDPLATFORM alpine AS lint\nRUN lint\nFROM alpine AS build\nRUN make\n\
                FROM build AS Test\nRUN make test\nFROM alpine AS unused\nRUN x\nFROM alpine\nRUN app\n";
    let gated = |gates: &[&str]| PlanRequest {
        gates: gates.iter().map(ToString::to_string).collect(),
        ..for_both(text)
    };
    let plan = planned(&gated(&["test", "LINT"]));
    assert_eq!(
        ids(&plan),
        [
            "lint-linux-amd64",
            "build-linux-amd64",
            "build-linux-arm64",
            "test-linux-amd64",
            "test-linux-arm64",
            "stage-4-linux-amd64",
            "stage-4-linux-arm64"
        ]
    );
    assert_eq!(
        plan.gates,
        [0, 3, 4],
        "one that is the same for both platforms stands once"
    );
    let keys = slipway_plan::keys(&plan, &|_| None);
    assert_eq!(slipway_plan::schedule(&plan, &keys, &|_| None).gates, [0, 3, 4]);
    assert!(planned(&gated(&[])).gates.is_empty());
    // Keys do not depend on being a gate.
    let without = planned(&gated(&["lint"]));
    let key = |plan: &slipway_plan::BuildPlan| slipway_plan::keys(plan, &|_| None).stages[0].result.clone();
    assert_eq!(key(&plan), key(&without));
}

#[test]
fn a_gate_that_is_no_stage_is_refused_with_close_names() {
    let text = "FROM alpine AS test\nRUN x\nFROM alpine\nRUN y\n";
    let refused = |gate: &str, contexts: &[(&str, &str)]| {
        let error = try_plan(&PlanRequest {
            gates: vec![gate.into()],
            contexts: contexts
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..request(text)
        });
        format!("{:?}", error.expect_err("refused"))
    };
    let error = refused("tset", &[]);
    assert!(
        error.contains("gate \\\"tset\\\" could not be found (did you mean test?)"),
        "{error}"
    );
    assert!(error.contains("The stages are: test."), "{error}");
    let error = refused("test", &[("test", "docker-image://alpine")]);
    assert!(error.contains("would check nothing"), "{error}");
}

#[test]
fn a_stage_that_does_not_depend_on_the_target_platform_is_planned_once() {
    let plan = planned(&for_both(
        "FROM --platform=$BUILDPLATFORM alpine AS tools\nRUN cc\n\
         FROM --platform=$BUILDPLATFORM alpine AS cross\nARG TARGETARCH\nRUN cc $TARGETARCH\n\
         FROM alpine\nCOPY --from=tools /x /\nCOPY --from=cross /y /\n",
    ));
    assert_eq!(
        ids(&plan),
        [
            "tools-linux-amd64",
            "cross-linux-amd64",
            "cross-linux-amd64-2",
            "stage-2-linux-amd64",
            "stage-2-linux-arm64"
        ]
    );
    assert_eq!(
        plan.results.iter().map(|result| result.stage).collect::<Vec<_>>(),
        [3, 4]
    );
    for (index, result) in plan.results.iter().enumerate() {
        let reads: Vec<_> = plan.stages[result.stage]
            .steps
            .iter()
            .flat_map(slipway_plan::Step::stages)
            .collect();
        assert_eq!(reads, [0, 1 + index]);
    }
    assert_eq!(plan.results[1].config.architecture, "arm64");
}

#[test]
fn stages_without_layers_are_read_through() {
    let plan = plan_text(
        "FROM alpine AS base\nENV A=1\nFROM base AS named\nLABEL b=2\n\
         FROM scratch AS empty\nFROM named\nCOPY --from=base /x /\nCOPY --from=empty / /d/\nRUN true\n",
    );
    assert_eq!(ids(&plan), ["stage-3-linux-amd64"]);
    let last = &plan.stages[0];
    assert!(
        matches!(&last.base, Source::Image(image) if image.reference.familiar().starts_with("alpine:latest@"))
    );
    assert_eq!(last.config.config.env("A"), Some("1"));
    assert_eq!(last.config.config.labels["b"], "2");
    assert_eq!(
        last.base_config.history.len(),
        2,
        "the history of the stages that are read through is kept"
    );
    assert!(matches!(
        copy_source(&plan, "stage-3-linux-amd64"),
        Source::Image(_)
    ));
    assert!(runs(last)[0].env.contains(&"A=1".to_owned()));
}

#[test]
fn images_are_asked_for_all_at_once_and_only_where_needed() {
    let request = for_both(
        "FROM unused AS u\nRUN x\nFROM one AS a\nRUN --mount=from=two,target=/t x\nFROM scratch\nCOPY --from=a /x /\nCOPY --from=three /y /\n",
    );
    let Ok(Outcome::Need(needs)) = plan(&request, &Bases::new()) else {
        panic!("images are needed")
    };
    let names: Vec<String> = needs
        .iter()
        .map(|need| format!("{} {}", need.reference.familiar(), need.platform))
        .collect();
    assert_eq!(
        names,
        [
            "one:latest linux/amd64",
            "one:latest linux/arm64",
            "three:latest linux/amd64",
            "three:latest linux/arm64",
            "two:latest linux/amd64",
            "two:latest linux/arm64"
        ]
    );
}

#[test]
fn onbuild_can_add_stages_and_images() {
    let request = request("FROM alpine AS src\nRUN x\nFROM parent\nRUN y\n");
    let plan = plan_with(&request, |name, platform| {
        let mut config = base_config(platform);
        if name == "parent:latest" {
            config.config.on_build = vec![
                "COPY --from=src /in /out".into(),
                "RUN --mount=from=extra,target=/e z".into(),
            ];
        }
        Some(config)
    })
    .unwrap();
    assert_eq!(ids(&plan), ["src-linux-amd64", "stage-1-linux-amd64"]);
    let last = &plan.stages[1];
    assert_eq!(
        last.steps.iter().map(|step| step.onbuild).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(
        last.steps[0].span, last.span,
        "an ONBUILD instruction stands where the FROM stands"
    );
    assert!(last.config.config.on_build.is_empty());
    assert!(
        matches!(&runs(last)[0].mounts[0], Mount::Bind { source: Source::Image(image), .. }
        if image.reference.repository() == "library/extra")
    );
}

#[test]
fn named_contexts_replace_images_and_stages() {
    let text =
        "FROM scratch AS files\nCOPY x /\nFROM base\nCOPY --from=files /f /\nCOPY --from=remote / /r/\n";
    let mut request = request(text);
    request.contexts = [
        ("files", "local:dir"),
        ("base", "docker-image://alpine"),
        ("docker.io/library/remote:latest", "https://host/x.git#v1:sub"),
        ("unused", "docker-image://nowhere"),
    ]
    .map(|(name, input)| (name.to_owned(), input.to_owned()))
    .into();
    let plan = planned(&request);
    assert_eq!(ids(&plan), ["stage-1-linux-amd64"]);
    let reads: Vec<Source> = plan.stages[0].inputs().map(|input| input.source).collect();
    assert_eq!(reads[0], Source::Named("files".into()));
    assert!(
        matches!(&reads[1], Source::Git(git) if git.reference.as_deref() == Some("v1") && git.subdir.as_deref() == Some("sub"))
    );
    assert!(matches!(plan.stages[0].base, Source::Image(_)));
    assert_eq!(plan.stages[0].config.config.env("BASE"), Some("1"));
}

#[test]
fn a_context_for_one_platform_wins_there() {
    let mut request = for_both("FROM base\nRUN x\n");
    request
        .contexts
        .insert("base::linux/arm64".into(), "docker-image://scratch".into());
    request
        .contexts
        .insert("base".into(), "docker-image://alpine".into());
    let plan = planned(&request);
    assert!(matches!(
        stage(&plan, "stage-0-linux-amd64").base,
        Source::Image(_)
    ));
    assert_eq!(stage(&plan, "stage-0-linux-arm64").base, Source::Scratch);
}

#[test]
fn layouts_are_asked_for_by_store_and_digest() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let mut request = request("FROM base\nRUN x\n");
    request
        .contexts
        .insert("base".into(), format!("oci-layout://store@{digest}"));
    let Ok(Outcome::Need(needs)) = plan(&request, &Bases::new()) else {
        panic!("an image is needed")
    };
    let [
        BaseRequest {
            reference, layout, ..
        },
    ] = &needs[..]
    else {
        panic!("{needs:?}")
    };
    assert_eq!(layout.as_deref(), Some("store"));
    assert_eq!(reference.digest().unwrap().as_str(), digest);
}

#[test]
fn errors_say_where_and_what_may_be_meant() {
    for (text, target, wanted) in [
        (
            "FROM alpine AS build\nRUN x\n",
            Some("biuld"),
            "target stage \"biuld\" could not be found (did you mean build?)",
        ),
        (
            "FROM alpine AS build\nRUN x\nFROM biuld\nRUN x\n",
            None,
            "biuld: not found (did you mean build?)",
        ),
        ("FROM alpin\n", None, "(did you mean alpine?)"),
        (
            "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=a /x /\n",
            None,
            "circular dependency",
        ),
        (
            "FROM scratch\nCOPY --from=0 /x /\n",
            None,
            "circular dependency detected on stage: stage-0",
        ),
        (
            "FROM --platform=$TRAGETPLATFORM alpine\n",
            None,
            "(did you mean TARGETPLATFORM?)",
        ),
        (
            "FROM --platform=a/b/c/d alpine\n",
            None,
            "failed to parse platform a/b/c/d",
        ),
        ("ARG A=1\n", None, "dockerfile contains no stages to build"),
        (
            "FROM $NOTHING\n",
            None,
            "base name ($NOTHING) should not be blank",
        ),
    ] {
        let request = PlanRequest {
            target: target.map(str::to_owned),
            ..request(text)
        };
        let message = error_of(&request);
        assert!(message.contains(wanted), "{text}: {message}");
    }
    let errors = try_plan(&request("FROM scratch\nENV a=b\nCOPY --from=9 /x /\n")).unwrap_err();
    assert_eq!(
        (errors[0].file.as_str(), errors[0].error_lines()),
        ("Dockerfile", vec![3])
    );
}

#[test]
fn all_stages_are_checked_when_asked_but_not_planned() {
    let text = "FROM scratch AS a\nLABEL a=$b\nRUN x\nFROM scratch\nRUN y\n";
    let plain = plan_text(text);
    assert!(
        plain.warnings.iter().all(|warning| warning.line != 2),
        "{:?}",
        plain.warnings
    );
    let checked = planned(&PlanRequest {
        all_stages: true,
        ..request(text)
    });
    assert_eq!(ids(&checked), ["stage-1-linux-amd64"]);
}

#[test]
fn an_image_that_cannot_be_had_is_told_by_its_reason_and_its_line() {
    for (reason, told) in [
        (FailureReason::ImageNotFound, FailureReason::ImageNotFound),
        (
            FailureReason::RegistryUnauthorized,
            FailureReason::RegistryUnauthorized,
        ),
        (
            FailureReason::RegistryUnreachable,
            FailureReason::RegistryUnreachable,
        ),
        (
            FailureReason::RegistryRateLimited,
            FailureReason::RegistryRateLimited,
        ),
        (FailureReason::RegistryError, FailureReason::RegistryError),
        (FailureReason::Internal, FailureReason::RegistryError),
    ] {
        let request = request("FROM scratch AS one\nFROM away.example.com/base\nCOPY --from=one / /\n");
        let Ok(Outcome::Need(needs)) = plan(&request, &Bases::new()) else {
            panic!("nothing is asked for");
        };
        let mut bases = Bases::new();
        for need in needs {
            let message = "it does not answer".to_owned();
            let error = BaseError {
                message,
                reason,
                retry_after: None,
            };
            bases.insert(need, Err(error));
        }
        let errors = plan(&request, &bases).unwrap_err();
        assert_eq!(failure_reason(&errors[0].code), told, "{}", errors[0].code);
        assert_eq!(errors[0].span.map(|span| span.first_line), Some(2));
    }
    assert_eq!(
        failure_reason("unknown-instruction"),
        FailureReason::DockerfileInvalid
    );
}

#[test]
fn a_last_stage_that_platforms_share_gets_an_empty_one_for_each() {
    let mut plan = planned(&for_both(
        "FROM --platform=linux/amd64 alpine AS tools\nRUN cc\nFROM tools AS last\nRUN strip\n",
    ));
    assert_eq!(ids(&plan), ["tools-linux-amd64", "last-linux-amd64"]);
    assert_eq!(plan.results[0].stage, plan.results[1].stage);
    split_results(&mut plan);
    assert_eq!(ids(&plan)[2..], ["last-for-linux-amd64", "last-for-linux-arm64"]);
    assert_eq!(
        plan.results.iter().map(|result| result.stage).collect::<Vec<_>>(),
        [2, 3]
    );
    for own in &plan.stages[2..] {
        assert_eq!((own.base.clone(), own.steps.len()), (Source::Stage(1), 0));
        assert_eq!(own.config, plan.stages[1].config);
    }
    let before = plan.clone();
    split_results(&mut plan);
    assert_eq!(plan, before, "a stage of one platform stays as it is");
}

#[test]
fn only_stages_that_run_something_need_a_node_of_their_platform() {
    let plan = planned(&for_both(
        "FROM --platform=$BUILDPLATFORM alpine AS tools\nRUN cc\nFROM alpine\nCOPY --from=tools /x /\nENV a=b\n",
    ));
    let keys = keys(&plan, &|_| None);
    let runs: Vec<bool> = schedule(&plan, &keys, &|_| None)
        .stages
        .iter()
        .map(|stage| stage.runs)
        .collect();
    assert_eq!(runs, [true, false, false]);
}
