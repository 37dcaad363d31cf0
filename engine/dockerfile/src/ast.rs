//! The syntax tree. Nothing in it is expanded; every node says where it stands in the source.

use serde::{Deserialize, Serialize};

pub use crate::mount::{Mount, MountKind, Sharing};

/// A place in a source file: lines for people, bytes for carets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Span {
    /// First line, counted from 1.
    pub first_line: u32,
    /// Last line, inclusive, counted from 1.
    pub last_line: u32,
    /// First byte in the file.
    pub start: usize,
    /// One past the last byte in the file.
    pub end: usize,
}

impl Span {
    /// The smallest span that holds both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            first_line: self.first_line.min(other.first_line),
            last_line: self.last_line.max(other.last_line),
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }

    /// Every line of the span, in order.
    pub fn lines(self) -> impl Iterator<Item = u32> {
        self.first_line..=self.last_line
    }
}

/// A piece of source text that planning may have to expand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Word {
    /// The text as written, continuation lines joined; quotes, escapes and variables untouched.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dockerfile {
    /// The file's name, for messages.
    pub name: String,
    /// The text that was parsed, for excerpts.
    pub source: String,
    /// The escape character: a backslash, or a backtick by `# escape=`.
    pub escape: char,
    /// The parser directives at the top (`syntax`, `escape`, `check`), in order.
    pub directives: Vec<Directive>,
    /// The `ARG` instructions before the first `FROM`, in order. All are of kind [`InstructionKind::Arg`].
    pub global_args: Vec<Instruction>,
    /// The stages, in order of the file. May be empty (a file of only `ARG`s), which planning refuses.
    pub stages: Vec<Stage>,
    /// Instructions with a blank line inside a continuation; what `NoEmptyContinuation` reports.
    pub empty_continuations: Vec<Span>,
}

impl Dockerfile {
    /// The value of a parser directive, by its lower-case name.
    pub fn directive(&self, name: &str) -> Option<&Directive> {
        self.directives.iter().find(|directive| directive.name == name)
    }
}

/// A parser directive: `# name=value` at the top of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// Lower-case name: `syntax`, `escape` or `check`.
    pub name: String,
    /// The value up to its first blank.
    pub value: String,
    /// The whole value.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// One stage: a `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Position in the file, from 0.
    pub index: usize,
    /// What the stage starts from: image, earlier stage, named context or `scratch`; unexpanded.
    pub base: Word,
    /// The name after `AS`, in lower case.
    pub name: Option<String>,
    /// The name after `AS` as written.
    pub name_as_written: Option<Word>,
    /// The word `AS` as written.
    pub as_keyword: Option<String>,
    /// The value of `--platform`, unexpanded.
    pub platform: Option<Word>,
    /// The description in the comment above (`# name what it is`), or empty.
    pub doc: String,
    /// The `FROM` keyword as written.
    pub keyword: String,
    /// The `FROM` line, continuation lines joined.
    pub original: String,
    /// Where the `FROM` stands.
    pub span: Span,
    /// The lines of comment directly above, without `#`.
    pub comments: Vec<String>,
    /// The instructions below the `FROM`.
    pub instructions: Vec<Instruction>,
}

/// One instruction of a stage (or a global `ARG`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// The keyword as written (`RUN`, `run`).
    pub keyword: String,
    /// What it says.
    pub kind: InstructionKind,
    /// Where it stands, heredoc bodies included.
    pub span: Span,
    /// The instruction's text with continuation lines joined, comments inside dropped and both ends trimmed; without
    /// heredoc bodies. This is what history and progress show.
    pub original: String,
    /// The lines of comment directly above, without `#`.
    pub comments: Vec<String>,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstructionKind {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Vec<ArgDeclaration>),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Vec<KeyValue>),
    /// `EXPOSE`: port words as written, sorted. Expand each with [`crate::expand::Lexer::process_words`], then
    /// [`crate::ports::parse`].
    Expose(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<KeyValue>),
    /// `MAINTAINER`
    Maintainer(Word),
    /// `ONBUILD`
    Onbuild(Onbuild),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(Word),
    /// `USER`
    User(Word),
    /// `VOLUME`
    Volume(Vec<Word>),
    /// `WORKDIR`
    Workdir(Word),
}

/// One `key=value` of `ENV` or `LABEL`. Both sides are to be expanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key as written (quotes kept).
    pub key: Word,
    /// The value as written (quotes kept).
    pub value: Word,
    /// Written in the old form `KEY value` instead of `KEY=value`.
    pub legacy: bool,
}

