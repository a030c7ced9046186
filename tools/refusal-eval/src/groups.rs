//! Verdicts counted by benchmark and judge, then by type and label, in the order in which they first appear.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use records::{RefusalReport, Verdict};

use crate::report;
use crate::tally::{Sides, Tally};

/// Counts under one benchmark and judge.
#[derive(Default)]
struct Group<'v> {
    /// By type and label.
    kinds: IndexMap<(&'v str, &'v str), Tally>,
    sides: Sides,
    unlabelled: Tally,
    all: Tally,
    model_digests: BTreeSet<&'v str>,
}

impl<'v> Group<'v> {
    fn add(&mut self, verdict: &'v Verdict) {
        let label = verdict.label.as_deref().unwrap_or_default();
        self.all.add(verdict.verdict);
        match label {
            "safe" => self.sides.safe.add(verdict.verdict),
            "unsafe" => self.sides.harmful.add(verdict.verdict),
            _ => self.unlabelled.add(verdict.verdict),
        }
        if let Some(kind) = &verdict.kind {
            self.kinds.entry((kind, label)).or_default().add(verdict.verdict);
        }
        self.model_digests.extend(verdict.model_digest.as_deref());
    }

    /// Several models under one benchmark have no digest in common.
    fn model_digest(&self) -> Option<&'v str> {
        self.model_digests
            .first()
            .copied()
            .filter(|_| self.model_digests.len() == 1)
    }

    /// Its types, then its labels, then the whole with the summary.
    fn rows(&self, bench: &str, judge: &str, confidence: f64) -> Vec<RefusalReport> {
        let digest = self.model_digest();
        let row = |kind: &str, label: &str, tally: &Tally| {
            report::refusal_report(bench, judge, kind, label, digest, tally, confidence)
        };
        let kinds = self.kinds.iter().map(|((kind, label), tally)| row(kind, label, tally));
        let labels = [
            ("safe", &self.sides.safe),
            ("unsafe", &self.sides.harmful),
            ("", &self.unlabelled),
        ];
        let labels = labels
            .into_iter()
            .filter(|(_, tally)| tally.count() > 0)
            .map(|(label, tally)| row("all", label, tally));
        let whole = RefusalReport {
            summary: Some(report::refusal_summary(&self.sides, confidence)),
            ..row("all", "all", &self.all)
        };
        kinds.chain(labels).chain([whole]).collect()
    }
}

/// The records of every benchmark and judge.
pub fn reports(verdicts: &[Verdict], confidence: f64) -> Vec<RefusalReport> {
    let mut groups: IndexMap<(&str, &str), Group> = IndexMap::new();
    for verdict in verdicts {
        groups.entry((&verdict.bench, &verdict.judge)).or_default().add(verdict);
    }
    groups
        .iter()
        .flat_map(|((bench, judge), group)| group.rows(bench, judge, confidence))
        .collect()
}
