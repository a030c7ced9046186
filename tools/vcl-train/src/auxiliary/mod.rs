//! Auxiliary losses on the residual stream, none of them built in. One more is its own file here and a line of `KNOWN`.

mod decorrelate;
mod folded;
mod list;
mod options;
mod seen;
mod statistics;
mod vcl;

use std::str::FromStr;

use candle_core::{Error, Result};
use model::Tensor;
use serde_json::Value;

pub use list::{Auxiliaries, Settled};
use options::Options;
use seen::{Observed, Seen};

use crate::micro::{Micro, Rows};

type Make = fn(&mut Options, usize) -> std::result::Result<Box<dyn Auxiliary>, String>;

/// The names that `--aux` knows, and what makes each loss from its options, for a model of so many blocks.
const KNOWN: &[(&str, Make)] = &[(decorrelate::NAME, decorrelate::make), (vcl::NAME, vcl::make)];

/// A loss on the residual rows of some layers, over all micro-batches of a step.
///
/// A step calls `begin`, `observe` for every layer of every micro-batch, `settle` once, and then `gradient` for every layer of
/// every micro-batch: what `settle` found is constant for the whole step, so that accumulation changes nothing. Between the two,
/// what it has seen is put together with what other slots and ranks have.
pub trait Auxiliary {
    fn name(&self) -> &'static str;

    /// Everything that can change bits, for the plan.
    fn settings(&self) -> Value;

    /// The blocks whose output it must see, ascending.
    fn layers(&self) -> &[usize];

    /// Which positions of a sequence are rows.
    fn rows(&self) -> Rows;

    fn begin(&mut self, step: u64);

    /// Rows (n, d) of one layer in one micro-batch, f32; `micro` says whose they are.
    fn observe(&mut self, layer: usize, rows: &Tensor, micro: &Micro) -> Result<()>;

    /// What it has seen since `begin`.
    fn seen(&mut self) -> &mut Observed;

    /// What it has of a layer before the first row.
    fn unseen(&self) -> Seen;

    /// Fixes the step's statistics, and returns the loss.
    fn settle(&mut self) -> Result<f64>;

    /// Whether it has gradients at all.
    fn is_active(&self) -> bool;

    /// The gradient of the loss with respect to these rows; none when it is zero.
    fn gradient(&self, layer: usize, rows: &Tensor, micro: &Micro) -> Result<Option<Tensor>>;

    /// Its object in the step's record, after `settle`.
    fn report(&self) -> Value;

    /// Why the step's statistics mean little, if so.
    fn doubt(&self) -> Option<Doubt> {
        None
    }

    /// What a resumed run needs to go on with the same bits.
    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, name: &str, _value: &Tensor) -> Result<()> {
        Err(Error::Msg(format!("{name} is not a state of {}", self.name())))
    }
}

/// A statistic over too few rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Doubt {
    pub cause: String,
    /// The loss has no meaning at all; otherwise it is only noisy.
    pub is_fatal: bool,
}

/// One `--aux`: a loss's name and its options as typed, or `none`.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    name: String,
    options: String,
}

const NONE: &str = "none";

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, options) = text.split_once(':').unwrap_or((text, ""));
        let known: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).chain([NONE]).collect();
        if !known.contains(&name) {
            return Err(format!("{name:?} is unknown (known: {})", known.join(", ")));
        }
        if name == NONE && text != NONE {
            return Err("none takes no options".into());
        }
        Ok(Self {
            name: name.into(),
            options: options.into(),
        })
    }
}

impl Auxiliaries {
    /// What all `--aux` ask for together, for a model of `layer_count` blocks.
    pub fn new(specs: &[Spec], layer_count: usize) -> std::result::Result<Self, String> {
        let mut losses: Vec<Box<dyn Auxiliary>> = Vec::new();
        for spec in specs {
            let Some((name, make)) = KNOWN.iter().find(|(known, _)| *known == spec.name) else {
                match specs {
                    [_] => break,
                    _ => return Err(format!("{NONE} stands alone")),
                }
            };
            if losses.iter().any(|loss| loss.name() == *name) {
                return Err(format!("{name} is given twice"));
            }
            let mut options = Options::parse(&spec.options)?;
            losses.push(make(&mut options, layer_count)?);
            options.end()?;
        }
        Ok(Self::of(losses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(specs: &[&str]) -> std::result::Result<Auxiliaries, String> {
        let specs: Vec<Spec> = specs
            .iter()
            .map(|text| text.parse())
            .collect::<std::result::Result<_, _>>()?;
        Auxiliaries::new(&specs, 10)
    }

    #[test]
    fn nothing_is_built_in_and_none_stands_alone() {
        assert_eq!(made(&["none"]).unwrap().settings(), serde_json::json!({}));
        assert_eq!(made(&["vcl"]).unwrap().settings()["vcl"]["gamma"], 0.0);
        for specs in [
            &["none", "vcl"][..],
            &["vcl", "vcl:k=2"],
            &["none:k=2"],
            &["other"],
            &["vcl:nothing=1"],
        ] {
            assert!(made(specs).is_err(), "{specs:?}");
        }
    }
}
