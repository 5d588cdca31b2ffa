//! Tables for people: columns aligned, no lines, nothing folded, so that `grep` and `awk` can read them too.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

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
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|(Column::Text(title) | Column::Number(title))| *title));
    table.add_rows(rows);
    for (index, column) in columns.iter().enumerate() {
        if let (Column::Number(_), Some(column)) = (column, table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
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
}
