//! The operator's program; everything is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use slipway_operator::{config::Options, run};

#[tokio::main]
async fn main() -> ExitCode {
    // First of all: kube and the registry client share this one TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = Options::parse();
    let result = match run::log(&options) {
        Ok(()) => run::run(options).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one line that a person needs, with its causes.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
