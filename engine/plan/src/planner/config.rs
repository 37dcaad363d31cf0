//! The instructions that change only the config, and `WORKDIR`, which changes it too.

use super::{
    Fallible, Planner,
    dispatch::{At, Built, Done},
    paths, signals, text,
};
use crate::model::{MkdirOp, Op};
use slipway_dockerfile::{
    InstructionKind,
    ast::{self, Command, CommandForm, KeyValue, Word},
    lint::rules,
    ports,
};
use slipway_oci::{Healthcheck, ImageConfig};

/// An owner with `root` as a number, which needs no look-up in a passwd file that may not be there, and with a user: in
/// `:5` it is root.
pub(super) fn root_as_number(owner: &str) -> String {
    let mut parts: Vec<&str> = owner
        .split(':')
        .map(|part| if part == "root" { "0" } else { part })
        .collect();
    if let [user @ "", _] = &mut parts[..] {
        *user = "0";
    }
    parts.join(":")
}

/// The command line of a shell-form instruction.
pub(super) fn with_shell(config: &ImageConfig, command: &str) -> Vec<String> {
    let mut args = match (&config.config.shell[..], config.os.as_str()) {
        ([], "windows") => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
        ([], _) => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
        (shell, _) => shell.to_vec(),
    };
    args.push(command.to_owned());
    args
}

