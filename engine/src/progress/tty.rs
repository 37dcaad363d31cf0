//! For people at a terminal: finished steps scroll by, the running ones stay at the bottom with their last log lines.
//!
//! ```text
//!  ✓    0.3s  [internal] plan Dockerfile                  scrolls away
//!  ✓  cached  [deps 2/3] RUN npm ci
//! ──────────────────────────────────────────────────────
//!  ▸   12.3s  [build 4/7] RUN make  node-2                drawn anew in place
//!           │ cc -c main.c
//!      13.1s  2 done, 1 cached, 1 running
//! ```

use super::{
    Event, Sink,
    line::{Line, Paint, clean},
    lock,
    screen::{Screen, Size},
    text::{duration, size},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io::Write,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

/// Log lines shown below a running step.
const SHOWN_LINES: usize = 3;
/// How often the frame is drawn: the clocks tick, and a flood of log lines costs no more than this.
const TICK: Duration = Duration::from_millis(100);

/// Redraws the running steps in place with ANSI escape sequences, in a thread of its own.
pub struct Tty {
    state: Arc<Mutex<State>>,
    /// The thread ends when this is gone.
    ticking: Mutex<Option<mpsc::Sender<()>>>,
}

/// How big the terminal is just now: it may be resized at any time.
pub type Measure = Box<dyn Fn() -> Size + Send>;

impl Tty {
    /// Draws on `out`, a terminal.
    pub fn new(out: Box<dyn Write + Send>, measure: Measure, colour: bool) -> Self {
        let state = Arc::new(Mutex::new(State::new(out, measure, colour, Instant::now())));
        let (sender, receiver) = mpsc::channel::<()>();
        let drawn = Arc::clone(&state);
        std::thread::spawn(move || {
            while receiver.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                // A terminal that went away must not fail the build.
                let _ = lock(&drawn).draw(Instant::now());
            }
        });
        Self {
            state,
            ticking: Mutex::new(Some(sender)),
        }
    }
}

impl Sink for Tty {
    fn event(&self, event: Event) {
        lock(&self.state).take(event, Instant::now());
    }

    fn finish(&self) {
        lock(&self.ticking).take();
        let mut state = lock(&self.state);
        state.running.clear();
        state.footer = Some(Vec::new());
        let _ = state.draw(Instant::now());
    }
}

struct State {
    out: Box<dyn Write + Send>,
    measure: Measure,
    colour: bool,
    screen: Screen,
    /// Lines to scroll away, and whether a line is cut to the terminal's width.
    above: Vec<(Line, bool)>,
    running: BTreeMap<u32, Running>,
    footer: Option<Vec<Line>>,
    began: Instant,
    done: usize,
    cached: usize,
}

struct Running {
    name: String,
    place: Option<String>,
    began: Instant,
    lines: VecDeque<String>,
}

