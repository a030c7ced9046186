//! `run`: the whole pipe, from benchmarks to a report, with lm-gen as a process.

use std::path::{Path, PathBuf};

use process::{Error, Existing, Format, Outcome, Output, Progress, Result, ResultExt, Sibling};
use serde_json::Map;
use tempfile::TempDir;

use super::judge::judge_into;
use super::prompts::read_prompts;
use super::report::{read_verdicts, write_report};
use crate::answers::{Answers, Reading};
use crate::cli::{Args, ReportFlags, RunArgs};
use crate::plan::{JudgePlan, Panel, PromptsPlan, ReportPlan};

/// Where the files of a whole pipe go.
enum Place {
    Kept(PathBuf),
    Passing(TempDir),
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        match self {
            Place::Kept(directory) => directory.join(name),
            Place::Passing(scratch) => scratch.path().join(name),
        }
    }
}

pub fn run(args: &Args, flags: &RunArgs) -> Result<Outcome> {
    let prompts_plan = PromptsPlan::new(&flags.bench)?;
    let panel = Panel::new(&flags.judges, &args.common)?;
    let judge_plan = JudgePlan {
        command: "judge",
        judges: panel.entries(),
        bench: None,
        map: Vec::new(),
    };
    let report_plan = ReportPlan::new(&flags.report, flags.vs.is_some())?;
    if args.common.plan {
        let mut plan = Map::new();
        plan.insert("command".into(), "run".into());
        for (name, part) in [
            ("prompts", serde_json::to_value(&prompts_plan)),
            ("judge", serde_json::to_value(&judge_plan)),
            ("report", serde_json::to_value(&report_plan)),
        ] {
            plan.insert(name.into(), part.map_err(|cause| Error::bug("plan", cause))?);
        }
        return process::plan::print(&plan);
    }
    let prompts = read_prompts(&prompts_plan)?;
    let base = flags.vs.as_deref().map(|path| read_verdicts(path, false)).transpose()?;
    let place = match &flags.output {
        Some(directory) => {
            std::fs::create_dir_all(directory).at(directory.display())?;
            Place::Kept(directory.clone())
        }
        None => Place::Passing(tempfile::tempdir().at("temporary directory")?),
    };
    let (asked, said, judged) = (
        place.file("prompts.jsonl"),
        place.file("completions.jsonl"),
        place.file("verdicts.jsonl"),
    );
    records::write_rows(&asked, &prompts).at(asked.display())?;
    generator(args, flags).arg("--output").arg(&said).arg(&asked).run()?;

    let answers = Answers::open(&said, Reading::default())?;
    let progress = Progress::start(&args.common, "judging", Some(prompts.len() as u64), "completions");
    // Answers are dear, verdicts are cheap: they are made anew from what is there.
    let target = Output::create(&judged, Existing::Replace, std::slice::from_ref(&said))?;
    let outcome = judge_into(target, &panel, &judge_plan, answers, Some(prompts), false, &progress)?;
    progress.finish();

    let verdicts = read_verdicts(&judged, false)?;
    if flags.output.is_some() {
        let kept = Output::create(
            &place.file("report.jsonl"),
            Existing::Replace,
            std::slice::from_ref(&judged),
        )?;
        let without_thresholds = ReportFlags {
            fail_over: Vec::new(),
            ..flags.report.clone()
        };
        write_report(
            kept,
            &report_plan,
            &without_thresholds,
            Format::Jsonl,
            &verdicts,
            base.as_ref(),
        )?;
    }
    let target = Output::create(Path::new("-"), Existing::Refuse, &[])?;
    Ok(outcome.and(write_report(
        target,
        &report_plan,
        &flags.report,
        flags.report.format.resolve(None),
        &verdicts,
        base.as_ref(),
    )?))
}

/// lm-gen as this run calls it; a partial answer file is refused by its reader.
fn generator(args: &Args, flags: &RunArgs) -> Sibling {
    let mut call = Sibling::new("lm-gen")
        .arg("--model")
        .arg(&flags.model)
        .arg("--max-new-tokens")
        .arg(flags.max_new_tokens.to_string())
        .arg("--resume");
    if let Some(system) = &flags.system {
        call = call.arg("--system").arg(system);
    }
    if flags.raw {
        call = call.arg("--raw");
    }
    if args.common.quiet {
        call = call.arg("--quiet");
    }
    if let Some(threads) = args.common.threads {
        call = call.arg("--threads").arg(threads.to_string());
    }
    call.args(&flags.generator)
}
