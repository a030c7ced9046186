//! Verdicts read back: every row of a file, each judge's once.

use std::collections::HashSet;
use std::path::Path;

use process::{Error, Result, ResultExt};
use records::{Reader, Status, Verdict};

/// The verdicts of a file, in its order.
pub struct Verdicts {
    pub rows: Vec<Verdict>,
    pub status: Status,
}

impl Verdicts {
    pub fn read(path: &Path, accept_partial: bool) -> Result<Verdicts> {
        let subject = process::input_name(path);
        let mut reader = Reader::new(process::open_input(path)?).accept_partial(accept_partial);
        let mut rows = Vec::new();
        let mut seen = HashSet::new();
        while let Some(verdict) = reader.next_record::<Verdict>().at(&subject)? {
            if !seen.insert((verdict.judge.clone(), verdict.key())) {
                return Err(Error::input(
                    &subject,
                    format!(
                        "judge {} has two verdicts on id {} of bench {:?}",
                        verdict.judge, verdict.id, verdict.bench
                    ),
                ));
            }
            rows.push(verdict);
        }
        if rows.is_empty() {
            return Err(Error::input(&subject, "no verdict in it"));
        }
        Ok(Verdicts {
            rows,
            status: reader.status(),
        })
    }
}
