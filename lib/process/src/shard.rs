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

    /// The shard that the environment names: SHARD_INDEX and SHARD_COUNT, else the task of a scheduler's array, else RANK and WORLD_SIZE.
    pub fn from_environment() -> Result<Option<Shard>> {
        Environment(|name: &str| env::var(name).ok()).shard()
    }
}

/// How a scheduler tells a task of an array which one it is.
struct Array {
    index: &'static str,
    /// Number of the first task.
    first: u32,
    size: Size,
}

/// How many tasks there are, where the scheduler says it.
enum Size {
    Named(&'static str),
    /// Some tasks may be run alone, with the numbers they had: of an array that is not whole no size is known.
    Bounds {
        first: &'static str,
        last: &'static str,
        step: &'static str,
        count: Option<&'static str>,
    },
    Unknown,
}

/// The first whose index is set counts.
const ARRAYS: &[Array] = &[
    Array {
        index: "SLURM_ARRAY_TASK_ID",
        first: 0,
        size: Size::Bounds {
            first: "SLURM_ARRAY_TASK_MIN",
            last: "SLURM_ARRAY_TASK_MAX",
            step: "SLURM_ARRAY_TASK_STEP",
            count: Some("SLURM_ARRAY_TASK_COUNT"),
        },
    },
    Array {
        index: "AWS_BATCH_JOB_ARRAY_INDEX",
        first: 0,
        size: Size::Named("AWS_BATCH_JOB_ARRAY_SIZE"),
    },
    Array {
        index: "CLOUD_RUN_TASK_INDEX",
        first: 0,
        size: Size::Named("CLOUD_RUN_TASK_COUNT"),
    },
    Array {
        index: "JOB_COMPLETION_INDEX",
        first: 0,
        size: Size::Unknown,
    },
    Array {
        index: "SGE_TASK_ID",
        first: 1,
        size: Size::Bounds {
            first: "SGE_TASK_FIRST",
            last: "SGE_TASK_LAST",
            step: "SGE_TASK_STEPSIZE",
            count: None,
        },
    },
    Array {
        index: "PBS_ARRAY_INDEX",
        first: 0,
        size: Size::Unknown,
    },
];

const INDEX: &str = "SHARD_INDEX";
const COUNT: &str = "SHARD_COUNT";

struct Environment<F>(F);

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn shard(&self) -> Result<Option<Shard>> {
        let (index, count) = (self.number(INDEX)?, self.number(COUNT)?);
        if let (None, Some(array)) = (index, ARRAYS.iter().find(|array| self.text(array.index).is_some())) {
            let count = count.map_or_else(|| self.size(array), Ok)?;
            let task = self.needed(array.index, array.index)?;
            let index = task
                .checked_sub(array.first)
                .ok_or_else(|| Error::usage(array.index, format!("is {task}, below the first task {}", array.first)))?;
            return made(array.index, index, count).map(Some);
        }
        match pair((INDEX, index), (COUNT, count))? {
            None => pair(
                ("RANK", self.number("RANK")?),
                ("WORLD_SIZE", self.number("WORLD_SIZE")?),
            ),
            shard => Ok(shard),
        }
    }

    /// A variable that says something: Sun Grid Engine writes `undefined` where there is no array.
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|text| text != "undefined")
    }

    fn number(&self, name: &str) -> Result<Option<u32>> {
        let read = |text: String| {
            let number = text.parse();
            number.map_err(|_| Error::usage(name, format!("{text:?} is not a number")))
        };
        self.text(name).map(read).transpose()
    }

    fn needed(&self, name: &str, index: &str) -> Result<u32> {
        let missing = || Error::usage(index, format!("is set, but {name} is not")).hint(WHOLE);
        self.number(name)?.ok_or_else(missing)
    }

    /// How many tasks an array has, where that is certain.
    fn size(&self, array: &Array) -> Result<u32> {
        match array.size {
            Size::Named(count) => self.needed(count, array.index),
            Size::Unknown => self.needed(COUNT, array.index),
            Size::Bounds {
                first,
                last,
                step,
                count,
            } => {
                let (from, to) = (self.needed(first, array.index)?, self.needed(last, array.index)?);
                let step = self.number(step)?.unwrap_or(1);
                let size = (to + 1).saturating_sub(array.first);
                let told = count.map_or(Ok(size), |count| self.needed(count, array.index))?;
                if from != array.first || step != 1 || told != size || size < 2 {
                    let cause = format!(
                        "{told} tasks from {from} to {to} are no whole array from {} on",
                        array.first
                    );
                    return Err(Error::usage(array.index, cause).hint(WHOLE));
                }
                Ok(size)
            }
        }
    }
}

const WHOLE: &str = "SHARD_COUNT says how many shards there are in all; --shard 0/1 takes everything";

fn pair(index: (&str, Option<u32>), count: (&str, Option<u32>)) -> Result<Option<Shard>> {
    match (index, count) {
        ((_, None), (_, None)) => Ok(None),
        ((name, Some(index)), (_, Some(count))) => made(name, index, count).map(Some),
        ((name, Some(_)), (other, None)) | ((other, None), (name, Some(_))) => {
            Err(Error::usage(name, format!("is set, but {other} is not")))
        }
    }
}

