//! Dockerfile stages to a build plan with a key for every instruction

pub mod protocol;
