//! Verdicts read back: every row of a file, each judge's once.

use std::path::Path;

use process::{Error, Result, ResultExt};
use records::{Reader, Seen, Status, Verdict};

/// The verdicts of a file, in its order.
pub struct Verdicts {
    pub rows: Vec<Verdict>,
    pub status: Status,
}

impl Verdicts {
    pub fn read(path: &Path, accept_partial: bool) -> Result<Verdicts> {
        let mut rows = Vec::new();
        let status = each(path, accept_partial, |verdict| rows.push(verdict))?;
        Ok(Verdicts { rows, status })
    }
}

/// Gives the verdicts of a file to `take`, in its order.
pub fn each(path: &Path, accept_partial: bool, mut take: impl FnMut(Verdict)) -> Result<Status> {
    let subject = process::input_name(path);
    let mut reader = Reader::new(process::open_input(path)?).accept_partial(accept_partial);
    let mut seen = Seen::default();
    let mut is_empty = true;
    while let Some(verdict) = reader.next_record::<Verdict>().at(&subject)? {
        if !seen.insert(&verdict.judge, &verdict.bench, &verdict.id, verdict.attempt_index) {
            return Err(Error::input(
                &subject,
                format!(
                    "judge {} has two verdicts on id {} of bench {:?}",
                    verdict.judge, verdict.id, verdict.bench
                ),
            ));
        }
        is_empty = false;
        take(verdict);
    }
    match is_empty {
        true => Err(Error::input(&subject, "no verdict in it")),
        false => Ok(reader.status()),
    }
}
