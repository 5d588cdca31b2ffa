//! Tables for people: columns aligned, no lines, nothing folded, so that `grep` and `awk` can read them too.

use super::figures::plain;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width, presets};

/// Characters between two columns.
const GAP: u16 = 2;

/// A column: its title, and whether it holds numbers.
pub(super) enum Column {
    Text(&'static str),
    Number(&'static str),
}

/// The table, with a line end after each row.
pub(super) fn render<const N: usize>(
    columns: [Column; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    Table::new(columns).render(rows)
}

/// A table that is printed in parts, the title with the first. Columns stay as wide as they have become.
pub(super) struct Table<const N: usize> {
    columns: [Column; N],
    /// In characters; none before the first part.
    widths: Option<[u16; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [Column; N]) -> Self {
        Self { columns, widths: None }
    }

    /// The next part, with a line end after each row.
    pub(super) fn render(&mut self, rows: impl IntoIterator<Item = [String; N]>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if self.widths.is_none() {
            table.set_header(self.columns.iter().map(|(Column::Text(title) | Column::Number(title))| *title));
        }
        table.add_rows(rows.into_iter().map(|row| row.map(|cell| plain(&cell))));
        let widths = self.widths.get_or_insert([0; N]);
        for ((column, kind), width) in table.column_iter_mut().zip(&self.columns).zip(&mut *widths) {
            column.set_padding((0, GAP));
            if let Column::Number(_) = kind {
                column.set_cell_alignment(CellAlignment::Right);
            }
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width + GAP)));
        }
        for (width, widest) in widths.iter_mut().zip(table.column_max_content_widths()) {
            *width = widest.max(*width);
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let rows = [["web".to_owned(), "7".to_owned()], ["a".to_owned(), "1000".to_owned()]];
        let table = render([Column::Text("NAME"), Column::Number("FLOWS")], rows);
        assert_eq!(table, "NAME  FLOWS\nweb       7\na      1000\n");
    }

    #[test]
    fn a_cell_cannot_break_the_table_or_reach_the_terminal() {
        let rows = [["a\nb\x1b[2J".to_owned(), "1".to_owned()]];
        let table = render([Column::Text("NAME"), Column::Number("FLOWS")], rows);
        assert_eq!(table, "NAME           FLOWS\na\\nb\\u{1b}[2J      1\n");
    }

    #[test]
    fn a_table_in_parts_has_one_title_and_keeps_its_columns() {
        let mut table = Table::new([Column::Text("NAME"), Column::Number("FLOWS")]);
        let row = |name: &str, flows: &str| [[name.to_owned(), flows.to_owned()]];
        let parts =
            [row("a-long-name", "7"), row("b", "123456"), row("c", "1")].map(|rows| table.render(rows));
        assert_eq!(
            parts,
            ["NAME         FLOWS\na-long-name      7\n", "b            123456\n", "c                 1\n"]
        );
    }
}
