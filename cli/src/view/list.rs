//! Several builds, a row each.

use super::{
    status::Status,
    table::{Table, cell, faint},
    tree::time,
};
use jiff::Timestamp;
use slipway_crd::ImageBuild;
use slipway_engine::progress::{Line, Paint};

/// The table. `spaces` adds the namespace, `wide` what `kubectl get -o wide` adds.
pub fn lines(builds: &[ImageBuild], now: Timestamp, spaces: bool, wide: bool) -> Vec<Line> {
    let mut heading = vec!["NAME", "PHASE", "REASON", "STAGES", "TOOK", "AGE", "IMAGE"];
    if spaces {
        heading.insert(0, "NAMESPACE");
    }
    if wide {
        heading.extend(["DIGEST", "MESSAGE"]);
    }
    let mut table = Table::new(&heading);
    for build in builds {
        let status = Status::of(build, now);
        let progress = build.status.as_ref().and_then(|status| status.progress.clone());
        let made = build.metadata.creation_timestamp.as_ref();
        let paint = match (status.succeeded, status.finished) {
            (true, _) => Paint::Good,
            (false, true) => Paint::Bad,
            (false, false) => Paint::Busy,
        };
        let mut row = vec![
            Line::new().with(Paint::Strong, &status.name),
            Line::new().with(paint, &status.phase),
            cell(
                status
                    .reason
                    .as_deref()
                    .filter(|reason| *reason != status.phase)
                    .unwrap_or("-"),
            ),
            cell(progress.as_deref().unwrap_or("-")),
            cell(status.seconds.map_or_else(|| "-".to_owned(), time)),
            cell(
                made.map(|made| age(now.duration_since(made.0).as_secs()))
                    .unwrap_or_default(),
            ),
            cell(status.images.first().map_or("-", String::as_str)),
        ];
        if spaces {
            row.insert(0, cell(&status.namespace));
        }
        if wide {
            row.push(faint(status.digest.as_deref().unwrap_or("-")));
            row.push(faint(status.message.as_deref().unwrap_or_default()));
        }
        table.row(row);
    }
    table.lines()
}

/// `45s`, `7m`, `3h`, `12d`: how long ago, as kubectl says it.
pub fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}
