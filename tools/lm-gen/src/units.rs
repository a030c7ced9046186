//! What a run consists of: one unit for every record that will be written, in the order of the output.

use process::Error;

use crate::plan::{Opened, Plan};
use crate::prompts::{Item, Speech};

/// One record to be written.
pub struct Unit {
    /// Index among the items.
    pub item: usize,
    pub attempt_index: u64,
    pub work: Work,
}

#[derive(Clone)]
pub enum Work {
    Generate {
        ids: Vec<u32>,
        /// Of the second context; empty where there is none.
        second_ids: Vec<u32>,
        token_count_max: usize,
        stop: Vec<String>,
    },
    Choices(Vec<String>),
    Given(String),
    /// It cannot be run; in these words.
    Failed(String),
}

/// All records of the run. Every prompt is tokenised before the weights are loaded, so that one that cannot be run is known now.
pub fn units(plan: &Plan, opened: &Opened, speech: &Speech) -> process::Result<Vec<Unit>> {
    let room = opened.checkpoint.config().position_count;
    let mut units = Vec::new();
    for (index, item) in opened.input.items.iter().enumerate() {
        let work = work(plan, item, speech, room).unwrap_or_else(Work::Failed);
        if let Work::Failed(cause) = &work
            && !plan.keep_going
        {
            return Err(Error::input(name(item), cause).hint("--keep-going writes a record that says so"));
        }
        let attempts = match work {
            Work::Generate { .. } => plan.attempts(),
            _ => 1,
        };
        units.extend((0..attempts).map(|attempt_index| Unit {
            item: index,
            attempt_index,
            work: work.clone(),
        }));
    }
    Ok(units)
}

fn name(item: &Item) -> String {
    let bench = item.prompt.bench.as_deref();
    let bench = bench.map_or_else(String::new, |bench| format!(" of bench {bench:?}"));
    format!("id {}{bench}", item.prompt.id)
}

fn work(plan: &Plan, item: &Item, speech: &Speech, room: usize) -> Result<Work, String> {
    if let Some(choices) = &item.prompt.choices {
        if plan.contrast.is_some() {
            return Err("has choices, which are scored, and a contrast is for completions".into());
        }
        if choices.is_empty() {
            return Err("choices is empty".into());
        }
        for choice in choices {
            check_scored(item, choice, speech, room)?;
        }
        return Ok(Work::Choices(choices.clone()));
    }
    if plan.scores {
        let given = item.given.clone().unwrap_or_default();
        check_scored(item, &given, speech, room)?;
        return Ok(Work::Given(given));
    }
    generation(plan, item, speech, room)
}

/// A text that can be scored adds tokens to the prompt, and the model can read all but the last.
fn check_scored(item: &Item, text: &str, speech: &Speech, room: usize) -> Result<(), String> {
    let (ids, start) = speech.ids_with(&item.prompt, text).map_err(|cause| cause.to_string())?;
    if ids.len() <= start {
        return Err("a text to be scored adds no token to the prompt".into());
    }
    match ids.len() > room + 1 {
        true => Err(format!(
            "prompt and text are {} tokens, the model's limit is {room}",
            ids.len()
        )),
        false => Ok(()),
    }
}

fn generation(plan: &Plan, item: &Item, speech: &Speech, room: usize) -> Result<Work, String> {
    let ids = checked(speech.ids(&item.prompt), room)?;
    let second_ids = match &plan.contrast {
        None => Vec::new(),
        Some(contrast) if contrast.rule.drops_system() => without_system(&ids, item, speech, room)?,
        Some(_) => ids.clone(),
    };
    let wanted = item.prompt.max_new_tokens.unwrap_or(plan.max_new_tokens);
    if wanted == 0 {
        return Err("max_new_tokens is 0".into());
    }
    let own_stop = item.prompt.stop.iter().flatten().filter(|stop| !stop.is_empty());
    Ok(Work::Generate {
        // The last token is written and not read.
        token_count_max: (wanted as usize).min(room - ids.len().max(second_ids.len()) + 1),
        stop: plan.stop.iter().chain(own_stop).cloned().collect(),
        ids,
        second_ids,
    })
}

/// The same prompt without its system message, which must make a difference.
fn without_system(ids: &[u32], item: &Item, speech: &Speech, room: usize) -> Result<Vec<u32>, String> {
    let without = Speech {
        system: None,
        slot: None,
        ..*speech
    };
    let second_ids = checked(without.ids(&item.prompt.without_system()), room)?;
    match second_ids == ids {
        true => Err(
            "the chat template has no place for a system message, so the two contexts of the contrast are the same"
                .into(),
        ),
        false => Ok(second_ids),
    }
}

fn checked(ids: model::Result<Vec<u32>>, room: usize) -> Result<Vec<u32>, String> {
    let ids = ids.map_err(|cause| cause.to_string())?;
    match ids.len() > room {
        true => Err(format!(
            "the prompt is {} tokens, the model's limit is {room}",
            ids.len()
        )),
        false => Ok(ids),
    }
}
