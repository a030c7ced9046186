//! How two spaces, two sets of directions or two representations of the same rows agree.

use crate::lapack::{self, LapackError};
use crate::spectrum::gram;
use ndarray::{Array2, ArrayView2};
use products::Product;

/// Structural alignment: |cos| of two directions; signs of components are arbitrary. `None` for a zero vector.
pub fn alignment(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "directions of one space");
    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    let lengths = a.iter().map(|x| x * x).sum::<f64>().sqrt() * b.iter().map(|x| x * x).sum::<f64>().sqrt();
    (lengths > 0.0).then(|| (dot.abs() / lengths).min(1.0))
}

/// Principal angles in radians, ascending, between the spans of orthonormal rows: cos θ = singular values of V_a V_bᵀ.
pub fn principal_angles(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Result<Vec<f64>, LapackError> {
    let cosines = lapack::singular_values(Product::of(a, b.t()).to_array().view())?;
    // Near 0 the arc cosine loses half the digits; the sine of the residual does not, but 1e-8 rad is beyond any use of these angles.
    Ok(cosines
        .into_iter()
        .map(|cosine| libm::acos(cosine.clamp(-1.0, 1.0)))
        .collect())
}

/// ‖V_a V_bᵀ‖_F² / k for orthonormal rows, k the smaller count: 1 when one span lies in the other. `None` without rows.
pub fn overlap(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Option<f64> {
    let k = a.nrows().min(b.nrows());
    (k > 0).then(|| (square_sum(&Product::of(a, b.t()).to_vec()) / k as f64).min(1.0))
}

fn square_sum(numbers: &[f64]) -> f64 {
    numbers.iter().map(|x| x * x).sum()
}

/// Linear CKA, ‖YᵀX‖_F² / (‖XᵀX‖_F ‖YᵀY‖_F), of centred representations of the same rows, from their Gram matrices:
/// ⟨K, L⟩ / (‖K‖ ‖L‖). `None` when a side does not vary.
pub fn cka_of_grams(k: ArrayView2<'_, f64>, l: ArrayView2<'_, f64>) -> Option<f64> {
    assert_eq!(k.dim(), l.dim(), "Gram matrices of the same rows");
    let (mut inner, mut k_square, mut l_square) = (0.0, 0.0, 0.0);
    for (k, l) in k.iter().zip(l) {
        inner += k * l;
        k_square += k * k;
        l_square += l * l;
    }
    (k_square > 0.0 && l_square > 0.0).then(|| (inner / (k_square.sqrt() * l_square.sqrt())).clamp(0.0, 1.0))
}

/// Linear CKA of centred rows, through the cross products of columns: for more rows than dimensions.
pub fn cka_of_rows(x: ArrayView2<'_, f64>, y: ArrayView2<'_, f64>) -> Option<f64> {
    assert_eq!(x.nrows(), y.nrows(), "representations of the same rows");
    let square = |a: &ArrayView2<'_, f64>, b: &ArrayView2<'_, f64>| square_sum(&Product::of(a.t(), b.view()).to_vec());
    let (xx, yy) = (square(&x, &x), square(&y, &y));
    (xx > 0.0 && yy > 0.0).then(|| (square(&x, &y) / (xx.sqrt() * yy.sqrt())).clamp(0.0, 1.0))
}

/// Procrustes distance of two equally long lists of points, each centred and scaled to unit size: 1 − (Σσ)² with σ the singular
/// values of AᵀB; 0 when a rotation, a shift and a scale turn one into the other. `None` when the points of a side all coincide.
pub fn procrustes(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Result<Option<f64>, LapackError> {
    assert_eq!(a.nrows(), b.nrows(), "the same number of points");
    let (Some(a), Some(b)) = (standard(a), standard(b)) else {
        return Ok(None);
    };
    let cross = if a.nrows() <= a.ncols().min(b.ncols()) {
        // Few points in many dimensions: with A = U√Λ W, the small √Λ_a U_aᵀ U_b √Λ_b has the singular values of AᵀB.
        Product::of(root_of_gram(&a)?.view(), root_of_gram(&b)?.t()).to_array()
    } else {
        Product::of(a.t(), b.view()).to_array()
    };
    let sum: f64 = lapack::singular_values(cross.view())?.iter().sum();
    Ok(Some((1.0 - sum * sum).max(0.0)))
}

/// √Λ Uᵀ of the Gram matrix U Λ Uᵀ of points.
fn root_of_gram(points: &Array2<f64>) -> Result<Array2<f64>, LapackError> {
    let mut eigen = lapack::eigen(gram(points.view()))?;
    for (mut row, value) in eigen.vectors.rows_mut().into_iter().zip(&eigen.values) {
        row *= value.max(0.0).sqrt();
    }
    Ok(eigen.vectors)
}

/// Centred points of unit size all together.
fn standard(points: ArrayView2<'_, f64>) -> Option<Array2<f64>> {
    let count = points.nrows() as f64;
    let mut mean = vec![0.0; points.ncols()];
    for point in points.rows() {
        mean.iter_mut().zip(point).for_each(|(mean, x)| *mean += x / count);
    }
    let mut centred = points.to_owned();
    for mut point in centred.rows_mut() {
        point.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
    }
    let size = centred.iter().map(|x| x * x).sum::<f64>().sqrt();
    centred /= size;
    (size > 0.0).then_some(centred)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use ndarray::{arr2, s};

    fn cloud(seed: u64, row_count: usize, width: usize) -> Array2<f64> {
        let rng = Rng::new(seed, "subspace test");
        let rows = Array2::from_shape_fn((row_count, width), |(i, j)| rng.normal(i as u64, j as u64));
        let mean = rows.mean_axis(ndarray::Axis(0)).unwrap();
        rows - mean
    }

    #[test]
    fn a_direction_is_aligned_with_itself_and_with_its_negative() {
        let a = [0.3, -0.4, 1.2];
        let negative: Vec<f64> = a.iter().map(|x| -x).collect();
        assert!((alignment(&a, &a).unwrap() - 1.0).abs() < 1e-15);
        assert!((alignment(&a, &negative).unwrap() - 1.0).abs() < 1e-15);
        assert_eq!(alignment(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        assert_eq!(alignment(&[0.0, 0.0], &[0.0, 2.0]), None);
    }

    #[test]
    fn principal_angles_of_known_planes_are_known() {
        let (c, s) = (0.3_f64.cos(), 0.3_f64.sin());
        let a = arr2(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        let b = arr2(&[[1.0, 0.0, 0.0], [0.0, c, s]]);
        let angles = principal_angles(a.view(), b.view()).unwrap();
        assert!(angles[0].abs() < 1e-7 && (angles[1] - 0.3).abs() < 1e-12);
        assert!((overlap(a.view(), b.view()).unwrap() - (1.0 + c * c) / 2.0).abs() < 1e-15);
    }

    /// The columns at these places, each times a factor.
    fn columns(rows: &Array2<f64>, places: &[(usize, f64)]) -> Array2<f64> {
        Array2::from_shape_fn((rows.nrows(), places.len()), |(i, j)| {
            rows[[i, places[j].0]] * places[j].1
        })
    }

    #[test]
    fn cka_is_one_under_rotation_and_scale_and_the_two_routes_agree() {
        let (x, y) = (cloud(1, 60, 5), cloud(2, 60, 7));
        let turned = columns(&x, &[(1, 3.0), (0, -3.0), (4, 3.0), (2, 3.0), (3, 3.0)]);
        assert!((cka_of_rows(x.view(), turned.view()).unwrap() - 1.0).abs() < 1e-12);
        let by_rows = cka_of_rows(x.view(), y.view()).unwrap();
        let by_grams = cka_of_grams(gram(x.view()).view(), gram(y.view()).view()).unwrap();
        assert!((by_rows - by_grams).abs() < 1e-12 && by_rows < 0.5);
    }

    #[test]
    fn procrustes_forgives_rotation_shift_and_scale_and_nothing_else() {
        let distance = |a: &Array2<f64>, b: &Array2<f64>| procrustes(a.view(), b.view()).unwrap();
        let x = cloud(3, 12, 3);
        let moved = columns(&x, &[(1, 2.0), (2, 2.0), (0, 2.0)]) + arr2(&[[5.0, -1.0, 0.0]]);
        assert!(distance(&x, &moved).unwrap() < 1e-12);
        let few = x.slice(s![..3, ..]).to_owned();
        let wide = columns(&few, &[(0, 0.0), (2, 1.0), (0, 1.0), (1, -1.0), (0, 0.0)]);
        assert!(distance(&few, &wide).unwrap() < 1e-6);
        assert!(distance(&x, &cloud(4, 12, 3)).unwrap() > 0.1);
        assert_eq!(distance(&Array2::ones((2, 3)), &x.slice(s![..2, ..]).to_owned()), None);
    }
}
