//! The events of a build on several nodes.

use super::Board;
use crate::{
    cluster::{
        follow::Update,
        pods::{BuildPod, Work},
    },
    view::fixtures::{at, build, plain, running, stage},
};
use serde_json::json;
use slipway_engine::progress::Event;
use std::sync::Arc;

fn pod(name: &str, stage: &str, node: &str, attempt: u32) -> Arc<BuildPod> {
    Arc::new(BuildPod {
        name: name.into(),
        work: Work::Stage(stage.into()),
        attempt,
        run: 1,
        node: Some(node.into()),
        started: true,
        ended: false,
        container: "runner".into(),
    })
}

fn line(pod: &Arc<BuildPod>, text: &str) -> Update {
    Update::Line {
        pod: pod.clone(),
        text: text.into(),
    }
}

/// Events as short words.
fn words(events: Vec<Event>) -> Vec<String> {
    let word = |event| match event {
        Event::Started { id, name, place } => format!("{id} {name} @{}", place.unwrap_or_default()),
        Event::Log { id, line, .. } => format!("{id} | {line}"),
        Event::Done { id, cached: true, .. } => format!("{id} cached"),
        Event::Done { id, .. } => format!("{id} done"),
        Event::Failed { id, error } => format!("{id} failed {error}"),
        Event::Cancelled { id } => format!("{id} stopped"),
        other => format!("{other:?}"),
    };
    events.into_iter().map(word).collect()
}

#[test]
fn steps_of_all_pods_have_numbers_of_their_own() {
    let mut board = Board::default();
    let (a, b) = (
        pod("a", "a-linux-amd64", "n1", 1),
        pod("b", "b-linux-amd64", "n2", 2),
    );
    let mut seen = Vec::new();
    for update in [
        line(&a, "#1 [a 1/2] RUN x"),
        line(&b, "#1 [b 1/1] RUN y"),
        line(&a, "#1 0.100 hello"),
        line(&b, "#1 ERROR: it broke"),
        line(&b, "error: it broke"),
        line(&a, "#1 DONE 0.2s"),
        line(&a, "#2 [a 2/2] RUN z"),
        line(&a, "#7 0.1 of nothing that began"),
        Update::LogEnded(a.clone()),
        Update::LogEnded(b.clone()),
    ] {
        seen.extend(board.update(update));
    }
    assert_eq!(
        words(seen),
        [
            "1 [a 1/2] RUN x @n1",
            "2 [b 1/1] RUN y (attempt 2) @n2",
            "1 | hello",
            "2 failed it broke",
            "1 done",
            "3 [a 2/2] RUN z @n1",
            "4 0.1 of nothing that began @n1",
            "3 stopped",
            "4 stopped",
        ]
    );
}

#[test]
fn a_stage_that_needs_no_pod_is_told_once() {
    let mut board = Board::default();
    let update = || Update::Build(Box::new(running()));
    assert_eq!(words(board.update(update())), ["1 [base] 2 steps @", "1 cached"]);
    assert_eq!(words(board.update(update())), [""; 0]);
}

#[test]
fn the_platform_is_told_where_there_are_several() {
    let mut board = Board::default();
    let arm = json!({"platform": "linux/arm64"});
    let both = build(
        "x",
        json!({"phase": "Running", "stages": [stage("a", "Running", &[], json!({})), stage("a", "Running", &[], arm)]}),
    );
    board.update(Update::Build(Box::new(both)));
    let pod = pod("a", "a-linux-arm64", "n1", 1);
    assert_eq!(
        words(board.update(line(&pod, "#1 [a 1/1] RUN x"))),
        ["1 [a 1/1] RUN x @n1 linux/arm64"]
    );
}

#[test]
fn below_stand_the_stages_that_wait_and_how_far_it_is() {
    let mut board = Board::default();
    insta::assert_snapshot!(plain(&board.footer(at(5))), @"            waiting for the ImageBuild");
    board.update(Update::Build(Box::new(running())));
    board.update(Update::Pod(pod("a", "a", "n1", 1)));
    board.update(Update::Pod(pod("b", "b", "n2", 1)));
    board.note("cancelling");
    insta::assert_snapshot!(plain(&board.footer(at(20))), @"
     ▹     12s  [lint]  starting on node-1
     …          [final]  waits for build, lint
           19s  1 of 4 stages, 1 cached, 2 nodes
     ! cancelling
    ");
}

#[test]
fn what_holds_a_build_up_is_told() {
    let mut board = Board::default();
    let held = build(
        "x",
        json!({
            "phase": "Planning",
            "conditions": [crate::view::fixtures::condition("Ready", "Unknown", "Unschedulable", "no node can take the plan", 1)],
        }),
    );
    board.update(Update::Build(Box::new(held)));
    assert_eq!(
        plain(&board.footer(at(5))),
        "            planning: no node can take the plan\n"
    );
}

#[test]
fn many_waiting_stages_are_counted() {
    let rows: Vec<_> = (0..9)
        .map(|n| stage(&format!("s{n}"), "Waiting", &[], json!({})))
        .collect();
    let mut board = Board::default();
    board.update(Update::Build(Box::new(build(
        "x",
        json!({"phase": "Running", "stages": rows}),
    ))));
    let text = plain(&board.footer(at(1)));
    assert_eq!(text.lines().count(), 5);
    assert!(text.contains("… and 6 more wait"), "{text}");
}
