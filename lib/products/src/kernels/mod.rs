//! `x · wᵀ` where both lie row by row, as a weight does: kernels of our own, where the processor has one.
//!
//! A kernel is a file here and an entry of [`KERNELS`]. Every one sums an output over k in one fixed order, whatever the number of
//! threads; two of them may differ in the last bits.

#[cfg(target_arch = "x86_64")]
pub mod blocks;
#[cfg(target_arch = "x86_64")]
mod few;
#[cfg(target_arch = "x86_64")]
mod narrow;
#[cfg(target_arch = "x86_64")]
mod panels;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod transpose;
#[cfg(target_arch = "x86_64")]
mod turned;

#[cfg(target_arch = "x86_64")]
use std::borrow::Cow;
use std::ops::Range;

use half::bf16;
use ndarray::{Array2, ArrayView2, CowArray, Ix2};
use rayon::prelude::*;

use crate::dense::Target;
use crate::precision::{How, Precision};
use crate::rounding::{narrow, narrowed, widen, widened};
use crate::rows::{Right, Rows};
use crate::wide;
#[cfg(target_arch = "x86_64")]
use turned::Turned;

/// Up to this many rows a processor with AVX2 alone takes the kernel for few rows, and panels beyond: among as many, and under `steady` at any
/// number, a row's bits do not depend on the rows beside it.
pub const STEADY_ROWS: usize = 32;

/// In order of preference.
#[cfg(target_arch = "x86_64")]
const KERNELS: &[Kernel] = &[
    few::WIDE,
    panels::KERNEL,
    few::WIDENED,
    panels::WIDENED,
    few::NARROW,
    narrow::KERNEL,
];
#[cfg(not(target_arch = "x86_64"))]
const KERNELS: &[Kernel] = &[];

/// Rows that a thread makes at a time where all are needed.
const PART: usize = 32;

struct Kernel {
    /// The family it belongs to, where this processor can multiply such units.
    family: fn(Unit) -> Option<&'static str>,
    /// Whether it is for so many rows of x, and for products whose rows' bits must not depend on their number.
    takes: fn(row_count: usize, steady: bool) -> bool,
    /// Writes the product to a target, which may be uninitialised.
    ///
    /// # Safety
    /// The kernel has a family for the unit; all of the target's (rows, columns) are there and nobody else touches them meanwhile.
    multiply: unsafe fn(Operands<'_>, Target<f32>),
}

/// What a 32-bit unit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    F32,
    /// Two neighbours along k.
    Bf16Pair,
}

/// x (rows, k) and w (columns, k), without gaps; k counts 32-bit units.
#[derive(Clone, Copy)]
struct Operands<'a> {
    unit: Unit,
    x: &'a [u32],
    w: Weight<'a>,
    k: usize,
    column_count: usize,
}

/// The rows of w, in units.
#[derive(Clone, Copy)]
enum Weight<'a> {
    Lies(&'a [u32]),
    Made(&'a dyn Rows<u32>),
    #[cfg(target_arch = "x86_64")]
    Turned(Turned<'a>),
}

/// Rows of numbers as rows of units.
struct InUnits<'a, T>(&'a dyn Rows<T>);

impl<T: Operand> Rows<u32> for InUnits<'_, T> {
    fn dim(&self) -> (usize, usize) {
        let (rows, k) = self.0.dim();
        (rows, k / T::PER_UNIT)
    }

    fn write(&self, rows: Range<usize>, into: &mut [u32]) {
        self.0.write(rows, bytemuck::cast_slice_mut(into));
    }

    fn multiply(&self, rows: Range<usize>, x: &[f32], lanes: usize, into: &mut [f32]) -> bool {
        self.0.multiply(rows, x, lanes, into)
    }
}

impl<'a> Operands<'a> {
    fn new(unit: Unit, x: &'a [u32], w: Weight<'a>, k: usize) -> Self {
        let is_whole = |len: usize| k > 0 && len.is_multiple_of(k);
        let column_count = match w {
            Weight::Lies(w) if is_whole(w.len()) => Some(w.len() / k),
            Weight::Made(w) if w.dim().1 == k => Some(w.dim().0),
            #[cfg(target_arch = "x86_64")]
            Weight::Turned(w) if w.k() == k => Some(w.count),
            _ => None,
        };
        let column_count = column_count.filter(|_| is_whole(x.len()));
        Self {
            unit,
            x,
            w,
            k,
            column_count: column_count.expect("whole rows of the same length"),
        }
    }

