//! Products on the tile unit (AMX) of a processor that has one: of bf16, and of f32 as two parts of bf16 each.
//!
//! The left side is packed once, the right side strip by strip in the tasks that multiply by it. Few rows are not worth packing a
//! weight for: then the sides change places, and the weight's lines are loaded from where they lie. Every output
//! is summed over k in steps of 32 from the first to the last, and the unit keeps outputs apart, so **a row's bits do not depend on
//! the rows beside it**, on the strips, or on the direction in which a matrix lies. Numbers too small to be normal count as zero.

mod pack;
mod unit;

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;
use ndarray::ArrayView2;
use rayon::prelude::*;

use super::Place;
use super::transpose::transpose;
use crate::rows::{Right, Rows};
pub use pack::Number;
use pack::{Lines, Operand};
pub use unit::is_permitted;
use unit::{BLOCK, LeftTiles, Line, SIDE, STEP, Sums, Tiles};

/// Bytes of a packed strip of the right side: it stays in the second-level cache while rows stream by.
const STRIP_BYTES: usize = 1 << 20;
/// Blocks of columns of a strip, where the right side has as many and there are rows enough to be worth it.
const STRIP_MIN: usize = 4;
const STRIP_MAX: usize = 8;
/// Steps along k that 32 rows of the left side take together, in one part: 24 KiB, which stay in the first-level cache while a
/// strip streams by.
const DEPTH: usize = 12;
/// Blocks of rows that are worth packing a strip once more.
const ROWS_MIN: usize = 8;
/// Rows up to which the right side is not packed where it can be loaded.
const FEW_ROWS: usize = 4 * BLOCK;

/// left (rows, k) · right (k, columns) into its place. False where neighbours in memory are neighbours in neither direction of a
/// matrix, and nothing is written.
///
/// # Safety
/// The unit is permitted, and nobody else touches the place, which is as large as the product.
pub(super) unsafe fn multiply<T: Number, O: Output>(
    left: ArrayView2<'_, T>,
    right: Right<'_, T>,
    place: Place<'_, O>,
) -> bool {
    let (Some(left), Some(right)) = (Lines::new(left), Strips::new(right)) else {
        return false;
    };
    // SAFETY: passed on.
    unsafe {
        let turned = left.count() <= FEW_ROWS && right.is_loadable();
        let packed = pack_all(&left, if turned { Operand::Right } else { Operand::Left });
        let product = Blocks {
            left,
            packed: &packed,
            right,
            place,
        };
        match turned {
            true => product.multiply_turned(),
            false => product.multiply(),
        }
    }
    true
}

/// The lines of the right side.
#[derive(Clone, Copy)]
enum Strips<'a, T> {
    Lie(Lines<'a, T>),
    Made(&'a dyn Rows<T>),
}

impl<'a, T: Number> Strips<'a, T> {
    /// `None` as of [`Lines::new`].
    fn new<'b: 'a>(right: Right<'b, T>) -> Option<Self> {
        Some(match right {
            Right::Lies(view) => Self::Lie(Lines::new(view.reversed_axes().reborrow())?),
            Right::Made(rows) => Self::Made(rows),
        })
    }

    fn count(&self) -> usize {
        match self {
            Self::Lie(lines) => lines.count(),
            Self::Made(rows) => rows.dim().0,
        }
    }

    /// Whether whole blocks are [`Lines::loadable`].
    fn is_loadable(&self) -> bool {
        match self {
            Self::Lie(lines) => lines.loadable(0).is_some(),
            Self::Made(rows) => T::PARTS == 1 && rows.dim().1.is_multiple_of(STEP),
        }
    }

    /// The lines of some blocks: where they lie, or made in `room`.
    fn blocks<'r>(&self, blocks: Range<usize>, room: &'r mut Vec<T>) -> Lines<'r, T>
    where
        'a: 'r,
    {
        let lines = blocks.start * BLOCK..(blocks.end * BLOCK).min(self.count());
        match *self {
            Self::Lie(all) => all.part(lines),
            Self::Made(rows) => {
                let k = rows.dim().1;
                room.resize(lines.len() * k, T::zeroed());
                rows.write(lines, room);
                Lines::of(room, k)
            }
        }
    }
}

