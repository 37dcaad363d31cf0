//! The text of a file: lines, and where a joined line's characters stand in it.

use crate::ast::Span;

/// A file's text with the offsets of its lines.
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    starts: Vec<usize>,
}

/// One line as it is in the file.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// From 1.
    pub(crate) number: u32,
    /// Offset of its first byte.
    pub(crate) start: usize,
    /// With its line end.
    pub(crate) raw: &'a str,
}

impl<'a> Line<'a> {
    /// Without its line end.
    pub(crate) fn text(self) -> &'a str {
        self.raw.trim_end_matches(['\r', '\n'])
    }
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let mut starts = vec![0];
        starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        if text.ends_with('\n') {
            starts.pop();
        }
        Self { text, starts }
    }

    /// How many lines there are; an empty text has one.
    pub(crate) fn line_count(&self) -> u32 {
        self.starts.len() as u32
    }

    /// A line by its number from 1.
    pub(crate) fn line(&self, number: u32) -> Option<Line<'a>> {
        let index = (number as usize).checked_sub(1)?;
        let start = *self.starts.get(index)?;
        let end = self.starts.get(index + 1).copied().unwrap_or(self.text.len());
        Some(Line {
            number,
            start,
            raw: &self.text[start..end],
        })
    }

    /// The number of the line that holds a byte.
    pub(crate) fn line_of(&self, offset: usize) -> u32 {
        self.starts.partition_point(|start| *start <= offset).max(1) as u32
    }

    /// A span of bytes, with its lines.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let end = end.max(start);
        Span {
            first_line: self.line_of(start),
            last_line: self.line_of(end.saturating_sub(1).max(start)),
            start,
            end,
        }
    }
}

/// The lines of one instruction put together, with the way back to the file.
#[derive(Default)]
pub(crate) struct Joined {
    pub(crate) text: String,
    /// Offset in `text` and offset in the file of each piece's first byte.
    pieces: Vec<(usize, usize)>,
}

impl Joined {
    pub(crate) fn push(&mut self, text: &str, offset: usize) {
        self.pieces.push((self.text.len(), offset));
        self.text.push_str(text);
    }

    /// Where the byte at `at` stands in the file. Of several pieces at one place the last one counts: those before it
    /// are empty.
    fn offset(&self, at: usize) -> usize {
        let index = self.pieces.partition_point(|(start, _)| *start <= at);
        match index.checked_sub(1).and_then(|index| self.pieces.get(index)) {
            Some((start, offset)) => offset + (at - start),
            None => at,
        }
    }

    /// The span in the file of a range of the joined text.
    pub(crate) fn span(&self, source: &Source<'_>, start: usize, end: usize) -> Span {
        if end <= start {
            // An empty range at the end of a piece belongs to that piece, not to the next line.
            let offset = if start == 0 {
                self.offset(0)
            } else {
                self.offset(start - 1) + 1
            };
            return source.span(offset, offset);
        }
        source.span(self.offset(start), self.offset(end - 1) + 1)
    }
}

/// A part of a joined line that knows its place in it.
#[derive(Clone, Copy)]
pub(crate) struct Slice<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
}

impl<'a> Slice<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(crate) fn from(self, start: usize) -> Self {
        Self {
            text: &self.text[start..],
            at: self.at + start,
        }
    }

    pub(crate) fn to(self, end: usize) -> Self {
        Self {
            text: &self.text[..end],
            at: self.at,
        }
    }

    pub(crate) fn trim(self) -> Self {
        self.trim_start().to_trimmed_end()
    }

    pub(crate) fn trim_start(self) -> Self {
        self.from(self.text.len() - self.text.trim_start().len())
    }

    fn to_trimmed_end(self) -> Self {
        self.to(self.text.trim_end().len())
    }

    /// Splits at the first run of blanks.
    pub(crate) fn split_blank(self) -> (Self, Option<Self>) {
        match self.text.find(is_blank) {
            None => (self, None),
            Some(start) => {
                let rest = self.from(start);
                let blanks = rest.text.find(|c| !is_blank(c)).unwrap_or(rest.text.len());
                (self.to(start), Some(rest.from(blanks)))
            }
        }
    }

    /// All words between runs of blanks.
    pub(crate) fn split_blanks(self) -> Vec<Self> {
        let mut words = Vec::new();
        let mut rest = Some(self);
        while let Some(slice) = rest {
            let (word, next) = slice.split_blank();
            words.push(word);
            rest = next;
        }
        words
    }
}

/// What separates words of an instruction (a line end cannot be inside one).
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joined_line_leads_back_to_the_file() {
        let text = "RUN a\\\n  b\\\n\nc\n";
        let source = Source::new(text);
        let mut joined = Joined::default();
        joined.push("RUN a", 0);
        joined.push("  b", 7);
        joined.push("c", 13);
        assert_eq!(joined.text, "RUN a  bc");
        let span = joined.span(&source, 7, 9);
        assert_eq!((span.first_line, span.last_line), (2, 4));
        assert_eq!(&text[span.start..span.end], "b\\\n\nc");
        let word = joined.span(&source, 0, 3);
        assert_eq!((word.first_line, &text[word.start..word.end]), (1, "RUN"));
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        assert_eq!(Source::new("a\nb\n").line_count(), 2);
        assert_eq!(Source::new("a\nb").line_count(), 2);
        assert_eq!(Source::new("").line_count(), 1);
        let source = Source::new("a\nb\n");
        assert_eq!(source.line_of(0), 1);
        assert_eq!(source.line_of(2), 2);
        assert_eq!(source.line_of(99), 2);
    }
}
