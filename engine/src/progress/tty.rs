//! For people at a terminal: finished steps scroll by, the running ones stay at the bottom with their last log line.

use super::{Event, Sink, lock, plain::size};
use std::{
    collections::BTreeMap,
    io::Write,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Log lines shown below a running step.
const SHOWN_LINES: usize = 3;

/// Redraws the running steps in place with ANSI escape sequences.
pub struct Tty(Mutex<State>);

struct State {
    out: Box<dyn Write + Send>,
    columns: usize,
    drawn: usize,
    running: BTreeMap<u32, Running>,
    redrawn: Instant,
}

struct Running {
    name: String,
    began: Instant,
    lines: Vec<String>,
}

impl Tty {
    /// Draws on `out`, a terminal of this many columns.
    pub fn new(out: Box<dyn Write + Send>, columns: usize) -> Self {
        Self(Mutex::new(State {
            out,
            columns: columns.max(20),
            drawn: 0,
            running: BTreeMap::new(),
            redrawn: Instant::now(),
        }))
    }
}

impl State {
    fn erase(&mut self) -> std::io::Result<()> {
        if self.drawn > 0 {
            // To the first drawn line, then everything below it.
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }

    fn put(&mut self, text: &str) -> std::io::Result<()> {
        let cut: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(self.columns.saturating_sub(1))
            .collect();
        writeln!(self.out, "{cut}")
    }

    fn draw(&mut self) -> std::io::Result<()> {
        let mut lines = Vec::new();
        for running in self.running.values() {
            lines.push(format!(
                " => {} {:.1}s",
                running.name,
                running.began.elapsed().as_secs_f64()
            ));
            lines.extend(running.lines.iter().map(|line| format!(" => => # {line}")));
        }
        for line in &lines {
            self.put(line)?;
        }
        self.drawn = lines.len();
        self.redrawn = Instant::now();
        self.out.flush()
    }

    fn show(&mut self, event: Event) -> std::io::Result<()> {
        match event {
            Event::Started { id, name } => {
                self.running.insert(
                    id,
                    Running {
                        name,
                        began: Instant::now(),
                        lines: Vec::new(),
                    },
                );
            }
            Event::Log { id, line, .. } => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.lines.push(line);
                    let surplus = running.lines.len().saturating_sub(SHOWN_LINES);
                    running.lines.drain(..surplus);
                }
                if self.redrawn.elapsed() < Duration::from_millis(80) {
                    return Ok(());
                }
            }
            Event::Status {
                id, name, current, ..
            } => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.lines = vec![format!("{name} {}", size(current))];
                }
                if self.redrawn.elapsed() < Duration::from_millis(80) {
                    return Ok(());
                }
            }
            Event::Done { id, cached, took } => {
                let name = self
                    .running
                    .remove(&id)
                    .map(|running| running.name)
                    .unwrap_or_default();
                self.erase()?;
                let end = if cached {
                    "CACHED".to_owned()
                } else {
                    format!("{:.1}s", took.as_secs_f64())
                };
                self.put(&format!(" ✓ {name} {end}"))?;
            }
            Event::Failed { id, error } => {
                let name = self
                    .running
                    .remove(&id)
                    .map(|running| running.name)
                    .unwrap_or_default();
                self.erase()?;
                self.put(&format!(" ✗ {name}: {error}"))?;
            }
            Event::Cancelled { id } => {
                self.running.remove(&id);
            }
            Event::Warning { rule, detail, line } => {
                self.erase()?;
                self.put(&format!(" ! {rule}: {detail} (line {line})"))?;
            }
        }
        self.erase()?;
        self.draw()
    }
}

impl Sink for Tty {
    fn event(&self, event: Event) {
        let _ = lock(&self.0).show(event);
    }

    fn finish(&self) {
        let mut state = lock(&self.0);
        let _ = state.erase().and_then(|()| state.out.flush());
    }
}
