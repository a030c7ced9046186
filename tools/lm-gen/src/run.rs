//! The run: records in order, sequences in flight, one line at a time into the partial file.

use std::borrow::Cow;
use std::collections::VecDeque;

use model::{Config, Steering};
use process::{Error, Manifest, Outcome, Progress, Result, ResultExt, Shard};
use records::{Begin, Completion, Finish, Writer};
use serde::Serialize;

use crate::cli::Args;
use crate::decode::{Done, Engine, Job, Second, Speaker};
use crate::merge;
use crate::output::Sink;
use crate::plan::{Opened, Plan};
use crate::prefix;
use crate::prompts::{self, Item, Speech};
use crate::report::BeginKeys;
use crate::resume::{self, Wanted};
use crate::sample::Choice;
use crate::score::{Score, Scorer};
use crate::units::{Unit, Work, units};

/// What a journal belongs to.
#[derive(Serialize)]
struct Journaled<'p> {
    #[serde(flatten)]
    plan: &'p Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<&'p str>,
}

pub fn run(args: Args) -> Result<Outcome> {
    if args.merge {
        return merge::run(&args);
    }
    // a token is hundreds of short products
    process::on_a_worker(|| generate(&args))
}

fn generate(args: &Args) -> Result<Outcome> {
    let (plan, opened) = Plan::new(args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let target = &opened.target;
    let begin = Begin::new(process::tool_name(), process::VERSION).plan_digest(process::plan::digest(&plan)?);
    let keys = begin_keys(&plan, opened.shard);
    let begin_line = begin_line(&begin, &keys)?;
    let wanted = Wanted {
        begin_line: &begin_line,
        mixed: target.mixed,
    };
    if target.existing == process::Existing::Resume && resume::is_finished(&target.path, wanted)? {
        process::Journal::clear(&target.path)?;
        return Ok(Outcome::Complete);
    }
    process::check_target(&target.path, target.existing, &target.inputs)?;

    let speech = Speech {
        tokenizer: &opened.tokenizer,
        template: opened.template.as_ref(),
        system: plan.system.as_deref(),
        slot: opened.slot.as_ref(),
    };
    let units = units(&plan, &opened, &speech)?;
    let mut manifest = Manifest::start();
    let journaled = Journaled {
        plan: &plan,
        shard: keys.shard.as_deref(),
    };
    let start = resume::open(target, &journaled, wanted)?;
    let decoder = opened.checkpoint.load().at("--model")?;
    let amateur = opened
        .amateur
        .as_ref()
        .map(|amateur| amateur.load().at("--contrast"))
        .transpose()?;
    let unsteered = Steering::new(decoder.config(), decoder.device());
    let speaker = Speaker {
        decoder: &decoder,
        steering: &opened.steering,
    };
    let second = plan.contrast.as_ref().map(|contrast| Second {
        rule: contrast.rule,
        speaker: amateur.as_ref().map_or(speaker, |amateur| Speaker {
            decoder: amateur,
            steering: &unsteered,
        }),
    });
    let mut sink = Sink::open(start, &begin, &keys, opened.input.status)?;
    let progress = Progress::start(&args.common, "generating", Some(units.len() as u64), "completions");
    progress.resume(sink.done_count());
    let mut run = Run::new(&plan, &opened, &speech, (speaker, second), &units);
    run.all(units, &mut sink, &progress)?;
    let spared_count = run.engine.spared_count() + run.scorer.spared_count();
    progress.finish();

    let written = sink.end()?;
    manifest.note("new_token_count", written.token_count)?;
    manifest.note("spared_token_count", spared_count)?;
    let is_file = written.ledger.is_file();
    written.ledger.commit()?;
    if is_file {
        manifest.write(&target.path, &plan)?;
    }
    Ok(Outcome::partial_if(written.is_partial))
}

/// Sequences in flight where none are asked for. A product over many costs less than many products, so: as many as keep their
/// caches within bounds. Never one, which sums in another order.
fn within_memory(units: &[Unit], config: &Config) -> usize {
    const CACHE_BYTES_MAX: usize = 1 << 30;
    const MOST: usize = 32;
    let token_count = |unit: &Unit| match &unit.work {
        Work::Generate {
            ids, token_count_max, ..
        } => ids.len() + token_count_max,
        _ => 0,
    };
    let longest = units.iter().map(token_count).max().unwrap_or(0).max(1);
    let token_bytes = 2 * config.layer_count() * config.kv_size() * size_of::<f32>();
    (CACHE_BYTES_MAX / longest.saturating_mul(token_bytes)).clamp(2, MOST)
}

fn begin_keys(plan: &Plan, shard: Shard) -> BeginKeys {
    BeginKeys {
        model_digest: plan.model_digest.clone(),
        input_digest: plan.input_digest.clone(),
        shard: (shard != Shard::WHOLE).then(|| format!("{}/{}", shard.index, shard.count)),
        compute: plan.compute.clone(),
    }
}

fn begin_line(begin: &Begin, keys: &BeginKeys) -> Result<String> {
    let mut writer = Writer::new(Vec::new());
    writer.begin(begin, keys).at("output")?;
    String::from_utf8(writer.into_output().at("output")?).map_err(|cause| Error::bug("begin", cause))
}

struct Run<'r> {
    plan: &'r Plan,
    speech: &'r Speech<'r>,
    engine: Engine<'r>,
    scorer: Scorer<'r>,
    /// Whether prompts that begin alike are read from there on.
    shares: bool,
    /// Item and attempt of each record.
    orders: Vec<(usize, u64)>,
    items: &'r [Item],
}

