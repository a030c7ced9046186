//! The runs of a page, in the groups that are compared.

use numerics::statistics;

use crate::summary::Run;

/// All runs, in the groups that are compared.
pub struct Runs<'a> {
    pub all: Vec<&'a Run>,
    pub bench: &'a str,
    /// Where the loss is observed only: a group for each share, rising.
    pub shares: Vec<Vec<&'a Run>>,
    /// The same with general answers as long as the safety answers.
    pub matched: Vec<Vec<&'a Run>>,
    /// With the loss, at one share: a group for each arm, the two signs at the centre of the sweep first.
    pub arms: Vec<Vec<&'a Run>>,
}

/// Where the loss is observed only.
const OBSERVED: &str = "share";
/// The same, lengths matched.
const MATCHED: &str = "matched";
/// The two signs at the centre of the sweep.
pub const SIGNS: [&str; 2] = ["spread", "concentrate"];

impl<'a> Runs<'a> {
    /// `None` where no run observes the loss only.
    pub fn new(runs: &'a [Run], bench: &'a str) -> Option<Runs<'a>> {
        let of = |arm: &str| {
            let mut runs: Vec<&Run> = runs.iter().filter(|run| run.settings.arm == arm).collect();
            runs.sort_by(|one, other| one.settings.share.total_cmp(&other.settings.share));
            runs
        };
        let is_cured = |run: &&Run| ![OBSERVED, MATCHED].contains(&run.settings.arm.as_str());
        let mut cured: Vec<&Run> = runs.iter().filter(is_cured).collect();
        let order = |run: &Run| {
            let arm = run.settings.arm.clone();
            (SIGNS.iter().position(|sign| *sign == arm).unwrap_or(SIGNS.len()), arm)
        };
        cured.sort_by_key(|run| order(run));
        let groups = |runs: Vec<&'a Run>, same: fn(&Run, &Run) -> bool| -> Vec<Vec<&'a Run>> {
            runs.chunk_by(|one, other| same(one, other))
                .map(<[_]>::to_vec)
                .collect()
        };
        let by_share = |runs| groups(runs, |one, other| one.settings.share == other.settings.share);
        let shares = by_share(of(OBSERVED));
        (!shares.is_empty()).then(|| Runs {
            all: runs.iter().collect(),
            bench,
            shares,
            matched: by_share(of(MATCHED)),
            arms: groups(cured, |one, other| one.settings.arm == other.settings.arm),
        })
    }

    pub fn lowest(&self) -> &[&'a Run] {
        &self.shares[0]
    }

    /// Where the loss is observed only, at the highest share.
    pub fn highest(&self) -> &[&'a Run] {
        &self.shares[self.shares.len() - 1]
    }

    pub fn top(&self) -> f64 {
        self.highest()[0].settings.share
    }

    /// Where the loss is observed only, at the share of the arms with the loss.
    pub fn uncured(&self) -> &[&'a Run] {
        let share = self.arms.first().map(|arm| arm[0].settings.share);
        let found = self.shares.iter().find(|runs| Some(runs[0].settings.share) == share);
        found.map_or(self.highest(), Vec::as_slice)
    }

    /// The share of the arms with the loss.
    pub fn cured_share(&self) -> f64 {
        self.uncured()[0].settings.share
    }

    /// The runs of an arm; none where it was left out.
    pub fn arm(&self, name: &str) -> &[&'a Run] {
        let found = self.arms.iter().find(|runs| runs[0].settings.arm == name);
        found.map_or(&[], Vec::as_slice)
    }

    pub fn false_refusal(&self, run: &Run) -> Option<f64> {
        run.benches.get(self.bench)?.false_refusal
    }
}

/// Over runs; `None` where one lacks the measure.
pub fn mean(runs: &[&Run], measure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = runs.iter().map(|run| measure(run)).collect();
    statistics::mean(&values?)
}
