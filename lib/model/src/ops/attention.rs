//! Causal attention over packed sequences.
//!
//! On the CPU one task owns one sequence and one key head, walks its queries in blocks, and multiplies only the keys that
//! a block can see; no padded or masked product is ever formed, and scores exist for one block at a time. The backward
//! pass keeps one number per query and head (the log of its sum of exponentials) and computes the scores again.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{D, DType, Device, Error, Result, Tensor};
use products::{ArrayView2, Product, Target, matrix, strided, strided_mut, wide};
use rayon::prelude::*;

use super::{Tape, composed, cpu, simd};

/// Queries per block of scores.
const BLOCK: usize = 64;

/// Which keys up to its own position a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many.
    Sliding(usize),
    /// Those of the stretch of so many positions in which its own lies (Llama 4).
    Chunk(usize),
}

/// What attention needs besides queries, keys and values.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Multiplies q·k before anything else.
    pub scale: f32,
    /// `cap · tanh(score / cap)`, Gemma 2.
    pub softcap: Option<f32>,
    pub window: Option<Window>,
    /// For each head a score that takes its share of the softmax and mixes no value (gpt-oss): (heads).
    pub sinks: Option<Tensor>,
}

impl Attention {
    /// The keys that the query at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        let first = match self.window {
            None => 0,
            Some(Window::Sliding(length)) => (position + 1).saturating_sub(length),
            Some(Window::Chunk(length)) => position / length * length,
        };
        first..position + 1
    }

    /// The sink of every head; nothing where there are none.
    fn sink_values(&self) -> Result<Vec<f32>> {
        match &self.sinks {
            None => Ok(Vec::new()),
            Some(sinks) => Ok(cpu::view(&*cpu::wide(sinks)?)?.to_vec()),
        }
    }
}

/// Causal attention of each packed sequence over itself; q (rows, heads, head_dim), k and v (rows, kv_heads, head_dim)
/// → (rows, heads, head_dim). Query head h reads key head h / (heads / kv_heads).
pub fn attention(
    tape: &Tape,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    offsets: &[usize],
    how: &Attention,
) -> Result<Tensor> {
    let shape = Heads::of(q, k, v, how)?;
    if offsets.last() != Some(&shape.rows) || k.dim(0)? != shape.rows {
        return Err(Error::Msg(format!(
            "attention over {} rows with offsets {offsets:?}",
            shape.rows
        )));
    }
    let inputs: Vec<&Tensor> = [q, k, v].into_iter().chain(&how.sinks).collect();
    let how = how.clone();
    if !cpu::is_host(q) {
        let offsets = offsets.to_vec();
        return composed(tape, "attention", &inputs, move |inputs| {
            packed_by_candle(inputs, &offsets, &how)
        });
    }
    let (wide_q, wide_k, wide_v) = (cpu::wide(q)?, cpu::wide(k)?, cpu::wide(v)?);
    let (key_values, value_values) = (cpu::view(&wide_k)?, cpu::view(&wide_v)?);
    let sequences = sequences(offsets, &key_values, &value_values, shape);
    let recording = tape.tracks_any(&inputs);
    let forward = forward(&cpu::view(&wide_q)?, &sequences, shape, &how, recording)?;
    if tape.observes() {
        tape.note_logit(forward.logit_max);
    }
    let output = cpu::tensor(forward.output, (shape.rows, shape.heads, shape.value_dim), q.dtype())?;
    if recording {
        let inputs = [q, k, v].map(Tensor::clone);
        let (offsets, result, lse) = (offsets.to_vec(), output.clone(), forward.lse);
        tape.record("attention", &output, move |gradient, backward| {
            let gradients = pull(&inputs, &result, &gradient, &lse, &offsets, shape, &how)?;
            for (input, gradient) in inputs.iter().zip(gradients) {
                backward.send(input, cpu::tensor(gradient, input.shape(), input.dtype())?)?;
            }
            if let Some(sinks) = how.sinks.as_ref().filter(|sinks| backward.wants(*sinks)) {
                let gradient = pull_sinks(&how.sink_values()?, &result, &gradient, &lse, shape)?;
                backward.send(sinks, cpu::tensor(gradient, sinks.shape(), DType::F32)?)?;
            }
            Ok(())
        });
    }
    Ok(output)
}

