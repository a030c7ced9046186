//! Cross-entropy of chosen rows, fused with the vocabulary product.

use candle_core::{D, DType, Error, Result, Tensor};
use products::{Product, matrix, strided_mut, wide};
use rayon::prelude::*;

use super::{Gradients, Tape, cpu, linear, simd};

/// Logits that exist at one time: 64 MiB of f32.
const LOGITS_MAX: usize = 16 << 20;

/// What `cross_entropy` found.
#[derive(Debug)]
pub struct CrossEntropy {
    /// Negative log-likelihood of each chosen row's target, in nats.
    pub row_nats: Vec<f32>,
    /// The logarithm of the sum of exponentials of each chosen row's logits.
    pub row_lse: Vec<f32>,
    /// The gradient of `weight · Σ row_nats` with respect to `hidden`; present when gradients were asked for.
    pub hidden_gradient: Option<Tensor>,
}

/// Which rows of the hidden state predict which tokens, and what each row's loss counts in the total.
#[derive(Clone, Copy)]
pub struct Targets<'a> {
    pub rows: &'a [u32],
    pub token_ids: &'a [u32],
    pub weight: f64,
}

/// Cross-entropy of the logits `hidden[rows] · headᵀ` (capped to `cap · tanh(logit / cap)` when given) against the targets;
/// hidden (n, d) is the final norm's output, head (vocabulary, d). With `gradients`, the way back runs at once, chunk by
/// chunk, so that the logits of all rows never exist together: the head's gradient of `weight · Σ row_nats` is added
/// there if it learns on this tape, and `hidden_gradient` is the seed for `Tape::backward`.
pub fn cross_entropy(
    tape: &Tape,
    hidden: &Tensor,
    head: &Tensor,
    softcap: Option<f64>,
    targets: Targets,
    mut gradients: Option<&mut Gradients>,
) -> Result<CrossEntropy> {
    let ((n, d), (vocabulary, _)) = (hidden.dims2()?, head.dims2()?);
    if targets.rows.len() != targets.token_ids.len()
        || targets.rows.iter().any(|&row| row as usize >= n)
        || targets.token_ids.iter().any(|&id| id as usize >= vocabulary)
    {
        return Err(Error::Msg(format!("targets outside {n} rows or {vocabulary} tokens")));
    }
    if tape.adapter(head).is_some() && gradients.is_some() {
        return Err(Error::Msg(
            "an adapter on the vocabulary product has no gradient".into(),
        ));
    }
    let chunk = (LOGITS_MAX / vocabulary).clamp(16, 2048);
    if !cpu::is_host(hidden) {
        return by_candle(tape, hidden, head, softcap, targets, gradients, chunk);
    }
    let (wide_hidden, wide_head) = (cpu::wide(hidden)?, cpu::wide(head)?);
    let (h, w) = (cpu::view(&wide_hidden)?, cpu::view(&wide_head)?);
    let weight_matrix = matrix(&w, vocabulary, d);
    let mut found = CrossEntropy {
        row_nats: Vec::with_capacity(targets.rows.len()),
        row_lse: Vec::with_capacity(targets.rows.len()),
        hidden_gradient: None,
    };
    let mut hidden_gradient = vec![0.0; if gradients.is_some() { n * d } else { 0 }];
    let mut chosen = vec![0.0; chunk.min(targets.rows.len()) * d];
    let mut logits = vec![0.0; chunk.min(targets.rows.len()) * vocabulary];
    for (rows, ids) in targets.rows.chunks(chunk).zip(targets.token_ids.chunks(chunk)) {
        let (chosen, logits) = (&mut chosen[..rows.len() * d], &mut logits[..rows.len() * vocabulary]);
        for (chosen, &row) in chosen.chunks_exact_mut(d).zip(rows) {
            chosen.copy_from_slice(&h[row as usize * d..][..d]);
        }
        let product = Product::of(matrix(chosen, rows.len(), d), weight_matrix.t()).in_parallel();
        product.fill(strided_mut(logits, rows.len(), vocabulary, vocabulary));
        let back = gradients.is_some().then_some(targets.weight as f32);
        let losses: Vec<(f32, f32)> = logits
            .par_chunks_exact_mut(vocabulary)
            .zip(ids)
            .map(|(logits, &id)| wide!({ row_loss(logits, id as usize, softcap, back) }))
            .collect();
        found.row_nats.extend(losses.iter().map(|loss| loss.0));
        found.row_lse.extend(losses.iter().map(|loss| loss.1));
        let Some(gradients) = gradients.as_deref_mut() else {
            continue;
        };
        let slopes = matrix(logits, rows.len(), vocabulary);
        if tape.learns(head) {
            let (into, held) = gradients.buffer(head.id(), vocabulary * d);
            let product = Product::of(slopes.t(), matrix(chosen, rows.len(), d)).in_parallel();
            let into = strided_mut(into, vocabulary, d, d);
            match held {
                true => product.add_to(into),
                false => product.fill(into),
            }
        }
        // the chosen rows are no longer needed: their place takes their gradient
        let product = Product::of(slopes, weight_matrix.view()).in_parallel();
        product.fill(strided_mut(chosen, rows.len(), d, d));
        for (chosen, &row) in chosen.chunks_exact(d).zip(rows) {
            let into = &mut hidden_gradient[row as usize * d..][..d];
            into.iter_mut()
                .zip(chosen)
                .for_each(|(into, gradient)| *into += gradient);
        }
    }
    if gradients.is_some() {
        found.hidden_gradient = Some(cpu::tensor(hidden_gradient, (n, d), hidden.dtype())?);
    }
    Ok(found)
}

