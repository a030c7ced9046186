//! Datasets to prepared samples: a reader cuts the inputs into blocks, workers parse and tokenise them, and the blocks come back in
//! input order whatever the number of workers.
//!
//! Plain JSON lines are only cut here, wherever they come from, and parsed by the workers; every other form is parsed by the reader.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use process::{Error, Result, ResultExt, Shard};
use records::dataset::{self, Blocks, Dataset, Example, Options, Row, Schema, Source};
use serde_json::Value;

use crate::cli::{Turns, View};
use crate::corpus::{LossShare, Score};
use crate::loss::LossCounter;
use crate::measure::view_name;
use crate::plan::{Budget, CorpusPlan, GROUP_BY_FILE, Reading};
use crate::refusals::is_refusal;
use crate::tokens::{Tokenizer, Worker};

/// A block of rows ends with the row that reaches either bound.
const BLOCK_BYTES: usize = 512 << 10;
const BLOCK_ROWS: usize = 2048;

/// Rows of one input, in order.
struct Block {
    sequence: u64,
    input: usize,
    /// Number of the first row in the whole input.
    first_row: u64,
    content: Content,
}

enum Content {
    Lines(dataset::Block),
    Rows(Vec<Row>),
    /// A row, or a whole input, that could not be read.
    Fault(Error),
}

/// What a block became.
pub struct Batch {
    pub rows: Vec<PreparedRow>,
    /// Texts and tokens of all samples, one after another.
    pub text: String,
    pub tokens: Vec<u32>,
}

pub struct PreparedRow {
    pub input: usize,
    pub index: u64,
    /// Absent where nothing was recognised.
    pub schema: Option<Schema>,
    pub outcome: std::result::Result<Prepared, Refusal>,
}

/// Why a row cannot be used.
pub struct Refusal {
    pub error: Error,
    /// Only the shard that the row belongs to found out; otherwise every shard did.
    pub is_own: bool,
}

impl Refusal {
    fn by_all(error: Error) -> Self {
        Self { error, is_own: false }
    }
}

pub struct Prepared {
    pub group: String,
    pub id: Option<String>,
    pub score: Option<Score>,
    pub loss: Option<LossShare>,
    pub samples: Vec<Span>,
    /// The row belongs to another shard.
    pub is_foreign: bool,
}

/// One sample in its batch: how much of the text and the tokens is its.
pub struct Span {
    pub text_len: usize,
    pub token_count: usize,
}

/// Everything the workers share.
pub struct Shared {
    pub tokenizer: Tokenizer,
    plan: CorpusPlan,
    shard: Shard,
    inputs: Vec<PathBuf>,
    options: Options,
    loss: Option<LossCounter>,
    /// The group of each input under `@file`.
    labels: Vec<String>,
}

impl Shared {
    pub fn new(reading: &Reading, shard: Shard) -> Result<Self> {
        let mut fields: Vec<String> = Example::KEYS.iter().map(|&key| key.to_owned()).collect();
        fields.extend(["id", "log_prob", "token_count"].map(str::to_owned));
        fields.extend(reading.corpus.field.clone());
        fields.extend(reading.corpus.group.clone());
        Ok(Self {
            tokenizer: Tokenizer::load(&reading.tokens, reading.corpus.tokens.fold)?,
            plan: reading.corpus.clone(),
            shard,
            inputs: reading.inputs.clone(),
            options: Options::new()
                .format(reading.input_format)
                .fields(&fields)
                .accept_partial(reading.corpus.keep_going)
                .go_on(reading.corpus.keep_going),
            loss: reading.template.as_deref().map(LossCounter::open).transpose()?,
            labels: reading.inputs.iter().map(|path| label(path)).collect(),
        })
    }

    pub fn input_name(&self, input: usize) -> String {
        name_of(&self.inputs[input])
    }
}

fn name_of(path: &Path) -> String {
    if path.as_os_str() == "-" {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    }
}

/// The file name without directories and extensions.
fn label(path: &Path) -> String {
    let name = path
        .file_name()
        .map_or_else(|| "stdin".to_owned(), |name| name.to_string_lossy().into_owned());
    let name = if name == "-" { "stdin".to_owned() } else { name };
    match name.find('.') {
        Some(dot) if dot > 0 => name[..dot].to_owned(),
        _ => name,
    }
}

/// Starts a thread that gives the number of rows it read.
fn start(work: impl FnOnce() -> u64 + Send + 'static) -> Result<JoinHandle<u64>> {
    thread::Builder::new().spawn(work).at("a thread")
}

