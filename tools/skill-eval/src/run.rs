//! The four commands: the only file of skill-eval with effects.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use process::{Error, Existing, Outcome, Output, OutputFlags, Progress, Result, ResultExt};
use rayon::prelude::*;
use records::dataset::{Dataset, InputFormat, Options};
use records::{Begin, Completion, Finish, Reader, Score, Status, Writer};
use serde_json::Value;

use crate::answer::{self, Reading};
use crate::bench;
use crate::cli::{Args, Bench, Command, ExecutionFlags, Format, PromptsArgs, ReportArgs, RunArgs, ScoreArgs, Source};
use crate::extract::{Found, choices_of};
use crate::generator::{Generator, write_prompts};
use crate::lm_eval;
use crate::plan::{Figures, Questions, Scoring};
use crate::report;
use crate::sandbox::{Ending, Limits, Sandbox};
use crate::tally;

pub fn run(args: Args) -> Result<Outcome> {
    match &args.command {
        Command::Prompts(flags) => prompts(&args, flags),
        Command::Score(flags) => score(&args, flags),
        Command::Report(flags) => report_scores(&args, flags),
        Command::Run(flags) => pipeline(&args, flags),
    }
}

/// Opens where records go: `-o`, else stdout.
fn output(flags: &OutputFlags, inputs: &[PathBuf]) -> Result<Output> {
    let path = flags.output.as_deref().unwrap_or(Path::new("-"));
    Output::create(path, Existing::from_flags(flags.force, false), inputs)
}

fn begin(digest: &str) -> Begin {
    Begin::new(process::tool_name(), env!("CARGO_PKG_VERSION")).plan_digest(digest)
}

fn status_of(outcome: Outcome) -> Status {
    if outcome == Outcome::Partial {
        Status::Partial
    } else {
        Status::Complete
    }
}

fn outcome_of(status: Status) -> Outcome {
    if status == Status::Partial {
        Outcome::Partial
    } else {
        Outcome::Complete
    }
}

fn subject_of(path: &Path) -> String {
    if path.as_os_str() == "-" {
        "stdin".into()
    } else {
        path.display().to_string()
    }
}

fn prompts(args: &Args, flags: &PromptsArgs) -> Result<Outcome> {
    let questions = Questions::new(&flags.bench, &flags.files)?;
    if args.common.plan {
        return process::plan::print(&questions);
    }
    let made = bench::prompts(&questions)?;
    let outcome = say_left_out(args, &made.left_out);
    let mut writer = Writer::new(output(&flags.output, &flags.files)?);
    writer.begin(&begin(&questions.digest()?), &()).at("output")?;
    for prompt in &made.prompts {
        writer.row(prompt).at("output")?;
    }
    writer.end(status_of(outcome), &()).at("output")?.commit()?;
    Ok(outcome)
}

fn say_left_out(args: &Args, left_out: &[String]) -> Outcome {
    for what in left_out {
        process::warn(&args.common, &format!("left out: {what}"));
    }
    if left_out.is_empty() {
        Outcome::Complete
    } else {
        Outcome::Partial
    }
}

/// Refuses programs of a model where they were not allowed; tries the sandbox where they were.
fn sandbox(execution: &ExecutionFlags) -> Result<Sandbox> {
    if !execution.allow_code_execution {
        return Err(Error::usage("humaneval", "scoring runs programs that a model wrote")
            .hint("--allow-code-execution runs them in a sandbox"));
    }
    Sandbox::new(
        &execution.python,
        Limits {
            seconds: execution.time_limit,
            memory_bytes: execution.memory_limit,
        },
    )
}

