//! How two spaces, two sets of directions or two representations of the same rows agree.

use crate::lapack::{self, LapackError};
use crate::product::{self, View};

/// Structural alignment: |cos| of two directions; signs of components are arbitrary. `None` for a zero vector.
pub fn alignment(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "directions of one space");
    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    let lengths = a.iter().map(|x| x * x).sum::<f64>().sqrt() * b.iter().map(|x| x * x).sum::<f64>().sqrt();
    (lengths > 0.0).then(|| (dot.abs() / lengths).min(1.0))
}

/// Principal angles in radians, ascending, between the spans of orthonormal rows: cos θ = singular values of V_a V_bᵀ.
pub fn principal_angles(a: &[f64], b: &[f64], width: usize) -> Result<Vec<f64>, LapackError> {
    let (cross, a_count, b_count) = cross(a, b, width);
    let cosines = lapack::singular_values(&cross, a_count, b_count)?;
    // Near 0 the arc cosine loses half the digits; the sine of the residual does not, but 1e-8 rad is beyond any use of these angles.
    Ok(cosines
        .into_iter()
        .map(|cosine| libm::acos(cosine.clamp(-1.0, 1.0)))
        .collect())
}

/// ‖V_a V_bᵀ‖_F² / k for orthonormal rows, k the smaller count: 1 when one span lies in the other. `None` without rows.
pub fn overlap(a: &[f64], b: &[f64], width: usize) -> Option<f64> {
    let (cross, a_count, b_count) = cross(a, b, width);
    let k = a_count.min(b_count);
    (k > 0).then(|| (cross.iter().map(|x| x * x).sum::<f64>() / k as f64).min(1.0))
}

fn cross(a: &[f64], b: &[f64], width: usize) -> (Vec<f64>, usize, usize) {
    let (a_count, b_count) = (a.len() / width.max(1), b.len() / width.max(1));
    let mut cross = vec![0.0; a_count * b_count];
    product::multiply(
        View::new(a, a_count, width, width),
        View::new(b, b_count, width, width).transposed(),
        &mut cross,
        b_count,
    );
    (cross, a_count, b_count)
}

/// Linear CKA, ‖YᵀX‖_F² / (‖XᵀX‖_F ‖YᵀY‖_F), of centred representations of the same rows, from their Gram matrices:
/// ⟨K, L⟩ / (‖K‖ ‖L‖). `None` when a side does not vary.
pub fn cka_of_grams(k: &[f64], l: &[f64]) -> Option<f64> {
    assert_eq!(k.len(), l.len(), "Gram matrices of the same rows");
    let (mut inner, mut k_square, mut l_square) = (0.0, 0.0, 0.0);
    for (k, l) in k.iter().zip(l) {
        inner += k * l;
        k_square += k * k;
        l_square += l * l;
    }
    (k_square > 0.0 && l_square > 0.0).then(|| (inner / (k_square.sqrt() * l_square.sqrt())).clamp(0.0, 1.0))
}

/// Linear CKA of centred rows, through the cross products of columns: for more rows than dimensions.
pub fn cka_of_rows(x: &[f64], x_width: usize, y: &[f64], y_width: usize) -> Option<f64> {
    let row_count = x.len() / x_width.max(1);
    assert_eq!(row_count, y.len() / y_width.max(1), "representations of the same rows");
    let square = |a: &[f64], a_width: usize, b: &[f64], b_width: usize| {
        let mut out = vec![0.0; a_width * b_width];
        product::multiply(
            View::new(a, row_count, a_width, a_width).transposed(),
            View::new(b, row_count, b_width, b_width),
            &mut out,
            b_width,
        );
        out.iter().map(|x| x * x).sum::<f64>()
    };
    let (xx, yy) = (square(x, x_width, x, x_width), square(y, y_width, y, y_width));
    (xx > 0.0 && yy > 0.0).then(|| (square(x, x_width, y, y_width) / (xx.sqrt() * yy.sqrt())).clamp(0.0, 1.0))
}

/// Procrustes distance of two equally long lists of points, each centred and scaled to unit size: 1 − (Σσ)² with σ the singular
/// values of AᵀB; 0 when a rotation, a shift and a scale turn one into the other. `None` when the points of a side all coincide.
pub fn procrustes(a: &[f64], a_width: usize, b: &[f64], b_width: usize) -> Result<Option<f64>, LapackError> {
    let count = a.len() / a_width.max(1);
    assert_eq!(count, b.len() / b_width.max(1), "the same number of points");
    let (Some(a), Some(b)) = (standard(a, a_width), standard(b, b_width)) else {
        return Ok(None);
    };
    let values = if count <= a_width.min(b_width) {
        // Few points in many dimensions: with A = U√Λ W, the small √Λ_a U_aᵀ U_b √Λ_b has the singular values of AᵀB.
        let (a, b) = (root_of_gram(&a, a_width)?, root_of_gram(&b, b_width)?);
        lapack::singular_values(&cross(&a, &b, count).0, count, count)?
    } else {
        let mut cross = vec![0.0; a_width * b_width];
        product::multiply(
            View::new(&a, count, a_width, a_width).transposed(),
            View::new(&b, count, b_width, b_width),
            &mut cross,
            b_width,
        );
        lapack::singular_values(&cross, a_width, b_width)?
    };
    let sum: f64 = values.iter().sum();
    Ok(Some((1.0 - sum * sum).max(0.0)))
}