/// Attention of packed queries over cached keys: sequence i's queries are its last rows, and `keys[i]`, `values[i]`
/// (length_i, kv_heads, head_dim) hold its whole past and those rows. Forward only.
pub fn attention_cached(
    q: &Tensor,
    keys: &[Tensor],
    values: &[Tensor],
    offsets: &[usize],
    how: &Attention,
) -> Result<Tensor> {
    let (Some(first_key), Some(first_value)) = (keys.first(), values.first()) else {
        return Err(Error::Msg("attention over no sequence".into()));
    };
    let shape = Heads::of(q, first_key, first_value, how)?;
    if offsets.last() != Some(&shape.rows) || offsets.len() != keys.len() + 1 || keys.len() != values.len() {
        return Err(Error::Msg(format!(
            "attention over {} rows with offsets {offsets:?}",
            shape.rows
        )));
    }
    if !cpu::is_host(q) {
        let mut outputs = Vec::with_capacity(keys.len());
        for (pair, (k, v)) in offsets.windows(2).zip(keys.iter().zip(values)) {
            let q = q.narrow(0, pair[0], pair[1] - pair[0])?;
            outputs.push(attend_by_candle(&q, k, v, how.sinks.as_ref(), how)?);
        }
        return Tensor::cat(&outputs, 0);
    }
    let wide_q = cpu::wide(q)?;
    let (wide_keys, wide_values) = (all_wide(keys)?, all_wide(values)?);
    let (key_views, value_views) = (all_viewed(&wide_keys)?, all_viewed(&wide_values)?);
    let sequences = continued(offsets, &key_views, &value_views, shape)?;
    let forward = forward(&cpu::view(&wide_q)?, &sequences, shape, how, false)?;
    cpu::tensor(forward.output, (shape.rows, shape.heads, shape.value_dim), q.dtype())
}

/// Of each query and head the largest score among the keys that it sees, (rows, heads) in f32: scaled and capped, as softmax reads
/// them. `keys` are those of [`attention_cached`]. Forward only.
pub fn largest_scores(q: &Tensor, keys: &[Tensor], offsets: &[usize], how: &Attention) -> Result<Tensor> {
    let first = keys.first();
    let first = first.ok_or_else(|| Error::Msg("scores over no sequence".into()))?;
    let shape = Heads::of(q, first, first, how)?;
    if !cpu::is_host(q) {
        let pairs = offsets.windows(2).zip(keys);
        let largest = pairs.map(|(pair, k)| largest_by_candle(&q.narrow(0, pair[0], pair[1] - pair[0])?, k, how));
        return Tensor::cat(&largest.collect::<Result<Vec<_>>>()?, 0);
    }
    let (wide_q, wide_keys) = (cpu::wide(q)?, all_wide(keys)?);
    let (q, keys) = (cpu::view(&wide_q)?, all_viewed(&wide_keys)?);
    let sequences = continued(offsets, &keys, &keys, shape)?; // scores read no values
    let mut largest = vec![0.0; shape.rows * shape.heads];
    let target = Target::new(&mut largest, shape.heads);
    heads(&q, &sequences, shape, how, &[]) // a sink is no token's score
        .par_iter()
        // SAFETY: each task writes the numbers of its own sequence's rows and its own head.
        .for_each_init(Vec::new, |scores, head| unsafe { head.largest(scores, target) });
    cpu::tensor(largest, (shape.rows, shape.heads), DType::F32)
}

#[derive(Clone, Copy)]
struct Heads {
    rows: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    value_dim: usize,
}

impl Heads {
    fn of(q: &Tensor, k: &Tensor, v: &Tensor, how: &Attention) -> Result<Self> {
        let (rows, heads, head_dim) = q.dims3()?;
        let (length, kv_heads, key_dim) = k.dims3()?;
        let (value_length, value_heads, value_dim) = v.dims3()?;
        if let Some(sinks) = how.sinks.as_ref().filter(|sinks| sinks.dims() != [heads]) {
            return Err(Error::Msg(format!("sinks {:?} of {heads} heads", sinks.shape())));
        }
        if key_dim != head_dim || value_heads != kv_heads || length != value_length || heads % kv_heads != 0 {
            return Err(Error::Msg(format!(
                "attention of {:?} over {:?}, {:?}",
                q.shape(),
                k.shape(),
                v.shape()
            )));
        }
        Ok(Self {
            rows,
            heads,
            kv_heads,
            head_dim,
            value_dim,
        })
    }

    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    fn query_stride(self) -> usize {
        self.heads * self.head_dim
    }

