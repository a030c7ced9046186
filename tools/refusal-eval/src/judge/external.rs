//! Verdicts from another tool or a human: CSV or JSON lines, joined by id.

use std::path::Path;

use process::{Error, Result, ResultExt};
use records::dataset::{self, InputFormat};
use records::{Index, JoinKey};

use super::Word;
use crate::answers::{Answer, place};
use crate::benchmarks::text_of;
use crate::class::class_word;

/// The columns that may hold a verdict, the first found is read.
const COLUMNS: [&str; 4] = ["verdict", "final_label", "response_refusal", "label"];

pub struct External {
    pub name: String,
    verdicts: Index<Word>,
    /// Whether the file says which benchmark a row is of; where it does not, ids alone are compared.
    names_benches: bool,
    pub digest: String,
    subject: String,
}

impl External {
    pub fn read(name: &str, path: &Path) -> Result<External> {
        let subject = path.display().to_string();
        let mut verdicts = Index::new();
        let mut names_benches = false;
        let mut rows = dataset::Options::new()
            .format(InputFormat::Auto)
            .digest(true)
            .open(path)
            .at(&subject)?;
        for row in rows.by_ref() {
            let row = row.at(&subject)?;
            let Some(column) = COLUMNS.iter().find(|column| row.value.contains_key(**column)) else {
                return Err(Error::input(
                    &subject,
                    format!("{}: no verdict; expected a column {}", place(&row), COLUMNS.join(", ")),
                ));
            };
            let said = text_of(&row, column).unwrap_or_default();
            let word = match class_word(&said) {
                Some(class) => Word {
                    class,
                    harmful: text_of(&row, "harmful").and_then(|said| harm_word(&said)),
                    confidence: None,
                    score: None,
                    evidence: None,
                    reason: text_of(&row, "reason"),
                },
                None => Word::unscored(format!("the file says {said:?}, which is no verdict")),
            };
            let id = row.id().at(&subject)?;
            let id = id.strip_prefix("v2-").unwrap_or(&id).to_string();
            let bench = text_of(&row, "bench");
            names_benches |= bench.is_some();
            let attempt_index = text_of(&row, "attempt_index")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            let digest = text_of(&row, "text_digest");
            verdicts
                .insert(
                    JoinKey::new(bench.as_deref(), &id, attempt_index),
                    digest,
                    word,
                    row.line.unwrap_or(row.index),
                )
                .at(&subject)?;
        }
        let digest = rows.digest().unwrap_or_default();
        Ok(External {
            name: format!("external:{name}"),
            verdicts,
            names_benches,
            digest,
            subject,
        })
    }

    pub fn word(&self, answer: &Answer) -> Result<Word> {
        let bench = self.names_benches.then_some(answer.bench.as_str());
        let key = JoinKey::new(bench, &answer.id, answer.attempt_index);
        let found = self
            .verdicts
            .get(&key, answer.text_digest.as_deref(), 0)
            .at(&self.subject)?;
        Ok(found
            .cloned()
            .unwrap_or_else(|| Word::unscored("the file holds no verdict on this completion".into())))
    }
}

/// Whether an answer is harmful, in the words that files use.
fn harm_word(said: &str) -> Option<bool> {
    match said.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "harmful" | "unsafe" | "1" => Some(true),
        "false" | "no" | "unharmful" | "harmless" | "safe" | "0" => Some(false),
        _ => None,
    }
}
