//! Splitting into shell words (quotes and escapes kept) and into flags (quotes and escapes removed).

use crate::source::Slice;

/// A word with the range of the line it was read from.
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(PartialEq)]
enum Phase {
    Blanks,
    Word,
    Quote(char),
}

/// Splits at blanks that are neither quoted nor escaped. Quotes and escapes stay in the words.
pub(super) fn shell_words(line: Slice<'_>, escape: char) -> Vec<Piece> {
    let mut words: Vec<Piece> = Vec::new();
    let mut phase = Phase::Blanks;
    let mut word = Piece {
        text: String::new(),
        start: 0,
        end: 0,
    };
    let mut had_quote = false;
    let mut chars = line.text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let end = |at: usize, c: char| line.at + at + c.len_utf8();
        match phase {
            Phase::Blanks if c.is_whitespace() => continue,
            Phase::Blanks => {
                phase = Phase::Word;
                word.start = line.at + at;
            }
            Phase::Word if c.is_whitespace() => {
                phase = Phase::Blanks;
                if had_quote || !word.text.is_empty() {
                    words.push(std::mem::replace(
                        &mut word,
                        Piece {
                            text: String::new(),
                            start: 0,
                            end: 0,
                        },
                    ));
                }
                had_quote = false;
                continue;
            }
            Phase::Word | Phase::Quote(_) => {}
        }
        word.end = end(at, c);
        let escapes = c == escape && phase != Phase::Quote('\'');
        match phase {
            Phase::Word if matches!(c, '\'' | '"') => {
                had_quote = true;
                phase = Phase::Quote(c);
            }
            Phase::Quote(quote) if c == quote => phase = Phase::Word,
            _ => {}
        }
        if escapes {
            // An escape at the very end escapes nothing and is dropped.
            if let Some((at, escaped)) = chars.next() {
                word.text.push(c);
                word.text.push(escaped);
                word.end = end(at, escaped);
            }
            continue;
        }
        word.text.push(c);
    }
    if phase != Phase::Blanks && (had_quote || !word.text.is_empty()) {
        words.push(word);
    }
    words
}

/// Takes the words that begin with `--` from the front; a lone `--` ends them. The escape here is always a backslash,
/// whatever the file's escape character.
pub(super) fn flags(line: Slice<'_>) -> (Vec<Piece>, Slice<'_>) {
    let mut flags = Vec::new();
    let mut rest = line.trim_start();
    loop {
        if !rest.text.starts_with("--") {
            return (flags, rest);
        }
        let (text, length, had_quote) = flag(rest.text);
        let piece = Piece {
            text,
            start: rest.at,
            end: rest.at + length,
        };
        rest = rest.from(length);
        if piece.text == "--" {
            return (flags, rest);
        }
        if had_quote || !piece.text.is_empty() {
            flags.push(piece);
        }
        rest = rest.trim_start();
    }
}

/// One flag: its text, how much of the line it takes, and whether a quote was in it.
fn flag(line: &str) -> (String, usize, bool) {
    let mut text = String::new();
    let mut quote = None;
    let mut had_quote = false;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (text, at, had_quote),
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                had_quote = true;
            }
            Some(open) if c == open => quote = None,
            _ if c == '\\' => match chars.next() {
                Some((_, escaped)) => text.push(escaped),
                None => quote = None,
            },
            _ => text.push(c),
        }
    }
    (text, line.len(), had_quote)
}