    fn row_count(&self) -> usize {
        self.x.len() / self.k
    }

    /// Some rows of w: where they lie, or made in `room`.
    fn w<'r>(&self, rows: Range<usize>, room: &'r mut Vec<u32>) -> &'r [u32]
    where
        'a: 'r,
    {
        match self.w {
            Weight::Lies(w) => &w[rows.start * self.k..rows.end * self.k],
            Weight::Made(w) => {
                let room = grown(room, rows.len() * self.k);
                w.write(rows, room);
                room
            }
            #[cfg(target_arch = "x86_64")]
            Weight::Turned(w) => {
                let room = grown(room, rows.len() * self.k);
                w.write(rows, room);
                room
            }
        }
    }

    /// # Safety
    /// The kernel has a family for the unit.
    unsafe fn multiplied_by(self, kernel: &Kernel) -> Vec<f32> {
        let len = self.row_count() * self.column_count;
        let mut y = Vec::with_capacity(len);
        let target = Target::uninitialised(&mut y.spare_capacity_mut()[..len], self.column_count);
        // SAFETY: the target is a new buffer of the product's size, of which the kernel writes every number.
        unsafe {
            (kernel.multiply)(self, target);
            y.set_len(len);
        }
        y
    }
}

/// The beginning of a room, which is kept as large as it ever was: to fill it with zeros anew takes as long as few rows do.
fn grown(room: &mut Vec<u32>, len: usize) -> &mut [u32] {
    if room.len() < len {
        room.resize(len, 0);
    }
    &mut room[..len]
}

/// What the tile unit's kernels know of a number type, where there is such a unit.
#[cfg(target_arch = "x86_64")]
pub trait Tiled: tiles::Number + tiles::Output {}
#[cfg(target_arch = "x86_64")]
impl<T: tiles::Number + tiles::Output> Tiled for T {}

#[cfg(not(target_arch = "x86_64"))]
pub trait Tiled {}
#[cfg(not(target_arch = "x86_64"))]
impl<T> Tiled for T {}

/// A number type that is multiplied here; sealed, because the kernels know these two.
pub trait Operand: bytemuck::Pod + Send + Sync + Tiled {
    const UNIT: Unit;
    const PER_UNIT: usize = size_of::<u32>() / size_of::<Self>();
    /// To nearest.
    fn of(number: f32) -> Self;
    fn number(self) -> f32;
    fn wide(numbers: ArrayView2<'_, Self>) -> CowArray<'_, f32, Ix2>;
    fn rounded(sums: Vec<f32>) -> Vec<Self>;
}

impl Operand for f32 {
    const UNIT: Unit = Unit::F32;

    #[inline(always)]
    fn of(number: f32) -> Self {
        number
    }

    #[inline(always)]
    fn number(self) -> f32 {
        self
    }

    fn wide(numbers: ArrayView2<'_, Self>) -> CowArray<'_, f32, Ix2> {
        numbers.into()
    }

    fn rounded(sums: Vec<f32>) -> Vec<Self> {
        sums
    }
}

impl Operand for bf16 {
    const UNIT: Unit = Unit::Bf16Pair;

    #[inline(always)]
    fn of(number: f32) -> Self {
        narrowed(number)
    }

    #[inline(always)]
    fn number(self) -> f32 {
        widened(self)
    }

    fn wide(numbers: ArrayView2<'_, Self>) -> CowArray<'_, f32, Ix2> {
        let rows = |view: &ArrayView2<'_, Self>| {
            let wide = widen(view.to_slice()?);
            Some(Array2::from_shape_vec(view.dim(), wide).expect("as many numbers as the shape has"))
        };
        let columns = || rows(&numbers.reversed_axes()).map(Array2::reversed_axes);
        let strided = || numbers.mapv(f32::from);
        rows(&numbers).or_else(columns).unwrap_or_else(strided).into()
    }

