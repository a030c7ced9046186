//! The matrix product with a weight, frozen or learning, with or without a low-rank adapter.

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};
pub use products::STEADY_ROWS;
use products::{Product, matrix, strided_mut};
use rayon::prelude::*;

use super::tape::Place;
use super::{Tape, add, cpu, scale};

/// `x · wᵀ + bias`; x (rows, in), w (out, in), bias (out) → (rows, out). An adapter that the tape holds for `w` is added.
/// A frozen weight costs no gradient and no memory.
pub fn linear(tape: &Tape, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let output = forward(x, w, bias, tape.is_steady())?;
    if tape.tracks_any(&[Some(x), Some(w), bias].into_iter().flatten().collect::<Vec<_>>()) {
        // the input's values are kept only for the weight's gradient
        let kept = tape.learns(w).then(|| x.clone());
        let (x, w, bias) = (Place::of(x), w.clone(), bias.cloned());
        tape.record("linear", &output, move |gradient, backward| {
            if let Some(bias) = bias.filter(|bias| backward.learns(bias)) {
                backward.send(&bias, gradient.to_dtype(DType::F32)?.sum(0)?)?;
            }
            if let Some(x) = kept {
                weight_gradient(backward.gradients, &w, &gradient, &x)?;
            }
            if backward.wants(&x) {
                let product = if cpu::is_host(&w) {
                    input_gradient(&gradient, &w)?
                } else {
                    gradient.matmul(&w)?
                };
                backward.send(&x, product)?;
            }
            Ok(())
        });
    }
    match tape.adapter(w).cloned() {
        None => Ok(output),
        Some(adapter) => {
            let low = linear(tape, x, &adapter.down, None)?; // (rows, rank)
            let low = scale(tape, &low, adapter.scale)?;
            add(tape, &output, &linear(tape, &low, &adapter.up, None)?)
        }
    }
}

fn forward(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, steady: bool) -> Result<Tensor> {
    let (rows, k) = x.dims2()?;
    let (n, _) = w.dims2()?;
    if !cpu::is_host(x) {
        let y = x.matmul(&w.t()?)?.detach();
        return match bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        };
    }
    let dtype = x.dtype();
    let mut y = match by_own_kernels(x, w, steady)? {
        Some(y) => y,
        None => {
            let (x, w) = (cpu::wide(x)?, cpu::wide(w)?);
            let (x_values, w_values) = (cpu::view(&x)?, cpu::view(&w)?);
            if w_values.len() != n * k {
                return Err(candle_core::Error::Msg(format!(
                    "linear of {:?} by {:?}",
                    x.shape(),
                    w.shape()
                )));
            }
            let (x, w) = (matrix(&x_values, rows, k), matrix(&w_values, n, k));
            Product::of(x, w.reversed_axes()).in_parallel().to_vec()
        }
    };
    if let Some(bias) = bias {
        let bias = cpu::wide(bias)?;
        let bias = cpu::view(&bias)?;
        y.par_chunks_exact_mut(n)
            .for_each(|y| y.iter_mut().zip(bias.iter()).for_each(|(y, bias)| *y += bias));
    }
    cpu::tensor(y, (rows, n), dtype)
}

/// The product by a kernel for weights, where the processor has one for the types and the shapes.
fn by_own_kernels(x: &Tensor, w: &Tensor, steady: bool) -> Result<Option<Vec<f32>>> {
    let (k, width) = (x.dim(1)?, w.dim(1)?);
    if k != width || x.dtype() != w.dtype() {
        return Ok(None);
    }
    let x = x.contiguous()?;
    let ((x_storage, x_layout), (w_storage, w_layout)) = (x.storage_and_layout(), w.storage_and_layout());
    let (Some((x_start, x_end)), Some((w_start, w_end))) =
        (x_layout.contiguous_offsets(), w_layout.contiguous_offsets())
    else {
        return Ok(None);
    };
    Ok(match (&*x_storage, &*w_storage) {
        (Storage::Cpu(CpuStorage::F32(x)), Storage::Cpu(CpuStorage::F32(w))) => {
            products::by_rows(&x[x_start..x_end], &w[w_start..w_end], k, steady)
        }
        (Storage::Cpu(CpuStorage::BF16(x)), Storage::Cpu(CpuStorage::BF16(w))) => {
            products::by_rows(&x[x_start..x_end], &w[w_start..w_end], k, steady)
        }
        _ => None,
    })
}

/// gradient (rows, out) · w (out, in) → (rows, in).
fn input_gradient(gradient: &Tensor, w: &Tensor) -> Result<Tensor> {
    let ((rows, n), k) = (gradient.dims2()?, w.dim(1)?);
    let dtype = gradient.dtype();
    let (gradient, w) = (cpu::wide(gradient)?, cpu::wide(w)?);
    let (gradient_values, w_values) = (cpu::view(&gradient)?, cpu::view(&w)?);
    let product = Product::of(matrix(&gradient_values, rows, n), matrix(&w_values, n, k));
    let values = product.in_parallel().to_vec();
    cpu::tensor(values, (rows, k), dtype)
}

/// Adds gradientᵀ (out, rows) · x (rows, in) to the weight's gradient.
fn weight_gradient(gradients: &mut super::Gradients, w: &Tensor, gradient: &Tensor, x: &Tensor) -> Result<()> {
    if !cpu::is_host(w) {
        return gradients.add(w.id(), &gradient.t()?.matmul(x)?);
    }
    let ((rows, n), k) = (gradient.dims2()?, x.dim(1)?);
    let (gradient, x) = (cpu::wide(gradient)?, cpu::wide(x)?);
    let (gradient, x) = (cpu::view(&gradient)?, cpu::view(&x)?);
    let (into, held) = gradients.buffer(w.id(), n * k);
    let product = Product::of(matrix(&gradient, rows, n).reversed_axes(), matrix(&x, rows, k)).in_parallel();
    let into = strided_mut(into, n, k, k);
    match held {
        true => product.add_to(into),
        false => product.fill(into),
    }
    Ok(())
}
