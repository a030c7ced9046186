//! What all auxiliary losses have seen of some neighbouring slots: one sum, put together from left to right, and its way to another rank.

use std::collections::{BTreeMap, HashMap};

use candle_core::{D, Device, Result};
use model::Tensor;

use super::seen::{Observed, Seen};

/// By layer.
pub type Norms = BTreeMap<usize, Norm>;

/// Of the rows of one layer.
#[derive(Clone, Copy, Default)]
pub struct Norm {
    pub count: usize,
    pub sum: f64,
}

impl Norm {
    pub fn add(&mut self, rows: &Tensor) -> Result<()> {
        let count = rows.dim(0)?;
        if count > 0 {
            self.count += count;
            self.sum += f64::from(rows.sqr()?.sum(D::Minus1)?.sqrt()?.sum_all()?.to_scalar::<f32>()?);
        }
        Ok(())
    }
}

#[derive(Default)]
pub struct Statistics {
    /// Of each loss.
    pub observed: Vec<Observed>,
    pub norms: Norms,
}

impl Statistics {
    pub fn merge(mut self, right: Self) -> Result<Self> {
        for (own, theirs) in self.observed.iter_mut().zip(right.observed) {
            for (layer, seen) in theirs {
                let sum = match own.remove(&layer) {
                    Some(own) => own.merge(seen)?,
                    None => seen,
                };
                own.insert(layer, sum);
            }
        }
        for (layer, norm) in right.norms {
            let own = self.norms.entry(layer).or_default();
            own.count += norm.count;
            own.sum += norm.sum;
        }
        Ok(self)
    }

    /// As a safetensors file in memory.
    pub fn bytes(&self) -> model::Result<Vec<u8>> {
        let mut tensors = Vec::new();
        for (loss, observed) in self.observed.iter().enumerate() {
            for (layer, seen) in observed {
                tensors.extend(seen.tensors(&format!("{loss}.{layer}"))?);
            }
        }
        for (layer, norm) in &self.norms {
            let pair = Tensor::new(&[norm.count as f64, norm.sum], &Device::Cpu)?;
            tensors.push((format!("norm.{layer}"), pair));
        }
        let named = tensors.iter().map(|(name, tensor)| (name, tensor));
        safetensors::serialize(named, None).map_err(|cause| candle_core::Error::wrap(cause).into())
    }

    /// What another rank sent. `losses` are the layers of each loss, and what it has when it has seen nothing.
    pub fn read(bytes: &[u8], losses: &[(&[usize], Seen)], device: &Device) -> model::Result<Self> {
        let tensors: HashMap<String, Tensor> = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        let mut sum = Self::default();
        for (loss, (layers, blank)) in losses.iter().enumerate() {
            let mut observed = Observed::new();
            for &layer in *layers {
                let seen = blank.read(&tensors, &format!("{loss}.{layer}"), device)?;
                observed.extend(seen.map(|seen| (layer, seen)));
            }
            sum.observed.push(observed);
        }
        for (name, tensor) in &tensors {
            if let Some(layer) = name.strip_prefix("norm.").and_then(|layer| layer.parse().ok()) {
                let pair = tensor.to_vec1::<f64>()?;
                let (count, total) = (pair[0] as usize, pair[1]);
                sum.norms.insert(layer, Norm { count, sum: total });
            }
        }
        Ok(sum)
    }
}
