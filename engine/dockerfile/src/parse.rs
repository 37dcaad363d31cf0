//! Text to syntax tree: judges what [`crate::nodes`] has cut.
//!
//! An instruction with a mistake becomes a diagnostic and is left out of the tree, and the work goes on, so that one
//! look shows all mistakes.

use crate::{
    ast::{Directive, Dockerfile, Instruction, InstructionKind, Span, Stage},
    diagnostic::Diagnostic,
    directive, distance,
    nodes::{self, Args, Node},
    source::Source,
};

mod command;
mod files;
mod flags;
mod simple;
#[cfg(test)]
mod tests;

/// The largest Dockerfile that a build reads, in bytes. [`parse`] itself takes any length.
pub const MAX_FILE: usize = 4 << 20;

/// The keywords, for suggestions.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads a Dockerfile. `name` is used in messages. On failure all errors that could be told apart are returned in the
/// order of the file, at least one.
pub fn parse(name: &str, text: &str) -> Result<Dockerfile, Vec<Diagnostic>> {
    let (dockerfile, errors) = parse_lenient(name, text);
    if errors.is_empty() {
        Ok(dockerfile)
    } else {
        Err(errors)
    }
}

/// As [`parse`], with what could be read in spite of errors; for checks and editors.
pub fn parse_lenient(name: &str, text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let scanned = nodes::scan(name, text);
    let mut dockerfile = Dockerfile {
        name: name.to_owned(),
        source: text.to_owned(),
        escape: scanned.escape,
        directives: directives(text),
        global_args: Vec::new(),
        stages: Vec::new(),
        empty_continuations: scanned.empty_continuations,
    };
    let mut errors = scanned.errors;
    // A FROM with a mistake still begins a stage: what follows it is not to blame.
    let mut bad_from = false;
    for node in scanned.nodes {
        let is_from = node.name() == "FROM";
        let span = node.span;
        let outcome = if is_from {
            simple::stage(node, dockerfile.stages.len()).map(Parsed::Stage)
        } else {
            instruction(node).map(Parsed::Instruction)
        };
        match outcome {
            Ok(Parsed::Stage(stage)) => {
                bad_from = false;
                dockerfile.stages.push(stage);
            }
            Ok(Parsed::Instruction(instruction)) => {
                let is_arg = matches!(instruction.kind, InstructionKind::Arg(_));
                match dockerfile.stages.last_mut() {
                    _ if bad_from => {}
                    Some(stage) => stage.instructions.push(instruction),
                    None if is_arg => dockerfile.global_args.push(instruction),
                    None => {
                        bad_from = true;
                        let message = "no build stage in current context";
                        let error = Diagnostic::error("no-stage", message)
                            .at(name, text, span)
                            .advise("put a FROM in front of it; only ARG may come before the first FROM");
                        errors.push(error);
                    }
                }
            }
            Err(error) => {
                bad_from |= is_from;
                errors.push(error.at(name, text, span));
                // Cutting excerpts takes time, which a file full of mistakes is not worth.
                if errors.len() >= nodes::MAX_ERRORS {
                    break;
                }
            }
        }
    }
    errors.sort_by_key(|error| error.span.map_or(0, |span| span.start));
    errors.truncate(nodes::MAX_ERRORS);
    (dockerfile, errors)
}

/// Reads a Dockerfile that may not be UTF-8; bytes that are not become U+FFFD.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<Dockerfile, Vec<Diagnostic>> {
    parse(name, &String::from_utf8_lossy(bytes))
}

/// Reads one `ONBUILD` trigger as it stands in an image's config. `image` is used in messages. The escape character is
/// always a backslash, because an image does not say what its Dockerfile used.
pub fn parse_onbuild(image: &str, expression: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let name = format!("ONBUILD of {image}");
    let scanned = nodes::scan(&name, expression);
    if !scanned.errors.is_empty() {
        return Err(scanned.errors);
    }
    let whole = Source::new(expression).span(0, expression.len());
    let single =
        |message: &str| vec![Diagnostic::error("onbuild", message).at(name.as_str(), expression, whole)];
    let [node] = <[Node; 1]>::try_from(scanned.nodes)
        .map_err(|_| single("onbuild trigger should be a single expression"))?;
    if node.name() == "FROM" {
        return Err(single("FROM isn't allowed as an ONBUILD trigger"));
    }
    let span = node.span;
    instruction(node).map_err(|error| vec![error.at(name.as_str(), expression, span)])
}

