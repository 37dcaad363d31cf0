//! Runs Dockerfile cases with known outcomes through `slipway build --local` and compares: filesystem, config,
//! history, errors.
//!
//! ```text
//!  cases.jsonl ─► case ─► tree, base, servers ─► builder ─► process ─► image ─► check ─► report
//!                         (inputs on disk)       (command)   (run it)  (read)  (expect)
//!                         diff: random Dockerfiles ─► both builders ─► differences
//! ```
//!
//! One program run and one store for each case, so that cases cannot help each other. The expectations were recorded
//! on BuildKit; `--builder buildkit` runs them there again, which is how the harness itself is checked. Nothing here
//! knows how the engine works: what cannot be seen on its command line and in its results is not tested.

mod base;
mod builder;
mod case;
mod check;
mod cluster;
mod diff;
mod expect;
mod image;
mod options;
mod peer;
mod process;
mod report;
mod run;
mod servers;
mod tree;
mod wording;

use std::process::ExitCode;

fn main() -> ExitCode {
    match options::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