fn made(name: &str, index: u32, count: u32) -> Result<Shard> {
    Shard::new(index, count).map_err(|cause| Error::usage(name, cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn every_bucket_has_exactly_one_owner_for_every_count() {
        for count in 1..=BUCKET_COUNT {
            for bucket in 0..64 {
                let owners = (0..count).filter(|&index| Shard { index, count }.owns(bucket)).count();
                assert_eq!(owners, 1, "bucket {bucket} of {count} shards");
            }
        }
    }

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn shard(variables: Variables) -> Result<Option<Shard>> {
        let get = |name: &str| {
            let set = variables.iter().find(|(key, _)| *key == name);
            set.map(|(_, value)| value.to_string())
        };
        Environment(get).shard()
    }

    fn slurm(
        id: &'static str,
        min: &'static str,
        max: &'static str,
        count: &'static str,
    ) -> Vec<(&'static str, &'static str)> {
        let names = [
            "SLURM_ARRAY_TASK_ID",
            "SLURM_ARRAY_TASK_MIN",
            "SLURM_ARRAY_TASK_MAX",
            "SLURM_ARRAY_TASK_COUNT",
        ];
        names.into_iter().zip([id, min, max, count]).collect()
    }

    #[test]
    fn half_a_pair_is_refused() {
        for name in [
            "SHARD_INDEX",
            "SHARD_COUNT",
            "RANK",
            "WORLD_SIZE",
            "SLURM_ARRAY_TASK_ID",
            "JOB_COMPLETION_INDEX",
        ] {
            assert_eq!(shard(&[(name, "1")]).unwrap_err().exit(), Some(Exit::Usage), "{name}");
        }
        assert_eq!(shard(&[]).unwrap(), None);
    }

    #[test]
    fn every_scheduler_says_which_task_it_started() {
        let other = ("RANK", "0");
        let arrays: [(Variables, (u32, u32)); 7] = [
            (&slurm("2", "0", "3", "4"), (2, 4)),
            (
                &[("AWS_BATCH_JOB_ARRAY_INDEX", "2"), ("AWS_BATCH_JOB_ARRAY_SIZE", "4")],
                (2, 4),
            ),
            (&[("CLOUD_RUN_TASK_INDEX", "0"), ("CLOUD_RUN_TASK_COUNT", "1")], (0, 1)),
            (&[("JOB_COMPLETION_INDEX", "3"), ("SHARD_COUNT", "4")], (3, 4)),
            (&[("PBS_ARRAY_INDEX", "3"), ("SHARD_COUNT", "4")], (3, 4)),
            (
                &[
                    ("SGE_TASK_ID", "4"),
                    ("SGE_TASK_FIRST", "1"),
                    ("SGE_TASK_LAST", "4"),
                    ("SGE_TASK_STEPSIZE", "1"),
                ],
                (3, 4),
            ),
            (
                &[("SGE_TASK_ID", "undefined"), ("SHARD_INDEX", "1"), ("SHARD_COUNT", "2")],
                (1, 2),
            ),
        ];
        for (variables, (index, count)) in arrays {
            let found = shard(&[variables, &[other]].concat()).unwrap();
            assert_eq!(found, Some(Shard { index, count }), "{variables:?}");
        }
        let rank = [("RANK", "1"), ("WORLD_SIZE", "2"), ("SGE_TASK_ID", "undefined")];
        assert_eq!(shard(&rank).unwrap(), Some(Shard { index: 1, count: 2 }));
    }

    #[test]
    fn part_of_an_array_needs_to_be_told_the_whole() {
        // one task again; tasks with holes; an array from 1; every second one
        let parts = [
            slurm("1", "1", "1", "1"),
            slurm("2", "0", "3", "3"),
            slurm("1", "1", "4", "4"),
            slurm("2", "0", "6", "4"),
        ];
        for part in parts {
            let refused = shard(&part).unwrap_err();
            assert!(refused.to_string().contains("no whole array"), "{refused}");
            let index = part[0].1.parse().unwrap();
            let told = shard(&[&part[..], &[("SHARD_COUNT", "4")]].concat()).unwrap();
            assert_eq!(told, Some(Shard { index, count: 4 }));
        }
        let beyond = [&slurm("4", "1", "4", "4")[..], &[("SHARD_COUNT", "4")]].concat();
        assert!(shard(&beyond).unwrap_err().to_string().contains("allowed 0 to 3"));
        let again = [("SGE_TASK_ID", "2"), ("SGE_TASK_FIRST", "2"), ("SGE_TASK_LAST", "2")];
        assert!(shard(&again).is_err());
        assert_eq!(
            shard(&[&again[..], &[("SHARD_COUNT", "4")]].concat()).unwrap(),
            Some(Shard { index: 1, count: 4 })
        );
    }

    #[test]
    fn what_is_said_of_shards_counts_before_any_scheduler() {
        let said = [
            &slurm("2", "0", "3", "4")[..],
            &[("SHARD_INDEX", "0"), ("SHARD_COUNT", "8")],
        ]
        .concat();
        assert_eq!(shard(&said).unwrap(), Some(Shard { index: 0, count: 8 }));
    }

    #[test]
    fn a_shard_out_of_range_is_refused() {
        for text in ["4/4", "0/0", "0/65", "1", "a/b", "-1/2"] {
            assert!(Shard::parse(text).is_err(), "{text}");
        }
        assert_eq!(Shard::parse("3/4"), Ok(Shard { index: 3, count: 4 }));
    }
}
