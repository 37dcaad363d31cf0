//! `--call` and `--check`: tell about a Dockerfile, build nothing.

use super::{request, sources::Sources};
use crate::{csv::fields, options::BuildOptions};
use anyhow::{Result, bail};
use slipway_engine::{BuildError, driver::Driver};
use slipway_plan::{Bases, Outline, PlanRequest};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

/// What is to be told.
pub(super) struct Call {
    kind: Kind,
    json: bool,
}

enum Kind {
    Check,
    Outline,
    Targets,
}

/// The call that the flags ask for.
pub(super) fn wanted(options: &BuildOptions) -> Result<Option<Call>> {
    if options.check {
        return Ok(Some(Call {
            kind: Kind::Check,
            json: false,
        }));
    }
    let Some(spec) = &options.call else {
        return Ok(None);
    };
    let mut kind = None;
    let mut json = false;
    for (key, value) in fields(spec).map_err(anyhow::Error::msg)? {
        match (key.as_str(), value.as_deref()) {
            ("build", None) => return Ok(None),
            ("check" | "lint", None) => kind = Some(Kind::Check),
            ("outline", None) => kind = Some(Kind::Outline),
            ("targets", None) => kind = Some(Kind::Targets),
            ("format", Some("json")) => json = true,
            ("format", Some("text")) => json = false,
            _ => bail!("--call {spec:?}: check, outline or targets is expected, with ,format=json for JSON"),
        }
    }
    Ok(kind.map(|kind| Call { kind, json }))
}

/// Tells it.
pub(super) async fn run(
    call: &Call,
    options: &BuildOptions,
    driver: &Driver,
    sources: &Sources,
) -> Result<ExitCode> {
    let dockerfile = sources.parse()?;
    match call.kind {
        Kind::Targets => {
            let targets = slipway_plan::targets(&dockerfile);
            if call.json {
                writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&targets)?)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut rows = vec![("TARGET".to_owned(), "DESCRIPTION".to_owned())];
            for target in targets {
                let name = match (target.name.is_empty(), target.default) {
                    (true, true) => "(default)".to_owned(),
                    (true, false) => continue,
                    (false, true) => format!("{} (default)", target.name),
                    (false, false) => target.name,
                };
                rows.push((name, target.description));
            }
            write!(
                io::stdout(),
                "{}",
                table(
                    &rows
                        .iter()
                        .map(|(a, b)| vec![a.as_str(), b.as_str()])
                        .collect::<Vec<_>>()
                )
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Kind::Outline => {
            let request = request::plan_request(options, sources, dockerfile)?;
            let outline = outline(driver, &request).await?;
            if call.json {
                writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&outline)?)?;
            } else {
                write!(io::stdout(), "{}", render(&outline))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Kind::Check => {
            let mut request = request::plan_request(options, sources, dockerfile)?;
            request.all_stages = request.target.is_none();
            let plan = driver.plan(&request).await?;
            driver.progress.finish();
            if call.json {
                writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&plan.warnings)?)?;
            } else {
                for warning in &plan.warnings {
                    writeln!(
                        io::stdout(),
                        "WARNING: {:?}{}",
                        warning.rule,
                        warning
                            .url
                            .as_ref()
                            .map(|url| format!(" - {url}"))
                            .unwrap_or_default()
                    )?;
                    writeln!(io::stdout(), "{}", warning.detail)?;
                    let place = slipway_engine::Place {
                        file: plan.dockerfile.clone(),
                        source: plan.source.as_str().into(),
                        span: warning.span,
                        instruction: String::new(),
                    };
                    writeln!(io::stdout(), "{}", place.excerpt())?;
                }
                let found = match plan.warnings.len() {
                    0 => "no warnings found.".to_owned(),
                    1 => "1 warning has been found!".to_owned(),
                    n => format!("{n} warnings have been found!"),
                };
                writeln!(io::stdout(), "Check complete, {found}")?;
            }
            Ok(if plan.warnings.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

async fn outline(driver: &Driver, request: &PlanRequest) -> Result<Outline> {
    let mut bases = Bases::new();
    loop {
        let answer = slipway_plan::outline(request, &bases)
            .map_err(|errors| BuildError::dockerfile(errors, &request.dockerfile.source))?;
        match answer {
            Ok(outline) => return Ok(outline),
            Err(needed) => {
                for base in needed {
                    let answer = driver.images.resolve(&base).await;
                    bases.insert(base, answer);
                }
            }
        }
    }
}

fn render(outline: &Outline) -> String {
    let mut text = String::new();
    if !outline.name.is_empty() {
        let _ = writeln!(text, "TARGET:      {}", outline.name);
    }
    if !outline.description.is_empty() {
        let _ = writeln!(text, "DESCRIPTION: {}", outline.description);
    }
    if !outline.args.is_empty() {
        let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
        rows.extend(
            outline
                .args
                .iter()
                .map(|one| vec![one.name.as_str(), &one.value, &one.description]),
        );
        let _ = write!(text, "\n{}", table(&rows));
    }
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !list.is_empty() {
            let mut rows = vec![vec![title, "REQUIRED"]];
            rows.extend(
                list.iter()
                    .map(|one| vec![one.name.as_str(), if one.required { "true" } else { "" }]),
            );
            let _ = write!(text, "\n{}", table(&rows));
        }
    }
    text
}

/// Columns, padded.
fn table(rows: &[Vec<&str>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row
            .iter()
            .zip(&widths)
            .fold(String::new(), |line, (cell, width)| {
                format!("{line}{cell:width$}   ")
            });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
