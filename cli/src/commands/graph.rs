//! `slipway graph`.

use super::{Format, write};
use crate::{
    cluster::ClusterOptions,
    exit::Error,
    view::{
        graph::{Graph, dot, mermaid, text},
        look::{ColourMode, Look},
    },
};
use anyhow::{Context as _, Result, anyhow};
use clap::{Args, ValueEnum};
use slipway_engine::BuildError;
use slipway_oci::{Digest, ImageConfig, Platform};
use slipway_plan::{Bases, Outcome, PlanRequest, ResolvedBase};
use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What the graph is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A tree for people
    Text,
    /// A Mermaid flowchart, for Markdown
    Mermaid,
    /// For Graphviz
    Dot,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// Flags of `graph`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  slipway graph .                                 of ./Dockerfile
  slipway graph . --target test -o mermaid
  slipway graph ./web -f ./web/prod.Dockerfile -o dot | dot -Tsvg > graph.svg
  kubectl slipway graph shop                      of the ImageBuild shop, with the stages' states

What has a slash in it or is `.` is a directory, anything else an ImageBuild. For a directory no registry is asked: what an
ONBUILD of a base image would add is not in the graph.")]
pub struct Options {
    /// A directory with a Dockerfile, or the name of an ImageBuild
    what: String,
    /// The Dockerfile [default: DIR/Dockerfile]; `-` reads it from standard input
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Platforms to build for
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    platform: Vec<String>,
    /// Build argument
    #[arg(long = "build-arg", value_name = "KEY=VALUE")]
    build_args: Vec<String>,
    /// What the graph is written as
    #[arg(short, long, value_enum, default_value = "text")]
    output: Form,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: ColourMode,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Writes a graph.
pub async fn run(options: Options) -> Result<ExitCode> {
    let graph = if is_directory(&options) {
        of_directory(&options)?
    } else {
        let cluster = options.cluster.connect().await?;
        let build = cluster.build(&options.what).await?;
        let graph = Graph::of_build(&build);
        if graph.stages.is_empty() {
            let why = "has no plan yet, so its stages are not known";
            return Err(Error::Cluster(format!("the build {} {why}", options.what)).into());
        }
        graph
    };
    match options.output {
        Form::Text => Look::of(options.color, &io::stdout()).write(&mut io::stdout(), &text(&graph))?,
        Form::Mermaid => write!(io::stdout(), "{}", mermaid(&graph))?,
        Form::Dot => write!(io::stdout(), "{}", dot(&graph))?,
        Form::Json => write(Format::Json, &graph)?,
        Form::Yaml => write(Format::Yaml, &graph)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// By its form alone, so that a directory of a build's name changes nothing.
fn is_directory(options: &Options) -> bool {
    options.file.is_some() || options.what == "." || options.what == ".." || options.what.contains('/')
}

fn of_directory(options: &Options) -> Result<Graph> {
    let path = options
        .file
        .clone()
        .unwrap_or_else(|| Path::new(&options.what).join("Dockerfile"));
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .context("failed to read standard input")?;
        ("Dockerfile".to_owned(), text)
    } else {
        let text = fs::read_to_string(&path).map_err(|error| {
            Error::Usage(format!(
                "failed to read {}: {error}; name the Dockerfile with --file",
                path.display()
            ))
        })?;
        (
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            text,
        )
    };
    let request = Asked {
        target: options.target.clone(),
        platforms: &options.platform,
        args: &options.build_args,
    };
    // As `build` tells it: with the line and what helps.
    of_dockerfile(&name, &text, &request).map_err(|error| match error.downcast::<BuildError>() {
        Ok(error) => anyhow!("{}", error.render()),
        Err(error) => error,
    })
}

/// What the graph depends on beside the Dockerfile.
struct Asked<'a> {
    target: Option<String>,
    platforms: &'a [String],
    args: &'a [String],
}

fn of_dockerfile(name: &str, text: &str, asked: &Asked<'_>) -> Result<Graph> {
    let dockerfile =
        slipway_dockerfile::parse(name, text).map_err(|errors| BuildError::dockerfile(errors, text))?;
    let mut request = PlanRequest::new(dockerfile, Platform::host());
    if !asked.platforms.is_empty() {
        let platform = |text: &String| {
            let platform = text.parse::<Platform>();
            platform.map_err(|error| Error::Usage(format!("invalid platform {text:?}: {error}")))
        };
        request.platforms = asked.platforms.iter().map(platform).collect::<Result<_, _>>()?;
    }
    request.target.clone_from(&asked.target);
    for argument in asked.args {
        let (name, value) = argument
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("--build-arg {argument:?} is not KEY=VALUE")))?;
        request.args.insert(name.to_owned(), value.to_owned());
    }
    let plan = plan(&request, text)?;
    Ok(Graph::of_plan(&plan, &request.dockerfile))
}

/// The graph of a Dockerfile's text, for the tests of its forms.
#[cfg(test)]
pub(crate) fn of_text(text: &str, target: Option<&str>, platforms: &[&str]) -> Result<Graph> {
    let platforms: Vec<String> = platforms.iter().map(|one| (*one).to_owned()).collect();
    let asked = Asked {
        target: target.map(ToOwned::to_owned),
        platforms: &platforms,
        args: &[],
    };
    of_dockerfile("Dockerfile", text, &asked)
}

/// Plans with base images of which nothing is known: the graph needs their names alone.
fn plan(request: &PlanRequest, text: &str) -> Result<slipway_plan::BuildPlan> {
    let mut bases = Bases::new();
    loop {
        match slipway_plan::plan(request, &bases).map_err(|errors| BuildError::dockerfile(errors, text))? {
            Outcome::Ready(plan) => return Ok(*plan),
            Outcome::Need(needed) => {
                for base in needed {
                    let mut config = ImageConfig::default();
                    // An image without layers would be taken for `scratch`.
                    config.rootfs.diff_ids.push(Digest::of(b""));
                    let unknown = ResolvedBase {
                        digest: Digest::of(b""),
                        config,
                    };
                    bases.insert(base, Ok(unknown));
                }
            }
        }
    }
}
