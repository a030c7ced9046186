//! world: writes the little English world into a directory — corpus, tokenizer and configuration, instruction and safety data, and an
//! evaluation set. The same seed gives the same bytes; it takes seconds.

mod corpus;
mod directory;
mod grammar;
mod instructions;
mod lexicon;
mod prompts;
mod random;
mod skills;

use clap::Parser;
use process::{Error, Existing, Outcome, Output, Result, ResultExt};
use random::Random;
use serde::Serialize;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Generate the little English world that the demo trains and measures on.
///
/// Writes into DIR: corpus.jsonl and corpus-held-out.jsonl (text), init/ (tokenizer, template and configuration for vcl-train --init),
/// general.jsonl, general-held-out.jsonl and safety.jsonl (messages), prompts.csv (XSTest's columns) and skills.jsonl (prompt records
/// with choices).
#[derive(Debug, Clone, Parser)]
#[command(name = "world", version)]
struct Args {
    /// Directory to write, which must not exist yet
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Seed of every draw
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Documents of the corpus
    #[arg(long, default_value_t = 12_000, value_name = "N")]
    documents: u64,

    /// Rows of general instruction data, and of safety data
    #[arg(long, default_value_t = 4_000, value_name = "N")]
    instructions: u64,

    /// Harmless uses of each ambiguous verb that the general data may show; the evaluation asks about the others
    #[arg(long, default_value_t = 1, value_name = "N")]
    harmless_uses: usize,

    /// Tokens of the vocabulary
    #[arg(long, default_value_t = 1_536, value_name = "N")]
    vocabulary: usize,

    #[command(flatten)]
    common: process::Common,
}

impl process::Tool for Args {
    fn common(&self) -> &process::Common {
        &self.common
    }
}

fn main() -> ! {
    process::main::<Args>(run)
}

fn run(args: Args) -> Result<Outcome> {
    if args.common.plan {
        return process::plan::print(&json!({
            "seed": args.seed, "document_count": args.documents, "instruction_count": args.instructions,
            "harmless_use_count": args.harmless_uses, "vocabulary": args.vocabulary,
        }));
    }
    let target = &args.directory;
    if target.exists() {
        return Err(Error::conflict(target.display(), "exists"));
    }
    // Made under another name and renamed: a directory under its own name is complete.
    let directory = process::beside(target, ".partial");
    let shown = directory.display().to_string();
    if directory.exists() {
        std::fs::remove_dir_all(&directory).at(&shown)?;
    }
    std::fs::create_dir_all(directory.join("init")).at(&shown)?;

    let document = |part: &str, row| corpus::document(Random::new(args.seed, part).row(row));
    let texts: Vec<String> = (0..args.documents).map(|row| document("corpus", row)).collect();
    let held_out: Vec<String> = (0..args.documents / 40)
        .map(|row| document("corpus held out", row))
        .collect();
    let mut general_draws = Random::new(args.seed, "general");
    let mut other_draws = Random::new(args.seed, "general held out");
    let mut safety_draws = Random::new(args.seed, "safety");
    let general: Vec<_> = (0..args.instructions)
        .map(|row| instructions::general(&mut general_draws, row, args.harmless_uses))
        .collect();
    let other: Vec<_> = (0..args.instructions / 20)
        .map(|row| instructions::general(&mut other_draws, row, args.harmless_uses))
        .collect();
    let safety: Vec<_> = (0..args.instructions)
        .map(|row| instructions::safety(&mut safety_draws, row))
        .collect();

    let as_rows = |part: &str, texts: &[String]| -> Vec<_> {
        texts
            .iter()
            .enumerate()
            .map(|(row, text)| json!({"id": format!("{part}-{row}"), "text": text}))
            .collect()
    };
    lines(&directory, "corpus.jsonl", &as_rows("corpus", &texts))?;
    lines(&directory, "corpus-held-out.jsonl", &as_rows("held-out", &held_out))?;
    lines(&directory, "general.jsonl", &general)?;
    lines(&directory, "general-held-out.jsonl", &other)?;
    lines(&directory, "safety.jsonl", &safety)?;
    let skills = skills::skills(&mut Random::new(args.seed, "skills"));
    lines(&directory, "skills.jsonl", &skills)?;
    table(&directory, &args)?;

    // The tokenizer sees what the models will see, so that no word of the questions is split into letters.
    let asked = general
        .iter()
        .chain(&safety)
        .flat_map(|example| example.messages.iter().map(|turn| turn.content.clone()));
    let seen: Vec<String> = texts.iter().cloned().chain(asked).collect();
    directory::write(&directory.join("init"), &seen, args.vocabulary)
        .map_err(|cause| Error::bug("tokenizer", cause))?;

    std::fs::rename(&directory, target).at(target.display())?;
    Ok(Outcome::Complete)
}

fn lines<T: Serialize>(directory: &Path, name: &str, rows: &[T]) -> Result<()> {
    let mut output = Output::create(&directory.join(name), Existing::Refuse, &[])?;
    for row in rows {
        process::signals::check()?;
        let line = serde_json::to_string(row).map_err(|cause| Error::bug(name, cause))?;
        writeln!(output, "{line}").at(name)?;
    }
    output.commit()
}

/// The prompts. No text of the world holds a quote, so a field with a comma is quoted and nothing more.
fn table(directory: &Path, args: &Args) -> Result<()> {
    let name = "prompts.csv";
    let mut output = Output::create(&directory.join(name), Existing::Refuse, &[])?;
    writeln!(output, "id,prompt,type,label,focus,note").at(name)?;
    let prompts = prompts::prompts(&mut Random::new(args.seed, "prompts"), args.harmless_uses);
    for (index, prompt) in prompts.iter().enumerate() {
        writeln!(
            output,
            "{},\"{}\",{},{},{},",
            index + 1,
            prompt.text,
            prompt.kind,
            prompt.label,
            prompt.focus
        )
        .at(name)?;
    }
    output.commit()
}
