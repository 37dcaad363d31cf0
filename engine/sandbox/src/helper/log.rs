//! What libcontainer logs as errors. Its error values often name the stage alone ("failed to prepare rootfs"); the cause
//! is in the log line.

use std::{fmt::Write as _, fs::File, io::Write};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Writes error events to a pipe, a line each. The runtime's processes are forked from the helper and inherit it.
pub(super) struct ErrorLog {
    pipe: File,
}

impl ErrorLog {
    /// Makes it the process's subscriber.
    pub(super) fn install(pipe: File) {
        let _ = tracing::subscriber::set_global_default(Self { pipe });
    }
}

impl Subscriber for ErrorLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{}{}\n", line.message, line.fields);
        // More than a pipe holds would block the step's start for ever; nobody needs that much.
        let end = text
            .char_indices()
            .map(|(i, _)| i)
            .take_while(|i| *i < 1000)
            .last()
            .unwrap_or(0);
        let _ = (&self.pipe).write_all(text.get(..end).unwrap_or_default().as_bytes());
        let _ = (&self.pipe).write_all(b"\n");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// The lines that say why, the innermost first; the runtime says the same again at each level on its way out.
pub(super) fn causes(log: &str) -> Option<String> {
    log.lines()
        .find(|line| !line.trim().is_empty())
        .map(|line| line.trim().to_owned())
}