fn score(args: &Args, flags: &ScoreArgs) -> Result<Outcome> {
    let plan = Scoring::new(flags);
    if args.common.plan {
        return process::plan::print(&plan);
    }
    if flags.from == Source::LmEval && flags.bench.is_none() {
        return Err(
            Error::usage("--from lm-eval", "the log does not say which benchmark it is").hint("name it with --bench"),
        );
    }
    // Before anything is read: an answer must not be half scored when the refusal comes.
    let early = (flags.bench == Some(Bench::Humaneval))
        .then(|| sandbox(&flags.execution))
        .transpose()?;
    let rows = Options::new()
        .format(flags.input_format)
        .accept_partial(flags.keep_going)
        .digest(true)
        .open(&flags.input)
        .at(subject_of(&flags.input))?;
    let target = output(&flags.output, std::slice::from_ref(&flags.input))?;
    let scorer = Scorer {
        execution: &flags.execution,
        sandbox: early,
        bench: flags.bench,
        keep_going: flags.keep_going,
    };
    score_into(args, target, &plan, rows, flags.from, &flags.input, scorer)
}

/// Answers per batch: enough to keep every thread busy.
const BATCH: usize = 512;

fn score_into(
    args: &Args,
    target: Output,
    plan: &Scoring,
    mut rows: Dataset,
    from: Source,
    path: &Path,
    mut scorer: Scorer,
) -> Result<Outcome> {
    let subject = subject_of(path);
    let mut writer = Writer::new(target);
    writer.begin(&begin(&process::plan::digest(plan)?), &()).at("output")?;
    let progress = Progress::start(&args.common, "scoring", None, "answers");
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let task = lm_eval::task_of(stem);
    let mut outcome = Outcome::Complete;
    let mut logged = HashSet::new();
    let mut seen = HashSet::new();
    loop {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(row) = rows.next().transpose().at(&subject)?
        {
            let is_other = |kind: &str| kind != "completion" && kind != "prompt" && records::TYPES.contains(&kind);
            if row.value.get("type").and_then(Value::as_str).is_some_and(is_other) {
                continue;
            }
            let completion = match (from, scorer.bench) {
                (Source::LmEval, Some(bench)) => lm_eval::completion(&row, bench, task, &mut logged),
                _ => row.decode::<Completion>().map(Some),
            };
            let completion = completion.and_then(|completion| match completion {
                Some(completion) if !seen.insert(completion.key()) => {
                    Err(row.refuse("second row for the same bench, id and attempt"))
                }
                completion => Ok(completion),
            });
            match completion {
                Ok(completion) => batch.extend(completion.map(|completion| (row.index, completion))),
                Err(error) if scorer.keep_going => {
                    process::warn(&args.common, &format!("{subject}: {error}"));
                    outcome = Outcome::Partial;
                }
                Err(error) => return Err(error).at(&subject),
            }
        }
        if batch.is_empty() {
            break;
        }
        process::signals::check()?;
        scorer.prepare(&batch)?;
        let scored: Vec<Result<std::result::Result<Vec<Score>, String>>> = batch
            .par_iter()
            .map(|(_, completion)| scorer.score(completion))
            .collect();
        for ((index, _), scores) in batch.iter().zip(scored) {
            match scores? {
                Ok(scores) => {
                    for score in scores {
                        writer.row(&score).at("output")?;
                    }
                }
                Err(why) if scorer.keep_going => {
                    process::warn(&args.common, &format!("{subject}: row index {index}: {why}"));
                    outcome = Outcome::Partial;
                }
                Err(why) => {
                    return Err(Error::input(&subject, format!("row index {index}: {why}"))
                        .hint("--keep-going leaves such rows out and exits 6"));
                }
            }
        }
        progress.advance(batch.len() as u64);
    }
    progress.finish();
    let outcome = outcome.and(outcome_of(rows.status()));
    let extra: BTreeMap<&str, String> = rows
        .digest()
        .map(|digest| ("input_digest", digest))
        .into_iter()
        .collect();
    writer.end(status_of(outcome), &extra).at("output")?.commit()?;
    Ok(outcome)
}

/// Scores one answer after another, on any thread.
struct Scorer<'f> {
    execution: &'f ExecutionFlags,
    sandbox: Option<Sandbox>,
    bench: Option<Bench>,
    keep_going: bool,
}

