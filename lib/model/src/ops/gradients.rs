//! The gradients of the parameters: one f32 buffer each, added to in place over any number of backward passes.

use std::collections::HashMap;

use candle_core::{DType, Error, Result, Tensor, TensorId};

use super::cpu;

/// One parameter's gradient: a plain vector on the CPU, where own kernels add to it; a tensor elsewhere.
#[derive(Debug)]
pub enum Gradient {
    Host(Vec<f32>),
    Device(Tensor),
}

impl Gradient {
    fn row(&mut self) -> Result<&mut [f32]> {
        if let Self::Device(tensor) = self {
            *self = Self::Host(tensor.flatten_all()?.to_vec1()?);
        }
        match self {
            Self::Host(values) => Ok(values),
            Self::Device(_) => unreachable!("it was brought to the host"),
        }
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        match (self, other) {
            (Self::Host(sum), Self::Host(other)) => cpu::add_into(sum, other),
            (Self::Device(sum), Self::Device(other)) => *sum = (&*sum + other)?,
            _ => return Err(Error::Msg("a gradient in two places".into())),
        }
        Ok(())
    }
}

struct Slot {
    gradient: Gradient,
    /// Whether the buffer holds a sum; otherwise only its memory is kept for the next one.
    held: bool,
}

/// Gradients by parameter. Empty at first: a parameter that never received one has none.
#[derive(Default)]
pub struct Gradients {
    slots: HashMap<TensorId, Slot>,
}

impl Gradients {
    pub fn get(&self, parameter: &Tensor) -> Option<&Gradient> {
        self.slots
            .get(&parameter.id())
            .filter(|slot| slot.held)
            .map(|slot| &slot.gradient)
    }

    /// A copy as an f32 tensor of the parameter's shape.
    pub fn tensor(&self, parameter: &Tensor) -> Result<Option<Tensor>> {
        match self.get(parameter) {
            None => Ok(None),
            Some(Gradient::Host(values)) => Tensor::from_slice(values, parameter.shape(), parameter.device()).map(Some),
            Some(Gradient::Device(tensor)) => Ok(Some(tensor.clone())),
        }
    }

    /// The gradients of these parameters in memory of the host, to which a device's are brought.
    pub fn rows(&mut self, parameters: &[Tensor]) -> Result<Vec<&mut [f32]>> {
        let mut slots: HashMap<TensorId, &mut Slot> = self.slots.iter_mut().map(|(&id, slot)| (id, slot)).collect();
        let row = |parameter: &Tensor| {
            let slot = slots.remove(&parameter.id()).filter(|slot| slot.held);
            let missing = || Error::Msg(format!("a parameter of shape {:?} has no gradient", parameter.shape()));
            slot.ok_or_else(missing)?.gradient.row()
        };
        parameters.iter().map(row).collect()
    }

    /// Adds another's gradients, and leaves their memory to it. A parameter that only one of them has keeps that one's.
    pub fn absorb(&mut self, other: &mut Self) -> Result<()> {
        let is_new = |parameter: &TensorId, slot: &mut Slot| slot.held && !self.slots.contains_key(parameter);
        let new: Vec<_> = other.slots.extract_if(is_new).collect();
        for (parameter, theirs) in other.slots.iter_mut().filter(|(_, slot)| slot.held) {
            match self.slots.get_mut(parameter) {
                Some(own) if own.held => own.gradient.add(&theirs.gradient)?,
                Some(own) => std::mem::swap(own, theirs),
                None => unreachable!("such are new"),
            }
        }
        self.slots.extend(new);
        Ok(())
    }

    /// Forgets all gradients, and keeps their memory for the next ones.
    pub fn clear(&mut self) {
        self.slots.values_mut().for_each(|slot| slot.held = false);
    }

    /// Adds `gradient`, in f32.
    pub(super) fn add(&mut self, parameter: TensorId, gradient: &Tensor) -> Result<()> {
        if cpu::is_host(gradient) {
            let gradient = cpu::wide(gradient)?;
            let values = cpu::view(&gradient)?;
            let (sum, held) = self.buffer(parameter, values.len());
            match held {
                true => cpu::add_into(sum, &values),
                false => sum.copy_from_slice(&values),
            }
            return Ok(());
        }
        let gradient = gradient.to_dtype(DType::F32)?;
        let gradient = match self.slots.get(&parameter) {
            Some(Slot {
                gradient: Gradient::Device(sum),
                held: true,
            }) => (sum + gradient)?,
            _ => gradient,
        };
        self.slots.insert(
            parameter,
            Slot {
                gradient: Gradient::Device(gradient),
                held: true,
            },
        );
        Ok(())
    }

    /// The host buffer of a parameter to add to: zeros if it held nothing.
    pub(super) fn sum(&mut self, parameter: &Tensor) -> &mut [f32] {
        let (values, held) = self.buffer(parameter.id(), parameter.elem_count());
        if !held {
            values.fill(0.0);
        }
        values
    }

    /// As [`Self::sum`], of one of the equal parts that a parameter's first dimension counts.
    pub(super) fn sum_of_part(&mut self, stack: &Tensor, index: usize) -> Result<&mut [f32]> {
        let size = stack.elem_count() / stack.dim(0)?;
        Ok(&mut self.sum(stack)[index * size..][..size])
    }

    /// Adds `gradient` to that of one of the equal parts that a parameter's first dimension counts.
    pub(super) fn add_to_part(&mut self, stack: &Tensor, index: usize, gradient: &Tensor) -> Result<()> {
        let gradient = gradient.to_dtype(DType::F32)?;
        if cpu::is_host(stack) {
            let gradient = cpu::wide(&gradient)?;
            cpu::add_into(self.sum_of_part(stack, index)?, &cpu::view(&gradient)?);
            return Ok(());
        }
        let sum = match self.get(stack) {
            Some(Gradient::Device(sum)) => sum.clone(),
            _ => {
                let zeros = Tensor::zeros(stack.shape(), DType::F32, stack.device())?;
                self.add(stack.id(), &zeros)?;
                zeros
            }
        };
        let part = (sum.get(index)? + gradient)?;
        sum.slice_set(&part.unsqueeze(0)?.contiguous()?, 0, index)
    }

    /// The host buffer, and whether it holds a sum; otherwise the caller must overwrite all of it.
    pub(super) fn buffer(&mut self, parameter: TensorId, len: usize) -> (&mut [f32], bool) {
        let slot = self.slots.entry(parameter).or_insert_with(|| Slot {
            gradient: Gradient::Host(vec![0.0; len]),
            held: false,
        });
        let held = std::mem::replace(&mut slot.held, true);
        match &mut slot.gradient {
            Gradient::Host(values) => (values, held),
            Gradient::Device(_) => unreachable!("a CPU parameter has a host gradient"),
        }
    }
}
