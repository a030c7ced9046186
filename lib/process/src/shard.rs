//! Which part of the input belongs to this process.
//!
//! A record's bucket is the first six bits of its text digest; shard i of n owns the buckets b with
//! floor(b·n/64) = i. No coordinator: the same rule everywhere, and a union of shards is the whole.

use std::env;

use crate::exit::{Error, Result};

const BUCKET_COUNT: u32 = 64;

/// Shard `index` (0-based) of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub index: u32,
    pub count: u32,
}

impl Default for Shard {
    fn default() -> Self {
        Shard::WHOLE
    }
}

impl Shard {
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    pub fn new(index: u32, count: u32) -> std::result::Result<Shard, String> {
        if count == 0 || count > BUCKET_COUNT {
            return Err(format!("shard count is {count}, allowed 1 to {BUCKET_COUNT}"));
        }
        if index >= count {
            return Err(format!("shard index is {index}, allowed 0 to {}", count - 1));
        }
        Ok(Shard { index, count })
    }

    pub fn owns(self, bucket: u8) -> bool {
        u32::from(bucket) * self.count / BUCKET_COUNT == self.index
    }

    /// `i/n`, as typed.
    pub fn parse(text: &str) -> std::result::Result<Shard, String> {
        let (index, count) = text.split_once('/').ok_or("expected INDEX/COUNT, for example 0/4")?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is not a number"));
        Shard::new(number(index)?, number(count)?)
    }

    /// The shard that the environment names: SHARD_INDEX/SHARD_COUNT, then a Slurm array, then RANK/WORLD_SIZE.
    pub fn from_environment() -> Result<Option<Shard>> {
        from_lookup(|name| env::var(name).ok())
    }
}

fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Option<Shard>> {
    let number = |name: &str| -> Result<Option<u32>> {
        get(name)
            .map(|text| {
                text.parse::<u32>()
                    .map_err(|_| Error::usage(name, format!("{text:?} is not a number")))
            })
            .transpose()
    };
    let pair = |index_name: &str, count_name: &str| -> Result<Option<Shard>> {
        match (number(index_name)?, number(count_name)?) {
            (None, None) => Ok(None),
            (Some(index), Some(count)) => Shard::new(index, count)
                .map(Some)
                .map_err(|cause| Error::usage(index_name, cause)),
            (Some(_), None) => Err(Error::usage(index_name, format!("is set, but {count_name} is not"))),
            (None, Some(_)) => Err(Error::usage(count_name, format!("is set, but {index_name} is not"))),
        }
    };
    if let Some(shard) = pair("SHARD_INDEX", "SHARD_COUNT")? {
        return Ok(Some(shard));
    }
    if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
        let needed = |name: &str| -> Result<u32> {
            number(name)?.ok_or_else(|| Error::usage("SLURM_ARRAY_TASK_ID", format!("is set, but {name} is not")))
        };
        let count = needed("SLURM_ARRAY_TASK_COUNT")?;
        let first = needed("SLURM_ARRAY_TASK_MIN")?;
        let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
        let index = id
            .checked_sub(first)
            .ok_or_else(|| Error::usage("SLURM_ARRAY_TASK_ID", format!("is {id}, below the first task {first}")))?
            / step;
        return Shard::new(index, count)
            .map(Some)
            .map_err(|cause| Error::usage("SLURM_ARRAY_TASK_ID", cause));
    }
    pair("RANK", "WORLD_SIZE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn lookup(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_string())
        }
    }

    #[test]
    fn every_bucket_has_exactly_one_owner_for_every_count() {
        for count in 1..=BUCKET_COUNT {
            for bucket in 0..64 {
                let owners = (0..count).filter(|&index| Shard { index, count }.owns(bucket)).count();
                assert_eq!(owners, 1, "bucket {bucket} of {count} shards");
            }
        }
    }

    #[test]
    fn half_a_pair_is_refused() {
        for pairs in [
            &[("SHARD_INDEX", "1")],
            &[("WORLD_SIZE", "4")],
            &[("SLURM_ARRAY_TASK_ID", "4")],
        ] {
            assert_eq!(from_lookup(lookup(pairs)).unwrap_err().exit(), Some(Exit::Usage));
        }
    }

    #[test]
    fn a_slurm_array_may_start_anywhere_and_step() {
        let shard = from_lookup(lookup(&[
            ("SLURM_ARRAY_TASK_ID", "30"),
            ("SLURM_ARRAY_TASK_MIN", "10"),
            ("SLURM_ARRAY_TASK_STEP", "10"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("RANK", "0"),
            ("WORLD_SIZE", "9"),
        ]))
        .unwrap();
        assert_eq!(shard, Some(Shard { index: 2, count: 4 }));
    }

    #[test]
    fn a_shard_out_of_range_is_refused() {
        for text in ["4/4", "0/0", "0/65", "1", "a/b", "-1/2"] {
            assert!(Shard::parse(text).is_err(), "{text}");
        }
        assert_eq!(Shard::parse("3/4"), Ok(Shard { index: 3, count: 4 }));
    }
}
