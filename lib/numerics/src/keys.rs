//! Magnitudes as integers: the bits of |x| are ordered as |x| is, so that order statistics become comparisons of integers.

use products::wide;
use std::ops::BitOr;

/// A number whose magnitude has such bits.
pub trait Number: Copy + Send + Sync + PartialOrd + 'static {
    type Key: Key;
    /// The bits of |x|.
    fn key(self) -> Self::Key;
    fn wide(self) -> f64;
}

/// The bits of a magnitude.
pub trait Key: Copy + Ord + Send + Sync + BitOr<Output = Self> + 'static {
    const NONE: Self;
    /// Heads are the leading bits of an f32.
    const HEAD_LEADS: bool;
    fn magnitude(self) -> f64;
    /// Its sixteen leading bits, ordered as keys are; the first one, a sign's, is not set.
    fn head(self) -> u16;
    fn of_head(head: u16) -> Self;
    /// The sixteen leading bits of the magnitude as an f32, rounded towards zero.
    fn leading(self) -> u16;
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
    const HEAD_LEADS: bool = true;

    #[inline(always)]
    fn magnitude(self) -> f64 {
        f64::from(f32::from_bits(self))
    }

    #[inline(always)]
    fn head(self) -> u16 {
        (self >> 16) as u16
    }

    fn of_head(head: u16) -> u32 {
        u32::from(head) << 16
    }

    #[inline(always)]
    fn leading(self) -> u16 {
        self.head()
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
    const HEAD_LEADS: bool = false;

    #[inline(always)]
    fn magnitude(self) -> f64 {
        f64::from_bits(self)
    }

    #[inline(always)]
    fn head(self) -> u16 {
        (self >> 48) as u16
    }

    fn of_head(head: u16) -> u64 {
        u64::from(head) << 48
    }

    #[inline(always)]
    fn leading(self) -> u16 {
        let narrow = self.magnitude() as f32;
        let away = f64::from(narrow) > self.magnitude();
        (narrow.to_bits() - u32::from(away)).head()
    }
}

/// The keys of a row, and room to search them in.
#[derive(Clone, Debug)]
pub struct Keys<K> {
    all: Vec<K>,
    heads: Vec<u16>,
    near: Vec<K>,
    /// No key has a bit beyond its head.
    are_heads: bool,
}

impl<K> Default for Keys<K> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            heads: Vec::new(),
            near: Vec::new(),
            are_heads: true,
        }
    }
}

impl<K: Key> Keys<K> {
    /// Forgets what there was.
    pub fn fill<T: Number<Key = K>>(&mut self, row: &[T]) {
        self.all.resize(row.len(), K::NONE);
        self.heads.resize(row.len(), 0);
        let (all, heads) = (&mut self.all[..], &mut self.heads[..]);
        let any = wide!({
            let mut any = K::NONE;
            for ((key, head), x) in all.iter_mut().zip(heads.iter_mut()).zip(row) {
                *key = x.key();
                *head = key.head();
                any = any | *key;
            }
            any
        });
        self.are_heads = any == K::of_head(any.head());
    }

    pub fn all(&self) -> &[K] {
        &self.all
    }

    /// What each key's f32 leads with, where there is nothing more to it.
    pub fn as_leading(&self) -> Option<&[u16]> {
        (K::HEAD_LEADS && self.are_heads).then_some(&self.heads)
    }

    /// The key of the given rank; 0 is the smallest.
    ///
    /// # Panics
    /// If there is no key of that rank.
    pub fn of_rank(&mut self, rank: usize) -> K {
        assert!(rank < self.all.len(), "a rank beyond the keys");
        let (head, below) = head_of_rank(&self.heads, rank);
        if self.are_heads {
            return K::of_head(head);
        }
        let with_head = self.all.iter().zip(&self.heads).filter(|(_, its)| **its == head);
        self.near.clear();
        self.near.extend(with_head.map(|(key, _)| *key));
        *self.near.select_nth_unstable(rank - below).1
    }

    /// The lower of the two middle keys, as `torch.median` takes it.
    pub fn lower_median(&mut self) -> K {
        self.of_rank(self.all.len().saturating_sub(1) / 2)
    }
}

/// The head of the given rank and how many are less, found bit by bit: it is the largest number that at most `rank` heads lie below.
fn head_of_rank(heads: &[u16], rank: usize) -> (u16, usize) {
    let (any, all) = wide!({
        let none = (0, u16::MAX);
        heads.iter().fold(none, |(any, all), head| (any | *head, all & *head))
    });
    let (mut found, mut below) = (0, 0);
    for bit in (0..u16::BITS).rev().map(|at| 1 << at).filter(|bit| any & bit != 0) {
        let tried = found | bit;
        if all & bit != 0 {
            found = tried; // nothing lies between
            continue;
        }
        let count = count_below(heads, tried);
        if count <= rank {
            (found, below) = (tried, count);
        }
    }
    (found, below)
}

fn count_below(heads: &[u16], limit: u16) -> usize {
    // Signed and sixteen bits wide, which the registers hold most of: heads have no sign, and a part has less than 2^15.
    let limit = limit as i16;
    let part = |heads: &[u16]| {
        heads.iter().fold(0_i16, |count, head| {
            count.wrapping_add(i16::from((*head as i16) < limit))
        })
    };
    wide!({ heads.chunks(1 << 14).map(|heads| part(heads) as usize).sum() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys<T: Number>(row: &[T]) -> Keys<T::Key> {
        let mut keys = Keys::default();
        keys.fill(row);
        keys
    }

    fn median<T: Number>(row: &[T]) -> f64 {
        keys(row).lower_median().magnitude()
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
            let mut magnitudes: Vec<f32> = row.iter().map(|x| x.abs()).collect();
            magnitudes.sort_by(f32::total_cmp);
            prop_assert_eq!(keys(&row).of_rank(rank).magnitude(), f64::from(magnitudes[rank]));
            let wide: Vec<f64> = row.iter().map(|x| f64::from(*x) / 3.0).collect();
            let mut magnitudes: Vec<f64> = wide.iter().map(|x| x.abs()).collect();
            magnitudes.sort_by(f64::total_cmp);
            prop_assert_eq!(keys(&wide).of_rank(rank).magnitude(), magnitudes[rank]);
        }
    }

    #[test]
    fn long_rows_are_counted_in_parts() {
        let row: Vec<f32> = (0..200_001).map(|number| ((number * 7_919) % 200_001) as f32).collect();
        assert_eq!(median(&row), 100_000.0);
    }
}
