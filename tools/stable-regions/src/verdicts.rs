//! The join to refusal-eval: what a judge said of the answers to the prompts of a pair.

use process::{Error, Result, ResultExt};
use records::{Reader, Verdict};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

pub struct Verdicts {
    pub judge: String,
    by_id: BTreeMap<String, Verdict>,
}

impl Verdicts {
    /// Reads the verdicts of one judge; the first attempt at each prompt counts.
    pub fn read(path: &Path, judge: Option<&str>) -> Result<Self> {
        let name = path.display().to_string();
        let mut reader = Reader::new(File::open(path).at(&name)?);
        let mut judges: Vec<String> = Vec::new();
        let mut by_id = BTreeMap::new();
        while let Some(verdict) = reader.next_record::<Verdict>().at(&name)? {
            if judge.is_some_and(|judge| judge != verdict.judge) || verdict.attempt_index > 0 {
                continue;
            }
            if !judges.contains(&verdict.judge) {
                judges.push(verdict.judge.clone());
            }
            if judges.len() > 1 {
                return Err(
                    Error::usage("--judge", format!("{name} has verdicts of {}", judges.join(" and ")))
                        .hint("choose one judge"),
                );
            }
            let id = verdict.id.clone();
            if by_id.insert(id.clone(), verdict).is_some() {
                return Err(Error::input(
                    &name,
                    format!("prompt {id} has two verdicts of one judge"),
                ));
            }
        }
        match judges.pop() {
            Some(judge) => Ok(Self { judge, by_id }),
            None => Err(Error::input(&name, "no verdict of this judge is here")),
        }
    }

    pub fn of(&self, id: &str) -> Option<&Verdict> {
        self.by_id.get(id)
    }
}
