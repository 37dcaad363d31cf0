//! Why a step runs.

use crate::common::{plan_text, planned, request};
use slipway_oci::Digest;
use slipway_plan::{
    BuildPlan, Input, Keys, PlanRequest, Source,
    explain::{Explanation, Had, Outcome, Why, explain},
    keys as keys_of,
    keys::{Change, fresh, run_keys},
    protocol::NoCache,
};

fn keys(plan: &BuildPlan, salt: &str) -> Keys {
    keys_of(plan, &|input: &Input| {
        matches!(input.source, Source::Context).then(|| {
            Digest::of(format!("{salt}{}", serde_json::to_string(&input.selection).unwrap()).as_bytes())
        })
    })
}

/// As if the cache had exactly the steps of `before`.
fn explained(text: &str, salt: &str, before: Option<&str>) -> Explanation {
    let plan = plan_text(text);
    let now = keys(&plan, salt);
    let old = before.map(|text| {
        let plan = plan_text(text);
        let keys = keys(&plan, "");
        (plan, keys)
    });
    let known: Vec<_> = old
        .iter()
        .flat_map(|(_, keys)| &keys.stages)
        .flat_map(|stage| stage.steps.iter().flatten())
        .map(|step| step.key.clone())
        .collect();
    let had: Vec<Had> = now
        .stages
        .iter()
        .map(|stage| Had {
            outcome: Outcome::Runs,
            steps: stage
                .steps
                .iter()
                .map(|step| step.as_ref().is_some_and(|step| known.contains(&step.key)))
                .collect(),
        })
        .collect();
    explain(&plan, &now, &had, old.as_ref().map(|(plan, keys)| (plan, keys)))
}

fn reasons(explanation: &Explanation) -> Vec<Vec<Why>> {
    let stage = explanation.stages.last().unwrap();
    stage.steps.iter().map(|step| step.why.clone()).collect()
}

#[test]
fn the_first_cause_is_named_and_what_follows_from_it_is_told_apart() {
    let before = "FROM alpine\nENV a=1\nRUN one\nCOPY x /\nRUN two\nRUN three\n";
    let cases: [(&str, &str, Vec<Vec<Why>>); 6] = [
        (before, "", vec![vec![], vec![], vec![], vec![]]),
        (
            before,
            "other",
            vec![
                vec![],
                vec![Why::Changed(Change::Files("context:/x".into()))],
                vec![Why::Follows],
                vec![Why::Follows],
            ],
        ),
        (
            "FROM alpine\nENV a=2\nRUN one\nCOPY x /\nRUN two\nRUN three\n",
            "",
            vec![
                vec![Why::Changed(Change::Variable("a".into()))],
                vec![Why::Follows],
                vec![Why::Changed(Change::Variable("a".into()))],
                vec![Why::Changed(Change::Variable("a".into()))],
            ],
        ),
        (
            "FROM alpine\nENV a=1\nRUN one\nCOPY x /\nRUN 2\nRUN three\n",
            "",
            vec![
                vec![],
                vec![],
                vec![Why::Changed(Change::Instruction)],
                vec![Why::Follows],
            ],
        ),
        (
            "FROM alpine\nENV a=1\nRUN one\nRUN zero\nCOPY x /\nRUN two\nRUN three\n",
            "",
            vec![
                vec![],
                vec![Why::New],
                vec![Why::Follows],
                vec![Why::Follows],
                vec![Why::Follows],
            ],
        ),
        (
            "FROM alpine\nENV a=1\nCOPY x /\nRUN two\nRUN three\n",
            "",
            vec![
                vec![Why::Changed(Change::Parent)],
                vec![Why::Follows],
                vec![Why::Follows],
            ],
        ),
    ];
    for (text, salt, expected) in cases {
        assert_eq!(reasons(&explained(text, salt, Some(before))), expected, "{text}");
    }
}

#[test]
fn without_an_earlier_build_only_that_is_said() {
    let explanation = explained("FROM alpine\nRUN one\nRUN two\n", "", None);
    assert!(!explanation.compared);
    assert_eq!(reasons(&explanation), [vec![Why::First], vec![Why::Follows]]);
    let summary = explanation.summary();
    assert!(
        summary[0].contains("0 of 2 steps") && summary[0].contains("Dockerfile:2 RUN one runs because"),
        "{summary:?}"
    );
    let json = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), explanation);
}

#[test]
fn what_was_kept_and_is_gone_is_told_as_that() {
    let text = "FROM alpine\nRUN one\n";
    let plan = plan_text(text);
    let keys = keys(&plan, "");
    let had = vec![Had {
        outcome: Outcome::Runs,
        steps: vec![false],
    }];
    let explanation = explain(&plan, &keys, &had, Some((&plan, &keys)));
    assert_eq!(reasons(&explanation), [vec![Why::Gone]]);
}

#[test]
fn what_depends_on_a_stage_without_cache_is_not_looked_up_by_its_key() {
    let text = "FROM alpine AS a\nRUN x\nFROM alpine AS other\nRUN y\nFROM alpine\nRUN first\nCOPY --from=a /x /\n\
                RUN last\nCOPY --link --from=other /y /\n";
    let plan = planned(&PlanRequest {
        no_cache: NoCache::Stages(vec!["a".into()]),
        ..request(text)
    });
    let keys = keys(&plan, "");
    assert_eq!(fresh(&plan), [true, false, true]);
    let usable = |stage| -> Vec<bool> {
        let keys = run_keys(&plan, &keys, stage);
        keys.into_iter().map(|key| key.unwrap().usable).collect()
    };
    assert_eq!(usable(0), [false]);
    assert_eq!(usable(1), [true]);
    assert_eq!(usable(2), [true, false, false, true]);
}
