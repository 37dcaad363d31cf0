//! `slipway`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A step's helper is this program started again: it must not get as far as the command line.
    slipway_sandbox::init();
    slipway_cli::run()
}
