//! The four-bit formats of bitsandbytes, nf4 and fp4: numbers into a table, times the largest value of each run; these may be
//! quantised too.

use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Parts;
use crate::error::Result;

pub fn values(parts: &Parts, shape: &[usize]) -> Result<Option<Vec<f32>>> {
    if parts.find("weight.absmax")?.is_none() {
        return Ok(None);
    }
    let state = State::of(parts, shape)?;
    let count = shape[0] * shape[1];
    let weight = parts.get("weight")?;
    if weight.dtype != "U8" || weight.bytes.len() != count.div_ceil(2) {
        return Err(parts.refuse(
            "weight",
            format!("is {} {:?} for {shape:?}", weight.dtype, weight.shape),
        ));
    }
    let table = parts.numbers("weight.quant_map", 16)?;
    let largest = largest(parts, &state, count.div_ceil(state.run))?;
    let value = |at: usize| {
        let byte = weight.bytes[at / 2];
        let nibble = if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
        state.rounded(table[usize::from(nibble)] * largest[at / state.run])
    };
    Ok(Some((0..count).into_par_iter().map(value).collect()))
}

/// The largest value of each run.
fn largest(parts: &Parts, state: &State, count: usize) -> Result<Vec<f32>> {
    let Some((run, offset)) = state.nested else {
        return parts.numbers("weight.absmax", count);
    };
    let bytes = parts.expect("weight.absmax", "U8", &[count])?;
    let table = parts.numbers("weight.nested_quant_map", 256)?;
    let of_runs = parts.numbers("weight.nested_absmax", count.div_ceil(run))?;
    let value = |(at, byte): (usize, &u8)| table[usize::from(*byte)] * of_runs[at / run] + offset;
    Ok(bytes.iter().enumerate().map(value).collect())
}

/// What the file says of a matrix.
struct State {
    run: usize,
    dtype: String,
    /// The length of the runs of largest values, and what is added to those.
    nested: Option<(usize, f32)>,
}

impl State {
    fn of(parts: &Parts, shape: &[usize]) -> Result<Self> {
        let nf4 = "weight.quant_state.bitsandbytes__nf4";
        let part = match parts.find(nf4)?.is_some() {
            true => nf4,
            false => "weight.quant_state.bitsandbytes__fp4",
        };
        let refuse = |cause: &str| parts.refuse(part, cause.into());
        let map = json::document(parts.get(part)?.bytes).map_err(|cause| refuse(&cause.to_string()))?;
        let size = |key: &str| {
            let size = map
                .get(key)
                .and_then(Value::as_u64)
                .and_then(|size| usize::try_from(size).ok());
            size.filter(|size| *size > 0)
                .ok_or_else(|| refuse(&format!("says no {key}")))
        };
        if map.get("shape") != Some(&json!(shape)) {
            return Err(refuse(&format!("is of another shape than {shape:?}")));
        }
        let nested = match map.contains_key("nested_blocksize") {
            false => None,
            true => {
                let offset = map.get("nested_offset").and_then(Value::as_f64);
                Some((
                    size("nested_blocksize")?,
                    offset.ok_or_else(|| refuse("says no nested_offset"))? as f32,
                ))
            }
        };
        Ok(Self {
            run: size("blocksize")?,
            dtype: map.get("dtype").and_then(Value::as_str).unwrap_or_default().to_owned(),
            nested,
        })
    }

    /// In the type that the matrix had.
    fn rounded(&self, value: f32) -> f32 {
        match self.dtype.as_str() {
            "bfloat16" => bf16::from_f32(value).to_f32(),
            "float16" => f16::from_f32(value).to_f32(),
            _ => value,
        }
    }
}
