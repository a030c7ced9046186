//! `x · wᵀ` by panels of 48 outputs: the product of the forward pass where the processor has AVX-512.
//!
//! One tile of 8 rows by 48 outputs lives in 24 registers; `w` is transposed panel by panel on the way (each element once),
//! `x` is read where it lies. Every output is summed over k in one fixed order, whatever the number of rows and threads, so
//! **a row's bits do not depend on the rows beside it**. In bf16 two neighbours along k are one 32-bit unit and the
//! multiply-add takes both, so the same code serves both types.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use rayon::prelude::*;

/// Outputs of a panel: three registers of 16.
const PANEL: usize = 48;
/// Rows of a tile.
const TILE: usize = 8;
/// Units of k between two visits of the output: 48 of them are 72 KiB, which stays in the second-level cache.
const DEPTH: usize = 384;

/// What a 32-bit unit holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    F32,
    /// Two neighbours along k.
    Bf16Pair,
}

/// Whether this processor can multiply such units.
pub(super) fn supports(unit: Unit) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let wide = std::arch::is_x86_feature_detected!("avx512f");
        match unit {
            Unit::F32 => wide,
            Unit::Bf16Pair => wide && std::arch::is_x86_feature_detected!("avx512bf16"),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = unit;
        false
    }
}

/// A buffer that tasks write at disjoint places.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub(super) *mut f32);
// SAFETY: tasks write disjoint (row range, panel) pieces only.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// A method, so that closures capture the whole wrapper.
    pub(super) fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: callers stay within the buffer's rows · n elements.
        unsafe { self.0.add(offset) }
    }
}

/// Writes x (rows, k) · w (n, k)ᵀ to `y` (rows, n); k counts 32-bit units.
///
/// # Safety
/// `supports(unit)` holds, and `y` is valid for rows · n writes (it may be uninitialised).
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn multiply(unit: Unit, x: &[u32], w: &[u32], y: *mut f32, rows: usize, n: usize, k: usize) {
    assert_eq!((x.len(), w.len()), (rows * k, n * k));
    let panels = n.div_ceil(PANEL);
    // few panels for many threads: rows are split too, at the price of transposing a panel more than once
    let threads = rayon::current_num_threads();
    let row_parts = (4 * threads).div_ceil(panels).clamp(1, rows.div_ceil(8 * TILE).max(1));
    let part_rows = rows.div_ceil(row_parts).next_multiple_of(TILE);
    let y = Shared(y);
    (0..panels * row_parts).into_par_iter().with_max_len(1).for_each_init(
        || vec![0u32; PANEL * DEPTH + 16],
        |buffer, task| {
            let (panel, part) = (task % panels, task / panels);
            let (first, last) = ((part * part_rows).min(rows), ((part + 1) * part_rows).min(rows));
            let columns = panel * PANEL..((panel + 1) * PANEL).min(n);
            // a cache line's start, for loads that cross none
            let skip = buffer.as_ptr().align_offset(64);
            let packed = &mut buffer[skip..skip + PANEL * DEPTH];
            for start in (0..k).step_by(DEPTH) {
                let depth = DEPTH.min(k - start);
                // SAFETY: the processor has AVX-512 (the caller's promise); indices stay within the asserted lengths, and
                // this task alone writes these rows of these columns.
                unsafe {
                    transpose(&w[columns.start * k..columns.end * k], k, start, depth, packed);
                    let mut row = first;
                    while row < last {
                        let x = x.as_ptr().add(row * k + start);
                        let out = y.at(row * n + columns.start);
                        let here = Tile {
                            x,
                            k,
                            packed: packed.as_ptr(),
                            depth,
                            y: out,
                            n,
                            columns: columns.len(),
                            fresh: start == 0,
                        };
                        match (last - row).min(TILE) {
                            8 => here.run::<8>(unit),
                            7 => here.run::<7>(unit),
                            6 => here.run::<6>(unit),
                            5 => here.run::<5>(unit),
                            4 => here.run::<4>(unit),
                            3 => here.run::<3>(unit),
                            2 => here.run::<2>(unit),
                            _ => here.run::<1>(unit),
                        }
                        row += TILE;
                    }
                }
            }
        },
    );
}

/// Some rows of x, one panel of w, and where their products go.
#[cfg(target_arch = "x86_64")]
struct Tile {
    x: *const u32,
    /// From one row of x to the next.
    k: usize,
    packed: *const u32,
    depth: usize,
    y: *mut f32,
    /// From one row of y to the next.
    n: usize,
    columns: usize,
    /// The first stretch of k writes, the others add.
    fresh: bool,
}

