//! Entropy of counts and of weights, and what a smaller sample would have shown (rarefaction).
//!
//! Text measures are in bits, spectra in nats: the name of a function says which.

/// −Σ p log₂ p with p = count / Σ counts, in bits; 0 for no counts. Zeros count for nothing.
pub fn entropy_bits(counts: impl IntoIterator<Item = u64>) -> f64 {
    // Σ c log c is accumulated with compensation: a corpus has 10^7 types, most of them seen once.
    let mut total = 0_u64;
    let mut sum = Compensated::default();
    for count in counts {
        total += count;
        if count > 1 {
            sum.add(count as f64 * libm::log2(count as f64));
        }
    }
    if total == 0 {
        return 0.0;
    }
    (libm::log2(total as f64) - sum.value() / total as f64).max(0.0)
}

/// −Σ p ln p with p = weight / Σ weights, in nats; 0 when no weight is positive. Negative weights count as zero.
pub fn entropy_nats(weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().filter(|&&weight| weight > 0.0).sum();
    if total <= 0.0 {
        return 0.0;
    }
    let sum: f64 = weights
        .iter()
        .filter(|&&weight| weight > 0.0)
        .map(|weight| {
            let p = weight / total;
            p * libm::log(p)
        })
        .sum();
    (-sum).max(0.0)
}

/// How many types occur how often: the counts of counts, ascending. All of rarefaction is a function of this short table.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frequencies {
    /// (occurrences, types with so many), ascending in occurrences.
    table: Vec<(u64, u64)>,
    token_count: u64,
}

impl Frequencies {
    pub fn new(counts: impl IntoIterator<Item = u64>) -> Self {
        let mut table = std::collections::BTreeMap::new();
        for count in counts {
            if count > 0 {
                *table.entry(count).or_insert(0_u64) += 1;
            }
        }
        let token_count = table.iter().map(|(count, types)| count * types).sum();
        Self {
            table: table.into_iter().collect(),
            token_count,
        }
    }

    /// From pairs of a number of occurrences and a number of types, in any order, repetitions added up.
    pub fn from_table(mut table: Vec<(u64, u64)>) -> Self {
        table.retain(|(count, types)| *count > 0 && *types > 0);
        table.sort_unstable();
        table.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 += next.1;
            }
            is_same
        });
        let token_count = table.iter().map(|(count, types)| count * types).sum();
        Self { table, token_count }
    }

    pub fn token_count(&self) -> u64 {
        self.token_count
    }

    pub fn type_count(&self) -> u64 {
        self.table.iter().map(|(_, types)| types).sum()
    }

    /// Types seen exactly once.
    pub fn singleton_count(&self) -> u64 {
        self.table
            .first()
            .filter(|(count, _)| *count == 1)
            .map_or(0, |(_, types)| *types)
    }

    /// Entropy of all tokens, in bits.
    pub fn entropy_bits(&self) -> f64 {
        if self.token_count == 0 {
            return 0.0;
        }
        let mut sum = Compensated::default();
        for &(count, types) in &self.table {
            sum.add(types as f64 * count as f64 * libm::log2(count as f64));
        }
        (libm::log2(self.token_count as f64) - sum.value() / self.token_count as f64).max(0.0)
    }

    /// Expected distinct types among `sample_count` tokens drawn without replacement (Hurlbert 1971); `None` beyond what there is.
    pub fn rarefied_type_count(&self, sample_count: u64) -> Option<f64> {
        if sample_count > self.token_count {
            return None;
        }
        let (population, sample) = (self.token_count as f64, sample_count as f64);
        // P(a type of c occurrences is missed) = Π_{i<c} (N − m − i) / (N − i), continued from one c to the next: no large factorial is
        // ever subtracted from another.
        let (mut reached, mut log_missed) = (0_u64, 0.0_f64);
        let mut sum = Compensated::default();
        for &(count, types) in &self.table {
            while reached < count {
                let left = population - sample - reached as f64;
                log_missed = if left > 0.0 {
                    log_missed + libm::log1p(-sample / (population - reached as f64))
                } else {
                    f64::NEG_INFINITY
                };
                // Below e^-745 nothing is left in double precision: every commoner type is seen.
                reached = if log_missed < -745.0 { count } else { reached + 1 };
            }
            sum.add(types as f64 * -libm::expm1(log_missed));
        }
        Some(sum.value())
    }

    /// Expected plug-in entropy, in bits, of `sample_count` tokens drawn without replacement; `None` beyond what there is.
    pub fn rarefied_entropy_bits(&self, sample_count: u64) -> Option<f64> {
        if sample_count > self.token_count || sample_count == 0 {
            return None;
        }
        let mut sum = Compensated::default();
        for &(count, types) in &self.table {
            sum.add(types as f64 * expected_share_bits(self.token_count as f64, sample_count as f64, count as f64));
        }
        Some(sum.value().max(0.0))
    }
}

