//! The only file with effects: loads the model, runs the units, writes the container, says what it holds.

use std::path::Path;

use acts::{OpenOptions, State};
use model::Decoder;
use process::signals::Grace;
use process::{Error, Existing, Manifest, Outcome, Output, Progress, Result, ResultExt};
use records::Status;

use crate::cli::Args;
use crate::dump::{Dump, Unit, Written, figures_of};
use crate::plan::{Job, target};
use crate::prompts::Sample;
use crate::report::{EndKeys, Massive, Records};
use crate::{collector, inspect, moments, verify};

pub fn run(args: Args) -> Result<Outcome> {
    if args.inspect {
        return inspect::run(&args);
    }
    if let Some(golden) = args.verify.clone() {
        return verify::run(args, &golden);
    }
    if args.common.plan {
        return process::plan::print(&Job::new(&args)?.show());
    }
    let path = target(&args)?;
    let existing = Existing::from_flags(args.output.force, args.resume);
    let finished = args.resume && path.is_file();
    if !finished {
        process::check_target(path, existing, &inputs(&args))?;
    }
    let manifest = Manifest::start();
    let job = Job::new(&args)?;
    for failure in &job.failures {
        process::warn(&args.common, &failure.to_string());
    }
    if finished {
        return already(&args, &job, path);
    }
    if job.plan.moments {
        moments::check_memory(&job, args.max_memory)?;
    }
    // accumulators live in memory: a stopped run of moments starts over
    let existing = if job.plan.moments && args.resume {
        Existing::Replace
    } else {
        existing
    };
    let output = Output::create_binary(path, existing, &inputs(&args))?;
    let run = Run {
        args: &args,
        job: &job,
        path,
        manifest,
    };
    match job.plan.moments {
        true => run.moments(output),
        false => run.rows(output),
    }
}

/// Files that an output must not replace.
fn inputs(args: &Args) -> Vec<std::path::PathBuf> {
    let mut inputs = vec![args.prompts.clone()];
    if let Ok(entries) = std::fs::read_dir(&args.model) {
        inputs.extend(entries.flatten().map(|entry| entry.path()));
    }
    inputs
}

/// A finished output of the same plan under `--resume`: nothing to do; of another plan: a conflict.
fn already(args: &Args, job: &Job, path: &Path) -> Result<Outcome> {
    let shown = path.display().to_string();
    let options = OpenOptions {
        allow_partial: true,
        ..OpenOptions::default()
    };
    let file = acts::File::open(path, options).at(&shown)?;
    let (ours, theirs) = (
        if job.plan.moments {
            moments::header(job)?
        } else {
            job.rows_header()?
        },
        file.header(),
    );
    if ours != *theirs {
        let was = theirs.meta.get("plan").cloned().unwrap_or_default();
        let is = ours.meta.get("plan").cloned().unwrap_or_default();
        let what = process::plan::difference(&was, &is).unwrap_or_else(|| acts::first_difference(theirs, &ours));
        return Err(
            Error::conflict(&shown, format!("is a finished run of another plan: {what}")).hint("--force replaces it"),
        );
    }
    if args.common.verbose {
        process::warn(&args.common, &format!("{shown} is finished"));
    }
    let mut records = Records::begin(path != Path::new("-"), &job.digest)?;
    let mut keys = EndKeys {
        input_digest: job.plan.input_digest.clone(),
        ..EndKeys::default()
    };
    if !job.plan.moments {
        let samples = file.tensor("samples").at(&shown)?;
        let lines = file.to_bytes(samples, 0..file.row_count(samples)).at(&shown)?;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut record: records::Sample =
                serde_json::from_slice(line).map_err(|cause| Error::input(&shown, cause))?;
            record.rest.remove("type"); // the tag is written again
            records.row(&record)?;
        }
        let (figures, summary) = figures_of(job, path)?;
        tensors(job, path, &figures, &summary, &mut records, &mut keys)?;
    }
    finish(job, records, keys, file.state())
}

/// The tensor records, and what the end record says of the largest numbers.
fn tensors(
    job: &Job,
    path: &Path,
    figures: &[crate::report::Figures],
    summary: &acts::Summary,
    records: &mut Records,
    keys: &mut EndKeys,
) -> Result<()> {
    let dtype = crate::plan::acts_dtype(&job.plan.store_dtype);
    for ((point, figures), summary) in job.points.iter().zip(figures).zip(&summary.tensors) {
        let width = point.site.width(&job.config) as u64;
        let record = figures.record(*point, path, width, dtype, summary);
        keys.massive_activations.push(Massive::of(&record));
        records.row(&record)?;
    }
    Ok(())
}

fn finish(job: &Job, records: Records, mut keys: EndKeys, state: State) -> Result<Outcome> {
    let partial = !job.failures.is_empty() || state != State::Complete;
    keys.failed_count = partial.then_some(job.failures.len() as u64);
    records.end(if partial { Status::Partial } else { Status::Complete }, &keys)?;
    Ok(if partial { Outcome::Partial } else { Outcome::Complete })
}

struct Run<'a> {
    args: &'a Args,
    job: &'a Job,
    path: &'a Path,
    manifest: Manifest,
}