    fn output_stride(self) -> usize {
        self.heads * self.value_dim
    }

    fn key_stride(self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn value_stride(self) -> usize {
        self.kv_heads * self.value_dim
    }
}

/// One sequence's place in the packed rows, and its keys and values from position 0.
struct Sequence<'a> {
    first_row: usize,
    rows: usize,
    past: usize,
    keys: &'a [f32],
    values: &'a [f32],
}

/// Packed sequences over themselves.
fn sequences<'a>(offsets: &[usize], keys: &'a [f32], values: &'a [f32], shape: Heads) -> Vec<Sequence<'a>> {
    let pairs = offsets.windows(2).map(|pair| Sequence {
        first_row: pair[0],
        rows: pair[1] - pair[0],
        past: 0,
        keys: &keys[pair[0] * shape.key_stride()..],
        values: &values[pair[0] * shape.value_stride()..],
    });
    pairs.collect()
}

/// Packed sequences over cached keys and values, whose last ones are their own.
fn continued<'a>(
    offsets: &[usize],
    keys: &'a [cpu::View<'_>],
    values: &'a [cpu::View<'_>],
    shape: Heads,
) -> Result<Vec<Sequence<'a>>> {
    let mut sequences = Vec::with_capacity(keys.len());
    for (pair, (keys, values)) in offsets.windows(2).zip(keys.iter().zip(values)) {
        let (rows, length) = (pair[1] - pair[0], keys.len() / shape.key_stride());
        if length < rows || values.len() / shape.value_stride() != length {
            return Err(Error::Msg(format!("{rows} queries over {length} cached keys")));
        }
        sequences.push(Sequence {
            first_row: pair[0],
            rows,
            past: length - rows,
            keys,
            values,
        });
    }
    Ok(sequences)
}

/// All as contiguous f32.
fn all_wide(tensors: &[Tensor]) -> Result<Vec<Cow<'_, Tensor>>> {
    tensors.iter().map(cpu::wide).collect()
}

fn all_viewed<'a>(tensors: &'a [Cow<'_, Tensor>]) -> Result<Vec<cpu::View<'a>>> {
    tensors.iter().map(|tensor| cpu::view(tensor)).collect()
}

/// A block of queries of one sequence: which, and the keys that at least one of them sees.
struct Block {
    start: usize,
    rows: usize,
    keys: Range<usize>,
}

fn blocks<'a>(rows: usize, past: usize, how: &'a Attention) -> impl Iterator<Item = Block> + 'a {
    (0..rows).step_by(BLOCK).map(move |start| {
        let rows = BLOCK.min(rows - start);
        let keys = how.visible(past + start).start..how.visible(past + start + rows - 1).end;
        Block { start, rows, keys }
    })
}

struct Forward {
    output: Vec<f32>,
    /// (rows, heads), when recording.
    lse: Vec<f32>,
    logit_max: f32,
}

fn forward(q: &[f32], sequences: &[Sequence], shape: Heads, how: &Attention, recording: bool) -> Result<Forward> {
    let sinks = how.sink_values()?;
    let heads = heads(q, sequences, shape, how, &sinks);
    let mut lse = vec![0.0; if recording { shape.rows * shape.heads } else { 0 }];
    let mut logit_max = f32::NEG_INFINITY;
    let lse_target = recording.then(|| Target::new(&mut lse, shape.heads));
    // SAFETY: every row of every sequence and head is written, by the task that owns it: the offsets cover all rows (checked by
    // the callers).
    let output = unsafe {
        cpu::fresh(shape.rows * shape.output_stride(), |output| {
            let output = Target::uninitialised(output, shape.output_stride());
            logit_max = heads
                .par_iter()
                .map_init(Vec::new, |scores, head| head.attend(scores, output, lse_target))
                .reduce(|| f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        })
    };
    Ok(Forward { output, lse, logit_max })
}

fn heads<'a>(
    q: &'a [f32],
    sequences: &'a [Sequence<'a>],
    shape: Heads,
    how: &'a Attention,
    sinks: &[f32],
) -> Vec<Head<'a>> {
    let head = |sequence, head| Head {
        q,
        sequence,
        head,
        shape,
        how,
        sink: sinks.get(head).copied(),
    };
    let all = sequences.iter();
    all.flat_map(|sequence| (0..shape.heads).map(move |index| head(sequence, index)))
        .collect()
}

