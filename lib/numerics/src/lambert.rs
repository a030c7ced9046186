//! Lambert's W, the inverse of w·e^w.

/// The principal branch for x ≥ 0.
///
/// # Panics
/// If x is negative or not a number.
pub fn lambert_w(x: f64) -> f64 {
    assert!(x >= 0.0, "the principal branch is taken of numbers from 0");
    if x == 0.0 || x == f64::INFINITY {
        return x;
    }
    // Close from below everywhere, and closer the larger x is.
    let logarithm = libm::log1p(x);
    let mut w = logarithm * (1.0 - libm::log1p(logarithm) / (2.0 + logarithm));
    // Newton's steps on w + ln w = ln x converge from any positive start, without overflow.
    for _ in 0..64 {
        let step = w * (libm::log(x) - libm::log(w) - w) / (1.0 + w);
        w += step;
        if step.abs() <= f64::EPSILON * w {
            break;
        }
    }
    w
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(lambert_w(0.0), 0.0);
        assert!((lambert_w(std::f64::consts::E) - 1.0).abs() < 1e-15);
        // The omega constant.
        assert!((lambert_w(1.0) - 0.567_143_290_409_783_8).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn it_inverts(power in -250.0_f64..250.0) {
            let x = libm::pow(10.0, power);
            let w = lambert_w(x);
            prop_assert!((w + libm::log(w) - libm::log(x)).abs() < 1e-13 * libm::log(x).abs().max(1.0));
        }
    }
}