/// How the product is cut into tasks, in blocks: strips of columns, and where they are few for the threads, parts of rows. No bit
/// depends on it.
struct Cut {
    rows: usize,
    columns: usize,
    strip: usize,
    part: usize,
}

impl Cut {
    fn new<T: Number, O>(product: &Blocks<'_, T, O>, threads: usize) -> Self {
        let (rows, columns) = (
            product.left.count().div_ceil(BLOCK),
            product.right.count().div_ceil(BLOCK),
        );
        let wide = (STRIP_BYTES / (product.left.block_len() * size_of::<Line>())).clamp(1, STRIP_MAX);
        let narrow = if rows < ROWS_MIN { 1 } else { STRIP_MIN.min(wide) };
        let strip = columns.div_ceil(2 * threads).clamp(narrow, wide);
        let parts = (2 * threads)
            .div_ceil(columns.div_ceil(strip))
            .clamp(1, rows.div_ceil(ROWS_MIN));
        let part = rows.div_ceil(parts);
        Self {
            rows,
            columns,
            strip,
            part,
        }
    }

    fn strips(&self) -> usize {
        self.columns.div_ceil(self.strip)
    }

    fn parts(&self) -> usize {
        self.rows.div_ceil(self.part)
    }

    /// The blocks of columns and of rows.
    fn task(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let (strip, part) = (index % self.strips(), index / self.strips());
        let range = |index: usize, len: usize, end: usize| index * len..((index + 1) * len).min(end);
        (
            range(strip, self.strip, self.columns),
            range(part, self.part, self.rows),
        )
    }
}

/// Room for packed tiles, written before they are read.
type Packed = Box<[MaybeUninit<Line>]>;

/// # Safety
/// The unit is permitted.
unsafe fn pack_all<T: Number>(side: &Lines<'_, T>, operand: Operand) -> Packed {
    let mut packed = Box::<[Line]>::new_uninit_slice(side.count().div_ceil(BLOCK) * side.block_len());
    packed
        .par_chunks_mut(side.block_len())
        .enumerate()
        .for_each(|(block, tiles)| {
            // SAFETY: passed on; the block has its room.
            unsafe { side.pack(block, operand, tiles.as_mut_ptr().cast()) };
        });
    packed
}

/// What a task works in: its strip of the right side, made and packed, and the sums of a block of rows.
struct Room<T> {
    made: Vec<T>,
    strip: Packed,
    sums: Vec<Sums>,
}

impl<T> Room<T> {
    fn new(cut: &Cut, block_len: usize) -> Self {
        Self {
            made: Vec::new(),
            strip: Box::<[Line]>::new_uninit_slice(cut.strip * block_len),
            sums: vec![Sums::ZERO; cut.strip],
        }
    }
}

/// A product in blocks of 32 rows by 32 columns.
struct Blocks<'a, T, O> {
    left: Lines<'a, T>,
    /// The left side's tiles, of whichever operand it is.
    packed: &'a [MaybeUninit<Line>],
    right: Strips<'a, T>,
    place: Place<'a, O>,
}