impl State {
    fn new(out: Box<dyn Write + Send>, measure: Measure, colour: bool, now: Instant) -> Self {
        Self {
            out,
            measure,
            colour,
            screen: Screen::default(),
            above: Vec::new(),
            running: BTreeMap::new(),
            footer: None,
            began: now,
            done: 0,
            cached: 0,
        }
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Started { id, name, place } => {
                let running = Running {
                    name,
                    place,
                    began: now,
                    lines: VecDeque::new(),
                };
                self.running.insert(id, running);
            }
            Event::Log { id, line, after, .. } => {
                if let Some(running) = self.running.get_mut(&id) {
                    // Of a step that runs elsewhere, the first line may tell that it began before it was seen.
                    running.began = now.checked_sub(after).unwrap_or(now).min(running.began);
                    running.lines.push_back(clean(&line).into_owned());
                    if running.lines.len() > SHOWN_LINES {
                        running.lines.pop_front();
                    }
                }
            }
            Event::Status {
                id,
                name,
                current,
                total,
            } => {
                if let Some(running) = self.running.get_mut(&id) {
                    let of = total
                        .map(|total| format!(" / {}", size(total)))
                        .unwrap_or_default();
                    running.lines = [format!("{name} {}{of}", size(current))].into();
                }
            }
            Event::Done { id, cached, took } => {
                let end = if cached {
                    "cached".to_owned()
                } else {
                    duration(took)
                };
                self.done += 1;
                self.cached += usize::from(cached);
                let ended = self.running.remove(&id);
                self.above
                    .push((row(Paint::Good, "✓", &end, ended.as_ref()), true));
            }
            Event::Failed { id, error } => {
                let ended = self.running.remove(&id);
                let took = ended
                    .as_ref()
                    .map_or(Duration::ZERO, |ended| now.duration_since(ended.began));
                let mut line = row(Paint::Bad, "✗", &duration(took), ended.as_ref());
                line.push(Paint::Bad, format!(": {error}"));
                self.above.push((line, false));
            }
            Event::Cancelled { id } => {
                self.running.remove(&id);
            }
            Event::Warning { rule, detail, line } => {
                let warning = Line::new()
                    .with(Paint::Warn, " ! ")
                    .with(Paint::Plain, format!("{rule}: {detail} (line {line})"));
                self.above.push((warning, false));
            }
            Event::Footer { lines } => self.footer = Some(lines),
        }
    }

    fn draw(&mut self, now: Instant) -> std::io::Result<()> {
        let size = (self.measure)();
        let frame = self.frame(size, now);
        let width = size.columns.saturating_sub(1);
        let above = std::mem::take(&mut self.above).into_iter();
        let above: Vec<_> = above
            .map(|(line, is_cut)| if is_cut { line.cut(width) } else { line })
            .collect();
        let bytes = self.screen.update(size, self.colour, &above, &frame);
        // In one piece, so that no half of a frame is seen.
        self.out.write_all(bytes.as_bytes())?;
        self.out.flush()
    }

    /// What stands below the finished steps. Where there is no room for all, log lines go first, then steps.
    fn frame(&self, size: Size, now: Instant) -> Vec<Line> {
        let footer = self.footer.clone().unwrap_or_else(|| vec![self.summary(now)]);
        let room = size.rows.saturating_sub(1 + footer.len());
        let steps = self.running.len();
        let shown = if steps > room {
            room.saturating_sub(1)
        } else {
            steps
        };
        let logs = room
            .saturating_sub(steps)
            .checked_div(steps)
            .unwrap_or(0)
            .min(SHOWN_LINES);
        let mut lines = Vec::new();
        for running in self.running.values().take(shown) {
            let time = duration(now.duration_since(running.began));
            lines.push(row(Paint::Busy, "▸", &time, Some(running)));
            let skipped = running.lines.len().saturating_sub(logs);
            lines.extend(
                running
                    .lines
                    .iter()
                    .skip(skipped)
                    .map(|text| Line::new().with(Paint::Faint, format!("{:9} │ {text}", ""))),
            );
        }
        if shown < steps && room > 0 {
            lines.push(Line::new().with(Paint::Faint, format!("{:11}… and {} more", "", steps - shown)));
        }
        lines.extend(footer);
        lines
    }

    fn summary(&self, now: Instant) -> Line {
        let text = format!(
            "   {:>7}  {} done, {} cached, {} running",
            duration(now.duration_since(self.began)),
            self.done,
            self.cached,
            self.running.len()
        );
        Line::new().with(Paint::Strong, text)
    }
}

fn row(paint: Paint, symbol: &str, time: &str, step: Option<&Running>) -> Line {
    let mut line = Line::new()
        .with(paint, format!(" {symbol} "))
        .with(Paint::Faint, format!("{time:>7}  "));
    if let Some(step) = step {
        line.push(Paint::Plain, short_digests(&step.name));
        if let Some(place) = &step.place {
            line.push(Paint::Faint, format!("  {place}"));
        }
    }
    line
}

