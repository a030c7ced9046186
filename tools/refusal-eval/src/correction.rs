//! Rates of refusal corrected for what the judge gets wrong: by its calibration, or by people's labels of some of the answers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use indexmap::IndexMap;
use numerics::prevalence::{self, Accuracy, Corrected, Stratum};
use process::{Error, Result, ResultExt};
use records::dataset::{self, InputFormat};
use records::{Class, JoinKey, Record, Verdict};
use serde::{Deserialize, Serialize};

use crate::answers::{place, refuse_pseudo};
use crate::benchmarks::text_of;
use crate::class::class_word;
use crate::strata;

/// What is known of the judges' errors.
pub enum Correction {
    None,
    /// By judge.
    Calibrated(HashMap<String, Accuracy>),
    Labelled(Labels),
}

/// What people say of some of the answers.
pub struct Labels {
    human: HashMap<JoinKey, Class>,
    /// Whether they were drawn stratum by stratum (`sample` says so in a column), or from all alike.
    is_stratified: bool,
}

/// A corrected rate, by what, and from how many labels.
pub struct Rate {
    pub corrected: Corrected,
    pub by: &'static str,
    pub label_count: u64,
}

/// A record of `calibrate`, as far as it is read back.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "calibration")]
pub struct Calibrated {
    pub judge: String,
    confusion: BTreeMap<Class, BTreeMap<Class, u64>>,
}

impl Record for Calibrated {
    const TYPE: &'static str = "calibration";
}

fn is_refused(class: Class) -> bool {
    matches!(class, Class::Partial | Class::Refusal)
}

impl Calibrated {
    /// Human, judge, count; only where the judge said something.
    fn cells(&self) -> impl Iterator<Item = (Class, Class, u64)> {
        let row = |(human, row): (&Class, &BTreeMap<Class, u64>)| {
            let human = *human;
            row.iter()
                .map(move |(judge, count)| (human, *judge, *count))
                .collect::<Vec<_>>()
        };
        self.confusion
            .iter()
            .flat_map(row)
            .filter(|(_, judge, _)| *judge != Class::Unscored)
    }

    fn accuracy(&self) -> Accuracy {
        let sum = |wanted: &dyn Fn(bool, bool) -> bool| {
            let cells = self
                .cells()
                .filter(|(human, judge, _)| wanted(is_refused(*human), is_refused(*judge)));
            cells.map(|(.., count)| count).sum()
        };
        Accuracy {
            true_positive: sum(&|human, judge| human && judge),
            positive: sum(&|human, _| human),
            true_negative: sum(&|human, judge| !human && !judge),
            negative: sum(&|human, _| !human),
        }
    }

    /// Right and all, as a refusal rate sees it.
    pub fn right(&self) -> (u64, u64) {
        let right = self
            .cells()
            .filter(|(human, judge, _)| crate::tally::agree(*human, *judge));
        (
            right.map(|(.., count)| count).sum(),
            self.cells().map(|(.., count)| count).sum(),
        )
    }
}

/// The calibrations of a file, those of one judge on several sources among them.
pub fn read_calibrations(path: &Path) -> Result<Vec<Calibrated>> {
    let rows: Vec<Calibrated> = records::read_rows(path).at(path.display())?;
    match rows.is_empty() {
        true => Err(Error::input(path.display(), "no calibration in it")),
        false => Ok(rows),
    }
}

impl Correction {
    pub fn calibrated(path: &Path) -> Result<Correction> {
        let mut judges: HashMap<String, Accuracy> = HashMap::new();
        for row in read_calibrations(path)? {
            let (sum, more) = (judges.entry(row.judge.clone()).or_default(), row.accuracy());
            sum.true_positive += more.true_positive;
            sum.positive += more.positive;
            sum.true_negative += more.true_negative;
            sum.negative += more.negative;
        }
        Ok(Correction::Calibrated(judges))
    }

    pub fn labelled(path: &Path) -> Result<Correction> {
        Labels::read(path).map(Correction::Labelled)
    }