/// Reads all inputs and hands their batches to `absorb` in input order. Gives the shared state back, and the number of rows read.
pub fn read(
    shared: Shared,
    budget: Budget,
    mut absorb: impl FnMut(&Shared, Batch) -> Result<()>,
) -> Result<(Shared, u64)> {
    let shared = Arc::new(shared);
    let window = 2 * budget.threads + 2;
    // A permit is taken for every block that is read and given back when it is absorbed: so no worker runs far ahead of another.
    let (permits, permits_back) = sync_channel::<()>(window);
    let (blocks, blocks_out) = channel::<Block>();
    let (batches, batches_out) = channel::<(u64, Batch)>();
    let blocks_out = Arc::new(Mutex::new(blocks_out));
    let mut threads = Vec::new();
    {
        let shared = shared.clone();
        threads.push(start(move || {
            let mut reader = Reader {
                shared: &shared,
                permits,
                blocks,
                sequence: 0,
                row_count: 0,
            };
            reader.run();
            reader.row_count
        })?);
    }
    for _ in 0..budget.threads {
        let (shared, blocks_out, batches) = (shared.clone(), blocks_out.clone(), batches.clone());
        threads.push(start(move || {
            work(&shared, &blocks_out, &batches, budget.cache_bytes);
            0
        })?);
    }
    drop((batches, blocks_out));

    let mut next = 0;
    let mut early: BTreeMap<u64, Batch> = BTreeMap::new();
    for (sequence, batch) in batches_out {
        early.insert(sequence, batch);
        while let Some(batch) = early.remove(&next) {
            process::signals::check()?;
            absorb(&shared, batch)?;
            next += 1;
            // The reader may have ended already.
            let _ = permits_back.recv();
        }
    }
    let mut row_count = 0;
    for thread in threads {
        row_count += thread
            .join()
            .map_err(|_| Error::bug("reading", "a thread of it panicked"))?;
    }
    let shared = Arc::into_inner(shared).ok_or_else(|| Error::bug("reading", "a thread of it still runs"))?;
    Ok((shared, row_count))
}

struct Reader<'a> {
    shared: &'a Shared,
    permits: SyncSender<()>,
    blocks: Sender<Block>,
    sequence: u64,
    row_count: u64,
}

/// The other side is gone: whoever took it knows why.
struct Stopped;

impl Reader<'_> {
    fn run(&mut self) {
        for input in 0..self.shared.inputs.len() {
            if self.rows_left() == 0 || self.read_input(input).is_err() {
                return;
            }
        }
    }

    fn rows_left(&self) -> u64 {
        self.shared.plan.limit.map_or(u64::MAX, |limit| limit - self.row_count)
    }

    fn send(&mut self, input: usize, first_row: u64, content: Content) -> std::result::Result<(), Stopped> {
        self.permits.send(()).map_err(|_| Stopped)?;
        let block = Block {
            sequence: self.sequence,
            input,
            first_row,
            content,
        };
        self.sequence += 1;
        self.blocks.send(block).map_err(|_| Stopped)
    }

    /// `is_last`: nothing more can be had of this input.
    fn send_fault(&mut self, input: usize, fault: records::Error, is_last: bool) -> std::result::Result<(), Stopped> {
        let name = self.shared.input_name(input);
        let mut error = Err::<(), _>(fault).at(name).expect_err("made of an error");
        if is_last && self.shared.plan.keep_going {
            error = error.hint("what follows in this input was not read");
        }
        let row = self.row_count;
        self.row_count += 1;
        self.send(input, row, Content::Fault(error))
    }

    fn read_input(&mut self, input: usize) -> std::result::Result<(), Stopped> {
        match self.shared.options.open_source(&self.shared.inputs[input]) {
            Ok(Source::Lines(blocks)) => self.read_lines(input, blocks),
            Ok(Source::Rows(dataset)) => self.read_rows(input, dataset),
            Err(fault) => self.send_fault(input, fault, true),
        }
    }

    fn read_lines(&mut self, input: usize, mut blocks: Blocks) -> std::result::Result<(), Stopped> {
        loop {
            let rows_before = blocks.row_count();
            match blocks.next_block(self.rows_left()) {
                Ok(None) => return Ok(()),
                Ok(Some(block)) => {
                    let first_row = self.row_count;
                    self.row_count += block.row_count();
                    self.send(input, first_row, Content::Lines(block))?;
                }
                // A line that was gone past is a row; what ends the input is none.
                Err(fault) => self.send_fault(input, fault, blocks.row_count() == rows_before)?,
            }
        }
    }

    fn read_rows(&mut self, input: usize, mut dataset: Dataset) -> std::result::Result<(), Stopped> {
        let (mut rows, mut bytes, mut first_row) = (Vec::new(), 0, self.row_count);
        while self.rows_left() > 0
            && let Some(row) = dataset.next()
        {
            let fault = match row {
                Ok(row) => {
                    bytes += row.value.values().map(text_bytes).sum::<usize>();
                    rows.push(row);
                    self.row_count += 1;
                    None
                }
                Err(fault) => Some(fault),
            };
            if fault.is_some() || bytes >= BLOCK_BYTES || rows.len() >= BLOCK_ROWS {
                if !rows.is_empty() {
                    self.send(input, first_row, Content::Rows(std::mem::take(&mut rows)))?;
                }
                if let Some(fault) = fault {
                    self.send_fault(input, fault, dataset.is_done())?;
                }
                (bytes, first_row) = (0, self.row_count);
            }
        }
        if !rows.is_empty() {
            self.send(input, first_row, Content::Rows(rows))?;
        }
        Ok(())
    }
}

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(text_bytes).sum(),
        Value::Object(map) => map.values().map(text_bytes).sum(),
        _ => 8,
    }
}

