//! One line an event, for logs: the manner that BuildKit's plain progress made known.

use super::{Event, Sink, lock, text::size};
use std::{collections::HashMap, io::Write, sync::Mutex};

/// Prints `#5 [build 2/4] RUN make`, `#5 0.123 text`, `#5 DONE 0.3s`, `#5 CACHED`.
pub struct Plain(Mutex<State>);

struct State {
    out: Box<dyn Write + Send>,
    last: u32,
    names: HashMap<u32, String>,
}

impl Plain {
    /// Prints to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self(Mutex::new(State {
            out,
            last: 0,
            names: HashMap::new(),
        }))
    }
}

impl State {
    /// A blank line and the name again where the output jumps from one vertex to another.
    fn turn_to(&mut self, id: u32) -> std::io::Result<()> {
        if self.last != id {
            if self.last != 0 {
                writeln!(self.out)?;
            }
            if let Some(name) = self.names.get(&id) {
                writeln!(self.out, "#{id} {name}")?;
            }
            self.last = id;
        }
        Ok(())
    }

    fn show(&mut self, event: Event) -> std::io::Result<()> {
        match event {
            Event::Started { id, name, place } => {
                let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
                self.names.insert(id, format!("{name}{place}"));
                self.turn_to(id)?;
            }
            Event::Log { id, line, after, .. } => {
                self.turn_to(id)?;
                writeln!(self.out, "#{id} {:.3} {line}", after.as_secs_f64())?;
            }
            Event::Status {
                id,
                name,
                current,
                total,
            } => {
                if total.is_none_or(|total| total == current) {
                    self.turn_to(id)?;
                    writeln!(self.out, "#{id} {name} {}", size(current))?;
                }
            }
            Event::Done { id, cached, took } => {
                self.turn_to(id)?;
                if cached {
                    writeln!(self.out, "#{id} CACHED")?;
                } else {
                    writeln!(self.out, "#{id} DONE {:.1}s", took.as_secs_f64())?;
                }
                self.names.remove(&id);
            }
            Event::Failed { id, error } => {
                self.turn_to(id)?;
                writeln!(self.out, "#{id} ERROR: {error}")?;
                self.names.remove(&id);
            }
            Event::Cancelled { id } => {
                self.turn_to(id)?;
                writeln!(self.out, "#{id} CANCELED")?;
                self.names.remove(&id);
            }
            Event::Warning { rule, detail, line } => {
                writeln!(self.out, "WARN: {rule}: {detail} (line {line})")?;
            }
            Event::Footer { .. } => {}
        }
        self.out.flush()
    }
}

impl Sink for Plain {
    fn event(&self, event: Event) {
        // A reader that went away must not fail the build.
        let _ = lock(&self.0).show(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn two_vertices_are_told_apart() {
        let buffer = Buffer::default();
        let plain = Plain::new(Box::new(buffer.clone()));
        let log = |id, line: &str| Event::Log {
            id,
            stderr: false,
            line: line.into(),
            after: Duration::from_millis(123),
        };
        plain.event(Event::Started {
            id: 1,
            name: "[a 1/2] RUN x".into(),
            place: None,
        });
        plain.event(log(1, "one"));
        plain.event(Event::Started {
            id: 2,
            name: "[b 1/1] RUN y".into(),
            place: None,
        });
        plain.event(log(1, "two"));
        plain.event(Event::Done {
            id: 2,
            cached: true,
            took: Duration::ZERO,
        });
        let text = String::from_utf8(lock(&buffer.0).clone()).unwrap();
        assert_eq!(
            text,
            "#1 [a 1/2] RUN x\n#1 0.123 one\n\n#2 [b 1/1] RUN y\n\n#1 [a 1/2] RUN x\n#1 0.123 two\n\n\
             #2 [b 1/1] RUN y\n#2 CACHED\n"
        );
    }
}
