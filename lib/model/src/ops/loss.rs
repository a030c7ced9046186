//! Cross-entropy of chosen rows, fused with the vocabulary product.

use candle_core::{D, DType, Error, Result, Tensor};
use half::bf16;
use products::{MixedProduct, matrix, strided_mut, wide};
use rayon::prelude::*;

use super::cpu::Number;
use super::{Gradients, Tape, cpu, linear, simd};

/// Logits that exist at one time: 64 MiB of f32.
const LOGITS_MAX: usize = 16 << 20;

/// What `cross_entropy` found.
#[derive(Debug, Default)]
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

/// How logits come out of a hidden state: `(hidden · weightᵀ + bias) · scale`, then `cap · tanh(logit / cap)`.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// (vocabulary, d)
    pub weight: &'a Tensor,
    /// (vocabulary)
    pub bias: Option<&'a Tensor>,
    pub scale: Option<f64>,
    pub softcap: Option<f64>,
}

impl<'a> From<&'a Tensor> for Head<'a> {
    fn from(weight: &'a Tensor) -> Self {
        Self {
            weight,
            bias: None,
            scale: None,
            softcap: None,
        }
    }
}

/// Cross-entropy of the logits that `head` makes of `hidden[rows]` against the targets; hidden (n, d) is the final norm's
/// output. With `gradients`, the way back runs at once, chunk by
/// chunk, so that the logits of all rows never exist together: the head's gradient of `weight · Σ row_nats` is added
/// there if it learns on this tape, and `hidden_gradient` is the seed for `Tape::backward`.
pub fn cross_entropy(
    tape: &Tape,
    hidden: &Tensor,
    head: Head,
    targets: Targets,
    gradients: Option<&mut Gradients>,
) -> Result<CrossEntropy> {
    let job = Job {
        tape,
        hidden,
        head,
        targets,
    };
    job.check(gradients.is_some())?;
    if !cpu::is_host(hidden) {
        return job.by_candle(gradients);
    }
    let weight = head.weight;
    match (hidden.dtype(), weight.dtype()) {
        (DType::BF16, DType::BF16) => job.on_host::<bf16>(&hidden.contiguous()?, &weight.contiguous()?, gradients),
        _ => job.on_host::<f32>(&*cpu::wide(hidden)?, &*cpu::wide(weight)?, gradients),
    }
}

#[derive(Clone, Copy)]
struct Job<'a, 'm> {
    tape: &'a Tape<'m>,
    hidden: &'a Tensor,
    head: Head<'a>,
    targets: Targets<'a>,
}

