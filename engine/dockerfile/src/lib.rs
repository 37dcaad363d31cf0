//! The Dockerfile language: text to syntax tree, with diagnostics
