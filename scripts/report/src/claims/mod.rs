//! What the runs say of each claim that a protocol numbers: the test, its interval, and by the protocol's rules whether it is confirmed.
//!
//! The claims and their smallest effects are those of scripts/repro/protocol.md. What needs runs that are not there is said to be so.

pub mod change;
mod data;
mod differences;
mod geometry;
mod relations;

use std::path::PathBuf;

use numerics::ranks::holm;
use numerics::rng::Rng;
use numerics::statistics::Interval;
use process::{Outcome, Result, ResultExt};
use records::{Record, Writer};
use serde::{Deserialize, Serialize};

use crate::rows;
use crate::summary::Run;

/// Level of the tests together, and of what their intervals leave out.
const ALPHA: f64 = 0.05;
const LEVEL: f64 = 1.0 - ALPHA;
const RESAMPLE_COUNT: u64 = 10_000;

#[derive(Debug, clap::Args, Serialize)]
pub struct Flags {
    /// Summaries of the runs that there are
    #[arg(value_name = "RUNS")]
    runs: Vec<PathBuf>,

    /// Where verdicts are: DIR/RUN.jsonl
    #[arg(long, value_name = "DIR")]
    verdicts: PathBuf,

    /// Records of ds-entropy --at, of the safety data as one group
    #[arg(long, value_name = "FILE", requires = "general")]
    safety: Option<PathBuf>,

    /// The same of the general data
    #[arg(long, value_name = "FILE", requires = "safety")]
    general: Option<PathBuf>,

    /// Records of flowlens-pca --prompts all on the run of the highest share
    #[arg(long, value_name = "FILE", requires = "prompts")]
    paths: Option<PathBuf>,

    /// The prompts, with their labels
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,

    /// Records of flowlens-pca --stability on the base model
    #[arg(long, value_name = "FILE")]
    stability: Option<PathBuf>,

    /// Safety answers as the base model scores them
    #[arg(long, value_name = "FILE", requires = "scored_general")]
    scored_safety: Option<PathBuf>,

    /// The same of general answers
    #[arg(long, value_name = "FILE", requires = "scored_safety")]
    scored_general: Option<PathBuf>,

    /// Records of stable-regions: the base model first, a fine-tuned one second
    #[arg(long, value_name = "FILE")]
    regions: Option<PathBuf>,

    /// The benchmark whose prompts are reported on
    #[arg(long, value_name = "NAME", default_value = "xstest")]
    bench: String,
}

/// A claim's test before it is judged beside the others.
struct Test {
    claim: u64,
    what: &'static str,
    rule: Rule,
    /// `None` where what it needs is not there.
    found: Option<Found>,
}

struct Found {
    estimate: f64,
    interval: Option<Interval>,
    /// `None` where there is nothing random to test.
    p: Option<f64>,
    /// Whether the parts of the claim that the estimate does not show hold.
    rest_holds: bool,
    run_count: usize,
}

/// When a claim counts.
#[derive(Clone, Copy)]
enum Rule {
    /// An effect of this size and direction is claimed.
    Effect(f64),
    /// It is claimed that there is no effect as far as this.
    Within(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Confirmed,
    NotConfirmed,
    Undecided,
    NotRun,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Confirmed => "confirmed",
            Verdict::NotConfirmed => "not confirmed",
            Verdict::Undecided => "undecided",
            Verdict::NotRun => "not run",
        }
    }
}

/// One claim, judged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "claim")]
pub struct Claim {
    pub claim: u64,
    pub what: String,
    pub run_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// By Holm's correction over the claims that were tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_holm: Option<f64>,
    pub smallest_effect: f64,
    pub verdict: Verdict,
}

impl Record for Claim {
    const TYPE: &'static str = "claim";
}

pub fn print(flags: &Flags) -> Result<Outcome> {
    let mut runs = Vec::<Run>::new();
    for path in &flags.runs {
        runs.extend(rows::read::<Run>(path)?);
    }
    let rng = Rng::new(42, "claims");
    let mut tests = vec![data::repetition(flags.safety.as_deref(), flags.general.as_deref())?];
    tests.extend(relations::tests(&runs, &flags.bench, &rng));
    tests.extend(differences::tests(&runs, flags, &rng)?);
    tests.extend(geometry::tests(flags, &rng)?);
    let [safety, general] = [&flags.scored_safety, &flags.scored_general].map(Option::as_deref);
    tests.push(data::perplexity(safety, general, &rng)?);
    tests.sort_by_key(|test| test.claim);
    let mut writer = Writer::new(process::stdout());
    for claim in judged(tests) {
        writer.row(&claim).at("stdout")?;
    }
    writer.into_output().at("stdout")?.finish()?;
    Ok(Outcome::Complete)
}

fn judged(tests: Vec<Test>) -> Vec<Claim> {
    let p_of = |test: &Test| test.found.as_ref().and_then(|found| found.p);
    let mut corrected = holm(&tests.iter().filter_map(p_of).collect::<Vec<_>>()).into_iter();
    let claims = tests.into_iter().map(|test| {
        let p_holm = p_of(&test).and_then(|_| corrected.next());
        test.judged(p_holm)
    });
    claims.collect()
}

