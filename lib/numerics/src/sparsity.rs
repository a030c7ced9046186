//! What is lost when a matrix reads only some of its inputs: scores of inputs, which of them are kept, and the error of the output.
//!
//! One score serves several systems: |x_i|·‖W[:, i]‖ is WINA's; R-Sparse's |x_i|·‖(VS)_i‖, V and S of W's singular value decomposition,
//! because a rotation of the outputs changes no norm; and the output norm of a neuron that the Sparsing Law's CETT is cut by.

use crate::leading::leading;
use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};
use products::Product;

/// Rows that a matrix reads, and how large its outputs are.
pub struct Reading {
    input: Array2<f64>,
    transposed: Array2<f64>,
    /// ‖Wx‖² of every row.
    squares: Array1<f64>,
}

/// What a set of rows loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Share of the inputs that are left out.
    pub sparsity: f64,
    /// ‖Y − Y'‖/‖Y‖ over all rows; none where all outputs are zero.
    pub relative_error: Option<f64>,
    /// Cumulative errors of tail truncation: the mean over rows of ‖y − y'‖/‖y‖, rows without output left out.
    pub cett: Option<f64>,
}

/// ‖W[:, i]‖ of a matrix (outputs, inputs).
pub fn column_norms(weights: ArrayView2<'_, f64>) -> Array1<f64> {
    weights.map_axis(Axis(0), |column| libm::sqrt(column.iter().map(|w| w * w).sum()))
}

impl Reading {
    /// Of a matrix (outputs, inputs) and rows of inputs.
    pub fn new(weights: ArrayView2<'_, f64>, input: Array2<f64>) -> Self {
        let transposed = weights.t().as_standard_layout().into_owned();
        let squares = output_squares(&input, &transposed);
        Self {
            input,
            transposed,
            squares,
        }
    }

    pub fn input(&self) -> &Array2<f64> {
        &self.input
    }

    /// What is lost where only what `kept` says is read. `remainder` are orthonormal rows, perhaps none: of what is left out the matrix
    /// reads the projection on their span.
    pub fn loss(&self, kept: &Array2<bool>, remainder: ArrayView2<'_, f64>) -> Loss {
        let mut left_out = self.input.clone();
        Zip::from(&mut left_out).and(kept).for_each(|x, kept| {
            if *kept {
                *x = 0.0;
            }
        });
        if remainder.nrows() > 0 {
            let along = Product::of(left_out.view(), remainder.t()).to_array();
            left_out -= &Product::of(along.view(), remainder).to_array();
        }
        let lost = output_squares(&left_out, &self.transposed);
        let rows = self.squares.iter().zip(&lost).filter(|(whole, _)| **whole > 0.0);
        let shares: Vec<f64> = rows.map(|(whole, lost)| libm::sqrt(lost / whole)).collect();
        let whole = self.squares.sum();
        Loss {
            sparsity: kept.iter().filter(|kept| !**kept).count() as f64 / kept.len().max(1) as f64,
            relative_error: (whole > 0.0).then(|| libm::sqrt(lost.sum() / whole)),
            cett: crate::statistics::mean(&shares),
        }
    }

    /// A threshold among the scores whose CETT does not exceed `cett` while that of the next larger score does, by bisection over ranks; 0
    /// where none keeps within. CETT rises with the threshold but for small steps back, so that the crossing need not be the only one.
    pub fn threshold_of_cett(&self, scores: &Array2<f64>, cett: f64) -> f64 {
        let mut ascending: Vec<f64> = scores.iter().copied().collect();
        ascending.sort_unstable_by(f64::total_cmp);
        let nothing = Array2::zeros((0, scores.ncols()));
        let threshold = |count: usize| if count == 0 { 0.0 } else { ascending[count - 1] };
        let exceeds = |count: usize| {
            let found = self.loss(&above(scores, threshold(count)), nothing.view()).cett;
            found.is_some_and(|found| found > cett)
        };
        let (mut low, mut high) = (0, ascending.len() + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match exceeds(middle) {
                true => high = middle,
                false => low = middle,
            }
        }
        threshold(low)
    }
}

