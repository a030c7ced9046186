//! The flags of every tool that runs a model: `--steer`, `--ablate` and `--add` for directions that are not yet a plan, and `--soft-prompt`.

use std::path::PathBuf;

use clap::Args;
use model::steering::{Edit, Step};
use model::{Checkpoint, Point, Site, Steering};
use process::{Error, Layers, Result, ResultExt};
use serde::{Deserialize, Serialize};

use crate::operation::Op;
use crate::plan::{How, Plan};
use crate::soft_prompt::{self, OpenedSoftPrompt, Reader};

/// Interventions; plans come first, then ablations, then additions, then what is left out, each kind as typed.
#[derive(Args, Clone, Debug, Default)]
#[command(group = clap::ArgGroup::new("plans").multiple(true))]
pub struct SteeringFlags {
    /// Steer by a plan (an .acts of steer-vec): PLAN[:SCALE][@LAYERS]. SCALE multiplies its coefficients; LAYERS keeps those of its layers.
    #[arg(long, value_name = "PLAN[:SCALE][@LAYERS]", value_parser = Steer::planned, group = "plans")]
    pub steer: Vec<Steer>,

    /// Take a plan, or a soft prompt, that was made for another model of the same family, width and layer count (a fine-tuned one, say).
    #[arg(long, requires = "plans")]
    pub allow_other_model: bool,

    /// Take a direction out of the residual stream: FILE[@LAYER][:LAYERS]. FILE is an .acts of flowlens-pca --direction; @LAYER takes that
    /// layer's direction everywhere (else each layer its own); LAYERS is such as 4-12, 3,5,7 or -1 (else all).
    #[arg(long, value_name = "DIRECTION[:LAYERS]", value_parser = Steer::ablating)]
    pub ablate: Vec<Steer>,

    /// Add SCALE times a direction to the residual stream after a block: FILE[@LAYER]:SCALE[:LAYERS].
    #[arg(long, value_name = "DIRECTION:SCALE[:LAYERS]", value_parser = Steer::adding)]
    pub add: Vec<Steer>,

    /// Leave small numbers out of what matrices read, by a plan of act-sparsity: PLAN[@LAYERS]. LAYERS keeps those of its layers.
    #[arg(long, value_name = "PLAN[@LAYERS]", value_parser = Steer::sparsifying, group = "plans")]
    pub sparsify: Vec<Steer>,

    /// A learned system message (a safetensors file of dro-train), where the chat template has a written one.
    #[arg(long, value_name = "FILE", group = "plans")]
    pub soft_prompt: Option<PathBuf>,
}

impl SteeringFlags {
    /// Reads everything for the model that it steers: what a run's plan says of it, and what its passes are run with.
    pub fn open(&self, checkpoint: &Checkpoint) -> Result<(Vec<Intervention>, Steering)> {
        let mut steering = Steering::new(checkpoint.config(), checkpoint.device());
        let mut interventions = Vec::new();
        for (flag, steer) in self.all() {
            let intervention = steer.resolve(flag, checkpoint.config().layer_count())?;
            intervention.act(&mut steering, checkpoint, self.allow_other_model)?;
            interventions.push(intervention);
        }
        Ok((interventions, steering))
    }

    /// Reads the soft prompt, and has the model take it.
    pub fn open_soft_prompt(
        &self,
        checkpoint: &mut Checkpoint,
        reader: &Reader<'_>,
    ) -> Result<Option<OpenedSoftPrompt>> {
        let path = self.soft_prompt.as_deref();
        path.map(|path| soft_prompt::open(path, checkpoint, reader, self.allow_other_model))
            .transpose()
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &Steer)> {
        let kinds = [
            ("--steer", &self.steer),
            ("--ablate", &self.ablate),
            ("--add", &self.add),
            ("--sparsify", &self.sparsify),
        ];
        kinds
            .into_iter()
            .flat_map(|(flag, steers)| steers.iter().map(move |steer| (flag, steer)))
    }

    /// The files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.all().map(|(_, steer)| &steer.path).chain(&self.soft_prompt)
    }
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Its direction is taken out, wherever a block reads or writes.
    Ablate,
    /// So many times a unit of its direction is added after a block.
    Add(f64),
    /// Its plan is followed, its coefficients so many times.
    Steer(f64),
    /// Its plan is followed, which does nothing but leave out.
    Sparsify,
}

