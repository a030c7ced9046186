//! Perplexity under a plan, as `lm-gen --score` gives it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use process::{Error, Result, ResultExt, Sibling};
use records::Completion;

use crate::cli::Args;

/// How lm-gen is called.
pub struct Scoring {
    completions: PathBuf,
    words: Vec<OsString>,
}

impl Scoring {
    pub fn new(args: &Args, completions: &Path) -> Scoring {
        let mut words: Vec<OsString> = ["--score", "--quiet", "--model"].map(OsString::from).to_vec();
        words.push(args.model.clone().into());
        for adapter in &args.adapter.adapters {
            words.extend([OsString::from("--adapter"), adapter.clone().into()]);
        }
        let switches = [
            ("--other-base", args.adapter.other_base),
            ("--follow-links", args.follow_links),
        ];
        words.extend(switches.iter().filter(|(_, is_on)| *is_on).map(|(word, _)| word.into()));
        for (flag, value) in [("--device", &args.device), ("--dtype", &args.dtype)] {
            words.extend([flag.into(), value.into()]);
        }
        if let Some(threads) = args.common.threads {
            words.extend(["--threads".into(), threads.to_string().into()]);
        }
        words.extend(args.lm_gen.iter().map(OsString::from));
        Scoring {
            completions: completions.to_path_buf(),
            words,
        }
    }

    /// Infinite where it is beyond what f64 can hold.
    pub fn perplexity(&self, sparsify: Option<&Path>) -> Result<f64> {
        let mut call = Sibling::new("lm-gen").args(&self.words);
        if let Some(plan) = sparsify {
            call = call.arg("--sparsify").arg(plan);
        }
        let printed = call.arg("--").arg(&self.completions).output()?;
        of_scores(&printed, &self.completions.display().to_string())
    }
}

fn of_scores(printed: &[u8], subject: &str) -> Result<f64> {
    let mut reader = records::Reader::new(printed);
    let (mut log_prob, mut token_count) = (0.0, 0);
    while let Some(completion) = reader.next_record::<Completion>().at("lm-gen")? {
        let (Some(of_text), Some(count)) = (completion.log_prob, completion.token_count) else {
            let cause = format!(
                "id {}: perplexity is of a `completion`, not of choices",
                completion.prompt.id
            );
            return Err(Error::input(subject, cause));
        };
        log_prob += of_text;
        token_count += count;
    }
    match token_count {
        0 => Err(Error::input(subject, "holds no completion with a token")),
        count => Ok((-log_prob / count as f64).exp()),
    }
}