/// With the first 12 digits of each digest, as people compare them; the whole would push the rest out of the line.
fn short_digests(name: &str) -> String {
    const ALGORITHM: &str = "sha256:";
    let mut parts = name.split(ALGORITHM);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let cut = if digits == 64 { 12 } else { digits };
        out.push_str(ALGORITHM);
        out.push_str(&part[..cut]);
        out.push_str(&part[digits..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    impl Write for Nowhere {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn state(began: Instant) -> State {
        State::new(Box::new(Nowhere), Box::new(Size::default), false, began)
    }

    fn started(id: u32, name: &str) -> Event {
        Event::Started {
            id,
            name: name.into(),
            place: None,
        }
    }

    fn log(id: u32, line: &str, after: u64) -> Event {
        Event::Log {
            id,
            stderr: false,
            line: line.into(),
            after: Duration::from_secs(after),
        }
    }

    fn text(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| line.render(false)).collect()
    }

    fn above(state: &State) -> Vec<String> {
        state.above.iter().map(|(line, _)| line.render(false)).collect()
    }

    #[test]
    fn running_steps_stand_below_those_that_ended() {
        let began = Instant::now();
        let mut state = state(began);
        state.take(started(1, "[a 1/2] RUN x"), began);
        state.take(
            Event::Started {
                id: 2,
                name: "[b 1/1] RUN y".into(),
                place: Some("node-2".into()),
            },
            began,
        );
        for line in ["one", "two", "\x1b[31mthree\x1b[0m", "four"] {
            state.take(log(2, line, 0), began);
        }
        state.take(
            Event::Done {
                id: 1,
                cached: false,
                took: Duration::from_millis(300),
            },
            began,
        );
        let later = began + Duration::from_millis(1500);
        assert_eq!(above(&state), [" ✓    0.3s  [a 1/2] RUN x"]);
        assert_eq!(
            text(&state.frame(Size::default(), later)),
            [
                " ▸    1.5s  [b 1/1] RUN y  node-2",
                "          │ two",
                "          │ three",
                "          │ four",
                "      1.5s  1 done, 0 cached, 1 running",
            ]
        );
    }

    #[test]
    fn a_step_that_began_before_it_was_seen_has_its_own_clock() {
        let began = Instant::now() + Duration::from_mins(5);
        let mut state = state(began);
        state.take(started(1, "x"), began);
        state.take(log(1, "line", 90), began);
        state.take(log(1, "line", 80), began);
        assert!(text(&state.frame(Size::default(), began))[0].starts_with(" ▸   1m30s  x"));
    }

    #[test]
    fn a_low_terminal_loses_log_lines_first_and_then_steps() {
        let began = Instant::now();
        let mut state = state(began);
        for id in 0..4 {
            state.take(started(id, &format!("step {id}")), began);
            for line in ["one", "two", "three"] {
                state.take(log(id, line, 0), began);
            }
        }
        let rows = |rows| text(&state.frame(Size { columns: 80, rows }, began));
        assert_eq!(rows(24).len(), 17);
        assert_eq!(rows(10).len(), 9, "one log line each");
        assert_eq!(rows(6).len(), 5, "no log lines");
        let low = rows(5);
        assert_eq!(low.len(), 4);
        assert_eq!(low[2], "           … and 2 more");
        assert_eq!(rows(2).len(), 1);
        for height in 0..30 {
            assert!(rows(height).len() <= height.saturating_sub(1).max(1), "{height}");
        }
    }

    #[test]
    fn digests_are_shortened_and_nothing_else() {
        let digest = "0123456789abcdef".repeat(4);
        for (name, shown) in [
            (
                format!("FROM a@sha256:{digest} AS b"),
                "FROM a@sha256:0123456789ab AS b".to_owned(),
            ),
            (
                format!("unpack sha256:{digest}"),
                "unpack sha256:0123456789ab".to_owned(),
            ),
            (
                "ADD --checksum=sha256:abc x".to_owned(),
                "ADD --checksum=sha256:abc x".to_owned(),
            ),
            ("RUN echo é sha256:".to_owned(), "RUN echo é sha256:".to_owned()),
        ] {
            assert_eq!(short_digests(&name), shown);
        }
    }

    #[test]
    fn failures_warnings_and_transfers_are_told() {
        let began = Instant::now();
        let mut state = state(began);
        state.take(started(1, "pull"), began);
        state.take(
            Event::Status {
                id: 1,
                name: "sha256:ab".into(),
                current: 1_500,
                total: Some(3_000),
            },
            began,
        );
        assert_eq!(
            text(&state.frame(Size::default(), began))[1],
            "          │ sha256:ab 1.5kB / 3.0kB"
        );
        state.take(
            Event::Failed {
                id: 1,
                error: "exit code 2".into(),
            },
            began,
        );
        state.take(
            Event::Warning {
                rule: "StageNameCasing".into(),
                detail: "upper case".into(),
                line: 3,
            },
            began,
        );
        assert_eq!(
            above(&state),
            [
                " ✗    0.0s  pull: exit code 2",
                " ! StageNameCasing: upper case (line 3)"
            ]
        );
    }
}
