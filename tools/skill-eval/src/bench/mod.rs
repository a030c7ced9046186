//! The benchmarks: files to prompts. One file each; the customary wording is theirs.

mod bbh;
mod cloze;
mod gsm8k;
mod humaneval;
mod ifeval;
mod mmlu;
mod truthfulqa;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use process::{Error, Result, ResultExt};
use records::Prompt;
use records::dataset::{Dataset, Options, Row};

use crate::cli::Bench;
use crate::plan::Questions;

pub use humaneval::programs;
pub use ifeval::COLUMNS as IFEVAL_COLUMNS;
pub use truthfulqa::Choices as TruthfulChoices;

/// The prompts of a benchmark, and what had to be left out under `--keep-going`, in words.
#[derive(Default)]
pub struct Made {
    pub prompts: Vec<Prompt>,
    pub left_out: Vec<String>,
    /// Rows read so far, over all files: the `sample_index` of the next.
    row_count: u64,
}

impl Made {
    /// The id of the next row: its own, or its place in the whole input.
    fn next_id(&mut self, row: &Row) -> records::Result<String> {
        let place = self.next_place();
        if row.value.contains_key("id") {
            row.id()
        } else {
            Ok(place)
        }
    }

    /// As the id of a row that has none.
    fn next_place(&mut self) -> String {
        self.row_count += 1;
        format!("#{}", self.row_count - 1)
    }
}

pub fn prompts(questions: &Questions) -> Result<Made> {
    let mut made = Made::default();
    for file in &questions.files {
        match questions.bench {
            Bench::Mmlu => mmlu::prompts(questions, file, &mut made)?,
            Bench::Gsm8k => gsm8k::prompts(questions, file, &mut made)?,
            Bench::Bbh => bbh::prompts(questions, file, &mut made)?,
            Bench::Humaneval => humaneval::prompts(questions, file, &mut made)?,
            Bench::Arc | Bench::Hellaswag => cloze::prompts(questions, file, &mut made)?,
            Bench::Truthfulqa => truthfulqa::prompts(questions, file, &mut made)?,
            Bench::Ifeval => ifeval::prompts(questions, file, &mut made)?,
        }
    }
    let mut seen = HashSet::new();
    if let Some(twice) = made.prompts.iter().find(|prompt| !seen.insert(prompt.id.as_str())) {
        return Err(Error::input("FILES", format!("the id {} is there twice", twice.id)));
    }
    Ok(made)
}

/// Opens a table of questions.
fn open(questions: &Questions, path: &Path) -> Result<Dataset> {
    Options::new()
        .format(questions.input_format)
        .open(path)
        .at(path.display())
}

/// A file's name without its extensions.
fn stem(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split('.').next().unwrap_or(name)
}

/// How many rows of a file are read.
fn row_count_max(questions: &Questions) -> usize {
    questions
        .limit
        .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// A path beside another.
fn beside(path: &Path, name: &str) -> PathBuf {
    path.with_file_name(name)
}
