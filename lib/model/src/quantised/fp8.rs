//! Eight-bit floats with scales.

use rayon::prelude::*;

use super::{Parts, bits};
use crate::error::Result;

/// `weight` times what its scale says: one number, one for each row, or one for each `block` of rows and columns.
pub fn values(parts: &Parts, shape: &[usize], block: Option<[usize; 2]>) -> Result<Option<Vec<f32>>> {
    let Some(weight) = parts.find("weight")?.filter(|weight| weight.dtype == "F8_E4M3") else {
        return Ok(None);
    };
    let bytes = parts.expect("weight", weight.dtype, shape)?;
    let name = match parts.find("weight_scale_inv")?.is_some() {
        true => "weight_scale_inv",
        false => "weight_scale",
    };
    let scale = parts.get(name)?;
    let [height, width] = [shape[0], shape[1]];
    let [tall, wide] = match (block, scale.shape) {
        (_, [] | [1] | [1, 1]) => [height, width],
        (None, [rows] | [rows, 1]) if *rows == height => [1, width],
        (Some(block), [rows, columns])
            if [*rows, *columns] == [height.div_ceil(block[0]), width.div_ceil(block[1])] =>
        {
            block
        }
        _ => return Err(parts.refuse(name, format!("has shape {:?} for {shape:?}", scale.shape))),
    };
    let columns = width.div_ceil(wide);
    let scales = parts.numbers(name, height.div_ceil(tall) * columns)?;
    let table: Vec<f32> = (0..=255).map(bits::e4m3).collect();
    let value = |(at, byte): (usize, &u8)| {
        let (row, column) = (at / width, at % width);
        table[usize::from(*byte)] * scales[row / tall * columns + column / wide]
    };
    Ok(Some(bytes.par_iter().enumerate().map(value).collect()))
}