fn output_squares(input: &Array2<f64>, transposed: &Array2<f64>) -> Array1<f64> {
    let output = Product::of(input.view(), transposed.view()).to_array();
    output.map_axis(Axis(1), |row| row.iter().map(|y| y * y).sum())
}

/// |x_i| times the factor of input i.
pub fn scores(input: &Array2<f64>, factors: Option<&Array1<f64>>) -> Array2<f64> {
    let magnitudes = input.mapv(f64::abs);
    match factors {
        None => magnitudes,
        Some(factors) => magnitudes * factors,
    }
}

/// Keeps what lies above a threshold.
pub fn above(scores: &Array2<f64>, threshold: f64) -> Array2<bool> {
    scores.mapv(|score| score > threshold)
}

/// Keeps the `count` largest scores of every row, and what equals the last of them.
pub fn largest(scores: &Array2<f64>, count: usize) -> Array2<bool> {
    let mut kept = Array2::from_elem(scores.raw_dim(), false);
    for (scores, mut kept) in scores.rows().into_iter().zip(kept.rows_mut()) {
        let mut descending = scores.to_vec();
        let Some(last) = count.min(descending.len()).checked_sub(1) else {
            continue;
        };
        let least = *descending.select_nth_unstable_by(last, |a, b| b.total_cmp(a)).1;
        Zip::from(&mut kept)
            .and(&scores)
            .for_each(|kept, score| *kept = *score >= least);
    }
    kept
}

/// The threshold that leaves out this share of all scores: the largest of those that are left out, and 0 where none is.
pub fn threshold_of_share<'a>(scores: impl IntoIterator<Item = &'a f64>, share: f64) -> f64 {
    let mut scores: Vec<f64> = scores.into_iter().copied().collect();
    let count = ((share * scores.len() as f64) as usize).min(scores.len());
    match count.checked_sub(1) {
        None => 0.0,
        Some(last) => *scores.select_nth_unstable_by(last, f64::total_cmp).1,
    }
}

/// The `rank` leading right singular vectors of a matrix (outputs, inputs), as rows: what R-Sparse reads of the inputs that it leaves out.
pub fn right_singular(weights: ArrayView2<'_, f64>, rank: usize) -> Array2<f64> {
    let (outputs, inputs) = weights.dim();
    let rank = rank.min(outputs).min(inputs);
    if rank == 0 {
        return Array2::zeros((0, inputs));
    }
    let is_wide = outputs < inputs;
    let narrow = if is_wide { weights } else { weights.t() };
    let wide = narrow.t().as_standard_layout().into_owned();
    let gram = Product::of(narrow, wide.view()).to_array();
    let gram = gram.mapv(|x| x as f32);
    let vectors = leading(gram.view(), rank, Array2::zeros((0, 0)).view()).vectors;
    if !is_wide {
        return vectors;
    }
    let mut turned = Product::of(vectors.view(), narrow).to_array();
    crate::leading::orthonormalise(&mut turned);
    turned
}

/// Shares to leave out of several matrices that together are `target` of all weights: the next step is always made where the error after
/// it is least. A curve holds a matrix's errors at the shares 0, 1/n, …, 1; every step is as many weights, one part in n of the
/// largest matrix.
pub fn allocate(curves: &[Vec<f64>], weight_counts: &[f64], target: f64) -> Vec<f64> {
    let total: f64 = weight_counts.iter().sum();
    let largest = weight_counts.iter().copied().fold(0.0, f64::max);
    let parts = curves.first().map_or(1, |curve| curve.len().max(2) - 1) as f64;
    let mut shares = vec![0.0; curves.len()];
    let mut left = target.min(1.0) * total;
    while left > 1e-9 * total {
        let step = |at: usize| (largest / parts).min(left).min((1.0 - shares[at]) * weight_counts[at]);
        let open = (0..shares.len()).filter(|&at| step(at) > 0.0);
        let after = |at: usize| interpolated(&curves[at], shares[at] + step(at) / weight_counts[at]);
        let Some(best) = open.min_by(|&a, &b| after(a).total_cmp(&after(b))) else {
            break;
        };
        let taken = step(best);
        shares[best] += taken / weight_counts[best];
        left -= taken;
    }
    shares
}

