//! Columns.

use slipway_engine::progress::{Line, Paint};

/// Blanks between two columns.
const GAP: usize = 3;

/// Rows of cells; each column is as wide as its widest cell, the last as wide as it likes.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<Line>>,
}

impl Table {
    /// A table with a heading; no names: no heading.
    pub fn new(heading: &[&str]) -> Self {
        let mut table = Self::default();
        if !heading.is_empty() {
            table.row(heading.iter().map(|name| cell(*name)).collect());
        }
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Line>) {
        self.rows.push(cells);
    }

    /// The lines.
    pub fn lines(self) -> Vec<Line> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(Line::width).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        // A column in which nobody has anything takes no room.
        let row = |cells: Vec<Line>| {
            let mut line = Line::new();
            let mut blanks = 0;
            for (cell, width) in cells.into_iter().zip(&widths).filter(|(_, width)| **width > 0) {
                let used = cell.width();
                if used > 0 {
                    line.push(Paint::Plain, " ".repeat(blanks));
                    blanks = 0;
                }
                line.append(cell);
                blanks += width - used + GAP;
            }
            line
        };
        self.rows.into_iter().map(row).collect()
    }
}

/// A cell without style.
pub fn cell(text: impl AsRef<str>) -> Line {
    Line::new().with(Paint::Plain, text)
}

/// A cell of less importance.
pub fn faint(text: impl AsRef<str>) -> Line {
    Line::new().with(Paint::Faint, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell_and_lines_have_no_blanks_at_their_end() {
        let mut table = Table::new(&["NAME", "", "PHASE"]);
        table.row(vec![cell("日本"), cell(""), cell("Running")]);
        table.row(vec![cell("a-long-name"), cell(""), cell("")]);
        table.row(vec![cell("x")]);
        let lines: Vec<_> = table.lines().iter().map(|line| line.render(false)).collect();
        assert_eq!(
            lines,
            ["NAME          PHASE", "日本          Running", "a-long-name", "x"]
        );
    }
}
