//! The work: read, count, measure, report. Outputs are opened and committed here alone.

mod measure;
mod merge;
mod tokens;

use std::io::Write;
use std::path::Path;

use process::{Error, Format, Outcome, Output, Result, ResultExt, VERSION};
use records::{Begin, Status};

use crate::cli::{Args, Command};
use crate::corpus::Corpus;
use crate::input::refusal_groups;
use crate::plan::{CorpusPlan, Plan, Reporting};
use crate::report::{self, BeginKeys, EndKeys, Failure, Record};
use crate::table;
use crate::tokens::Strings;

pub fn run(args: Args) -> Result<Outcome> {
    match &args.command {
        None => measure::run(&args),
        Some(Command::Merge(merge)) => merge::run(merge, &args.common),
        Some(Command::Tokens(corpus)) => tokens::run(corpus, &args.common),
    }
}

/// Without `--group` there is one group, or its two halves, whatever the input holds.
fn expect_ungrouped(corpus: &mut Corpus, plan: &CorpusPlan) -> Result<()> {
    match (&plan.group, plan.refusals) {
        (Some(_), _) => Ok(()),
        (None, true) => refusal_groups("").iter().try_for_each(|half| corpus.expect_group(half)),
        (None, false) => corpus.expect_group(""),
    }
}

/// Measures the corpus, writes what was found, and compares it with the bounds.
fn report(
    mut corpus: Corpus,
    strings: &Strings,
    plan: &Plan,
    reporting: &Reporting,
    refused_row_count: u64,
) -> Result<Outcome> {
    let budget = reporting.budget;
    let counting_bytes = budget.counting_bytes + budget.resident_bytes.saturating_sub(corpus.resident_bytes());
    let rows = crate::measure::measure(&mut corpus, strings, &plan.corpus, &plan.measures, counting_bytes)?;
    let failures = report::lint(&rows, &reporting.under, &reporting.over);
    let path = reporting.output.as_deref().unwrap_or(Path::new("-"));
    let mut output = Output::create(path, reporting.existing, &reporting.inputs)?;
    match reporting.format {
        Format::Table => output.write_all(table::tables(&rows).as_bytes()).at("output")?,
        Format::Jsonl => {
            let status = Status::partial_if(refused_row_count > 0);
            let end = EndKeys {
                input_digest: corpus.digest(),
                refused_row_count,
            };
            write_records(&rows, plan, status, &end, &mut output)?;
        }
    }
    output.commit()?;
    name_failures(&failures);
    let verdict = match failures.is_empty() {
        true => Outcome::Complete,
        false => Outcome::Verdict,
    };
    Ok(verdict.and(Outcome::partial_if(refused_row_count > 0)))
}

fn write_records(rows: &[Record], plan: &Plan, status: Status, end: &EndKeys, output: &mut Output) -> Result<()> {
    let plan_value = serde_json::to_value(plan).map_err(|error| Error::bug("plan", error))?;
    let mut writer = records::Writer::new(output);
    let begin = Begin::new(process::tool_name(), VERSION).plan_digest(process::plan::digest(plan)?);
    writer.begin(&begin, &BeginKeys { plan: &plan_value }).at("output")?;
    for row in rows {
        writer.row(row).at("output")?;
    }
    writer.end(status, end).at("output")?.flush().at("output")
}

/// One line for every broken bound, on stderr: the verdict itself is the exit code.
fn name_failures(failures: &[Failure]) {
    for failure in failures {
        let group = process::safe_text(report::name_of(&failure.group));
        let _ = writeln!(
            std::io::stderr(),
            "{}: fail: group {group}: {failure}",
            process::tool_name()
        );
    }
}
