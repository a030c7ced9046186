//! Batches in input order: what only the order shows is checked, what is refused is counted, and the samples are handed on.

use process::{Common, Error, Outcome, Result};

use crate::corpus::Sample;
use crate::counts::Refused;
use crate::input::{Batch, PreparedRow, Shared, refusal_groups};
use crate::plan::CorpusPlan;

/// Refused rows named one by one on stderr under `--keep-going`.
const REFUSALS_NAMED_MAX: u64 = 10;

/// What leaves a batch.
pub enum Entry<'a> {
    Group(&'a str),
    Sample(&'a Sample<'a>),
}

/// Takes batches in input order: checks what only the order shows, counts what is refused, and hands on the samples.
pub struct Intake<'a> {
    plan: &'a CorpusPlan,
    common: &'a Common,
    /// The input at hand and the schema of the first row in which one was recognised.
    schema: Option<(usize, records::dataset::Schema)>,
    pub refused: Refused,
}

impl<'a> Intake<'a> {
    pub fn new(plan: &'a CorpusPlan, common: &'a Common) -> Self {
        Self {
            plan,
            common,
            schema: None,
            refused: Refused::default(),
        }
    }

    pub fn take(&mut self, shared: &Shared, batch: Batch, see: &mut impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let (mut text, mut tokens) = (batch.text.as_str(), batch.tokens.as_slice());
        for row in batch.rows {
            let mixed = self.check_schema(shared, &row);
            let mut prepared = match row.outcome {
                Ok(prepared) => prepared,
                Err(refusal) => {
                    self.refuse(refusal.error, refusal.is_own)?;
                    continue;
                }
            };
            let is_mixed = mixed.is_some();
            if let Some(error) = mixed {
                self.refuse(error, false)?;
            } else if !prepared.is_foreign && self.plan.refusals {
                let base = prepared.group.rsplit_once('/').map_or("", |(base, _)| base);
                for half in refusal_groups(base) {
                    see(Entry::Group(&half))?;
                }
            }
            for span in &prepared.samples {
                let (sample_text, rest_text) = text.split_at(span.text_len);
                let (sample_tokens, rest_tokens) = tokens.split_at(span.token_count);
                (text, tokens) = (rest_text, rest_tokens);
                if !is_mixed {
                    see(Entry::Sample(&Sample {
                        group: &prepared.group,
                        index: row.index,
                        id: prepared.id.as_deref(),
                        text: sample_text,
                        tokens: sample_tokens,
                        // A row's own facts count once, with its first sample.
                        score: prepared.score.take(),
                        loss: prepared.loss.take(),
                    }))?;
                }
            }
        }
        Ok(())
    }

    /// One schema for each input: that of the first row in which one was recognised.
    fn check_schema(&mut self, shared: &Shared, row: &PreparedRow) -> Option<Error> {
        let schema = row.schema?;
        match self.schema {
            Some((input, known)) if input == row.input => (schema != known).then(|| {
                let cause = format!(
                    "row {} is of the schema {schema:?}, the rows before it are not: schemas are mixed",
                    row.index
                );
                Error::input(shared.input_name(row.input), cause).hint("name the text with --field")
            }),
            _ => {
                self.schema = Some((row.input, schema));
                None
            }
        }
    }

    fn refuse(&mut self, error: Error, is_own: bool) -> Result<()> {
        if !self.plan.keep_going || error.exit() != Some(process::Exit::Input) {
            return Err(error);
        }
        if is_own {
            self.refused.own_row_count += 1;
        } else {
            self.refused.common_row_count += 1;
        }
        let refused_row_count = self.refused.row_count();
        if refused_row_count <= REFUSALS_NAMED_MAX {
            let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
            process::warn(self.common, &format!("left out: {error}{hint}"));
        } else if refused_row_count == REFUSALS_NAMED_MAX + 1 {
            process::warn(self.common, "left out: more rows, which are counted and not named");
        }
        Ok(())
    }

    pub fn outcome(&self) -> Outcome {
        if self.refused.row_count() > 0 {
            Outcome::Partial
        } else {
            Outcome::Complete
        }
    }
}
