//! Where a decoder gets its parameters, whatever the format they are kept in.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::bf16;
use products::Rows;

use crate::error::Result;

/// How matrices are held that are stored in fewer bits than are computed in. No bit of a result depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// As numbers of the type that is computed in.
    #[default]
    Dequantised,
    /// As they are stored.
    AsStored,
}

/// A matrix (out, in) that stays as it is stored: its rows become numbers as they are multiplied. It does not learn.
pub trait Matrix: Rows<f32> + Rows<bf16> + Debug + Send {}

impl<M: Rows<f32> + Rows<bf16> + Debug + Send> Matrix for M {}

/// Names and shapes → tensors: the files of a checkpoint, another format, one source laid over another, or numbers made on the
/// spot.
pub trait Source {
    /// The tensor `name`, which must have this shape, in `dtype` on `device`.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// The matrix `name` (out, in) as it is stored, where it is to stay so.
    fn matrix(&self, _name: &str, _shape: [usize; 2]) -> Result<Option<Arc<dyn Matrix>>> {
        Ok(None)
    }

    fn dtype(&self) -> DType;

    fn device(&self) -> &Device;

    /// Refuses what is stored and was not asked for: half a model, or another one. A source that stores nothing has nothing to
    /// refuse.
    fn refuse_unused(&self, _asked: &[&str]) -> Result<()> {
        Ok(())
    }

    /// The bytes of every file it reads from, in a fixed order: what a model's digest covers.
    fn files(&self) -> Vec<&[u8]> {
        Vec::new()
    }
}
