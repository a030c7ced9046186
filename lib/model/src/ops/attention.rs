//! Causal attention over packed sequences.
//!
//! On the CPU one task owns one sequence and one key head, walks its queries in blocks, and multiplies only the keys that
//! a block can see; no padded or masked product is ever formed, and scores exist for one block at a time. The backward
//! pass keeps one number per query and head (the log of its sum of exponentials) and computes the scores again.

use candle_core::{D, DType, Error, Result, Tensor};
use products::{ArrayView2, Product, Target, matrix, strided, strided_mut, wide};
use rayon::prelude::*;

use super::{Tape, composed, cpu, simd};

/// Queries per block of scores.
const BLOCK: usize = 64;

/// What attention needs besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Multiplies q·k before anything else.
    pub scale: f32,
    /// `cap · tanh(score / cap)`, Gemma 2.
    pub softcap: Option<f32>,
    /// A query at position p sees keys at p - window < j <= p.
    pub window: Option<usize>,
}

impl Attention {
    /// The keys that the query at `position` sees.
    fn visible(&self, position: usize) -> std::ops::Range<usize> {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        first..position + 1
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
    let how = *how;
    let shape = Heads::of(q, k, v)?;
    if offsets.last() != Some(&shape.rows) || k.dim(0)? != shape.rows {
        return Err(Error::Msg(format!(
            "attention over {} rows with offsets {offsets:?}",
            shape.rows
        )));
    }
    if !cpu::is_host(q) {
        let offsets = offsets.to_vec();
        return composed(tape, "attention", &[q, k, v], move |inputs| {
            packed_by_candle(inputs, &offsets, &how)
        });
    }
    let (wide_q, wide_k, wide_v) = (cpu::wide(q)?, cpu::wide(k)?, cpu::wide(v)?);
    let (key_values, value_values) = (cpu::view(&wide_k)?, cpu::view(&wide_v)?);
    let sequences: Vec<Sequence> = offsets
        .windows(2)
        .map(|pair| Sequence {
            first_row: pair[0],
            rows: pair[1] - pair[0],
            past: 0,
            keys: &key_values[pair[0] * shape.kv_heads * shape.head_dim..],
            values: &value_values[pair[0] * shape.kv_heads * shape.value_dim..],
        })
        .collect();
    let recording = tape.tracks_any(&[q, k, v]);
    let forward = forward(&cpu::view(&wide_q)?, &sequences, shape, &how, recording);
    if tape.observes() {
        tape.note_logit(forward.logit_max);
    }
    let output = cpu::tensor(forward.output, (shape.rows, shape.heads, shape.value_dim), q.dtype())?;
    if recording {
        let inputs = [q.clone(), k.clone(), v.clone()];
        let (offsets, result, lse) = (offsets.to_vec(), output.clone(), forward.lse);
        tape.record("attention", &output, move |gradient, backward| {
            let gradients = pull(&inputs, &result, &gradient, &lse, &offsets, shape, &how)?;
            for (input, gradient) in inputs.iter().zip(gradients) {
                backward.send(input, cpu::tensor(gradient, input.shape(), input.dtype())?)?;
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
    let shape = Heads::of(q, first_key, first_value)?;
    if offsets.last() != Some(&shape.rows) || offsets.len() != keys.len() + 1 || keys.len() != values.len() {
        return Err(Error::Msg(format!(
            "attention over {} rows with offsets {offsets:?}",
            shape.rows
        )));
    }
    if !cpu::is_host(q) {
        let mut outputs = Vec::with_capacity(keys.len());
        for (pair, (k, v)) in offsets.windows(2).zip(keys.iter().zip(values)) {
            outputs.push(attend_by_candle(&q.narrow(0, pair[0], pair[1] - pair[0])?, k, v, how)?);
        }
        return Tensor::cat(&outputs, 0);
    }
    let wide_q = cpu::wide(q)?;
    let wide_keys = keys.iter().map(cpu::wide).collect::<Result<Vec<_>>>()?;
    let wide_values = values.iter().map(cpu::wide).collect::<Result<Vec<_>>>()?;
    let key_views = wide_keys.iter().map(|k| cpu::view(k)).collect::<Result<Vec<_>>>()?;
    let value_views = wide_values.iter().map(|v| cpu::view(v)).collect::<Result<Vec<_>>>()?;
    let mut sequences = Vec::with_capacity(keys.len());
    for (i, pair) in offsets.windows(2).enumerate() {
        let (rows, length) = (pair[1] - pair[0], keys[i].dim(0)?);
        if length < rows || values[i].dim(0)? != length {
            return Err(Error::Msg(format!("{rows} queries over {length} cached keys")));
        }
        sequences.push(Sequence {
            first_row: pair[0],
            rows,
            past: length - rows,
            keys: &key_views[i],
            values: &value_views[i],
        });
    }
    let forward = forward(&cpu::view(&wide_q)?, &sequences, shape, how, false);
    cpu::tensor(forward.output, (shape.rows, shape.heads, shape.value_dim), q.dtype())
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
    fn of(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Self> {
        let (rows, heads, head_dim) = q.dims3()?;
        let (length, kv_heads, key_dim) = k.dims3()?;
        let (value_length, value_heads, value_dim) = v.dims3()?;
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

/// A block of queries of one sequence: which, and the keys that at least one of them sees.
struct Block {
    start: usize,
    rows: usize,
    keys: std::ops::Range<usize>,
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

fn forward(q: &[f32], sequences: &[Sequence], shape: Heads, how: &Attention, recording: bool) -> Forward {
    let tasks: Vec<(&Sequence, usize)> = sequences
        .iter()
        .flat_map(|sequence| (0..shape.heads).map(move |head| (sequence, head)))
        .collect();
    let mut lse = vec![0.0; if recording { shape.rows * shape.heads } else { 0 }];
    let mut logit_max = f32::NEG_INFINITY;
    let lse_target = Target::new(&mut lse, shape.heads);
    // SAFETY: every row of every sequence and head is written: the offsets cover all rows (checked by the callers).
    let output = unsafe {
        cpu::fresh(shape.rows * shape.output_stride(), |output| {
            let output = Target::uninitialised(output, shape.output_stride());
            logit_max = tasks
                .par_iter()
                .map_init(Vec::new, |scores, &(sequence, head)| {
                    let kv_head = head / shape.group();
                    let mut logit_max = f32::NEG_INFINITY;
                    for block in blocks(sequence.rows, sequence.past, how) {
                        let row = sequence.first_row + block.start;
                        score(
                            scores,
                            &q[row * shape.query_stride()..],
                            sequence,
                            &block,
                            head,
                            shape,
                            how,
                            true,
                        );
                        let width = block.keys.len();
                        wide!({
                            for (i, scores) in scores.chunks_exact_mut(width).enumerate() {
                                let seen = seen(&block, sequence.past, i, how);
                                let max = simd::max(&scores[seen.clone()]);
                                logit_max = if max > logit_max { max } else { logit_max };
                                let sum = simd::exp_shifted(&mut scores[seen.clone()], max);
                                let factor = 1.0 / sum;
                                scores[seen.clone()].iter_mut().for_each(|score| *score *= factor);
                                scores[..seen.start].fill(0.0);
                                scores[seen.end..].fill(0.0);
                                if recording {
                                    // SAFETY: this row and head belong to this task alone.
                                    lse_target.slice((row + i) * shape.heads + head, 1)[0] = max + sum.ln();
                                }
                            }
                        });
                        let values = value_matrix(sequence, &block, kv_head, shape);
                        Product::of(matrix(scores, block.rows, width), values)
                            .write(false, output.at(row * shape.output_stride() + head * shape.value_dim));
                    }
                    logit_max
                })
                .reduce(|| f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        })
    };
    Forward { output, lse, logit_max }
}

/// The keys that query `i` of the block sees, counted from the block's first key.
#[inline(always)]
fn seen(block: &Block, past: usize, i: usize, how: &Attention) -> std::ops::Range<usize> {
    let visible = how.visible(past + block.start + i);
    visible.start - block.keys.start..visible.end - block.keys.start
}

fn key_matrix<'a>(sequence: &Sequence<'a>, block: &Block, kv_head: usize, shape: Heads) -> ArrayView2<'a, f32> {
    let start = block.keys.start * shape.key_stride() + kv_head * shape.head_dim;
    strided(
        &sequence.keys[start..],
        block.keys.len(),
        shape.head_dim,
        shape.key_stride(),
    )
}

fn value_matrix<'a>(sequence: &Sequence<'a>, block: &Block, kv_head: usize, shape: Heads) -> ArrayView2<'a, f32> {
    let start = block.keys.start * shape.value_stride() + kv_head * shape.value_dim;
    strided(
        &sequence.values[start..],
        block.keys.len(),
        shape.value_dim,
        shape.value_stride(),
    )
}

/// Fills `scores` with the block's scaled (and, when `capped`, capped) products; `q` begins at the block's first row.
#[allow(clippy::too_many_arguments)]
fn score(
    scores: &mut Vec<f32>,
    q: &[f32],
    sequence: &Sequence,
    block: &Block,
    head: usize,
    shape: Heads,
    how: &Attention,
    capped: bool,
) {
    let width = block.keys.len();
    scores.resize(block.rows * width, 0.0);
    let queries = strided(
        &q[head * shape.head_dim..],
        block.rows,
        shape.head_dim,
        shape.query_stride(),
    );
    let keys = key_matrix(sequence, block, head / shape.group(), shape).reversed_axes();
    Product::of(queries, keys)
        .scaled(how.scale)
        .fill(strided_mut(scores, block.rows, width, width));
    if let Some(cap) = how.softcap.filter(|_| capped) {
        wide!({
            scores
                .iter_mut()
                .for_each(|score| *score = cap * simd::tanh(*score / cap))
        });
    }
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
    let (q, k, v, o, g) = (
        cpu::wide(q)?,
        cpu::wide(k)?,
        cpu::wide(v)?,
        cpu::wide(output)?,
        cpu::wide(gradient)?,
    );
    let (q, k, v, o, g) = (
        cpu::view(&q)?,
        cpu::view(&k)?,
        cpu::view(&v)?,
        cpu::view(&o)?,
        cpu::view(&g)?,
    );
    let tasks: Vec<(Sequence, usize)> = offsets
        .windows(2)
        .flat_map(|pair| {
            let (k, v) = (&k, &v);
            (0..shape.kv_heads).map(move |kv_head| {
                let sequence = Sequence {
                    first_row: pair[0],
                    rows: pair[1] - pair[0],
                    past: 0,
                    keys: &k[pair[0] * shape.key_stride()..],
                    values: &v[pair[0] * shape.value_stride()..],
                };
                (sequence, kv_head)
            })
        })
        .collect();
    let mut dk = vec![0.0; k.len()];
    let mut dv = vec![0.0; v.len()];
    let (dk_target, dv_target) = (
        Target::new(&mut dk, shape.key_stride()),
        Target::new(&mut dv, shape.value_stride()),
    );
    // SAFETY: every row and head of dq is written by the one task that owns it; dk and dv begin as zeros and are added to
    // by the one task that owns the sequence and key head.
    let dq = unsafe {
        cpu::fresh(q.len(), |dq| {
            let dq = Target::uninitialised(dq, shape.query_stride());
            tasks.par_iter().for_each_init(
                <(Vec<f32>, Vec<f32>)>::default,
                |(weights, slopes), (sequence, kv_head)| {
                    for head in kv_head * shape.group()..(kv_head + 1) * shape.group() {
                        for block in blocks(sequence.rows, 0, how) {
                            let (row, width) = (sequence.first_row + block.start, block.keys.len());
                            let query_start = row * shape.query_stride();
                            let output_start = row * shape.output_stride() + head * shape.value_dim;
                            score(weights, &q[query_start..], sequence, &block, head, shape, how, false);
                            slopes.resize(weights.len(), 0.0);
                            let g_block =
                                strided(&g[output_start..], block.rows, shape.value_dim, shape.output_stride());
                            let values = value_matrix(sequence, &block, *kv_head, shape).reversed_axes();
                            Product::of(g_block.view(), values).fill(strided_mut(slopes, block.rows, width, width));
                            // weights become softmax weights, slopes the gradients of the scaled scores
                            wide!({
                                let rows = weights.chunks_exact_mut(width).zip(slopes.chunks_exact_mut(width));
                                for (i, (weights, slopes)) in rows.enumerate() {
                                    let seen = seen(&block, 0, i, how);
                                    let at = output_start + i * shape.output_stride();
                                    let level = simd::dot(&o[at..at + shape.value_dim], &g[at..at + shape.value_dim]);
                                    let lse = lse[(row + i) * shape.heads + head];
                                    let (w, s) = (&mut weights[seen.clone()], &mut slopes[seen.clone()]);
                                    match how.softcap {
                                        None => {
                                            for (w, s) in w.iter_mut().zip(s) {
                                                *w = simd::exp(*w - lse);
                                                *s = *w * (*s - level) * how.scale;
                                            }
                                        }
                                        Some(cap) => {
                                            for (w, s) in w.iter_mut().zip(s) {
                                                let t = simd::tanh(*w / cap);
                                                *w = simd::exp(cap * t - lse);
                                                *s = *w * (*s - level) * how.scale * (1.0 - t * t);
                                            }
                                        }
                                    }
                                    for part in [&mut *weights, slopes] {
                                        part[..seen.start].fill(0.0);
                                        part[seen.end..].fill(0.0);
                                    }
                                }
                            });
                            let weights = matrix(weights, block.rows, width);
                            let slopes = matrix(slopes, block.rows, width);
                            let queries = strided(
                                &q[query_start + head * shape.head_dim..],
                                block.rows,
                                shape.head_dim,
                                shape.query_stride(),
                            );
                            let key_start = (sequence.first_row + block.keys.start) * shape.key_stride();
                            let value_start = (sequence.first_row + block.keys.start) * shape.value_stride();
                            let keys = key_matrix(sequence, &block, *kv_head, shape);
                            Product::of(slopes.view(), keys).write(false, dq.at(query_start + head * shape.head_dim));
                            Product::of(slopes.t(), queries)
                                .write(true, dk_target.at(key_start + kv_head * shape.head_dim));
                            Product::of(weights.t(), g_block)
                                .write(true, dv_target.at(value_start + kv_head * shape.value_dim));
                        }
                    }
                },
            );
        })
    };
    Ok([dq, dk, dv])
}

/// The same by candle's operations, one sequence after the other; `inputs` are q, k and v.
pub(super) fn packed_by_candle(inputs: &[Tensor], offsets: &[usize], how: &Attention) -> Result<Tensor> {
    let mut outputs = Vec::with_capacity(offsets.len());
    for pair in offsets.windows(2) {
        let part = |x: &Tensor| x.narrow(0, pair[0], pair[1] - pair[0]);
        outputs.push(attend_by_candle(
            &part(&inputs[0])?,
            &part(&inputs[1])?,
            &part(&inputs[2])?,
            how,
        )?);
    }
    Tensor::cat(&outputs, 0)
}

/// One sequence by candle's operations: q (rows, heads, head_dim) are the last rows of k, v (length, kv_heads, head_dim).
fn attend_by_candle(q: &Tensor, k: &Tensor, v: &Tensor, how: &Attention) -> Result<Tensor> {
    let (rows, heads, head_dim) = q.dims3()?;
    let (length, kv_heads, value_dim) = v.dims3()?;
    let group = heads / kv_heads;
    let past = length - rows;
    // (kv_heads, group · rows, head_dim): the query heads of one key head lie together
    let q = q
        .reshape((rows, kv_heads, group, head_dim))?
        .permute((1, 2, 0, 3))?
        .reshape((kv_heads, group * rows, head_dim))?;
    let k = k.transpose(0, 1)?.contiguous()?; // (kv_heads, length, head_dim)
    let v = v.transpose(0, 1)?.contiguous()?;
    let mut scores = (q.contiguous()?.matmul(&k.t()?)?.to_dtype(DType::F32)? * f64::from(how.scale))?;
    if let Some(cap) = how.softcap {
        scores = ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?;
    }
    let mask: Vec<f32> = (0..rows)
        .flat_map(|row| {
            let visible = how.visible(past + row);
            (0..length).map(move |column| {
                if visible.contains(&column) {
                    0.0
                } else {
                    f32::NEG_INFINITY
                }
            })
        })
        .collect();
    let mask = Tensor::from_vec(mask, (1, 1, rows, length), q.device())?;
    let scores = scores.reshape((kv_heads, group, rows, length))?.broadcast_add(&mask)?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = scores
        .broadcast_div(&scores.sum_keepdim(D::Minus1)?)?
        .to_dtype(v.dtype())?;
    let out = weights.reshape((kv_heads, group * rows, length))?.matmul(&v)?;
    out.reshape((kv_heads, group, rows, value_dim))?
        .permute((2, 0, 1, 3))?
        .reshape((rows, heads, value_dim))
}