impl<'a> Planner<'a> {
    pub(super) fn configure(
        &mut self,
        built: &mut Built,
        at: &At<'_, 'a>,
        kind: &InstructionKind,
    ) -> Fallible<Done> {
        let history = match kind {
            InstructionKind::Env(pairs) => {
                let written = pairs;
                let pairs = self.expand_pairs(built, at, pairs)?;
                for (written, (name, value)) in written.iter().zip(&pairs) {
                    if written.key.text.contains('$') {
                        let warning = rules::secret_name(&at.lint, &at.command.instruction, name);
                        self.warnings.extend(warning);
                    }
                    built.env.set(name, value);
                    built.config.config.set_env(name, value);
                }
                joined("ENV", &pairs)
            }
            InstructionKind::Label(pairs) => {
                let pairs = self.expand_pairs(built, at, pairs)?;
                built.config.config.labels.extend(pairs.iter().cloned());
                joined("LABEL", &pairs)
            }
            InstructionKind::Cmd(command) => {
                built.cmd_set = true;
                let args = command_line(built, command);
                built.config.config.cmd.clone_from(&args);
                // Only Windows looks at it, but Docker's images all have it.
                built.config.config.args_escaped = true;
                format!("CMD {}", text::quoted_list(&args))
            }
            InstructionKind::Entrypoint(command) => {
                let args = command_line(built, command);
                built.config.config.entrypoint.clone_from(&args);
                if !built.cmd_set {
                    built.config.config.cmd.clear();
                }
                format!("ENTRYPOINT {}", text::quoted_list(&args))
            }
            InstructionKind::Healthcheck(check) => {
                let check = healthcheck(check);
                let history = format!("HEALTHCHECK {}", text::healthcheck(&check));
                built.config.config.healthcheck = Some(check);
                history
            }
            InstructionKind::Expose(words) => self.expose(built, at, words)?,
            InstructionKind::User(user) => {
                let user = self.expand(built, at, user)?;
                built.config.config.user.clone_from(&user);
                format!("USER {user}")
            }
            InstructionKind::Volume(words) => {
                let mut volumes = Vec::with_capacity(words.len());
                for word in words {
                    let volume = self.expand(built, at, word)?;
                    if volume.is_empty() {
                        return self.fail(at, "volume-empty", "VOLUME specified can not be an empty string");
                    }
                    volumes.push(volume);
                }
                built.config.config.volumes.extend(volumes.iter().cloned());
                format!("VOLUME {}", text::plain_list(&volumes))
            }
            InstructionKind::StopSignal(signal) => {
                let signal = self.expand(built, at, signal)?;
                if !signals::is_signal(&signal) {
                    return self.fail(at, "signal", format!("invalid signal: {signal}"));
                }
                built.config.config.stop_signal.clone_from(&signal);
                format!("STOPSIGNAL {signal}")
            }
            InstructionKind::Shell(shell) => {
                built.config.config.shell.clone_from(shell);
                format!("SHELL {}", text::plain_list(shell))
            }
            InstructionKind::Maintainer(author) => {
                built.config.author.clone_from(&author.text);
                format!("MAINTAINER {}", author.text)
            }
            InstructionKind::Onbuild(onbuild) => {
                built.config.config.on_build.push(onbuild.expression.clone());
                return Ok(Done {
                    op: Op::Metadata,
                    history: None,
                    display: None,
                });
            }
            InstructionKind::Arg(_)
            | InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_) => {
                return self.fail(at, "internal", "this instruction is no metadata");
            }
        };
        Ok(Done::metadata(history))
    }

    pub(super) fn workdir(&mut self, built: &mut Built, at: &At<'_, 'a>, path: &Word) -> Fallible<Done> {
        let path = self.expand(built, at, path)?;
        let known = built.workdir_set || paths::is_absolute(&path, &built.platform.os);
        self.warnings.extend(rules::workdir_relative(
            &at.lint,
            &at.command.instruction,
            &path,
            known,
        ));
        built.workdir_set = true;
        self.change_directory(built, &path, at.span())?;
        let history = Some(format!("WORKDIR {}", built.cwd));
        if built.cwd == "/" {
            return Ok(Done {
                op: Op::Metadata,
                history,
                display: None,
            });
        }
        let owner = Some(root_as_number(&built.config.config.user)).filter(|user| !user.is_empty());
        let display = Self::display(self.lexer, &at.command.instruction.original, &built.env);
        Ok(Done {
            op: Op::Mkdir(MkdirOp {
                path: paths::clean(&built.cwd),
                owner,
                time: self.epoch,
            }),
            history,
            display: Some(display),
        })
    }

    /// Both sides of each pair, all in the environment before the instruction.
    fn expand_pairs(
        &mut self,
        built: &Built,
        at: &At<'_, 'a>,
        pairs: &[KeyValue],
    ) -> Fallible<Vec<(String, String)>> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            expanded.push((
                self.expand(built, at, &pair.key)?,
                self.expand(built, at, &pair.value)?,
            ));
        }
        Ok(expanded)
    }

    fn expose(&mut self, built: &mut Built, at: &At<'_, 'a>, words: &[Word]) -> Fallible<String> {
        let mut names = Vec::new();
        for word in words {
            let specs = self
                .lexer
                .process_words(&word.text, &built.env)
                .map_err(|error| self.error("expansion", error.to_string(), at.span()))?;
            for spec in specs.words {
                let parsed =
                    ports::parse(&spec).map_err(|error| self.error("port", error.to_string(), at.span()))?;
                self.warnings
                    .extend(rules::expose(&at.lint, &at.command.instruction, &spec));
                names.extend(parsed.iter().map(ToString::to_string));
            }
        }
        built.config.config.exposed_ports.extend(names.iter().cloned());
        Ok(format!("EXPOSE {}", text::plain_list(&names)))
    }
}

/// The arguments of `CMD` and `ENTRYPOINT`.
fn command_line(built: &Built, command: &Command) -> Vec<String> {
    match &command.form {
        CommandForm::Exec(args) => args.clone(),
        CommandForm::Shell(line) => with_shell(&built.config, line),
    }
}

fn joined(keyword: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(keyword.to_owned(), |text, (name, value)| {
        format!("{text} {name}={value}")
    })
}

fn healthcheck(check: &ast::Healthcheck) -> Healthcheck {
    match check {
        ast::Healthcheck::None => Healthcheck {
            test: vec!["NONE".to_owned()],
            ..Healthcheck::default()
        },
        ast::Healthcheck::Check(check) => {
            let (kind, args) = match &check.command.form {
                CommandForm::Shell(line) => ("CMD-SHELL", vec![line.clone()]),
                CommandForm::Exec(args) => ("CMD", args.clone()),
            };
            let mut test = vec![kind.to_owned()];
            test.extend(args);
            Healthcheck {
                test,
                interval: check.interval,
                timeout: check.timeout,
                start_period: check.start_period,
                start_interval: check.start_interval,
                retries: check.retries,
            }
        }
    }
}
