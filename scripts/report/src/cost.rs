//! What runs cost: steps, tokens, hours, memory and disk. Counted from what the tools say of them on stdin (`vcl-train --plan` for each
//! share, `resid-dump --inspect`, `vcl-train --probe`), else from assumptions; each line says which.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use process::{Error, Outcome, Result, ResultExt};
use records::Prompt;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::html::round;
use crate::rows;

/// Of a parameter in a checkpoint: weight, two moments and the master copy, four bytes each; two checkpoints while one is replaced.
const CHECKPOINT_BYTES: f64 = 16.0 * 2.0;

#[derive(Debug, clap::Args, Serialize)]
pub struct Flags {
    /// Safety shares
    #[arg(long, value_name = "N")]
    shares: u64,

    /// Seeds of each
    #[arg(long, value_name = "N")]
    seeds: u64,

    /// Runs in all: those beyond shares x seeds are with the loss, at the highest share
    #[arg(long, value_name = "N")]
    runs: u64,

    /// Rows of a mixture
    #[arg(long, value_name = "N")]
    rows: u64,

    /// What training runs on
    #[arg(long, value_name = "DEVICE")]
    device: String,

    /// Tokens of an answer, at most
    #[arg(long, value_name = "N")]
    new_tokens: u64,

    /// Prompt records, counted where the file is there
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,

    /// Question records, counted where the file is there
    #[arg(long, value_name = "FILE")]
    questions: PathBuf,

    #[command(flatten)]
    assumed: Assumed,
}

/// What is taken for that which is not there.
#[derive(Debug, clap::Args, Serialize)]
struct Assumed {
    #[arg(long, value_name = "N", default_value_t = 0)]
    prompt_count: u64,

    #[arg(long, value_name = "N", default_value_t = 0)]
    question_count: u64,

    #[arg(long, value_name = "N")]
    epochs: Option<u64>,

    #[arg(long, value_name = "N")]
    batch: Option<u64>,

    #[arg(long, value_name = "N")]
    tokens_per_row: Option<u64>,

    #[arg(long, value_name = "N")]
    parameters: Option<u64>,

    #[arg(long, value_name = "N")]
    weight_bytes: Option<u64>,

    #[arg(long, value_name = "N")]
    acts_bytes_per_prompt: Option<u64>,

    /// Instead of a measurement
    #[arg(long, value_name = "N")]
    train_tokens_per_second: Option<f64>,

    #[arg(long, value_name = "N")]
    new_tokens_per_second: Option<f64>,
}

/// What a tool says of the work before it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Plan { work: Work },
    Probe { tokens_per_second: f64 },
    Model { parameter_count: u64, weight_bytes: u64 },
    Site { site: String, bytes_per_token_f32: u64 },
    Other(IgnoredAny),
}

/// Of one run.
#[derive(Deserialize, Clone, Copy)]
struct Work {
    steps: u64,
    token_count: u64,
    memory_bytes: Option<u64>,
}

/// What is known of all runs before they start.
#[derive(Default)]
struct Known {
    /// Of one run of each share, rising.
    work: Vec<Work>,
    parameters: u64,
    weight_bytes: u64,
    acts_bytes_per_prompt: u64,
    tokens_per_second: Option<f64>,
    how: &'static str,
}

pub fn print(flags: &Flags) -> Result<Outcome> {
    let known = known(flags)?;
    let count = |path: &Path, assumed: u64| -> Result<u64> {
        Ok(if path.exists() {
            rows::read::<Prompt>(path)?.len() as u64
        } else {
            assumed
        })
    };
    let prompts = count(&flags.prompts, flags.assumed.prompt_count)?;
    let questions = count(&flags.questions, flags.assumed.question_count)?;
    let mut out = process::stdout();
    for (name, text) in lines(flags, &known, prompts, questions)? {
        writeln!(out, "{name:<16} {text}").at("stdout")?;
    }
    out.finish()?;
    Ok(Outcome::Complete)
}

fn known(flags: &Flags) -> Result<Known> {
    let mut known = Known {
        how: "counted by vcl-train --plan, first seed",
        ..Known::default()
    };
    for said in serde_json::Deserializer::from_reader(io::stdin().lock()).into_iter() {
        match said.map_err(|cause| Error::input("stdin", cause))? {
            Said::Plan { work } => known.work.push(work),
            Said::Probe { tokens_per_second } => known.tokens_per_second = Some(tokens_per_second),
            Said::Model {
                parameter_count,
                weight_bytes,
            } => (known.parameters, known.weight_bytes) = (parameter_count, weight_bytes),
            Said::Site {
                site,
                bytes_per_token_f32,
            } if site == "resid_post" => known.acts_bytes_per_prompt = bytes_per_token_f32,
            Said::Site { .. } | Said::Other(_) => {}
        }
    }
    if known.work.is_empty() {
        known = assumed(flags, known.tokens_per_second)?;
    }
    if known.work.len() as u64 != flags.shares {
        let cause = format!("{} plans of training for {} shares", known.work.len(), flags.shares);
        return Err(Error::input("stdin", cause));
    }
    Ok(known)
}

