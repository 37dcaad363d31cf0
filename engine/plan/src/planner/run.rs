//! `RUN`.

use super::{
    Fallible, Planner, Vars,
    config::with_shell,
    dispatch::{At, Built, Done},
};
use crate::{
    model::{Mount, Network, Op, RunOp},
    source::{InlineFile, Source},
};
use slipway_dockerfile::{
    ast::{self, CommandForm, Heredoc, Run},
    expand::Lexer,
};

/// Where the script of `RUN <<EOF` with a `#!` line is mounted.
const SCRIPTS: &str = "/dev/pipes/";

impl<'a> Planner<'a> {
    pub(super) fn run_step(&mut self, built: &mut Built, at: &At<'_, 'a>, run: &Run) -> Fallible<Done> {
        let mut mounts = Vec::new();
        let mut title = at.command.instruction.original.clone();
        let args = match &run.command.form {
            CommandForm::Exec(args) => args.clone(),
            CommandForm::Shell(line) => match &run.command.heredocs[..] {
                [] => with_shell(&built.config, line),
                [first, ..] if is_lone_heredoc(line) => {
                    title = format!("{title} ({})", summary(&first.content));
                    let data = script(first);
                    if built.config.os != "windows" && data.starts_with("#!") {
                        mounts.push(script_mount(&first.name, &data));
                        // A single word, but still the shell's to start.
                        with_shell(&built.config, &format!("{SCRIPTS}{}", first.name))
                    } else {
                        with_shell(&built.config, &data)
                    }
                }
                heredocs => {
                    let whole = heredocs.iter().fold(line.clone(), |text, heredoc| {
                        format!("{text}\n{}{}", heredoc.content, heredoc.name)
                    });
                    with_shell(&built.config, &whole)
                }
            },
        };
        let (own_mounts, secret_names) = self.mounts(built, at, run)?;
        mounts.extend(own_mounts);
        let network = match run.network {
            ast::Network::Default => self.request.network,
            ast::Network::None => Network::None,
            ast::Network::Host => Network::Host,
        };
        let insecure = run.security == ast::Security::Insecure;
        self.check_entitlements(at, network, insecure)?;
        self.check_devices(at, run)?;

        let display = {
            let mut shown: Vars = built.env.clone();
            for name in &secret_names {
                shown.set(name, "****");
            }
            Self::display(Lexer::display(self.lexer.escape), &title, &shown)
        };
        let history = format!("RUN {}", history_text(&args, built));
        let hostname = self
            .args
            .get("BUILDKIT_SANDBOX_HOSTNAME")
            .filter(|name| !name.is_empty())
            .cloned()
            .or_else(|| self.request.hostname.clone());
        let op = RunOp {
            args,
            env: built.env.to_list(),
            proxy_env: self.proxy_env(),
            cwd: if built.cwd.is_empty() {
                "/".to_owned()
            } else {
                built.cwd.clone()
            },
            user: built.config.config.user.clone(),
            mounts,
            network,
            insecure,
            hostname,
            add_hosts: self.request.add_hosts.clone(),
            shm_size: self.request.shm_size.filter(|size| *size > 0),
            ulimits: self.request.ulimits.clone(),
        };
        Ok(Done {
            op: Op::Run(Box::new(op)),
            history: Some(history),
            display: Some(display),
        })
    }

    /// `--device`: no builder here has devices to give. As with BuildKit, a step runs without those that it can do without.
    fn check_devices(&self, at: &At<'_, 'a>, run: &Run) -> Fallible<()> {
        let Some(device) = run.devices.iter().find(|device| device.required) else {
            return Ok(());
        };
        let message = format!("required CDI device {:?} is not registered", device.name);
        Err(Box::new(self.error("device", message, at.span()).advise(
            "Slipway gives steps no devices; take \"required\" away if the step can do without.",
        )))
    }

    fn check_entitlements(&self, at: &At<'_, 'a>, network: Network, insecure: bool) -> Fallible<()> {
        let refused = |name: &str, flag: &str| {
            let error = self.error("entitlement", format!("{name} is not allowed"), at.span());
            Err(Box::new(error.advise(format!(
                "Allow it with --allow {name}, or take {flag} away."
            ))))
        };
        if insecure && !self.request.allow.security_insecure {
            return refused("security.insecure", "--security=insecure");
        }
        if network == Network::Host && !self.request.allow.network_host {
            return refused("network.host", "--network=host");
        }
        Ok(())
    }
}

/// The history's text: the arguments in scope with the values that the step sees, then the command line.
fn history_text(args: &[String], built: &Built) -> String {
    let mut values: Vec<(&str, String)> = Vec::new();
    for (name, own) in &built.build_args {
        let value = built
            .env
            .value(name)
            .map_or_else(|| own.clone().unwrap_or_default(), str::to_owned);
        match values.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value,
            None => values.push((name, value)),
        }
    }
    let mut words = Vec::with_capacity(values.len() + args.len() + 1);
    if !values.is_empty() {
        words.push(format!("|{}", values.len()));
        words.extend(values.into_iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend(args.iter().cloned());
    words.join(" ")
}

/// Whether a command is nothing but `<<EOF`, so that the body is the script.
fn is_lone_heredoc(line: &str) -> bool {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = rest.strip_prefix("<<") else {
        return false;
    };
    let word = rest.strip_prefix('-').unwrap_or(rest);
    if word.is_empty() || word.contains('<') {
        return false;
    }
    let mut quote = None;
    for c in word.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, c) if c.is_whitespace() => return false,
            _ => {}
        }
    }
    true
}

/// The body, its leading tabs removed for `<<-`.
fn script(heredoc: &Heredoc) -> String {
    if !heredoc.chomp {
        return heredoc.content.clone();
    }
    heredoc
        .content
        .split_inclusive('\n')
        .map(|line| line.trim_start_matches('\t'))
        .collect()
}

/// The first line of a body, for people.
fn summary(content: &str) -> String {
    let content = content.trim();
    match content.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => content.to_owned(),
    }
}

fn script_mount(name: &str, data: &str) -> Mount {
    let file = InlineFile {
        path: name.to_owned(),
        data: data.to_owned(),
        mode: 0o755,
    };
    Mount::Bind {
        target: SCRIPTS.to_owned(),
        source: Source::Inline(vec![file]),
        path: "/".to_owned(),
        readonly: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_heredoc_is_told_from_a_command_with_one() {
        for line in ["<<EOF", "<<-EOF", "3<<'E O'", "<<\"EOF\""] {
            assert!(is_lone_heredoc(line), "{line}");
        }
        for line in ["cat <<EOF", "<<EOF cat", "<<A <<B", "<<", "EOF", "<<<x"] {
            assert!(!is_lone_heredoc(line), "{line}");
        }
    }

    #[test]
    fn a_summary_is_the_first_line() {
        assert_eq!(summary("\n#!/bin/sh\r\necho\n"), "#!/bin/sh...");
        assert_eq!(summary("echo\n"), "echo");
    }
}
