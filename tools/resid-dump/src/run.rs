//! The run: loads the model, runs the units, writes the container, says what it holds.

use std::path::Path;
use std::thread;
use std::time::Instant;

use acts::{OpenOptions, State, Summary};
use model::Decoder;
use process::signals::Grace;
use process::{Common, Error, Existing, Journal, Manifest, Outcome, Output, Progress, Result, ResultExt};
use records::Status;

use crate::cli::Args;
use crate::collector;
use crate::dump::{Dump, Unit, Written, figures_of};
use crate::plan::{Opened, Plan, Target, token_count};
use crate::report::{EndKeys, Figures, Massive, Records};
use crate::{inspect, layout, moments, verify};

pub fn run(args: Args) -> Result<Outcome> {
    if args.inspect {
        return inspect::run(&args);
    }
    if let Some(golden) = args.verify.clone() {
        return verify::run(args, &golden);
    }
    let manifest = Manifest::start();
    let (plan, opened) = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&layout::shown(&plan, &opened)?);
    }
    let target = opened
        .target
        .as_ref()
        .ok_or_else(|| Error::usage("--output", "is missing").hint("-o FILE, or -o - for the container on stdout"))?;
    for failure in &opened.failures {
        process::warn(&args.common, &failure.to_string());
    }
    let run = Run {
        common: &args.common,
        plan: &plan,
        opened: &opened,
        target,
        manifest,
    };
    match (target.is_finished(), plan.moments) {
        (true, _) => run.already(),
        (false, true) => run.moments(),
        (false, false) => run.rows(),
    }
}

struct Run<'a> {
    common: &'a Common,
    plan: &'a Plan,
    opened: &'a Opened,
    target: &'a Target,
    manifest: Manifest,
}

