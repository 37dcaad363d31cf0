//! Which lines of the source a diagnostic carries with it.

use std::collections::BTreeSet;

use super::{ExcerptLine, Label};
use crate::{ast::Span, source::Source};

/// So many lines of a long instruction are shown from its start.
const HEAD: u32 = 8;

/// The longest piece of a line that is kept, in characters.
const WIDTH: usize = 240;

/// So much of a cut line is kept in front of the focus, in characters.
const LEAD: usize = 60;

pub(super) fn cut(source: &str, span: Span, focus: Option<Span>, related: &[Label]) -> Vec<ExcerptLine> {
    let source = Source::new(source);
    let mut numbers: BTreeSet<u32> = BTreeSet::new();
    numbers.extend(span.first_line.saturating_sub(1)..=span.last_line.min(span.first_line + HEAD - 1));
    numbers.insert(span.last_line);
    for place in focus
        .into_iter()
        .chain(related.iter().take(4).map(|label| label.span))
    {
        numbers.extend(place.first_line..=place.last_line.min(place.first_line + 1));
    }
    numbers
        .into_iter()
        .filter_map(|number| {
            let line = source.line(number)?;
            let wanted = focus.filter(|focus| focus.first_line == number);
            let at = wanted.map_or(0, |focus| focus.start.saturating_sub(line.start));
            Some(window(number, line.start, line.text(), at))
        })
        .collect()
}

/// The part of a line around a byte.
fn window(number: u32, offset: usize, text: &str, at: usize) -> ExcerptLine {
    let length = text.chars().count();
    if length <= WIDTH {
        return ExcerptLine {
            number,
            offset,
            cut: 0,
            text: text.to_owned(),
        };
    }
    let before = text.char_indices().take_while(|(byte, _)| *byte < at).count();
    let cut = if before + LEAD < WIDTH {
        0
    } else {
        before.saturating_sub(LEAD).min(length - WIDTH)
    };
    let start = text.char_indices().nth(cut).map_or(text.len(), |(byte, _)| byte);
    let text: String = text[start..].chars().take(WIDTH).collect();
    ExcerptLine {
        number,
        offset: offset + start,
        cut,
        text,
    }
}
