//! The decoder's operations on packed rows: every one takes and returns candle tensors and has a gradient.
//!
//! Sequences are packed without padding: a batch is one matrix of rows, and `offsets` says where each sequence starts
//! (`offsets[i]..offsets[i + 1]` are the rows of sequence `i`, the last entry is the row count). Shapes are written
//! (rows, heads, head_dim). Nothing here knows a model family.

use candle_core::{D, DType, Result, Tensor};

/// The elementwise non-linearity of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// The exact form, through erf.
    Gelu,
    /// The tanh approximation (`gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`).
    GeluTanh,
    Relu,
}

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

/// `x · wᵀ + bias`; x (rows, in), w (out, in), bias (out) → (rows, out).
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&w.t()?)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// `x / sqrt(mean(x²) + eps) · (offset + weight)` over the last dimension, in f32 inside; x (.., d), weight (d).
/// `offset` is 0, or 1 for Gemma, which stores its weights around zero.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64, offset: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let variance = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = wide.broadcast_div(&(variance + eps)?.sqrt()?)?;
    let weight = weight.to_dtype(DType::F32)?.affine(1.0, offset)?;
    normed.broadcast_mul(&weight)?.to_dtype(x.dtype())
}

/// `(x - mean) / sqrt(var + eps) · weight + bias` over the last dimension, in f32 inside; weight and bias (d) or absent.
pub fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let mut y = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    if let Some(weight) = weight {
        y = y.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    }
    if let Some(bias) = bias {
        y = y.broadcast_add(&bias.to_dtype(DType::F32)?)?;
    }
    y.to_dtype(x.dtype())
}

/// Rotates the first `2 · half` of each head's dimensions by the row's angle, the rest passes unchanged ("rotate half":
/// dimension i pairs with i + half). x (rows, heads, head_dim); cos and sin (rows, half), f32, already chosen per row.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (_, _, head_dim) = x.dims3()?;
    let half = cos.dim(1)?;
    let (cos, sin) = (cos.to_dtype(x.dtype())?.unsqueeze(1)?, sin.to_dtype(x.dtype())?.unsqueeze(1)?); // (rows, 1, half)
    let low = x.narrow(2, 0, half)?;
    let high = x.narrow(2, half, half)?;
    let mut parts = vec![
        (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?,
        (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?,
    ];
    if 2 * half < head_dim {
        parts.push(x.narrow(2, 2 * half, head_dim - 2 * half)?);
    }
    Tensor::cat(&parts, 2)
}

/// Causal attention of each packed sequence over itself; q (rows, heads, head_dim), k and v (rows, kv_heads, head_dim)
/// → (rows, heads, head_dim). Query head h reads key head h / (heads / kv_heads).
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, offsets: &[usize], how: &Attention) -> Result<Tensor> {
    let mut outputs = Vec::with_capacity(offsets.len());
    for pair in offsets.windows(2) {
        let (start, rows) = (pair[0], pair[1] - pair[0]);
        outputs.push(attend(&q.narrow(0, start, rows)?, &k.narrow(0, start, rows)?, &v.narrow(0, start, rows)?, how)?);
    }
    Tensor::cat(&outputs, 0)
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
    let q = q.reshape((rows, kv_heads, group, head_dim))?.permute((1, 2, 0, 3))?.reshape((
        kv_heads,
        group * rows,
        head_dim,
    ))?;
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
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?.to_dtype(v.dtype())?;
    let out = weights.reshape((kv_heads, group * rows, length))?.matmul(&v)?;
    out.reshape((kv_heads, group, rows, value_dim))?.permute((2, 0, 1, 3))?.reshape((rows, heads, value_dim))
}

/// `activation(gate) · up`, elementwise.
pub fn gated(gate: &Tensor, up: &Tensor, activation: Activation) -> Result<Tensor> {
    activate(gate, activation)? * up
}

/// The activation alone, elementwise.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
    }
}
