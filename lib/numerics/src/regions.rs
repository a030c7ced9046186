//! Geometry of stable regions: ways from one point to another, curves along them, and planes through three points.
//!
//! Second paper: X(α) goes from A to B, d(α) is how far the read-out has moved, and the steepest place of d(α)/d(1) tells a plateau
//! with a border (steep) from a linear response (slope 1).

/// A way from A (α = 0) to B (α = 1).
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// A + α (B − A)
    Linear,
    /// The straight way, moved to the sphere about `centre` on which A lies: `centre + (lin − centre) ‖A − centre‖ / ‖lin − centre‖`.
    /// It ends at B only where B lies on the same sphere.
    Arc { centre: Vec<f64> },
    /// The direction turns at a constant rate, the norm changes linearly; ends at A and B. Opposite directions have no such way, and
    /// equal ones are joined by the straight line.
    Slerp,
}

impl Way {
    /// X(α); `None` where the way is not defined.
    pub fn point(&self, a: &[f32], b: &[f32], alpha: f64) -> Option<Vec<f32>> {
        let straight = a
            .iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) + alpha * (f64::from(b) - f64::from(a)));
        match self {
            Way::Linear => Some(straight.map(|x| x as f32).collect()),
            Way::Arc { centre } => {
                let from_centre: Vec<f64> = straight.zip(centre).map(|(x, m)| x - m).collect();
                let radius = norm(a.iter().zip(centre).map(|(&a, m)| f64::from(a) - m));
                let length = norm(from_centre.iter().copied());
                (length > 0.0).then(|| {
                    let scaled = from_centre
                        .iter()
                        .zip(centre)
                        .map(|(x, m)| (m + x * radius / length) as f32);
                    scaled.collect()
                })
            }
            Way::Slerp => {
                let (norm_a, norm_b) = (norm(a.iter().map(|&x| x.into())), norm(b.iter().map(|&x| x.into())));
                let angle = cosine(a, b)?.acos();
                // Near 0 the sines cancel; the line is then the same way to rounding.
                let (weight_a, weight_b) = match angle {
                    angle if angle < 1e-6 => (1.0 - alpha, alpha),
                    angle if std::f64::consts::PI - angle < 1e-6 => return None,
                    angle => (
                        ((1.0 - alpha) * angle).sin() / angle.sin(),
                        (alpha * angle).sin() / angle.sin(),
                    ),
                };
                let length = norm_a + alpha * (norm_b - norm_a);
                let unit = a
                    .iter()
                    .zip(b)
                    .map(|(&a, &b)| f64::from(a) / norm_a * weight_a + f64::from(b) / norm_b * weight_b);
                Some(unit.map(|x| (x * length) as f32).collect())
            }
        }
    }
}

/// ‖a − b‖
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    norm(a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)))
}

/// The cosine of the angle between two vectors; `None` for a vector of length zero.
pub fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let product: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    let lengths = norm(a.iter().map(|&x| x.into())) * norm(b.iter().map(|&x| x.into()));
    (lengths > 0.0).then(|| (product / lengths).clamp(-1.0, 1.0))
}

/// KL(softmax(p) ‖ softmax(q)) of two rows of scores, in nats; never below zero.
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (total_p, total_q) = (log_sum_exp(p), log_sum_exp(q));
    let terms = p.iter().zip(q).map(|(&p, &q)| {
        let log_p = f64::from(p) - total_p;
        log_p.exp() * (log_p - (f64::from(q) - total_q))
    });
    terms.sum::<f64>().max(0.0)
}

