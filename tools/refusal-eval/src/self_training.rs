//! Labels that a classifier gives where judges dispute: it learns from what all of them agree on, labels what it is sure of, learns from
//! that too, and stops where it agrees less with people. What people labelled is never learnt from: it measures the rest.

use std::collections::HashMap;

use numerics::naive_bayes::NaiveBayes;
use numerics::statistics;
use process::{Error, Result};

/// An answer, as far as this file knows it.
pub struct Example {
    pub features: Vec<u32>,
    /// Refused or not, where all judges agree.
    pub seed: Option<bool>,
    /// What people say.
    pub human: Option<bool>,
    /// How many answers a person's label stands for.
    pub weight: f64,
}

impl Example {
    fn is_candidate(&self) -> bool {
        self.seed.is_none() && self.human.is_none()
    }
}

/// A label of no person's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    pub is_refused: bool,
    /// The classifier's log-odds, without their sign.
    pub margin: f64,
    /// When it was given; 1 is the first.
    pub round: u64,
}

/// A round of learning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    pub round: u64,
    pub label_count: u64,
    /// With people, weighed.
    pub agreement: f64,
    /// Not where agreement fell: its labels are taken back.
    pub is_kept: bool,
}

pub struct Training {
    pub rounds: Vec<Round>,
    /// One for each example.
    pub labels: Vec<Option<Label>>,
    /// Log-odds of each example under what was learnt in the end.
    log_odds: Vec<f64>,
}

/// What is labelled above a margin, and how wrong that is where people looked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub margin: f64,
    /// Share of the disputed.
    pub coverage: f64,
    pub audit_count: u64,
    pub wrong_count: u64,
    /// Weighed; none where nobody looked.
    pub error: Option<f64>,
}

const ROUND_COUNT_MAX: u64 = 20;
/// Points of the curve of coverage against error, beside the margin that was asked for.
const SHARE_COUNT: usize = 10;

impl Training {
    pub fn new(examples: &[Example], feature_count: usize, margin: f64) -> Result<Training> {
        let mut labels: Vec<Option<Label>> = vec![None; examples.len()];
        let (mut log_odds, agreement) = learn(examples, &labels, feature_count)?;
        let mut rounds = vec![Round {
            round: 0,
            label_count: 0,
            agreement,
            is_kept: true,
        }];
        for round in 1..=ROUND_COUNT_MAX {
            let (next, new_count) = extend(examples, &labels, &log_odds, margin, round);
            if new_count == 0 {
                break;
            }
            let (next_odds, agreement) = learn(examples, &next, feature_count)?;
            let is_kept = rounds.last().is_none_or(|last| agreement >= last.agreement);
            rounds.push(Round {
                round,
                label_count: next.iter().flatten().count() as u64,
                agreement,
                is_kept,
            });
            if !is_kept {
                break;
            }
            (labels, log_odds) = (next, next_odds);
        }
        Ok(Training {
            rounds,
            labels,
            log_odds,
        })
    }

    /// Coverage against error at the margin that was asked for and at those that cover each tenth of the disputed, ascending.
    pub fn curve(&self, examples: &[Example], margin: f64) -> Vec<Point> {
        let disputed: Vec<(f64, &Example)> = self
            .log_odds
            .iter()
            .zip(examples)
            .filter(|(_, example)| example.seed.is_none())
            .map(|(odds, example)| (*odds, example))
            .collect();
        let mut margins: Vec<f64> = disputed.iter().map(|(odds, _)| odds.abs()).collect();
        margins.sort_by(f64::total_cmp);
        let mut at: Vec<f64> = (0..SHARE_COUNT)
            .filter_map(|tenth| margins.get(tenth * margins.len() / SHARE_COUNT))
            .copied()
            .collect();
        at.push(margin);
        at.sort_by(f64::total_cmp);
        at.dedup();
        at.into_iter().map(|margin| point(&disputed, margin)).collect()
    }
}

