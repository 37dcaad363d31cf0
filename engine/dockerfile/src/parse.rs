//! Text to syntax tree.

use crate::{
    ast::{Dockerfile, Instruction},
    diagnostic::Diagnostic,
};

/// Reads a Dockerfile. `name` is used in messages. On failure all errors that could be told apart are returned, at
/// least one.
pub fn parse(name: &str, text: &str) -> Result<Dockerfile, Vec<Diagnostic>> {
    let _ = (name, text);
    Err(vec![Diagnostic::error("file-empty", "not implemented")])
}

/// Reads one `ONBUILD` trigger as it stands in an image's config. `image` is used in messages.
pub fn parse_onbuild(image: &str, expression: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let _ = (image, expression);
    Err(vec![Diagnostic::error("file-empty", "not implemented")])
}
