//! `merge`: files of `--counts` in, the records of one run over their inputs out.

use process::{Common, Outcome, Result, VERSION};
use serde_json::json;

use super::{expect_ungrouped, report};
use crate::cli::MergeArgs;
use crate::corpus::Corpus;
use crate::counts;
use crate::plan::{MeasurePlan, Plan, Reporting};

pub fn run(args: &MergeArgs, common: &Common) -> Result<Outcome> {
    let reporting = Reporting::new(&args.measures, common, &args.files)?;
    let merge = counts::Merge::open(&args.files)?;
    let plan = Plan {
        corpus: merge.plan.clone(),
        measures: MeasurePlan::new(&args.measures),
    };
    if common.plan {
        let inputs: Vec<String> = args.files.iter().map(|path| path.display().to_string()).collect();
        return process::plan::print(&json!({
            "tool": process::tool_name(), "version": VERSION, "plan": plan, "plan_digest": process::plan::digest(&plan)?, "inputs": inputs,
        }));
    }
    let refused_row_count = merge.refused_row_count();
    let mut corpus = Corpus::new(reporting.budget.resident_bytes, reporting.budget.threads);
    let strings = merge.push_into(&mut corpus)?;
    expect_ungrouped(&mut corpus, &plan.corpus)?;
    report(corpus, &strings, &plan, &reporting, refused_row_count)
}
