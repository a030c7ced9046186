//! One self-contained HTML page: inline pictures, captions as text, nothing fetched.

use super::{DrawError, svg};
use crate::figure::Figure;

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}
nav ul{columns:2;padding-left:1.2rem}
figure{margin:2.5rem 0;break-inside:avoid}
figure svg{max-width:100%;height:auto;background:#fff}
figcaption{max-width:60rem;color:#444}
@media (max-width:40rem){nav ul{columns:1}}
@media (prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}figcaption{color:#b0b0b0}a{color:#8ab4f8}}
@media print{body{margin:0;max-width:none}nav{display:none}}";

pub fn page(title: &str, figures: &[Figure]) -> Result<String, DrawError> {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{0}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
        escape(title)
    );
    if figures.len() > 1 {
        html.push_str("<nav><ul>\n");
        for (index, figure) in figures.iter().enumerate() {
            html.push_str(&format!(
                "<li><a href=\"#figure-{}\">{}</a></li>\n",
                index + 1,
                escape(&figure.title)
            ));
        }
        html.push_str("</ul></nav>\n");
    }
    for (index, figure) in figures.iter().enumerate() {
        html.push_str(&format!(
            "<figure id=\"figure-{0}\" class=\"{1}\">\n{2}<figcaption>Figure {0}. {3}</figcaption>\n</figure>\n",
            index + 1,
            figure.kind,
            svg(figure, false)?,
            escape(&figure.caption)
        ));
    }
    html.push_str("</body>\n</html>\n");
    Ok(html)
}

pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML 1.0 has no way to write the other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}
