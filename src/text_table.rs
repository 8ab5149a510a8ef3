//! Text tables.

use std::fmt::Write as _;

/// The alignment of the cells of a text table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellAlignment {
    Left,
    Right,
}

/// Renders rows as a text table, with columns as wide as the widest of their cells.
pub(crate) fn text_table(rows: &[Vec<String>], alignment: CellAlignment) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = match alignment {
                CellAlignment::Left => write!(line, "{cell:<width$}  "),
                CellAlignment::Right => write!(line, "{cell:>width$}  "),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