enum Parsed {
    Stage(Stage),
    Instruction(Instruction),
}

/// The directives that are in effect.
fn directives(text: &str) -> Vec<Directive> {
    let source = Source::new(text);
    let mut found = Vec::new();
    for name in ["syntax", "escape", "check"] {
        let Some(directive) = directive::detect(name, text) else {
            continue;
        };
        let Some(line) = source.line(directive.line) else {
            continue;
        };
        let span = source.span(line.start, line.start + line.text().len());
        found.push(Directive {
            name: name.to_owned(),
            value: directive.value,
            text: directive.text,
            span,
        });
    }
    found.sort_by_key(|directive| directive.span.start);
    found
}

/// Judges one instruction that is not a `FROM`.
fn instruction(node: Node) -> Result<Instruction, Diagnostic> {
    let kind = match node.name().as_str() {
        "ADD" => InstructionKind::Add(files::add(&node)?),
        "ARG" => InstructionKind::Arg(simple::arg(&node)?),
        "CMD" => InstructionKind::Cmd(command::plain(&node)?),
        "COPY" => InstructionKind::Copy(files::copy(&node)?),
        "ENTRYPOINT" => InstructionKind::Entrypoint(command::plain(&node)?),
        "ENV" => InstructionKind::Env(simple::pairs(&node)?),
        "EXPOSE" => InstructionKind::Expose(simple::expose(&node)?),
        "HEALTHCHECK" => InstructionKind::Healthcheck(command::healthcheck(&node)?),
        "LABEL" => InstructionKind::Label(simple::pairs(&node)?),
        "MAINTAINER" => InstructionKind::Maintainer(simple::one_text(&node, true)?),
        "ONBUILD" => InstructionKind::Onbuild(simple::onbuild(&node)?),
        "RUN" => InstructionKind::Run(command::run(&node)?),
        "SHELL" => InstructionKind::Shell(simple::shell(&node)?),
        "STOPSIGNAL" => InstructionKind::StopSignal(simple::one_text(&node, false)?),
        "USER" => InstructionKind::User(simple::one_text(&node, true)?),
        "VOLUME" => InstructionKind::Volume(simple::volume(&node)?),
        "WORKDIR" => InstructionKind::Workdir(simple::one_text(&node, true)?),
        _ => return Err(unknown_instruction(&node)),
    };
    Ok(Instruction {
        keyword: node.keyword.text,
        kind,
        span: node.span,
        original: node.original.trim().to_owned(),
        comments: node.comments,
    })
}

fn unknown_instruction(node: &Node) -> Diagnostic {
    let keyword = &node.keyword.text;
    let near = distance::closest_ignoring_case(keyword, KEYWORDS);
    let near = distance::suggestion(near.as_deref());
    error(
        "unknown-instruction",
        format!("unknown instruction: {keyword}{near}"),
        node.keyword.span,
    )
    .advise("if this is a part of the line above, end that line with the escape character")
}

/// An error at a part of an instruction.
fn error(code: &str, message: impl Into<String>, focus: Span) -> Diagnostic {
    Diagnostic::error(code, message).focus(focus)
}

/// An error about the number of arguments.
fn arguments(node: &Node, message: impl Into<String>) -> Diagnostic {
    error("arguments", message, node.keyword.span)
}

/// The words of an argument list; the strings of an array all stand where the array stands.
fn words(args: &Args) -> Vec<crate::ast::Word> {
    match args {
        Args::Words(words) => words.clone(),
        Args::Text(word) => vec![word.clone()],
        Args::Json { strings, span } => strings
            .iter()
            .map(|text| crate::ast::Word {
                text: text.clone(),
                span: *span,
            })
            .collect(),
        _ => Vec::new(),
    }
}