/// One query head of one sequence: what a task owns.
#[derive(Clone, Copy)]
struct Head<'a> {
    q: &'a [f32],
    sequence: &'a Sequence<'a>,
    head: usize,
    shape: Heads,
    how: &'a Attention,
    sink: Option<f32>,
}

impl<'a> Head<'a> {
    /// Writes this head's part of the output and its logarithms of sums; gives its largest score.
    ///
    /// # Safety
    /// Nobody else touches this head of the sequence's rows in either target.
    unsafe fn attend(&self, scores: &mut Vec<f32>, output: Target<f32>, lse: Option<Target<f32>>) -> f32 {
        let shape = self.shape;
        let mut logit_max = f32::NEG_INFINITY;
        for block in blocks(self.sequence.rows, self.sequence.past, self.how) {
            let row = self.row(&block);
            self.score(scores, &block, true);
            for (i, softened) in self.soften(scores, &block).into_iter().enumerate() {
                let max = softened.largest;
                logit_max = if max > logit_max { max } else { logit_max };
                if let Some(lse) = lse {
                    // SAFETY: this row and head belong to this task alone, by the caller's promise.
                    unsafe { lse.slice((row + i) * shape.heads + self.head, 1)[0] = softened.lse() };
                }
            }
            let weights = matrix(scores, block.rows, block.keys.len());
            let place = output.at(row * shape.output_stride() + self.head * shape.value_dim);
            // SAFETY: as above.
            unsafe { Product::of(weights, self.values(&block)).write(false, place) };
        }
        logit_max
    }

    /// Writes the largest score of each of this head's queries.
    ///
    /// # Safety
    /// Nobody else touches this head of the sequence's rows in the target.
    unsafe fn largest(&self, scores: &mut Vec<f32>, largest: Target<f32>) {
        for block in blocks(self.sequence.rows, self.sequence.past, self.how) {
            self.score(scores, &block, true);
            let place = self.row(&block) * self.shape.heads + self.head;
            for (i, scores) in scores.chunks_exact(block.keys.len()).enumerate() {
                let seen = &scores[self.seen(&block, i)];
                // SAFETY: this row and head belong to this task alone, by the caller's promise.
                unsafe { largest.slice(place + i * self.shape.heads, 1)[0] = simd::max(seen) };
            }
        }
    }

    /// The block's first row among all packed rows.
    fn row(&self, block: &Block) -> usize {
        self.sequence.first_row + block.start
    }

    fn kv_head(&self) -> usize {
        self.head / self.shape.group()
    }

    /// (block rows, head_dim)
    fn queries(&self, block: &Block) -> ArrayView2<'a, f32> {
        let (shape, stride) = (self.shape, self.shape.query_stride());
        let start = self.row(block) * stride + self.head * shape.head_dim;
        strided(&self.q[start..], block.rows, shape.head_dim, stride)
    }

    /// (keys, head_dim)
    fn keys(&self, block: &Block) -> ArrayView2<'a, f32> {
        let (shape, stride) = (self.shape, self.shape.key_stride());
        let start = block.keys.start * stride + self.kv_head() * shape.head_dim;
        strided(&self.sequence.keys[start..], block.keys.len(), shape.head_dim, stride)
    }

    /// (keys, value_dim)
    fn values(&self, block: &Block) -> ArrayView2<'a, f32> {
        let (shape, stride) = (self.shape, self.shape.value_stride());
        let start = block.keys.start * stride + self.kv_head() * shape.value_dim;
        strided(
            &self.sequence.values[start..],
            block.keys.len(),
            shape.value_dim,
            stride,
        )
    }

    /// The keys that query `i` of the block sees, counted from the block's first key.
    #[inline(always)]
    fn seen(&self, block: &Block, i: usize) -> Range<usize> {
        let visible = self.how.visible(self.sequence.past + block.start + i);
        visible.start - block.keys.start..visible.end - block.keys.start
    }

    /// Fills `scores` with the block's scaled (and, when `capped`, capped) products.
    fn score(&self, scores: &mut Vec<f32>, block: &Block, capped: bool) {
        let width = block.keys.len();
        scores.resize(block.rows * width, 0.0);
        Product::of(self.queries(block), self.keys(block).reversed_axes())
            .scaled(self.how.scale)
            .fill(strided_mut(scores, block.rows, width, width));
        if let Some(cap) = self.how.softcap.filter(|_| capped) {
            wide!({
                scores
                    .iter_mut()
                    .for_each(|score| *score = cap * simd::tanh(*score / cap))
            });
        }
    }

    /// Scores become weights, zero where a query sees nothing.
    fn soften(&self, scores: &mut [f32], block: &Block) -> Vec<Softened> {
        let mut found = Vec::with_capacity(block.rows);
        wide!({
            for (i, scores) in scores.chunks_exact_mut(block.keys.len()).enumerate() {
                let seen = self.seen(block, i);
                let largest = simd::max(&scores[seen.clone()]);
                let shift = self.sink.map_or(largest, |sink| largest.max(sink));
                let mut sum = simd::exp_shifted(&mut scores[seen.clone()], shift);
                if let Some(sink) = self.sink {
                    sum += (sink - shift).exp();
                }
                let factor = 1.0 / sum;
                scores[seen.clone()].iter_mut().for_each(|score| *score *= factor);
                clear_unseen(scores, seen);
                found.push(Softened { largest, shift, sum });
            }
        });
        found
    }
}

