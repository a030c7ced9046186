//! Logits in, one token out. Greedy, or a draw that depends on its counter alone.

use numerics::rng::Rng;
use numerics::statistics::largest;

use crate::plan::Sampling;

/// How the next token is chosen.
#[derive(Clone, Debug)]
pub enum Choice {
    Greedy,
    Sample {
        temperature: f64,
        top_p: Option<f64>,
        top_k: Option<usize>,
        rng: Rng,
    },
}

impl Choice {
    pub fn new(sampling: Option<&Sampling>) -> Choice {
        match sampling {
            None => Choice::Greedy,
            Some(sampling) => Choice::Sample {
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                top_k: sampling.top_k.map(|k| k as usize),
                rng: Rng::new(sampling.seed, "lm-gen sampling"),
            },
        }
    }

    /// The token for draw (`unit`, `position`); of equal logits the first.
    pub fn next(&self, logits: &[f32], unit: u64, position: u64) -> u32 {
        match self {
            Choice::Greedy => largest(logits) as u32,
            Choice::Sample {
                temperature,
                top_p,
                top_k,
                rng,
            } => {
                let mut order: Vec<u32> = (0..logits.len() as u32).collect();
                let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
                if let Some(k) = top_k.filter(|&k| k < order.len()) {
                    order.select_nth_unstable_by(k, by_logit);
                    order.truncate(k);
                }
                order.sort_unstable_by(by_logit);
                let top = f64::from(logits[order[0] as usize]);
                let mut weights: Vec<f64> = order
                    .iter()
                    .map(|&id| ((f64::from(logits[id as usize]) - top) / temperature).exp())
                    .collect();
                if let Some(p) = top_p {
                    let total: f64 = weights.iter().sum();
                    let mut reached = 0.0;
                    let kept = weights.iter().position(|weight| {
                        reached += weight;
                        reached >= p * total
                    });
                    weights.truncate(kept.map_or(weights.len(), |last| last + 1));
                }
                let total: f64 = weights.iter().sum();
                let mut left = rng.uniform(unit, position) * total;
                for (id, weight) in order.iter().zip(&weights) {
                    if left < *weight {
                        return *id;
                    }
                    left -= weight;
                }
                // Rounding may leave a crumb after the last weight.
                order[weights.len() - 1]
            }
        }
    }
}

/// ln softmax(logits)[id], summed in f64 so that a long text loses nothing.
pub fn log_prob(logits: &[f32], id: u32) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - top).exp()).sum();
    f64::from(logits[id as usize] - top) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f64, top_p: Option<f64>, top_k: Option<usize>) -> Choice {
        Choice::Sample {
            temperature,
            top_p,
            top_k,
            rng: Rng::new(7, "test"),
        }
    }

    fn shares(choice: &Choice, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for unit in 0..4000 {
            counts[choice.next(logits, unit, 0) as usize] += 1.0 / 4000.0;
        }
        counts
    }

    #[test]
    fn of_equal_logits_the_first_wins() {
        assert_eq!(Choice::Greedy.next(&[0.0, 2.0, 2.0], 0, 0), 1);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0, 1f32, 2.0];
        let got = shares(&sampler(1.0, None, None), &logits);
        for (id, share) in got.iter().enumerate() {
            assert!((share - log_prob(&logits, id as u32).exp()).abs() < 0.03, "{got:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.0, 1f32, 2.0, 3.0];
        let got = shares(&sampler(1.0, None, Some(2)), &logits);
        assert!(got[0] == 0.0 && got[1] == 0.0 && got[2] > 0.0);
        // Probabilities .032 .087 .237 .644: the least set that reaches .7 is the last two.
        let got = shares(&sampler(1.0, Some(0.7), None), &logits);
        assert!(got[0] == 0.0 && got[1] == 0.0 && got[2] > 0.0);
        let got = shares(&sampler(1.0, Some(0.5), None), &logits);
        assert!(got[2] == 0.0 && got[3] > 0.999);
    }

    #[test]
    fn a_draw_depends_on_its_counter_alone() {
        let choice = sampler(1.5, None, None);
        let logits = [0.1, 0.2, 0.3, 0.4f32];
        let draws = |order: &[u64]| {
            order
                .iter()
                .map(|&unit| choice.next(&logits, unit, 3))
                .collect::<Vec<_>>()
        };
        let (forward, mut backward) = (draws(&[1, 2, 3, 4]), draws(&[4, 3, 2, 1]));
        backward.reverse();
        assert_eq!(forward, backward);
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let logits = [3.0, -2.0, 100.0, 99.5f32];
        let sum: f64 = (0..4).map(|id| log_prob(&logits, id).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
}
