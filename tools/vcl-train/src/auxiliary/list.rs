//! The auxiliary losses of a run together: what a step, a record and a checkpoint need of all of them.

use candle_core::{Device, Error, Result};
use model::{DType, Point, Site, Tape, Taps, Tensor};
use ranks::{Counter, World};
use serde_json::{Map, Value};

use super::statistics::{Norms, Statistics};
use super::{Auxiliary, Doubt};
use crate::micro::Micro;

#[derive(Default)]
pub struct Auxiliaries {
    losses: Vec<Box<dyn Auxiliary>>,
    /// Of the slot that is being seen.
    norms: Norms,
    /// Of the slots before it.
    slots: Counter<Statistics>,
}

/// What a step's losses came to.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    pub loss: f64,
    /// What each loss reports, by its name.
    pub reports: Map<String, Value>,
    /// Over all rows that were looked at.
    pub norm_mean: Option<f64>,
    pub doubt: Option<Doubt>,
}

impl Auxiliaries {
    pub(super) fn of(losses: Vec<Box<dyn Auxiliary>>) -> Self {
        Self {
            losses,
            ..Self::default()
        }
    }

    /// Settings by name, for the plan.
    pub fn settings(&self) -> Value {
        let named = self
            .losses
            .iter()
            .map(|loss| (loss.name().to_string(), loss.settings()));
        Value::Object(named.collect())
    }

    /// Whether any of them has gradients.
    pub fn is_active(&self) -> bool {
        self.losses.iter().any(|loss| loss.is_active())
    }

    /// The blocks that one of them looks at, ascending.
    pub fn layers(&self) -> Vec<usize> {
        let mut layers: Vec<usize> = self.losses.iter().flat_map(|loss| loss.layers()).copied().collect();
        layers.sort_unstable();
        layers.dedup();
        layers
    }

    /// Keeps what `layers` give in a forward pass.
    pub fn taps(&self) -> Taps {
        Taps::new(self.layers().into_iter().map(output_of))
    }

    pub fn begin(&mut self, step: u64) {
        self.norms.clear();
        self.losses.iter_mut().for_each(|loss| loss.begin(step));
    }

    /// Shows every loss its rows of a forward pass.
    pub fn observe(&mut self, taps: &Taps, micro: &Micro) -> Result<()> {
        for loss in &mut self.losses {
            for layer in loss.layers().to_vec() {
                let residual = residual(taps, layer)?;
                let index = micro.index(loss.rows(), residual.device())?;
                let rows = residual.to_dtype(DType::F32)?.index_select(&index, 0)?;
                self.norms.entry(layer).or_default().add(&rows)?;
                loss.observe(layer, &rows, micro)?;
            }
        }
        Ok(())
    }

    /// What was seen since the last slot is a slot.
    pub fn end_slot(&mut self) -> Result<()> {
        let seen = self.losses.iter_mut().map(|loss| std::mem::take(loss.seen()));
        let statistics = Statistics {
            observed: seen.collect(),
            norms: std::mem::take(&mut self.norms),
        };
        self.slots.push(statistics, Statistics::merge)
    }

    /// Fixes the step's statistics, over the slots of all ranks.
    pub fn settle(&mut self, world: &World, device: &Device) -> model::Result<Settled> {
        let own = self.slots.take().unwrap_or_default();
        if self.losses.is_empty() {
            return Ok(Settled::default());
        }
        let unseen: Vec<_> = self.losses.iter().map(|loss| (loss.layers(), loss.unseen())).collect();
        let sum = world.combine(
            own,
            |own| own.bytes(),
            |bytes| Statistics::read(bytes, &unseen, device),
            |left, right| Ok(left.merge(right)?),
        )?;
        for (loss, observed) in self.losses.iter_mut().zip(sum.observed) {
            *loss.seen() = observed;
        }
        self.norms = sum.norms;
        Ok(self.fix()?)
    }

    fn fix(&mut self) -> Result<Settled> {
        let mut settled = Settled::default();
        for loss in &mut self.losses {
            let value = loss.settle()?;
            settled.loss += value;
            let mut report = loss.report();
            report["loss"] = value.into();
            settled.reports.insert(loss.name().into(), report);
            let worse = loss.doubt().filter(|doubt| settled.doubt.is_none() || doubt.is_fatal);
            settled.doubt = worse.or(settled.doubt);
        }
        let count: usize = self.norms.values().map(|norms| norms.count).sum();
        let sum: f64 = self.norms.values().map(|norms| norms.sum).sum();
        settled.norm_mean = (count > 0).then(|| sum / count as f64);
        Ok(settled)
    }

    /// The gradients with respect to the residual of a pass: where the way back takes them up.
    pub fn gradients(&self, tape: &Tape, taps: &Taps, micro: &Micro) -> Result<Vec<(Tensor, Tensor)>> {
        let mut gradients = Vec::new();
        for loss in self.losses.iter().filter(|loss| loss.is_active()) {
            for &layer in loss.layers() {
                let residual = residual(taps, layer)?;
                // nothing that learns lies before this block
                if !tape.tracks(residual) {
                    continue;
                }
                let index = micro.index(loss.rows(), residual.device())?;
                let rows = residual.to_dtype(DType::F32)?.index_select(&index, 0)?;
                if let Some(gradient) = loss.gradient(layer, &rows, micro)? {
                    let zeros = Tensor::zeros(residual.shape(), DType::F32, residual.device())?;
                    let spread = zeros.index_add(&index, &gradient, 0)?.to_dtype(residual.dtype())?;
                    gradients.push((residual.clone(), spread));
                }
            }
        }
        Ok(gradients)
    }

    /// What a checkpoint keeps: `NAME.STATE`.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut state = Vec::new();
        for loss in &self.losses {
            let named = loss.state()?.into_iter();
            state.extend(named.map(|(name, tensor)| (format!("{}.{name}", loss.name()), tensor)));
        }
        Ok(state)
    }

    pub fn restore(&mut self, name: &str, value: &Tensor) -> Result<()> {
        let (owner, own) = name.split_once('.').unwrap_or((name, ""));
        match self.losses.iter_mut().find(|loss| loss.name() == owner) {
            Some(loss) => loss.restore(own, value),
            None => Err(Error::Msg(format!(
                "{name} is the state of a loss that this run has not"
            ))),
        }
    }
}

fn output_of(layer: usize) -> Point {
    Point::new(Site::ResidPost, layer)
}

fn residual(taps: &Taps, layer: usize) -> Result<&Tensor> {
    let seen = taps.get(output_of(layer));
    seen.ok_or_else(|| Error::Msg(format!("the forward pass did not reach block {layer}")))
}
