//! Rows of a device folded into second moments, about a shift near their mean.

use candle_core::{Error, Result};
use model::Tensor;
use ndarray::Array2;
use numerics::shifted::Shifted;

pub struct Folded {
    pub shift: Tensor, // (1, d)
    pub sums: Shifted,
}

impl Folded {
    pub fn about(shift: Tensor) -> Result<Self> {
        Ok(Self {
            sums: Shifted::new(&vector(&shift.squeeze(0)?)?),
            shift,
        })
    }

    pub fn add(&mut self, rows: &Tensor) -> Result<()> {
        let shifted = rows.broadcast_sub(&self.shift)?;
        let second = matrix(&shifted.t()?.matmul(&shifted)?)?;
        self.sums.add(rows.dim(0)?, &vector(&shifted.sum(0)?)?, second.view());
        Ok(())
    }
}

pub fn vector(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_vec1()
}

pub fn matrix(tensor: &Tensor) -> Result<Array2<f32>> {
    let values = vector(&tensor.flatten_all()?)?;
    Array2::from_shape_vec(tensor.dims2()?, values).map_err(Error::wrap)
}

pub fn matrix64(tensor: &Tensor) -> Result<Array2<f64>> {
    let values = tensor.flatten_all()?.to_vec1()?;
    Array2::from_shape_vec(tensor.dims2()?, values).map_err(Error::wrap)
}
