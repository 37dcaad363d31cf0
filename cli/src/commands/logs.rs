//! `slipway logs`: what the pods of a build print, plan and all stages, each line labelled.

use crate::{
    cluster::{
        Cluster, ClusterOptions,
        follow::{Follow, Update, Wanted},
        log,
        pods::{BuildPod, Work, owned, selector},
        told,
    },
    exit::Error,
    view::{
        look::{ColourMode, Look},
        tree,
    },
};
use anyhow::Result;
use clap::Args;
use kube::api::ListParams;
use slipway_crd::{ImageBuild, StageStatus};
use slipway_engine::progress::{Line, Paint};
use std::{
    io::{self, Write},
    process::ExitCode,
};
use tokio::sync::mpsc;

/// Flags of `logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway logs shop
  kubectl slipway logs shop -f
  kubectl slipway logs shop --stage build
  kubectl slipway logs shop --stage build --no-label > build.log

With -f the lines of all stages come as they are printed, those of pods that begin later too, until the build has ended.
Without it the pods come one after the other, the plan first.")]
pub struct Options {
    /// The ImageBuild
    name: String,
    /// Go on until the build has ended
    #[arg(short, long)]
    follow: bool,
    /// Only this stage, by its name or id (`plan` is the plan); may be given several times
    #[arg(short, long = "stage", value_name = "STAGE")]
    stages: Vec<String>,
    /// The lines alone, without the stage's name before each
    #[arg(long)]
    no_label: bool,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: ColourMode,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Shows the logs.
pub async fn run(options: Options) -> Result<ExitCode> {
    let cluster = options.cluster.connect().await?;
    let build = cluster.build(&options.name).await?;
    check_stages(&options, &build)?;
    let mut labels = Labels::new(&options, Look::of(options.color, &io::stdout()));
    labels.learn(&build);
    if options.follow {
        follow(&options, &cluster, labels).await
    } else {
        once(&options, &cluster, &build, &labels).await
    }
}

/// A stage that the build does not have is a mistake, once its stages are known.
fn check_stages(options: &Options, build: &ImageBuild) -> Result<(), Error> {
    let rows = rows(build);
    if rows.is_empty() {
        return Ok(());
    }
    for wanted in &options.stages {
        if wanted != "plan" && !rows.iter().any(|row| row.name == *wanted || row.id == *wanted) {
            let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
            names.dedup();
            return Err(Error::Usage(format!(
                "the build {} has no stage {wanted:?}; it has plan, {}",
                options.name,
                names.join(", ")
            )));
        }
    }
    Ok(())
}

fn rows(build: &ImageBuild) -> &[StageStatus] {
    build
        .status
        .as_ref()
        .map(|status| status.stages.as_slice())
        .unwrap_or_default()
}

async fn follow(options: &Options, cluster: &Cluster, mut labels: Labels) -> Result<ExitCode> {
    let wanted = Wanted {
        logs: true,
        after: None,
    };
    let mut follow = Follow::start(cluster, &options.name, wanted);
    let mut read = 0;
    let mut last = None;
    while let Some(update) = follow.next().await {
        match update? {
            Update::Build(build) => {
                labels.learn(&build);
                last = Some(build);
            }
            Update::Line { pod, text } if labels.shows(&pod) => labels.print(&pod, &text)?,
            Update::LogEnded(pod) if labels.shows(&pod) => read += 1,
            Update::Blind(text) => eprintln!("note: {text}"),
            Update::Gone => return Err(cluster.no_build(&options.name).into()),
            Update::Line { .. } | Update::LogEnded(_) | Update::Pod(_) => {}
        }
    }
    match last {
        Some(build) if read == 0 => gone(options, &build),
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn once(options: &Options, cluster: &Cluster, build: &ImageBuild, labels: &Labels) -> Result<ExitCode> {
    let params = ListParams::default().labels(&selector(&options.name));
    let list = cluster
        .pods()
        .list(&params)
        .await
        .map_err(|error| told(&error, "list the build's pods"))?;
    let uid = build.metadata.uid.as_deref().unwrap_or_default();
    let run = build.status.as_ref().map(|status| status.runs);
    let mut pods: Vec<BuildPod> = list
        .items
        .iter()
        .filter(|pod| owned(pod, uid))
        .filter_map(BuildPod::of)
        .filter(|pod| Some(pod.run) == run && labels.shows(pod))
        .collect();
    let place = |pod: &BuildPod| match &pod.work {
        Work::Plan => None,
        Work::Stage(id) => Some(rows(build).iter().position(|row| row.id == *id)),
    };
    pods.sort_by_key(|pod| (place(pod), pod.attempt));
    let mut read = 0;
    for pod in pods.iter().filter(|pod| pod.started) {
        let (sender, mut lines) = mpsc::channel(256);
        let api = cluster.pods();
        let reading = async {
            let outcome = log::read(&api, &pod.name, &pod.container, false, &sender, |line| line).await;
            drop(sender);
            outcome
        };
        let printing = async {
            while let Some(line) = lines.recv().await {
                labels.print(pod, &line)?;
            }
            Ok::<_, io::Error>(())
        };
        let (outcome, printed) = tokio::join!(reading, printing);
        printed?;
        if outcome.map_err(|error| told(&error, &format!("read the log of pod {}", pod.name)))? {
            read += 1;
        }
    }
    if read == 0 {
        return gone(options, build);
    }
    Ok(ExitCode::SUCCESS)
}

/// There are no logs: why, and what is left of them.
fn gone(options: &Options, build: &ImageBuild) -> Result<ExitCode> {
    let Some(status) = build.status.as_ref().filter(|status| status.run.is_some()) else {
        eprintln!("note: the build {} has not begun; -f waits for it", options.name);
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = |row: &&StageStatus| options.stages.contains(&row.name) || options.stages.contains(&row.id);
    let rows: Vec<_> = rows(build).iter().filter(wanted).collect();
    if !rows.is_empty() && rows.iter().all(|row| row.attempts == 0) {
        let states: Vec<_> = rows
            .iter()
            .map(|row| format!("{:?}", row.state).to_lowercase())
            .collect();
        eprintln!(
            "note: no pod has run for stage {}: it is {}",
            options.stages.join(", "),
            states.join(", ")
        );
        return Ok(ExitCode::SUCCESS);
    }
    if !status.phase.unwrap_or_default().is_final() {
        eprintln!(
            "note: no pod of the build {} has started yet; -f waits for them",
            options.name
        );
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(failure) = &status.failure {
        let lines = tree::failure(&options.name, failure);
        Look::of(options.color, &io::stdout()).write(&mut io::stdout(), &lines)?;
    }
    let rest = if status.failure.is_some() {
        "; above is what the ImageBuild kept"
    } else {
        ""
    };
    Err(Error::Cluster(format!(
        "the pods of the build {} are gone, and their logs with them{rest}",
        options.name
    ))
    .into())
}

/// What stands before each line.
struct Labels {
    wanted: Vec<String>,
    bare: bool,
    look: Look,
    rows: Vec<StageStatus>,
    platforms: bool,
    width: usize,
}

impl Labels {
    fn new(options: &Options, look: Look) -> Self {
        Self {
            wanted: options.stages.clone(),
            bare: options.no_label,
            look,
            rows: Vec::new(),
            platforms: false,
            width: "plan".len(),
        }
    }

    /// Takes over the stages of the build, as soon as they are known.
    fn learn(&mut self, build: &ImageBuild) {
        let rows = rows(build);
        if rows.len() != self.rows.len() {
            self.rows = rows.to_vec();
            self.platforms = rows.iter().any(|row| row.platform != rows[0].platform);
            let widths =
                (0..rows.len()).map(|place| Line::new().with(Paint::Plain, self.name(place)).width());
            self.width = widths.max().unwrap_or(0).max("plan".len());
        }
    }

    fn name(&self, place: usize) -> String {
        let Some(row) = self.rows.get(place) else {
            return String::new();
        };
        if self.platforms {
            format!("{} {}", row.name, row.platform)
        } else {
            row.name.clone()
        }
    }

    /// Whether a pod's lines are wanted.
    fn shows(&self, pod: &BuildPod) -> bool {
        if self.wanted.is_empty() {
            return true;
        }
        match &pod.work {
            Work::Plan => self.wanted.iter().any(|wanted| wanted == "plan"),
            Work::Stage(id) => {
                let name = self.rows.iter().find(|row| row.id == *id).map(|row| &row.name);
                self.wanted
                    .iter()
                    .any(|wanted| wanted == id || Some(wanted) == name)
            }
        }
    }

    /// The line as it is printed. The colour goes by the stage's place, so a stage keeps its colour.
    fn line(&self, pod: &BuildPod, text: &str) -> Line {
        let (name, paint) = match &pod.work {
            Work::Plan => ("plan".to_owned(), Paint::Strong),
            Work::Stage(id) => match self.rows.iter().position(|row| row.id == *id) {
                Some(place) => (self.name(place), Paint::Label(place)),
                None => (id.clone(), Paint::Plain),
            },
        };
        let name = Line::new().with(paint, name);
        let blanks = self.width.saturating_sub(name.width());
        let mut line = name;
        line.push(Paint::Plain, " ".repeat(blanks));
        line.push(Paint::Faint, " │ ");
        line.push(Paint::Plain, text);
        line
    }

    fn print(&self, pod: &BuildPod, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        // What keeps steps apart in one pod's log is noise between those of several; a step's own empty line has a number.
        if text.is_empty() && !self.bare {
            return Ok(());
        }
        if self.bare {
            writeln!(out, "{text}")
        } else {
            writeln!(out, "{}", self.line(pod, text).render(self.look.colour))
        }
    }
}
