//! Columns of text for people.
//!
//! Every column but the last is as wide as its widest cell; the last one is cut to the terminal, never in a pipe.
//! Cells are shown as they are: whoever fills them escapes what a command or a model wrote.

/// Between two columns.
const GAP: &str = "  ";

/// Columns that the last cell keeps on the narrowest terminal.
const LEAST_WIDTH: usize = 16;

/// Rows of cells.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    header: Vec<&'static str>,
}

impl Table {
    /// A table without a header.
    pub(crate) fn plain() -> Self {
        Self::default()
    }

    /// A table whose columns have names.
    pub(crate) fn with_header(header: &[&'static str]) -> Self {
        Self { rows: Vec::new(), header: header.to_vec() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, nothing at all without a row. `width` is that of the terminal, if there is one.
    pub(crate) fn text(&self, width: Option<usize>) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let header = self.header.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let header = Some(&header).filter(|header| !header.is_empty());
        let rows: Vec<&Vec<String>> = header.into_iter().chain(&self.rows).collect();
        let columns = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns.saturating_sub(1))
            .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| columns_of(cell)).max())
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = String::new();
        for row in rows {
            text.push_str(&line(row, &widths, width));
            text.push('\n');
        }
        text
    }
}

fn line(row: &[String], widths: &[usize], terminal: Option<usize>) -> String {
    let mut line = String::new();
    for (column, cell) in row.iter().enumerate() {
        match widths.get(column) {
            Some(&width) => {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(columns_of(cell))));
                line.push_str(GAP);
            }
            None => {
                let used: usize = widths.iter().map(|width| width + GAP.len()).sum();
                let left = terminal.map(|terminal| terminal.saturating_sub(used).max(LEAST_WIDTH));
                line.push_str(&left.map_or_else(|| cell.clone(), |left| cut(cell, left)));
            }
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// `text` in at most `width` columns, with an ellipsis for what is missing.
fn cut(text: &str, width: usize) -> String {
    if columns_of(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += columns_of_character(character);
        if used > width {
            break;
        }
        kept.push(character);
    }
    kept.push('…');
    kept
}

fn columns_of(text: &str) -> usize {
    text.chars().map(columns_of_character).sum()
}

/// Columns that a terminal gives a character: two for the wide and full-width blocks of Unicode's East Asian
/// Width (UAX 11), none for the common combining marks. An approximation; its error is a ragged edge.
fn columns_of_character(character: char) -> usize {
    match character {
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    fn table() -> Table {
        let mut table = Table::with_header(&["ID", "STATUS", "COMMAND"]);
        table.row(row(&["0199", "running 3m", "cargo build --release --all-targets"]));
        table.row(row(&["019a-b", "lost", ""]));
        table
    }

    #[test]
    fn columns_are_aligned_and_the_last_one_is_whole_in_a_pipe() {
        assert_eq!(
            table().text(None),
            "ID      STATUS      COMMAND\n\
             0199    running 3m  cargo build --release --all-targets\n\
             019a-b  lost\n"
        );
    }

    #[test]
    fn the_last_column_is_cut_to_the_terminal() {
        assert_eq!(
            table().text(Some(40)),
            "ID      STATUS      COMMAND\n\
             0199    running 3m  cargo build --relea…\n\
             019a-b  lost\n"
        );
    }

    #[test]
    fn a_table_without_rows_has_no_header_either() {
        assert_eq!(Table::with_header(&["ID"]).text(None), "");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        let mut table = Table::plain();
        table.row(row(&["日", "a"]));
        table.row(row(&["xyz", "b"]));
        assert_eq!(table.text(None), "日   a\nxyz  b\n");
    }
}
