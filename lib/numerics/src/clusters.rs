//! Dividing rows into clusters, and how well a division holds: k-means from several starts, and the silhouette.

use crate::rng::Rng;
use rayon::prelude::*;

/// Starts of which the best is kept.
const START_COUNT: u64 = 10;
const ROUND_COUNT_MAX: usize = 300;

/// The cluster of every row, numbered by first appearance: k-means (Lloyd) from k-means++ starts, of which the one with the smallest
/// sum of squared distances is kept. Fewer clusters come out where there are fewer distinct rows.
pub fn divide(rows: &[Vec<f64>], count: usize, seed: u64) -> Vec<usize> {
    let rng = Rng::new(seed, "k-means");
    let runs = (0..START_COUNT).map(|start| settled(rows, seeds(rows, count, &rng, start)));
    let best = runs.reduce(|best, next| if next.1 < best.1 { next } else { best });
    by_appearance(best.map_or_else(Vec::new, |(labels, _)| labels))
}

/// Rows drawn with a probability in proportion to their squared distance from those drawn before.
fn seeds(rows: &[Vec<f64>], count: usize, rng: &Rng, start: u64) -> Vec<Vec<f64>> {
    let Some(first) = (!rows.is_empty()).then(|| rng.below(start, 0, rows.len())) else {
        return Vec::new();
    };
    let mut centres = vec![rows[first].clone()];
    for draw in 1..count {
        let squares: Vec<f64> = rows.iter().map(|row| nearest(row, &centres).1).collect();
        let total: f64 = squares.iter().sum();
        if total <= 0.0 {
            break;
        }
        let mut left = rng.uniform(start, draw as u64) * total;
        let drawn = squares.iter().position(|square| {
            left -= square;
            left < 0.0
        });
        centres.push(rows[drawn.unwrap_or(rows.len() - 1)].clone());
    }
    centres
}

/// Labels that no longer change, and the sum of squared distances.
fn settled(rows: &[Vec<f64>], mut centres: Vec<Vec<f64>>) -> (Vec<usize>, f64) {
    let mut labels = vec![usize::MAX; rows.len()];
    for _ in 0..ROUND_COUNT_MAX {
        let now: Vec<usize> = rows.par_iter().map(|row| nearest(row, &centres).0).collect();
        if now == labels {
            break;
        }
        labels = now;
        for (label, centre) in centres.iter_mut().enumerate() {
            let members: Vec<&Vec<f64>> = rows
                .iter()
                .zip(&labels)
                .filter(|(_, of)| **of == label)
                .map(|(row, _)| row)
                .collect();
            if !members.is_empty() {
                *centre = mean(&members);
            }
        }
    }
    let squares = rows
        .iter()
        .zip(&labels)
        .map(|(row, &label)| square_distance(row, &centres[label]));
    let sum = squares.sum();
    (labels, sum)
}

fn mean(rows: &[&Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; rows[0].len()];
    for row in rows {
        sum.iter_mut().zip(*row).for_each(|(sum, x)| *sum += x);
    }
    sum.iter().map(|sum| sum / rows.len() as f64).collect()
}

/// The nearest centre, of equally near ones the first, and its squared distance.
fn nearest(row: &[f64], centres: &[Vec<f64>]) -> (usize, f64) {
    let distances = centres.iter().map(|centre| square_distance(row, centre)).enumerate();
    let nearest = distances.reduce(|best, next| if next.1 < best.1 { next } else { best });
    nearest.unwrap_or((0, 0.0))
}

fn square_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn by_appearance(labels: Vec<usize>) -> Vec<usize> {
    let mut seen: Vec<usize> = Vec::new();
    let number = |label| {
        seen.iter().position(|&one| one == label).unwrap_or_else(|| {
            seen.push(label);
            seen.len() - 1
        })
    };
    labels.into_iter().map(number).collect()
}

/// The mean silhouette (Rousseeuw 1987, Euclidean distance) over any number of clusters: (outside − inside) / max of the mean distance
/// to a row's own cluster and that to the nearest other; zero for a row alone in its cluster. `None` unless there are two clusters.
pub fn silhouette(rows: &[Vec<f64>], labels: &[usize]) -> Option<f64> {
    assert_eq!(rows.len(), labels.len(), "one label per row");
    let count = labels.iter().max()? + 1;
    let mut sizes = vec![0usize; count];
    labels.iter().for_each(|&label| sizes[label] += 1);
    if sizes.iter().filter(|&&size| size > 0).count() < 2 {
        return None;
    }
    let scores: Vec<f64> = (0..rows.len())
        .into_par_iter()
        .map(|at| {
            let mut sums = vec![0.0; count];
            for (row, &label) in rows.iter().zip(labels) {
                sums[label] += square_distance(&rows[at], row).sqrt();
            }
            score(labels[at], &sums, &sizes)
        })
        .collect();
    crate::statistics::mean(&scores)
}

fn score(own: usize, sums: &[f64], sizes: &[usize]) -> f64 {
    if sizes[own] < 2 {
        return 0.0;
    }
    let inside = sums[own] / (sizes[own] - 1) as f64;
    let others = (0..sums.len()).filter(|&label| label != own && sizes[label] > 0);
    let outside = others
        .map(|label| sums[label] / sizes[label] as f64)
        .fold(f64::INFINITY, f64::min);
    let larger = inside.max(outside);
    if larger > 0.0 { (outside - inside) / larger } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(centres: &[[f64; 2]], each: u64) -> Vec<Vec<f64>> {
        let rng = Rng::new(3, "clusters test");
        let point = |(at, centre): (usize, &[f64; 2]), i| -> Vec<f64> {
            (0..2)
                .map(|j| centre[j] + 0.1 * rng.normal(at as u64, 2 * i + j as u64))
                .collect()
        };
        (0..each)
            .flat_map(|i| {
                centres
                    .iter()
                    .enumerate()
                    .map(move |centre| point(centre, i))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn planted_clusters_are_found_and_their_number_has_the_best_silhouette() {
        let rows = around(&[[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]], 12);
        let labels = divide(&rows, 4, 0);
        assert_eq!(labels, (0..48).map(|at| at % 4).collect::<Vec<_>>());
        let of = |count| silhouette(&rows, &divide(&rows, count, 0)).unwrap();
        for other in [2, 3, 5, 6] {
            assert!(of(4) > of(other), "{other}");
        }
    }

    #[test]
    fn the_silhouette_of_two_clusters_is_that_worked_by_hand() {
        let rows: Vec<Vec<f64>> = [0.0, 2.0, 10.0, 12.0].iter().map(|&x| vec![x]).collect();
        let expected = (9.0 / 11.0 + 7.0 / 9.0) / 2.0;
        assert!((silhouette(&rows, &[0, 0, 1, 1]).unwrap() - expected).abs() < 1e-12);
        assert_eq!(silhouette(&rows, &[0; 4]), None);
    }

    #[test]
    fn equal_rows_make_one_cluster_however_many_are_asked_for() {
        assert_eq!(divide(&vec![vec![1.0, 2.0]; 5], 3, 0), [0; 5]);
        assert!(divide(&[], 3, 0).is_empty());
    }
}
