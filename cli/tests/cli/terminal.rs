//! A pseudo-terminal, by `script` of util-linux, and what a person would see on it.

use std::{
    io::{Read as _, Write as _},
    num::NonZero,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// A test that waits longer has failed.
const LIMIT: Duration = Duration::from_mins(1);

/// A program on a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<(Mutex<Screen>, Condvar)>,
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

struct Screen {
    parser: vt100::Parser,
    raw: Vec<u8>,
    over: bool,
}

impl Terminal {
    /// Starts a program on a terminal of this size. `environment` is put before it: `NO_COLOR=1`.
    pub(crate) fn start(
        columns: u16,
        rows: u16,
        environment: &str,
        program: &Path,
        arguments: &[&str],
    ) -> Self {
        let quoted: Vec<String> = arguments.iter().map(|one| format!("'{one}'")).collect();
        let line = format!(
            "stty cols {columns} rows {rows}; tty; exec env -u NO_COLOR TERM=xterm {environment} '{}' {}",
            program.display(),
            quoted.join(" ")
        );
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script (util-linux) is needed");
        let screen = Arc::new((
            Mutex::new(Screen {
                parser: vt100::Parser::new(cells(rows), cells(columns), 1000),
                raw: Vec::new(),
                over: false,
            }),
            Condvar::new(),
        ));
        let (seen, mut output) = (screen.clone(), child.stdout.take().unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = output.read(&mut buffer).unwrap_or(0);
                let mut screen = seen.0.lock().unwrap();
                screen.over = read == 0;
                screen.parser.process(&buffer[..read]);
                screen.raw.extend_from_slice(&buffer[..read]);
                seen.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        let keys = child.stdin.take().unwrap();
        Self { child, keys, screen }
    }

    /// Waits until the screen fulfils a condition, and returns it.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut screen = self.screen.0.lock().unwrap();
        loop {
            let text = screen.parser.screen().contents();
            if condition(&text) {
                return text;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !screen.over,
                "{what} never came; the screen is\n{text}"
            );
            screen = self.screen.1.wait_timeout(screen, left).unwrap().0;
        }
    }

    /// Waits until a text is on the screen.
    pub(crate) fn shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// All bytes that the program wrote.
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.screen.0.lock().unwrap().raw).into_owned()
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Gives the terminal another size, as a window manager would.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let raw = self.raw();
        let tty = raw
            .lines()
            .find(|line| line.starts_with("/dev/pts/"))
            .unwrap()
            .trim()
            .to_owned();
        self.screen
            .0
            .lock()
            .unwrap()
            .parser
            .screen_mut()
            .set_size(cells(rows), cells(columns));
        let stty = Command::new("stty")
            .args([
                "-F",
                &tty,
                "cols",
                &columns.to_string(),
                "rows",
                &rows.to_string(),
            ])
            .status()
            .unwrap();
        assert!(stty.success());
    }

    /// Waits for the end: how, and the last screen.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + LIMIT;
        let mut screen = self.screen.0.lock().unwrap();
        while !screen.over {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "it does not end; the screen is\n{}",
                screen.parser.screen().contents()
            );
            screen = self.screen.1.wait_timeout(screen, left).unwrap().0;
        }
        let text = screen.parser.screen().contents();
        drop(screen);
        (self.child.wait().unwrap(), text)
    }
}
