//! `--ablate` and `--add`: which directions are taken out of, or added to, the residual stream of which layers. What a direction
//! is, and how a model is run with it, other crates know.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::exit::{Error, Result, ResultExt};
use crate::layers::Layers;
use crate::text::sha256;

/// The flags of every tool that runs a model.
#[derive(Args, Clone, Debug, Default)]
pub struct SteeringFlags {
    /// Take a direction out of the residual stream: FILE[@LAYER][:LAYERS]. FILE is an .acts of flowlens-pca --direction; @LAYER takes that
    /// layer's direction everywhere (else each layer its own); LAYERS is such as 4-12, 3,5,7 or -1 (else all).
    #[arg(long, value_name = "DIRECTION[:LAYERS]", value_parser = Steer::ablating)]
    pub ablate: Vec<Steer>,

    /// Add SCALE times a direction to the residual stream after a block: FILE[@LAYER]:SCALE[:LAYERS].
    #[arg(long, value_name = "DIRECTION:SCALE[:LAYERS]", value_parser = Steer::adding)]
    pub add: Vec<Steer>,
}

impl SteeringFlags {
    /// What the flags mean for a model of so many layers: ablations first, each kind as typed.
    pub fn resolve(&self, layer_count: usize) -> Result<Vec<Intervention>> {
        let ablate = self.ablate.iter().map(|steer| ("--ablate", steer));
        let add = self.add.iter().map(|steer| ("--add", steer));
        ablate
            .chain(add)
            .map(|(flag, steer)| steer.resolve(flag, layer_count))
            .collect()
    }

    /// The files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.ablate.iter().chain(&self.add).map(|steer| &steer.path)
    }
}

/// What is done with a direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Take it out, wherever a block reads or writes.
    Ablate,
    /// Add so many times a unit of it, after a block.
    Add(f64),
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
            digest: sha256(&bytes),
            from_layer: self.from_layer,
            layers,
            action: self.action,
        })
    }
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
    /// Each layer at which it acts, with the layer whose direction it takes there.
    pub fn steps(&self) -> impl Iterator<Item = (usize, usize)> {
        self.layers
            .iter()
            .map(|&layer| (layer, self.from_layer.unwrap_or(layer)))
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
        for text in ["f", "f:x", "f:inf", "f:4:x"] {
            assert!(Steer::adding(text).is_err(), "{text}");
        }
    }
}
