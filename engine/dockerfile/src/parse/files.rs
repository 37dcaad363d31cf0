//! `ADD` and `COPY`.

use super::{
    arguments, error,
    flags::{self, Takes},
    words,
};
use crate::{
    ast::{Add, Copy, InlineFile, SourcesAndDest},
    diagnostic::Diagnostic,
    heredoc,
    nodes::Node,
};

pub(super) fn add(node: &Node) -> Result<Add, Diagnostic> {
    enough(node)?;
    let flags = flags::read(
        node,
        &[
            ("checksum", Takes::Value),
            ("chmod", Takes::Value),
            ("chown", Takes::Value),
            ("exclude", Takes::Values),
            ("keep-git-dir", Takes::Bool),
            ("link", Takes::Bool),
            ("unpack", Takes::Bool),
        ],
    )?;
    Ok(Add {
        files: sources_and_dest(node)?,
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.is_true("link"),
        keep_git_dir: flags.truth("keep-git-dir"),
        checksum: flags.value("checksum"),
        unpack: flags.truth("unpack"),
        exclude: flags.values("exclude"),
    })
}

pub(super) fn copy(node: &Node) -> Result<Copy, Diagnostic> {
    enough(node)?;
    let flags = flags::read(
        node,
        &[
            ("chmod", Takes::Value),
            ("chown", Takes::Value),
            ("exclude", Takes::Values),
            ("from", Takes::Value),
            ("link", Takes::Bool),
            ("parents", Takes::Bool),
        ],
    )?;
    Ok(Copy {
        files: sources_and_dest(node)?,
        from: flags.value("from"),
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.is_true("link"),
        parents: flags.is_true("parents"),
        exclude: flags.values("exclude"),
    })
}

fn enough(node: &Node) -> Result<(), Diagnostic> {
    if words(&node.args).len() >= 2 {
        return Ok(());
    }
    let name = node.name();
    let message = format!(
        "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
    );
    Err(arguments(node, message).advise(format!("write {name} SOURCE... DESTINATION")))
}

fn sources_and_dest(node: &Node) -> Result<SourcesAndDest, Diagnostic> {
    let mut sources = words(&node.args);
    let Some(dest) = sources.pop() else {
        return Ok(SourcesAndDest::default());
    };
    let name = node.name();
    // A word that cannot be read as a marker has already been an error if it stood in the shell form.
    let marker = |text: &str| heredoc::marker(text).ok().flatten();
    if marker(&dest.text).is_some() {
        let message = format!("{name} cannot accept a heredoc as a destination");
        return Err(error("heredoc", message, dest.span).advise(format!(
            "put the destination last: {name} <<EOF /path/in/the/image"
        )));
    }
    let mut files = SourcesAndDest {
        dest,
        ..SourcesAndDest::default()
    };
    for source in sources {
        let Some(marker) = marker(&source.text) else {
            files.paths.push(source);
            continue;
        };
        // Bodies are found by name, and of two with one name the later is found.
        let body = node.heredocs.iter().rev().find(|body| body.name == marker.name);
        let content = body.map_or("", |body| body.content.as_str());
        files.contents.push(InlineFile {
            path: marker.name,
            data: if marker.chomp {
                heredoc::chomp(content)
            } else {
                content.to_owned()
            },
            expand: marker.expand,
            span: body.map_or(source.span, |body| body.span),
        });
    }
    Ok(files)
}
