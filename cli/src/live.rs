//! A build on a cluster as one build: the events of all its pods, for the same printers that a local build has.
//!
//! ```text
//!  Follow ── Update ──▶ Board ── Event ──▶ engine's printers (tty, plain, rawjson, quiet)
//! ```

mod board;
mod footer;
mod replay;

use crate::{
    cluster::{
        Cluster,
        follow::{Follow, Update, Wanted},
    },
    exit::{Error, FAILED},
    view::{
        look::{ColourMode, Look},
        tree,
    },
};
use anyhow::Result;
use board::Board;
use jiff::Timestamp;
use slipway_crd::ImageBuild;
use slipway_engine::progress::{Event, Sink};
use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

/// How often the lines below the running steps are made anew, for their clocks.
const TICK: Duration = Duration::from_millis(250);

/// How following a build ended.
#[derive(Debug)]
pub enum Ended {
    /// The run is over; this is the build.
    Over(Box<ImageBuild>),
    /// The ImageBuild was deleted meanwhile.
    Gone,
    /// The user does not want to see more.
    Left,
}

/// What Ctrl-C does while a build is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// The first cancels the build, the second leaves at once.
    Cancel,
    /// It leaves at once; the build goes on.
    Leave,
}

/// Shows a run until it is over.
pub async fn show(
    cluster: &Cluster,
    name: &str,
    wanted: Wanted,
    sink: Arc<dyn Sink>,
    interrupt: OnInterrupt,
) -> Result<Ended> {
    let mut follow = Follow::start(cluster, name, wanted);
    let mut board = Board::default();
    let mut tick = tokio::time::interval(TICK);
    let mut interrupted = false;
    let ended = loop {
        tokio::select! {
            update = follow.next() => match update {
                Some(Ok(Update::Gone)) => break Ok(Ended::Gone),
                Some(Ok(update)) => {
                    let turn = !matches!(update, Update::Line { .. });
                    board.update(update).into_iter().for_each(|event| sink.event(event));
                    if turn {
                        sink.event(footer(&board));
                    }
                }
                Some(Err(error)) => break Err(error),
                None => break match board.into_build() {
                    Some(build) => Ok(Ended::Over(Box::new(build))),
                    None => Err(Error::Cluster(format!("the ImageBuild {name} cannot be watched any more")).into()),
                },
            },
            _ = tick.tick() => sink.event(footer(&board)),
            _ = tokio::signal::ctrl_c() => {
                if interrupted || interrupt == OnInterrupt::Leave {
                    break Ok(Ended::Left);
                }
                interrupted = true;
                board.note("cancelling; press Ctrl-C again to leave at once");
                if let Err(error) = crate::commands::cancel::cancel(cluster, name).await {
                    break Err(error);
                }
            }
        }
    };
    sink.finish();
    ended
}

fn footer(board: &Board) -> Event {
    Event::Footer {
        lines: board.footer(Timestamp::now()),
    }
}

/// Tells how a build ended: digest and names on standard output, a failure on standard error.
pub fn tell(build: &ImageBuild) -> Result<ExitCode> {
    let name = build.metadata.name.as_deref().unwrap_or_default();
    let status = build.status.as_ref();
    if let Some(image) = status.and_then(|status| status.image.as_ref()) {
        for image_name in &image.names {
            writeln!(io::stdout(), "{image_name}@{}", image.digest)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(failure) = status.and_then(|status| status.failure.as_ref()) {
        let lines = tree::failure(name, failure);
        Look::of(ColourMode::Auto, &io::stderr()).write(&mut io::stderr(), &lines)?;
    } else {
        let phase = status.and_then(|status| status.phase).unwrap_or_default();
        eprintln!("imagebuild/{name}: {}", phase.as_str().to_lowercase());
    }
    Ok(ExitCode::from(FAILED))
}