/// One flag, as typed.
#[derive(Clone, Debug, PartialEq)]
pub struct Steer {
    path: PathBuf,
    from_layer: Option<usize>,
    layers: Layers,
    action: Action,
}

impl Steer {
    /// `PLAN[:SCALE][@LAYERS]`, read from the right.
    fn planned(text: &str) -> std::result::Result<Self, String> {
        let (rest, layers) = split_plan_layers(text);
        let (path, scale) = split_scale(rest).unwrap_or((rest, 1.0));
        match scale.is_finite() {
            true => Ok(Self {
                path: path.into(),
                from_layer: None,
                layers,
                action: Action::Steer(scale),
            }),
            false => Err(format!("{text:?}: the scale is not finite")),
        }
    }

    /// `PLAN[@LAYERS]`, read from the right.
    fn sparsifying(text: &str) -> std::result::Result<Self, String> {
        let (path, layers) = split_plan_layers(text);
        Ok(Self {
            path: path.into(),
            from_layer: None,
            layers,
            action: Action::Sparsify,
        })
    }

    /// `FILE[@LAYER][:LAYERS]`, read from the right.
    fn ablating(text: &str) -> std::result::Result<Self, String> {
        let (rest, layers) = split_layers(text).unwrap_or((text, Layers::All));
        Ok(Self::of(rest, layers, Action::Ablate))
    }

    /// `FILE[@LAYER]:SCALE[:LAYERS]`, read from the right.
    fn adding(text: &str) -> std::result::Result<Self, String> {
        let with_layers = split_layers(text).and_then(|(rest, layers)| Some((split_scale(rest)?, layers)));
        let ((rest, scale), layers) = with_layers
            .or_else(|| Some((split_scale(text)?, Layers::All)))
            .ok_or_else(|| format!("{text:?}: expected DIRECTION:SCALE, the scale a number"))?;
        match scale.is_finite() {
            true => Ok(Self::of(rest, layers, Action::Add(scale))),
            false => Err(format!("{text:?}: the scale is not finite")),
        }
    }

    fn of(direction: &str, layers: Layers, action: Action) -> Self {
        let with_layer = direction
            .rsplit_once('@')
            .and_then(|(path, layer)| Some((path, layer.parse().ok()?)));
        let (path, from_layer) = match with_layer {
            Some((path, layer)) => (path, Some(layer)),
            None => (direction, None),
        };
        Self {
            path: path.into(),
            from_layer,
            layers,
            action,
        }
    }

    fn resolve(&self, flag: &str, layer_count: usize) -> Result<Intervention> {
        let layers = self.layers.of(layer_count).map_err(|cause| Error::usage(flag, cause))?;
        let bytes = std::fs::read(&self.path).at(self.path.display())?;
        Ok(Intervention {
            path: self.path.clone(),
            digest: process::sha256(&bytes),
            from_layer: self.from_layer,
            layers,
            action: self.action,
        })
    }
}

/// `PLAN[@LAYERS]`; all layers where none are named.
fn split_plan_layers(text: &str) -> (&str, Layers) {
    let split = text.rsplit_once('@');
    split
        .and_then(|(rest, layers)| Some((rest, layers.parse().ok()?)))
        .unwrap_or((text, Layers::All))
}

fn split_layers(text: &str) -> Option<(&str, Layers)> {
    let (rest, layers) = text.rsplit_once(':')?;
    Some((rest, layers.parse().ok()?))
}

fn split_scale(text: &str) -> Option<(&str, f64)> {
    let (rest, scale) = text.rsplit_once(':')?;
    Some((rest, scale.parse().ok()?))
}

/// One flag, resolved: part of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervention {
    #[serde(skip)]
    pub path: PathBuf,
    /// Of the file.
    pub digest: String,
    /// Take this layer's direction everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_layer: Option<usize>,
    pub layers: Vec<usize>,
    pub action: Action,
}

