//! Random weights for training from scratch, as transformers draws them.

use candle_core::Device;
use model::config::{Config, Norm};
use model::weights::Source;
use model::{DType, Tensor};
use numerics::rng::Rng;
use rayon::prelude::*;

/// Normal with this deviation for matrices and sinks, ones for norms (zeros where one is added), zeros for biases.
pub struct Initial {
    pub rng: Rng,
    pub deviation: f64,
    pub norm_weight: f32,
    pub dtype: DType,
    pub device: Device,
}

impl Initial {
    pub fn new(config: &Config, deviation: f64, seed: u64, dtype: DType, device: &Device) -> Self {
        let norm_weight = match config.norm {
            Norm::Rms { offset } => 1.0 - offset as f32,
            _ => 1.0,
        };
        Self {
            rng: Rng::new(seed, "weights"),
            deviation,
            norm_weight,
            dtype,
            device: device.clone(),
        }
    }
}

impl Source for Initial {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> model::Result<Tensor> {
        let count = shape.iter().product();
        let values: Vec<f32> = if name.ends_with("bias") {
            vec![0.0; count]
        } else if shape.len() == 1 && name.ends_with(".weight") {
            vec![self.norm_weight; count]
        } else {
            // a tensor's numbers depend on its name, not on the order in which tensors are asked for
            let unit = u64::from_str_radix(&process::sha256(name.as_bytes())[7..22], 16).unwrap_or_default();
            (0..count as u64)
                .into_par_iter()
                .map(|at| (self.rng.normal(unit, at) * self.deviation) as f32)
                .collect()
        };
        Ok(Tensor::from_vec(values, shape, &self.device)?.to_dtype(self.dtype)?)
    }
}
