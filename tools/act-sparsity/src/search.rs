//! The level at which perplexity has grown by so many percent: bisection between a level that keeps within the bound and one that does
//! not.

use process::Result;

/// A level that was tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tried {
    pub level: f64,
    pub sparsity: f64,
    pub perplexity: f64,
}

/// What a bound leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub percent: f64,
    /// The largest level that keeps within the bound, below all that do not; none where even level 0 does not.
    pub within: Option<Tried>,
    /// The least level that was tried and does not.
    pub beyond: Option<Tried>,
}

/// Searches levels from 0 to 1 for each percentage; levels that were tried for one serve the others. All that were tried come back in
/// order.
pub fn search(
    dense: f64,
    percents: &[f64],
    resolution: f64,
    mut attempt: impl FnMut(f64) -> Result<Tried>,
) -> Result<(Vec<Tried>, Vec<Found>)> {
    let mut tried = vec![attempt(0.0)?, attempt(1.0)?];
    for percent in percents {
        let bound = bound(dense, *percent);
        while let (Some(within), Some(beyond)) = bracket(&tried, bound)
            && beyond.level - within.level > resolution
        {
            tried.push(attempt(0.5 * (within.level + beyond.level))?);
            tried.sort_by(|a, b| a.level.total_cmp(&b.level));
        }
    }
    let found = percents.iter().map(|&percent| {
        let (within, beyond) = bracket(&tried, bound(dense, percent));
        Found {
            percent,
            within,
            beyond,
        }
    });
    let found = found.collect();
    Ok((tried, found))
}

fn bound(dense: f64, percent: f64) -> f64 {
    dense * (1.0 + percent / 100.0)
}

/// The levels on both sides of the first that exceeds the bound.
fn bracket(tried: &[Tried], bound: f64) -> (Option<Tried>, Option<Tried>) {
    let first = tried
        .iter()
        .position(|one| one.perplexity.is_nan() || one.perplexity > bound);
    let within = first.unwrap_or(tried.len()).checked_sub(1).map(|at| tried[at]);
    (within, first.map(|at| tried[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(curve: impl Fn(f64) -> f64, percents: &[f64]) -> (Vec<Tried>, Vec<Found>) {
        let attempt = |level: f64| {
            Ok(Tried {
                level,
                sparsity: level,
                perplexity: curve(level),
            })
        };
        search(10.0, percents, 0.01, attempt).unwrap()
    }

    #[test]
    fn each_bound_is_bracketed_to_the_resolution() {
        let curve = |level: f64| 10.0 * (1.0 + level * level);
        let (tried, found) = of(curve, &[1.0, 25.0]);
        for (found, crossing) in found.iter().zip([0.1, 0.5]) {
            let (within, beyond) = (found.within.unwrap(), found.beyond.unwrap());
            assert!(within.level <= crossing && crossing < beyond.level && beyond.level - within.level <= 0.01);
        }
        assert!(tried.is_sorted_by(|a, b| a.level < b.level));
        // the second bound starts from what the first one tried
        assert!(tried.len() < 2 + 7 + 7, "{}", tried.len());
    }

    #[test]
    fn a_curve_that_comes_back_is_left_at_its_first_crossing() {
        let curve = |level: f64| if (0.25..0.6).contains(&level) { 20.0 } else { 10.0 };
        let (_, found) = of(curve, &[5.0]);
        assert_eq!(
            found[0].beyond, None,
            "both ends are within: nothing is known to exceed"
        );
        let (_, found) = of(|level| if level >= 0.6 { 20.0 } else { curve(level) }, &[5.0]);
        assert!((found[0].within.unwrap().level - 0.25).abs() <= 0.01);
    }

    #[test]
    fn a_bound_that_nothing_keeps_has_no_level() {
        let (tried, found) = of(|_| 11.0, &[0.0]);
        assert_eq!((tried.len(), found[0].within), (2, None));
        let (_, found) = of(|level| 10.0 + level, &[0.0]);
        assert_eq!(found[0].within.unwrap().level, 0.0);
    }
}
