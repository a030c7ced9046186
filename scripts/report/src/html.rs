//! The few forms of HTML that the page is made of.

/// Text that comes from data.
pub fn escape(text: &str) -> String {
    let entity = |letter: char| match letter {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '\'' => "&#39;".to_owned(),
        '"' => "&quot;".to_owned(),
        other => other.to_string(),
    };
    text.chars().map(entity).collect()
}

/// A number with at most so many digits after the point; a dash where there is none.
pub fn round(value: impl Into<Option<f64>>, digits: i32) -> String {
    let scale = 10f64.powi(digits);
    value
        .into()
        .map_or_else(|| "–".to_owned(), |value| ((value * scale).round() / scale).to_string())
}

/// An estimate and its interval.
pub fn within(value: Option<f64>, low: Option<f64>, high: Option<f64>, digits: i32) -> String {
    format!(
        "{} [{}, {}]",
        round(value, digits),
        round(low, digits),
        round(high, digits)
    )
}

/// A table whose cells may hold markup. A row of the paper's own numbers is marked as such.
pub struct Table {
    lines: Vec<String>,
}

impl Table {
    pub fn new(caption: &str, titles: &[&str]) -> Table {
        let titles: String = titles.iter().map(|title| format!("<th>{title}</th>")).collect();
        Table {
            lines: vec![
                format!("<table><caption>{caption}</caption>"),
                format!("<tr>{titles}</tr>"),
            ],
        }
    }

    pub fn row(&mut self, cells: &[String]) {
        self.lines.push(format!("<tr>{}</tr>", data(cells)));
    }

    pub fn paper_row(&mut self, cells: &[&str]) {
        self.lines.push(format!("<tr class=paper>{}</tr>", data(cells)));
    }

    pub fn finish(mut self) -> String {
        self.lines.push("</table>\n".to_owned());
        self.lines.join("\n")
    }
}

fn data<T: AsRef<str>>(cells: &[T]) -> String {
    cells.iter().map(|cell| format!("<td>{}</td>", cell.as_ref())).collect()
}