impl<T: Number, O: Output> Blocks<'_, T, O> {
    /// # Safety
    /// The unit is permitted, and nobody else touches the place.
    unsafe fn multiply(&self) {
        let cut = Cut::new(self, rayon::current_num_threads());
        (0..cut.strips() * cut.parts())
            .into_par_iter()
            .with_max_len(1)
            .for_each_init(
                || Room::new(&cut, self.left.block_len()),
                |room, task| {
                    let (columns, rows) = cut.task(task);
                    // SAFETY: passed on; no two tasks have a block in common.
                    unsafe { self.multiply_strip(room, columns, rows) };
                },
            );
    }

    /// The same with the sides in each other's place: numbers of one part, whose products do not depend on which is left.
    ///
    /// # Safety
    /// The unit is permitted, nobody else touches the place, and the left side is packed as the right operand.
    unsafe fn multiply_turned(&self) {
        let columns: Vec<usize> = (0..self.right.count().div_ceil(BLOCK)).collect();
        columns.par_chunks(STRIP_MAX).for_each(|columns| {
            // SAFETY: passed on; no two tasks have a block in common.
            unsafe {
                let (tiles, mut made) = (Tiles::new(), Vec::new());
                for &column in columns {
                    self.multiply_column(&tiles, column, &mut made);
                }
            }
        });
    }

    /// # Safety
    /// As of [`Self::multiply_turned`], of one block of columns.
    unsafe fn multiply_column(&self, tiles: &Tiles, column: usize, made: &mut Vec<T>) {
        let right = self.right.blocks(column..column + 1, made);
        let mut room;
        // SAFETY: passed on; a block has as many steps on either side, and the room is for one block.
        unsafe {
            let lines = match right.loadable(0) {
                Some(lines) => lines,
                None => {
                    room = Box::<[Line]>::new_uninit_slice(right.block_len());
                    right.pack(0, Operand::Left, room.as_mut_ptr().cast());
                    LeftTiles::packed(room.as_ptr().cast())
                }
            };
            for (row, packed) in self.packed.chunks_exact(self.left.block_len()).enumerate() {
                let mut sums = Sums::ZERO;
                tiles.multiply(lines, packed.as_ptr().cast(), right.steps(), &mut sums);
                self.store(row, column, &turned(&sums));
            }
        }
    }

    /// # Safety
    /// The unit is permitted, and nobody else touches these blocks of the place; the room is for as many columns.
    unsafe fn multiply_strip(&self, room: &mut Room<T>, columns: Range<usize>, rows: Range<usize>) {
        let right = self.right.blocks(columns.clone(), &mut room.made);
        let (steps, depth) = (right.steps(), DEPTH / T::PARTS);
        // SAFETY: passed on; the strip's blocks lie one after the other, and `depth` steps at most are there from `start` on.
        unsafe {
            for (block, tiles) in (0..columns.len()).zip(room.strip.chunks_exact_mut(right.block_len())) {
                right.pack(block, Operand::Right, tiles.as_mut_ptr().cast());
            }
            let tiles = Tiles::new();
            for row in rows {
                let left = &self.packed[row * self.left.block_len()..];
                room.sums.fill(Sums::ZERO);
                for start in (0..steps).step_by(depth) {
                    let strip = room.strip.chunks_exact(right.block_len());
                    for (right, sums) in strip.zip(&mut room.sums).take(columns.len()) {
                        let [left, right] =
                            [left, right].map(|side| side[start * T::PARTS * 2 * SIDE..].as_ptr().cast());
                        match T::PARTS {
                            1 => tiles.multiply(LeftTiles::packed(left), right, depth.min(steps - start), sums),
                            _ => tiles.multiply_parts(left, right, depth.min(steps - start), sums),
                        }
                    }
                }
                for (column, sums) in columns.clone().zip(&room.sums) {
                    self.store(row, column, sums);
                }
            }
        }
    }

    /// # Safety
    /// The unit is permitted, and nobody else touches this block of the place.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn store(&self, row: usize, column: usize, sums: &Sums) {
        let (row, column) = (row * BLOCK, column * BLOCK);
        let (rows, columns) = (
            (self.left.count() - row).min(BLOCK),
            (self.right.count() - column).min(BLOCK),
        );
        let masks = [columns.min(SIDE), columns.saturating_sub(SIDE)].map(|count| ((1u32 << count) - 1) as __mmask16);
        // SAFETY: the masks keep to the columns that are there.
        let bias = self.place.bias.map(|bias| unsafe {
            [0, 1].map(|half| _mm512_maskz_loadu_ps(masks[half], bias.as_ptr().wrapping_add(column + half * SIDE)))
        });
        let bias = bias.unwrap_or([_mm512_setzero_ps(); 2]);
        let mut out = self
            .place
            .target
            .at(row * self.place.target.row_stride + column)
            .pointer;
        for sums in &sums.0[..rows] {
            for half in 0..2 {
                // SAFETY: a row has two halves; the mask keeps to the columns that are there and this call's alone.
                unsafe {
                    let sums = _mm512_add_ps(_mm512_load_ps(sums.as_ptr().add(half * SIDE)), bias[half]);
                    O::store(sums, self.place.add, out.wrapping_add(half * SIDE), masks[half]);
                }
            }
            out = out.wrapping_add(self.place.target.row_stride);
        }
    }
}

