//! A line of styled text, cut to the width of a terminal. Pure.

use std::borrow::Cow;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What a piece of text means; how it looks follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Nothing special.
    Plain,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It is going on.
    Busy,
    /// Something to look at.
    Warn,
    /// Of less importance.
    Faint,
    /// Of more importance.
    Strong,
    /// One of several things that are told apart by colour; the same number, the same colour.
    Label(usize),
}

impl Paint {
    /// The parameters of the escape sequence (ECMA-48, SGR); none for plain text. Only the eight colours that every
    /// terminal theme defines, so that the text is readable on dark and light ground.
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Bad => Some("31"),
            Self::Busy => Some("36"),
            Self::Warn => Some("33"),
            Self::Faint => Some("2"),
            Self::Strong => Some("1"),
            Self::Label(number) => Some(match number % 6 {
                0 => "36",
                1 => "33",
                2 => "35",
                3 => "32",
                4 => "34",
                _ => "31",
            }),
        }
    }
}

/// A line, without its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line(Vec<(Paint, String)>);

impl Line {
    /// An empty line.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// With more text at its end. Control characters and escape sequences in it are taken out.
    #[must_use]
    pub fn with(mut self, paint: Paint, text: impl AsRef<str>) -> Self {
        self.push(paint, text);
        self
    }

    /// Puts more text at its end.
    pub fn push(&mut self, paint: Paint, text: impl AsRef<str>) {
        let text = clean(text.as_ref());
        if !text.is_empty() {
            self.0.push((paint, text.into_owned()));
        }
    }

    /// Puts another line at its end.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Columns that it takes.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// As much of it as fits into so many columns, with `…` where it was cut.
    #[must_use]
    pub fn cut(self, columns: usize) -> Self {
        if self.width() <= columns {
            return self;
        }
        let mut room = columns.saturating_sub(1);
        let mut cut = Self::new();
        for (paint, text) in self.0 {
            let part = head(&text, room);
            room -= part.width();
            let is_whole = part.len() == text.len();
            cut.push(paint, part);
            if !is_whole {
                break;
            }
        }
        if columns > 0 {
            cut.push(Paint::Plain, "…");
        }
        cut
    }

    /// The text, with escape sequences if it is to have colour.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for (paint, text) in &self.0 {
            match paint.code().filter(|_| colour) {
                Some(code) => {
                    out.push_str("\x1b[");
                    out.push_str(code);
                    out.push('m');
                    out.push_str(text);
                    out.push_str("\x1b[0m");
                }
                None => out.push_str(text),
            }
        }
        out
    }
}

/// As much of the beginning as fits into so many columns.
fn head(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, character) in text.char_indices() {
        used += character.width().unwrap_or(0);
        if used > columns {
            return &text[..at];
        }
    }
    text
}

/// Without escape sequences and control characters: what a step prints must not move the cursor or change colours. A tab
/// becomes blanks, and of a line that a program has written over (progress bars do, with carriage returns) the last
/// state counts.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let text = text.trim_end_matches('\r');
    let text = text.rsplit_once('\r').map_or(text, |(_, last)| last);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => skip_escape(&mut characters),
            '\t' => out.push_str("    "),
            other if other.is_control() => {}
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// The rest of an escape sequence: CSI up to its final byte, OSC up to its end, else one character.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            for character in characters.by_ref() {
                if ('@'..='~').contains(&character) {
                    break;
                }
            }
        }
        Some(']') => {
            while let Some(character) = characters.next() {
                if character == '\x07' || (character == '\x1b' && characters.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_at_the_width_that_is_seen() {
        let line = Line::new()
            .with(Paint::Good, "ok ")
            .with(Paint::Plain, "日本語 text");
        assert_eq!(line.width(), 14);
        let cut = |columns| line.clone().cut(columns).render(false);
        assert_eq!(line.render(false), "ok 日本語 text");
        assert_eq!(cut(14), "ok 日本語 text");
        assert_eq!(cut(13), "ok 日本語 te…");
        // A wide character that would stand half outside is left out.
        assert_eq!(cut(7), "ok 日…");
        assert_eq!(cut(1), "…");
        assert_eq!(cut(0), "");
    }

    #[test]
    fn colour_takes_no_room() {
        let line = Line::new().with(Paint::Good, "ok").with(Paint::Plain, " text");
        assert_eq!(line.clone().cut(7).render(true), "\x1b[32mok\x1b[0m text");
        assert_eq!(line.cut(4).render(true), "\x1b[32mok\x1b[0m …");
    }

    #[test]
    fn what_a_program_prints_cannot_draw() {
        for (printed, shown) in [
            ("plain", "plain"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07text", "text"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("10%\r50%\r100%", "100%"),
            ("100%\r", "100%"),
            ("a\tb", "a    b"),
            ("up\x1b[2Adown\x1b[J", "updown"),
            ("bell\x07", "bell"),
            ("\x1b", ""),
            ("\x1b[", ""),
        ] {
            assert_eq!(clean(printed), shown, "{printed:?}");
        }
    }
}
