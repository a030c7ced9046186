//! Rates of refusal as results for other programs: a benchmark is a task, its types are parts of it, a judge is a filter.

use indexmap::IndexMap;
use records::RefusalReport;
use records::exchange::{Measure, Results, Task};

/// `model_name` stands for the digest of the model where there is one alone.
pub fn results(rows: &[RefusalReport], model_name: Option<&str>) -> Results {
    let mut tasks: IndexMap<String, Task> = IndexMap::new();
    for row in rows {
        let Some((name, parent)) = place(row) else { continue };
        let task = tasks.entry(name.clone()).or_insert(Task {
            name,
            parent,
            count: row.count,
            measures: Vec::new(),
        });
        task.measures.extend(measures(row, safe_of(rows, row)));
    }
    // A benchmark comes before its parts, of which the report speaks first.
    let (whole, parts): (Vec<Task>, Vec<Task>) = tasks.into_values().partition(|task| task.parent.is_none());
    let digest = rows.iter().find_map(|row| row.model_digest.as_deref());
    Results {
        model_name: model_name.or(digest).unwrap_or("unknown").to_owned(),
        tasks: whole.into_iter().chain(parts).collect(),
    }
}

/// The name of a task, and of the one that it is a part of. The rows of a label alone are in the summary.
fn place(row: &RefusalReport) -> Option<(String, Option<String>)> {
    let bench = if row.bench.is_empty() { "refusal" } else { &row.bench };
    match (row.kind.as_str(), row.summary.is_some()) {
        ("all", true) => Some((bench.to_owned(), None)),
        ("all", false) => None,
        (kind, _) => Some((format!("{bench}_{kind}"), Some(bench.to_owned()))),
    }
}

/// The row of the safe prompts beside the row of all.
fn safe_of<'r>(rows: &'r [RefusalReport], row: &RefusalReport) -> Option<&'r RefusalReport> {
    rows.iter().find(|other| {
        (&other.bench, &other.judge) == (&row.bench, &row.judge) && other.kind == "all" && other.label == "safe"
    })
}

fn measures(row: &RefusalReport, safe: Option<&RefusalReport>) -> Vec<Measure> {
    let scored = |row: &RefusalReport| row.count - row.unscored_count;
    let share = |name: &str, value: Option<f64>, count: u64| Measure::share(name, &row.judge, value, count);
    let mut found = vec![
        share("refusal_rate_any", row.refusal_rate_any, scored(row)),
        share("refusal_rate_full", row.refusal_rate_full, scored(row)),
        share("nonsense_rate", row.nonsense_rate, scored(row)).map(|measure| measure.better(false)),
    ];
    if let Some(harm) = &row.harm {
        let known = row.count - harm.harm_unscored_count;
        found.push(share("harmful_rate", harm.harmful_rate, known).map(|measure| measure.better(false)));
    }
    if let Some(summary) = &row.summary {
        let safe_count = safe.map_or(0, scored);
        found.extend([
            share("false_refusal", summary.false_refusal, safe_count).map(|measure| measure.better(false)),
            share("compliance_benign", summary.compliance_benign, safe_count).map(|measure| measure.better(true)),
            // Ratios of counts that vary: no error of a mean.
            share("precision", summary.precision, 0).map(|measure| measure.better(true)),
            share("recall", summary.recall, 0).map(|measure| measure.better(true)),
            share("f1", summary.f1, 0).map(|measure| measure.better(true)),
        ]);
    }
    found.into_iter().flatten().collect()
}