impl Test {
    fn judged(self, p_holm: Option<f64>) -> Claim {
        let found = self.found.as_ref();
        let interval = found.and_then(|found| found.interval);
        Claim {
            claim: self.claim,
            what: self.what.to_owned(),
            run_count: found.map_or(0, |found| found.run_count),
            estimate: found.map(|found| found.estimate),
            low: interval.map(|interval| interval.low),
            high: interval.map(|interval| interval.high),
            p: found.and_then(|found| found.p),
            p_holm,
            smallest_effect: match self.rule {
                Rule::Effect(size) | Rule::Within(size) => size,
            },
            verdict: found.map_or(Verdict::NotRun, |found| self.rule.verdict(found, p_holm)),
        }
    }
}

impl Rule {
    /// Confirmed: significant where there is a test, and at least half as large as the smallest effect that counts. Not confirmed: the
    /// interval excludes an effect of that size. Of what is claimed to stay, the interval decides alone.
    fn verdict(self, found: &Found, p_holm: Option<f64>) -> Verdict {
        let at = found.estimate;
        // A figure that is tested and has no interval, such as that of three runs, excludes nothing.
        let (least, most) = found.p.map_or((at, at), |_| (f64::NEG_INFINITY, f64::INFINITY));
        let Interval { low, high } = found.interval.unwrap_or(Interval { low: least, high: most });
        let (size, [least, middle, most]) = match self {
            Rule::Effect(size) | Rule::Within(size) if size < 0.0 => (-size, [-high, -at, -low]),
            Rule::Effect(size) | Rule::Within(size) => (size, [low, at, high]),
        };
        match self {
            _ if !found.rest_holds => Verdict::NotConfirmed,
            Rule::Effect(_) if most < size => Verdict::NotConfirmed,
            Rule::Effect(_) if middle >= size / 2.0 && p_holm.is_none_or(|p| p < ALPHA) => Verdict::Confirmed,
            Rule::Within(_) if most < size => Verdict::Confirmed,
            Rule::Within(_) if least > size => Verdict::NotConfirmed,
            _ => Verdict::Undecided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rule: Rule, [low, estimate, high]: [f64; 3], p_holm: f64) -> Verdict {
        let found = Found {
            estimate,
            interval: Some(Interval { low, high }),
            p: Some(p_holm),
            rest_holds: true,
            run_count: 21,
        };
        rule.verdict(&found, Some(p_holm))
    }

    #[test]
    fn a_claim_is_confirmed_in_its_direction_refused_where_its_size_is_excluded_and_else_open() {
        use Verdict::*;
        let falls = Rule::Effect(-0.1);
        assert_eq!(verdict(falls, [-0.3, -0.2, -0.1], 0.001), Confirmed);
        assert_eq!(verdict(falls, [-0.3, -0.2, -0.1], 0.06), Undecided);
        assert_eq!(verdict(falls, [-0.12, -0.04, -0.01], 0.001), Undecided);
        assert_eq!(verdict(falls, [-0.09, -0.06, -0.03], 0.001), NotConfirmed);
        assert_eq!(verdict(falls, [0.1, 0.2, 0.3], 0.001), NotConfirmed);
        let kept = Rule::Within(-0.02);
        assert_eq!(verdict(kept, [-0.01, 0.0, 0.03], 0.5), Confirmed);
        assert_eq!(verdict(kept, [-0.09, -0.06, -0.03], 0.5), NotConfirmed);
        assert_eq!(verdict(kept, [-0.03, 0.0, 0.03], 0.5), Undecided);
    }

    #[test]
    fn without_an_interval_a_tested_figure_excludes_nothing_and_a_fact_is_what_it_is() {
        let of = |estimate, p| {
            let found = Found {
                estimate,
                interval: None,
                p,
                rest_holds: true,
                run_count: 3,
            };
            Rule::Effect(0.5).verdict(&found, p)
        };
        assert_eq!(of(-1.0, Some(0.33)), Verdict::Undecided);
        assert_eq!(of(1.0, Some(0.33)), Verdict::Undecided);
        assert_eq!(of(1.0, Some(0.01)), Verdict::Confirmed);
        assert_eq!(of(-1.0, None), Verdict::NotConfirmed);
    }

    #[test]
    fn what_has_no_test_takes_no_part_in_the_correction() {
        let test = |claim, p: Option<f64>| Test {
            claim,
            what: "",
            rule: Rule::Effect(0.5),
            found: p.map(|p| Found {
                estimate: 0.9,
                interval: None,
                p: Some(p),
                rest_holds: true,
                run_count: 1,
            }),
        };
        let claims = judged(vec![test(1, Some(0.02)), test(2, None), test(3, Some(0.03))]);
        assert_eq!(
            claims.iter().map(|claim| claim.p_holm).collect::<Vec<_>>(),
            [Some(0.04), None, Some(0.04)]
        );
        assert_eq!(claims[1].verdict, Verdict::NotRun);
        assert_eq!(claims[2].verdict, Verdict::Confirmed);
    }
}
