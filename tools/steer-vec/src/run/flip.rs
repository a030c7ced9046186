//! `flip`: faults of memory in activations.

use model::{Checkpoint, Steering};
use process::{Error, Result};
use steering::{How, Made, Op, Operation, Plan};

use crate::cli::FlipArgs;
use crate::product::Found;

pub fn run(flags: &FlipArgs, checkpoint: &Checkpoint, layers: &[usize]) -> Result<Found> {
    let mut operation = Operation::new(Op::Flip, flags.site, layers.to_vec(), Vec::new());
    (operation.rate, operation.seed, operation.bits) = (Some(flags.rate), Some(flags.seed), Some(flags.bits));
    let plan = Plan {
        made: Made::of(checkpoint),
        operations: vec![operation],
    };
    check(&plan, checkpoint, layers).map_err(|cause| Error::usage("flip", cause))?;
    Ok(Found {
        plan: Some(plan),
        rows: Vec::new(),
    })
}

/// Refuses here what the model would refuse.
fn check(plan: &Plan, checkpoint: &Checkpoint, layers: &[usize]) -> std::result::Result<(), String> {
    let mut steering = Steering::new(checkpoint.config(), checkpoint.device());
    let how = How {
        scale: 1.0,
        layers,
        allow_other_model: false,
    };
    plan.steer(&mut steering, checkpoint, how)
}
