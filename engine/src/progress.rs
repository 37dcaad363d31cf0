//! What a build tells while it runs: events, and printers for them.
//!
//! ```text
//!  engine ── Vertex::{start,log,done} ──▶ Event ──▶ Sink ─┬─ plain   #5 [build 2/4] RUN make
//!                                                         ├─ tty     live lines
//!                                                         ├─ rawjson one JSON object a line
//!                                                         └─ quiet   nothing
//! ```

use serde::Serialize;
use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

mod line;
mod plain;
mod rawjson;
mod screen;
mod text;
mod tty;

pub use line::{Line, Paint, clean};
pub use plain::Plain;
pub use rawjson::RawJson;
pub use screen::{Screen, Size};
pub use text::{duration, size};
pub use tty::{Measure, Tty};

/// Bytes of one step's log that are passed on; the rest is dropped with a note, as BuildKit does.
const STEP_LOG_LIMIT: usize = 2 << 20;
/// Lines kept for the error message of a failed step.
const TAIL_LINES: usize = 40;
/// A longer line is cut here, so that a step without line ends cannot fill the memory.
const LINE_LIMIT: usize = 16 << 10;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// A vertex (a step, a transfer) began.
    Started {
        /// Its number, from 1, in the order of beginning.
        id: u32,
        /// What is shown for it: `[build 2/4] RUN make`.
        name: String,
        /// Where it runs, if that is not this machine: a node.
        #[serde(skip_serializing_if = "Option::is_none")]
        place: Option<String>,
    },
    /// A line that a step wrote.
    Log {
        /// The vertex.
        id: u32,
        /// Whether it came on standard error.
        stderr: bool,
        /// The line, without its end; secrets replaced.
        line: String,
        /// Since the vertex began.
        #[serde(serialize_with = "seconds")]
        after: Duration,
    },
    /// How far a transfer is.
    Status {
        /// The vertex.
        id: u32,
        /// What is transferred: a layer's digest.
        name: String,
        /// Bytes done.
        current: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// A vertex ended well.
    Done {
        /// The vertex.
        id: u32,
        /// Its result was there already.
        cached: bool,
        /// How long it took.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// A vertex failed.
    Failed {
        /// The vertex.
        id: u32,
        /// Why, in one line.
        error: String,
    },
    /// A vertex was stopped because another one failed.
    Cancelled {
        /// The vertex.
        id: u32,
    },
    /// A warning about the Dockerfile.
    Warning {
        /// The rule's name.
        rule: String,
        /// What was found.
        detail: String,
        /// The line, from 1.
        line: u32,
    },
    /// What a live display shows below the running steps, in the place of what it showed there; a log does without.
    #[serde(skip)]
    Footer {
        /// The lines.
        lines: Vec<Line>,
    },
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// Takes events. Called from many threads.
pub trait Sink: Send + Sync {
    /// Takes one event. Must not block for long.
    fn event(&self, event: Event);
    /// The build is over; what is still held back is to be shown.
    fn finish(&self) {}
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Sink for Quiet {
    fn event(&self, _: Event) {}
}

/// Where a build's events go. Cheap to clone.
#[derive(Clone)]
pub struct Progress(Arc<Shared>);

struct Shared {
    sink: Arc<dyn Sink>,
    next: AtomicU32,
    secrets: Mutex<Vec<Zeroizing<Vec<u8>>>>,
}

impl Progress {
    /// Sends events to `sink`.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self(Arc::new(Shared {
            sink,
            next: AtomicU32::new(1),
            secrets: Mutex::new(Vec::new()),
        }))
    }

    /// Sends events nowhere.
    pub fn quiet() -> Self {
        Self::new(Arc::new(Quiet))
    }

    /// From now on, `value` does not appear in any log line. Values shorter than four bytes are let through: to replace
    /// each `1` would hide nothing and spoil the log.
    pub fn redact(&self, value: &[u8]) {
        let trimmed = value.trim_ascii();
        if trimmed.len() >= 4 {
            let mut secrets = lock(&self.0.secrets);
            // A log is read line by line, so a value of several lines is hidden line by line.
            for line in trimmed
                .split(|byte| *byte == b'\n')
                .filter(|line| line.trim_ascii().len() >= 4)
            {
                secrets.push(Zeroizing::new(line.trim_ascii().to_vec()));
            }
            secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// Begins a vertex.
    pub fn start(&self, name: impl Into<String>) -> Vertex {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.sink.event(Event::Started {
            id,
            name: name.into(),
            place: None,
        });
        Vertex {
            progress: self.clone(),
            id,
            began: Instant::now(),
            ended: false,
            tail: Arc::default(),
            written: Arc::default(),
        }
    }

    /// A vertex whose result was there already.
    pub fn cached(&self, name: impl Into<String>) {
        self.start(name).cached();
    }

    /// Passes a warning on.
    pub fn warn(&self, rule: &str, detail: &str, line: u32) {
        self.0.sink.event(Event::Warning {
            rule: rule.into(),
            detail: detail.into(),
            line,
        });
    }

    /// The build is over.
    pub fn finish(&self) {
        self.0.sink.finish();
    }

    fn clean(&self, line: &[u8]) -> String {
        let mut line = line.to_vec();
        for secret in lock(&self.0.secrets).iter() {
            while let Some(at) = line
                .windows(secret.len())
                .position(|window| window == &secret[..])
            {
                line.splice(at..at + secret.len(), *b"***");
            }
        }
        String::from_utf8_lossy(&line).into_owned()
    }
}

/// A running step or transfer. Dropped without an end, it counts as cancelled.
pub struct Vertex {
    progress: Progress,
    id: u32,
    began: Instant,
    ended: bool,
    tail: Arc<Mutex<VecDeque<String>>>,
    written: Arc<Mutex<usize>>,
}

impl Vertex {
    /// Ends it well.
    pub fn done(mut self) {
        self.end(Event::Done {
            id: self.id,
            cached: false,
            took: self.began.elapsed(),
        });
    }

    /// Ends it as found in the cache.
    pub fn cached(mut self) {
        self.end(Event::Done {
            id: self.id,
            cached: true,
            took: Duration::ZERO,
        });
    }

    /// Ends it as failed.
    pub fn failed(mut self, error: &str) {
        self.end(Event::Failed {
            id: self.id,
            error: self.progress.clean(error.as_bytes()),
        });
    }

    fn end(&mut self, event: Event) {
        self.ended = true;
        self.progress.0.sink.event(event);
    }

    /// Says how far a transfer is.
    pub fn status(&self, name: &str, current: u64, total: Option<u64>) {
        self.progress.0.sink.event(Event::Status {
            id: self.id,
            name: name.into(),
            current,
            total,
        });
    }

    /// Writes one line of our own.
    pub fn line(&self, line: &str) {
        self.emit(false, line.as_bytes());
    }

    /// A writer for what a step prints; it cuts the stream into lines.
    pub fn writer(&self, stderr: bool) -> LogWriter {
        LogWriter {
            progress: self.progress.clone(),
            id: self.id,
            began: self.began,
            stderr,
            line: Vec::new(),
            tail: Arc::clone(&self.tail),
            written: Arc::clone(&self.written),
        }
    }

    /// The last lines that were written.
    pub fn tail(&self) -> Vec<String> {
        lock(&self.tail).iter().cloned().collect()
    }

    fn emit(&self, stderr: bool, line: &[u8]) {
        let mut writer = self.writer(stderr);
        writer.line = line.to_vec();
        writer.flush_line();
    }
}

impl Drop for Vertex {
    fn drop(&mut self) {
        if !self.ended {
            self.progress.0.sink.event(Event::Cancelled { id: self.id });
        }
    }
}

/// Cuts a stream into lines and passes them on.
pub struct LogWriter {
    progress: Progress,
    id: u32,
    began: Instant,
    stderr: bool,
    line: Vec<u8>,
    tail: Arc<Mutex<VecDeque<String>>>,
    written: Arc<Mutex<usize>>,
}

impl LogWriter {
    fn flush_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let text = self.progress.clean(line);
        let mut tail = lock(&self.tail);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text.clone());
        drop(tail);
        let mut written = lock(&self.written);
        if *written > STEP_LOG_LIMIT {
            return;
        }
        *written += text.len() + 1;
        let line = if *written > STEP_LOG_LIMIT {
            format!("[output clipped, log limit {} MiB reached]", STEP_LOG_LIMIT >> 20)
        } else {
            text
        };
        drop(written);
        let after = self.began.elapsed();
        self.progress.0.sink.event(Event::Log {
            id: self.id,
            stderr: self.stderr,
            line,
            after,
        });
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' || self.line.len() >= LINE_LIMIT {
                self.flush_line();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.flush_line();
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Sink for Lines {
        fn event(&self, event: Event) {
            if let Event::Log { line, .. } = event {
                lock(&self.0).push(line);
            }
        }
    }

    #[test]
    fn a_secret_does_not_reach_the_log() {
        let lines = Arc::new(Lines::default());
        let progress = Progress::new(lines.clone());
        progress.redact(b"hunter2\nsecond-line\n");
        let vertex = progress.start("x");
        write!(
            vertex.writer(false),
            "a hunter2 b\nsecond-line\nlast hunter2hunter2"
        )
        .unwrap();
        assert_eq!(*lock(&lines.0), ["a *** b", "***", "last ******"]);
        assert_eq!(vertex.tail().len(), 3);
    }

    #[test]
    fn a_log_without_end_is_cut() {
        let lines = Arc::new(Lines::default());
        let progress = Progress::new(lines.clone());
        let vertex = progress.start("x");
        let mut writer = vertex.writer(true);
        for _ in 0..3000 {
            writer.write_all(&[b'x'; 1024]).unwrap();
            writer.write_all(b"\n").unwrap();
        }
        let lines = lock(&lines.0);
        assert!(lines.iter().map(String::len).sum::<usize>() < STEP_LOG_LIMIT + 1024);
        assert!(lines.last().unwrap().contains("clipped"));
    }
}