impl Scorer<'_> {
    fn bench_of<'c>(&self, completion: &'c Completion) -> Option<&'c str>
    where
        Self: 'c,
    {
        completion.prompt.bench.as_deref().or(self.bench.map(Bench::name))
    }

    /// Makes the sandbox when the first program comes.
    fn prepare(&mut self, batch: &[(u64, Completion)]) -> Result<()> {
        if self.sandbox.is_none()
            && batch
                .iter()
                .any(|(_, completion)| self.bench_of(completion) == Some("humaneval"))
        {
            self.sandbox = Some(sandbox(self.execution)?);
        }
        Ok(())
    }

    /// The scores of an answer, one for each extractor; or why it cannot be scored.
    fn score(&self, completion: &Completion) -> Result<std::result::Result<Vec<Score>, String>> {
        let Some(bench) = self.bench_of(completion) else {
            return Ok(Err("the row names no `bench`".into()));
        };
        let reference = match &completion.prompt.reference {
            Some(Value::String(reference)) => reference.clone(),
            Some(Value::Number(reference)) => reference.to_string(),
            None if bench == "humaneval" => String::new(),
            _ => return Ok(Err("no text or number under `reference`".into())),
        };
        let shown = (bench != "humaneval").then(|| reference.clone());
        let row = |extractor: &str| Score {
            id: completion.prompt.id.clone(),
            bench: bench.to_owned(),
            task: completion.prompt.task.clone(),
            subject: completion.prompt.subject.clone(),
            attempt_index: completion.attempt_index,
            text_digest: completion.text_digest.clone(),
            extractor: extractor.to_owned(),
            reference: shown.clone(),
            rest: completion
                .model_digest
                .iter()
                .map(|digest| ("model_digest".to_owned(), digest.as_str().into()))
                .collect(),
            ..Score::default()
        };
        if let Some(log_probs) = &completion.choice_log_prob {
            let choices = completion.prompt.choices.as_deref().unwrap_or_default();
            let Some((best, best_normed)) = answer::likeliest(choices, log_probs) else {
                return Ok(Err(format!(
                    "{} log-likelihoods for {} choices",
                    log_probs.len(),
                    choices.len()
                )));
            };
            let letter = |index: usize| char::from(b'A' + index.min(25) as u8).to_string();
            let is_right = |index: usize| letter(index) == reference || choices[index].trim() == reference;
            return Ok(Ok(vec![Score {
                correct: Some(is_right(best)),
                read: true,
                answer: Some(letter(best)),
                acc: Some(is_right(best)),
                acc_norm: Some(is_right(best_normed)),
                ..row("loglikelihood")
            }]));
        }
        let failed = completion.finish == Some(Finish::Error);
        let text = match &completion.completion {
            Some(text) => text.as_str(),
            None if failed && completion.prompt.choices.is_some() => return Ok(Ok(vec![row("loglikelihood")])),
            None if failed => "",
            None => return Ok(Err("neither `completion` nor `choice_log_prob`".into())),
        };
        let readings = match bench {
            "gsm8k" => answer::read_number(text, &reference),
            "bbh" => answer::read_task(text, &reference, &choices(completion)),
            "mmlu" => answer::read_choice(text, &reference, &choices(completion)),
            "humaneval" => {
                if failed {
                    return Ok(Ok(["execution", "block"].map(row).to_vec()));
                }
                return self.execute(completion, row);
            }
            other => return Ok(Err(format!("no extractor for bench {:?}", process::safe_text(other)))),
        };
        Ok(Ok(readings
            .into_iter()
            .map(|reading| with_reading(row(reading.extractor), reading))
            .collect()))
    }

    fn execute(
        &self,
        completion: &Completion,
        row: impl Fn(&str) -> Score,
    ) -> Result<std::result::Result<Vec<Score>, String>> {
        let programs = match bench::programs(completion) {
            Ok(programs) => programs,
            Err(why) => return Ok(Err(why)),
        };
        let Some(sandbox) = &self.sandbox else {
            return Err(Error::bug("sandbox", "a program came before its sandbox"));
        };
        let mut scores = Vec::new();
        for (extractor, program) in programs {
            let mut score = row(extractor);
            if let Some(program) = program {
                let ending = sandbox.run(&program)?;
                score.read = true;
                score.correct = Some(ending == Ending::Passed);
                score.answer = Some(match ending {
                    Ending::Passed => "passed".into(),
                    Ending::Failed(said) => format!("failed: {said}"),
                    Ending::TimedOut => "timed out".into(),
                });
            }
            scores.push(score);
        }
        Ok(Ok(scores))
    }
}