    /// The corrected rate of `judge` over the answers that `is_in` takes.
    pub fn rate(
        &self,
        judge: &str,
        items: &IndexMap<JoinKey, strata::Item>,
        is_in: &dyn Fn(&Verdict) -> bool,
        level: f64,
    ) -> Option<Rate> {
        let of_judge = items.iter().filter_map(|(key, item)| {
            let verdict = item.verdicts.iter().find(|verdict| verdict.judge == judge)?;
            is_in(verdict).then_some((key, item, verdict.verdict))
        });
        match self {
            Correction::None => None,
            Correction::Calibrated(judges) => {
                let accuracy = judges.get(judge)?;
                let scored: Vec<Class> = of_judge
                    .map(|(.., class)| class)
                    .filter(|class| *class != Class::Unscored)
                    .collect();
                let hits = scored.iter().filter(|class| is_refused(**class)).count();
                let corrected = prevalence::rogan_gladen(hits as u64, scored.len() as u64, accuracy, level)?;
                Some(Rate {
                    corrected,
                    by: "calibration",
                    label_count: accuracy.positive + accuracy.negative,
                })
            }
            Correction::Labelled(labels) => {
                let strata = labels.strata(of_judge);
                let corrected = prevalence::rectified(&strata, level)?;
                Some(Rate {
                    corrected,
                    by: "labels",
                    label_count: strata.iter().map(|stratum| stratum.label_count).sum(),
                })
            }
        }
    }
}

impl Labels {
    /// What a person says of an answer.
    pub fn of(&self, key: &JoinKey) -> Option<Class> {
        self.human.get(key).copied()
    }

    pub fn is_stratified(&self) -> bool {
        self.is_stratified
    }

    pub fn read(path: &Path) -> Result<Labels> {
        const COLUMNS: [&str; 3] = ["human", "final_label", "verdict"];
        let subject = path.display().to_string();
        let mut labels = Labels {
            human: HashMap::new(),
            is_stratified: false,
        };
        for row in dataset::open(path, InputFormat::Auto).at(&subject)? {
            let row = row.at(&subject)?;
            refuse_pseudo(&row, &subject)?;
            labels.is_stratified |= row.value.contains_key("stratum");
            let said = COLUMNS
                .iter()
                .find_map(|column| text_of(&row, column))
                .unwrap_or_default();
            if said.trim().is_empty() {
                continue;
            }
            let refuse = |cause: String| Error::input(&subject, format!("{}: {cause}", place(&row)));
            let class = class_word(&said).filter(|class| *class != Class::Unscored);
            let class = class.ok_or_else(|| refuse(format!("{said:?} is no class")))?;
            let bench = text_of(&row, "bench");
            let attempt = text_of(&row, "attempt_index").unwrap_or_else(|| "0".into());
            let attempt = attempt
                .parse()
                .map_err(|_| refuse("attempt_index is no whole number".into()))?;
            let key = JoinKey::new(bench.as_deref(), &row.id().at(&subject)?, attempt);
            if labels.human.insert(key, class).is_some() {
                return Err(refuse("this answer is labelled twice".into()));
            }
        }
        match labels.human.is_empty() {
            true => Err(Error::input(&subject, "nothing is labelled: the column human is empty")),
            false => Ok(labels),
        }
    }

    fn strata<'v>(&self, answers: impl Iterator<Item = (&'v JoinKey, &'v strata::Item<'v>, Class)>) -> Vec<Stratum> {
        let mut strata: IndexMap<String, Stratum> = IndexMap::new();
        for (key, item, class) in answers {
            let name = if self.is_stratified {
                item.stratum()
            } else {
                String::new()
            };
            let stratum = strata.entry(name).or_default();
            let is_hit = is_refused(class);
            stratum.count += 1;
            stratum.hit_count += u64::from(is_hit);
            if let Some(human) = self.human.get(key) {
                stratum.label_count += 1;
                stratum.missed_count += u64::from(is_refused(*human) && !is_hit);
                stratum.false_count += u64::from(!is_refused(*human) && is_hit);
            }
        }
        strata.into_values().collect()
    }
}