/// What the softmax of one row went over.
struct Softened {
    largest: f32,
    /// What scores were lessened by before their exponentials were summed.
    shift: f32,
    sum: f32,
}

impl Softened {
    fn lse(&self) -> f32 {
        self.shift + self.sum.ln()
    }
}

#[inline(always)]
fn clear_unseen(row: &mut [f32], seen: Range<usize>) {
    row[..seen.start].fill(0.0);
    row[seen.end..].fill(0.0);
}

/// What the way back is given: everything of the forward pass, and the gradient of its output.
struct Given<'a> {
    q: &'a [f32],
    output: &'a [f32],
    gradient: &'a [f32],
    /// (rows, heads)
    lse: &'a [f32],
}

/// Where the gradients of q, k and v go.
#[derive(Clone, Copy)]
struct Places {
    q: Target<f32>,
    k: Target<f32>,
    v: Target<f32>,
}

/// The gradients of q, k and v.
fn pull(
    [q, k, v]: &[Tensor; 3],
    output: &Tensor,
    gradient: &Tensor,
    lse: &[f32],
    offsets: &[usize],
    shape: Heads,
    how: &Attention,
) -> Result<[Vec<f32>; 3]> {
    let (q, k, v) = (cpu::wide(q)?, cpu::wide(k)?, cpu::wide(v)?);
    let (q, k, v) = (cpu::view(&q)?, cpu::view(&k)?, cpu::view(&v)?);
    let (output, gradient) = (cpu::wide(output)?, cpu::wide(gradient)?);
    let (output, gradient) = (cpu::view(&output)?, cpu::view(&gradient)?);
    let given = Given {
        q: &q,
        output: &output,
        gradient: &gradient,
        lse,
    };
    let sequences = sequences(offsets, &k, &v, shape);
    let tasks: Vec<(&Sequence, usize)> = sequences
        .iter()
        .flat_map(|sequence| (0..shape.kv_heads).map(move |kv_head| (sequence, kv_head)))
        .collect();
    let (mut dk, mut dv) = (vec![0.0; k.len()], vec![0.0; v.len()]);
    let k = Target::new(&mut dk, shape.key_stride());
    let v = Target::new(&mut dv, shape.value_stride());
    // SAFETY: every row and head of dq is written by the one task that owns it; dk and dv begin as zeros and are added to
    // by the one task that owns the sequence and key head.
    let dq = unsafe {
        cpu::fresh(given.q.len(), |dq| {
            let q = Target::uninitialised(dq, shape.query_stride());
            tasks
                .par_iter()
                .for_each_init(<(Vec<f32>, Vec<f32>)>::default, |scratch, &(sequence, kv_head)| {
                    for head in kv_head * shape.group()..(kv_head + 1) * shape.group() {
                        let head = Head {
                            q: given.q,
                            sequence,
                            head,
                            shape,
                            how,
                            sink: None, // it is in `lse`
                        };
                        head.pull(&given, scratch, Places { q, k, v });
                    }
                });
        })
    };
    Ok([dq, dk, dv])
}