    fn rounded(sums: Vec<f32>) -> Vec<Self> {
        narrow(&sums)
    }
}

/// All of a right side in f32, for kernels that are not of this crate.
pub(crate) fn wide<T: Operand>(right: Right<'_, T>) -> CowArray<'_, f32, Ix2> {
    match right {
        Right::Lies(view) => T::wide(view),
        Right::Made(rows) => {
            let (columns, k) = rows.dim();
            let mut made = vec![T::zeroed(); columns * k];
            let parts = made.par_chunks_mut((PART * k).max(1)).enumerate();
            parts.for_each(|(part, into)| rows.write(part * PART..columns.min((part + 1) * PART), into));
            let made = Array2::from_shape_vec((columns, k), made).expect("as many numbers as the shape has");
            T::wide(made.view()).into_owned().reversed_axes().into()
        }
    }
}

/// Where a product goes, and what is added to it on the way.
pub(crate) struct Place<'a, O> {
    pub target: Target<O>,
    /// One number for each column.
    pub bias: Option<&'a [f32]>,
    /// What is there is added to, and must be initialised.
    pub add: bool,
}

/// left (rows, k) · right (k, columns) into its place by the tile unit. False where there is none for such numbers at this
/// precision, and nothing is written; so it is for few rows of f32, for which two parts of a weight are only more to read.
///
/// # Safety
/// Nobody else touches the place, which is as large as the product.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn by_tiles<T: Operand, O: Operand>(
    left: ArrayView2<'_, T>,
    right: Right<'_, T>,
    how: How,
    place: Place<'_, O>,
) -> bool {
    let is_for_others = T::UNIT == Unit::F32 && left.nrows() <= few::ROWS && !how.steady;
    if tile_family(T::UNIT, how.precision).is_none() || left.ncols() == 0 || is_for_others {
        return false;
    }
    // SAFETY: passed on; the unit is permitted where it has a family.
    unsafe { tiles::multiply(left, right, place) }
}

/// # Safety
/// None is needed: there is no tile unit, and nothing is written.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn by_tiles<T: Operand, O: Operand>(
    _: ArrayView2<'_, T>,
    _: Right<'_, T>,
    _: How,
    _: Place<'_, O>,
) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn tile_family(unit: Unit, precision: Precision) -> Option<&'static str> {
    let family = match (unit, precision) {
        (Unit::Bf16Pair, _) => "amx-bf16",
        (Unit::F32, Precision::Medium) => "amx-bf16x3",
        (Unit::F32, Precision::Full) => return None,
    };
    tiles::is_permitted().then_some(family)
}

#[cfg(not(target_arch = "x86_64"))]
fn tile_family(_: Unit, _: Precision) -> Option<&'static str> {
    None
}

/// left (rows, k) · right (k, columns), row by row. `None` where this processor has no kernel for such numbers as they lie: rows of
/// left and columns of right are rows in memory of whole units. With `steady`, rows have the bits that each has alone.
pub(crate) fn by_rows<T: Operand>(left: ArrayView2<'_, T>, right: Right<'_, T>, steady: bool) -> Option<Vec<f32>> {
    let (rows, k) = left.dim();
    if k == 0 || !k.is_multiple_of(T::PER_UNIT) {
        return None;
    }
    let x = left.to_slice()?;
    let Some(kernel) = kernel_for(T::UNIT, rows, steady) else {
        let kernel = kernel_for(Unit::F32, rows, steady)?;
        let (x, right) = (T::wide(left), Wide::of(right)?);
        return by(kernel, x.as_slice()?, Right::Made(&right));
    };
    by(kernel, x, right)
}

/// left (rows, k) · right (k, columns) into its place, where one of them lies turned: rows of left, or columns of right, are columns in
/// memory, as in a backward pass. Only where pairs of bf16 are multiplied faster than as many numbers of f32, so that turning them pays.
/// Else false, and nothing is written.
///
/// # Safety
/// Nobody else touches the target, which is as large as the product, and with `add` initialised.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn by_turned_rows<'a, T: Operand>(
    left: ArrayView2<'a, T>,
    right: Right<'a, T>,
    target: Target<f32>,
    add: bool,
) -> bool {
    if T::UNIT != Unit::Bf16Pair || panels::family(T::UNIT).is_none() {
        return false;
    }
    let Some((x, w)) = turned_sides(left, right) else {
        return false;
    };
    let operands = Operands::new(T::UNIT, &x, w, left.ncols().div_ceil(T::PER_UNIT));
    // SAFETY: the instructions are there, and the rest is passed on.
    unsafe { panels::multiply(operands, target, add, panels::Pairs::Whole) };
    true
}

/// # Safety
/// None is needed: there is no such kernel, and nothing is written.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn by_turned_rows<T: Operand>(
    _: ArrayView2<'_, T>,
    _: Right<'_, T>,
    _: Target<f32>,
    _: bool,
) -> bool {
    false
}

