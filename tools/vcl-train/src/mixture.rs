//! A mixture of named data by shares.

use std::str::FromStr;

use numerics::rng::Rng;
use process::{Error, Result};

use crate::sample::Sample;

/// Shares by name, which must sum to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix(pub Vec<(String, f64)>);

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut shares: Vec<(String, f64)> = Vec::new();
        for part in text.split(',') {
            let (name, share) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not NAME=SHARE"))?;
            let share: f64 = share.parse().map_err(|_| format!("{share:?} is not a number"))?;
            if !(0.0..=1.0).contains(&share) || shares.iter().any(|(known, _)| known == name) {
                return Err(format!("{part:?}: each name once, with a share from 0 to 1"));
            }
            shares.push((name.into(), share));
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        if (sum - 1.0).abs() > 1e-6 {
            return Err(format!("the shares sum to {sum}, not 1"));
        }
        Ok(Self(shares))
    }
}

impl Mix {
    /// Rows of each name in `total`, by largest remainder.
    pub fn counts(&self, total: usize) -> Vec<(String, usize)> {
        let mut counts: Vec<(usize, f64)> = self
            .0
            .iter()
            .map(|(_, share)| (share * total as f64, *share))
            .map(|(exact, _)| (exact.floor() as usize, exact - exact.floor()))
            .collect();
        let missing = total - counts.iter().map(|(count, _)| count).sum::<usize>();
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by(|&a, &b| counts[b].1.total_cmp(&counts[a].1).then(a.cmp(&b)));
        for &index in order.iter().take(missing) {
            counts[index].0 += 1;
        }
        self.0
            .iter()
            .zip(counts)
            .map(|((name, _), (count, _))| (name.clone(), count))
            .collect()
    }
}

/// Draws the mixture without replacement; each source's draw depends on the seed and its name alone.
pub fn mixed(sources: Vec<(String, Vec<Sample>)>, mix: &Mix, total: usize, seed: u64) -> Result<Vec<Sample>> {
    let wanted = mix.counts(total);
    if let Some((name, _)) = sources
        .iter()
        .find(|(name, _)| wanted.iter().all(|(wanted, _)| wanted != name))
    {
        return Err(Error::usage("--mix", format!("gives no share to {name}")));
    }
    let mut chosen = Vec::with_capacity(total);
    for (name, count) in wanted {
        let Some((_, samples)) = sources.iter().find(|(source, _)| *source == name) else {
            return Err(Error::usage("--mix", format!("names {name}, which no --data has")));
        };
        if samples.len() < count {
            let cause = format!("{name} has {} rows, the mixture takes {count}", samples.len());
            return Err(Error::input("--mix", cause).hint("lower --total"));
        }
        let rng = Rng::new(seed, &format!("mix {name}"));
        chosen.extend(
            rng.subset(0, count, samples.len())
                .into_iter()
                .map(|index| samples[index].clone()),
        );
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixture_takes_exactly_the_total() {
        let mix: Mix = "a=0.333,b=0.333,c=0.334".parse().unwrap();
        let counts = mix.counts(100);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), 100);
        assert_eq!(
            "safety=0.4,general=0.6".parse::<Mix>().unwrap().counts(5),
            [("safety".into(), 2), ("general".into(), 3)]
        );
        for bad in ["a=0.5", "a", "a=0.5,a=0.5", "a=x", "a=2,b=-1"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