fn work(shared: &Shared, blocks: &Mutex<Receiver<Block>>, batches: &Sender<(u64, Batch)>, cache_bytes: usize) {
    let mut worker = shared.tokenizer.worker(cache_bytes);
    loop {
        let received = blocks.lock().expect("no holder panics").recv();
        let Ok(block) = received else { return };
        let sequence = block.sequence;
        let batch = prepare(shared, &mut worker, block);
        if batches.send((sequence, batch)).is_err() {
            return;
        }
    }
}

fn prepare(shared: &Shared, worker: &mut Worker, block: Block) -> Batch {
    let mut batch = Batch {
        rows: Vec::new(),
        text: String::new(),
        tokens: Vec::new(),
    };
    let (input, block_first_row) = (block.input, block.first_row);
    match block.content {
        Content::Fault(error) => batch.rows.push(PreparedRow {
            input,
            index: block_first_row,
            schema: None,
            outcome: Err(Refusal::by_all(error)),
        }),
        Content::Rows(rows) => {
            for (row, index) in rows.into_iter().zip(block_first_row..) {
                prepare_row(shared, worker, input, index, &row, &mut batch);
            }
        }
        Content::Lines(block) => {
            for (row, index) in block.rows().zip(block_first_row..) {
                match row {
                    Ok(row) => prepare_row(shared, worker, input, index, &row, &mut batch),
                    Err(fault) => batch.rows.push(PreparedRow {
                        input,
                        index,
                        schema: None,
                        outcome: Err(fault).at(shared.input_name(input)).map_err(Refusal::by_all),
                    }),
                }
            }
        }
    }
    batch
}

fn prepare_row(shared: &Shared, worker: &mut Worker, input: usize, index: u64, row: &Row, batch: &mut Batch) {
    let (text_len, token_len) = (batch.text.len(), batch.tokens.len());
    let (mut schema, mut is_own) = (None, false);
    let outcome = Example::recognise(row, shared.plan.field.as_deref()).and_then(|example| {
        schema = Some(example.schema);
        let (mut prepared, texts) = check(shared, input, row, &example)?;
        if !prepared.is_foreign {
            is_own = true;
            tokenize(shared, worker, row, &example, &texts, &mut prepared, batch)?;
        }
        Ok(prepared)
    });
    if outcome.is_err() {
        batch.text.truncate(text_len);
        batch.tokens.truncate(token_len);
    }
    let outcome = outcome
        .at(shared.input_name(input))
        .map_err(|error| Refusal { error, is_own });
    batch.rows.push(PreparedRow {
        input,
        index,
        schema,
        outcome,
    });
}

