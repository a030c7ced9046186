//! What the passes of a step came to, micro-batch by micro-batch, so that sums over all ranks are added in the order of the batch.

use crate::objective::Score;

/// Of one micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tally {
    pub loss_sum: f64,
    pub lse_sum: f64,
    pub attn_logit_max: Option<f64>,
}

impl Tally {
    const BYTES: usize = 24;

    pub fn new(score: &Score, attn_logit_max: Option<f32>) -> Self {
        Self {
            loss_sum: score.loss_sum,
            lse_sum: score.lse_sum,
            attn_logit_max: attn_logit_max.map(f64::from),
        }
    }

    /// For their way to other ranks.
    pub fn wire(tallies: &[Self]) -> Vec<u8> {
        let numbers = |tally: &Self| [tally.loss_sum, tally.lse_sum, tally.attn_logit_max.unwrap_or(f64::NAN)];
        tallies.iter().flat_map(numbers).flat_map(f64::to_le_bytes).collect()
    }

    pub fn read(bytes: &[u8]) -> impl Iterator<Item = Self> {
        let (all, _) = bytes.as_chunks::<{ Self::BYTES }>();
        all.iter().map(|bytes| {
            let (numbers, _) = bytes.as_chunks();
            let number = |at: usize| f64::from_le_bytes(numbers[at]);
            Self {
                loss_sum: number(0),
                lse_sum: number(1),
                attn_logit_max: Some(number(2)).filter(|max| !max.is_nan()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let tallies = [Some(3.5), None].map(|attn_logit_max| Tally {
            loss_sum: 0.1,
            lse_sum: -2.0,
            attn_logit_max,
        });
        assert_eq!(Tally::read(&Tally::wire(&tallies)).collect::<Vec<_>>(), tallies);
    }
}
