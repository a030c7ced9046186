//! `act-stats merge`: the plan is that of the run whose shards were measured. Reads them, for they are small.

use crate::cli::MergeArgs;
use crate::part::Merge;
use crate::plan::measure::Plan;
use process::{Format, Result};

pub struct Opened {
    pub merge: Merge,
    pub format: Format,
}

pub fn open(args: &MergeArgs) -> Result<(Plan, Opened)> {
    let merge = Merge::of(&args.inputs)?;
    let plan = merge.plan().clone();
    let format = args.format.resolve(None);
    Ok((plan, Opened { merge, format }))
}