/// (rows, columns) of (columns, rows).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn turned(sums: &Sums) -> Sums {
    let mut turned = Sums::ZERO;
    for (row, column) in [(0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE)] {
        // SAFETY: a quarter is 16 rows of 16 numbers, each aligned.
        unsafe {
            let quarter = std::array::from_fn(|i| _mm512_load_si512(sums.0[row + i][column..].as_ptr().cast()));
            for (i, line) in transpose(quarter).into_iter().enumerate() {
                _mm512_store_si512(turned.0[column + i][row..].as_mut_ptr().cast(), line);
            }
        }
    }
    turned
}

/// What sums are stored as.
pub trait Output: Copy + Send + Sync {
    /// Stores the sums under the mask; with `add`, what was there before is added.
    ///
    /// # Safety
    /// What the mask allows is there, and the processor has the instructions.
    unsafe fn store(sums: __m512, add: bool, out: *mut Self, mask: __mmask16);
}

impl Output for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn store(mut sums: __m512, add: bool, out: *mut Self, mask: __mmask16) {
        // SAFETY: the mask keeps to what is there.
        unsafe {
            if add {
                sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), sums);
            }
            _mm512_mask_storeu_ps(out, mask, sums);
        }
    }
}

impl Output for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn store(sums: __m512, add: bool, out: *mut Self, mask: __mmask16) {
        debug_assert!(!add, "sums are added in f32");
        // SAFETY: the mask keeps to what is there.
        unsafe { _mm256_mask_storeu_epi16(out.cast(), mask, pack::narrow(sums)) };
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use ndarray::Array2;

    use super::*;
    use crate::dense::{Target, matrix};
    use crate::kernels::tests::{bits, values};

    /// left (rows, k) · right (columns, k)ᵀ, or `None` where the processor has no such unit.
    fn product<T: Number, O: Output>(left: ArrayView2<'_, T>, right: ArrayView2<'_, T>) -> Option<Vec<O>> {
        if !is_permitted() {
            harness::skip("amx", "this processor has no tile unit, or the system does not lend it");
            return None;
        }
        let len = left.nrows() * right.nrows();
        let mut sums = Vec::with_capacity(len);
        let place = Place {
            target: Target::uninitialised(&mut sums.spare_capacity_mut()[..len], right.nrows()),
            bias: None,
            add: false,
        };
        // SAFETY: the unit is permitted, and the target a new buffer of the product's size, of which every number is written.
        unsafe {
            assert!(
                multiply(left, Right::Lies(right.reversed_axes()), place),
                "a side lies along one of its directions"
            );
            sums.set_len(len);
        }
        Some(sums)
    }

    /// The sums in f64, and those of the terms' magnitudes: what an error is measured by.
    fn exact(left: &Array2<f32>, right: &Array2<f32>) -> (Array2<f64>, Array2<f64>) {
        let (left, right) = (left.mapv(f64::from), right.mapv(f64::from));
        (left.dot(&right.t()), left.mapv(f64::abs).dot(&right.mapv(f64::abs).t()))
    }

    #[track_caller]
    fn close(found: &[f32], left: &Array2<f32>, right: &Array2<f32>, tolerance: f64) {
        let (exact, magnitude) = exact(left, right);
        let shape = (left.dim(), right.nrows());
        for ((found, exact), magnitude) in found.iter().zip(&exact).zip(&magnitude) {
            assert!(
                (f64::from(*found) - exact).abs() <= tolerance * magnitude + 1e-35,
                "{shape:?}: {found} {exact}"
            );
        }
    }

