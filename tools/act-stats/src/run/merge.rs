//! `act-stats merge`: the report of a run whose shards were measured apart.

use super::measure::write;
use crate::plan::merge::Opened;
use crate::report::Report;
use process::{Outcome, Result};

pub fn run(opened: Opened) -> Result<Outcome> {
    let (plan, subject, measured) = opened.merge.finish()?;
    write(&plan, opened.format, &Report::new(&plan, &subject, &measured))?;
    Ok(Outcome::Complete)
}
