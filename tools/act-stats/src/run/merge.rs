//! `act-stats merge`: the report of a run whose shards were measured apart.

use super::measure::write;
use crate::part::Merge;
use crate::report::Report;
use process::{Format, Outcome, Result};

pub fn run(merge: Merge, format: Format) -> Result<Outcome> {
    let (plan, subject, measured) = merge.finish()?;
    write(&plan, format, &Report::new(&plan, &subject, &measured))?;
    Ok(Outcome::Complete)
}
