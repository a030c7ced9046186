//! `sample`: verdicts and answers in, a table with a column to fill out.

use std::io::Write;

use indexmap::IndexMap;
use numerics::rng::Rng;
use process::{Common, Error, Outcome, Result, ResultExt};
use records::JoinKey;

use crate::answers::{Answers, Text};
use crate::plan::sample::{Opened, Plan};
use crate::strata::{self, Item};
use crate::verdicts::Verdicts;

/// What the table holds of an answer; the verdicts stay out, so that they do not lead the reader.
const COLUMNS: [&str; 9] = [
    "id",
    "bench",
    "attempt_index",
    "label",
    "kind",
    "stratum",
    "prompt",
    "completion",
    "human",
];

pub fn run(plan: &Plan, opened: Opened, _: &Common) -> Result<Outcome> {
    let verdicts = Verdicts::read(&opened.verdicts, false)?;
    let items = strata::items(&verdicts.rows);
    let answers = Answers::open(&opened.answers, opened.reading.clone())?.by_key()?;
    let mut table = csv::Writer::from_writer(opened.target.open()?);
    table.write_record(COLUMNS).at("output")?;
    for (stratum, key) in drawn(&items, plan) {
        let answer = answers.get(key).ok_or_else(|| {
            let cause = format!("no answer to id {} of bench {:?}, which was judged", key.id, key.bench);
            Error::input(opened.answers.display(), cause)
        })?;
        let Text::Said(completion) = &answer.completion else {
            continue;
        };
        let row = [
            key.id.as_str(),
            &key.bench,
            &key.attempt_index.to_string(),
            answer.label.as_deref().unwrap_or_default(),
            answer.kind.as_deref().unwrap_or_default(),
            &stratum.to_string(),
            answer.prompt.as_deref().unwrap_or_default(),
            completion,
            "",
        ];
        table.write_record(row).at("output")?;
    }
    let mut output = table.into_inner().map_err(|cause| Error::bug("output", cause))?;
    output.flush().at("output")?;
    output.commit()?;
    Ok(Outcome::Complete)
}

/// The answers to label, the disputed strata first, each with the number of its stratum.
fn drawn<'i>(items: &'i IndexMap<JoinKey, Item<'_>>, plan: &Plan) -> Vec<(usize, &'i JoinKey)> {
    let mut strata: IndexMap<String, (bool, Vec<&JoinKey>)> = IndexMap::new();
    for (key, item) in items {
        let (_, keys) = strata
            .entry(item.stratum())
            .or_insert_with(|| (item.is_disputed(), Vec::new()));
        keys.push(key);
    }
    strata.sort_by(|one, (first, _), other, (second, _)| second.cmp(first).then_with(|| one.cmp(other)));
    let sizes: Vec<(usize, bool)> = strata
        .values()
        .map(|(disputed, keys)| (keys.len(), *disputed))
        .collect();
    let counts = strata::allocate(&sizes, plan.count as usize);
    let rng = Rng::new(plan.seed, "refusal-eval sample");
    let mut drawn = Vec::new();
    for (stratum, ((_, keys), count)) in strata.values().zip(counts).enumerate() {
        let mut places = rng.subset(stratum as u64, count, keys.len());
        places.sort_unstable();
        drawn.extend(places.into_iter().map(|place| (stratum, keys[place])));
    }
    drawn
}
