//! Simulated coverage of the intervals that tools print: 95 % of them hold what they are for. `FLOWLENS_CAMPAIGN` multiplies the simulations.

use numerics::rng::Rng;
use numerics::statistics::{
    correlation, correlation_interval, mean_difference, normal_quantile, paired_mean_difference, wilson,
};
use rayon::prelude::*;

const LEVEL: f64 = 0.95;
const SIMULATION_COUNT: u64 = 1000;
const RESAMPLE_COUNT: u64 = 400;

fn simulation_count() -> u64 {
    let asked = std::env::var("FLOWLENS_CAMPAIGN").ok();
    let times = asked.map_or(10, |count| count.parse().expect("FLOWLENS_CAMPAIGN is a number"));
    SIMULATION_COUNT * u64::max(times / 10, 1)
}

/// Share of simulations whose interval holds the truth, which may miss 95 % by one point and by what so few simulations leave to chance.
fn covers(what: &str, holds: impl Fn(u64) -> bool + Sync) {
    let count = simulation_count();
    let held = (0..count)
        .into_par_iter()
        .filter(|simulation| holds(*simulation))
        .count();
    let (share, chance) = (
        held as f64 / count as f64,
        3.0 * f64::sqrt(LEVEL * (1.0 - LEVEL) / count as f64),
    );
    eprintln!("{what}: {share:.4} of {count}");
    assert!((share - LEVEL).abs() < 0.01 + chance, "{what}: {share} of {count}");
}

fn normal(rng: &Rng, stream: u64, at: usize) -> f64 {
    // The middle of a cell of a fine grid, so that no end of the range is met.
    let uniform = (rng.below(stream, at as u64, 1 << 30) as f64 + 0.5) / f64::from(1 << 30);
    normal_quantile(uniform)
}

#[test]
fn the_interval_of_a_proportion_covers_it_on_average_over_proportions() {
    let rng = Rng::new(1, "wilson");
    covers("Wilson, 40 to 250 trials", |simulation| {
        let trials = 40 + rng.below(simulation, 0, 211) as u64;
        let truth = (rng.below(simulation, 1, 900) as f64 + 50.0) / 1000.0;
        let is_success = |trial: &u64| (rng.below(simulation, 2 + trial, 1 << 20) as f64) < truth * f64::from(1 << 20);
        let successes = (0..trials).filter(is_success).count() as u64;
        let interval = wilson(successes, trials, LEVEL).expect("an interval");
        interval.low <= truth && truth <= interval.high
    });
}

#[test]
fn the_interval_of_a_correlation_covers_it() {
    for (seed, truth) in [(2, 0.0), (3, 0.5), (4, 0.9)] {
        let rng = Rng::new(seed, "correlation");
        covers(&format!("Fisher, correlation {truth} of 40 pairs"), |simulation| {
            let left: Vec<f64> = (0..40).map(|at| normal(&rng, simulation, at)).collect();
            let other = (0..40).map(|at| normal(&rng, simulation, 40 + at));
            let right: Vec<f64> = left
                .iter()
                .zip(other)
                .map(|(x, noise)| truth * x + f64::sqrt(1.0 - truth * truth) * noise)
                .collect();
            let found = correlation(&left, &right).expect("two samples that vary");
            let interval = correlation_interval(found, 40, LEVEL).expect("an interval");
            interval.low <= truth && truth <= interval.high
        });
    }
}

#[test]
fn the_interval_of_a_paired_difference_covers_it() {
    let rng = Rng::new(5, "paired");
    covers("paired bootstrap, 200 pairs", |simulation| {
        let first: Vec<f64> = (0..200).map(|at| normal(&rng, simulation, at)).collect();
        let second: Vec<f64> = first
            .iter()
            .enumerate()
            .map(|(at, x)| 0.5 * x + 0.3 + normal(&rng, simulation, 200 + at))
            .collect();
        let resampling = Rng::new(simulation, "resampling");
        let (interval, _) =
            paired_mean_difference(&first, &second, RESAMPLE_COUNT, LEVEL, &resampling).expect("an interval");
        interval.low <= 0.3 && 0.3 <= interval.high
    });
}

#[test]
fn the_interval_of_a_difference_of_two_samples_covers_it() {
    let rng = Rng::new(6, "apart");
    covers("bootstrap of two samples, 150 and 250", |simulation| {
        let first: Vec<f64> = (0..150).map(|at| normal(&rng, simulation, at)).collect();
        let second: Vec<f64> = (0..250)
            .map(|at| 0.3 + 2.0 * normal(&rng, simulation, 150 + at))
            .collect();
        let resampling = Rng::new(simulation, "resampling");
        let (interval, _) = mean_difference(&first, &second, RESAMPLE_COUNT, LEVEL, &resampling).expect("an interval");
        interval.low <= 0.3 && 0.3 <= interval.high
    });
}
