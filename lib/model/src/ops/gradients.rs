//! The gradients of the parameters: one f32 buffer each, added to in place over any number of backward passes.

use std::collections::HashMap;

use candle_core::{DType, Result, Tensor, TensorId};

use super::cpu;

/// One parameter's gradient: a plain vector on the CPU, where own kernels add to it; a tensor elsewhere.
#[derive(Debug)]
pub enum Gradient {
    Host(Vec<f32>),
    Device(Tensor),
}

/// Gradients by parameter. Empty at first: a parameter that never received one has none.
#[derive(Default, Debug)]
pub struct Gradients {
    slots: HashMap<TensorId, Gradient>,
}

impl Gradients {
    pub fn get(&self, parameter: &Tensor) -> Option<&Gradient> {
        self.slots.get(&parameter.id())
    }

    pub fn get_mut(&mut self, parameter: &Tensor) -> Option<&mut Gradient> {
        self.slots.get_mut(&parameter.id())
    }

    /// A copy as an f32 tensor of the parameter's shape.
    pub fn tensor(&self, parameter: &Tensor) -> Result<Option<Tensor>> {
        match self.get(parameter) {
            None => Ok(None),
            Some(Gradient::Host(values)) => Tensor::from_slice(values, parameter.shape(), parameter.device()).map(Some),
            Some(Gradient::Device(tensor)) => Ok(Some(tensor.clone())),
        }
    }

    /// Forgets all gradients, and keeps no memory.
    pub fn clear(&mut self) {
        self.slots.clear();
    }

    /// Multiplies every gradient by `factor`.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for slot in self.slots.values_mut() {
            match slot {
                Gradient::Host(values) => {
                    use rayon::prelude::*;
                    values.par_chunks_mut(cpu::CHUNK).for_each(|chunk| {
                        for value in chunk {
                            *value *= factor as f32;
                        }
                    });
                }
                Gradient::Device(tensor) => *tensor = (&*tensor * factor)?,
            }
        }
        Ok(())
    }

    /// Adds `gradient`, in f32.
    pub(super) fn add(&mut self, parameter: TensorId, gradient: &Tensor) -> Result<()> {
        if cpu::is_host(gradient) {
            let gradient = cpu::wide(gradient)?;
            let values = cpu::view(&gradient)?;
            match self.slots.get_mut(&parameter) {
                Some(Gradient::Host(sum)) => cpu::add_into(sum, &values),
                _ => {
                    self.slots.insert(parameter, Gradient::Host(values.to_vec()));
                }
            }
            return Ok(());
        }
        let gradient = gradient.to_dtype(DType::F32)?;
        match self.slots.get_mut(&parameter) {
            Some(Gradient::Device(sum)) => *sum = (&*sum + gradient)?,
            _ => {
                self.slots.insert(parameter, Gradient::Device(gradient));
            }
        }
        Ok(())
    }

    /// The host buffer of `parameter`, and whether it already holds a sum. A new one is zero, so that both ways are right.
    pub(super) fn host(&mut self, parameter: &Tensor) -> (&mut [f32], bool) {
        let mut held = true;
        let slot = self.slots.entry(parameter.id()).or_insert_with(|| {
            held = false;
            Gradient::Host(vec![0.0; parameter.elem_count()])
        });
        match slot {
            Gradient::Host(values) => (values, held),
            Gradient::Device(_) => unreachable!("a CPU parameter has a host gradient"),
        }
    }
}