impl Intervention {
    fn act(&self, steering: &mut Steering, checkpoint: &Checkpoint, allow_other_model: bool) -> Result<()> {
        let subject = self.path.display();
        match self.action {
            Action::Steer(scale) => {
                let plan = Plan::read(&self.path)?;
                self.follow(&plan, steering, checkpoint, (scale, allow_other_model))
            }
            Action::Sparsify => {
                let plan = Plan::read(&self.path)?;
                if plan.operations.iter().any(|operation| operation.op != Op::Sparsify) {
                    let refusal = Error::input(&subject, "does more than leave numbers out");
                    return Err(refusal.hint("--steer follows any plan"));
                }
                self.follow(&plan, steering, checkpoint, (1.0, allow_other_model))
            }
            Action::Ablate => self.each_direction(checkpoint, |layer, direction| {
                steering.ablate(layer, &direction).at(&subject)
            }),
            Action::Add(scale) => self.each_direction(checkpoint, |layer, direction| {
                let vector = direction.iter().map(|x| x * scale).collect();
                let step = Step::everywhere(Edit::Add(vector));
                steering.push(Point::new(Site::ResidPost, layer), step).at(&subject)
            }),
        }
    }

    fn follow(
        &self,
        plan: &Plan,
        steering: &mut Steering,
        checkpoint: &Checkpoint,
        (scale, allow_other_model): (f64, bool),
    ) -> Result<()> {
        let how = How {
            scale,
            layers: &self.layers,
            allow_other_model,
        };
        plan.steer(steering, checkpoint, how)
            .map_err(|cause| Error::input(self.path.display(), cause))
    }

    /// Each layer at which it acts, with the direction that it takes there.
    fn each_direction(
        &self,
        checkpoint: &Checkpoint,
        mut act: impl FnMut(usize, Vec<f64>) -> Result<()>,
    ) -> Result<()> {
        let subject = self.path.display();
        let width = checkpoint.config().hidden_size;
        let file = acts::File::open(&self.path, acts::OpenOptions::default()).at(&subject)?;
        self.layers.iter().try_for_each(|&layer| {
            let direction = file.direction(self.from_layer.unwrap_or(layer), width).at(&subject)?;
            act(layer, direction)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_the_right() {
        let layers = |text: &str| text.parse::<Layers>().unwrap();
        let steer = |path: &str, from_layer, text, action| Steer {
            path: path.into(),
            from_layer,
            layers: layers(text),
            action,
        };
        for (text, expected) in [
            ("f", steer("f", None, "all", Action::Ablate)),
            ("a:b@x", steer("a:b@x", None, "all", Action::Ablate)),
            ("f@3:2-4", steer("f", Some(3), "2-4", Action::Ablate)),
            ("f:1,5", steer("f", None, "1,5", Action::Ablate)),
            ("f:-1", steer("f", None, "-1", Action::Ablate)),
            ("f:0.3-0.5", steer("f", None, "0.3-0.5", Action::Ablate)),
        ] {
            assert_eq!(Steer::ablating(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("f@2:-1.5", steer("f", Some(2), "all", Action::Add(-1.5))),
            ("f:4", steer("f", None, "all", Action::Add(4.0))),
            ("f:4:7", steer("f", None, "7", Action::Add(4.0))),
            ("f:4:-2--1", steer("f", None, "-2--1", Action::Add(4.0))),
        ] {
            assert_eq!(Steer::adding(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("p", steer("p", None, "all", Action::Steer(1.0))),
            ("p:0.5", steer("p", None, "all", Action::Steer(0.5))),
            ("p@4-6", steer("p", None, "4-6", Action::Steer(1.0))),
            ("a@b:x:-2@-1", steer("a@b:x", None, "-1", Action::Steer(-2.0))),
        ] {
            assert_eq!(Steer::planned(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("p", steer("p", None, "all", Action::Sparsify)),
            ("p:0.5@4-6", steer("p:0.5", None, "4-6", Action::Sparsify)),
        ] {
            assert_eq!(Steer::sparsifying(text), Ok(expected), "{text}");
        }
        assert!(Steer::planned("p:inf").is_err());
        for text in ["f", "f:x", "f:inf", "f:4:x"] {
            assert!(Steer::adding(text).is_err(), "{text}");
        }
    }
}
