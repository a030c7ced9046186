//! Faults of memory: numbers of which a bit is flipped, drawn from a seed.
//!
//! blake3 extends the seed and what names the numbers to as many random bits as are needed. So a draw depends on nothing else: not on
//! what is computed beside it, in what order, or on how many machines.

/// How often a number has one bit flipped; which bit is drawn evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Of a number, from 0 to 1.
    pub rate: f64,
    pub seed: u64,
}

impl Faults {
    /// Which of `count` numbers of so many bits are hit, and where; `names` are the numbers' own.
    pub fn drawn(&self, names: &[&[u8]], count: usize, bits: u32) -> Vec<(usize, u32)> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        for name in names {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        }
        let mut random = hasher.finalize_xof();
        let mut hits = Vec::new();
        for at in 0..count {
            let mut draw = [0; 8];
            random.fill(&mut draw);
            let draw = u64::from_le_bytes(draw);
            // 53 bits decide whether, the others where
            if ((draw >> 11) as f64) < self.rate * (1_u64 << 53) as f64 {
                hits.push((at, (draw & 0x7ff) as u32 % bits));
            }
        }
        hits
    }

    /// Flips bits of stored numbers of `size` bytes each, little-endian; gives how many were hit.
    pub fn flip_stored(&self, names: &[&[u8]], bytes: &mut [u8], size: usize) -> u64 {
        let hits = self.drawn(names, bytes.len() / size, 8 * size as u32);
        for (at, bit) in &hits {
            bytes[at * size + *bit as usize / 8] ^= 1 << (bit % 8);
        }
        hits.len() as u64
    }

    /// A row of f32 with bits flipped among the leading `bits` of each number; which ones follows from the place and the row itself.
    pub fn flip_row(&self, place: &str, row: &mut [f32], bits: u32) {
        let named: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        for (at, bit) in self.drawn(&[place.as_bytes(), &named], row.len(), bits) {
            row[at] = f32::from_bits(row[at].to_bits() ^ 1 << (u32::BITS - bits + bit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_as_frequent_as_they_should_be_and_fall_on_every_bit() {
        let faults = Faults { rate: 0.01, seed: 7 };
        let hits = faults.drawn(&[b"w"], 1_000_000, 16);
        // ten thousand are expected, with a deviation of a hundred
        assert!((9_600..10_400).contains(&hits.len()), "{}", hits.len());
        for bit in 0..16 {
            let count = hits.iter().filter(|(_, at)| *at == bit).count();
            assert!((500..750).contains(&count), "bit {bit}: {count}");
        }
        assert_eq!(hits, faults.drawn(&[b"w"], 1_000_000, 16));
        assert_ne!(hits, faults.drawn(&[b"v"], 1_000_000, 16));
        assert_ne!(hits, Faults { seed: 8, ..faults }.drawn(&[b"w"], 1_000_000, 16));
        assert_eq!(Faults { rate: 0.0, seed: 7 }.drawn(&[b"w"], 1000, 16), []);
        assert_eq!(Faults { rate: 1.0, seed: 7 }.drawn(&[b"w"], 1000, 16).len(), 1000);
    }

    #[test]
    fn one_bit_of_a_hit_number_changes() {
        let faults = Faults { rate: 1.0, seed: 3 };
        let mut row = [1.5_f32, -2.0, 0.0];
        faults.flip_row("mlp_in.0", &mut row, 16);
        for (after, before) in row.iter().zip([1.5_f32, -2.0, 0.0]) {
            let changed = after.to_bits() ^ before.to_bits();
            assert_eq!((changed.count_ones(), changed & 0xffff), (1, 0));
        }
        let mut bytes = [0_u8; 8];
        assert_eq!(faults.flip_stored(&[b"w"], &mut bytes, 2), 4);
        assert!(
            bytes
                .chunks(2)
                .all(|pair| pair[0].count_ones() + pair[1].count_ones() == 1)
        );
    }
}
