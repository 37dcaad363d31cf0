//! The client against registries that misbehave (in this process) and against the real CNCF registry (where it is).

mod auth;
mod download;
mod fake;
mod images;
mod mirrors;
mod real;
mod retries;
mod secrecy;
mod tls;
mod upload;
