//! Scores to counts: per task and subject and over the whole, pairs against another model, pass@k.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use numerics::statistics::{mcnemar_exact, wilson};
use records::{JoinKey, Score};

use crate::report::{SkillReport, Versus};

use crate::plan::Figures;

/// The scores of one cell of the report, keys of questions beside them.
#[derive(Default)]
struct Cell<'s> {
    scores: Vec<&'s Score>,
}

/// What a cell counts. Empty task and subject: everything.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Key {
    bench: String,
    task: String,
    subject: String,
    extractor: String,
}

/// The rows of a report: whole benchmarks first, then their parts, extractors side by side.
pub fn reports(scores: &[Score], base: Option<&[Score]>, figures: &Figures) -> Vec<SkillReport> {
    let mut cells: BTreeMap<Key, Cell> = BTreeMap::new();
    for score in scores {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let part = Key {
            bench: score.bench.clone(),
            task: text(&score.task),
            subject: text(&score.subject),
            extractor: score.extractor.clone(),
        };
        let whole = Key {
            task: String::new(),
            subject: String::new(),
            ..part.clone()
        };
        if part != whole {
            cells.entry(part).or_default().scores.push(score);
        }
        cells.entry(whole).or_default().scores.push(score);
    }
    let base: HashMap<(JoinKey, &str), &Score> = base
        .unwrap_or_default()
        .iter()
        .map(|score| ((score.key(), score.extractor.as_str()), score))
        .collect();
    let unread = unread_by_all(scores);
    let mut reports: Vec<SkillReport> = cells
        .iter()
        .map(|(key, cell)| {
            let mut report = count(key, cell, figures);
            if figures.paired {
                report.versus = Some(versus(cell, &base));
            }
            if key.task.is_empty() && key.subject.is_empty() {
                report.unread_by_all_count = Some(unread.get(&key.bench).copied().unwrap_or(0));
            }
            report
        })
        .collect();
    for index in 0..reports.len() {
        let whole = &reports[index];
        if whole.task.is_empty() && whole.subject.is_empty() {
            let is_part = |report: &&SkillReport| {
                report.bench == whole.bench
                    && report.extractor == whole.extractor
                    && !(report.task.is_empty() && report.subject.is_empty())
            };
            let parts: Vec<f64> = reports
                .iter()
                .filter(is_part)
                .filter_map(|report| report.accuracy)
                .collect();
            reports[index].accuracy_macro = numerics::statistics::mean(&parts);
        }
    }
    reports
}

fn count(key: &Key, cell: &Cell, figures: &Figures) -> SkillReport {
    if let Some(mean) = mean_mass(cell, figures.confidence) {
        return SkillReport {
            accuracy: Some(mean.estimate),
            accuracy_low: mean.low,
            accuracy_high: mean.high,
            accuracy_all: mean.estimate,
            mass_stderr: mean.stderr,
            ..rates(key, cell, figures)
        };
    }
    rates(key, cell, figures)
}

/// Of shares instead of right or wrong.
struct MeanMass {
    estimate: f64,
    low: f64,
    high: f64,
    stderr: Option<f64>,
}

/// None where the cell holds no masses. Their interval is that of a mean, within 0 and 1.
fn mean_mass(cell: &Cell, confidence: f64) -> Option<MeanMass> {
    let masses: Vec<f64> = cell.scores.iter().filter_map(|score| score.mass).collect();
    let estimate = numerics::statistics::mean(&masses)?;
    let squares: f64 = masses.iter().map(|mass| (mass - estimate) * (mass - estimate)).sum();
    let count = masses.len() as f64;
    let stderr = (masses.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt());
    let half = stderr.map(|stderr| numerics::statistics::normal_quantile(0.5 + confidence / 2.0) * stderr);
    Some(MeanMass {
        estimate,
        low: half.map_or(0.0, |half| (estimate - half).max(0.0)),
        high: half.map_or(1.0, |half| (estimate + half).min(1.0)),
        stderr,
    })
}