impl Run<'_> {
    fn begin_records(&self) -> Result<Records> {
        Records::begin(!self.target.is_stdout(), &process::plan::digest(self.plan)?)
    }

    fn load(&self) -> Result<Decoder> {
        self.opened.checkpoint.load().at(&self.opened.model_name)
    }

    /// A model replaced underneath is refused before anything is published.
    fn same_model(&self) -> Result<()> {
        self.opened.checkpoint.check_unchanged().at(&self.opened.model_name)
    }

    fn progress(&self) -> Progress {
        Progress::start(self.common, "tokens", Some(self.opened.token_count()), "tokens")
    }

    /// A finished output of the same plan under `--resume`: nothing to do; of another plan: a conflict.
    fn already(&self) -> Result<Outcome> {
        let shown = self.target.path.display().to_string();
        let options = OpenOptions {
            allow_partial: true,
            ..OpenOptions::default()
        };
        let file = acts::File::open(&self.target.path, options).at(&shown)?;
        self.check_header(file.header(), &shown)?;
        Journal::clear(&self.target.path)?;
        if self.common.verbose {
            process::warn(self.common, &format!("{shown} is finished"));
        }
        let mut records = self.begin_records()?;
        let mut massive = Vec::new();
        if !self.plan.moments {
            let samples = file.tensor("samples").at(&shown)?;
            let table = file.to_bytes(samples, 0..file.row_count(samples)).at(&shown)?;
            for sample in records::table_rows::<records::Sample>(&table).at(&shown)? {
                records.row(&sample)?;
            }
            let (figures, summary) = figures_of(self.opened, &self.target.path)?;
            massive = self.tensors(&figures, &summary, &mut records)?;
        }
        self.end(records, massive, file.state())
    }

    fn check_header(&self, theirs: &acts::Header, shown: &str) -> Result<()> {
        let ours = layout::header(self.plan, self.opened)?;
        let is_same = match self.target.mixed.allow_mixed_compute {
            true => layout::without_machine(&ours) == layout::without_machine(theirs),
            false => ours == *theirs,
        };
        if is_same {
            return Ok(());
        }
        let plan_of = |header: &acts::Header| header.meta.get("plan").cloned().unwrap_or_default();
        let what = process::plan::difference(&plan_of(theirs), &plan_of(&ours))
            .unwrap_or_else(|| acts::first_difference(theirs, &ours));
        Err(Error::conflict(shown, format!("is a finished run of another plan: {what}")).hint("--force replaces it"))
    }

    fn rows(mut self) -> Result<Outcome> {
        let records = self.begin_records()?;
        let threads = self.common.thread_count();
        let dump = Dump::open(self.plan, self.opened, self.target, threads, records)?;
        let decoder = self.load()?;
        let progress = self.progress();
        let _grace = Grace::begin();
        let clock = Instant::now();
        let (written, token_count) = self.compute(&decoder, dump, &progress)?;
        progress.finish();
        let seconds = clock.elapsed().as_secs_f64();
        let mut records = written.records;
        written.output.commit()?;
        if let Some(journal) = written.journal {
            journal.remove()?;
        }
        let mut massive = Vec::new();
        if !self.target.is_stdout() {
            let figures = match written.figures {
                Some(figures) => figures,
                None => figures_of(self.opened, &self.target.path)?.0,
            };
            massive = self.tensors(&figures, &written.summary, &mut records)?;
        }
        self.note(token_count, seconds)?;
        self.end(records, massive, written.summary.state)
    }

    /// Runs the units that are not done while another thread writes those that are, and a third reads the model's files again. Gives
    /// the finished container, and the tokens that were run.
    fn compute(&self, decoder: &Decoder, dump: Dump<'_>, progress: &Progress) -> Result<(Written, u64)> {
        let done = dump.done_units();
        let mut tokens_run = 0;
        let written = thread::scope(|scope| -> Result<Written> {
            let checked = thread::Builder::new().spawn_scoped(scope, || self.same_model());
            let checked = checked.at("a thread")?;
            let (sender, writing) = dump.start(scope)?;
            let mut stopped = Ok(());
            for unit in self.opened.all_units().into_iter().skip(done) {
                stopped = process::signals::check();
                if stopped.is_err() {
                    break;
                }
                let samples = self.opened.of_unit(&unit);
                let tokens = token_count(samples.iter().copied());
                let tensors = match collector::forward(decoder, self.opened, &samples) {
                    Ok(tensors) => tensors,
                    Err(error) => {
                        stopped = Err(error).at(&self.opened.model_name);
                        break;
                    }
                };
                if sender.send(Unit { samples: unit, tensors }).is_err() {
                    break; // the writer failed, and says why
                }
                tokens_run += tokens;
                progress.advance(tokens);
            }
            drop(sender);
            let writing = writing.join();
            match stopped {
                // what was computed stays in the partial file; the reason is ours
                Err(error) if process::signals::received().is_none() => Err(error),
                stopped => {
                    let written = joined(writing)?;
                    stopped?;
                    joined(checked.join())?;
                    Ok(written)
                }
            }
        })?;
        Ok((written, tokens_run))
    }

    fn moments(mut self) -> Result<Outcome> {
        moments::check_memory(self.opened)?;
        // accumulators live in memory: a stopped run of moments starts over
        let existing = match self.target.existing {
            Existing::Resume => Existing::Replace,
            other => other,
        };
        let output = Output::create_binary(&self.target.path, existing, &self.target.inputs)?;
        let mut records = self.begin_records()?;
        let decoder = self.load()?;
        let progress = self.progress();
        let clock = Instant::now();
        let results = thread::scope(|scope| {
            let checked = thread::Builder::new().spawn_scoped(scope, || self.same_model());
            let checked = checked.at("a thread")?;
            let results = moments::accumulate(self.opened, &decoder, |tokens| {
                progress.advance(tokens);
                process::signals::check()
            })?;
            joined(checked.join())?;
            Ok(results)
        })?;
        progress.finish();
        let seconds = clock.elapsed().as_secs_f64();
        let header = layout::header(self.plan, self.opened)?;
        let is_partial = !self.opened.failures.is_empty();
        moments::write(header, output, self.common.thread_count(), &results, is_partial)?.commit()?;
        for row in moments::rows(self.opened, &results, &self.target.path) {
            records.row(&row)?;
        }
        self.note(self.opened.token_count(), seconds)?;
        let state = if is_partial { State::Partial } else { State::Complete };
        self.end(records, Vec::new(), state)
    }

    /// The tensor records, and what the end record says of the largest numbers.
    fn tensors(&self, figures: &[Figures], summary: &Summary, records: &mut Records) -> Result<Vec<Massive>> {
        let mut massive = Vec::new();
        let of_points = self.opened.points.iter().zip(figures).zip(&summary.tensors);
        for (at, ((point, figures), summary)) in of_points.enumerate() {
            let width = self.opened.width(at) as u64;
            let record = figures.record(*point, &self.target.path, width, self.opened.dtype(at), summary);
            massive.push(Massive::of(&record));
            records.row(&record)?;
        }
        let largest = massive.iter().max_by(|a, b| a.ratio.total_cmp(&b.ratio));
        if let Some(doubt) = largest.and_then(Massive::doubt) {
            process::warn(self.common, &doubt);
        }
        Ok(massive)
    }

    fn end(&self, records: Records, massive_activations: Vec<Massive>, state: State) -> Result<Outcome> {
        let failed_count = self.opened.failures.len() as u64;
        let is_partial = failed_count > 0 || state != State::Complete;
        let keys = EndKeys {
            input_digest: self.plan.input_digest.clone(),
            massive_activations,
            failed_count: is_partial.then_some(failed_count),
        };
        records.end(if is_partial { Status::Partial } else { Status::Complete }, &keys)?;
        Ok(Outcome::partial_if(is_partial))
    }

    /// The run manifest beside a file.
    fn note(&mut self, token_count: u64, seconds: f64) -> Result<()> {
        let path: &Path = &self.target.path;
        if self.target.is_stdout() || !path.is_file() {
            return Ok(());
        }
        self.manifest.note("token_count", token_count)?;
        self.manifest
            .note("tokens_per_second", token_count as f64 / seconds.max(1e-9))?;
        self.manifest.note("model_path", &self.opened.model_name)?;
        self.manifest.note("prompts_path", &self.opened.prompts_name)?;
        self.manifest.write(path, self.plan)
    }
}

/// A thread's result; its panic is ours.
fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
