//! `slipway status`.

use super::{Format, write};
use crate::{
    cluster::{
        Cluster, ClusterOptions,
        follow::{Follow, Update, Wanted},
    },
    exit::FAILED,
    view::{
        look::{ColourMode, Look},
        status::Status,
        tree,
    },
};
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use slipway_crd::ImageBuild;
use slipway_engine::progress::{Line, Paint, Screen, Size};
use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

/// Flags of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway status shop
  kubectl slipway status shop --watch
  kubectl slipway status shop -o json | jq '.criticalPath'

The stages that decided when the build ended are marked with *. With --watch the command ends with the build, with
exit code 1 if it failed.")]
pub struct Options {
    /// The ImageBuild
    name: String,
    /// Show it anew whenever it changes, until it has ended
    #[arg(short, long)]
    watch: bool,
    /// How the result is written
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: ColourMode,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Shows a build.
pub async fn run(options: Options) -> Result<ExitCode> {
    let cluster = options.cluster.connect().await?;
    let build = cluster.build(&options.name).await?;
    if options.watch {
        return watch(&options, &cluster).await;
    }
    let status = Status::of(&build, Timestamp::now());
    show(&options, &status)?;
    Ok(ExitCode::SUCCESS)
}

fn show(options: &Options, status: &Status) -> Result<()> {
    match options.output {
        Some(format @ (Format::Json | Format::Yaml)) => write(format, status),
        wide => {
            let lines = tree::lines(status, wide.is_some());
            Look::of(options.color, &io::stdout()).write(&mut io::stdout(), &lines)?;
            Ok(())
        }
    }
}

async fn watch(options: &Options, cluster: &Cluster) -> Result<ExitCode> {
    let mut follow = Follow::start(cluster, &options.name, Wanted::default());
    let look = Look::of(options.color, &io::stdout());
    let live = look.terminal && !matches!(options.output, Some(Format::Json | Format::Yaml));
    let mut screen = Screen::default();
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut build: Option<Box<ImageBuild>> = None;
    let mut told: Option<Status> = None;
    loop {
        tokio::select! {
            update = follow.next() => match update {
                Some(Ok(Update::Build(seen))) => build = Some(seen),
                Some(Ok(Update::Gone)) => return Err(cluster.no_build(&options.name).into()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => break,
            },
            _ = tick.tick(), if live => {}
        }
        let Some(build) = &build else { continue };
        let status = Status::of(build, Timestamp::now());
        if live {
            let frame = tree::lines(&status, options.output.is_some());
            draw(&mut screen, look, &[], &frame)?;
        } else if changed(told.as_ref(), &status) {
            match options.output {
                Some(Format::Json | Format::Yaml) => show(options, &status)?,
                _ => writeln!(io::stdout(), "{}", news(&status))?,
            }
            told = Some(status);
        }
    }
    let Some(build) = build else {
        return Err(cluster.no_build(&options.name).into());
    };
    let status = Status::of(&build, Timestamp::now());
    let lines = tree::lines(&status, options.output.is_some());
    if live {
        // Whole, however high it is: nothing is drawn over it any more.
        draw(&mut screen, look, &lines, &[])?;
    } else if !matches!(options.output, Some(Format::Json | Format::Yaml)) {
        look.write(&mut io::stdout(), &lines)?;
    }
    Ok(if status.succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

fn draw(screen: &mut Screen, look: Look, above: &[Line], frame: &[Line]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut frame = frame.to_vec();
    let size = Size::of(io::stdout());
    let room = size.rows.saturating_sub(1);
    if frame.len() > room && room > 0 {
        // The head says most; that there is more is said too.
        frame.truncate(room - 1);
        frame.push(Line::new().with(Paint::Faint, "… (the window is too low for all of it)"));
    }
    out.write_all(screen.update(size, look.colour, above, &frame).as_bytes())?;
    out.flush()
}

/// Whether something is different that is worth a line. Times alone are not.
fn changed(before: Option<&Status>, now: &Status) -> bool {
    before.is_none_or(|before| {
        let states = |status: &Status| {
            status
                .stages
                .iter()
                .map(|stage| (stage.state, stage.attempts))
                .collect::<Vec<_>>()
        };
        before.phase != now.phase || before.reason != now.reason || states(before) != states(now)
    })
}

/// One line, for logs.
fn news(status: &Status) -> String {
    let mut line = format!(
        "{:>7} {}",
        status.seconds.map(tree::time).unwrap_or_default(),
        status.phase
    );
    if let Some(message) = &status.message {
        line = format!("{line}: {}", message.lines().next().unwrap_or_default());
    }
    let running: Vec<_> = status
        .stages
        .iter()
        .filter(|stage| stage.state == slipway_crd::StageState::Running)
        .map(|stage| stage.name.as_str())
        .collect();
    if running.is_empty() {
        line
    } else {
        format!("{line} (running: {})", running.join(", "))
    }
}
