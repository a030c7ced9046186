//! The run: records in order, sequences in flight, one line at a time into the partial file.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::Path;

use model::Decoder;
use numerics::rng::Rng;
use process::{Error, Existing, Journal, Manifest, Outcome, Output, Progress, Result, ResultExt, Shard};
use records::{Begin, Completion, Finish, Status, Writer};
use serde::Serialize;

use crate::cli::Args;
use crate::decode::{Done, Engine, Job};
use crate::directions::Interventions;
use crate::merge;
use crate::plan::{Model, Plan};
use crate::prompts::{self, Input, Item, Speech};
use crate::report::{BeginKeys, Mark};
use crate::resume;
use crate::sample::Choice;
use crate::score::Scorer;

/// What a journal belongs to.
#[derive(Serialize)]
struct Journaled<'p> {
    plan: &'p Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<&'p str>,
}

pub fn run(args: Args) -> Result<Outcome> {
    if args.merge {
        return merge::run(&args);
    }
    let [path] = args.inputs.as_slice() else {
        return Err(Error::usage("PROMPTS", "one input is read; several are for --merge"));
    };
    let target = args.output.output.as_deref().unwrap_or(Path::new("-"));
    if args.resume && target.as_os_str() == "-" {
        return Err(Error::usage("--resume", "needs -o FILE"));
    }
    let shard = args.shard.resolve()?;
    let shard_text = (shard != Shard::WHOLE).then(|| format!("{}/{}", shard.index, shard.count));
    let mut model = Model::open(&args)?;
    let input = prompts::read(path, args.input_format, args.limit, shard, args.score, args.keep_going)?;
    let plan = Plan::new(&args, &model, input.digest.clone(), input.count);
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let plan_digest = process::plan::digest(&plan)?;
    let existing = Existing::from_flags(args.output.force, args.resume);
    if args.resume && resume::is_finished(target, &plan_digest, shard_text.as_deref())? {
        return Ok(Outcome::Complete);
    }
    process::check_target(target, existing, std::slice::from_ref(path))?;

    let speech = Speech {
        tokenizer: &model.tokenizer,
        template: model.template.take(),
        system: args.system.clone(),
    };
    let units = units(&args, &input, &model, &speech)?;
    let mut manifest = Manifest::start();
    let begin = Begin::new(process::tool_name(), env!("CARGO_PKG_VERSION")).plan_digest(&plan_digest);
    let keys = BeginKeys {
        model_digest: model.digest.clone(),
        input_digest: input.digest.clone(),
        shard: shard_text.clone(),
        compute: plan.compute.clone(),
    };
    let mut begin_line = Writer::new(Vec::new());
    begin_line.begin(&begin, &keys).at("output")?;
    let begin_line =
        String::from_utf8(begin_line.into_output().at("output")?).map_err(|cause| Error::bug("begin", cause))?;
    let journaled = Journaled {
        plan: &plan,
        shard: shard_text.as_deref(),
    };
    let start = resume::open(target, existing, std::slice::from_ref(path), &journaled, &begin_line)?;

    let interventions = Interventions::load(&model.interventions, &model.config, model_device(&args)?.as_ref())?;
    let decoder = Decoder::from_weights(model.config.clone(), &model.weights).at("--model")?;
    let end = if start.has_begun {
        start.output.resumed_bytes()?
    } else {
        0
    };
    let ledger = Ledger {
        output: start.output,
        journal: start.journal,
        end,
    };
    let mut sink = Sink {
        writer: if start.has_begun {
            Writer::resume(ledger, start.done_count)
        } else {
            Writer::new(ledger)
        },
        waiting: BTreeMap::new(),
        next: start.done_count,
        is_partial: input.status == Status::Partial,
        token_count: 0,
    };
    if !start.has_begun {
        sink.writer.begin(&begin, &keys).at("output")?;
    }
    let progress = Progress::start(&args.common, "generating", Some(units.len() as u64), "completions");
    progress.advance(start.done_count);
    let choice = choice(&args);
    let mut run = Run {
        args: &args,
        model: &model,
        speech: &speech,
        engine: Engine::new(
            &decoder,
            &model.tokenizer,
            &interventions,
            choice,
            model.end_token_ids.clone(),
            args.batch as usize,
        ),
        scorer: Scorer {
            decoder: &decoder,
            interventions: &interventions,
        },
        orders: units.iter().map(|unit| (unit.item, unit.attempt_index)).collect(),
        items: &input.items,
    };
    run.all(units, &mut sink, &progress)?;
    progress.finish();

    let outcome = if sink.is_partial {
        Outcome::Partial
    } else {
        Outcome::Complete
    };
    let status = if sink.is_partial {
        Status::Partial
    } else {
        Status::Complete
    };
    manifest.note("new_token_count", sink.token_count)?;
    let ledger = sink.writer.end(status, &()).at("output")?;
    let is_file = ledger.output.is_file();
    ledger.output.commit()?;
    if let Some(journal) = ledger.journal {
        journal.remove()?;
    }
    if is_file {
        manifest.write(target, &plan)?;
    }
    Ok(outcome)
}

