//! Accuracies as results for other programs: a benchmark is a task, its parts are subtasks, an extractor is a filter.

use indexmap::IndexMap;
use records::SkillReport;
use records::exchange::{Measure, Results, Task};

pub fn results(rows: &[SkillReport], model_name: Option<&str>) -> Results {
    let mut tasks: IndexMap<String, Task> = IndexMap::new();
    for row in rows {
        let Some((name, parent)) = place(row) else { continue };
        let task = tasks.entry(name.clone()).or_insert(Task {
            name,
            parent,
            count: row.count,
            measures: Vec::new(),
        });
        task.measures.extend(measures(row));
    }
    Results {
        model_name: model_name.unwrap_or("unknown").to_owned(),
        tasks: tasks.into_values().collect(),
    }
}

/// The name of a task, and of the one that it is a part of. The two tasks of TruthfulQA have no figure together.
fn place(row: &SkillReport) -> Option<(String, Option<String>)> {
    let parts = [&row.task, &row.subject].map(String::as_str);
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    match parts.is_empty() {
        true if row.bench == "truthfulqa" => None,
        true => Some((row.bench.clone(), None)),
        false => Some((format!("{}_{}", row.bench, parts.join("_")), Some(row.bench.clone()))),
    }
}

fn measures(row: &SkillReport) -> Vec<Measure> {
    let share = |name: &str, filter: &str, value: f64| {
        let measure = Measure::share(name, filter, Some(value), row.count);
        measure.map(|measure| measure.better(true))
    };
    let found = match (row.extractor.as_str(), row.pass_at_k.is_empty()) {
        ("mass", _) => vec![Some(Measure {
            name: "acc".to_owned(),
            filter: "none".to_owned(),
            value: row.accuracy_all,
            stderr: row.mass_stderr,
            higher_is_better: Some(true),
        })],
        (reading, _) if row.bench == "ifeval" => vec![share(&format!("{reading}_acc"), "none", row.accuracy_all)],
        ("loglikelihood", _) => vec![
            share("acc", "none", row.accuracy_all),
            row.acc_norm.and_then(|norm| share("acc_norm", "none", norm)),
        ],
        (extractor, true) => vec![share("exact_match", extractor, row.accuracy_all)],
        (extractor, false) => {
            let passes = row.pass_at_k.iter();
            passes
                .map(|(k, share)| {
                    let measure = Measure::share(&format!("pass@{k}"), extractor, Some(*share), 0);
                    measure.map(|measure| measure.better(true))
                })
                .collect()
        }
    };
    found.into_iter().flatten().collect()
}
