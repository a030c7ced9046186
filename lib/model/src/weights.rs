//! Where a decoder gets its parameters, whatever the format they are kept in.

use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use crate::error::Result;

/// Names and shapes → tensors: the files of a checkpoint, another format, one source laid over another, or numbers made on the
/// spot.
pub trait Source {
    /// The tensor `name`, which must have this shape, in `dtype` on `device`.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// The matrix `name` (out, in) in the blocks that it is stored in, where these are to be multiplied as they are.
    fn blocks(&self, _name: &str, _shape: [usize; 2]) -> Result<Option<Arc<QTensor>>> {
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
