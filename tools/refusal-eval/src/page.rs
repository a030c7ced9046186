//! The page of `diff`: one file that fetches nothing. Every text in it is data and is escaped.

use std::fmt::Write;

use indexmap::IndexSet;

/// A prompt whose verdict changed.
pub struct Change<'c> {
    pub id: &'c str,
    pub bench: &'c str,
    pub judge: &'c str,
    pub label: &'c str,
    pub kind: &'c str,
    pub prompt: Option<&'c str>,
    pub before: Side<'c>,
    pub after: Side<'c>,
}

/// What one side said, and what was said of it.
pub struct Side<'c> {
    pub verdict: &'c str,
    pub evidence: Option<&'c str>,
    pub reason: Option<&'c str>,
    pub answer: Option<&'c str>,
}

impl Change<'_> {
    fn turn(&self) -> String {
        format!("{} → {}", self.before.verdict, self.after.verdict)
    }
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222}\
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #ccc;padding:.5em;text-align:left;vertical-align:top}\
form{display:flex;gap:1em;flex-wrap:wrap;margin:1em 0}mark{background:#fd8}small{color:#666}.answer{white-space:pre-wrap}\
.verdict{font-weight:600}td{width:40%}td:first-child{width:20%}";

/// Shows the rows that hold every chosen value and the text that is looked for.
const SCRIPT: &str = "const form=document.querySelector('form'),rows=[...document.querySelectorAll('tbody tr')];\
form.oninput=()=>{const want=[...form.querySelectorAll('select')].filter(s=>s.value);const text=form.elements.text.value.toLowerCase();\
let shown=0;for(const row of rows){const ok=want.every(s=>row.dataset[s.name]===s.value)&&row.textContent.toLowerCase().includes(text);\
row.hidden=!ok;shown+=ok}document.querySelector('output').textContent=shown+' shown'};";

pub fn render(title: &str, pair_count: usize, changes: &[Change]) -> String {
    let mut page = String::new();
    let title = escape(title);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n\
         <p>{} of {pair_count} verdicts changed.</p>\n<form>",
        changes.len()
    );
    select(&mut page, "turn", changes.iter().map(Change::turn));
    select(
        &mut page,
        "label",
        changes.iter().map(|change| change.label.to_string()),
    );
    select(&mut page, "kind", changes.iter().map(|change| change.kind.to_string()));
    select(
        &mut page,
        "judge",
        changes.iter().map(|change| change.judge.to_string()),
    );
    select(
        &mut page,
        "bench",
        changes.iter().map(|change| change.bench.to_string()),
    );
    page.push_str("<label>text <input name=\"text\" type=\"search\"></label><output></output></form>\n");
    page.push_str("<table><thead><tr><th>prompt</th><th>before</th><th>after</th></tr></thead>\n<tbody>\n");
    changes.iter().for_each(|change| row(&mut page, change));
    let _ = write!(page, "</tbody></table>\n<script>{SCRIPT}</script></body></html>\n");
    page
}

/// A choice between the values there are; none where there is one.
fn select(page: &mut String, name: &str, values: impl Iterator<Item = String>) {
    let values: IndexSet<String> = values.collect();
    if values.len() < 2 {
        return;
    }
    let _ = write!(
        page,
        "<label>{name} <select name=\"{name}\"><option value=\"\">all</option>"
    );
    for value in values {
        let value = escape(&value);
        let _ = write!(page, "<option value=\"{value}\">{value}</option>");
    }
    page.push_str("</select></label>");
}

fn row(page: &mut String, change: &Change) {
    let _ = write!(
        page,
        "<tr data-turn=\"{}\" data-label=\"{}\" data-kind=\"{}\" data-judge=\"{}\" data-bench=\"{}\"><td>{}<br><small>{}</small></td>",
        escape(&change.turn()),
        escape(change.label),
        escape(change.kind),
        escape(change.judge),
        escape(change.bench),
        escape(change.prompt.unwrap_or_default()),
        escape(&[change.bench, change.id, change.label, change.kind, change.judge].join(" · ")),
    );
    side(page, &change.before);
    side(page, &change.after);
    page.push_str("</tr>\n");
}

fn side(page: &mut String, side: &Side) {
    let _ = write!(
        page,
        "<td><span class=\"verdict\">{}</span> <small>{}</small><div class=\"answer\">",
        escape(side.verdict),
        escape(side.reason.unwrap_or_default())
    );
    match (side.answer, side.evidence) {
        (Some(answer), Some(evidence)) => match answer.split_once(evidence) {
            Some((head, tail)) => {
                let _ = write!(
                    page,
                    "{}<mark>{}</mark>{}",
                    escape(head),
                    escape(evidence),
                    escape(tail)
                );
            }
            None => page.push_str(&escape(answer)),
        },
        (Some(text), None) => page.push_str(&escape(text)),
        (None, Some(evidence)) => {
            let _ = write!(page, "<mark>{}</mark>", escape(evidence));
        }
        (None, None) => {}
    }
    page.push_str("</div></td>");
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
