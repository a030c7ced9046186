//! The outputs of all shards, put together in the order of one run: the bytes are those of the run without shards.

use std::path::{Path, PathBuf};

use process::{Error, Existing, Outcome, Output, Result, ResultExt, Shard};
use records::{Begin, Reader, Row, Status, Writer};
use serde_json::Value;

use crate::cli::Args;

struct Part {
    path: PathBuf,
    shard: Shard,
    begin: Begin,
    rows: Vec<Row>,
    status: Status,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let mut parts = args.inputs.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    parts.sort_by_key(|part| part.shard.index);
    let first = &parts[0];
    let count = first.shard.count;
    for part in &parts {
        if let Some(difference) = process::plan::difference(&configuration(&first.begin), &configuration(&part.begin)) {
            return Err(Error::input(
                part.path.display(),
                format!("is of another run than {}: {difference}", first.path.display()),
            ));
        }
        if part.shard.count != count {
            return Err(Error::input(
                part.path.display(),
                format!(
                    "is one of {} shards, {} one of {count}",
                    part.shard.count,
                    first.path.display()
                ),
            ));
        }
    }
    for (index, part) in parts.iter().enumerate() {
        match part.shard.index.cmp(&(index as u32)) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Less => {
                return Err(Error::input(
                    part.path.display(),
                    format!("shard {}/{count} is given twice", part.shard.index),
                ));
            }
            std::cmp::Ordering::Greater => {
                return Err(Error::input("--merge", format!("shard {index}/{count} is missing")));
            }
        }
    }
    if (parts.len() as u32) < count {
        return Err(Error::input(
            "--merge",
            format!("shard {}/{count} is missing", parts.len()),
        ));
    }
    let mut rows = Vec::new();
    for part in &parts {
        for row in &part.rows {
            let place = |key: &str| {
                row.value
                    .get(key)
                    .and_then(Value::as_u64)
                    .ok_or_else(|| Error::input(part.path.display(), format!("line {}: no {key}", row.line)))
            };
            let digest = row
                .value
                .get("text_digest")
                .and_then(Value::as_str)
                .and_then(records::bucket);
            if !digest.is_some_and(|bucket| part.shard.owns(bucket)) {
                return Err(Error::input(
                    part.path.display(),
                    format!("line {}: the record belongs to another shard", row.line),
                ));
            }
            rows.push(((place("sample_index")?, place("attempt_index")?), row));
        }
    }
    rows.sort_by_key(|(place, _)| *place);
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::input(
            "--merge",
            format!("sample {} attempt {} is there twice", pair[0].0.0, pair[0].0.1),
        ));
    }
    let is_partial = parts.iter().any(|part| part.status == Status::Partial);
    let path = args.output.output.as_deref().unwrap_or(Path::new("-"));
    let output = Output::create(path, Existing::from_flags(args.output.force, false), &args.inputs)?;
    let mut writer = Writer::new(output);
    let mut begin = first.begin.clone();
    begin.rest.shift_remove("shard");
    begin.rest.shift_remove("schema");
    writer.begin(&begin, &()).at("output")?;
    for (_, row) in rows {
        writer.row_text(row).at("output")?;
    }
    let status = if is_partial { Status::Partial } else { Status::Complete };
    writer.end(status, &()).at("output")?.commit()?;
    Ok(if is_partial {
        Outcome::Partial
    } else {
        Outcome::Complete
    })
}

fn read(path: &Path) -> Result<Part> {
    let file = std::fs::File::open(path).at(path.display())?;
    let mut reader = Reader::new(file).accept_partial(true);
    let mut rows = Vec::new();
    while let Some(row) = reader.next_row().at(path.display())? {
        rows.push(row);
    }
    let begin = reader
        .begin()
        .cloned()
        .ok_or_else(|| Error::input(path.display(), "is no output of lm-gen: it has no begin record"))?;
    let shard = match begin.rest.get("shard").and_then(Value::as_str) {
        Some(text) => Shard::parse(text).map_err(|cause| Error::input(path.display(), cause))?,
        None => return Err(Error::input(path.display(), "is no shard: its begin record names none")),
    };
    Ok(Part {
        path: path.to_path_buf(),
        shard,
        begin,
        rows,
        status: reader.status(),
    })
}

/// What all shards must share: everything in `begin` but the shard itself.
fn configuration(begin: &Begin) -> Value {
    let mut rest = begin.rest.clone();
    rest.shift_remove("shard");
    rest.insert("plan_digest".into(), begin.plan_digest.clone().into());
    rest.insert("version".into(), begin.version.clone().into());
    Value::Object(rest)
}
