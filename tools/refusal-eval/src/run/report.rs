//! `report`: verdicts in, rates and pairs out.

use std::io::Write;
use std::path::Path;

use process::{Common, Error, Format, Outcome, Output, Result, ResultExt};
use records::{RefusalReport, Status, Verdict, Writer};
use serde_json::Value;

use super::begin;
use crate::cli::Foreign;
use crate::correction::Correction;
use crate::groups::{Corrected, Groups};
use crate::plan::report::{Opened, Plan};
use crate::report::{Opis, RefusalPair};
use crate::verdicts::Verdicts;
use crate::{exchange, groups, opis, pairs, table, verdicts};

pub fn run(plan: &Plan, opened: Opened, _: &Common) -> Result<Outcome> {
    let report = match plan.counts_alone() {
        true => Report::counted(plan, &opened.input, opened.keep_going)?,
        false => {
            let read = |path| Verdicts::read(path, opened.keep_going);
            let mut verdicts = read(&opened.input)?;
            let base = opened.base.as_deref().map(read).transpose()?;
            Report::new(plan, &mut verdicts, base.as_ref(), &opened.correction)?
        }
    };
    report.deliver(plan, opened.target.open()?, opened.format)?;
    report.outcome(plan)
}

/// What verdicts amount to.
pub struct Report {
    rates: Vec<RefusalReport>,
    pairs: Vec<RefusalPair>,
    opis: Vec<Opis>,
    status: Status,
}

impl Report {
    /// Rates alone: a verdict is counted as it is read, and not kept.
    fn counted(plan: &Plan, path: &Path, keep_going: bool) -> Result<Report> {
        let mut groups = Groups::default();
        let status = verdicts::each(path, keep_going, |verdict| groups.add(&verdict))?;
        Ok(Report {
            rates: groups.reports(&Corrected::new(&Correction::None, &[]), plan.confidence),
            pairs: Vec::new(),
            opis: Vec::new(),
            status,
        })
    }

    pub fn new(
        plan: &Plan,
        verdicts: &mut Verdicts,
        base: Option<&Verdicts>,
        correction: &Correction,
    ) -> Result<Report> {
        if let Some(judge) = &plan.harm_by {
            refuse_unheard(&verdicts.rows, judge)?;
            groups::take_harm(&mut verdicts.rows, judge);
        }
        let verdicts = &*verdicts;
        let sides = [Some(verdicts), base];
        let opis = plan.opis.as_ref().map(|question| opis::rows(&verdicts.rows, question));
        let pairs = match base {
            Some(base) => pairs::pair(&verdicts.rows, &base.rows, plan.confidence, plan.power)?,
            None => Vec::new(),
        };
        let mut groups = Groups::default();
        for verdict in &verdicts.rows {
            groups.add(verdict);
        }
        Ok(Report {
            rates: groups.reports(&Corrected::new(correction, &verdicts.rows), plan.confidence),
            pairs,
            opis: opis.transpose()?.unwrap_or_default(),
            status: Status::partial_if(sides.into_iter().flatten().any(|side| side.status.is_partial())),
        })
    }

    /// As the call wants it.
    pub fn deliver(&self, plan: &Plan, target: Output, format: Format) -> Result<()> {
        match plan.to {
            Some(foreign) => self.write_for_others(plan, foreign, target),
            None => self.write(plan, target, format),
        }
    }

    pub fn write(&self, plan: &Plan, mut target: Output, format: Format) -> Result<()> {
        match format {
            Format::Table => {
                let text = table::reports(&self.rates, &self.pairs, &self.opis);
                target.write_all(text.as_bytes()).at("output")?;
                target.commit()
            }
            Format::Jsonl => {
                let mut writer = Writer::new(target);
                writer.begin(&begin(plan)?, &()).at("output")?;
                for row in &self.rates {
                    writer.row(row).at("output")?;
                }
                for row in &self.pairs {
                    writer.row(row).at("output")?;
                }
                for row in &self.opis {
                    writer.row(row).at("output")?;
                }
                writer.end(self.status, &()).at("output")?.commit()
            }
        }
    }

    fn write_for_others(&self, plan: &Plan, foreign: Foreign, mut target: Output) -> Result<()> {
        let results = exchange::results(&self.rates, plan.model_name.as_deref());
        let text = match foreign {
            Foreign::LmEval => format!("{:#}\n", results.to_lm_eval()),
            Foreign::EvalResults => {
                let entries = results.to_eval_results(&plan.hub);
                entries.map_err(|cause| Error::input("--hub", cause))?
            }
        };
        target.write_all(text.as_bytes()).at("output")?;
        target.commit()
    }

    /// The verdict of the thresholds, and whether all was there.
    pub fn outcome(&self, plan: &Plan) -> Result<Outcome> {
        let mut outcome = Outcome::partial_if(self.status.is_partial());
        for (name, limit) in &plan.fail_over {
            if self.is_over(name, *limit)? {
                outcome = outcome.and(Outcome::Verdict);
            }
        }
        Ok(outcome)
    }

    /// Whether a benchmark's figure passes its threshold. A threshold that nothing can be compared with is refused: it could never fail.
    fn is_over(&self, name: &str, limit: f64) -> Result<bool> {
        let mut figures = Vec::new();
        for row in self.rates.iter().filter(|row| row.summary.is_some()) {
            let value = serde_json::to_value(row).map_err(|cause| Error::bug("report", cause))?;
            figures.extend(value.get(name).and_then(Value::as_f64));
        }
        match figures.is_empty() {
            true => Err(Error::input(
                "--fail-over",
                format!("{name} is not defined on these verdicts, so it cannot be compared"),
            )),
            false => Ok(figures.iter().any(|figure| *figure > limit)),
        }
    }
}

/// A judge of harm that says nothing of it would leave every answer unscored.
fn refuse_unheard(verdicts: &[Verdict], judge: &str) -> Result<()> {
    let is_heard = |verdict: &Verdict| verdict.judge == judge && verdict.harmful.is_some();
    match verdicts.iter().any(is_heard) {
        true => Ok(()),
        false => Err(Error::input("--harm-by", format!("{judge} says nothing of harm here"))),
    }
}
