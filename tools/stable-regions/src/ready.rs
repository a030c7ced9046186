//! The pairs of this shard as one model spells them.

use crate::pairs::Pair;
use crate::plan::{Model, Opened, Plan};
use process::{Error, Result};

/// A pair as one model spells it.
pub struct Ready<'p> {
    pub pair: &'p Pair,
    pub tokens: std::result::Result<[Vec<u32>; 2], String>,
}

/// The shard's pairs as tokens; one that cannot run stops the tool with its id, or is kept as skipped under --keep-going.
pub fn all<'p>(plan: &Plan, opened: &'p Opened, model: &Model) -> Result<Vec<Ready<'p>>> {
    let mut all = Vec::new();
    for pair in &opened.pairs {
        let digest = records::text_digest(&pair.content());
        if records::bucket(&digest).is_some_and(|bucket| !opened.shard.owns(bucket)) {
            continue;
        }
        let tokens = spell(model, pair);
        if let Err(cause) = &tokens
            && !plan.keep_going
        {
            return Err(
                Error::input(format!("pair {}", pair.id), cause).hint("--keep-going skips and counts such pairs")
            );
        }
        all.push(Ready { pair, tokens });
    }
    Ok(all)
}

pub fn spell(model: &Model, pair: &Pair) -> std::result::Result<[Vec<u32>; 2], String> {
    let side = |prompt, name| -> std::result::Result<Vec<u32>, String> {
        let tokens: Vec<u32> = model
            .speller
            .tokens(prompt)
            .map_err(|cause| format!("prompt {name}: {cause}"))?;
        let limit = model.checkpoint.config().position_count;
        match tokens.len() {
            0 | 1 => Err(format!(
                "prompt {name} has {} token, and an interpolation needs a prefix and a last one",
                tokens.len()
            )),
            count if count > limit => Err(format!(
                "prompt {name} has {count} tokens, the model's limit is {limit}"
            )),
            _ => match tokens.iter().find(|&&id| id as usize >= model.checkpoint.id_count()) {
                Some(id) => Err(format!(
                    "prompt {name} holds token id {id}, the vocabulary has {}",
                    model.checkpoint.id_count()
                )),
                None => Ok(tokens),
            },
        }
    };
    let (a, b) = (side(&pair.a, "a")?, side(&pair.b, "b")?);
    if pair.differs_last && (a.len() != b.len() || a[..a.len() - 1] != b[..b.len() - 1]) {
        return Err(format!(
            "the prompts have {} and {} tokens and differ in more than the last one",
            a.len(),
            b.len()
        ));
    }
    Ok([a, b])
}