    fn numbers(rows: usize, columns: usize, seed: u32) -> Array2<f32> {
        Array2::from_shape_vec((rows, columns), values(rows * columns, seed)).unwrap()
    }

    fn narrow_all(numbers: &Array2<f32>) -> Array2<bf16> {
        numbers.mapv(bf16::from_f32)
    }

    const SHAPES: [(usize, usize, usize); 11] = [
        (1, 1, 1),
        (1, 70, 64),
        (40, 100, 96),
        (2, 17, 31),
        (16, 16, 32),
        (17, 33, 33),
        (7, 5, 95),
        (33, 31, 64),
        (64, 300, 400),
        (5, 65, 1000),
        (300, 40, 7),
    ];

    #[test]
    fn products_of_awkward_shapes_are_those_of_the_definition_whichever_way_their_sides_lie() {
        for (rows, columns, k) in SHAPES {
            let (left, right) = (numbers(rows, k, 1), numbers(columns, k, 2));
            let (left_down, right_down) = (
                left.t().as_standard_layout().into_owned(),
                right.t().as_standard_layout().into_owned(),
            );
            let (half_left, half_right) = (narrow_all(&left), narrow_all(&right));
            let (half_left_down, half_right_down) = (narrow_all(&left_down), narrow_all(&right_down));
            let rounded = [&half_left, &half_right].map(|numbers| numbers.mapv(f32::from));
            let Some(found) = product::<bf16, f32>(half_left.view(), half_right.view()) else {
                return;
            };
            close(&found, &rounded[0], &rounded[1], 2e-6);
            for (left, right) in [
                (half_left_down.t(), half_right.view()),
                (half_left.view(), half_right_down.t()),
                (half_left_down.t(), half_right_down.t()),
            ] {
                assert_eq!(
                    product::<bf16, f32>(left, right).map(|turned| bits(&turned)),
                    Some(bits(&found))
                );
            }
            let narrow: Vec<bf16> = found.iter().map(|&sum| bf16::from_f32(sum)).collect();
            assert_eq!(product::<bf16, bf16>(half_left.view(), half_right.view()), Some(narrow));

            let found = product::<f32, f32>(left.view(), right.view()).unwrap();
            // of each number 17 bits remain, and the product of what lies below the first 8 of both is left out
            close(&found, &left, &right, 3.0 * 0.5f64.powi(18) + 2e-6);
            for (left, right) in [(left_down.t(), right.view()), (left.view(), right_down.t())] {
                assert_eq!(
                    product::<f32, f32>(left, right).map(|turned| bits(&turned)),
                    Some(bits(&found))
                );
            }
        }
    }

    /// The error over the output, with a few dimensions a hundred times as large as the rest, as a model's activations have them.
    #[test]
    fn two_parts_are_a_hundred_times_as_exact_as_one() {
        let (mut left, right) = (numbers(64, 768, 1), numbers(96, 768, 2));
        for dimension in [3, 200, 501] {
            left.column_mut(dimension).mapv_inplace(|x| 100.0 * x);
        }
        let (exact, _) = exact(&left, &right);
        let error = |found: Vec<f32>| {
            let rms = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
            rms(&mut found.iter().zip(&exact).map(|(found, exact)| f64::from(*found) - exact))
                / rms(&mut exact.iter().copied())
        };
        let Some(one) = product(narrow_all(&left).view(), narrow_all(&right).view()).map(error) else {
            return;
        };
        let two = product(left.view(), right.view()).map(error).unwrap();
        let full = error(crate::MixedProduct::of(left.view(), right.t(), crate::How::default()).to_vec());
        assert!(
            one > 1e-3 && two < 1e-5 && one > 100.0 * two && full < 1e-6,
            "{one:e} {two:e} {full:e}"
        );
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_the_rows_beside_it_or_on_the_threads() {
        let (left, right) = (numbers(700, 512, 3), numbers(170, 512, 4));
        let half = (narrow_all(&left), narrow_all(&right));
        let whole = || {
            Some((
                product::<f32, f32>(left.view(), right.view())?,
                product::<bf16, f32>(half.0.view(), half.1.view())?,
            ))
        };
        let Some(found) = whole() else {
            return;
        };
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let again = pool.install(whole).unwrap();
            assert!(
                bits(&again.0) == bits(&found.0) && bits(&again.1) == bits(&found.1),
                "{threads} threads"
            );
        }
        for (start, end) in [(0, 1), (5, 8), (31, 33), (20, 70), (699, 700)] {
            let rows = ndarray::s![start..end, ..];
            let part = product::<f32, f32>(left.slice(rows), right.view()).unwrap();
            assert_eq!(bits(&part), bits(&found.0[start * 170..end * 170]));
            let part = product::<bf16, f32>(half.0.slice(rows), half.1.view()).unwrap();
            assert_eq!(bits(&part), bits(&found.1[start * 170..end * 170]));
        }
    }