/// The options that the question offered.
fn choices(completion: &Completion) -> Vec<crate::extract::Choice> {
    let of_messages = || {
        completion
            .prompt
            .messages
            .as_ref()
            .and_then(|messages| messages.last())
            .map(|message| message.content.as_str())
    };
    choices_of(
        completion
            .prompt
            .prompt
            .as_deref()
            .or_else(of_messages)
            .unwrap_or_default(),
    )
}

fn with_reading(mut score: Score, reading: Reading) -> Score {
    if let Some(Found { answer, span }) = reading.found {
        score.read = true;
        score.correct = Some(reading.is_correct);
        score.answer = Some(answer);
        score.span = Some([span.start as u64, span.end as u64]);
    }
    score
}

/// The scores of a file.
fn read_scores(path: &Path, accept_partial: bool) -> Result<(Vec<Score>, Status)> {
    let subject = subject_of(path);
    let input: Box<dyn std::io::Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).at(&subject)?)
    };
    let mut reader = Reader::new(input).accept_partial(accept_partial);
    let mut scores: Vec<Score> = Vec::new();
    let mut seen = HashSet::new();
    while let Some(score) = reader.next_record::<Score>().at(&subject)? {
        if !seen.insert((score.key(), score.extractor.clone())) {
            return Err(Error::input(
                &subject,
                format!(
                    "two scores of extractor {} for id {} of bench {:?}",
                    score.extractor, score.id, score.bench
                ),
            ));
        }
        scores.push(score);
    }
    if scores.is_empty() {
        return Err(Error::input(&subject, "no score in it"));
    }
    Ok((scores, reader.status()))
}

fn report_scores(args: &Args, flags: &ReportArgs) -> Result<Outcome> {
    let figures = Figures::new(&flags.report, flags.vs.is_some())?;
    if args.common.plan {
        return process::plan::print(&figures);
    }
    let (scores, status) = read_scores(&flags.input, flags.keep_going)?;
    let base = flags
        .vs
        .as_deref()
        .map(|path| read_scores(path, flags.keep_going))
        .transpose()?;
    let status = base.as_ref().map_or(
        status,
        |(_, base)| if *base == Status::Partial { *base } else { status },
    );
    let mut inputs = vec![flags.input.clone()];
    inputs.extend(flags.vs.clone());
    let target = output(&flags.output, &inputs)?;
    write_report(
        target,
        &figures,
        flags.report.format,
        &scores,
        base.as_ref().map(|(scores, _)| scores.as_slice()),
        status,
    )
}

fn write_report(
    mut target: Output,
    figures: &Figures,
    format: Format,
    scores: &[Score],
    base: Option<&[Score]>,
    status: Status,
) -> Result<Outcome> {
    if let Some(base) = base {
        check_same_questions(scores, base)?;
    }
    let reports = tally::reports(scores, base, figures);
    match format {
        Format::Table => {
            report::table(&reports, &mut target)?;
            target.commit()?;
        }
        Format::Jsonl => {
            let mut writer = Writer::new(target);
            writer
                .begin(&begin(&process::plan::digest(figures)?), &())
                .at("output")?;
            for report in &reports {
                writer.row(report).at("output")?;
            }
            writer.end(status, &()).at("output")?.commit()?;
        }
    }
    Ok(outcome_of(status))
}

