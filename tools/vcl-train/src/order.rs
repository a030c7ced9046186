//! The order in which samples are seen.

use numerics::rng::Rng;

/// The samples of a step (from 1): a fresh permutation for every pass over the data.
pub fn batch(seed: u64, sample_count: usize, batch_size: usize, step: u64) -> Vec<usize> {
    let rng = Rng::new(seed, "order");
    let start = (step - 1) as usize * batch_size;
    let mut order: (u64, Vec<usize>) = (u64::MAX, Vec::new());
    (start..start + batch_size)
        .map(|place| {
            let epoch = (place / sample_count) as u64;
            if order.0 != epoch {
                order = (epoch, (0..sample_count).collect());
                rng.shuffle(epoch, &mut order.1);
            }
            order.1[place % sample_count]
        })
        .collect()
}

/// A batch in neighbouring parts.
pub fn slots(batch: &[usize], count: usize) -> impl Iterator<Item = &[usize]> {
    let border = move |slot: usize| slot * batch.len() / count;
    (0..count).map(move |slot| &batch[border(slot)..border(slot + 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_sees_every_sample_once() {
        let seen: Vec<usize> = (1..=5).flat_map(|step| batch(7, 10, 4, step)).collect();
        for pass in seen.chunks(10) {
            let mut pass = pass.to_vec();
            pass.sort_unstable();
            assert_eq!(pass, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(seen[..10], seen[10..]);
        assert_eq!(batch(7, 10, 4, 3), seen[8..12]);
    }

    #[test]
    fn slots_are_neighbours_and_none_is_empty() {
        let batch: Vec<usize> = (0..7).collect();
        let parts: Vec<&[usize]> = slots(&batch, 4).collect();
        assert_eq!(parts, [&[0][..], &[1, 2], &[3, 4], &[5, 6]]);
    }
}
