//! The lower part of a terminal, drawn anew in place. Pure: it makes the bytes, somebody else writes them.
//!
//! ```text
//!   lines that are finished     scroll away upwards, never touched again
//!   ─────────────────────────
//!   the frame                   erased and drawn again, as often as wanted
//! ```

use super::line::Line;
use std::fmt::Write as _;

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

impl Default for Size {
    /// What terminals have had since the VT100.
    fn default() -> Self {
        Self {
            columns: 80,
            rows: 24,
        }
    }
}

impl Size {
    /// The size of the terminal that a file descriptor is open on; the default if it does not tell.
    pub fn of(terminal: impl std::os::fd::AsFd) -> Self {
        let size = rustix::termios::tcgetwinsize(terminal).ok();
        size.filter(|size| size.ws_col > 0 && size.ws_row > 0)
            .map_or_else(Self::default, |size| Self {
                columns: size.ws_col.into(),
                rows: size.ws_row.into(),
            })
    }
}

/// What was drawn last.
#[derive(Debug, Default)]
pub struct Screen {
    /// Columns that each line of the frame takes.
    drawn: Vec<usize>,
}

impl Screen {
    /// The bytes that put `above` above the frame for good and draw `frame` in the place of the last one. Lines of the
    /// frame are cut to the terminal's width and number; those above are given whole.
    pub fn update(&mut self, size: Size, colour: bool, above: &[Line], frame: &[Line]) -> String {
        let mut out = self.erase(size);
        for line in above {
            out.push_str(&line.render(colour));
            out.push_str("\x1b[K\r\n");
        }
        // The last row stays free: a line end there would scroll the frame's first line out of reach.
        let frame = &frame[..frame.len().min(size.rows.saturating_sub(1))];
        // The last column too: what a terminal does with a cursor behind it differs.
        let width = size.columns.saturating_sub(1);
        for line in frame {
            let line = line.clone().cut(width);
            out.push_str(&line.render(colour));
            out.push_str("\x1b[K\r\n");
            self.drawn.push(line.width());
        }
        out.push_str("\x1b[J");
        out
    }

    /// To the first row of the last frame. A terminal that has become narrower has broken its lines.
    fn erase(&mut self, size: Size) -> String {
        let columns = size.columns.max(1);
        let rows: usize = self
            .drawn
            .iter()
            .map(|width| width.div_ceil(columns).max(1))
            .sum();
        self.drawn.clear();
        let rows = rows.min(size.rows.saturating_sub(1));
        let mut out = String::new();
        if rows > 0 {
            let _ = write!(out, "\x1b[{rows}A");
        }
        out.push('\r');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::line::Paint;

    fn line(text: &str) -> Line {
        Line::new().with(Paint::Plain, text)
    }

    const SIZE: Size = Size { columns: 20, rows: 5 };

    #[test]
    fn a_frame_takes_the_place_of_the_last() {
        let mut screen = Screen::default();
        let first = screen.update(SIZE, false, &[], &[line("a"), line("b")]);
        assert_eq!(first, "\ra\x1b[K\r\nb\x1b[K\r\n\x1b[J");
        let second = screen.update(SIZE, false, &[line("done")], &[line("c")]);
        assert_eq!(second, "\x1b[2A\rdone\x1b[K\r\nc\x1b[K\r\n\x1b[J");
        let last = screen.update(SIZE, false, &[], &[]);
        assert_eq!(last, "\x1b[1A\r\x1b[J");
        assert_eq!(screen.update(SIZE, false, &[], &[]), "\r\x1b[J");
    }

    #[test]
    fn a_frame_is_never_higher_or_wider_than_the_terminal() {
        let mut screen = Screen::default();
        let many: Vec<_> = (0..9).map(|n| line(&format!("{n}{}", "x".repeat(40)))).collect();
        let drawn = screen.update(SIZE, false, &[], &many);
        assert_eq!(drawn.matches("\r\n").count(), 4);
        assert!(drawn.contains("3xxxxxxxxxxxxxxxxx…\x1b[K") && !drawn.contains('4'));
        assert!(screen.update(SIZE, false, &[], &[]).starts_with("\x1b[4A"));
    }

    #[test]
    fn lines_that_a_narrower_terminal_has_broken_are_erased_whole() {
        let mut screen = Screen::default();
        screen.update(SIZE, false, &[], &[line("0123456789"), line("")]);
        let narrow = Size { columns: 4, rows: 9 };
        assert!(screen.update(narrow, false, &[], &[]).starts_with("\x1b[4A"));
    }
}