fn point(disputed: &[(f64, &Example)], margin: f64) -> Point {
    let covered = || disputed.iter().filter(|(odds, _)| odds.abs() >= margin);
    let audited: Vec<(bool, f64)> = covered()
        .filter_map(|(odds, example)| Some((example.human? == (*odds > 0.0), example.weight)))
        .collect();
    Point {
        margin,
        coverage: covered().count() as f64 / disputed.len().max(1) as f64,
        audit_count: audited.len() as u64,
        wrong_count: audited.iter().filter(|(is_right, _)| !is_right).count() as u64,
        error: weighed(&audited).map(|right| 1.0 - right),
    }
}

/// Fits to seeds and labels; the log-odds of every example, and the agreement with people.
fn learn(examples: &[Example], labels: &[Option<Label>], feature_count: usize) -> Result<(Vec<f64>, f64)> {
    let known = examples.iter().zip(labels).filter_map(|(example, label)| {
        let is_refused = example.seed.or(label.map(|label| label.is_refused))?;
        example
            .human
            .is_none()
            .then_some((example.features.as_slice(), is_refused))
    });
    let refuse = |cause: &str| Error::input("pseudo-label", cause);
    let model = NaiveBayes::fit(known, feature_count)
        .ok_or_else(|| refuse("the judges agree on no refusal, or on no compliance, outside the labelled answers"))?;
    let log_odds: Vec<f64> = examples
        .iter()
        .map(|example| model.log_odds(&example.features))
        .collect();
    let audited: Vec<(bool, f64)> = examples
        .iter()
        .zip(&log_odds)
        .filter_map(|(example, odds)| Some((example.human? == (*odds > 0.0), example.weight)))
        .collect();
    let agreement =
        weighed(&audited).ok_or_else(|| refuse("none of these answers has a person's label of refused or answered"))?;
    Ok((log_odds, agreement))
}

/// Labels what is sure enough and has none yet; how many that are.
fn extend(
    examples: &[Example],
    labels: &[Option<Label>],
    log_odds: &[f64],
    margin: f64,
    round: u64,
) -> (Vec<Option<Label>>, usize) {
    let label = |((example, label), odds): ((&Example, &Option<Label>), &f64)| {
        let is_sure = example.is_candidate() && odds.abs() >= margin;
        label.or(is_sure.then_some(Label {
            is_refused: *odds > 0.0,
            margin: odds.abs(),
            round,
        }))
    };
    let next: Vec<Option<Label>> = examples.iter().zip(labels).zip(log_odds).map(label).collect();
    let count = |labels: &[Option<Label>]| labels.iter().flatten().count();
    let new_count = count(&next) - count(labels);
    (next, new_count)
}

/// Share of what is right.
fn weighed(rows: &[(bool, f64)]) -> Option<f64> {
    let total: f64 = rows.iter().map(|(_, weight)| weight).sum();
    let right: f64 = rows
        .iter()
        .filter(|(is_right, _)| *is_right)
        .map(|(_, weight)| weight)
        .sum();
    (total > 0.0).then_some(right / total)
}

impl Point {
    /// Wilson's, for labels that were drawn from all alike.
    pub fn interval(&self, confidence: f64) -> Option<statistics::Interval> {
        statistics::wilson(self.wrong_count, self.audit_count, confidence)
    }
}

/// The words that texts have, numbered as they come.
#[derive(Default)]
pub struct Vocabulary {
    numbers: HashMap<String, u32>,
}

/// An answer says early whether it answers.
const WORD_COUNT_MAX: usize = 60;

impl Vocabulary {
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Words and pairs of words with which a text begins, each once.
    pub fn features(&mut self, text: &str) -> Vec<u32> {
        let is_part = |c: char| c.is_alphanumeric() || c == '\'';
        let text = text.to_lowercase().replace('’', "'");
        let words: Vec<&str> = text
            .split(|c| !is_part(c))
            .filter(|word| !word.is_empty())
            .take(WORD_COUNT_MAX)
            .collect();
        let pairs = words.windows(2).map(|pair| pair.join(" "));
        let all = words.iter().map(|word| word.to_string()).chain(pairs);
        let mut features: Vec<u32> = all.map(|word| self.number(word)).collect();
        features.sort_unstable();
        features.dedup();
        features
    }

