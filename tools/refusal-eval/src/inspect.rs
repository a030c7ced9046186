//! Logs of Inspect (`inspect log dump`), as rows of answers: one for each sample and epoch.

use std::io::Read;
use std::path::Path;

use process::{Error, Result, ResultExt};
use serde_json::{Value, json};

/// The samples of a log as JSON lines of completions.
pub fn rows(path: &Path) -> Result<Vec<u8>> {
    let subject = process::input_name(path);
    let mut text = String::new();
    process::open_input(path)?.read_to_string(&mut text).at(&subject)?;
    let log: Value = serde_json::from_str(&text).map_err(|cause| Error::input(&subject, cause))?;
    let samples = log["samples"].as_array().ok_or_else(|| {
        Error::input(
            &subject,
            "no list under `samples`: not a log of Inspect with its samples",
        )
    })?;
    let bench = log["eval"]["task"].as_str().unwrap_or_default();
    let mut lines = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let row = row(sample, bench)
            .ok_or_else(|| Error::input(&subject, format!("sample {index} has no id or no input")))?;
        lines.extend(format!("{row}\n").into_bytes());
    }
    Ok(lines)
}

fn row(sample: &Value, bench: &str) -> Option<Value> {
    let id = match &sample["id"] {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let epoch = sample["epoch"].as_u64().unwrap_or(1);
    let mut row = json!({
        "type": "completion", "id": id, "bench": bench, "attempt_index": epoch.saturating_sub(1), "prompt": prompt(&sample["input"])?,
    });
    match (sample["output"]["completion"].as_str(), &sample["error"]) {
        (Some(completion), Value::Null) => row["completion"] = completion.into(),
        (_, error) => {
            row["finish"] = "error".into();
            row["error"] = error["message"]
                .as_str()
                .unwrap_or("the sample has no completion")
                .into();
        }
    }
    Some(row)
}

/// What the user said last, of a text or of messages.
fn prompt(input: &Value) -> Option<String> {
    let Value::Array(messages) = input else {
        return input.as_str().map(str::to_owned);
    };
    let content = &messages.iter().rfind(|message| message["role"] == "user")?["content"];
    match content {
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            Some(texts.collect::<Vec<_>>().join(""))
        }
        text => text.as_str().map(str::to_owned),
    }
}
