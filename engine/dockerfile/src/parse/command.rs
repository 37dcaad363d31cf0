//! `RUN`, `CMD`, `ENTRYPOINT` and `HEALTHCHECK`.

use super::{
    arguments, error,
    flags::{self, Flags, Takes},
};
use crate::{
    ast::{Command, CommandForm, Device, Healthcheck, HealthcheckCommand, Network, Run, Security, Word},
    csv,
    diagnostic::Diagnostic,
    distance, mount,
    nodes::{Args, Node},
    units,
};

/// The shortest duration that Docker takes, in nanoseconds.
const MIN_DURATION: i64 = 1_000_000;

pub(super) fn plain(node: &Node) -> Result<Command, Diagnostic> {
    flags::read(node, &[])?;
    Ok(command(node, &node.args))
}

pub(super) fn run(node: &Node) -> Result<Run, Diagnostic> {
    let flags = flags::read(
        node,
        &[
            ("device", Takes::Values),
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
        ],
    )?;
    let devices = flags
        .values("device")
        .iter()
        .map(device)
        .collect::<Result<_, _>>()?;
    let mounts = flags.values("mount");
    for value in &mounts {
        mount::check(&value.text).map_err(|problem| error("mount", problem.to_string(), value.span))?;
    }
    Ok(Run {
        command: command(node, &node.args),
        mounts,
        network: network(&flags)?,
        security: security(&flags)?,
        devices,
        flags_used: flags.names(),
    })
}

pub(super) fn healthcheck(node: &Node) -> Result<Healthcheck, Diagnostic> {
    let Args::Health { kind, command: args } = &node.args else {
        return Err(arguments(node, "HEALTHCHECK requires at least one argument")
            .advise("write HEALTHCHECK CMD command, or HEALTHCHECK NONE"));
    };
    let name = kind.text.to_uppercase();
    if name == "NONE" {
        // Flags have no meaning here, and BuildKit does not look at them.
        return match **args {
            Args::None => Ok(Healthcheck::None),
            _ => Err(arguments(node, "HEALTHCHECK NONE takes no arguments")),
        };
    }
    let flags = flags::read(
        node,
        &[
            ("interval", Takes::Value),
            ("retries", Takes::Value),
            ("start-interval", Takes::Value),
            ("start-period", Takes::Value),
            ("timeout", Takes::Value),
        ],
    )?;
    if name != "CMD" {
        let message = format!("Unknown type {name:?} in HEALTHCHECK (try CMD)");
        return Err(error("arguments", message, kind.span));
    }
    let command = command(node, args);
    if matches!(&command.form, CommandForm::Exec(argv) if argv.is_empty()) || matches!(**args, Args::None) {
        return Err(error(
            "arguments",
            "Missing command after HEALTHCHECK CMD",
            kind.span,
        ));
    }
    Ok(Healthcheck::Check(HealthcheckCommand {
        command,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    }))
}

fn command(node: &Node, args: &Args) -> Command {
    let (form, span) = match args {
        Args::Json { strings, span } => (CommandForm::Exec(strings.clone()), *span),
        Args::Text(text) => (CommandForm::Shell(text.text.clone()), text.span),
        _ => (CommandForm::Shell(String::new()), node.keyword.span),
    };
    Command {
        form,
        heredocs: node.heredocs.clone(),
        span,
    }
}

fn network(flags: &Flags) -> Result<Network, Diagnostic> {
    let Some(word) = flags.written("network") else {
        return Ok(Network::Default);
    };
    match word.text.as_str() {
        "default" => Ok(Network::Default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => Err(
            error("flag-value", format!("invalid network mode {other:?}"), word.span)
                .advise("--network takes default, none or host"),
        ),
    }
}

fn security(flags: &Flags) -> Result<Security, Diagnostic> {
    let Some(word) = flags.written("security") else {
        return Ok(Security::Sandbox);
    };
    match word.text.as_str() {
        "sandbox" => Ok(Security::Sandbox),
        "insecure" => Ok(Security::Insecure),
        other => Err(error(
            "flag-value",
            format!("security {other:?} is not valid"),
            word.span,
        )
        .advise("--security takes sandbox or insecure")),
    }
}

fn device(word: &Word) -> Result<Device, Diagnostic> {
    let bad = |message: String| error("device", message, word.span);
    let fields =
        csv::fields(&word.text).map_err(|problem| bad(format!("failed to parse csv devices: {problem}")))?;
    let mut device = Device {
        name: String::new(),
        required: false,
    };
    for field in fields {
        match field
            .split_once('=')
            .map(|(key, value)| (key.to_lowercase(), value))
        {
            None if field.eq_ignore_ascii_case("required") => device.required = true,
            None if device.name.is_empty() => device.name = field,
            None => return Err(bad(format!("invalid field '{field}' must be a key=value pair"))),
            Some((key, value)) if key == "required" => {
                device.required =
                    units::boolean(value).ok_or_else(|| bad(format!("invalid value for {key}: {value}")))?;
            }
            Some((key, value)) if key == "name" => {
                if !device.name.is_empty() {
                    return Err(bad(format!("device name already set to {}", device.name)));
                }
                value.clone_into(&mut device.name);
            }
            // A CDI name holds a `=` itself.
            Some(_) if device.name.is_empty() => device.name = field,
            Some((key, _)) => {
                let near = distance::suggestion(distance::closest(&key, ["name", "required"]));
                return Err(bad(format!("unexpected key '{key}' in '{field}'{near}")));
            }
        }
    }
    Ok(device)
}

fn interval(flags: &Flags, name: &str) -> Result<i64, Diagnostic> {
    let Some(word) = flags.value(name) else {
        return Ok(0);
    };
    let duration = units::duration(&word.text).map_err(|problem| {
        error("flag-value", problem, word.span).advise(format!("write a number with a unit: --{name}=30s"))
    })?;
    if duration != 0 && duration < MIN_DURATION {
        return Err(error(
            "flag-value",
            format!("Interval {name:?} cannot be less than 1ms"),
            word.span,
        ));
    }
    Ok(duration)
}

fn retries(flags: &Flags) -> Result<i64, Diagnostic> {
    let Some(word) = flags.value("retries") else {
        return Ok(0);
    };
    let retries: i32 = word.text.parse().map_err(|problem: std::num::ParseIntError| {
        let reason = match problem.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        error(
            "flag-value",
            format!("parsing {:?}: {reason}", word.text),
            flags.span("retries", word.span),
        )
        .advise("--retries takes a whole number")
    })?;
    if retries < 0 {
        return Err(error(
            "flag-value",
            format!("--retries cannot be negative ({retries})"),
            word.span,
        ));
    }
    Ok(i64::from(retries))
}