/// The gradient of the sinks: what each took from the weights of all keys, over all rows.
fn pull_sinks(sinks: &[f32], output: &Tensor, gradient: &Tensor, lse: &[f32], shape: Heads) -> Result<Vec<f32>> {
    let (output, gradient) = (cpu::wide(output)?, cpu::wide(gradient)?);
    let (output, gradient) = (cpu::view(&output)?, cpu::view(&gradient)?);
    let (output, gradient): (&[f32], &[f32]) = (&output, &gradient);
    let of_row = |row: usize, head: usize| {
        let start = row * shape.output_stride() + head * shape.value_dim;
        let place = start..start + shape.value_dim;
        let level = simd::dot(&output[place.clone()], &gradient[place]);
        f64::from((sinks[head] - lse[row * shape.heads + head]).exp() * level)
    };
    let heads = (0..shape.heads).into_par_iter();
    let sums = heads.map(|head| (0..shape.rows).map(|row| of_row(row, head)).sum::<f64>());
    Ok(sums.map(|sum| -sum as f32).collect())
}

impl Head<'_> {
    /// Writes this head's gradient of q, and adds its parts of those of k and v.
    ///
    /// # Safety
    /// Nobody else touches this head of the sequence's rows in q, and its key head's in k and v, which are initialised.
    unsafe fn pull(&self, given: &Given, (weights, slopes): &mut (Vec<f32>, Vec<f32>), into: Places) {
        let shape = self.shape;
        for block in blocks(self.sequence.rows, 0, self.how) {
            let (row, width) = (self.row(&block), block.keys.len());
            let output_start = row * shape.output_stride() + self.head * shape.value_dim;
            let gradient = strided(
                &given.gradient[output_start..],
                block.rows,
                shape.value_dim,
                shape.output_stride(),
            );
            self.score(weights, &block, false);
            slopes.resize(weights.len(), 0.0);
            Product::of(gradient, self.values(&block).reversed_axes())
                .fill(strided_mut(slopes, block.rows, width, width));
            self.differentiate(given, &block, weights, slopes);
            let (weights, slopes) = (matrix(weights, block.rows, width), matrix(slopes, block.rows, width));
            let key_row = self.sequence.first_row + block.keys.start;
            let q = into.q.at(row * shape.query_stride() + self.head * shape.head_dim);
            let k = into
                .k
                .at(key_row * shape.key_stride() + self.kv_head() * shape.head_dim);
            let v = into
                .v
                .at(key_row * shape.value_stride() + self.kv_head() * shape.value_dim);
            // SAFETY: these rows and heads belong to this task alone, by the caller's promise.
            unsafe {
                Product::of(slopes, self.keys(&block)).write(false, q);
                Product::of(slopes.reversed_axes(), self.queries(&block)).write(true, k);
                Product::of(weights.reversed_axes(), gradient).write(true, v);
            }
        }
    }

    /// Scores become softmax weights, and gradients of weights those of the scaled scores.
    fn differentiate(&self, given: &Given, block: &Block, weights: &mut [f32], slopes: &mut [f32]) {
        let (shape, how, width, row) = (self.shape, self.how, block.keys.len(), self.row(block));
        wide!({
            let rows = weights.chunks_exact_mut(width).zip(slopes.chunks_exact_mut(width));
            for (i, (weights, slopes)) in rows.enumerate() {
                let seen = self.seen(block, i);
                let at = (row + i) * shape.output_stride() + self.head * shape.value_dim;
                let output = &given.output[at..at + shape.value_dim];
                let level = simd::dot(output, &given.gradient[at..at + shape.value_dim]);
                let lse = given.lse[(row + i) * shape.heads + self.head];
                let pairs = weights[seen.clone()].iter_mut().zip(&mut slopes[seen.clone()]);
                match how.softcap {
                    None => {
                        for (w, s) in pairs {
                            *w = simd::exp(*w - lse);
                            *s = *w * (*s - level) * how.scale;
                        }
                    }
                    Some(cap) => {
                        for (w, s) in pairs {
                            let t = simd::tanh(*w / cap);
                            *w = simd::exp(cap * t - lse);
                            *s = *w * (*s - level) * how.scale * (1.0 - t * t);
                        }
                    }
                }
                clear_unseen(weights, seen.clone());
                clear_unseen(slopes, seen);
            }
        });
    }
}