/// √Λ Uᵀ of the Gram matrix U Λ Uᵀ of points.
fn root_of_gram(points: &[f64], width: usize) -> Result<Vec<f64>, LapackError> {
    let count = points.len() / width;
    let mut eigen = lapack::eigen(crate::spectrum::gram(points, width), count)?;
    for (row, value) in eigen.vectors.chunks_exact_mut(count).zip(&eigen.values) {
        let root = value.max(0.0).sqrt();
        for x in row {
            *x *= root;
        }
    }
    Ok(eigen.vectors)
}

fn standard(points: &[f64], width: usize) -> Option<Vec<f64>> {
    let count = points.len() / width.max(1);
    let mut mean = vec![0.0; width];
    for point in points.chunks_exact(width) {
        for (mean, x) in mean.iter_mut().zip(point) {
            *mean += x / count as f64;
        }
    }
    let mut centred: Vec<f64> = points
        .chunks_exact(width)
        .flat_map(|point| point.iter().zip(&mean).map(|(x, m)| x - m))
        .collect();
    let size = centred.iter().map(|x| x * x).sum::<f64>().sqrt();
    for x in &mut centred {
        *x /= size;
    }
    (size > 0.0).then_some(centred)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::spectrum::gram;

    fn cloud(seed: u64, row_count: usize, width: usize) -> Vec<f64> {
        let rng = Rng::new(seed, "subspace test");
        let rows: Vec<f64> = (0..row_count * width)
            .map(|i| rng.normal((i / width) as u64, (i % width) as u64))
            .collect();
        let mut mean = vec![0.0; width];
        for row in rows.chunks(width) {
            for (mean, x) in mean.iter_mut().zip(row) {
                *mean += x / row_count as f64;
            }
        }
        rows.chunks(width)
            .flat_map(|row| row.iter().zip(&mean).map(|(x, m)| x - m).collect::<Vec<_>>())
            .collect()
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
        let a = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let b = [1.0, 0.0, 0.0, 0.0, c, s];
        let angles = principal_angles(&a, &b, 3).unwrap();
        assert!(angles[0].abs() < 1e-7 && (angles[1] - 0.3).abs() < 1e-12);
        assert!((overlap(&a, &b, 3).unwrap() - (1.0 + c * c) / 2.0).abs() < 1e-15);
    }

    #[test]
    fn cka_is_one_under_rotation_and_scale_and_the_two_routes_agree() {
        let x = cloud(1, 60, 5);
        let y = cloud(2, 60, 7);
        let turned: Vec<f64> = x
            .chunks(5)
            .flat_map(|r| [3.0 * r[1], -3.0 * r[0], 3.0 * r[4], 3.0 * r[2], 3.0 * r[3]])
            .collect();
        assert!((cka_of_rows(&x, 5, &turned, 5).unwrap() - 1.0).abs() < 1e-12);
        let by_rows = cka_of_rows(&x, 5, &y, 7).unwrap();
        let by_grams = cka_of_grams(&gram(&x, 5), &gram(&y, 7)).unwrap();
        assert!((by_rows - by_grams).abs() < 1e-12 && by_rows < 0.5);
    }

    #[test]
    fn procrustes_forgives_rotation_shift_and_scale_and_nothing_else() {
        let x = cloud(3, 12, 3);
        let moved: Vec<f64> = x
            .chunks(3)
            .flat_map(|r| [2.0 * r[1] + 5.0, 2.0 * r[2] - 1.0, 2.0 * r[0]])
            .collect();
        assert!(procrustes(&x, 3, &moved, 3).unwrap().unwrap() < 1e-12);
        let wide: Vec<f64> = x
            .chunks(3)
            .take(3)
            .flat_map(|r| [0.0, r[2], r[0], -r[1], 0.0])
            .collect();
        assert!(procrustes(&x[..9], 3, &wide, 5).unwrap().unwrap() < 1e-6);
        assert!(procrustes(&x, 3, &cloud(4, 12, 3), 3).unwrap().unwrap() > 0.1);
        assert_eq!(procrustes(&[1.0; 6], 3, &x[..6], 3).unwrap(), None);
    }
}
