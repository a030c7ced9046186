//! Slices of CPU tensors, fresh buffers, and the element-wise loops every operation shares.
//!
//! Work is cut into chunks of a fixed size, never by the number of threads, so that results have the same bits on any machine width.

use std::borrow::Cow;
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;

use candle_core::{
    CpuStorage, CustomOp1, DType, Device, Error, InplaceOp1, Layout, Result, Shape, Storage, StorageRef, Tensor,
    WithDType,
};
use half::bf16;
use products::{narrowed, wide, widened};
use rayon::prelude::*;

/// Elements per parallel task of an element-wise loop.
pub(super) const CHUNK: usize = 32 * 1024;

thread_local! {
    static THROUGH_CANDLE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the own kernels apply: anything else goes through candle's operations.
pub(crate) fn is_host(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && !THROUGH_CANDLE.get()
}

/// Does `work` on the CPU the way every other device does it, through candle's operations: tests on a machine without such a
/// device hold that way to the same goldens.
pub fn through_candle<T>(work: impl FnOnce() -> T) -> T {
    THROUGH_CANDLE.set(true);
    let done = work();
    THROUGH_CANDLE.set(false);
    done
}

/// The tensor as contiguous f32, converted only when it is not.
pub(super) fn wide(tensor: &Tensor) -> Result<Cow<'_, Tensor>> {
    if tensor.dtype() == DType::F32 && tensor.is_contiguous() {
        return Ok(Cow::Borrowed(tensor));
    }
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::BF16(values)), Some((start, end))) => {
            let wide = products::widen(&values[start..end]);
            Ok(Cow::Owned(Tensor::from_vec(wide, tensor.shape(), tensor.device())?))
        }
        _ => Ok(Cow::Owned(tensor.to_dtype(DType::F32)?)),
    }
}

/// f32 values as a CPU tensor of another type, rounded to nearest.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::BF16 => Tensor::from_vec(products::narrow(&values), shape.into(), &Device::Cpu),
        _ => Tensor::from_vec(values, shape.into(), &Device::Cpu)?.to_dtype(dtype),
    }
}

/// The elements of a contiguous CPU tensor.
pub(super) struct View<'a, T = f32> {
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
    number: PhantomData<T>,
}

pub(super) fn view(tensor: &Tensor) -> Result<View<'_>> {
    view_of(tensor)
}

/// As [`view`], of another number type.
pub(super) fn view_of<T: Number>(tensor: &Tensor) -> Result<View<'_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::Msg("a strided tensor where a contiguous one belongs".into()));
    };
    if T::slice(&storage).is_none() {
        return Err(Error::Msg(format!(
            "a tensor of {:?} on the CPU belongs here",
            T::DTYPE
        )));
    }
    Ok(View {
        storage,
        start,
        end,
        number: PhantomData,
    })
}

impl<T: Number> Deref for View<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match T::slice(&self.storage) {
            Some(values) => &values[self.start..self.end],
            None => unreachable!("checked when the view was taken"),
        }
    }
}

/// A number type of the CPU's own products.
pub(super) trait Number: products::Operand + WithDType {
    fn slice(storage: &Storage) -> Option<&[Self]>;
}

impl Number for f32 {
    fn slice(storage: &Storage) -> Option<&[Self]> {
        match storage {
            Storage::Cpu(CpuStorage::F32(values)) => Some(values),
            _ => None,
        }
    }
}

impl Number for bf16 {
    fn slice(storage: &Storage) -> Option<&[Self]> {
        match storage {
            Storage::Cpu(CpuStorage::BF16(values)) => Some(values),
            _ => None,
        }
    }
}

/// A vector of `len` elements that `write` initialises.
///
/// # Safety
/// `write` must initialise every element.
pub(super) unsafe fn fresh<T>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is `len` and the caller initialises all of it.
    unsafe { values.set_len(len) };
    values
}

/// `f` of every element.
pub(super) fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    // SAFETY: the zip of equally cut chunks covers every element.
    unsafe {
        fresh(x.len(), |out| {
            out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
                wide!({
                    for (out, &x) in out.iter_mut().zip(x) {
                        out.write(f(x));
                    }
                });
            });
        })
    }
}

/// `f` of every pair of elements.
pub(super) fn zip<T: Number>(x: &[T], y: &[T], f: impl Fn(T, T) -> T + Sync) -> Vec<T> {
    assert_eq!(x.len(), y.len());
    // SAFETY: the zip of equally cut, equally long chunks covers every element.
    unsafe {
        fresh(x.len(), |out| {
            out.par_chunks_mut(CHUNK)
                .zip(x.par_chunks(CHUNK))
                .zip(y.par_chunks(CHUNK))
                .for_each(|((out, x), y)| {
                    wide!({
                        for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
                            out.write(f(x, y));
                        }
                    });
                });
        })
    }
}

/// `into += other`, in parallel.
pub(super) fn add_into(into: &mut [f32], other: &[f32]) {
    assert_eq!(into.len(), other.len());
    into.par_chunks_mut(CHUNK)
        .zip(other.par_chunks(CHUNK))
        .for_each(|(into, other)| {
            wide!({
                for (into, &other) in into.iter_mut().zip(other) {
                    *into += other;
                }
            });
        });
}

/// A new tensor `a + b`.
pub(super) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match a.dtype() {
        DType::F32 if is_host(a) => sum_by(a, &*wide(b)?, |a: f32, b| a + b),
        // candle's own loop over bf16 takes longer than the products beside it
        DType::BF16 if is_host(a) => sum_by(a, b, |a, b| narrowed(widened(a) + widened(b))),
        _ => a.add(b),
    }
}

fn sum_by<T: Number>(a: &Tensor, b: &Tensor, plus: impl Fn(T, T) -> T + Sync) -> Result<Tensor> {
    let (near, other) = (a.contiguous()?, b.contiguous()?);
    let values = zip(&view_of(&near)?, &view_of(&other)?, plus);
    Tensor::from_vec(values, a.shape(), a.device())
}

/// `into += other`: in its storage, which nobody else may hold, or anew where that is not plain f32 memory.
pub(super) fn add_in_place(into: &mut Tensor, other: &Tensor) -> Result<()> {
    if !is_host(into) || into.dtype() != DType::F32 || !into.is_contiguous() {
        *into = sum(into, &other.to_dtype(into.dtype())?)?;
        return Ok(());
    }
    let other = wide(other)?;
    let other = view(&other)?;
    update(into, |into| add_into(into, &other))
}

/// Changes the elements of a contiguous f32 CPU tensor in its storage, which nobody may be reading.
pub(crate) fn update(tensor: &Tensor, change: impl FnOnce(&mut [f32])) -> Result<()> {
    tensor.inplace_op1(&Update(Cell::new(Some(change))))
}

struct Update<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        "update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end)), Some(change)) =
            (storage, layout.contiguous_offsets(), self.0.take())
        else {
            return Err(Error::Msg("only a contiguous f32 tensor is changed in place".into()));
        };
        change(&mut values[start..end]);
        Ok(())
    }
}

/// A scalar whose gradient with respect to its input is exactly the tensor inside: how a given gradient starts candle's own backward pass.
pub(super) struct Seed(pub Tensor);

impl CustomOp1 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