fn rates(key: &Key, cell: &Cell, figures: &Figures) -> SkillReport {
    let count = cell.scores.len() as u64;
    let correct_count = cell.scores.iter().filter(|score| score.correct == Some(true)).count() as u64;
    let unread_count = cell.scores.iter().filter(|score| !score.read).count() as u64;
    let read_count = count - unread_count;
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let normed: Vec<bool> = cell.scores.iter().filter_map(|score| score.acc_norm).collect();
    SkillReport {
        bench: key.bench.clone(),
        task: key.task.clone(),
        subject: key.subject.clone(),
        extractor: key.extractor.clone(),
        count,
        correct_count,
        unread_count,
        unread_share: share(unread_count, count).unwrap_or(0.0),
        accuracy: share(correct_count, read_count),
        accuracy_low: wilson(correct_count, count, figures.confidence).map_or(0.0, |interval| interval.low),
        accuracy_high: wilson(correct_count + unread_count, count, figures.confidence)
            .map_or(1.0, |interval| interval.high),
        accuracy_all: share(correct_count, count).unwrap_or(0.0),
        acc_norm: share(
            normed.iter().filter(|is_right| **is_right).count() as u64,
            normed.len() as u64,
        ),
        mass_stderr: None,
        accuracy_macro: None,
        unread_by_all_count: None,
        pass_at_k: pass_at_k(cell, &figures.pass_at),
        versus: None,
    }
}

/// pass@k of programs: the mean over questions of the unbiased estimate. A k that a question lacks attempts for is left out.
fn pass_at_k(cell: &Cell, ks: &[u64]) -> BTreeMap<u64, f64> {
    let mut attempts: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for score in cell.scores.iter().filter(|score| score.bench == "humaneval") {
        let (count, passed) = attempts.entry((&score.bench, &score.id)).or_default();
        *count += 1;
        *passed += u64::from(score.correct == Some(true));
    }
    if attempts.is_empty() {
        return BTreeMap::new();
    }
    ks.iter()
        .filter(|k| attempts.values().all(|(count, _)| count >= k))
        .map(|k| {
            (
                *k,
                attempts
                    .values()
                    .map(|(count, passed)| pass_at(*count, *passed, *k))
                    .sum::<f64>()
                    / attempts.len() as f64,
            )
        })
        .collect()
}

/// The chance that k of n attempts, c of which pass, hold one that passes: 1 - C(n-c, k) / C(n, k), as a product (Chen et al. 2021).
fn pass_at(n: u64, c: u64, k: u64) -> f64 {
    if n - c < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

fn versus(cell: &Cell, base: &HashMap<(JoinKey, &str), &Score>) -> Versus {
    let pairs = cell.scores.iter().filter_map(|score| {
        let other = base.get(&(score.key(), score.extractor.as_str()))?;
        Some((score.correct?, other.correct?))
    });
    let (mut pair_count, mut newly_correct_count, mut newly_wrong_count) = (0, 0, 0);
    for (is_right, was_right) in pairs {
        pair_count += 1;
        newly_correct_count += u64::from(is_right && !was_right);
        newly_wrong_count += u64::from(!is_right && was_right);
    }
    Versus {
        pair_count,
        delta: (pair_count > 0).then(|| (newly_correct_count as f64 - newly_wrong_count as f64) / pair_count as f64),
        newly_correct_count,
        newly_wrong_count,
        mcnemar_p: mcnemar_exact(newly_correct_count, newly_wrong_count),
    }
}

/// Answers that no extractor could read, by benchmark.
fn unread_by_all(scores: &[Score]) -> BTreeMap<String, u64> {
    let all: BTreeSet<JoinKey> = scores.iter().map(Score::key).collect();
    let read: BTreeSet<JoinKey> = scores.iter().filter(|score| score.read).map(Score::key).collect();
    let mut counts = BTreeMap::new();
    for key in all.difference(&read) {
        *counts.entry(key.bench.clone()).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_at_k_is_the_share_of_draws_that_hold_a_pass() {
        assert_eq!(pass_at(1, 0, 1), 0.0);
        assert_eq!(pass_at(1, 1, 1), 1.0);
        assert!((pass_at(10, 3, 1) - 0.3).abs() < 1e-12);
        // 1 - C(7,2)/C(10,2) = 1 - 21/45.
        assert!((pass_at(10, 3, 2) - 24.0 / 45.0).abs() < 1e-12);
        assert_eq!(pass_at(10, 9, 2), 1.0);
    }
}
