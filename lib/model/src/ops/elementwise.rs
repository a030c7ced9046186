//! What connects the other operations: rows of a table, sums, scaling, views.

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;
use products::Rows;

use super::cpu::Number;
use super::tape::Place;
use super::{Tape, cpu};
use crate::weights::Matrix;

/// The rows `token_ids` of `table` (vocabulary, hidden) → (rows, hidden). The caller has checked the ids.
pub fn embedding(tape: &Tape, table: &Tensor, token_ids: &[u32]) -> Result<Tensor> {
    let ids = Tensor::from_slice(token_ids, token_ids.len(), table.device())?;
    let output = table.index_select(&ids, 0)?.detach();
    if tape.learns(table) {
        let (table, token_ids) = (table.clone(), token_ids.to_vec());
        tape.record("embedding", &output, move |gradient, backward| {
            if !cpu::is_host(&table) {
                let zero = Tensor::zeros(table.shape(), DType::F32, table.device())?;
                return backward
                    .gradients
                    .add(table.id(), &zero.index_add(&ids, &gradient.to_dtype(DType::F32)?, 0)?);
            }
            let gradient = cpu::wide(&gradient)?;
            let gradient = cpu::view(&gradient)?;
            let width = table.dim(1)?;
            let into = backward.gradients.sum(&table);
            for (&id, row) in token_ids.iter().zip(gradient.chunks_exact(width)) {
                let into = &mut into[id as usize * width..][..width];
                into.iter_mut().zip(row).for_each(|(into, row)| *into += row);
            }
            Ok(())
        });
    }
    Ok(output)
}

/// The same of a table that stays as it is stored.
pub(crate) fn embedding_stored(table: &dyn Matrix, token_ids: &[u32], dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::BF16 => rows_of::<bf16>(table, token_ids),
        _ => rows_of::<f32>(table, token_ids)?.to_dtype(dtype),
    }
}

fn rows_of<T: Number>(table: &dyn Rows<T>, ids: &[u32]) -> Result<Tensor> {
    let width = table.dim().1;
    let mut rows = vec![T::of(0.0); ids.len() * width];
    for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(width)) {
        table.write(id as usize..id as usize + 1, row);
    }
    Tensor::from_vec(rows, (ids.len(), width), &Device::Cpu)
}

/// The rows of two matrices in one: row i of a part becomes row `places[i]`. The places name every row of the whole once.
pub fn interleave(tape: &Tape, parts: [&Tensor; 2], places: [&[usize]; 2]) -> Result<Tensor> {
    let places = places.map(|places| places.iter().map(|&at| at as u32).collect::<Vec<_>>());
    let mut order = vec![0; places[0].len() + places[1].len()];
    for (row, &at) in places.iter().flatten().enumerate() {
        order[at as usize] = row as u32;
    }
    let device = parts[0].device();
    let both = Tensor::cat(&parts.map(Tensor::detach), 0)?;
    let output = both.index_select(&Tensor::new(order, device)?, 0)?;
    if tape.tracks_any(&parts) {
        let parts = parts.map(Place::of);
        tape.record("interleave", &output, move |gradient, backward| {
            for (part, places) in parts.iter().zip(places) {
                let rows = Tensor::new(places, gradient.device())?;
                backward.send(part, gradient.index_select(&rows, 0)?)?;
            }
            Ok(())
        });
    }
    Ok(output)
}

/// `a + b` of equal shapes.
pub fn add(tape: &Tape, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let output = cpu::sum(a, b)?;
    if tape.tracks_any(&[a, b]) {
        let (a, b) = (Place::of(a), Place::of(b));
        tape.record("add", &output, move |gradient, backward| {
            backward.share(&a, &gradient)?;
            backward.share(&b, &gradient)
        });
    }
    Ok(output)
}

/// `x · factor`.
pub fn scale(tape: &Tape, x: &Tensor, factor: f64) -> Result<Tensor> {
    // in f32, also where neither the numbers nor the factor are kept in it
    let scaled = move |x: &Tensor, dtype| (x.to_dtype(DType::F32)? * factor)?.to_dtype(dtype);
    let output = scaled(&x.detach(), x.dtype())?;
    if tape.tracks(x) {
        let x = Place::of(x);
        tape.record("scale", &output, move |gradient, backward| {
            backward.send(&x, scaled(&gradient, gradient.dtype())?)
        });
    }
    Ok(output)
}

/// Each row of `x` (rows, heads, head_dim) times its own factor; `factors` (rows, 1, 1) in f32.
pub fn scale_rows(tape: &Tape, x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let factors = factors.clone();
    let scaled = move |x: &Tensor| x.to_dtype(DType::F32)?.broadcast_mul(&factors)?.to_dtype(x.dtype());
    let output = scaled(&x.detach())?;
    if tape.tracks(x) {
        let x = Place::of(x);
        tape.record("scale_rows", &output, move |gradient, backward| {
            backward.send(&x, scaled(&gradient)?)
        });
    }
    Ok(output)
}

/// `x` within ±limit; a gradient passes where `x` lies inside, the border included.
pub fn clamp(tape: &Tape, x: &Tensor, limit: f64) -> Result<Tensor> {
    let output = x.detach().clamp(-limit, limit)?;
    if tape.tracks(x) {
        let x = x.clone();
        tape.record("clamp", &output, move |gradient, backward| {
            let inside = x.abs()?.le(limit)?.to_dtype(gradient.dtype())?;
            backward.send(&x, (gradient * inside)?)
        });
    }
    Ok(output)
}

/// The same elements in another shape.
pub fn reshape(tape: &Tape, x: &Tensor, shape: impl candle_core::shape::ShapeWithOneHole) -> Result<Tensor> {
    let output = x.reshape(shape)?.detach();
    if tape.tracks(x) {
        let (x, before) = (Place::of(x), x.shape().clone());
        tape.record("reshape", &output, move |gradient, backward| {
            backward.share(&x, &gradient.reshape(before)?)
        });
    }
    Ok(output)
}

/// `len` entries of dimension `dim` from `start`, contiguous.
pub fn narrow(tape: &Tape, x: &Tensor, dim: usize, start: usize, len: usize) -> Result<Tensor> {
    let output = x.narrow(dim, start, len)?.contiguous()?.detach();
    if tape.tracks(x) {
        let (x, after) = (Place::of(x), x.dim(dim)? - start - len);
        tape.record("narrow", &output, move |gradient, backward| {
            backward.send(&x, gradient.pad_with_zeros(dim, start, after)?)
        });
    }
    Ok(output)
}
