//! The model that learns: which of its tensors change, under which names.

use std::rc::Rc;

use model::ops::{Adapter, Learning, Tape};
use model::{DType, Decoder, Parameter, Tensor};
use numerics::rng::Rng;
use process::{Error, Result, ResultExt};

use crate::recipe::Lora;

/// A tensor that changes.
#[derive(Clone, Debug)]
pub struct Trainable {
    /// In a checkpoint of ours.
    pub name: String,
    pub tensor: Tensor,
}

/// A frozen weight and what is added to it.
#[derive(Clone, Debug)]
pub struct Adapted {
    pub weight: Parameter,
    pub adapter: Adapter,
}

pub struct Learner {
    pub decoder: Decoder,
    pub trainable: Vec<Trainable>,
    /// Empty when all weights learn.
    pub adapted: Vec<Adapted>,
    learning: Rc<Learning>,
}

impl Learner {
    /// All weights learn.
    pub fn full(decoder: Decoder) -> Self {
        let trainable: Vec<Trainable> = decoder
            .parameters()
            .iter()
            .map(|parameter| Trainable {
                name: parameter.name.clone(),
                tensor: parameter.tensor.clone(),
            })
            .collect();
        let learning = Rc::new(Learning::of(trainable.iter().map(|trainable| &trainable.tensor)));
        Self {
            decoder,
            trainable,
            adapted: Vec::new(),
            learning,
        }
    }

    /// Two factors for each chosen weight learn: the first uniform within 1/√in as PEFT draws it, the second zero.
    pub fn lora(decoder: Decoder, lora: &Lora, seed: u64) -> Result<Self> {
        let rng = Rng::new(seed, "adapters");
        let chosen = targets(decoder.parameters(), lora.targets.as_deref())?;
        let mut adapted = Vec::with_capacity(chosen.len());
        for (index, weight) in chosen.into_iter().enumerate() {
            let (output, input) = weight.tensor.dims2().at(&weight.name)?;
            let bound = 1.0 / (input as f64).sqrt();
            let down: Vec<f32> = (0..(lora.rank * input) as u64)
                .map(|at| ((2.0 * rng.uniform(index as u64, at) - 1.0) * bound) as f32)
                .collect();
            let (device, dtype) = (weight.tensor.device(), weight.tensor.dtype());
            let make = || {
                let down = Tensor::from_vec(down, (lora.rank, input), device)?.to_dtype(dtype)?;
                let up = Tensor::zeros((output, lora.rank), dtype, device)?;
                candle_core::Result::Ok(Adapter {
                    down,
                    up,
                    scale: lora.alpha / lora.rank as f64,
                })
            };
            let adapter = make().at(&weight.name)?;
            adapted.push(Adapted { weight, adapter });
        }
        let trainable: Vec<Trainable> = adapted
            .iter()
            .flat_map(|adapted| {
                let module = adapted.module();
                [("lora_A", &adapted.adapter.down), ("lora_B", &adapted.adapter.up)].map(|(factor, tensor)| Trainable {
                    name: format!("base_model.model.{module}.{factor}.weight"),
                    tensor: tensor.clone(),
                })
            })
            .collect();
        let mut learning = Learning::of(trainable.iter().map(|trainable| &trainable.tensor));
        for adapted in &adapted {
            learning.adapt(&adapted.weight.tensor, adapted.adapter.clone());
        }
        Ok(Self {
            decoder,
            trainable,
            adapted,
            learning: Rc::new(learning),
        })
    }

    pub fn tensors(&self) -> Vec<Tensor> {
        self.trainable
            .iter()
            .map(|trainable| trainable.tensor.clone())
            .collect()
    }

    /// A tape that records this model's learning.
    pub fn tape<'m>(&self) -> Tape<'m> {
        Tape::recording(self.learning.clone()).with_precision(self.decoder.precision())
    }

    /// A tape that only computes, adapters included.
    pub fn plain_tape<'m>(&self) -> Tape<'m> {
        Tape::plain(self.learning.clone()).with_precision(self.decoder.precision())
    }

    /// A weight as the learned model has it, adapter added, f32 on the CPU, in its stored orientation.
    pub fn merged(&self, parameter: &Parameter) -> candle_core::Result<Tensor> {
        let mut tensor = parameter.tensor.to_dtype(DType::F32)?;
        if let Some(adapted) = self
            .adapted
            .iter()
            .find(|adapted| adapted.weight.tensor.id() == parameter.tensor.id())
        {
            tensor = adapted.adapter.merged(&tensor)?;
        }
        if parameter.transposed {
            tensor = tensor.t()?;
        }
        tensor.to_device(&model::Device::Cpu)?.contiguous()
    }
}

impl Adapted {
    /// `model.layers.0.self_attn.q_proj`.
    pub fn module(&self) -> &str {
        self.weight.name.trim_end_matches(".weight")
    }

    /// `q_proj`.
    pub fn target(&self) -> &str {
        self.module().rsplit('.').next().unwrap_or_default()
    }
}

/// Whether a matrix belongs to a block; the biases of experts, which are one too, have no `.weight` in their names.
pub fn is_in_block(name: &str) -> bool {
    name.ends_with(".weight") && name.split('.').any(|part| part.parse::<u32>().is_ok())
}

/// The matrices of the blocks, or those whose module is named.
fn targets(parameters: &[Parameter], names: Option<&[String]>) -> Result<Vec<Parameter>> {
    let in_blocks: Vec<&Parameter> = parameters
        .iter()
        .filter(|parameter| parameter.tensor.rank() == 2 && is_in_block(&parameter.name))
        .collect();
    let module = |parameter: &Parameter| {
        parameter
            .name
            .trim_end_matches(".weight")
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_string()
    };
    if let Some(names) = names
        && let Some(unknown) = names
            .iter()
            .find(|name| in_blocks.iter().all(|parameter| module(parameter) != **name))
    {
        let mut known: Vec<String> = in_blocks.iter().map(|parameter| module(parameter)).collect();
        known.sort();
        known.dedup();
        let cause = format!("no matrix is called {unknown:?} (known: {})", known.join(", "));
        return Err(Error::usage("--lora-targets", cause));
    }
    let wanted = |parameter: &Parameter| names.is_none_or(|names| names.contains(&module(parameter)));
    Ok(in_blocks
        .into_iter()
        .filter(|parameter| wanted(parameter))
        .cloned()
        .collect())
}