#[cfg(target_arch = "x86_64")]
impl Tile {
    /// # Safety
    /// As `multiply`; R rows of x and y are there.
    unsafe fn run<const R: usize>(&self, unit: Unit) {
        // SAFETY: passed on; bf16 is asked for only where the processor has it.
        unsafe {
            match unit {
                Unit::F32 => self.run_f32::<R>(),
                Unit::Bf16Pair => self.run_bf16::<R>(),
            }
        }
    }

    /// Where each row of x begins, computed once: arithmetic that is checked for overflow would leave the loop no registers.
    unsafe fn rows<const R: usize>(&self) -> [*const u32; R] {
        // SAFETY: R rows `k` apart are there.
        std::array::from_fn(|row| unsafe { self.x.add(row * self.k) })
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn run_f32<const R: usize>(&self) {
        // SAFETY: `packed` holds depth · 48 units, x has `depth` units in each of R rows `k` apart.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 3]; R];
            let (x, mut b) = (self.rows::<R>(), self.packed.cast::<f32>());
            for i in 0..self.depth {
                let w = [
                    _mm512_loadu_ps(b),
                    _mm512_loadu_ps(b.add(16)),
                    _mm512_loadu_ps(b.add(32)),
                ];
                for (x, sums) in x.iter().zip(&mut sums) {
                    let a = _mm512_set1_ps(*x.cast::<f32>().add(i));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_fmadd_ps(a, w, *sum);
                    }
                }
                b = b.add(PANEL);
            }
            self.store(&sums);
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn run_bf16<const R: usize>(&self) {
        // SAFETY: as in `run_f32`; a register of 16 units and one of 32 bf16 are the same bits.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 3]; R];
            let (x, mut b) = (self.rows::<R>(), self.packed.cast::<i32>());
            for i in 0..self.depth {
                let w = [0, 16, 32].map(|at| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_epi32(b.add(at))));
                for (x, sums) in x.iter().zip(&mut sums) {
                    let a = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*x.cast::<i32>().add(i)));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_dpbf16_ps(*sum, a, w);
                    }
                }
                b = b.add(PANEL);
            }
            self.store(&sums);
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn store<const R: usize>(&self, sums: &[[__m512; 3]; R]) {
        for (row, sums) in sums.iter().enumerate() {
            for (third, sum) in sums.iter().enumerate() {
                let left = self.columns.saturating_sub(16 * third).min(16);
                let mask = ((1u32 << left) - 1) as __mmask16;
                // SAFETY: the mask keeps to the panel's columns, which are there in each of R rows of y.
                unsafe {
                    // wrapping: a third without columns may begin behind the buffer, and its mask is empty
                    let y = self.y.wrapping_add(row * self.n + 16 * third);
                    let sum = match self.fresh {
                        true => *sum,
                        false => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), *sum),
                    };
                    _mm512_mask_storeu_ps(y, mask, sum);
                }
            }
        }
    }
}

/// Columns `start..start + depth` of w's rows (at most 48, `k` units each) → packed (depth, 48), zeros where rows end.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn transpose(w: &[u32], k: usize, start: usize, depth: usize, packed: &mut [u32]) {
    let rows = w.len() / k;
    for group in 0..PANEL / 16 {
        let mut column = 0;
        if rows >= (group + 1) * 16 {
            while column + 16 <= depth {
                // SAFETY: 16 rows with 16 columns each are there, and 16 packed rows of 48.
                unsafe {
                    let from = w.as_ptr().add(group * 16 * k + start + column);
                    let to = packed.as_mut_ptr().add(column * PANEL + group * 16);
                    square(from, k, to);
                }
                column += 16;
            }
        }
        for column in column..depth {
            for lane in 0..16 {
                let row = group * 16 + lane;
                packed[column * PANEL + row] = if row < rows { w[row * k + start + column] } else { 0 };
            }
        }
    }
}