impl<'a> Job<'a, '_> {
    fn check(&self, with_gradients: bool) -> Result<()> {
        let (n, vocabulary) = (self.hidden.dims2()?.0, self.head.weight.dims2()?.0);
        let Targets { rows, token_ids, .. } = self.targets;
        if rows.len() != token_ids.len()
            || rows.iter().any(|&row| row as usize >= n)
            || token_ids.iter().any(|&id| id as usize >= vocabulary)
        {
            return Err(Error::Msg(format!("targets outside {n} rows or {vocabulary} tokens")));
        }
        if self.tape.adapter(self.head.weight).is_some() && with_gradients {
            return Err(Error::Msg(
                "an adapter on the vocabulary product has no gradient".into(),
            ));
        }
        Ok(())
    }

    /// Rows and targets that are computed at one time.
    fn chunks(&self) -> Result<impl Iterator<Item = (&'a [u32], &'a [u32])>> {
        let len = (LOGITS_MAX / self.head.weight.dim(0)?).clamp(16, 2048);
        let Targets { rows, token_ids, .. } = self.targets;
        Ok(rows.chunks(len).zip(token_ids.chunks(len)))
    }

    /// `hidden` and `weight` are the job's, in one type and without gaps.
    fn on_host<T: Number>(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        mut gradients: Option<&mut Gradients>,
    ) -> Result<CrossEntropy> {
        let ((n, d), vocabulary) = (hidden.dims2()?, weight.dim(0)?);
        let (hidden, head) = (cpu::view_of::<T>(hidden)?, cpu::view_of::<T>(weight)?);
        let head = matrix(&head, vocabulary, d);
        let bias = self.head.bias.map(cpu::wide).transpose()?;
        let bias = bias.as_deref().map(cpu::view).transpose()?;
        let mut found = CrossEntropy::default();
        let mut hidden_gradient = vec![0.0; if gradients.is_some() { n * d } else { 0 }];
        for (rows, ids) in self.chunks()? {
            let chosen: Vec<T> = rows
                .iter()
                .flat_map(|&row| &hidden[row as usize * d..][..d])
                .copied()
                .collect();
            let chosen = matrix(&chosen, rows.len(), d);
            let logits = MixedProduct::of(chosen, head.reversed_axes(), self.tape.how()).with_bias(bias.as_deref());
            let slopes = self.losses(logits.to_f32(), ids, gradients.is_some(), &mut found);
            let Some(gradients) = gradients.as_deref_mut() else {
                continue;
            };
            if let Some(bias) = self.head.bias.filter(|bias| self.tape.learns(bias)) {
                let into = gradients.sum(bias);
                for row in slopes.chunks_exact(vocabulary) {
                    into.iter_mut().zip(row).for_each(|(into, slope)| *into += slope);
                }
            }
            let slopes = T::rounded(slopes);
            let slopes = matrix(&slopes, rows.len(), vocabulary);
            if self.tape.learns(self.head.weight) {
                let (into, held) = gradients.buffer(self.head.weight.id(), vocabulary * d);
                let product = MixedProduct::of(slopes.reversed_axes(), chosen, self.tape.how());
                product.write(held, strided_mut(into, vocabulary, d, d));
            }
            let of_chosen = MixedProduct::of(slopes, head, self.tape.how()).to_f32();
            for (gradient, &row) in of_chosen.chunks_exact(d).zip(rows) {
                let into = &mut hidden_gradient[row as usize * d..][..d];
                into.iter_mut()
                    .zip(gradient)
                    .for_each(|(into, gradient)| *into += gradient);
            }
        }
        if gradients.is_some() {
            found.hidden_gradient = Some(cpu::tensor(hidden_gradient, (n, d), self.hidden.dtype())?);
        }
        Ok(found)
    }

    /// Notes the losses of a chunk's rows of logits, which become their gradients when those are wanted.
    fn losses(&self, mut logits: Vec<f32>, ids: &[u32], with_gradients: bool, found: &mut CrossEntropy) -> Vec<f32> {
        let (head, back) = (self.head, with_gradients.then_some(self.targets.weight as f32));
        let scale = head.scale.map(|scale| scale as f32);
        let losses: Vec<(f32, f32)> = logits
            .par_chunks_exact_mut(self.head.weight.dims()[0])
            .zip(ids)
            .map(|(logits, &id)| wide!({ scaled_row_loss(logits, id as usize, scale, head.softcap, back) }))
            .collect();
        found.row_nats.extend(losses.iter().map(|loss| loss.0));
        found.row_lse.extend(losses.iter().map(|loss| loss.1));
        logits
    }

    fn by_candle(&self, mut gradients: Option<&mut Gradients>) -> Result<CrossEntropy> {
        let device = self.hidden.device();
        let mut found = CrossEntropy::default();
        let mut hidden_gradient = Tensor::zeros(self.hidden.shape(), DType::F32, device)?;
        for (rows, ids) in self.chunks()? {
            let row_index = Tensor::from_slice(rows, rows.len(), device)?;
            let id_column = Tensor::from_slice(ids, (ids.len(), 1), device)?;
            let chosen = self.hidden.index_select(&row_index, 0)?; // (chunk, d)
            let slopes = self.losses_by_candle(&chosen, &id_column, &mut found)?;
            let Some(gradients) = gradients.as_deref_mut() else {
                continue;
            };
            if let Some(bias) = self.head.bias.filter(|bias| self.tape.learns(bias)) {
                gradients.add(bias.id(), &slopes.sum(0)?)?;
            }
            let slopes = slopes.to_dtype(self.head.weight.dtype())?;
            if self.tape.learns(self.head.weight) {
                gradients.add(self.head.weight.id(), &slopes.t()?.matmul(&chosen)?)?;
            }
            let of_chosen = slopes.matmul(self.head.weight)?.to_dtype(DType::F32)?;
            hidden_gradient = hidden_gradient.index_add(&row_index, &of_chosen, 0)?;
        }
        if gradients.is_some() {
            found.hidden_gradient = Some(hidden_gradient.to_dtype(self.hidden.dtype())?);
        }
        Ok(found)
    }

    /// Notes the losses of the chosen rows and gives the gradients of their logits.
    fn losses_by_candle(&self, chosen: &Tensor, ids: &Tensor, found: &mut CrossEntropy) -> Result<Tensor> {
        let plain = Tape::plain(self.tape.learning());
        let mut logits = linear(&plain, chosen, self.head.weight, self.head.bias)?.to_dtype(DType::F32)?;
        let scale = self.head.scale.unwrap_or(1.0);
        logits = (logits * scale)?;
        if let Some(cap) = self.head.softcap {
            logits = ((logits / cap)?.tanh()? * cap)?;
        }
        let max = logits.max_keepdim(D::Minus1)?;
        let exp = logits.broadcast_sub(&max)?.exp()?;
        let sum = exp.sum_keepdim(D::Minus1)?;
        let lse = (sum.log()? + max)?; // (chunk, 1)
        let nats = (&lse - logits.gather(ids, 1)?)?;
        found.row_nats.extend(nats.squeeze(1)?.to_vec1::<f32>()?);
        found.row_lse.extend(lse.squeeze(1)?.to_vec1::<f32>()?);
        let minus_one = Tensor::full(-1f32, ids.shape(), ids.device())?;
        let slopes = (exp.broadcast_div(&sum)?.scatter_add(ids, &minus_one, 1)? * (self.targets.weight * scale))?;
        match self.head.softcap {
            None => Ok(slopes),
            Some(cap) => slopes * (1.0 - (&logits / cap)?.sqr()?)?,
        }
    }
}

/// The same of logits that are multiplied by `scale` first; the gradient is that of the logits before.
#[inline(always)]
fn scaled_row_loss(
    logits: &mut [f32],
    id: usize,
    scale: Option<f32>,
    softcap: Option<f64>,
    back: Option<f32>,
) -> (f32, f32) {
    let Some(scale) = scale else {
        return row_loss(logits, id, softcap, back);
    };
    logits.iter_mut().for_each(|logit| *logit *= scale);
    let loss = row_loss(logits, id, softcap, back);
    logits.iter_mut().for_each(|slope| *slope *= scale);
    loss
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
