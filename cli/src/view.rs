//! How things are shown: pure functions from what is known to lines of text. Nothing here reads a cluster, a clock or a
//! terminal.

pub mod explain;
pub mod graph;
pub mod list;
pub mod look;
pub mod path;
pub mod status;
pub mod table;
pub mod tree;
pub mod usage;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
