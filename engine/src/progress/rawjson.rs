//! One JSON object a line, for programs.

use super::{Event, Sink, lock};
use std::{io::Write, sync::Mutex};

/// Prints each event as a JSON object on a line of its own.
pub struct RawJson(Mutex<Box<dyn Write + Send>>);

impl RawJson {
    /// Prints to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self(Mutex::new(out))
    }
}

impl Sink for RawJson {
    fn event(&self, event: Event) {
        let mut out = lock(&self.0);
        if let Ok(line) = serde_json::to_string(&event) {
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
}