fn model_device(args: &Args) -> Result<Box<model::Device>> {
    model::device::open(&args.device)
        .map(Box::new)
        .map_err(|cause| Error::environment("--device", cause))
}

fn choice(args: &Args) -> Choice {
    match args.temperature {
        None => Choice::Greedy,
        Some(temperature) => Choice::Sample {
            temperature,
            top_p: args.top_p,
            top_k: args.top_k.map(|k| k as usize),
            rng: Rng::new(args.seed, "lm-gen sampling"),
        },
    }
}

/// One record to be written.
struct Unit {
    /// Index among the items.
    item: usize,
    attempt_index: u64,
    work: Work,
}

enum Work {
    Generate {
        ids: Vec<u32>,
        token_count_max: usize,
        stop: Vec<String>,
    },
    Choices(Vec<String>),
    Given(String),
    /// It cannot be run; in these words.
    Failed(String),
}

/// All records of the run, in order. Every prompt is tokenised before the weights are loaded, so that one that cannot be run is known now.
fn units(args: &Args, input: &Input, model: &Model, speech: &Speech<'_>) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    for (index, item) in input.items.iter().enumerate() {
        let work = work(args, item, model, speech);
        if let Work::Failed(cause) = &work
            && !args.keep_going
        {
            let bench = item
                .prompt
                .bench
                .as_deref()
                .map_or_else(String::new, |bench| format!(" of bench {bench:?}"));
            return Err(Error::input(format!("id {}{bench}", item.prompt.id), cause)
                .hint("--keep-going writes a record that says so"));
        }
        let attempts = if matches!(work, Work::Generate { .. }) {
            args.attempts
        } else {
            1
        };
        for attempt_index in 0..u64::from(attempts) {
            let work = match &work {
                Work::Generate {
                    ids,
                    token_count_max,
                    stop,
                } => Work::Generate {
                    ids: ids.clone(),
                    token_count_max: *token_count_max,
                    stop: stop.clone(),
                },
                Work::Choices(choices) => Work::Choices(choices.clone()),
                Work::Given(text) => Work::Given(text.clone()),
                Work::Failed(cause) => Work::Failed(cause.clone()),
            };
            units.push(Unit {
                item: index,
                attempt_index,
                work,
            });
        }
    }
    Ok(units)
}

fn work(args: &Args, item: &Item, model: &Model, speech: &Speech<'_>) -> Work {
    let room = model.config.position_count;
    let fits = |continuation: &str| match speech.ids_with(&item.prompt, continuation) {
        Ok((ids, start)) if ids.len() <= start => Err("a text to be scored adds no token to the prompt".to_string()),
        Ok((ids, _)) if ids.len() > room + 1 => Err(format!(
            "prompt and text are {} tokens, the model's limit is {room}",
            ids.len()
        )),
        Ok(_) => Ok(()),
        Err(cause) => Err(cause.to_string()),
    };
    if let Some(choices) = &item.prompt.choices {
        if choices.is_empty() {
            return Work::Failed("choices is empty".into());
        }
        return match choices.iter().try_for_each(|choice| fits(choice)) {
            Ok(()) => Work::Choices(choices.clone()),
            Err(cause) => Work::Failed(cause),
        };
    }
    if args.score {
        let given = item.given.clone().unwrap_or_default();
        return match fits(&given) {
            Ok(()) => Work::Given(given),
            Err(cause) => Work::Failed(cause),
        };
    }
    match speech.ids(&item.prompt) {
        Ok(ids) if ids.len() > room => Work::Failed(format!(
            "the prompt is {} tokens, the model's limit is {room}",
            ids.len()
        )),
        Ok(ids) => {
            let wanted = item.prompt.max_new_tokens.unwrap_or(args.max_new_tokens);
            if wanted == 0 {
                return Work::Failed("max_new_tokens is 0".into());
            }
            // The last token is written and not read.
            let token_count_max = (wanted as usize).min(room - ids.len() + 1);
            let mut stop = args.stop.clone();
            stop.extend(
                item.prompt
                    .stop
                    .clone()
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|stop| !stop.is_empty()),
            );
            Work::Generate {
                ids,
                token_count_max,
                stop,
            }
        }
        Err(cause) => Work::Failed(cause.to_string()),
    }
}