/// The loss and the log-sum-exp of one row of logits, which becomes `weight` times its gradient when that is wanted.
#[inline(always)]
fn row_loss(logits: &mut [f32], id: usize, softcap: Option<f64>, back: Option<f32>) -> (f32, f32) {
    let cap = softcap.map(|cap| cap as f32);
    if let Some(cap) = cap {
        for logit in logits.iter_mut() {
            *logit = cap * simd::tanh(*logit / cap);
        }
    }
    let target = logits[id];
    let max = simd::max(logits);
    let Some(weight) = back else {
        let lse = max + simd::exp_shifted(logits, max).ln();
        return (lse - target, lse);
    };
    match cap {
        None => {
            let sum = simd::exp_shifted(logits, max);
            let lse = max + sum.ln();
            let factor = weight / sum;
            for logit in logits.iter_mut() {
                *logit *= factor;
            }
            logits[id] -= weight;
            (lse - target, lse)
        }
        Some(cap) => {
            let sum = simd::exp_sum(logits, max);
            let lse = max + sum.ln();
            let factor = weight / sum;
            let slope_at = |logit: f32| 1.0 - (logit / cap) * (logit / cap);
            let of_target = (simd::exp(target - max) * factor - weight) * slope_at(target);
            for logit in logits.iter_mut() {
                *logit = simd::exp(*logit - max) * factor * slope_at(*logit);
            }
            logits[id] = of_target;
            (lse - target, lse)
        }
    }
}

fn by_candle(
    tape: &Tape,
    hidden: &Tensor,
    head: &Tensor,
    softcap: Option<f64>,
    targets: Targets,
    mut gradients: Option<&mut Gradients>,
    chunk: usize,
) -> Result<CrossEntropy> {
    let device = hidden.device();
    let (n, d) = hidden.dims2()?;
    let mut found = CrossEntropy {
        row_nats: Vec::new(),
        row_lse: Vec::new(),
        hidden_gradient: None,
    };
    let mut hidden_gradient = Tensor::zeros((n, d), DType::F32, device)?;
    for (rows, ids) in targets.rows.chunks(chunk).zip(targets.token_ids.chunks(chunk)) {
        let row_index = Tensor::from_slice(rows, rows.len(), device)?;
        let id_column = Tensor::from_slice(ids, (ids.len(), 1), device)?;
        let chosen = hidden.index_select(&row_index, 0)?; // (chunk, d)
        let mut logits = linear(&Tape::plain(tape.learning()), &chosen, head, None)?.to_dtype(DType::F32)?;
        if let Some(cap) = softcap {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        let max = logits.max_keepdim(D::Minus1)?;
        let exp = logits.broadcast_sub(&max)?.exp()?;
        let sum = exp.sum_keepdim(D::Minus1)?;
        let lse = (sum.log()? + max)?; // (chunk, 1)
        let nats = (&lse - logits.gather(&id_column, 1)?)?;
        found.row_nats.extend(nats.squeeze(1)?.to_vec1::<f32>()?);
        found.row_lse.extend(lse.squeeze(1)?.to_vec1::<f32>()?);
        let Some(gradients) = gradients.as_deref_mut() else {
            continue;
        };
        let minus_one = Tensor::full(-1f32, (ids.len(), 1), device)?;
        let mut slopes = (exp.broadcast_div(&sum)?.scatter_add(&id_column, &minus_one, 1)? * targets.weight)?;
        if let Some(cap) = softcap {
            slopes = (slopes * (1.0 - (&logits / cap)?.sqr()?)?)?;
        }
        let slopes = slopes.to_dtype(head.dtype())?;
        if tape.learns(head) {
            gradients.add(head.id(), &slopes.t()?.matmul(&chosen)?)?;
        }
        let of_chosen = slopes.matmul(head)?.to_dtype(DType::F32)?;
        hidden_gradient = hidden_gradient.index_add(&row_index, &of_chosen, 0)?;
    }
    if gradients.is_some() {
        found.hidden_gradient = Some(hidden_gradient.to_dtype(hidden.dtype())?);
    }
    Ok(found)
}
