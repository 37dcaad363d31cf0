//! Reads what a runner prints (the engine's plain progress) back into what happened. The counterpart of
//! `slipway_engine::progress::Plain`; a test holds the two together.

use std::{collections::HashSet, time::Duration};

/// One line of a runner's log, understood. Numbers are the runner's own.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// A step began.
    Started { number: u32, name: String },
    /// A step printed a line.
    Log {
        number: u32,
        after: Duration,
        text: String,
    },
    /// A step ended well.
    Done {
        number: u32,
        cached: bool,
        took: Duration,
    },
    /// A step failed.
    Failed { number: u32, error: String },
    /// A step was stopped.
    Cancelled { number: u32 },
    /// A warning about the Dockerfile.
    Warning { rule: String, detail: String, line: u32 },
    /// Nothing new: a step's name again, or an empty line.
    Nothing,
    /// Anything else: not of a step.
    Other(String),
}

/// What has been read of one log.
#[derive(Debug, Default)]
pub(super) struct Replay {
    started: HashSet<u32>,
}

impl Replay {
    /// Understands the next line.
    pub(super) fn line(&mut self, line: &str) -> Said {
        if line.is_empty() {
            return Said::Nothing;
        }
        if let Some(warning) = warning(line) {
            return warning;
        }
        let Some((number, rest)) = numbered(line) else {
            return Said::Other(line.to_owned());
        };
        if self.started.insert(number) {
            return Said::Started {
                number,
                name: rest.to_owned(),
            };
        }
        of_step(number, rest)
    }
}

fn of_step(number: u32, rest: &str) -> Said {
    if let Some(took) = rest.strip_prefix("DONE ").and_then(seconds) {
        return Said::Done {
            number,
            cached: false,
            took,
        };
    }
    match rest {
        "CACHED" => {
            return Said::Done {
                number,
                cached: true,
                took: Duration::ZERO,
            };
        }
        "CANCELED" => return Said::Cancelled { number },
        _ => {}
    }
    if let Some(error) = rest.strip_prefix("ERROR: ") {
        return Said::Failed {
            number,
            error: error.to_owned(),
        };
    }
    let (time, text) = rest.split_once(' ').unwrap_or((rest, ""));
    match time.split_once('.') {
        Some((_, millis)) if millis.len() == 3 => time
            .parse()
            .ok()
            .and_then(|time| Duration::try_from_secs_f64(time).ok())
            .map_or(Said::Nothing, |after| Said::Log {
                number,
                after,
                text: text.to_owned(),
            }),
        // Its name again, where the log goes on with it; or how much was transferred.
        _ => Said::Nothing,
    }
}

fn numbered(line: &str) -> Option<(u32, &str)> {
    let (number, rest) = line.strip_prefix('#')?.split_once(' ')?;
    Some((number.parse().ok()?, rest))
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

/// `WARN: Rule: detail (line 3)`.
fn warning(line: &str) -> Option<Said> {
    let (rule, rest) = line.strip_prefix("WARN: ")?.split_once(": ")?;
    let (detail, line) = rest.strip_suffix(')')?.rsplit_once(" (line ")?;
    Some(Said::Warning {
        rule: rule.to_owned(),
        detail: detail.to_owned(),
        line: line.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_engine::{Progress, progress::Plain};
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_the_engine_prints_is_understood() {
        let buffer = Buffer::default();
        let progress = Progress::new(Arc::new(Plain::new(Box::new(buffer.clone()))));
        let one = progress.start("[build 1/3] RUN make");
        one.line("#2 not a step");
        one.line("DONE 3s");
        let two = progress.start("[build 2/3] COPY . .");
        two.status("sha256:ab", 5, Some(5));
        one.line("");
        progress.warn("StageNameCasing", "Stage name 'A' (odd)", 3);
        one.done();
        two.failed("it broke: badly");
        progress.cached("[build 3/3] RUN x");
        drop(progress.start("[test 1/1] RUN y"));
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let mut replay = Replay::default();
        let mut said: Vec<Said> = text.lines().map(|line| replay.line(line)).collect();
        said.retain(|said| *said != Said::Nothing);
        for said in &mut said {
            match said {
                Said::Log { after, .. } => *after = Duration::ZERO,
                Said::Done { took, .. } => *took = Duration::ZERO,
                _ => {}
            }
        }
        let log = |number, text: &str| Said::Log {
            number,
            after: Duration::ZERO,
            text: text.into(),
        };
        let started = |number, name: &str| Said::Started {
            number,
            name: name.into(),
        };
        let done = |number, cached| Said::Done {
            number,
            cached,
            took: Duration::ZERO,
        };
        assert_eq!(
            said,
            [
                started(1, "[build 1/3] RUN make"),
                log(1, "#2 not a step"),
                log(1, "DONE 3s"),
                started(2, "[build 2/3] COPY . ."),
                log(1, ""),
                Said::Warning {
                    rule: "StageNameCasing".into(),
                    detail: "Stage name 'A' (odd)".into(),
                    line: 3
                },
                done(1, false),
                Said::Failed {
                    number: 2,
                    error: "it broke: badly".into()
                },
                started(3, "[build 3/3] RUN x"),
                done(3, true),
                started(4, "[test 1/1] RUN y"),
                Said::Cancelled { number: 4 },
            ]
        );
    }

    #[test]
    fn what_is_no_progress_is_passed_on() {
        let mut replay = Replay::default();
        assert_eq!(
            replay.line("error: failed to read the request"),
            Said::Other("error: failed to read the request".into())
        );
        assert_eq!(replay.line("#x y"), Said::Other("#x y".into()));
        assert_eq!(replay.line("WARN: odd"), Said::Other("WARN: odd".into()));
    }
}
