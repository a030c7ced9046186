//! The outputs of all shards, put together in the order of one run: the bytes are those of the run without shards.

use std::path::{Path, PathBuf};

use process::{Error, Existing, MixedCompute, Outcome, Output, Result, ResultExt, Shard};
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
    check_configuration(&parts, args.mixed)?;
    check_coverage(&parts)?;
    let rows = in_order(&parts)?;

    let path = args.output.output.as_deref().unwrap_or(Path::new("-"));
    let output = Output::create(path, Existing::from_flags(args.output.force, false), &args.inputs)?;
    let mut writer = Writer::new(output);
    let mut begin = parts[0].begin.clone();
    begin.rest.shift_remove("shard");
    begin.rest.shift_remove("schema");
    writer.begin(&begin, &()).at("output")?;
    for row in rows {
        writer.row_text(row).at("output")?;
    }
    let is_partial = parts.iter().any(|part| part.status == Status::Partial);
    let status = if is_partial { Status::Partial } else { Status::Complete };
    writer.end(status, &()).at("output")?.commit()?;
    Ok(Outcome::partial_if(is_partial))
}

/// All parts are of one run, divided in one way.
fn check_configuration(parts: &[Part], mixed: MixedCompute) -> Result<()> {
    let (first, rest) = (&parts[0], &parts[1..]);
    let was = mixed.comparable(configuration(&first.begin));
    for part in rest {
        let refuse = |cause: String| Err(Error::input(part.path.display(), cause));
        let first_name = first.path.display();
        let is = mixed.comparable(configuration(&part.begin));
        if let Some(difference) = process::plan::difference(&was, &is) {
            return refuse(format!("is of another run than {first_name}: {difference}"));
        }
        let (count, first_count) = (part.shard.count, first.shard.count);
        if count != first_count {
            return refuse(format!("is one of {count} shards, {first_name} one of {first_count}"));
        }
    }
    Ok(())
}

/// Every shard is there, once; `parts` are in order.
fn check_coverage(parts: &[Part]) -> Result<()> {
    let count = parts[0].shard.count;
    let mut wanted = 0;
    for part in parts {
        if part.shard.index < wanted {
            let cause = format!("shard {}/{count} is given twice", part.shard.index);
            return Err(Error::input(part.path.display(), cause));
        }
        if part.shard.index > wanted {
            break;
        }
        wanted += 1;
    }
    match wanted == count {
        true => Ok(()),
        false => Err(Error::input("--merge", format!("shard {wanted}/{count} is missing"))),
    }
}

/// The records of all parts in the order of one run.
fn in_order(parts: &[Part]) -> Result<Vec<&Row>> {
    let mut rows = Vec::new();
    for part in parts {
        for row in &part.rows {
            let refuse = |cause: String| Error::input(part.path.display(), format!("line {}: {cause}", row.line));
            let place = |key: &str| {
                let place = row.value.get(key).and_then(Value::as_u64);
                place.ok_or_else(|| refuse(format!("no {key}")))
            };
            let digest = row.value.get("text_digest").and_then(Value::as_str);
            if !digest
                .and_then(records::bucket)
                .is_some_and(|bucket| part.shard.owns(bucket))
            {
                return Err(refuse("the record belongs to another shard".into()));
            }
            rows.push(((place("sample_index")?, place("attempt_index")?), row));
        }
    }
    rows.sort_by_key(|(place, _)| *place);
    match rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some([((sample, attempt), _), _]) => Err(Error::input(
            "--merge",
            format!("sample {sample} attempt {attempt} is there twice"),
        )),
        _ => Ok(rows.into_iter().map(|(_, row)| row).collect()),
    }
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
