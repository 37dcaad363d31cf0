//! `FROM` and the instructions that only hold text, words or pairs.

use super::{
    arguments, error,
    flags::{self, Takes},
    words,
};
use crate::{
    ast::{ArgDeclaration, KeyValue, Onbuild, Stage, Word},
    diagnostic::Diagnostic,
    nodes::{Args, Node},
};

pub(super) fn stage(node: Node, index: usize) -> Result<Stage, Diagnostic> {
    let mut args = words(&node.args).into_iter();
    let (base, as_keyword, name) = match (args.next(), args.next(), args.next(), args.next()) {
        (Some(base), None, None, None) => (base, None, None),
        (Some(base), Some(keyword), Some(name), None) if keyword.text.eq_ignore_ascii_case("as") => {
            (base, Some(keyword.text), Some(name))
        }
        _ => {
            return Err(arguments(&node, "FROM requires either one or three arguments")
                .advise("write FROM image, or FROM image AS name"));
        }
    };
    let lower = name.as_ref().map(|name| name.text.to_lowercase());
    if let (Some(name), Some(lower)) = (&name, &lower)
        && !is_stage_name(lower)
    {
        let message = format!(
            "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
            name.text
        );
        return Err(error("stage-name", message, name.span)
            .advise("a name begins with a letter and goes on with letters, digits, `-`, `_` and `.`"));
    }
    let flags = flags::read(&node, &[("platform", Takes::Value)])?;
    Ok(Stage {
        index,
        base,
        doc: doc(&node.comments, lower.as_deref().unwrap_or_default()),
        name: lower,
        name_as_written: name,
        as_keyword,
        platform: flags.value("platform"),
        original: node.original.trim().to_owned(),
        keyword: node.keyword.text,
        span: node.span,
        comments: node.comments,
        instructions: Vec::new(),
    })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}

/// The description of `name` in the comment above: the line that begins with it.
fn doc(comments: &[String], name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let described = comments
        .iter()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    described.unwrap_or_default().to_owned()
}

pub(super) fn arg(node: &Node) -> Result<Vec<ArgDeclaration>, Diagnostic> {
    // Flags are not looked at: BuildKit takes `ARG --x A` too.
    let Args::Declarations(declarations) = &node.args else {
        return Err(at_least_one(node));
    };
    declarations
        .iter()
        .map(|declaration| {
            let name = declaration.name.clone();
            if name.text.is_empty() {
                return Err(blank_name(node, &name));
            }
            let doc = doc(&node.comments, &name.text);
            Ok(ArgDeclaration {
                name,
                default: declaration.default.clone(),
                doc,
            })
        })
        .collect()
}

pub(super) fn pairs(node: &Node) -> Result<Vec<KeyValue>, Diagnostic> {
    flags::read(node, &[])?;
    let Args::Pairs(pairs) = &node.args else {
        return Err(at_least_one(node));
    };
    if let Some(pair) = pairs.iter().find(|pair| pair.key.text.is_empty()) {
        return Err(blank_name(node, &pair.value));
    }
    Ok(pairs.clone())
}

/// The one text of `MAINTAINER`, `STOPSIGNAL`, `USER` and `WORKDIR`.
pub(super) fn one_text(node: &Node, check_flags: bool) -> Result<Word, Diagnostic> {
    let Args::Text(text) = &node.args else {
        return Err(arguments(
            node,
            format!("{} requires exactly one argument", node.name()),
        ));
    };
    if check_flags {
        flags::read(node, &[])?;
    }
    Ok(text.clone())
}

pub(super) fn expose(node: &Node) -> Result<Vec<Word>, Diagnostic> {
    let mut words = words(&node.args);
    if words.is_empty() {
        return Err(at_least_one(node));
    }
    flags::read(node, &[])?;
    words.sort_by(|a, b| a.text.cmp(&b.text));
    Ok(words)
}

pub(super) fn volume(node: &Node) -> Result<Vec<Word>, Diagnostic> {
    let words = words(&node.args);
    if words.is_empty() {
        return Err(at_least_one(node));
    }
    flags::read(node, &[])?;
    words
        .into_iter()
        .map(|word| match word.text.trim() {
            "" => Err(error(
                "arguments",
                "VOLUME specified can not be an empty string",
                word.span,
            )),
            text => Ok(Word {
                text: text.to_owned(),
                span: word.span,
            }),
        })
        .collect()
}

pub(super) fn shell(node: &Node) -> Result<Vec<String>, Diagnostic> {
    flags::read(node, &[])?;
    match &node.args {
        Args::Json { strings, .. } if !strings.is_empty() => Ok(strings.clone()),
        Args::Text(text) => Err(error(
            "json-array",
            "SHELL requires the arguments to be in JSON form",
            text.span,
        )
        .advise("write SHELL [\"/bin/sh\", \"-c\"]; JSON takes double quotes only")),
        _ => Err(at_least_one(node)),
    }
}

pub(super) fn onbuild(node: &Node) -> Result<Onbuild, Diagnostic> {
    let Args::Sub(trigger) = &node.args else {
        return Err(at_least_one(node));
    };
    flags::read(node, &[])?;
    let refused = match trigger.name().as_str() {
        "ONBUILD" => Some("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        name @ ("FROM" | "MAINTAINER") => Some(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => None,
    };
    if let Some(message) = refused {
        return Err(error("onbuild", message, trigger.keyword.span));
    }
    let text = node.original.trim_start();
    let mut expression = text[node.keyword.text.len()..].trim_start().to_owned();
    for body in &node.heredocs {
        expression.push('\n');
        expression.push_str(&body.content);
        expression.push_str(&body.name);
    }
    Ok(Onbuild { expression })
}

fn at_least_one(node: &Node) -> Diagnostic {
    arguments(node, format!("{} requires at least one argument", node.name()))
}

fn blank_name(node: &Node, word: &Word) -> Diagnostic {
    error(
        "key-value",
        format!("{} names can not be blank", node.name()),
        word.span,
    )
}