/// E[−(K/m) log₂ (K/m)], K of the c tokens of a type being among m drawn of N (hypergeometric).
///
/// The weights of K are built outwards from its mode by their ratios and divided by their sum, so they need no factorials and add up
/// to one. BOUND: both ways end where a weight can no longer change the sum.
fn expected_share_bits(population: f64, sample: f64, count: f64) -> f64 {
    const NEGLIGIBLE: f64 = 1e-20;
    let least = (sample + count - population).max(0.0);
    let most = count.min(sample);
    let mode = libm::floor((sample + 1.0) * (count + 1.0) / (population + 2.0)).clamp(least, most);
    let share_bits = |k: f64| {
        if k > 0.0 {
            -(k / sample) * libm::log2(k / sample)
        } else {
            0.0
        }
    };
    let (mut weights, mut bits) = (1.0, share_bits(mode));
    let (mut k, mut weight) = (mode, 1.0);
    while k < most && weight >= NEGLIGIBLE {
        weight *= (count - k) * (sample - k) / ((k + 1.0) * (population - count - sample + k + 1.0));
        k += 1.0;
        weights += weight;
        bits += weight * share_bits(k);
    }
    (k, weight) = (mode, 1.0);
    while k > least && weight >= NEGLIGIBLE {
        weight *= k * (population - count - sample + k) / ((count - k + 1.0) * (sample - k + 1.0));
        k -= 1.0;
        weights += weight;
        bits += weight * share_bits(k);
    }
    bits / weights
}

/// Neumaier's compensated sum.
#[derive(Default)]
struct Compensated {
    sum: f64,
    lost: f64,
}

impl Compensated {
    fn add(&mut self, term: f64) {
        let next = self.sum + term;
        self.lost += if self.sum.abs() >= term.abs() {
            (self.sum - next) + term
        } else {
            (term - next) + self.sum
        };
        self.sum = next;
    }

    fn value(&self) -> f64 {
        self.sum + self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_vocabulary_of_two_to_the_m_types_has_m_bits() {
        for m in 0..12 {
            let entropy = entropy_bits(std::iter::repeat_n(3, 1 << m));
            assert!((entropy - f64::from(m)).abs() < 1e-12);
            assert_eq!(Frequencies::new(std::iter::repeat_n(3, 1 << m)).entropy_bits(), entropy);
        }
        assert_eq!(entropy_bits([]), 0.0);
        assert_eq!(entropy_bits([17]), 0.0);
    }

    #[test]
    fn nats_and_bits_agree_and_zero_weights_do_nothing() {
        let bits = entropy_bits([1, 2, 5]);
        let nats = entropy_nats(&[1.0, 0.0, 2.0, 5.0, -1e-18]);
        assert!((nats / std::f64::consts::LN_2 - bits).abs() < 1e-14);
        assert_eq!(entropy_nats(&[0.0]), 0.0);
    }

    #[test]
    fn rarefaction_agrees_with_enumerating_every_subset() {
        let counts = [4_u64, 2, 1, 1];
        let tokens: Vec<usize> = counts
            .iter()
            .enumerate()
            .flat_map(|(t, &c)| std::iter::repeat_n(t, c as usize))
            .collect();
        let frequencies = Frequencies::new(counts);
        for sample in 1..=8_u32 {
            let (mut types, mut entropy, mut subsets) = (0.0, 0.0, 0.0);
            for mask in 0..1_u32 << tokens.len() {
                if mask.count_ones() != sample {
                    continue;
                }
                let mut seen = [0_u64; 4];
                for (index, &token) in tokens.iter().enumerate() {
                    seen[token] += u64::from(mask >> index & 1);
                }
                types += seen.iter().filter(|&&count| count > 0).count() as f64;
                entropy += entropy_bits(seen);
                subsets += 1.0;
            }
            let found_types = frequencies.rarefied_type_count(u64::from(sample)).unwrap();
            let found_entropy = frequencies.rarefied_entropy_bits(u64::from(sample)).unwrap();
            assert!((found_types - types / subsets).abs() < 1e-10, "{sample}: {found_types}");
            assert!(
                (found_entropy - entropy / subsets).abs() < 1e-10,
                "{sample}: {found_entropy}"
            );
        }
        assert_eq!(frequencies.rarefied_type_count(9), None);
        assert_eq!(frequencies.rarefied_entropy_bits(9), None);
    }

    #[test]
    fn drawing_everything_changes_nothing_even_with_very_common_types() {
        let frequencies = Frequencies::from_table(vec![
            (1, 500_000),
            (3, 70_000),
            (40_000, 2),
            (1_000_000, 1),
            (2_500_000, 1),
            (3, 1),
        ]);
        let all = frequencies.token_count();
        assert!((frequencies.rarefied_type_count(all).unwrap() - frequencies.type_count() as f64).abs() < 1e-6);
        assert!((frequencies.rarefied_entropy_bits(all).unwrap() - frequencies.entropy_bits()).abs() < 1e-12);
        let one = (
            frequencies.rarefied_type_count(1).unwrap(),
            frequencies.rarefied_entropy_bits(1).unwrap(),
        );
        assert!((one.0 - 1.0).abs() < 1e-9 && one.1 == 0.0);
        assert!(frequencies.rarefied_entropy_bits(all / 2).unwrap() < frequencies.entropy_bits());
    }

    #[test]
    fn frequencies_count_types_tokens_and_singletons() {
        let frequencies = Frequencies::new([1, 1, 5, 0]);
        assert_eq!(
            (
                frequencies.token_count(),
                frequencies.type_count(),
                frequencies.singleton_count()
            ),
            (7, 3, 2)
        );
    }
}