fn assumed(flags: &Flags, tokens_per_second: Option<f64>) -> Result<Known> {
    let assumed = &flags.assumed;
    let need = |value: Option<u64>, flag: &str| {
        value.ok_or_else(|| {
            Error::usage(flag, "there is no model to count with, and no assumption")
                .hint("make prepare, with the same settings, makes the little world in seconds")
        })
    };
    let rows = flags.rows * need(assumed.epochs, "--epochs")?;
    let work = Work {
        steps: rows.div_ceil(need(assumed.batch, "--batch")?.max(1)),
        token_count: rows * need(assumed.tokens_per_row, "--tokens-per-row")?,
        memory_bytes: None,
    };
    Ok(Known {
        work: vec![work; flags.shares as usize],
        parameters: need(assumed.parameters, "--parameters")?,
        weight_bytes: need(assumed.weight_bytes, "--weight-bytes")?,
        acts_bytes_per_prompt: need(assumed.acts_bytes_per_prompt, "--acts-bytes-per-prompt")?,
        tokens_per_second,
        how: "assumed: TOTAL x EPOCHS rows of TOKENS_PER_ROW",
    })
}

fn lines(flags: &Flags, known: &Known, prompts: u64, questions: u64) -> Result<Vec<(&'static str, String)>> {
    let Flags {
        shares,
        seeds,
        runs,
        rows,
        device,
        new_tokens,
        ..
    } = flags;
    let with_loss = runs
        .checked_sub(shares * seeds)
        .ok_or_else(|| Error::usage("--runs", "fewer than shares x seeds"))?;
    let last = known.work[known.work.len() - 1];
    let all = |of: fn(&Work) -> u64| known.work.iter().map(of).sum::<u64>() * seeds + of(&last) * with_loss;
    let (steps, tokens) = (all(|work| work.steps), all(|work| work.token_count));
    let (speed, how_fast) = match (flags.assumed.train_tokens_per_second, known.tokens_per_second) {
        (Some(setting), _) => (setting, "setting TRAIN_TOKENS_PER_SECOND"),
        (None, Some(measured)) => (measured, "measured here by vcl-train --probe"),
        (None, None) => {
            return Err(Error::usage(
                "--train-tokens-per-second",
                "nothing was measured, and no assumption",
            ));
        }
    };
    let training = tokens as f64 / speed;
    let mut lines = vec![
        (
            "training runs",
            format!("{runs}: {shares} shares x {seeds} seeds, and {with_loss} with the loss"),
        ),
        (
            "steps",
            format!("{} ({} a run of {rows} rows)", count(steps), last.steps),
        ),
        ("tokens", format!("{} ({})", count(tokens), known.how)),
        (
            "training",
            format!(
                "{} on one {device} at {} tokens a second ({how_fast})",
                hours(training),
                round(speed, 0)
            ),
        ),
    ];
    let answers = prompts * new_tokens * runs;
    let answering = flags
        .assumed
        .new_tokens_per_second
        .map(|speed| (answers as f64 / speed, speed));
    lines.push(("answers", match answering {
        Some((seconds, speed)) => format!(
            "{} at most: {prompts} prompts x {new_tokens} new tokens x {runs} runs at {speed} a second (setting NEW_TOKENS_PER_SECOND)",
            hours(seconds)
        ),
        None => format!("{} new tokens at most: {prompts} prompts x {new_tokens} x {runs} runs", count(answers)),
    }));
    lines.push(("questions", format!("{questions} x {runs} runs")));
    if let Some((seconds, _)) = answering {
        let hours = round((training + seconds) / 3600.0, 1);
        lines.push((
            "GPU hours",
            format!("{hours}, scoring of questions and dumps not counted"),
        ));
    }
    lines.extend(space(known, *runs, prompts));
    Ok(lines)
}

fn space(known: &Known, runs: u64, prompts: u64) -> Vec<(&'static str, String)> {
    let weights = known.weight_bytes as f64;
    let activations = known.acts_bytes_per_prompt * prompts * runs;
    let mut lines = vec![
        (
            "models",
            format!("{} kept: {runs} x {}", bytes(weights * runs as f64), bytes(weights)),
        ),
        (
            "checkpoints",
            format!(
                "{} while one run trains: 2 x 16 bytes a parameter",
                bytes(known.parameters as f64 * CHECKPOINT_BYTES)
            ),
        ),
        (
            "activations",
            format!("{} at most, before compression", bytes(activations as f64)),
        ),
    ];
    if let Some(most) = known.work.iter().filter_map(|work| work.memory_bytes).max() {
        lines.push(("memory", format!("{} at the peak of training", bytes(most as f64))));
    }
    lines
}

fn bytes(value: f64) -> String {
    match value {
        1e9.. => format!("{} GB", round(value / 1e9, 1)),
        _ => format!("{} MB", round(value / 1e6, 1)),
    }
}

fn count(value: u64) -> String {
    match value as f64 {
        large @ 1e9.. => format!("{} billion", round(large / 1e9, 2)),
        large @ 1e6.. => format!("{} million", round(large / 1e6, 2)),
        _ => value.to_string(),
    }
}

fn hours(seconds: f64) -> String {
    match seconds {
        360.0.. => format!("{} hours", round(seconds / 3600.0, 1)),
        _ => format!("{} seconds", round(seconds, 1)),
    }
}
