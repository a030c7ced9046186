//! HumanEval: function heads to be continued, and the programs that test what came back.

use std::path::Path;
use std::sync::LazyLock;

use process::{Result, ResultExt};
use records::{Completion, Prompt};
use regex::Regex;
use serde_json::{Map, Value};

use super::{Made, open, row_count_max};
use crate::plan::Questions;
use crate::sandbox::Check;

const NEW_TOKENS_MAX: u64 = 512;

pub(super) fn prompts(questions: &Questions, path: &Path, made: &mut Made) -> Result<()> {
    for row in open(questions, path)?.take(row_count_max(questions)) {
        let row = row.at(path.display())?;
        let text = |key: &str| row.text(key).map(str::to_owned).at(path.display());
        let rest = [("entry_point", text("entry_point")?), ("test", text("test")?)];
        made.prompts.push(Prompt {
            id: text("task_id")?,
            bench: Some("humaneval".into()),
            prompt: Some(text("prompt")?),
            stop: Some(
                ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]
                    .map(String::from)
                    .to_vec(),
            ),
            max_new_tokens: Some(NEW_TOKENS_MAX),
            reference: row.value.get("canonical_solution").cloned(),
            rest: rest
                .into_iter()
                .map(|(key, text)| (key.to_owned(), Value::from(text)))
                .collect::<Map<_, _>>(),
            ..Prompt::default()
        });
    }
    Ok(())
}

/// The programs that an answer makes, by extractor: the prompt and the answer as they stand, and the answer's first code block, which may
/// repeat the head or be the body alone. The last is `None` where there is no block.
pub type Programs = [(&'static str, Option<String>); 2];

/// The programs of an answer and the check they are put to, or why there are none.
pub fn programs(completion: &Completion) -> std::result::Result<(Programs, Check), String> {
    let prompt = completion.prompt.prompt.as_deref().ok_or("no text under `prompt`")?;
    let answer = completion.completion.as_deref().ok_or("no text under `completion`")?;
    let check = check(prompt, &completion.prompt.rest)?;
    let block = block(answer).map(|block| {
        if block.contains(&format!("def {}", check.entry_point)) {
            // The head brings imports and helpers that the block may rely on; its own unfinished function is replaced.
            format!("{prompt}    pass\n\n{block}")
        } else {
            format!("{prompt}{block}")
        }
    });
    Ok((
        [("execution", Some(format!("{prompt}{answer}"))), ("block", block)],
        check,
    ))
}

/// The first fenced code block.
fn block(answer: &str) -> Option<&str> {
    static BLOCK: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?s)```(?:python|py|Python|python3)?[ \t]*\n(.*?)(?:\n```|$)")
            .unwrap_or_else(|error| panic!("a pattern of humaneval.rs: {error}"))
    });
    let captures = BLOCK.captures(answer)?;
    captures.get(1).map(|block| block.as_str())
}

fn check(prompt: &str, keys: &Map<String, Value>) -> std::result::Result<Check, String> {
    let text = |key: &str| {
        let text = keys.get(key).and_then(Value::as_str);
        text.ok_or_else(|| format!("no text under `{key}`"))
    };
    let (test, entry_point) = (text("test")?, text("entry_point")?);
    if !entry_point
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return Err("`entry_point` is no Python name".into());
    }
    Ok(Check {
        // Tests call functions that the prompt defines in front of the one that is asked for.
        head: format!("{prompt}\n    pass\n"),
        test: test.into(),
        entry_point: entry_point.into(),
    })
}
