//! `prompts`: benchmarks in, prompt records out.

use process::{Common, Outcome, Result, ResultExt};
use records::{Prompt, Status, Writer};

use super::begin;
use crate::benchmarks;
use crate::plan::prompts::{Opened, Plan};

pub fn run(plan: &Plan, opened: Opened, _: &Common) -> Result<Outcome> {
    let prompts = read_prompts(plan)?;
    let mut writer = Writer::new(opened.target.open()?);
    writer.begin(&begin(plan)?, &()).at("output")?;
    for prompt in &prompts {
        writer.row(prompt).at("output")?;
    }
    writer.end(Status::Complete, &()).at("output")?.commit()?;
    Ok(Outcome::Complete)
}

/// The prompts of all benchmarks, in their order.
pub fn read_prompts(plan: &Plan) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::new();
    for bench in &plan.benches {
        prompts.extend(benchmarks::read(&bench.bench, &bench.path, &bench.columns, plan.limit)?);
    }
    Ok(prompts)
}