/// The same by candle's operations, one sequence after the other; `inputs` are q, k, v and the sinks, if any.
pub(super) fn packed_by_candle(inputs: &[Tensor], offsets: &[usize], how: &Attention) -> Result<Tensor> {
    let mut outputs = Vec::with_capacity(offsets.len());
    for pair in offsets.windows(2) {
        let part = |x: &Tensor| x.narrow(0, pair[0], pair[1] - pair[0]);
        outputs.push(attend_by_candle(
            &part(&inputs[0])?,
            &part(&inputs[1])?,
            &part(&inputs[2])?,
            inputs.get(3),
            how,
        )?);
    }
    Tensor::cat(&outputs, 0)
}

/// One sequence by candle's operations: q (rows, heads, head_dim) are the last rows of k, v (length, kv_heads, head_dim).
fn attend_by_candle(q: &Tensor, k: &Tensor, v: &Tensor, sinks: Option<&Tensor>, how: &Attention) -> Result<Tensor> {
    let (rows, heads, _) = q.dims3()?;
    let (length, kv_heads, value_dim) = v.dims3()?;
    let group = heads / kv_heads;
    let v = v.transpose(0, 1)?.contiguous()?; // (kv_heads, length, value_dim)
    let mut scores = scores_by_candle(q, k, how)?;
    if let Some(sinks) = sinks {
        let sinks = sinks.to_dtype(DType::F32)?.reshape((kv_heads, group, 1, 1))?;
        scores = Tensor::cat(&[scores, sinks.broadcast_as((kv_heads, group, rows, 1))?], 3)?;
    }
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = scores
        .broadcast_div(&scores.sum_keepdim(D::Minus1)?)?
        .narrow(3, 0, length)?
        .to_dtype(v.dtype())?;
    let out = weights.reshape((kv_heads, group * rows, length))?.matmul(&v)?;
    out.reshape((kv_heads, group, rows, value_dim))?
        .permute((2, 0, 1, 3))?
        .reshape((rows, heads, value_dim))
}

/// (kv_heads, group, rows, length) in f32, −∞ where a query does not see a key.
fn scores_by_candle(q: &Tensor, k: &Tensor, how: &Attention) -> Result<Tensor> {
    let (rows, heads, head_dim) = q.dims3()?;
    let (length, kv_heads, _) = k.dims3()?;
    let group = heads / kv_heads;
    // (kv_heads, group · rows, head_dim): the query heads of one key head lie together
    let q = q
        .reshape((rows, kv_heads, group, head_dim))?
        .permute((1, 2, 0, 3))?
        .reshape((kv_heads, group * rows, head_dim))?;
    let k = k.transpose(0, 1)?.contiguous()?; // (kv_heads, length, head_dim)
    let mut scores = (q.contiguous()?.matmul(&k.t()?)?.to_dtype(DType::F32)? * f64::from(how.scale))?;
    if let Some(cap) = how.softcap {
        scores = ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?;
    }
    let mask = mask(rows, length, how, q.device())?;
    scores.reshape((kv_heads, group, rows, length))?.broadcast_add(&mask)
}

/// [`largest_scores`] of one sequence, by candle's operations.
fn largest_by_candle(q: &Tensor, k: &Tensor, how: &Attention) -> Result<Tensor> {
    let (rows, heads, _) = q.dims3()?;
    let largest = scores_by_candle(q, k, how)?.max(D::Minus1)?; // (kv_heads, group, rows)
    largest.permute((2, 0, 1))?.reshape((rows, heads))
}

/// (1, 1, rows, length): zero where one of the last `rows` positions sees another.
fn mask(rows: usize, length: usize, how: &Attention, device: &Device) -> Result<Tensor> {
    let row = |row| {
        let visible = how.visible(length - rows + row);
        (0..length).map(move |column| match visible.contains(&column) {
            true => 0.0,
            false => f32::NEG_INFINITY,
        })
    };
    let values: Vec<f32> = (0..rows).flat_map(row).collect();
    Tensor::from_vec(values, (1, 1, rows, length), device)
}