    #[test]
    fn what_is_not_finite_stays_so_and_what_is_too_small_to_be_normal_counts_as_zero() {
        let row = |at: f32| Array2::from_shape_fn((2, 40), |(row, i)| if (row, i) == (1, 7) { at } else { 1.0 });
        let right = Array2::from_elem((3, 40), 0.3_f32);
        for awkward in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let left = row(awkward);
            let Some(half) = product::<bf16, f32>(narrow_all(&left).view(), narrow_all(&right).view()) else {
                return;
            };
            let whole = product::<f32, f32>(left.view(), right.view()).unwrap();
            for found in [half, whole] {
                assert!(
                    found[..3].iter().all(|x| (x - 12.0).abs() < 0.1),
                    "the row beside it: {found:?}"
                );
                assert!(found[3..].iter().all(|x| !x.is_finite()), "{found:?}");
            }
        }
        let found = product::<f32, f32>(row(1e-40).view(), right.view());
        assert_eq!(found, product::<f32, f32>(row(0.0).view(), right.view()));
    }

    /// Both sides lie at the very end of what may be read, and begin at an odd address of their type.
    #[cfg(target_os = "linux")]
    #[test]
    fn nothing_behind_a_side_is_read() {
        const PAGE: usize = 4096;
        /// Numbers before a page that may not be touched.
        fn guarded<T: Copy>(numbers: &[T]) -> &'static [T] {
            let bytes = size_of_val(numbers);
            let pages = bytes.div_ceil(PAGE) * PAGE;
            // SAFETY: the map is new and never given back; the numbers fit before its last page, at a multiple of their size.
            unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let map = libc::mmap(
                    ptr::null_mut(),
                    pages + PAGE,
                    libc::PROT_READ | libc::PROT_WRITE,
                    flags,
                    -1,
                    0,
                );
                assert_ne!(map, libc::MAP_FAILED);
                let start = map.cast::<u8>().add(pages - bytes).cast::<T>();
                ptr::copy_nonoverlapping(numbers.as_ptr(), start, numbers.len());
                assert_eq!(
                    libc::mprotect(map.cast::<u8>().add(pages).cast(), PAGE, libc::PROT_NONE),
                    0
                );
                std::slice::from_raw_parts(start, numbers.len())
            }
        }
        for (rows, columns, k) in SHAPES {
            let (left, right) = (values(rows * k, 1), values(columns * k, 2));
            let (half_left, half_right) = (crate::narrow(&left), crate::narrow(&right));
            let found = product::<f32, f32>(matrix(guarded(&left), rows, k), matrix(guarded(&right), columns, k));
            assert_eq!(
                found,
                product::<f32, f32>(matrix(&left, rows, k), matrix(&right, columns, k))
            );
            let down = |numbers, lines| matrix::<bf16>(numbers, k, lines).reversed_axes();
            let found = product::<bf16, f32>(down(guarded(&half_left), rows), down(guarded(&half_right), columns));
            assert_eq!(
                found,
                product::<bf16, f32>(down(&half_left, rows), down(&half_right, columns))
            );
        }
    }
}