/// Transposes 16 × 16 units: rows `k` apart to rows 48 apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn square(from: *const u32, k: usize, to: *mut u32) {
    // SAFETY: the caller has 16 rows of 16 units on both sides.
    unsafe {
        let mut r: [__m512i; 16] = std::array::from_fn(|row| _mm512_loadu_epi32(from.add(row * k).cast()));
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
        }
        // r[4i + j] holds, in its four quarters, columns j, j + 4, j + 8, j + 12 of rows 4i..4i + 4
        for j in 0..4 {
            let low = _mm512_shuffle_i32x4::<0x88>(r[j], r[4 + j]); // columns j, j + 8 of rows 0..8
            let high = _mm512_shuffle_i32x4::<0x88>(r[8 + j], r[12 + j]);
            let low_odd = _mm512_shuffle_i32x4::<0xdd>(r[j], r[4 + j]); // columns j + 4, j + 12
            let high_odd = _mm512_shuffle_i32x4::<0xdd>(r[8 + j], r[12 + j]);
            t[j] = _mm512_shuffle_i32x4::<0x88>(low, high);
            t[j + 8] = _mm512_shuffle_i32x4::<0xdd>(low, high);
            t[j + 4] = _mm512_shuffle_i32x4::<0x88>(low_odd, high_odd);
            t[j + 12] = _mm512_shuffle_i32x4::<0xdd>(low_odd, high_odd);
        }
        for (row, t) in t.into_iter().enumerate() {
            _mm512_storeu_epi32(to.add(row * PANEL).cast(), t);
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
pub(super) mod tests {
    use super::*;

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

    pub type Multiply = unsafe fn(Unit, &[u32], &[u32], *mut f32, usize, usize, usize);

    /// The product by a kernel whose processor is here: callers ask `supports` first.
    pub fn product(
        multiply: Multiply,
        unit: Unit,
        x: &[u32],
        w: &[u32],
        (rows, n, k): (usize, usize, usize),
    ) -> Vec<f32> {
        let mut y = vec![f32::NAN; rows * n];
        // SAFETY: the processor has the kernel; y has rows · n elements.
        unsafe { multiply(unit, x, w, y.as_mut_ptr(), rows, n, k) };
        y
    }

    /// Holds a product to its definition, in f64.
    #[track_caller]
    pub fn close(y: &[f32], x: &[f32], w: &[f32], (rows, n, k): (usize, usize, usize)) {
        for row in 0..rows {
            for column in 0..n {
                let exact: f64 = (0..k)
                    .map(|i| f64::from(x[row * k + i]) * f64::from(w[column * k + i]))
                    .sum();
                let found = f64::from(y[row * n + column]);
                assert!(
                    (found - exact).abs() < 1e-4,
                    "{rows}x{n}x{k} at {row},{column}: {found} {exact}"
                );
            }
        }
    }

    /// Holds a kernel for bf16 pairs to the definition.
    pub fn pairs_are_bf16(multiply: Multiply, shape @ (rows, n, k): (usize, usize, usize)) {
        let half = |values: Vec<f32>| values.into_iter().map(half::bf16::from_f32).collect::<Vec<_>>();
        let (x, w) = (half(values(rows * k, 1)), half(values(n * k, 2)));
        let pairs = |v: &[half::bf16]| {
            v.chunks(2)
                .map(|p| u32::from(p[0].to_bits()) | u32::from(p[1].to_bits()) << 16)
                .collect::<Vec<_>>()
        };
        let wide = |v: &[half::bf16]| v.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        let y = product(multiply, Unit::Bf16Pair, &pairs(&x), &pairs(&w), (rows, n, k / 2));
        close(&y, &wide(&x), &wide(&w), shape);
    }

    /// Parts of x, multiplied alone, give the bits of those rows of the whole.
    pub fn rows_are_independent(multiply: Multiply, (rows, n, k): (usize, usize, usize), parts: &[(usize, usize)]) {
        let (x, w) = (bits(&values(rows * k, 3)), bits(&values(n * k, 4)));
        let whole = product(multiply, Unit::F32, &x, &w, (rows, n, k));
        for &(start, count) in parts {
            let part = product(
                multiply,
                Unit::F32,
                &x[start * k..(start + count) * k],
                &w,
                (count, n, k),
            );
            assert_eq!(
                bits(&part),
                bits(&whole[start * n..(start + count) * n]),
                "{start} {count}"
            );
        }
    }

    #[test]
    fn products_of_awkward_shapes_are_those_of_the_definition() {
        if !supports(Unit::F32) {
            return harness::skip("avx512f", "no AVX-512 here");
        }
        for shape @ (rows, n, k) in [
            (1, 1, 1),
            (8, 48, 16),
            (7, 47, 15),
            (9, 49, 385),
            (3, 16, 800),
            (33, 130, 401),
            (65, 33, 64),
        ] {
            let (x, w) = (values(rows * k, 1), values(n * k, 2));
            close(
                &product(multiply, Unit::F32, &bits(&x), &bits(&w), shape),
                &x,
                &w,
                shape,
            );
        }
    }

    #[test]
    fn pairs_of_bf16_are_multiplied_as_bf16() {
        if !supports(Unit::Bf16Pair) {
            return harness::skip("avx512_bf16", "no AVX512-BF16 here");
        }
        pairs_are_bf16(multiply, (11, 50, 70));
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_the_rows_beside_it() {
        if !supports(Unit::F32) {
            return harness::skip("avx512f", "no AVX-512 here");
        }
        let parts = [(0, 1), (5, 3), (11, 8), (20, 50), (69, 1)];
        rows_are_independent(multiply, (70, 100, 500), &parts);
    }
}