/// One name of `ARG`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgDeclaration {
    /// The name. To be expanded like the default.
    pub name: Word,
    /// The default as written, if there is one (`A=` has an empty one).
    pub default: Option<Word>,
    /// The description in the comment above (`# NAME what it is`), or empty.
    pub doc: String,
}

/// A command line of `RUN`, `CMD`, `ENTRYPOINT` or `HEALTHCHECK CMD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Shell text or argument vector. Never expanded by the builder.
    pub form: CommandForm,
    /// The heredocs that the shell text names (`RUN` only), in order.
    pub heredocs: Vec<Heredoc>,
    /// Where the command stands, without flags and heredoc bodies.
    pub span: Span,
}

/// How a command is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandForm {
    /// Text for the stage's shell; empty when there is no text.
    Shell(String),
    /// A JSON array of arguments; may be empty.
    Exec(Vec<String>),
}

/// A heredoc with its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heredoc {
    /// The word that ends it, unquoted.
    pub name: String,
    /// The body as written, leading tabs included even with `<<-`.
    pub content: String,
    /// The file descriptor before `<<`; 0 when none is written.
    pub fd: u64,
    /// `false` when the word is quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are to be removed, so that a script may be indented.
    pub chomp: bool,
    /// Where the body stands, terminator line included.
    pub span: Span,
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The command.
    pub command: Command,
    /// The values of `--mount`, in order, unexpanded. Give them to [`crate::mount::parse`] with an expander.
    pub mounts: Vec<Word>,
    /// `--network`
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device`
    pub devices: Vec<Device>,
    /// Names of the flags that are written, for the caller's feature checks: `mount`, `network`, …
    pub flags_used: Vec<String>,
}

/// `RUN --network`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The builder's network.
    #[default]
    Default,
    /// Only a loopback interface.
    None,
    /// The host's network; needs an entitlement.
    Host,
}

/// `RUN --security`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// The usual sandbox.
    #[default]
    Sandbox,
    /// Without a sandbox; needs an entitlement.
    Insecure,
}

/// `RUN --device`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The CDI name.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
}

/// What `ADD` and `COPY` have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourcesAndDest {
    /// The sources that are paths (or, for `ADD`, URLs), unexpanded.
    pub paths: Vec<Word>,
    /// The sources that are heredocs.
    pub contents: Vec<InlineFile>,
    /// The destination, unexpanded.
    pub dest: Word,
}

/// A heredoc used as a source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// The file's name: the heredoc's word, to be expanded.
    pub path: String,
    /// The content, tabs already removed for `<<-`.
    pub data: String,
    /// Whether variables in the content are to be expanded ([`crate::expand::Lexer::heredoc`]).
    pub expand: bool,
    /// Where the body stands.
    pub span: Span,
}

/// `ADD`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Add {
    /// What goes where.
    pub files: SourcesAndDest,
    /// `--chown`, to be expanded.
    pub chown: Option<Word>,
    /// `--chmod`, to be expanded.
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, to be expanded.
    pub checksum: Option<Word>,
    /// `--unpack`
    pub unpack: Option<bool>,
    /// `--exclude`, in order; never expanded.
    pub exclude: Vec<Word>,
}

/// `COPY`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Copy {
    /// What goes where.
    pub files: SourcesAndDest,
    /// `--from`: stage name or index, image or named context.
    pub from: Option<Word>,
    /// `--chown`, to be expanded.
    pub chown: Option<Word>,
    /// `--chmod`, to be expanded.
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, in order; never expanded.
    pub exclude: Vec<Word>,
}

/// `HEALTHCHECK`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`
    None,
    /// `HEALTHCHECK CMD …`
    Check(HealthcheckCommand),
}

/// `HEALTHCHECK CMD`. A zero stands for "not set".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthcheckCommand {
    /// The command; shell form becomes `CMD-SHELL`, exec form `CMD`.
    pub command: Command,
    /// `--interval` in nanoseconds.
    pub interval: i64,
    /// `--timeout` in nanoseconds.
    pub timeout: i64,
    /// `--start-period` in nanoseconds.
    pub start_period: i64,
    /// `--start-interval` in nanoseconds.
    pub start_interval: i64,
    /// `--retries`
    pub retries: i64,
}

/// `ONBUILD`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onbuild {
    /// The instruction to run later, as it is stored in the image; heredoc bodies included. Give it to
    /// [`crate::parse_onbuild`] when the image is used as a base.
    pub expression: String,
}