/// A curve over [0, 1] between its points.
fn interpolated(curve: &[f64], share: f64) -> f64 {
    let at = share.clamp(0.0, 1.0) * (curve.len() - 1) as f64;
    let below = (at as usize).min(curve.len() - 1);
    let above = (below + 1).min(curve.len() - 1);
    curve[below] + (at - below as f64) * (curve[above] - curve[below])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sines(rows: usize, columns: usize, a: f64) -> Array2<f64> {
        Array2::from_shape_fn((rows, columns), |(i, j)| {
            libm::sin(a * ((i + 1) * (j + 1)) as f64 + 0.1 * j as f64)
        })
    }

    /// Gate and up of the listing's golden numbers, and what reads their product.
    fn golden() -> (Array2<f64>, Array2<f64>, Array1<f64>, Reading) {
        let gate = sines(32, 24, 0.31);
        let scale = Array1::from_shape_fn(24, |j| 0.2 + 1.8 * j as f64 / 23.0);
        let up = sines(32, 24, 0.53) * scale;
        let weights = sines(24, 12, 0.77);
        let reading = Reading::new(weights.t(), &gate * &up);
        (gate, up, column_norms(weights.t()), reading)
    }

    fn loss(reading: &Reading, kept: Array2<bool>) -> Loss {
        reading.loss(&kept, Array2::zeros((0, kept.ncols())).view())
    }

    #[test]
    fn the_golden_errors_of_teal_wina_cats_and_chess() {
        let (gate, up, norms, reading) = golden();
        let error = |kept| loss(&reading, kept).relative_error.unwrap();
        let top = |factors| error(largest(&scores(reading.input(), factors), 12));
        assert!((top(None) - 0.179_273_885_4).abs() < 1e-10);
        assert!((top(Some(&norms)) - 0.162_367_144_1).abs() < 1e-10);
        let magnitudes = scores(&gate, None);
        let cats = threshold_of_share(&magnitudes, 0.5);
        assert!((cats - 0.664_023_409_8).abs() < 1e-10);
        assert!((error(above(&magnitudes, cats)) - 0.390_873_226_0).abs() < 1e-10);
        // CHESS scores gate² · E[up²]; here its root
        let factors = up.mapv(|x| x * x).mean_axis(Axis(0)).unwrap().mapv(f64::sqrt);
        let chess = scores(&gate, Some(&factors));
        let threshold = threshold_of_share(&chess, 0.5);
        assert!((threshold * threshold - 0.161_662_849_2).abs() < 1e-10);
        assert!((threshold / factors[0] - 2.825_750_02).abs() < 1e-8);
        assert!((threshold / factors[23] - 0.316_684_94).abs() < 1e-8);
        assert!((error(above(&chess, threshold)) - 0.242_034_138_7).abs() < 1e-10);
    }

    #[test]
    fn the_golden_truncation_errors_and_the_thresholds_that_give_them() {
        let (_, _, norms, reading) = golden();
        let scores = scores(reading.input(), Some(&norms));
        for (threshold, cett, active) in [
            (0.1, 0.017_061_383_4, 0.872_395_833_3),
            (0.5, 0.127_041_985_1, 0.580_729_166_7),
            (1.0, 0.291_895_682_3, 0.391_927_083_3),
        ] {
            let found = loss(&reading, above(&scores, threshold));
            assert!((found.cett.unwrap() - cett).abs() < 1e-10);
            assert!((1.0 - found.sparsity - active).abs() < 1e-10);
            // what is found keeps within the bound, and the next larger score does not
            let within = reading.threshold_of_cett(&scores, cett);
            let next = scores
                .iter()
                .copied()
                .filter(|score| *score > within)
                .fold(f64::MAX, f64::min);
            let cett_at = |threshold| loss(&reading, above(&scores, threshold)).cett.unwrap();
            assert!(cett_at(within) <= cett && cett < cett_at(next));
            assert!(
                (within - threshold).abs() < 0.2 * threshold,
                "{within}, not {threshold}"
            );
        }
        assert_eq!(reading.threshold_of_cett(&scores, 0.0), 0.0);
        let all = scores.iter().copied().fold(0.0, f64::max);
        assert_eq!(reading.threshold_of_cett(&scores, 1e9), all);
    }

    #[test]
    fn the_allocation_meets_its_target_where_errors_are_least() {
        let steep: Vec<f64> = (0..=10).map(f64::from).collect();
        let flat: Vec<f64> = steep.iter().map(|x| 0.05 * x).collect();
        let shares = allocate(&[steep.clone(), flat.clone()], &[100.0, 50.0], 0.4);
        // 60 of 150 weights: the flat one first, all of its 50
        assert!(
            (shares[1] - 1.0).abs() < 1e-12 && (shares[0] - 0.1).abs() < 1e-12,
            "{shares:?}"
        );
        let same = allocate(&[steep.clone(), steep.clone()], &[100.0, 100.0], 0.5);
        assert!(same.iter().all(|share| (share - 0.5).abs() < 1e-9), "{same:?}");
        let all = allocate(&[steep, flat], &[1.0, 1.0], 1.0);
        assert!(all.iter().all(|share| (share - 1.0).abs() < 1e-12), "{all:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_column_has_the_norm_of_its_row_in_right_singular_vectors_times_values(
            numbers in proptest::collection::vec(-1.0_f64..1.0, 40), is_wide in any::<bool>(),
        ) {
            let shape = if is_wide { (5, 8) } else { (8, 5) };
            let weights = Array2::from_shape_vec(shape, numbers).unwrap();
            let vectors = right_singular(weights.view(), 5); // (5, inputs)
            let images = weights.dot(&vectors.t()); // columns are σ u
            let values = column_norms(images.view());
            let turned = &vectors.t() * &values; // VS
            for (norm, row) in column_norms(weights.view()).iter().zip(turned.rows()) {
                prop_assert!((norm - row.dot(&row).sqrt()).abs() < 1e-6);
            }
        }

        #[test]
        fn nothing_left_out_loses_nothing_and_all_of_it_everything_but_the_remainder(
            numbers in proptest::collection::vec(-1.0_f64..1.0, 40), weights in proptest::collection::vec(-1.0_f64..1.0, 24),
        ) {
            let input = Array2::from_shape_vec((5, 8), numbers).unwrap();
            let weights = Array2::from_shape_vec((3, 8), weights).unwrap();
            let reading = Reading::new(weights.view(), input.clone());
            let magnitudes = scores(&input, None);
            prop_assert_eq!(loss(&reading, above(&magnitudes, -1.0)).relative_error, Some(0.0));
            let everything = loss(&reading, above(&magnitudes, f64::INFINITY));
            prop_assert!((everything.relative_error.unwrap() - 1.0).abs() < 1e-12 && everything.sparsity == 1.0);
            for count in 0..=8 {
                let found = loss(&reading, largest(&magnitudes, count));
                prop_assert!((found.sparsity - (8 - count) as f64 / 8.0).abs() < 1e-12);
            }
            // all of the matrix lies in three directions
            let rest = reading.loss(&largest(&magnitudes, 2), right_singular(weights.view(), 3).view());
            prop_assert!(rest.relative_error.unwrap() < 1e-3, "{rest:?}");
        }
    }
}
