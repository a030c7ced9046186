//! Distances between read-outs, each scaled to go from 0 at A to 1 at the end of the way.

use crate::cli::Distance;
use numerics::regions;

/// What is known of one read-out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The space chosen by --read.
    pub read: Vec<f32>,
    /// Next-token scores, where a distance needs them.
    pub scores: Vec<f32>,
}

/// The two ends of a way, against which every point between is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    distance: Distance,
    start: Answer,
    end: Answer,
    tokens: (usize, usize),
    /// The distance of the end before scaling, d(1).
    pub whole: f64,
}

impl Scale {
    /// `None` where both ends have the same top token, so that no score difference tells them apart.
    pub fn new(distance: Distance, start: Answer, end: Answer, tokens: (u32, u32)) -> Option<Self> {
        let tokens = (tokens.0 as usize, tokens.1 as usize);
        let whole = match distance {
            Distance::L2 | Distance::Relative => regions::distance(&start.read, &end.read),
            Distance::Kl => regions::divergence(&start.scores, &end.scores),
            Distance::Logit if tokens.0 == tokens.1 => return None,
            Distance::Logit => lead(&start.scores, tokens) - lead(&end.scores, tokens),
        };
        Some(Self {
            distance,
            start,
            end,
            tokens,
            whole,
        })
    }

    /// How far the answer is on its way from the start (0) to the end (1).
    pub fn value(&self, answer: &Answer) -> f64 {
        match self.distance {
            Distance::L2 => regions::distance(&answer.read, &self.start.read) / self.whole,
            Distance::Relative => {
                let (from, to) = (
                    regions::distance(&answer.read, &self.start.read),
                    regions::distance(&answer.read, &self.end.read),
                );
                from / (from + to)
            }
            Distance::Kl => regions::divergence(&self.start.scores, &answer.scores) / self.whole,
            Distance::Logit => (lead(&self.start.scores, self.tokens) - lead(&answer.scores, self.tokens)) / self.whole,
        }
    }
}

/// How far the score of the start's top token is above that of the end's.
fn lead(scores: &[f32], tokens: (usize, usize)) -> f64 {
    f64::from(scores[tokens.0]) - f64::from(scores[tokens.1])
}

pub fn top_token(scores: &[f32]) -> u32 {
    let best = scores
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (index, &score)| match score > best.1 {
            true => (index, score),
            false => best,
        });
    best.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(read: [f32; 2], scores: [f32; 3]) -> Answer {
        Answer {
            read: read.to_vec(),
            scores: scores.to_vec(),
        }
    }

    #[test]
    fn every_distance_is_zero_at_a_and_one_at_the_end() {
        let start = answer([0.0, 1.0], [3.0, 1.0, 0.0]);
        let end = answer([4.0, 4.0], [0.0, 2.0, 5.0]);
        for distance in [Distance::L2, Distance::Relative, Distance::Kl, Distance::Logit] {
            let tokens = (top_token(&start.scores), top_token(&end.scores));
            let scale = Scale::new(distance, start.clone(), end.clone(), tokens).unwrap();
            assert_eq!(scale.value(&start), 0.0, "{distance:?}");
            assert_eq!(scale.value(&end), 1.0, "{distance:?}");
        }
    }

    #[test]
    fn ends_with_one_top_token_have_no_score_difference() {
        let start = answer([0.0, 1.0], [3.0, 1.0, 0.0]);
        assert!(Scale::new(Distance::Logit, start.clone(), start, (0, 0)).is_none());
    }

    #[test]
    fn the_relative_distance_is_bounded_where_the_other_is_not() {
        let start = answer([0.0, 0.0], [0.0; 3]);
        let end = answer([1.0, 0.0], [0.0; 3]);
        let beyond = answer([9.0, 0.0], [0.0; 3]);
        let value = |distance| {
            Scale::new(distance, start.clone(), end.clone(), (0, 1))
                .unwrap()
                .value(&beyond)
        };
        assert_eq!(value(Distance::L2), 9.0);
        assert!(value(Distance::Relative) < 1.0);
    }

    #[test]
    fn the_first_of_equal_scores_is_the_top_token() {
        assert_eq!(top_token(&[1.0, 3.0, 3.0]), 1);
    }
}