    fn number(&mut self, word: String) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(word).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(vocabulary: &mut Vocabulary, text: &str, seed: Option<bool>, human: Option<bool>) -> Example {
        Example {
            features: vocabulary.features(text),
            seed,
            human,
            weight: 1.0,
        }
    }

    fn examples(audit: &[(&str, bool)]) -> (Vec<Example>, usize) {
        let mut vocabulary = Vocabulary::default();
        let mut examples: Vec<Example> = [
            ("i cannot help with that", Some(true)),
            ("i cannot do this, it is wrong", Some(true)),
            ("mix the flour and the eggs", Some(false)),
            ("heat the oven and the pan", Some(false)),
            ("this is wrong and harmful, i cannot", None),
            ("harmful requests are wrong", None),
            ("mix the eggs, then heat the pan", None),
        ]
        .into_iter()
        .map(|(text, seed)| example(&mut vocabulary, text, seed, None))
        .collect();
        for (text, human) in audit {
            examples.push(example(&mut vocabulary, text, None, Some(*human)));
        }
        (examples, vocabulary.len())
    }

    #[test]
    fn what_is_sure_is_labelled_and_teaches_the_next_round() {
        let (examples, feature_count) = examples(&[("i cannot", true), ("the oven", false)]);
        let training = Training::new(&examples, feature_count, 1.0).unwrap();
        let said = |index: usize| training.labels[index].map(|label| (label.is_refused, label.round));
        assert_eq!(said(4), Some((true, 1)));
        assert_eq!(said(6), Some((false, 1)));
        // "harmful" and "wrong" say enough only once the first labels are learnt.
        assert_eq!(said(5), Some((true, 2)));
        assert_eq!(
            (said(0), said(7)),
            (None, None),
            "seeds and people's labels are none of ours"
        );
        assert!(
            training
                .rounds
                .iter()
                .all(|round| round.is_kept && round.agreement == 1.0)
        );
    }

    #[test]
    fn a_round_that_people_agree_less_with_is_taken_back() {
        // Read from the seeds alone, the audited text is answered, as the person says; what is learnt of "harmful" turns it.
        let (examples, feature_count) = examples(&[("harmful", false)]);
        let training = Training::new(&examples, feature_count, 2.0).unwrap();
        let kept: Vec<bool> = training.rounds.iter().map(|round| round.is_kept).collect();
        assert_eq!(kept, [true, false], "{:?}", training.rounds);
        assert!(training.labels.iter().all(Option::is_none));
    }

    #[test]
    fn a_person_counts_for_as_many_as_stand_behind_the_label() {
        assert_eq!(weighed(&[(true, 3.0), (false, 1.0)]), Some(0.75));
        assert_eq!(weighed(&[]), None);
    }

    #[test]
    fn coverage_falls_as_the_margin_rises_and_error_is_people_s() {
        let (mut examples, feature_count) = examples(&[("i cannot help", true), ("heat the oven", true)]);
        examples[7].weight = 3.0;
        let training = Training::new(&examples, feature_count, 1e6).unwrap();
        let curve = training.curve(&examples, 1e6);
        assert_eq!(
            (curve[0].coverage, curve[0].audit_count, curve[0].wrong_count),
            (1.0, 2, 1)
        );
        assert_eq!(curve[0].error, Some(0.25));
        assert!(curve.windows(2).all(|pair| pair[0].coverage >= pair[1].coverage));
        let last = curve.last().unwrap();
        assert_eq!((last.margin, last.coverage, last.error), (1e6, 0.0, None));
    }

    #[test]
    fn nothing_to_learn_from_and_nobody_to_ask_are_refused() {
        let (mut alone, feature_count) = examples(&[]);
        assert!(Training::new(&alone, feature_count, 1.0).is_err());
        alone.retain(|example| example.seed != Some(true));
        alone[0].human = Some(true);
        assert!(Training::new(&alone, feature_count, 1.0).is_err());
    }
}
