//! Vectors as slices of f64: sums in order, so that the same rows give the same bits.

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub fn norm(vector: &[f64]) -> f64 {
    dot(vector, vector).sqrt()
}

/// None for a vector of zero or no finite length.
pub fn unit(vector: &[f64]) -> Option<Vec<f64>> {
    let length = norm(vector);
    (length.is_finite() && length > 0.0).then(|| vector.iter().map(|x| x / length).collect())
}

/// a − share · b
pub fn without(a: &[f64], share: f64, b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - share * b).collect()
}

/// a − b; what rounding alone leaves of two equal means is zero.
pub fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    let left = without(a, 1.0, b);
    match norm(&left) > 1e-9 * (norm(a) + norm(b)) {
        true => left,
        false => vec![0.0; left.len()],
    }
}

/// Of at least one row.
pub fn mean<R: AsRef<[f64]>>(rows: &[R]) -> Vec<f64> {
    let width = rows.first().map_or(0, |row| row.as_ref().len());
    let mut sum = vec![0.0; width];
    for row in rows {
        sum.iter_mut().zip(row.as_ref()).for_each(|(sum, x)| *sum += x);
    }
    sum.iter().map(|sum| sum / rows.len() as f64).collect()
}

pub fn mean_norm<R: AsRef<[f64]>>(rows: &[R]) -> f64 {
    rows.iter().map(|row| norm(row.as_ref())).sum::<f64>() / rows.len() as f64
}
