//! `slipway-runner`: see the library.

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: in the child that becomes a step, nothing else may run.
    slipway_sandbox::init();
    slipway_runner::run(&slipway_runner::Arguments::parse())
}
