//! The Dockerfile language: text to syntax tree, with diagnostics.
//!
//! ```text
//!  Dockerfile text ──parse──▶ Dockerfile ─┬─ directives, global ARGs
//!        │                                └─ stages ── instructions ── words (unexpanded, with spans)
//!        │                                      │
//!        ├─ lint::check ──▶ Warning              ├─ expand::Lexer   word + environment ──▶ text
//!        └─ Diagnostic (excerpt, caret, advice)  └─ mount::parse    --mount value ──▶ Mount
//!
//!  .dockerignore text ──ignore::read──▶ patterns ──ignore::Matcher──▶ excluded? by which pattern?
//!  glob: one path against one pattern    ports: one EXPOSE word ──▶ ports
//! ```
//!
//! This crate is pure: text in, values out. It opens no file, knows no image and resolves no variable by itself. Words
//! stay as written; planning expands them with the environment of their stage. Behaviour follows BuildKit v0.34.2
//! (`docker/dockerfile` 1.20), checked against data recorded from it (`tests/data/`).

// A diagnostic is made once per mistake, not in a loop; a box around each would only be in the way.
#![allow(clippy::result_large_err)]

pub mod ast;
mod csv;
pub mod diagnostic;
pub mod directive;
pub mod distance;
pub mod expand;
pub mod glob;
pub mod heredoc;
pub mod ignore;
pub mod lint;
pub mod mount;
pub mod nodes;
pub mod parse;
pub mod paths;
pub mod ports;
mod source;
mod units;

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod testdata;

pub use ast::{Dockerfile, Instruction, InstructionKind, Span, Stage, Word};
pub use diagnostic::{Diagnostic, Severity};
pub use parse::{parse, parse_bytes, parse_lenient, parse_onbuild};
