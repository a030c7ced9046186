//! Counter-based random numbers: a draw is a function of (seed, purpose, unit, position) and of nothing else.
//!
//! There is no state to share or to save: draw 7 of prompt 12 is the same whoever asks, in whatever order, on however many threads.
//! The generator is Philox 4x32-10 (Salmon et al., SC 2011), which passes BigCrush; its key is the seed and the purpose, its counter
//! the unit and the position.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUND_COUNT: usize = 10;

/// The random numbers of one purpose under one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rng {
    key: [u32; 2],
}

impl Rng {
    /// `purpose` names what the numbers are for ("bootstrap", "sampling"), so that two uses of one seed never share a draw.
    pub fn new(seed: u64, purpose: &str) -> Self {
        // The purpose is spread by FNV-1a and both parts pass a bijective mixer, so that neighbouring seeds give unrelated keys.
        let purpose_hash = purpose.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        let key = mix(seed ^ mix(purpose_hash));
        Self {
            key: [key as u32, (key >> 32) as u32],
        }
    }

    /// 64 random bits.
    pub fn bits(&self, unit: u64, position: u64) -> u64 {
        let [a, b, _, _] = self.block(unit, position);
        u64::from(a) | u64::from(b) << 32
    }

    /// Uniform on [0, 1), a multiple of 2^-53.
    pub fn uniform(&self, unit: u64, position: u64) -> f64 {
        (self.bits(unit, position) >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform on 0..bound. The bias of the multiplication is below bound / 2^64.
    ///
    /// # Panics
    /// If `bound` is zero: there is nothing to draw.
    pub fn below(&self, unit: u64, position: u64, bound: usize) -> usize {
        assert!(bound > 0, "a draw below zero does not exist");
        ((u128::from(self.bits(unit, position)) * bound as u128) >> 64) as usize
    }

    /// Standard normal (Box–Muller on two draws of the same counter).
    pub fn normal(&self, unit: u64, position: u64) -> f64 {
        let [a, b, c, d] = self.block(unit, position);
        let radius_bits = (u64::from(a) | u64::from(b) << 32) >> 11;
        let angle_bits = (u64::from(c) | u64::from(d) << 32) >> 11;
        let scale = 1.0 / (1_u64 << 53) as f64;
        // The radius is drawn from (0, 1]: the logarithm of zero never happens.
        let radius = libm::sqrt(-2.0 * libm::log((radius_bits + 1) as f64 * scale));
        radius * libm::cos(std::f64::consts::TAU * (angle_bits as f64 * scale))
    }

    /// A uniform permutation of `items` (Fisher–Yates), a function of the unit.
    pub fn shuffle<T>(&self, unit: u64, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(unit, last as u64, last + 1));
        }
    }

    /// `count` distinct indices of 0..bound in ascending order, each subset equally likely; everything when `count >= bound`.
    pub fn subset(&self, unit: u64, count: usize, bound: usize) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..bound).collect();
        if count < bound {
            for slot in 0..count {
                indices.swap(slot, slot + self.below(unit, slot as u64, bound - slot));
            }
            indices.truncate(count);
            indices.sort_unstable();
        }
        indices
    }

    fn block(&self, unit: u64, position: u64) -> [u32; 4] {
        philox(
            [
                position as u32,
                (position >> 32) as u32,
                unit as u32,
                (unit >> 32) as u32,
            ],
            self.key,
        )
    }
}

/// The finaliser of SplitMix64: a bijection in which every input bit reaches every output bit.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUND_COUNT {
        let low = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let high = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn seed_purpose_unit_and_position_each_change_the_draw() {
        let base = Rng::new(1, "bootstrap").bits(2, 3);
        assert_eq!(Rng::new(1, "bootstrap").bits(2, 3), base);
        for other in [
            Rng::new(2, "bootstrap").bits(2, 3),
            Rng::new(1, "sampling").bits(2, 3),
            Rng::new(1, "bootstrap").bits(3, 3),
            Rng::new(1, "bootstrap").bits(2, 4),
        ] {
            assert_ne!(other, base);
        }
    }

    #[test]
    fn uniform_and_normal_draws_have_their_moments() {
        let rng = Rng::new(42, "test");
        let count = 100_000;
        let uniform = (0..count).map(|i| rng.uniform(0, i)).sum::<f64>() / count as f64;
        let normals: Vec<f64> = (0..count).map(|i| rng.normal(1, i)).collect();
        let mean = normals.iter().sum::<f64>() / count as f64;
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / count as f64;
        let fourth = normals.iter().map(|x| x.powi(4)).sum::<f64>() / count as f64;
        assert!((uniform - 0.5).abs() < 0.005, "{uniform}");
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.02 && (fourth - 3.0).abs() < 0.12);
    }

    #[test]
    fn a_subset_is_distinct_sorted_and_everything_when_asked_for_too_many() {
        let rng = Rng::new(7, "subset");
        let subset = rng.subset(0, 20, 100);
        assert_eq!(subset.len(), 20);
        assert!(subset.windows(2).all(|pair| pair[0] < pair[1]) && subset[19] < 100);
        assert_eq!(rng.subset(0, 9, 3), vec![0, 1, 2]);
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_repeats() {
        let rng = Rng::new(7, "order");
        let mut first: Vec<usize> = (0..50).collect();
        let mut second = first.clone();
        rng.shuffle(3, &mut first);
        rng.shuffle(3, &mut second);
        assert_eq!(first, second);
        assert_ne!(first, (0..50).collect::<Vec<_>>());
        first.sort_unstable();
        assert_eq!(first, (0..50).collect::<Vec<_>>());
    }
}
