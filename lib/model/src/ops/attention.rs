//! Causal attention over packed sequences.

use candle_core::{D, DType, Result, Tensor};

use super::{Tape, composed};

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
    let (offsets, how) = (offsets.to_vec(), *how);
    composed(tape, "attention", &[q, k, v], move |inputs| {
        let [q, k, v] = inputs else {
            unreachable!("three inputs")
        };
        let mut outputs = Vec::with_capacity(offsets.len());
        for pair in offsets.windows(2) {
            let (start, rows) = (pair[0], pair[1] - pair[0]);
            outputs.push(attend(
                &q.narrow(0, start, rows)?,
                &k.narrow(0, start, rows)?,
                &v.narrow(0, start, rows)?,
                &how,
            )?);
        }
        Tensor::cat(&outputs, 0)
    })
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
    let mut outputs = Vec::with_capacity(keys.len());
    for (pair, (k, v)) in offsets.windows(2).zip(keys.iter().zip(values)) {
        outputs.push(attend(&q.narrow(0, pair[0], pair[1] - pair[0])?, k, v, how)?);
    }
    Tensor::cat(&outputs, 0)
}

/// One sequence: q (rows, heads, head_dim) are the last rows of k, v (length, kv_heads, head_dim).
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, how: &Attention) -> Result<Tensor> {
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
            (0..length).map(move |column| {
                let position = past + row;
                let seen = column <= position && how.window.is_none_or(|window| column + window > position);
                if seen { 0.0 } else { f32::NEG_INFINITY }
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
