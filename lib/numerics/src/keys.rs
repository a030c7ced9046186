//! Magnitudes as integers: the bits of |x| are ordered as |x| is, so that order statistics become comparisons of integers.

use products::wide;
use std::ops::{BitAnd, BitOr};

/// A number whose magnitude has such bits.
pub trait Number: Copy + Send + Sync + PartialOrd + 'static {
    type Key: Key;
    /// The bits of |x|.
    fn key(self) -> Self::Key;
    fn wide(self) -> f64;
}

/// The bits of a magnitude.
pub trait Key: Copy + Ord + Send + Sync + BitAnd<Output = Self> + BitOr<Output = Self> + 'static {
    const NONE: Self;
    const ALL: Self;
    const BIT_COUNT: u32;
    fn bit(at: u32) -> Self;
    fn magnitude(self) -> f64;
    /// The sixteen leading bits of the magnitude as an f32, rounded towards zero.
    fn leading(self) -> u16;
    /// Whether magnitudes made of these bits have no others than the sixteen leading ones.
    fn is_leading(self) -> bool;
}

impl Number for f32 {
    type Key = u32;

    #[inline(always)]
    fn key(self) -> u32 {
        self.to_bits() & !(1 << 31)
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Key for u32 {
    const NONE: u32 = 0;
    const ALL: u32 = u32::MAX;
    const BIT_COUNT: u32 = u32::BITS;

    fn bit(at: u32) -> u32 {
        1 << at
    }

    #[inline(always)]
    fn magnitude(self) -> f64 {
        f64::from(f32::from_bits(self))
    }

    #[inline(always)]
    fn leading(self) -> u16 {
        (self >> 16) as u16
    }

    fn is_leading(self) -> bool {
        self & 0xffff == 0
    }
}

impl Number for f64 {
    type Key = u64;

    #[inline(always)]
    fn key(self) -> u64 {
        self.to_bits() & !(1 << 63)
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
}

impl Key for u64 {
    const NONE: u64 = 0;
    const ALL: u64 = u64::MAX;
    const BIT_COUNT: u32 = u64::BITS;

    fn bit(at: u32) -> u64 {
        1 << at
    }

    #[inline(always)]
    fn magnitude(self) -> f64 {
        f64::from_bits(self)
    }

    #[inline(always)]
    fn leading(self) -> u16 {
        let narrow = self.magnitude() as f32;
        let away = f64::from(narrow) > self.magnitude();
        (narrow.to_bits() - u32::from(away)).leading()
    }

    /// Not told from a mask of bits alone: the exponents of the two types differ.
    fn is_leading(self) -> bool {
        self == 0
    }
}

/// The bits that any key has, and the bits that all have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread<K> {
    pub any: K,
    pub all: K,
}

impl<K: Key> Spread<K> {
    pub fn of(keys: &[K]) -> Self {
        wide!({
            let mut spread = Spread {
                any: K::NONE,
                all: K::ALL,
            };
            for key in keys {
                spread.any = spread.any | *key;
                spread.all = spread.all & *key;
            }
            spread
        })
    }
}

/// The key of the given rank (0 is the smallest), found bit by bit: it is the largest key that at most `rank` keys lie below.
///
/// # Panics
/// If there is no key of that rank.
pub fn of_rank<K: Key>(keys: &[K], rank: usize, spread: Spread<K>) -> K {
    assert!(rank < keys.len(), "a rank beyond the keys");
    let mut found = K::NONE;
    for bit in (0..K::BIT_COUNT).rev().map(K::bit) {
        if spread.any & bit == K::NONE {
            continue;
        }
        let tried = found | bit;
        if spread.all & bit == bit || count_below(keys, tried) <= rank {
            found = tried;
        }
    }
    found
}

/// The lower of the two middle keys, as `torch.median` takes it.
pub fn lower_median<K: Key>(keys: &[K], spread: Spread<K>) -> K {
    of_rank(keys, keys.len().saturating_sub(1) / 2, spread)
}

fn count_below<K: Key>(keys: &[K], limit: K) -> usize {
    // Counted in 32 bits, which the registers hold more of; BOUND: a row is at most 2^26 bytes long.
    wide!({ keys.iter().map(|key| u32::from(*key < limit)).sum::<u32>() as usize })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn median<T: Number>(row: &[T]) -> f64 {
        let keys: Vec<T::Key> = row.iter().map(|x| x.key()).collect();
        lower_median(&keys, Spread::of(&keys)).magnitude()
    }

    #[test]
    fn the_lower_of_two_middle_magnitudes_is_taken() {
        assert_eq!(median(&[4.0_f32, -1.0, 2.0, -3.0]), 2.0);
        assert_eq!(median(&[4.0_f64, -1.0, 2.0]), 2.0);
        assert_eq!(median(&[-7.0_f32]), 7.0);
        assert_eq!(median(&[0.0_f32, 0.0, 5.0]), 0.0);
    }

    #[test]
    fn leading_bits_are_rounded_towards_zero() {
        let just_below = 1.0_f64 - f64::EPSILON;
        assert_eq!(just_below.key().leading(), 0x3f7f);
        assert_eq!(1.0_f64.key().leading(), 0x3f80);
        assert_eq!(1e300_f64.key().leading(), 0x7f7f);
    }

    proptest! {
        #[test]
        fn every_rank_is_that_of_sorting(row in proptest::collection::vec(-1e3_f32..1e3, 1..70), rank in 0_usize..70) {
            let rank = rank % row.len();
            let keys: Vec<u32> = row.iter().map(|x| x.key()).collect();
            let mut magnitudes: Vec<f32> = row.iter().map(|x| x.abs()).collect();
            magnitudes.sort_by(f32::total_cmp);
            prop_assert_eq!(of_rank(&keys, rank, Spread::of(&keys)).magnitude(), f64::from(magnitudes[rank]));
        }
    }
}
