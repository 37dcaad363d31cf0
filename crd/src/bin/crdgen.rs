//! Prints the CustomResourceDefinition: as the chart's template, or with `--plain` as it is.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

fn main() -> ExitCode {
    let plain = std::env::args().skip(1).any(|arg| arg == "--plain");
    let text = match serde_yaml::to_string(&slipway_crd::crd()) {
        Ok(yaml) if plain => yaml,
        Ok(yaml) => slipway_crd::chart_template(&yaml),
        Err(error) => {
            let _ = writeln!(io::stderr(), "failed to write the CRD as YAML: {error}");
            return ExitCode::FAILURE;
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