impl Run<'_> {
    fn load(&self) -> Result<Decoder> {
        Decoder::from_weights(self.job.config.clone(), &self.job.weights).at(self.args.model.display())
    }

    /// The digest of what was mapped must be the plan's: a model replaced underneath is refused before anything is published.
    fn same_model(&self) -> Result<()> {
        let directory =
            model::Directory::open(&self.args.model, self.args.follow_links).at(self.args.model.display())?;
        let config = directory.read("config.json").at(self.args.model.display())?;
        let digest = format!("blake3:{}", self.job.weights.digest_on_one_thread(&config).to_hex());
        match digest == self.job.plan.model_digest {
            true => Ok(()),
            false => Err(Error::input(
                self.args.model.display(),
                format!(
                    "was changed while it was run: its digest was {}, is {digest}",
                    self.job.plan.model_digest
                ),
            )),
        }
    }

    fn rows(mut self, output: Output) -> Result<Outcome> {
        let (args, job) = (self.args, self.job);
        let is_file = self.path != Path::new("-");
        let threads = args.common.thread_count();
        let records = Records::begin(is_file, &job.digest)?;
        let dump = Dump::open(job, output, self.path, args.resume, threads, records)?;
        let done = dump.done_units();
        let decoder = self.load()?;
        let all: Vec<usize> = (0..job.samples.len()).collect();
        let total: u64 = job.samples.iter().map(|sample| sample.token_ids.len() as u64).sum();
        let progress = Progress::start(&args.common, "tokens", Some(total), "tokens");
        let _grace = Grace::begin();
        let clock = std::time::Instant::now();
        let mut token_count = 0;
        let written = std::thread::scope(|scope| -> Result<Written> {
            let checked = scope.spawn(|| self.same_model());
            let (sender, writing) = dump.start(scope);
            let mut stopped = Ok(());
            for unit in job.units(&all).into_iter().skip(done) {
                stopped = process::signals::check();
                if stopped.is_err() {
                    break;
                }
                let samples: Vec<&Sample> = unit.iter().map(|&index| &job.samples[index]).collect();
                let tokens: u64 = samples.iter().map(|sample| sample.token_ids.len() as u64).sum();
                let tensors = match collector::forward(&decoder, job, &samples) {
                    Ok(tensors) => tensors,
                    Err(error) => {
                        stopped = Err(error).at(args.model.display());
                        break;
                    }
                };
                if sender.send(Unit { samples: unit, tensors }).is_err() {
                    break; // the writer failed, and says why
                }
                token_count += tokens;
                progress.advance(tokens);
            }
            if stopped.is_err() && process::signals::received().is_none() {
                // what was computed stays in the partial file; the reason is ours
                drop(sender);
                let _ = writing.join();
                return stopped.and(Err(Error::bug("run", "stopped without a reason")));
            }
            drop(sender);
            let written = joined(writing.join())?;
            stopped?;
            joined(checked.join())?;
            Ok(written)
        })?;
        progress.finish();
        let seconds = clock.elapsed().as_secs_f64();
        let Written {
            output,
            summary,
            figures,
            journal,
            mut records,
        } = written;
        output.commit()?;
        if let Some(journal) = journal {
            journal.remove()?;
        }
        let mut keys = EndKeys {
            input_digest: job.plan.input_digest.clone(),
            ..EndKeys::default()
        };
        if is_file {
            let figures = match figures {
                Some(figures) => figures,
                None => figures_of(job, self.path)?.0,
            };
            tensors(job, self.path, &figures, &summary, &mut records, &mut keys)?;
            self.note(token_count, seconds)?;
        }
        finish(job, records, keys, summary.state)
    }

    fn moments(mut self, output: Output) -> Result<Outcome> {
        let (args, job) = (self.args, self.job);
        let is_file = self.path != Path::new("-");
        let mut records = Records::begin(is_file, &job.digest)?;
        let decoder = self.load()?;
        let total: u64 = job.samples.iter().map(|sample| sample.token_ids.len() as u64).sum();
        let progress = Progress::start(&args.common, "tokens", Some(total), "tokens");
        let clock = std::time::Instant::now();
        let results = std::thread::scope(|scope| {
            let checked = scope.spawn(|| self.same_model());
            let results = moments::accumulate(job, &decoder, |tokens| {
                progress.advance(tokens);
                process::signals::check()
            })?;
            joined(checked.join())?;
            Ok(results)
        })?;
        progress.finish();
        let seconds = clock.elapsed().as_secs_f64();
        moments::write(job, output, args.common.thread_count(), results.clone())?.commit()?;
        for row in moments::rows(job, &results, self.path) {
            records.row(&row)?;
        }
        if is_file {
            self.note(total, seconds)?;
        }
        let state = if job.failures.is_empty() {
            State::Complete
        } else {
            State::Partial
        };
        let keys = EndKeys {
            input_digest: job.plan.input_digest.clone(),
            ..EndKeys::default()
        };
        finish(job, records, keys, state)
    }

    /// The run manifest beside a file.
    fn note(&mut self, token_count: u64, seconds: f64) -> Result<()> {
        if !self.path.is_file() {
            return Ok(());
        }
        self.manifest.note("token_count", token_count)?;
        self.manifest
            .note("tokens_per_second", token_count as f64 / seconds.max(1e-9))?;
        self.manifest.note("model_path", self.args.model.to_string_lossy())?;
        self.manifest
            .note("prompts_path", self.args.prompts.to_string_lossy())?;
        self.manifest.write(self.path, &self.job.plan)
    }
}

/// A thread's result; its panic is ours.
fn joined<T>(result: std::thread::Result<Result<T>>) -> Result<T> {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
