//! The directions that the flags name, read from their files.

use model::{Checkpoint, Steering};
use process::{Action, Intervention, Result, ResultExt};

/// Reads every direction for the model that it steers.
pub fn load(interventions: &[Intervention], checkpoint: &Checkpoint) -> Result<Steering> {
    let width = checkpoint.config().hidden_size;
    let mut steering = Steering::new(checkpoint.config(), checkpoint.device());
    for intervention in interventions {
        let subject = intervention.path.display();
        let file = acts::File::open(&intervention.path, acts::OpenOptions::default()).at(&subject)?;
        for (layer, from_layer) in intervention.steps() {
            let direction = file.direction(from_layer, width).at(&subject)?;
            match intervention.action {
                Action::Ablate => steering.ablate(layer, direction),
                Action::Add(scale) => steering.add(layer, direction, scale),
            }
            .at(&subject)?;
        }
    }
    Ok(steering)
}
