//! `prompts`: questions in, prompt records out.

use process::{Outcome, Result, ResultExt, Target};
use records::{Begin, Prompt, Status, Writer};

use crate::settings::PromptsPlan;

pub fn run(plan: &PromptsPlan, prompts: &[Prompt], target: &Target) -> Result<Outcome> {
    let begin = Begin::new(process::tool_name(), process::VERSION).plan_digest(process::plan::digest(plan)?);
    let mut writer = Writer::new(target.open()?);
    writer.begin(&begin, &()).at("output")?;
    for prompt in prompts {
        writer.row(prompt).at("output")?;
    }
    writer.end(Status::Complete, &()).at("output")?.commit()?;
    Ok(Outcome::Complete)
}
