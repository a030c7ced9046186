//! lm-gen as a process, and the files that pass between it and us.

use std::ffi::OsString;
use std::path::Path;

use process::{Outcome, Result, ResultExt};
use records::Prompt;

/// A run of lm-gen over a file of prompts.
pub struct Generator<'a> {
    pub model: &'a Path,
    pub args: Vec<String>,
}

impl Generator<'_> {
    /// Answers `prompts` into `completions`; partial where some could not be run.
    pub fn run(&self, prompts: &Path, completions: &Path) -> Result<Outcome> {
        let mut words: Vec<OsString> = vec!["--model".into(), self.model.into()];
        words.extend(self.args.iter().map(OsString::from));
        words.extend(["--output".into(), completions.into(), prompts.into()]);
        process::run_sibling("lm-gen", &words)
    }
}

/// Writes prompt records as plain lines.
pub fn write_prompts(path: &Path, prompts: &[Prompt]) -> Result<()> {
    let file = std::fs::File::create(path).at(path.display())?;
    let mut writer = records::Writer::new(std::io::BufWriter::new(file));
    for prompt in prompts {
        writer.row(prompt).at(path.display())?;
    }
    writer.into_output().at(path.display())?;
    Ok(())
}