/// Both sides in units, if one is turned.
#[cfg(target_arch = "x86_64")]
fn turned_sides<'a, T: Operand>(left: ArrayView2<'a, T>, right: Right<'a, T>) -> Option<(Cow<'a, [u32]>, Weight<'a>)> {
    let Right::Lies(right) = right else { return None };
    if left.is_empty() || right.is_empty() {
        return None;
    }
    let lies = |view: ArrayView2<'a, T>| bytemuck::try_cast_slice(view.to_slice()?).ok();
    let is_whole = left.ncols().is_multiple_of(T::PER_UNIT);
    let turned = |view: ArrayView2<'a, T>| Turned::new(view.to_slice()?, view.ncols());
    match (lies(left), lies(right.reversed_axes())) {
        (Some(x), None) if is_whole => Some((x.into(), Weight::Turned(turned(right)?))),
        (None, Some(w)) if is_whole => Some((turned(left.reversed_axes())?.rows().into(), Weight::Lies(w))),
        (None, None) => Some((
            turned(left.reversed_axes())?.rows().into(),
            Weight::Turned(turned(right)?),
        )),
        _ => None,
    }
}

fn kernel_for(unit: Unit, row_count: usize, steady: bool) -> Option<&'static Kernel> {
    let has = |kernel: &&Kernel| (kernel.family)(unit).is_some() && (kernel.takes)(row_count, steady);
    KERNELS.iter().find(has)
}

/// By a kernel that has a family for such numbers.
fn by<T: Operand>(kernel: &Kernel, x: &[T], right: Right<'_, T>) -> Option<Vec<f32>> {
    let units = |numbers| bytemuck::try_cast_slice(numbers).ok();
    let made;
    let w = match right {
        Right::Lies(view) => Weight::Lies(units(view.reversed_axes().to_slice()?)?),
        Right::Made(rows) => {
            made = InUnits(rows);
            Weight::Made(&made)
        }
    };
    let operands = Operands::new(T::UNIT, units(x)?, w, right.dim().0 / T::PER_UNIT);
    // SAFETY: the caller has seen to the family.
    Some(unsafe { operands.multiplied_by(kernel) })
}

