//! Tables for people: text to the left, numbers to the right, each kind of number written in one way.

use std::fmt;

use crate::text::safe_text;

/// Stands for a number that is not defined.
const UNDEFINED: &str = "-";

/// Rows under a heading, columns as wide as they need; nothing at all where there is no row.
pub struct Table<const COLUMNS: usize> {
    heading: [&'static str; COLUMNS],
    rows: Vec<[Cell; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub fn new(heading: [&'static str; COLUMNS]) -> Self {
        Self {
            heading,
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: [Cell; COLUMNS]) {
        self.rows.push(cells);
    }

    /// Width of a column, and whether it holds numbers.
    fn column(&self, at: usize) -> (usize, bool) {
        let cells = self.rows.iter().map(|row| &row[at]);
        let widths = cells.clone().map(|cell| cell.text.chars().count());
        let heading = self.heading[at].chars().count();
        (
            widths.fold(heading, usize::max),
            cells.fold(false, |any, cell| any | cell.is_number),
        )
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let columns: [(usize, bool); COLUMNS] = std::array::from_fn(|at| self.column(at));
        let line = |texts: [&str; COLUMNS]| {
            let cells = texts
                .iter()
                .zip(columns)
                .map(|(text, (width, is_number))| match is_number {
                    true => format!("{text:>width$}"),
                    false => format!("{text:<width$}"),
                });
            cells.collect::<Vec<_>>().join("  ")
        };
        writeln!(out, "{}", line(self.heading).trim_end())?;
        for row in &self.rows {
            let texts = std::array::from_fn(|at| row[at].text.as_str());
            writeln!(out, "{}", line(texts).trim_end())?;
        }
        Ok(())
    }
}

/// Tables one below the other, with an empty line between; an empty one is left out.
pub fn one_below_the_other(tables: impl IntoIterator<Item = String>) -> String {
    let shown: Vec<String> = tables.into_iter().filter(|table| !table.is_empty()).collect();
    shown.join("\n")
}

/// What stands in one place of a table.
pub struct Cell {
    text: String,
    is_number: bool,
}

impl Cell {
    /// Text from anywhere: what could break the line is escaped.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self {
            text: safe_text(text.as_ref()),
            is_number: false,
        }
    }

    pub fn count(count: impl fmt::Display) -> Self {
        Self::number(Some(count.to_string()))
    }

    pub fn count_if_any(count: Option<impl fmt::Display>) -> Self {
        Self::number(count.map(|count| count.to_string()))
    }

    /// A fixed number of digits behind the point.
    pub fn fixed(value: impl Into<Option<f64>>, digits: usize) -> Self {
        Self::number(value.into().map(|value| format!("{value:.digits$}")))
    }

    /// A difference, with its sign.
    pub fn signed(value: impl Into<Option<f64>>, digits: usize) -> Self {
        Self::number(value.into().map(|value| format!("{value:+.digits$}")))
    }

    /// Four significant digits, for what may be of any size.
    pub fn significant(value: impl Into<Option<f64>>) -> Self {
        Self::number(value.into().map(significant))
    }

    /// Both ends, three digits behind the point.
    pub fn interval(low: impl Into<Option<f64>>, high: impl Into<Option<f64>>) -> Self {
        let ends = low.into().zip(high.into());
        Self::number(ends.map(|(low, high)| format!("{low:.3}–{high:.3}")))
    }

    /// Four digits behind the point; a smaller one is never shown as 0.
    pub fn p_value(value: impl Into<Option<f64>>) -> Self {
        Self::number(value.into().map(|p| match p < 1e-4 {
            true => "<0.0001".to_string(),
            false => format!("{p:.4}"),
        }))
    }

    fn number(text: Option<String>) -> Self {
        Self {
            text: text.unwrap_or_else(|| UNDEFINED.to_string()),
            is_number: true,
        }
    }
}

/// Four significant digits.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = match size {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_to_the_left_and_numbers_with_their_heading_to_the_right() {
        let mut table = Table::new(["group", "rows", "rate"]);
        table.row([Cell::text("a"), Cell::count(7), Cell::fixed(0.5, 2)]);
        table.row([Cell::text("longer"), Cell::text("all"), Cell::fixed(None, 2)]);
        let lines = ["group   rows  rate", "a          7  0.50", "longer   all     -", ""];
        assert_eq!(table.to_string(), lines.join("\n"));
    }

    #[test]
    fn a_table_without_rows_is_nothing_and_leaves_no_gap() {
        let mut table = Table::new(["n"]);
        assert_eq!(table.to_string(), "");
        table.row([Cell::count(1)]);
        let tables = [table.to_string(), String::new(), table.to_string()];
        assert_eq!(one_below_the_other(tables), "n\n1\n\nn\n1\n");
    }

    #[test]
    fn text_cannot_break_a_row() {
        let mut table = Table::new(["id"]);
        table.row([Cell::text("a\nb\u{1b}[2J")]);
        assert_eq!(table.to_string(), "id\na\\nb\\u{1b}[2J\n");
    }

    #[test]
    fn a_small_p_value_is_not_zero() {
        let shown = [0.04, 1e-4, 9.9e-5, 0.0].map(|p| Cell::p_value(p).text);
        assert_eq!(shown, ["0.0400", "0.0001", "<0.0001", "<0.0001"]);
    }

    #[test]
    fn four_digits_are_enough_for_any_size() {
        let shown = [0.0, -0.25, 12.345, 123.45, 2345.6, 1e7, 1e-5].map(significant);
        assert_eq!(
            shown,
            ["0.000", "-0.250", "12.35", "123.5", "2346", "1.00e7", "1.00e-5"]
        );
    }
}