/// Equal keys must stand for equal questions, and some must be shared.
fn check_same_questions(scores: &[Score], base: &[Score]) -> Result<()> {
    let base: HashMap<_, _> = base
        .iter()
        .map(|score| (score.key(), score.text_digest.as_deref()))
        .collect();
    let mut shared_count = 0_u64;
    for score in scores {
        match (base.get(&score.key()), score.text_digest.as_deref()) {
            (Some(Some(other)), Some(own)) if *other != own => {
                return Err(Error::input(
                    "--vs",
                    format!(
                        "id {} of bench {:?} was another prompt there (text_digest differs)",
                        score.id, score.bench
                    ),
                ));
            }
            (Some(_), _) => shared_count += 1,
            (None, _) => {}
        }
    }
    if shared_count == 0 {
        return Err(Error::input("--vs", "no question is in both"));
    }
    Ok(())
}

fn pipeline(args: &Args, flags: &RunArgs) -> Result<Outcome> {
    let questions = Questions::new(&flags.bench, &flags.files)?;
    let figures = Figures::new(&flags.report, flags.vs.is_some())?;
    let scoring = Scoring::of_records(&flags.execution);
    if args.common.plan {
        #[derive(serde::Serialize)]
        struct Plan<'p> {
            questions: &'p Questions,
            scoring: &'p Scoring,
            figures: &'p Figures,
        }
        return process::plan::print(&Plan {
            questions: &questions,
            scoring: &scoring,
            figures: &figures,
        });
    }
    // Refused before an hour of generation, not after.
    let sandbox = (questions.bench == Bench::Humaneval)
        .then(|| sandbox(&flags.execution))
        .transpose()?;
    let base = flags.vs.as_deref().map(|path| read_scores(path, false)).transpose()?;
    let made = bench::prompts(&questions)?;
    let mut outcome = say_left_out(args, &made.left_out);
    let scratch;
    let directory = match &flags.output {
        Some(directory) => {
            std::fs::create_dir_all(directory).at(directory.display())?;
            directory.clone()
        }
        None => {
            scratch = tempfile::tempdir().at("temporary directory")?;
            scratch.path().to_path_buf()
        }
    };
    let file = |name: &str| directory.join(name);
    write_prompts(&file("prompts.jsonl"), &made.prompts)?;
    let mut words = flags.generator.clone();
    // The customary examples are written for a model that continues text.
    let is_template = |word: &String| {
        ["--raw", "--chat", "--template", "--system"]
            .iter()
            .any(|flag| word.starts_with(flag))
    };
    if !words.iter().any(is_template) {
        words.push("--raw".into());
    }
    // A prompt that does not fit the model's context is an answer that nobody read, not the end of the run.
    words.extend(["--resume".into(), "--keep-going".into()]);
    let generated = Generator {
        model: &flags.model,
        args: words,
    }
    .run(&file("prompts.jsonl"), &file("completions.jsonl"))?;
    outcome = outcome.and(generated);
    let completions = file("completions.jsonl");
    let rows = Options::new()
        .format(InputFormat::Jsonl)
        .accept_partial(true)
        .digest(true)
        .open(&completions)
        .at(completions.display())?;
    let replace = |name: &str| Output::create(&file(name), Existing::from_flags(true, false), &[]);
    let scorer = Scorer {
        execution: &flags.execution,
        sandbox,
        bench: Some(questions.bench),
        keep_going: false,
    };
    outcome = outcome.and(score_into(
        args,
        replace("scores.jsonl")?,
        &scoring,
        rows,
        Source::Records,
        &completions,
        scorer,
    )?);
    let (scores, _) = read_scores(&file("scores.jsonl"), true)?;
    let base = base.as_ref().map(|(scores, _)| scores.as_slice());
    if flags.output.is_some() {
        write_report(
            replace("report.jsonl")?,
            &figures,
            Format::Jsonl,
            &scores,
            base,
            status_of(outcome),
        )?;
    }
    let stdout = Output::create(Path::new("-"), Existing::from_flags(false, false), &[])?;
    write_report(stdout, &figures, flags.report.format, &scores, base, status_of(outcome))?;
    Ok(outcome)
}
