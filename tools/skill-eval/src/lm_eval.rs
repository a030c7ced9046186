//! Samples that lm-evaluation-harness logged (`--log_samples`), as completions of ours. Rows of one document under several filters are
//! one answer.

use std::collections::HashSet;

use records::dataset::Row;
use records::{Completion, Prompt};
use serde_json::{Map, Value};

use crate::bench::{IFEVAL_COLUMNS, TruthfulChoices};
use crate::cli::Bench;

/// The completion of a logged sample; `None` for one that was there under another filter.
pub fn completion(
    row: &Row,
    bench: Bench,
    task: Option<&str>,
    seen: &mut HashSet<u64>,
) -> records::Result<Option<Completion>> {
    let number = row
        .value
        .get("doc_id")
        .and_then(Value::as_u64)
        .ok_or_else(|| row.refuse("no integer under `doc_id`: not a sample of lm-evaluation-harness"))?;
    if !seen.insert(number) {
        return Ok(None);
    }
    let doc = row
        .value
        .get("doc")
        .and_then(Value::as_object)
        .ok_or_else(|| row.refuse("no object under `doc`"))?;
    let arguments = arguments(row);
    let responses = row
        .value
        .get("resps")
        .and_then(Value::as_array)
        .ok_or_else(|| row.refuse("no array under `resps`"))?;
    let mut completion = Completion {
        prompt: Prompt {
            id: number.to_string(),
            bench: Some(bench.name().into()),
            // Our name of its two tasks.
            task: task.map(|task| task.strip_prefix("truthfulqa_").unwrap_or(task).to_owned()),
            subject: doc.get("subject").and_then(Value::as_str).map(str::to_owned),
            prompt: arguments.first().map(|(prompt, _)| prompt.clone()),
            reference: reference(row, doc, bench, task)?,
            ..Prompt::default()
        },
        ..Completion::default()
    };
    let first = responses.first().and_then(|responses| match responses {
        Value::Array(inner) => inner.first(),
        other => Some(other),
    });
    match first {
        Some(Value::String(text)) => {
            completion.completion = Some(text.clone());
            if bench == Bench::Ifeval {
                completion.prompt.rest = picked(doc, &IFEVAL_COLUMNS);
            }
            if bench == Bench::Humaneval {
                completion.prompt.prompt = doc.get("prompt").and_then(Value::as_str).map(str::to_owned);
                completion.prompt.rest = picked(doc, &["entry_point", "test"]);
            }
        }
        Some(Value::Array(_)) => {
            completion.prompt.choices = Some(arguments.into_iter().map(|(_, choice)| choice).collect());
            completion.choice_log_prob = Some(log_probs(row, responses)?);
        }
        _ => return Err(row.refuse("`resps` holds neither text nor log-likelihoods")),
    }
    Ok(Some(completion))
}

/// Context and continuation of each request; older logs keep arrays, newer ones objects.
fn arguments(row: &Row) -> Vec<(String, String)> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    match row.value.get("arguments") {
        Some(Value::Array(requests)) => requests
            .iter()
            .map(|request| (text(request.get(0)), text(request.get(1))))
            .collect(),
        Some(Value::Object(requests)) => requests
            .values()
            .map(|request| (text(request.get("arg_0")), text(request.get("arg_1"))))
            .collect(),
        _ => Vec::new(),
    }
}

/// `[[[-1.2, false]], …]`, the numbers as numbers or as text.
fn log_probs(row: &Row, responses: &[Value]) -> records::Result<Vec<f64>> {
    let number = |response: &Value| match response.get(0).and_then(|inner| inner.get(0)) {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let numbers: Option<Vec<f64>> = responses.iter().map(number).collect();
    numbers
        .filter(|numbers| numbers.iter().all(|number| number.is_finite()))
        .ok_or_else(|| row.refuse("`resps` holds something that is no finite log-likelihood"))
}

fn picked(doc: &Map<String, Value>, keys: &[&str]) -> Map<String, Value> {
    keys.iter()
        .filter_map(|key| Some(((*key).to_owned(), doc.get(*key)?.clone())))
        .collect()
}

/// What is right; nothing where rules check the answer.
fn reference(row: &Row, doc: &Map<String, Value>, bench: Bench, task: Option<&str>) -> records::Result<Option<Value>> {
    match (bench, task) {
        (Bench::Ifeval, _) => Ok(None),
        (Bench::Truthfulqa, Some(task)) if task.ends_with("_mc2") => {
            let choices = TruthfulChoices::of(doc, "mc2").ok_or_else(|| row.refuse("no `mc2_targets` under `doc`"))?;
            Ok(Some(choices.reference("mc2")))
        }
        _ => target(row, doc, bench).map(|target| Some(target.into())),
    }
}

fn target(row: &Row, doc: &Map<String, Value>, bench: Bench) -> records::Result<String> {
    let target = match row.value.get("target") {
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err(row.refuse("no text or number under `target`")),
    };
    Ok(match bench {
        Bench::Gsm8k => target.rsplit("####").next().unwrap_or_default().trim().to_owned(),
        // The index of the right choice, or its letter.
        Bench::Mmlu | Bench::Arc | Bench::Hellaswag | Bench::Truthfulqa => match target.parse::<u8>().or_else(|_| {
            doc.get("answer")
                .and_then(Value::as_u64)
                .unwrap_or(99)
                .to_string()
                .parse()
        }) {
            Ok(index) if index < 26 => char::from(b'A' + index).to_string(),
            _ => target,
        },
        _ => target,
    })
}

/// The task in a log's name: `samples_bbh_cot_fewshot_navigate_2024-06-01T….jsonl` is bbh_cot_fewshot_navigate.
pub fn task_of(stem: &str) -> Option<&str> {
    let name = stem.strip_prefix("samples_")?;
    let date = name
        .char_indices()
        .filter(|(_, c)| *c == '_')
        .map(|(at, _)| at)
        .find(|at| name[at + 1..].starts_with("20"));
    Some(date.map_or(name, |at| &name[..at]))
}
