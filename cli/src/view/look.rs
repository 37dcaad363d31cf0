//! Colour or not, and writing lines out.

use clap::ValueEnum;
use slipway_engine::progress::Line;
use std::io::{self, IsTerminal, Write};

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColourMode {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How text looks on one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// With escape sequences for colour.
    pub colour: bool,
    /// It is a terminal: what is shown may be drawn anew in place.
    pub terminal: bool,
}

impl Look {
    /// For an output of this process.
    pub fn of(mode: ColourMode, output: &impl IsTerminal) -> Self {
        Self::new(mode, output.is_terminal(), |name| std::env::var(name).ok())
    }

    /// The rules: a flag wins; then `NO_COLOR` (<https://no-color.org>), `CLICOLOR_FORCE`, `TERM=dumb`; then whether it is
    /// a terminal.
    fn new(mode: ColourMode, terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).is_some_and(|value| !value.is_empty());
        let dumb = variable("TERM").is_some_and(|term| term == "dumb");
        let colour = match mode {
            ColourMode::Always => true,
            ColourMode::Never => false,
            ColourMode::Auto if set("NO_COLOR") => false,
            ColourMode::Auto
                if variable("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0") =>
            {
                true
            }
            ColourMode::Auto => terminal && !dumb,
        };
        Self {
            colour,
            terminal: terminal && !dumb,
        }
    }

    /// Writes lines to an output.
    pub fn write(self, out: &mut dyn Write, lines: &[Line]) -> io::Result<()> {
        for line in lines {
            writeln!(out, "{}", line.render(self.colour))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_flag_environment_and_terminal_in_this_order() {
        for (mode, terminal, variables, expected) in [
            (ColourMode::Auto, true, vec![], true),
            (ColourMode::Auto, false, vec![], false),
            (ColourMode::Auto, true, vec![("NO_COLOR", "1")], false),
            (ColourMode::Auto, true, vec![("NO_COLOR", "")], true),
            (ColourMode::Auto, true, vec![("TERM", "dumb")], false),
            (ColourMode::Auto, false, vec![("CLICOLOR_FORCE", "1")], true),
            (ColourMode::Auto, false, vec![("CLICOLOR_FORCE", "0")], false),
            (
                ColourMode::Auto,
                false,
                vec![("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")],
                false,
            ),
            (ColourMode::Always, false, vec![("NO_COLOR", "1")], true),
            (ColourMode::Never, true, vec![("CLICOLOR_FORCE", "1")], false),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let look = Look::new(mode, terminal, variable);
            assert_eq!(look.colour, expected, "{mode:?} {terminal} {variables:?}");
        }
    }
}
