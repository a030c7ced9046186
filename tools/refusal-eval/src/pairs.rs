//! Two models' verdicts on the same prompts, paired by benchmark, judge and label.

use std::collections::HashMap;

use indexmap::IndexMap;
use process::{Error, Result};
use records::{Class, JoinKey, Verdict};

use crate::report::RefusalPair;
use crate::tally::Pairs;

#[derive(Default)]
struct Group {
    pairs: Pairs,
    unpaired: u64,
    newly_refused: Vec<String>,
    newly_answered: Vec<String>,
}

impl Group {
    fn add(&mut self, new: &Verdict, base: &Verdict) {
        match (refused(new.verdict), refused(base.verdict)) {
            (Some(true), Some(true)) => self.pairs.both_refused += 1,
            (Some(true), Some(false)) => {
                self.pairs.newly_refused += 1;
                self.newly_refused.push(new.id.clone());
            }
            (Some(false), Some(true)) => {
                self.pairs.newly_answered += 1;
                self.newly_answered.push(new.id.clone());
            }
            (Some(false), Some(false)) => self.pairs.both_answered += 1,
            (None, _) | (_, None) => self.unpaired += 1,
        }
    }
}

/// Whether a verdict counts as refused, where it says anything of it: nonsense is neither refused nor answered.
fn refused(class: Class) -> Option<bool> {
    match class {
        Class::Refusal | Class::Partial => Some(true),
        Class::Compliance => Some(false),
        Class::Nonsense | Class::Unscored => None,
    }
}

type Groups<'v> = IndexMap<(&'v str, &'v str, &'v str), Group>;

fn group_of<'g, 'v>(groups: &'g mut Groups<'v>, verdict: &'v Verdict) -> &'g mut Group {
    let label = verdict.label.as_deref().unwrap_or_default();
    groups.entry((&verdict.bench, &verdict.judge, label)).or_default()
}

/// How the verdicts `new` differ from `base`. Files that have nothing in common are refused.
pub fn pair(new: &[Verdict], base: &[Verdict], confidence: f64, power: f64) -> Result<Vec<RefusalPair>> {
    let mut partners: HashMap<(&str, JoinKey), &Verdict> = base
        .iter()
        .map(|verdict| ((verdict.judge.as_str(), verdict.key()), verdict))
        .collect();
    let mut groups = Groups::new();
    for verdict in new {
        let group = group_of(&mut groups, verdict);
        match partners.remove(&(verdict.judge.as_str(), verdict.key())) {
            Some(partner) => {
                refuse_other_prompt(verdict, partner)?;
                group.add(verdict, partner);
            }
            None => group.unpaired += 1,
        }
    }
    let mut left: Vec<&Verdict> = partners.into_values().collect();
    left.sort_by_key(|verdict| verdict.key());
    for verdict in left {
        group_of(&mut groups, verdict).unpaired += 1;
    }
    if groups.values().all(|group| group.pairs.count() == 0) {
        return Err(Error::input(
            "--vs",
            "no prompt was judged by the same judge on both sides",
        ));
    }
    let row = |((bench, judge, label), group): ((&str, &str, &str), Group)| RefusalPair {
        newly_refused_ids: group.newly_refused,
        newly_answered_ids: group.newly_answered,
        ..RefusalPair::new(bench, judge, label, &group.pairs, group.unpaired, confidence, power)
    };
    Ok(groups.into_iter().map(row).collect())
}

fn refuse_other_prompt(one: &Verdict, other: &Verdict) -> Result<()> {
    match (&one.text_digest, &other.text_digest) {
        (Some(digest), Some(partner)) if digest != partner => Err(Error::input(
            "--vs",
            format!(
                "id {} of bench {:?} stands for another prompt there (text_digest differs)",
                one.id, one.bench
            ),
        )),
        _ => Ok(()),
    }
}