struct Run<'r> {
    args: &'r Args,
    model: &'r Model,
    speech: &'r Speech<'r>,
    engine: Engine<'r>,
    scorer: Scorer<'r>,
    /// Item and attempt of each record.
    orders: Vec<(usize, u64)>,
    items: &'r [Item],
}

impl Run<'_> {
    fn all(&mut self, units: Vec<Unit>, sink: &mut Sink, progress: &Progress) -> Result<()> {
        let mut queue: VecDeque<(u64, Unit)> = units
            .into_iter()
            .enumerate()
            .map(|(order, unit)| (order as u64, unit))
            .skip(sink.next as usize)
            .collect();
        loop {
            while self.engine.has_room()
                && let Some((order, unit)) = queue.pop_front()
            {
                process::signals::check()?;
                if let Some(completion) = self.begin(order, unit)? {
                    sink.take(order, completion, progress)?;
                }
            }
            if self.engine.in_flight() == 0 {
                return Ok(());
            }
            process::signals::check()?;
            for done in self.engine.step().at("--model")? {
                sink.take(done.order, self.generated(done), progress)?;
            }
        }
    }

    /// Starts a record; one that is done at once comes back.
    fn begin(&mut self, order: u64, unit: Unit) -> Result<Option<Completion>> {
        let item = &self.items[unit.item];
        match unit.work {
            Work::Generate {
                ids,
                token_count_max,
                stop,
            } => {
                let job = Job {
                    order,
                    ids,
                    token_count_max,
                    stop,
                    unit: (item.sample_index << 20) | unit.attempt_index,
                };
                let done = self.engine.admit(job).at(format!("id {}", item.prompt.id))?;
                Ok(done.map(|done| self.generated(done)))
            }
            Work::Choices(choices) => {
                let scores = self
                    .scorer
                    .score(self.speech, &item.prompt, &choices)
                    .at(format!("id {}", item.prompt.id))?;
                let mut completion = prompts::completion(item, &self.model.digest, 0);
                completion.choice_log_prob = Some(scores.iter().map(|score| score.log_prob).collect());
                completion.choice_token_count = Some(scores.iter().map(|score| score.tokens.len() as u64).collect());
                Ok(Some(completion))
            }
            Work::Given(text) => {
                let scores = self
                    .scorer
                    .score(self.speech, &item.prompt, &[text])
                    .at(format!("id {}", item.prompt.id))?;
                let score = &scores[0];
                let mut completion = prompts::completion(item, &self.model.digest, 0);
                completion.log_prob = Some(score.log_prob);
                completion.token_count = Some(score.tokens.len() as u64);
                if self.args.per_token {
                    completion.token_log_prob = Some(score.tokens.clone());
                }
                Ok(Some(completion))
            }
            Work::Failed(cause) => {
                let mut completion = prompts::completion(item, &self.model.digest, unit.attempt_index);
                completion.finish = Some(Finish::Error);
                completion.error = Some(cause);
                Ok(Some(completion))
            }
        }
    }

    fn generated(&self, done: Done) -> Completion {
        let (item, attempt_index) = self.orders[done.order as usize];
        let mut completion = prompts::completion(&self.items[item], &self.model.digest, attempt_index);
        completion.completion = Some(done.text);
        completion.token_count = Some(done.token_count);
        completion.finish = Some(done.finish);
        completion
    }
}

/// Puts completions back into the order of the input.
struct Sink {
    writer: Writer<Ledger>,
    /// Done, but not their turn.
    waiting: BTreeMap<u64, Completion>,
    next: u64,
    is_partial: bool,
    token_count: u64,
}

impl Sink {
    fn take(&mut self, order: u64, completion: Completion, progress: &Progress) -> Result<()> {
        self.waiting.insert(order, completion);
        while let Some(completion) = self.waiting.remove(&self.next) {
            self.is_partial |= completion.finish == Some(Finish::Error);
            self.token_count += completion.token_count.unwrap_or(0);
            self.writer.row(&completion).at("output")?;
            self.next += 1;
            progress.advance(1);
        }
        Ok(())
    }
}

/// The output and its journal: a record that was handed on whole is marked.
struct Ledger {
    output: Output,
    journal: Option<Journal>,
    /// Bytes so far.
    end: u64,
}

impl Write for Ledger {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.output.write_all(line)?;
        self.end += line.len() as u64;
        if let Some(journal) = &mut self.journal
            && line.starts_with(br#"{"type":"completion""#)
        {
            // The line reaches the file before its mark does.
            self.output.flush()?;
            journal
                .mark(&Mark {
                    end: self.end,
                    digest: process::sha256(line),
                })
                .map_err(|cause| io::Error::other(cause.to_string()))?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