/// The columns of a right side as rows of f32.
enum Wide<'a, T> {
    Lies { numbers: &'a [T], dim: (usize, usize) },
    Made(&'a dyn Rows<T>),
}

impl<'a, T: Operand> Wide<'a, T> {
    /// `None` where the columns are no rows in memory.
    fn of(right: Right<'a, T>) -> Option<Self> {
        match right {
            Right::Made(rows) => Some(Self::Made(rows)),
            Right::Lies(view) => {
                let rows = view.reversed_axes();
                let (numbers, dim) = (rows.to_slice()?, rows.dim());
                Some(Self::Lies { numbers, dim })
            }
        }
    }
}

impl<T: Operand> Rows<f32> for Wide<'_, T> {
    fn dim(&self) -> (usize, usize) {
        match self {
            Self::Lies { dim, .. } => *dim,
            Self::Made(rows) => rows.dim(),
        }
    }

    fn write(&self, rows: Range<usize>, into: &mut [f32]) {
        let made;
        let narrow = match self {
            Self::Lies { numbers, dim } => &numbers[rows.start * dim.1..rows.end * dim.1],
            Self::Made(all) => {
                let mut room = vec![T::zeroed(); into.len()];
                all.write(rows, &mut room);
                made = room;
                &made
            }
        };
        wide!({
            for (into, &number) in into.iter_mut().zip(narrow) {
                *into = number.number();
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    fn multiply(&self, rows: Range<usize>, x: &[f32], lanes: usize, into: &mut [f32]) -> bool {
        match self {
            Self::Lies { numbers, dim } if T::UNIT == Unit::Bf16Pair => {
                let row = |at| bytemuck::cast_slice(&numbers[(rows.start + at) * dim.1..][..dim.1]);
                blocks::multiply::<blocks::Bf16, _, _>(x, row, lanes, into)
            }
            _ => false,
        }
    }
}

/// The family of the kernels that this processor multiplies such numbers with. Two families may differ in the last bits.
pub fn family<T: Operand>(precision: Precision) -> &'static str {
    let of = |unit| KERNELS.iter().find_map(|kernel| (kernel.family)(unit));
    // what has no kernel of its own is widened to f32
    let general = if cfg!(target_arch = "aarch64") {
        "neon"
    } else {
        "portable"
    };
    tile_family(T::UNIT, precision)
        .or_else(|| of(T::UNIT))
        .or_else(|| of(Unit::F32))
        .unwrap_or(general)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dense::matrix;
    use crate::mixed::MixedProduct;

    /// Rows of k numbers as the columns of a right side.
    fn turned<T>(w: &[T], k: usize) -> Right<'_, T> {
        Right::Lies(matrix(w, w.len() / k, k).reversed_axes())
    }

    /// (rows, columns, k).
    pub type Shape = (usize, usize, usize);

    pub fn values(count: usize, seed: u32) -> Vec<f32> {
        let step = |state: &mut u32| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        std::iter::repeat_n((), count)
            .scan(seed, |state, ()| step(state))
            .collect()
    }

    pub fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    /// Holds a product to its definition, in f64.
    #[track_caller]
    pub fn close(y: &[f32], x: &[f32], w: &[f32], (rows, n, k): Shape) {
        assert_eq!(y.len(), rows * n);
        for row in 0..rows {
            for column in 0..n {
                let terms = (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(w[column * k + i]));
                let (found, exact) = (f64::from(y[row * n + column]), terms.sum::<f64>());
                assert!(
                    (found - exact).abs() < 1e-4,
                    "{rows}x{n}x{k} at {row},{column}: {found} {exact}"
                );
            }
        }
    }

    /// Says so where a test cannot run for want of some instructions.
    fn lacks(kernel: &Kernel, unit: Unit, need: &str) -> bool {
        let lacks = (kernel.family)(unit).is_none();
        if lacks {
            harness::skip(need, "this processor has not the kernel's instructions");
        }
        lacks
    }

    pub fn product(kernel: &Kernel, unit: Unit, x: &[u32], w: &[u32], k: usize) -> Vec<f32> {
        // SAFETY: callers ask `lacks` first.
        unsafe { Operands::new(unit, x, Weight::Lies(w), k).multiplied_by(kernel) }
    }

    #[track_caller]
    pub fn products_are_those_of_the_definition(kernel: &Kernel, need: &str, shapes: &[Shape]) {
        if lacks(kernel, Unit::F32, need) {
            return;
        }
        for &shape @ (rows, n, k) in shapes {
            let (x, w) = (values(rows * k, 1), values(n * k, 2));
            close(&product(kernel, Unit::F32, &bits(&x), &bits(&w), k), &x, &w, shape);
        }
    }

    #[track_caller]
    pub fn pairs_are_bf16(kernel: &Kernel, shape @ (rows, n, k): Shape) {
        if lacks(kernel, Unit::Bf16Pair, "avx512_bf16") {
            return;
        }
        let half = |values: Vec<f32>| values.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
        let (x, w) = (half(values(rows * k, 1)), half(values(n * k, 2)));
        let wide = |v: &[bf16]| v.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        let pairs = |v: &[bf16]| {
            v.chunks(2)
                .map(|p| u32::from(p[0].to_bits()) | u32::from(p[1].to_bits()) << 16)
                .collect::<Vec<_>>()
        };
        close(
            &product(kernel, Unit::Bf16Pair, &pairs(&x), &pairs(&w), k / 2),
            &wide(&x),
            &wide(&w),
            shape,
        );
    }

    /// Parts of x, multiplied alone, give the bits of those rows of the whole.
    #[track_caller]
    pub fn rows_are_independent(kernel: &Kernel, need: &str, (rows, n, k): Shape, parts: &[(usize, usize)]) {
        if lacks(kernel, Unit::F32, need) {
            return;
        }
        let (x, w) = (bits(&values(rows * k, 3)), bits(&values(n * k, 4)));
        let whole = product(kernel, Unit::F32, &x, &w, k);
        for &(start, count) in parts {
            let part = product(kernel, Unit::F32, &x[start * k..(start + count) * k], &w, k);
            assert_eq!(
                bits(&part),
                bits(&whole[start * n..(start + count) * n]),
                "{start} {count}"
            );
        }
    }

    #[test]
    fn the_kernel_chosen_multiplies_and_numbers_that_are_no_whole_units_are_left_to_others() {
        let (x, w) = (values(3 * 10, 1), values(7 * 10, 2));
        let has_kernel = family::<f32>(Precision::Full) != "portable" && family::<f32>(Precision::Full) != "neon";
        let found = by_rows(matrix(&x, 3, 10), turned(&w, 10), false);
        assert_eq!(found.is_some(), has_kernel);
        if let Some(found) = found {
            close(&found, &x, &w, (3, 7, 10));
        }
        let narrow: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        assert_eq!(by_rows(matrix(&narrow[..15], 3, 5), turned(&narrow, 5), false), None);
        assert_eq!(
            by_rows(matrix(&x[..0], 0, 0), Right::Lies(matrix(&w, 0, 0)), false),
            None
        );
    }

    /// (rows, columns) → (columns, rows)
    #[cfg(target_arch = "x86_64")]
    fn transposed<T: Copy>(numbers: &[T], columns: usize) -> Vec<T> {
        let column = |at| numbers.iter().skip(at).step_by(columns);
        (0..columns).flat_map(column).copied().collect()
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn turned_sides_are_multiplied_as_their_rows_would_be() {
        for shape @ (rows, columns, k) in [(1, 1, 2), (3, 50, 6), (70, 100, 33), (130, 49, 900)] {
            let (x, w) = (narrow(&values(rows * k, 1)), narrow(&values(columns * k, 2)));
            let (x_turned, w_turned) = (transposed(&x, k), transposed(&w, k));
            let left = [matrix(&x, rows, k), matrix(&x_turned, k, rows).reversed_axes()];
            let right = [matrix(&w, columns, k).reversed_axes(), matrix(&w_turned, k, columns)];
            for (left, right) in [(left[1], right[1]), (left[0], right[1]), (left[1], right[0])] {
                let product = |add: bool| {
                    let mut found = vec![1.0; rows * columns];
                    let target = Target::new(&mut found, columns);
                    // SAFETY: the buffer is of the product's size.
                    unsafe { by_turned_rows(left, Right::Lies(right), target, add) }.then_some(found)
                };
                let (Some(found), Some(added)) = (product(false), product(true)) else {
                    let lies = left.to_slice().is_some() || right.reversed_axes().to_slice().is_some();
                    if panels::family(Unit::Bf16Pair).is_some() {
                        assert!(lies && (k % 2 == 1 || rows * columns == 1), "{shape:?}");
                    } else {
                        harness::skip("fast_bf16_pairs", "pairs of bf16 are no faster here");
                    }
                    continue;
                };
                close(&found, &widen(&x), &widen(&w), shape);
                let sums: Vec<f32> = added.iter().map(|sum| sum - 1.0).collect();
                close(&sums, &widen(&x), &widen(&w), shape);
                if k % 2 == 0 {
                    let exact = by_rows(matrix(&x, rows, k), turned(&w, k), true);
                    assert_eq!(Some(bits(&found)), exact.map(|exact| bits(&exact)), "{shape:?}");
                }
            }
        }
    }

    #[test]
    fn few_rows_that_need_not_be_steady_have_full_precision() {
        let (n, k) = (50, 64);
        let (x, w) = (values(8 * k, 1), values(n * k, 2));
        let product = |rows: usize, steady: bool, precision| {
            let x = matrix(&x[..rows * k], rows, k);
            let how = How { steady, precision };
            bits(&MixedProduct::of(x, matrix(&w, n, k).reversed_axes(), how).to_f32())
        };
        let is_full = |rows, steady| product(rows, steady, Precision::Medium) == product(rows, steady, Precision::Full);
        assert!((1..=3).all(|rows| is_full(rows, false)));
        let has_tiles = tile_family(Unit::F32, Precision::Medium).is_some();
        assert_eq!([is_full(3, true), is_full(8, false)], [!has_tiles; 2]);
    }

    #[test]
    fn steady_rows_have_the_bits_that_each_has_alone() {
        let (n, k) = (50, 70);
        let (x, w) = (values((2 * STEADY_ROWS + 1) * k, 1), values(n * k, 2));
        let Some(whole) = by_rows(matrix(&x, 2 * STEADY_ROWS + 1, k), turned(&w, k), true) else {
            return harness::skip("avx2", "no kernel here");
        };
        for (x, whole) in x.chunks(k).zip(whole.chunks(n)) {
            assert_eq!(
                by_rows(matrix(x, 1, k), turned(&w, k), true).map(|alone| bits(&alone)),
                Some(bits(whole))
            );
        }
    }
}