fn log_sum_exp(scores: &[f32]) -> f64 {
    let top = f64::from(scores.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    top + scores.iter().map(|&x| (f64::from(x) - top).exp()).sum::<f64>().ln()
}

/// The steepest step of a curve and the α in its middle; `None` with fewer than two points.
pub fn max_slope(alpha: &[f64], curve: &[f64]) -> Option<(f64, f64)> {
    let steps = alpha.windows(2).zip(curve.windows(2));
    steps
        .map(|(at, value)| ((value[1] - value[0]) / (at[1] - at[0]), (at[0] + at[1]) / 2.0))
        .reduce(|best, step| if step.0 > best.0 { step } else { best })
}

/// The step i..i+1 in which a curve first reaches `level` from below.
pub fn first_crossing(curve: &[f64], level: f64) -> Option<usize> {
    curve.windows(2).position(|value| value[0] < level && value[1] >= level)
}

/// Where inside the step i..i+1 the line between its ends is at `level`.
pub fn interpolated(alpha: &[f64], curve: &[f64], step: usize, level: f64) -> f64 {
    let share = (level - curve[step]) / (curve[step + 1] - curve[step]);
    alpha[step] + share * (alpha[step + 1] - alpha[step])
}

/// The α-range of the transition: from the last time below `low` to the first time `high` is reached; `None` where it is not.
pub fn transition_width(alpha: &[f64], curve: &[f64], low: f64, high: f64) -> Option<f64> {
    let end = first_crossing(curve, high)?;
    let begin = (0..=end).rev().find(|&i| curve[i] < low && curve[i + 1] >= low)?;
    Some(interpolated(alpha, curve, end, high) - interpolated(alpha, curve, begin, low))
}

/// The plane through A, B and C with A at (0, 0), B at (1, 0) and C at (t, 1): `X(α, β) = A + α (B − A) + β (C − P)`, P being the foot
/// of C on the line AB.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    origin: Vec<f64>,
    along: Vec<f64>,
    across: Vec<f64>,
    /// t: where C's foot lies on AB.
    pub foot: f64,
}

impl Plane {
    /// `None` where the three points lie on one line.
    pub fn through(a: &[f32], b: &[f32], c: &[f32]) -> Option<Self> {
        let minus = |x: &[f32], y: &[f32]| -> Vec<f64> {
            x.iter().zip(y).map(|(&x, &y)| f64::from(x) - f64::from(y)).collect()
        };
        let (along, to_c) = (minus(b, a), minus(c, a));
        let square: f64 = along.iter().map(|x| x * x).sum();
        if square == 0.0 {
            return None;
        }
        let foot = along.iter().zip(&to_c).map(|(x, y)| x * y).sum::<f64>() / square;
        let across: Vec<f64> = to_c.iter().zip(&along).map(|(y, x)| y - foot * x).collect();
        let height = norm(across.iter().copied());
        let origin = a.iter().map(|&x| x.into()).collect();
        // Below the rounding of f32 a height is noise.
        (height > 1e-6 * norm(to_c.into_iter())).then_some(Self {
            origin,
            along,
            across,
            foot,
        })
    }

