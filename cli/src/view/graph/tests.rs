//! The three forms of a graph.

use super::{Graph, dot, mermaid, text};
use crate::view::fixtures::{build, plain, running, stage};
use serde_json::json;

fn of(dockerfile: &str, target: Option<&str>, platforms: &[&str]) -> Graph {
    crate::commands::graph::of_text(dockerfile, target, platforms).unwrap()
}

const DIAMOND: &str = "\
FROM debian:bookworm AS base
RUN a
FROM base AS build
COPY . .
RUN b
FROM base AS lint
RUN c
FROM scratch AS docs
COPY x /
FROM gcr.io/distroless/static@sha256:0000000000000000000000000000000000000000000000000000000000000000
COPY --from=build /out /
RUN --mount=type=bind,from=lint,target=/lint d
COPY --from=build /more /
";

#[test]
fn a_local_graph_says_how_each_stage_is_read() {
    let graph = of(DIAMOND, None, &["linux/amd64"]);
    insta::assert_snapshot!(plain(&text(&graph)), @"
    stage-4  3 steps
    ├─ build  by COPY  2 steps
    │  └─ base  by FROM  1 step
    │     └─ debian:bookworm
    ├─ lint  by RUN  1 step
    │  └─ base  by FROM  (above)
    └─ gcr.io/distroless/static
    not needed: docs
    ");
    insta::assert_snapshot!(mermaid(&graph), @r#"
    flowchart LR
      s0["base<br/>from debian:bookworm, 1 step"]
      s1["build<br/>2 steps"]
      s2["lint<br/>1 step"]
      s3(["stage-4<br/>from gcr.io/distroless/static, 3 steps"])
      s4["docs<br/>not needed"]
      s0 -->|FROM| s1
      s0 -->|FROM| s2
      s1 -->|COPY| s3
      s2 -->|RUN| s3
      classDef idle stroke-dasharray:4
      class s4 idle
    "#);
    insta::assert_snapshot!(dot(&graph), @r#"
    digraph build {
      rankdir=LR;
      node [shape=box, style=rounded, fontname="sans-serif"];
      edge [fontname="sans-serif", fontsize=10];
      s0 [label="base\nfrom debian:bookworm\n1 step"];
      s1 [label="build\n2 steps"];
      s2 [label="lint\n1 step"];
      s3 [label="stage-4\nfrom gcr.io/distroless/static\n3 steps", peripheries=2];
      s4 [label="docs", style="rounded,dashed"];
      s0 -> s1 [label="FROM"];
      s0 -> s2 [label="FROM"];
      s1 -> s3 [label="COPY"];
      s2 -> s3 [label="RUN"];
    }
    "#);
}

#[test]
fn a_target_makes_the_rest_unneeded() {
    let graph = of(DIAMOND, Some("lint"), &["linux/amd64"]);
    insta::assert_snapshot!(plain(&text(&graph)), @"
    lint  1 step
    └─ base  by FROM  1 step
       └─ debian:bookworm
    not needed: build, docs, stage-4
    ");
}

#[test]
fn platforms_are_kept_apart_and_what_they_share_is_there_once() {
    let file = "FROM --platform=$BUILDPLATFORM golang AS build\nRUN x\nFROM debian\nCOPY --from=build /a /\n";
    let graph = of(file, None, &["linux/amd64", "linux/arm64"]);
    insta::assert_snapshot!(plain(&text(&graph)), @"
    stage-1 linux/amd64  1 step
    ├─ build linux/amd64  by COPY  1 step
    │  └─ golang:latest
    └─ debian:latest
    stage-1 linux/arm64  1 step
    ├─ build linux/amd64  by COPY  (above)
    └─ debian:latest
    ");
    let mermaid = mermaid(&graph);
    assert!(
        mermaid.contains("subgraph p0[\"linux/amd64\"]") && mermaid.contains("subgraph p1[\"linux/arm64\"]")
    );
    let dot = dot(&graph);
    assert!(dot.contains("subgraph cluster_1 {\n    label=\"linux/arm64\";"));
}

#[test]
fn a_builds_graph_shows_states() {
    let graph = Graph::of_build(&running());
    insta::assert_snapshot!(plain(&text(&graph)), @"
    … final  2 steps, waiting
    ├─ ▸ build  2 steps, running
    │  ├─ ✓ deps  2 steps, succeeded
    │  │  └─ ✓ base  2 steps, cached
    │  └─ ✓ base  (above)
    └─ ▹ lint  2 steps, starting
       └─ ✓ deps  (above)
    not needed: docs
    ");
    let mermaid = mermaid(&graph);
    assert!(
        mermaid.contains("class s0,s1 good") && mermaid.contains("class s2,s3 busy"),
        "{mermaid}"
    );
    assert!(mermaid.contains("s4[\"docs<br/>skipped\"]"), "{mermaid}");
}

#[test]
fn names_cannot_break_out_of_their_labels() {
    let odd = build(
        "x",
        json!({"stages": [stage("a\"]<b>#\\", "Failed", &[], json!({}))]}),
    );
    let graph = Graph::of_build(&odd);
    assert!(mermaid(&graph).contains("a#quot;]#lt;b#gt;#35;\\<br/>"));
    assert!(dot(&graph).contains(r#"label="a\"]<b>#\\\n2 steps\nfailed""#));
}

#[test]
fn a_status_with_a_circle_ends() {
    let odd = build(
        "x",
        json!({"stages": [stage("a", "Waiting", &["b"], json!({})), stage("b", "Waiting", &["a"], json!({}))]}),
    );
    let graph = Graph::of_build(&odd);
    // Nobody is at the root; it only must not hang.
    assert!(text(&graph).len() <= 2);
    assert!(dot(&graph).contains("s0 -> s1"));
}
