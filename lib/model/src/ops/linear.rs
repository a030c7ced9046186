//! The matrix product with a weight, frozen or learning, with or without a low-rank adapter.

use candle_core::{DType, Device, Error, Result, Tensor};
use half::bf16;
pub use products::STEADY_ROWS;
use products::{ArrayView2, How, MixedProduct, Rows, matrix, strided_mut};

use super::cpu::Number;
use super::tape::Place;
use super::{Gradients, Tape, add, cpu, scale};
use crate::weights::Matrix;

/// `x · wᵀ + bias`; x (rows, in), w (out, in), bias (out) → (rows, out). An adapter that the tape holds for `w` is added.
/// A frozen weight costs no gradient and no memory.
pub fn linear(tape: &Tape, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let output = forward(tape, x, w, bias)?;
    if tape.tracks_any(&[Some(x), Some(w), bias].into_iter().flatten().collect::<Vec<_>>()) {
        // the input's values are kept only for the weight's gradient
        let kept = tape.learns(w).then(|| x.clone());
        let (x, w, bias, how) = (Place::of(x), w.clone(), bias.cloned(), tape.how());
        tape.record("linear", &output, move |gradient, backward| {
            if let Some(bias) = bias.filter(|bias| backward.learns(bias)) {
                backward.send(&bias, gradient.to_dtype(DType::F32)?.sum(0)?)?;
            }
            if let Some(x) = kept {
                weight_gradient(backward.gradients, &w, &gradient, &x, how)?;
            }
            if backward.wants(&x) {
                let product = if cpu::is_host(&w) {
                    multiply(&gradient, Side::AsItLies(&w), None, how)?
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

pub(super) fn forward(tape: &Tape, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !cpu::is_host(x) {
        let y = x.matmul(&w.t()?)?.detach();
        return match bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        };
    }
    if x.dims2()?.1 != w.dims2()?.1 {
        return Err(Error::Msg(format!("linear of {:?} by {:?}", x.shape(), w.shape())));
    }
    let bias = bias.map(cpu::wide).transpose()?;
    let bias = bias.as_deref().map(cpu::view).transpose()?;
    multiply(x, Side::Turned(w), bias.as_deref(), tape.how())
}

/// [`linear`] of a weight that stays as it is stored: the bits are those of its numbers. No gradient passes.
pub(crate) fn linear_stored(tape: &Tape, x: &Tensor, w: &dyn Matrix, bias: Option<&Tensor>) -> Result<Tensor> {
    if tape.is_recording() {
        return Err(Error::Msg("a weight as it is stored has no gradient".into()));
    }
    let bias = bias.map(cpu::wide).transpose()?;
    let bias = bias.as_deref().map(cpu::view).transpose()?;
    let x = x.contiguous()?;
    match x.dtype() {
        DType::F32 => product_of_rows::<f32>(&x, w, bias.as_deref(), tape.how()),
        DType::BF16 => product_of_rows::<bf16>(&x, w, bias.as_deref(), tape.how()),
        dtype => Err(Error::Msg(format!(
            "a weight as it is stored is not multiplied in {dtype:?}"
        ))),
    }
}

fn product_of_rows<T: Number>(x: &Tensor, w: &dyn Rows<T>, bias: Option<&[f32]>, how: How) -> Result<Tensor> {
    let (rows, k) = x.dims2()?;
    if k != w.dim().1 {
        return Err(Error::Msg(format!("linear of {:?} by {:?}", x.shape(), w.dim())));
    }
    let x = cpu::view_of::<T>(x)?;
    let product = MixedProduct::of_rows(matrix(&x, rows, k), w, how).with_bias(bias);
    Tensor::from_vec(product.to_vec(), product.dim(), &Device::Cpu)
}

/// The right side of a product.
#[derive(Clone, Copy)]
pub(super) enum Side<'a> {
    AsItLies(&'a Tensor),
    Turned(&'a Tensor),
}

impl<'a> Side<'a> {
    fn tensor(self) -> &'a Tensor {
        match self {
            Self::AsItLies(tensor) | Self::Turned(tensor) => tensor,
        }
    }

    fn matrix<T>(self, numbers: &[T]) -> Result<ArrayView2<'_, T>> {
        let (rows, columns) = self.tensor().dims2()?;
        let matrix = matrix(numbers, rows, columns);
        Ok(match self {
            Self::AsItLies(_) => matrix,
            Self::Turned(_) => matrix.reversed_axes(),
        })
    }
}

/// left (rows, k) · right (k, columns) + bias on the CPU, in the type of `left`; where both are bf16 they are multiplied as such.
pub(super) fn multiply(left: &Tensor, right: Side, bias: Option<&[f32]>, how: How) -> Result<Tensor> {
    if (left.dtype(), right.tensor().dtype()) == (DType::BF16, DType::BF16) {
        let (left, numbers) = (left.contiguous()?, right.tensor().contiguous()?);
        return product::<bf16>(&left, right, &numbers, bias, how);
    }
    let (wide, numbers) = (cpu::wide(left)?, cpu::wide(right.tensor())?);
    let product = product::<f32>(&wide, right, &numbers, bias, how)?;
    match left.dtype() {
        DType::F32 => Ok(product),
        dtype => product.to_dtype(dtype),
    }
}

/// `numbers` are those of `right`, without gaps.
fn product<T: Number>(left: &Tensor, right: Side, numbers: &Tensor, bias: Option<&[f32]>, how: How) -> Result<Tensor> {
    let (rows, k) = left.dims2()?;
    let (left, numbers) = (cpu::view_of::<T>(left)?, cpu::view_of::<T>(numbers)?);
    let product = MixedProduct::of(matrix(&left, rows, k), right.matrix(&numbers)?, how).with_bias(bias);
    Tensor::from_vec(product.to_vec(), product.dim(), &Device::Cpu)
}

/// Adds gradientᵀ (out, rows) · x (rows, in) to the weight's gradient.
fn weight_gradient(gradients: &mut Gradients, w: &Tensor, gradient: &Tensor, x: &Tensor, how: How) -> Result<()> {
    if !cpu::is_host(w) {
        return gradients.add(w.id(), &gradient.t()?.matmul(x)?);
    }
    let (into, held) = gradients.buffer(w.id(), w.elem_count());
    add_product(into, held, gradient, x, how)
}

/// Adds gradientᵀ · x to what `into` holds, if it holds anything.
pub(super) fn add_product(into: &mut [f32], held: bool, gradient: &Tensor, x: &Tensor, how: How) -> Result<()> {
    if (gradient.dtype(), x.dtype()) == (DType::BF16, DType::BF16) {
        return add_product_of::<bf16>(into, held, &gradient.contiguous()?, &x.contiguous()?, how);
    }
    let (gradient, x) = (cpu::wide(gradient)?, cpu::wide(x)?);
    add_product_of::<f32>(into, held, &gradient, &x, how)
}

/// The same of one type without gaps.
fn add_product_of<T: Number>(into: &mut [f32], held: bool, gradient: &Tensor, x: &Tensor, how: How) -> Result<()> {
    let ((rows, n), k) = (gradient.dims2()?, x.dim(1)?);
    let (gradient, x) = (cpu::view_of::<T>(gradient)?, cpu::view_of::<T>(x)?);
    let product = MixedProduct::of(matrix(&gradient, rows, n).reversed_axes(), matrix(&x, rows, k), how);
    product.write(held, strided_mut(into, n, k, k));
    Ok(())
}