    pub fn point(&self, alpha: f64, beta: f64) -> Vec<f32> {
        let directions = self.along.iter().zip(&self.across);
        self.origin
            .iter()
            .zip(directions)
            .map(|(o, (x, y))| (o + alpha * x + beta * y) as f32)
            .collect()
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn vector(unit: u64, size: u64) -> Vec<f32> {
        let rng = Rng::new(3, "regions");
        (0..size).map(|i| rng.normal(unit, i) as f32).collect()
    }

    fn grid(steps: usize) -> Vec<f64> {
        (0..steps).map(|i| i as f64 / (steps - 1) as f64).collect()
    }

    #[test]
    fn every_way_begins_at_a_and_the_straight_and_the_turning_end_at_b() {
        let (a, b) = (vector(0, 20), vector(1, 20));
        let centre = vec![0.1; 20];
        for way in [Way::Linear, Way::Slerp, Way::Arc { centre: centre.clone() }] {
            assert!(distance(&way.point(&a, &b, 0.0).unwrap(), &a) < 1e-5, "{way:?}");
        }
        for way in [Way::Linear, Way::Slerp] {
            assert!(distance(&way.point(&a, &b, 1.0).unwrap(), &b) < 1e-5, "{way:?}");
        }
    }

    #[test]
    fn an_arc_keeps_its_distance_from_the_centre() {
        let (a, b) = (vector(0, 20), vector(1, 20));
        let centre = vec![0.2; 20];
        let middle: Vec<f32> = centre.iter().map(|&x| x as f32).collect();
        let radius = distance(&a, &middle);
        for alpha in grid(7) {
            let point = Way::Arc { centre: centre.clone() }.point(&a, &b, alpha).unwrap();
            assert!((distance(&point, &middle) - radius).abs() < 1e-5);
        }
    }

    #[test]
    fn a_turning_way_turns_evenly_and_refuses_opposite_ends() {
        let (a, b) = (vec![1.0, 0.0], vec![0.0, 2.0]);
        let half = Way::Slerp.point(&a, &b, 0.5).unwrap();
        assert!((f64::from(half[0]) - 1.5 * 0.5_f64.sqrt()).abs() < 1e-6 && (half[0] - half[1]).abs() < 1e-6);
        assert_eq!(Way::Slerp.point(&a, &[-1.0, 0.0], 0.5), None);
        assert!(
            Way::Slerp
                .point(&a, &[3.0, 0.0], 0.5)
                .is_some_and(|x| (x[0] - 2.0).abs() < 1e-6)
        );
    }

    #[test]
    fn a_linear_map_has_slope_one() {
        // F(x) = M x: the distance from F(A) grows in proportion, whatever M is.
        let (a, b) = (vector(0, 12), vector(1, 12));
        let map = |x: &[f32]| -> Vec<f32> {
            let row = |r: u64| vector(100 + r, 12).iter().zip(x).map(|(m, x)| m * x).sum();
            (0..9).map(row).collect()
        };
        let alpha = grid(50);
        let (start, end) = (map(&a), map(&b));
        let whole = distance(&start, &end);
        let curve: Vec<f64> = alpha
            .iter()
            .map(|&t| distance(&map(&Way::Linear.point(&a, &b, t).unwrap()), &start) / whole)
            .collect();
        assert!((max_slope(&alpha, &curve).unwrap().0 - 1.0).abs() < 1e-4);
    }

    #[test]
    fn a_step_is_as_steep_as_the_grid_allows_and_its_width_is_one_step() {
        let alpha = grid(11);
        let curve: Vec<f64> = alpha.iter().map(|&x| f64::from(x > 0.55)).collect();
        let (slope, at) = max_slope(&alpha, &curve).unwrap();
        assert!((slope - 10.0).abs() < 1e-9 && (at - 0.55).abs() < 1e-9);
        assert!((transition_width(&alpha, &curve, 0.1, 0.9).unwrap() - 0.08).abs() < 1e-9);
        let straight = alpha.clone();
        assert!((transition_width(&alpha, &straight, 0.1, 0.9).unwrap() - 0.8).abs() < 1e-9);
        assert_eq!(transition_width(&alpha, &[0.0; 11], 0.1, 0.9), None);
    }

    #[test]
    fn a_curve_that_falls_back_is_measured_from_its_last_rise() {
        let alpha = grid(6);
        let curve = [0.0, 0.5, 0.05, 0.05, 1.0, 1.0];
        let width = transition_width(&alpha, &curve, 0.1, 0.9).unwrap();
        assert!(width < 0.2, "{width}");
    }

    #[test]
    fn divergence_is_zero_for_shifted_scores_and_positive_otherwise() {
        let p = vector(0, 30);
        let shifted: Vec<f32> = p.iter().map(|x| x + 5.0).collect();
        assert!(divergence(&p, &shifted) < 1e-9);
        // Two outcomes, p = (1/2, 1/2), q = (1/4, 3/4).
        let q = [0.0, 3.0_f32.ln()];
        let expected = 0.5 * (0.5_f64 / 0.25).ln() + 0.5 * (0.5_f64 / 0.75).ln();
        assert!((divergence(&[0.0, 0.0], &q) - expected).abs() < 1e-7);
    }

    #[test]
    fn a_plane_holds_its_three_points() {
        let (a, b, c) = (vector(0, 15), vector(1, 15), vector(2, 15));
        let plane = Plane::through(&a, &b, &c).unwrap();
        assert!(distance(&plane.point(0.0, 0.0), &a) < 1e-5);
        assert!(distance(&plane.point(1.0, 0.0), &b) < 1e-5);
        assert!(distance(&plane.point(plane.foot, 1.0), &c) < 1e-5);
        let on_line: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + 0.5 * (b - a)).collect();
        assert!(Plane::through(&a, &b, &a).is_none());
        assert!(Plane::through(&a, &b, &on_line).is_none());
    }
}