/// All that can be said of a row without its tokens: the same in every shard, so that all of them refuse the same rows.
fn check<'e>(
    shared: &Shared,
    input: usize,
    row: &Row,
    example: &'e Example,
) -> records::Result<(Prepared, Vec<&'e str>)> {
    let plan = &shared.plan;
    let completion = example.completion().or(example.text.as_deref());
    let prompt = example.prompt();
    let mut group = match plan.group.as_deref() {
        None => String::new(),
        Some(GROUP_BY_FILE) => shared.labels[input].clone(),
        Some(field) => row.group(field)?,
    };
    if plan.refusals {
        let refuses = completion.is_some_and(is_refusal);
        group = refusal_groups(&group)[usize::from(!refuses)].clone();
    }
    let id = if row.value.contains_key("id") {
        Some(row.id()?).filter(|id| !id.starts_with('#'))
    } else {
        None
    };
    let texts = texts_of(example, completion, prompt, plan);
    let is_complete = match plan.view {
        View::Both => example.text.is_none() && prompt.is_some() && completion.is_some(),
        View::Completion | View::Prompt => !texts.is_empty(),
    };
    if !is_complete {
        return Err(row.refuse(format!("has no {}", view_name(plan.view))));
    }
    if texts.iter().any(|text| text.trim().is_empty()) {
        return Err(row.refuse(format!("its {} is empty", view_name(plan.view))));
    }
    if shared.loss.is_some() && example.messages.is_empty() {
        return Err(row.refuse("has no turns to render with --template"));
    }
    let score = score_of(row)?;
    let is_foreign = if shared.shard == Shard::WHOLE {
        false
    } else {
        let digest = records::text_digest(prompt.or(completion).unwrap_or_default());
        let bucket = records::bucket(&digest).ok_or_else(|| row.refuse("has no bucket"))?;
        !shared.shard.owns(bucket)
    };
    let prepared = Prepared {
        group,
        id,
        score,
        loss: None,
        samples: Vec::new(),
        is_foreign,
    };
    Ok((prepared, texts))
}

fn tokenize(
    shared: &Shared,
    worker: &mut Worker,
    row: &Row,
    example: &Example,
    texts: &[&str],
    prepared: &mut Prepared,
    batch: &mut Batch,
) -> records::Result<()> {
    for text in texts {
        let token_start = batch.tokens.len();
        worker
            .append(text, &mut batch.tokens)
            .map_err(|cause| row.refuse(format!("cannot be tokenised: {cause}")))?;
        batch.text.push_str(text);
        prepared.samples.push(Span {
            text_len: text.len(),
            token_count: batch.tokens.len() - token_start,
        });
    }
    if let Some(counter) = &shared.loss {
        prepared.loss = Some(counter.count(&example.messages).map_err(|cause| row.refuse(cause))?);
    }
    Ok(())
}

/// The texts of a row that are samples, in the order of the conversation.
fn texts_of<'e>(
    example: &'e Example,
    completion: Option<&'e str>,
    prompt: Option<&'e str>,
    plan: &CorpusPlan,
) -> Vec<&'e str> {
    let wanted = |role: &str| match plan.view {
        View::Completion => role == "assistant",
        View::Prompt => role == "user",
        View::Both => role == "assistant" || role == "user",
    };
    if plan.turns == Turns::All && !example.messages.is_empty() {
        return example
            .messages
            .iter()
            .filter(|message| wanted(&message.role))
            .map(|message| message.content.as_str())
            .collect();
    }
    match plan.view {
        View::Completion => completion.into_iter().collect(),
        View::Prompt => prompt.into_iter().collect(),
        View::Both => prompt.into_iter().chain(completion).collect(),
    }
}

/// What `lm-gen` says of a completion it was given: `log_prob` over `token_count` tokens.
fn score_of(row: &Row) -> records::Result<Option<Score>> {
    let Some(log_prob) = row.value.get("log_prob") else {
        return Ok(None);
    };
    let log_prob_nats = log_prob
        .as_f64()
        .ok_or_else(|| row.refuse("log_prob is not a number"))?;
    let token_count = row
        .value
        .get("token_count")
        .and_then(Value::as_u64)
        .filter(|&count| count > 0);
    let token_count = token_count.ok_or_else(|| row.refuse("has log_prob but no positive token_count"))?;
    if log_prob_nats > 0.0 {
        return Err(row.refuse(format!("log_prob is {log_prob_nats}, a log-probability is at most 0")));
    }
    Ok(Some(Score {
        log_prob_nats,
        token_count,
    }))
}

/// The two halves of a group under `--refusals`: refusals, and the rest.
pub fn refusal_groups(group: &str) -> [String; 2] {
    ["refusal", "rest"].map(|half| {
        if group.is_empty() {
            half.to_owned()
        } else {
            format!("{group}/{half}")
        }
    })
}
