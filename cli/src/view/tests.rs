//! What people see, as it stands on their screen.

use super::{
    explain,
    fixtures::{at, build, failed, plain, ran, running, stage, succeeded, time},
    list,
    status::Status,
    tree,
};
use serde_json::json;

#[test]
fn a_running_build_is_a_tree_with_its_critical_path() {
    let status = Status::of(&running(), at(20));
    insta::assert_snapshot!(plain(&tree::lines(&status, false)), @"
    shop  Running  19s  because SpecChanged
      1 of 4 stages are done

    ✓ plan                 2s    2 warnings              *
    ○ docs                       not needed
    … final                      waits for build, lint
    ├─ ▸ build             13s   2 steps                 *   node-2
    │  ├─ ✓ deps           4s    2 steps, 1 cached       *   node-1
    │  │  └─ ✓ base              cached
    │  └─ ✓ base
    └─ ▹ lint              12s   starting, attempt 2         node-1
       └─ ✓ deps (above)

    critical path* plan 2s → deps 4s → build 13s …
    ");
}

#[test]
fn a_finished_build_shows_its_image() {
    let status = Status::of(&succeeded(), at(500));
    insta::assert_snapshot!(plain(&tree::lines(&status, true)), @"
    shop  Succeeded  1m19s  because Created
      registry.example.com/shop/web:1.4
      sha256:4be1  12.3MB

    ✓ plan       2s                *            shop-1-plan-1
    ✓ final      9s      2 steps   *   node-1   pod-70
    └─ ✓ build   1m07s   2 steps   *   node-2   pod-3

    critical path* plan 2s → build 1m07s → final 9s
    ");
}

#[test]
fn a_failure_is_told_with_its_place_and_the_end_of_the_log() {
    let status = Status::of(&failed(), at(500));
    insta::assert_snapshot!(plain(&tree::lines(&status, false)), @"
    shop  Failed  8s  because Created

    ✓ plan       2s             *
    ■ final           stopped
    ├─ ✗ build   6s   failed        node-2
    └─ ■ lint    6s   stopped   *   node-1

    critical path* plan 2s → lint 6s

    ✗ StepFailed in stage build (linux/amd64)
      Dockerfile:12: the command ended with exit code 2
      RUN make  (exit code 2)
      │ cc -c main.c
      │ make: *** [all] Error 1
      all of it: kubectl slipway logs shop --stage build
    ");
}

#[test]
fn stages_of_several_platforms_are_told_apart() {
    let arm = json!({"platform": "linux/arm64"});
    let build = build(
        "shop",
        json!({"phase": "Running", "stages": [
            stage("app", "Waiting", &[], json!({"sharedWith": {"build": "other", "since": time(0)}})),
            stage("app", "Waiting", &[], arm),
        ]}),
    );
    let status = Status::of(&build, at(1));
    insta::assert_snapshot!(plain(&tree::lines(&status, false)), @"
    shop  Running

    … app linux/amd64   runs in build other
    … app linux/arm64   waiting
    ");
}

#[test]
fn a_build_that_has_not_begun_is_no_error() {
    let status = Status::of(&build("new", json!({})), at(1));
    assert_eq!(plain(&tree::lines(&status, false)), "new  Pending\n");
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["phase"], "Pending");
    assert_eq!(json["stages"], json!([]));
}

#[test]
fn the_json_form_has_the_promised_fields() {
    let json = serde_json::to_value(Status::of(&running(), at(20))).unwrap();
    assert_eq!(json["criticalPath"][2]["stage"], "build-linux-amd64");
    assert_eq!(json["criticalPath"][2]["seconds"], 13.0);
    assert_eq!(
        json["stages"][5]["waitsFor"],
        json!(["build-linux-amd64", "lint-linux-amd64"])
    );
    assert_eq!(json["stages"][2]["critical"], true);
    assert_eq!(json["stages"][0]["critical"], false);
    assert_eq!(json["finished"], false);
    assert_eq!(json["cause"], "SpecChanged");
    let failed = serde_json::to_value(Status::of(&failed(), at(20))).unwrap();
    assert_eq!(failed["failure"]["exitCode"], 2);
}

#[test]
fn an_old_runs_plan_condition_takes_no_negative_time() {
    let mut old = running();
    let status = old.status.as_mut().unwrap();
    status.run.as_mut().unwrap().started_at.0 = at(10);
    let status = Status::of(&old, at(20));
    assert!(
        status.critical_path.iter().all(|part| part.seconds >= 0.0),
        "{:?}",
        status.critical_path
    );
}

#[test]
fn builds_are_listed_a_row_each() {
    let builds = [running(), succeeded(), failed(), build("new", json!({}))];
    insta::assert_snapshot!(plain(&list::lines(&builds, at(7500), true, false)), @"
    NAMESPACE   NAME   PHASE       REASON       STAGES   TOOK    AGE   IMAGE
    web         shop   Running     -            1/4      2h04m   2h    registry.example.com/shop/web:1.4
    web         shop   Succeeded   -            2/2      1m19s   2h    registry.example.com/shop/web:1.4
    web         shop   Failed      StepFailed   0/2      8s      2h    registry.example.com/shop/web:1.4
    web         new    Pending     -            -        -       2h    registry.example.com/shop/web:1.4
    ");
    for (seconds, age) in [
        (-5, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (172_800, "2d"),
    ] {
        assert_eq!(list::age(seconds), age);
    }
}

#[test]
fn each_step_is_explained() {
    use slipway_plan::explain::{Explanation, Outcome, StageExplanation, StepExplanation, Why};
    let step = |line, instruction: &str, why: &[Why]| StepExplanation {
        line,
        instruction: instruction.into(),
        key: String::new(),
        cached: why.is_empty(),
        why: why.to_vec(),
    };
    let stage = |name: &str, outcome, steps| StageExplanation {
        id: format!("{name}-linux-amd64"),
        name: name.into(),
        platform: "linux/amd64".into(),
        outcome,
        steps,
    };
    let explanation = Explanation {
        dockerfile: "Dockerfile".into(),
        compared: false,
        stages: vec![
            stage("base", Outcome::Cached, vec![step(2, "RUN a", &[])]),
            stage(
                "build",
                Outcome::Runs,
                vec![
                    step(4, "RUN b", &[]),
                    step(5, "COPY . .", &[Why::New]),
                    step(6, "RUN make", &[Why::Follows]),
                ],
            ),
        ],
    };
    let text = plain(&explain::lines(&explanation, false));
    for line in [
        "✓ base linux/amd64  cached\n",
        "▸ build linux/amd64  1 of 3 steps cached\n",
        "  ✓   Dockerfile:4   RUN b      cached\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    assert!(
        text.contains(&Why::Follows.sentence())
            && text.contains("no earlier build")
            && !text.contains("RUN a"),
        "{text}"
    );
    assert!(plain(&explain::lines(&explanation, true)).contains("RUN a"));
}

#[test]
fn nothing_of_a_build_can_draw_on_the_terminal() {
    let mut build = failed();
    let failure = build.status.as_mut().unwrap().failure.as_mut().unwrap();
    failure.log = Some("\x1b[2Jgone\x07".into());
    failure.message = "\x1b]0;title\x07bad".into();
    let text = plain(&tree::lines(&Status::of(&build, at(9)), false));
    assert!(text.contains("│ gone") && !text.contains(|c: char| c.is_control() && c != '\n'));
}

#[test]
fn a_stage_that_was_given_no_time_has_none() {
    let build = build(
        "x",
        json!({"phase": "Running", "stages": [stage("a", "Running", &[], ran(5, None, "n"))]}),
    );
    assert_eq!(
        Status::of(&build, at(3)).stages[0].seconds,
        Some(0.0),
        "clocks differ"
    );
}
