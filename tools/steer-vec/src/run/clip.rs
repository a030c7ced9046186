//! `clip`: limits on single numbers, the largest magnitudes that a dump holds.

use process::{Error, Result};
use steering::{Mode, Op, Operation, Plan};

use crate::cli::{ClipArgs, Per};
use crate::dump::{Place, Tensors};
use crate::product::Found;
use crate::report::ClipLimit;

pub fn run(flags: &ClipArgs, tensors: &Tensors) -> Result<Found> {
    let mut found = Found::default();
    let mut operations = Vec::new();
    for &place in &tensors.places {
        let largest = tensors.largest(place)?;
        let limits: Vec<f64> = largest.iter().map(|x| x * flags.margin).collect();
        found.row(&ClipLimit::new(place, flags.per, &limits, tensors.made.layer_count))?;
        operations.push(operation(flags, place, limits)?);
    }
    found.plan = Some(Plan {
        made: tensors.made.clone(),
        operations,
    });
    Ok(found)
}

fn operation(flags: &ClipArgs, place: Place, limits: Vec<f64>) -> Result<Operation> {
    let largest = limits.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return Err(Error::input(
            place,
            "holds zeros alone, and a limit of zero would leave nothing",
        ));
    }
    let (threshold, vectors) = match flags.per {
        Per::Layer => (Some(largest), Vec::new()),
        Per::Neuron => (None, vec![limits]),
    };
    let mut operation = Operation::new(Op::Clip, place.site, vec![place.layer], vectors);
    (operation.mode, operation.threshold) = (Some(Mode::Elements), threshold);
    operation.source.insert("method".into(), "clip".into());
    operation.source.insert("margin".into(), flags.margin.into());
    Ok(operation)
}
