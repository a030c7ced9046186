//! The angles of rotary positions.

use std::sync::RwLock;

use candle_core::{Device, Result, Tensor};

use crate::config::{Rope, RopeScaling};

/// The cosines and sines of every position so far, grown on demand.
#[derive(Debug)]
pub(crate) struct RopeTable {
    frequencies: Vec<f32>,
    /// Multiplies cosine and sine (LongRope, YaRN).
    amplitude: f64,
    /// (positions, half) each
    table: RwLock<Option<(Tensor, Tensor)>>,
    device: Device,
}

impl RopeTable {
    pub fn new(rope: &Rope, device: &Device) -> Self {
        // in f32, step by step, as transformers computes them: one unit in the last place of a frequency is 1e-4 of an
        // angle at position 2,000
        let power = |index: usize| rope.theta.powf(2.0 * index as f64 / rope.dims as f64) as f32;
        let plain = (0..rope.dims / 2).map(|index| 1.0 / power(index));
        let (frequencies, amplitude) = match &rope.scaling {
            RopeScaling::None => (plain.collect(), 1.0),
            RopeScaling::Linear { factor } => (plain.map(|f| f / *factor as f32).collect(), 1.0),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_positions,
            } => {
                let [factor, low, high] = [*factor, *low_freq_factor, *high_freq_factor].map(|x| x as f32);
                let stretched = |f| stretched(f, factor, low, high, *original_positions as f32);
                (plain.map(stretched).collect(), 1.0)
            }
            RopeScaling::LongRope {
                short_factor,
                attention_factor,
            } => {
                let scaled = |(index, short): (usize, &f64)| 1.0 / (*short as f32 * power(index));
                (short_factor.iter().enumerate().map(scaled).collect(), *attention_factor)
            }
            RopeScaling::Yarn {
                factor,
                ramp: (low, high),
                attention_factor,
            } => {
                let mixed = |(index, kept): (usize, f32)| {
                    let slowed = 1.0 / (*factor as f32 * power(index));
                    let share = 1.0 - ((index as f32 - *low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    slowed * (1.0 - share) + kept * share
                };
                (plain.enumerate().map(mixed).collect(), *attention_factor)
            }
        };
        Self {
            frequencies,
            amplitude,
            table: RwLock::new(None),
            device: device.clone(),
        }
    }

    /// The rows of `positions`: cosine and sine, (rows, half) each, f32.
    pub fn rows(&self, positions: &[u32]) -> Result<(Tensor, Tensor)> {
        let needed = positions.iter().max().map_or(0, |&last| last as usize + 1);
        let held = self
            .table
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        let (cos, sin) = match held {
            Some(tables) if tables.0.dim(0)? >= needed => tables,
            _ => {
                let tables = self.compute(needed.next_power_of_two())?;
                *self.table.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(tables.clone());
                tables
            }
        };
        let positions = Tensor::from_slice(positions, positions.len(), &self.device)?;
        Ok((cos.index_select(&positions, 0)?, sin.index_select(&positions, 0)?))
    }

    fn compute(&self, positions: usize) -> Result<(Tensor, Tensor)> {
        let half = self.frequencies.len();
        let angles = (0..positions).flat_map(|position| self.frequencies.iter().map(move |f| position as f32 * f));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles
            .map(|angle| {
                let (sin, cos) = f64::from(angle).sin_cos();
                (
                    (cos as f32) * self.amplitude as f32,
                    (sin as f32) * self.amplitude as f32,
                )
            })
            .unzip();
        Ok((
            Tensor::from_vec(cos, (positions, half), &self.device)?,
            Tensor::from_vec(sin, (positions, half), &self.device)?,
        ))
    }
}

/// Llama 3's frequencies: waves longer than the trained context are slowed by `factor`, short ones kept, those between
/// mixed.
fn stretched(frequency: f32, factor: f32, low: f32, high: f32, original: f32) -> f32 {
    let wavelength = 2.0 * std::f32::consts::PI / frequency;
    if wavelength < original / high {
        frequency
    } else if wavelength > original / low {
        frequency / factor
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}