impl<'r> Run<'r> {
    fn new(
        plan: &'r Plan,
        opened: &'r Opened,
        speech: &'r Speech<'r>,
        (first, second): (Speaker<'r>, Option<Second<'r>>),
        units: &[Unit],
    ) -> Run<'r> {
        let choice = Choice::new(plan.sampling.as_ref());
        let ends = plan.end_token_ids.clone();
        let capacity = opened
            .capacity
            .unwrap_or_else(|| within_memory(units, first.decoder.config()));
        Run {
            plan,
            speech,
            engine: Engine::new(first, second, &opened.tokenizer, choice, ends, capacity),
            scorer: Scorer::new(first.decoder, first.steering),
            shares: second.is_none() && prefix::is_allowed(first.decoder, first.steering),
            orders: units.iter().map(|unit| (unit.item, unit.attempt_index)).collect(),
            items: &opened.input.items,
        }
    }

    fn all(&mut self, units: Vec<Unit>, sink: &mut Sink, progress: &Progress) -> Result<()> {
        let mut queue: VecDeque<(u64, Unit)> = units
            .into_iter()
            .enumerate()
            .map(|(order, unit)| (order as u64, unit))
            .skip(sink.done_count() as usize)
            .collect();
        loop {
            while self.engine.has_room()
                && let Some((order, unit)) = queue.pop_front()
            {
                process::signals::check()?;
                let ahead = self.ahead(&unit, queue.front().map(|(_, next)| next))?;
                if let Some(completion) = self.begin(order, unit, ahead)? {
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

    /// How many tokens of a prompt the next one begins with too.
    fn ahead(&self, unit: &Unit, next: Option<&Unit>) -> Result<usize> {
        let Some(next) = next.filter(|_| self.shares) else {
            return Ok(0);
        };
        let both = self.prompt_ids(unit)?.zip(self.prompt_ids(next)?);
        Ok(both.map_or(0, |(one, next)| prefix::shared(&one, &next)))
    }

    fn prompt_ids<'u>(&self, unit: &'u Unit) -> Result<Option<Cow<'u, [u32]>>> {
        let prompt = &self.items[unit.item].prompt;
        match &unit.work {
            Work::Generate { ids, .. } => Ok(Some(Cow::Borrowed(ids))),
            Work::Choices(_) | Work::Given(_) => {
                let ids = self.speech.ids(prompt).at(format!("id {}", prompt.id))?;
                Ok(Some(Cow::Owned(ids)))
            }
            Work::Failed(_) => Ok(None),
        }
    }

    /// Starts a record; one that is done at once comes back.
    fn begin(&mut self, order: u64, unit: Unit, ahead: usize) -> Result<Option<Completion>> {
        let item = &self.items[unit.item];
        let mut completion = self.completion(unit.item, unit.attempt_index);
        match unit.work {
            Work::Generate {
                ids,
                second_ids,
                token_count_max,
                stop,
            } => {
                let job = Job {
                    order,
                    ids,
                    second_ids,
                    ahead,
                    token_count_max,
                    stop,
                    unit: (item.sample_index << 20) | unit.attempt_index,
                };
                let done = self.engine.admit(job).at(format!("id {}", item.prompt.id))?;
                return Ok(done.map(|done| self.generated(done)));
            }
            Work::Choices(choices) => {
                let scores = self.scores(item, &choices, ahead)?;
                completion.choice_log_prob = Some(scores.iter().map(|score| score.log_prob).collect());
                completion.choice_token_count = Some(scores.iter().map(|score| score.tokens.len() as u64).collect());
            }
            Work::Given(text) => {
                let score = self.scores(item, std::slice::from_ref(&text), ahead)?.remove(0);
                completion.completion = Some(text);
                completion.log_prob = Some(score.log_prob);
                completion.token_count = Some(score.tokens.len() as u64);
                if self.plan.per_token {
                    completion.token_log_prob = Some(score.tokens);
                }
            }
            Work::Failed(cause) => {
                completion.finish = Some(Finish::Error);
                completion.error = Some(cause);
            }
        }
        Ok(Some(completion))
    }

    fn scores(&mut self, item: &Item, texts: &[String], ahead: usize) -> Result<Vec<Score>> {
        self.scorer
            .score(self.speech, &item.prompt, texts, ahead)
            .at(format!("id {}", item.prompt.id))
    }

    fn generated(&self, done: Done) -> Completion {
        let (item, attempt_index) = self.orders[done.order as usize];
        let mut completion = self.completion(item, attempt_index);
        completion.completion = Some(done.text);
        completion.token_count = Some(done.token_count);
        completion.finish = Some(done.finish);
        completion
    }

    fn completion(&self, item: usize, attempt_index: u64) -> Completion {
        prompts::completion(&self.items[item], &self.plan.model_digest, attempt_index)
    }
}
