//! Keys and values of past tokens, one buffer per sequence and layer, so that sequences of any lengths decode together.

use candle_core::{Result, Tensor};

/// The cached past of a batch of sequences.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    /// Cached tokens per sequence.
    lengths: Vec<usize>,
    /// Per layer, per sequence.
    layers: Vec<Vec<Past>>,
}

/// One sequence in one layer: buffers (capacity, kv_heads, head_dim), of which the first `length` rows are filled.
#[derive(Clone, Debug)]
struct Past {
    keys: Tensor,
    values: Tensor,
    length: usize,
    /// Whether another cache may hold the same buffers, which are then never written.
    shared: bool,
}

impl KvCache {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cached tokens of every sequence; empty before the first pass.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// A cache whose sequences continue `sequences` of this one (in that order, with repetition): drop the finished,
    /// reorder, or let many continuations share one prefix, which is stored once until they write.
    pub fn select(&mut self, sequences: &[usize]) -> Self {
        for past in self.layers.iter_mut().flatten() {
            past.shared = true;
        }
        Self {
            lengths: sequences.iter().map(|&index| self.lengths[index]).collect(),
            layers: self
                .layers
                .iter()
                .map(|layer| sequences.iter().map(|&index| layer[index].clone()).collect())
                .collect(),
        }
    }

    /// Adds the sequences of another cache after these: a batch takes in what was prefilled apart.
    pub fn extend(&mut self, other: Self) {
        self.lengths.extend(other.lengths);
        if self.layers.len() < other.layers.len() {
            self.layers.resize_with(other.layers.len(), Vec::new);
        }
        for (layer, pasts) in self.layers.iter_mut().zip(other.layers) {
            layer.extend(pasts);
        }
    }

    /// Drops the sequences that are finished.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        fn filter<T>(list: &mut Vec<T>, keep: &impl Fn(usize) -> bool) {
            let mut index = 0;
            list.retain(|_| {
                index += 1;
                keep(index - 1)
            });
        }
        filter(&mut self.lengths, &keep);
        self.layers.iter_mut().for_each(|layer| filter(layer, &keep));
    }

    /// Notes that a batch with these offsets has been cached in every layer.
    pub(crate) fn advance(&mut self, offsets: &[usize]) {
        self.lengths.resize(offsets.len().saturating_sub(1), 0);
        for (length, pair) in self.lengths.iter_mut().zip(offsets.windows(2)) {
            *length += pair[1] - pair[0];
        }
    }

    /// Appends new keys and values (rows, kv_heads, head_dim), packed, and gives each sequence's whole past as views.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
        offsets: &[usize],
    ) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, Vec::new);
        }
        let pasts = &mut self.layers[layer];
        let mut all = (Vec::with_capacity(offsets.len()), Vec::with_capacity(offsets.len()));
        for (index, pair) in offsets.windows(2).enumerate() {
            let (start, rows) = (pair[0], pair[1] - pair[0]);
            let keys = keys.narrow(0, start, rows)?.contiguous()?;
            let values = values.narrow(0, start, rows)?.contiguous()?;
            if pasts.len() == index {
                let (keys, values) = (reserve(&keys, rows)?, reserve(&values, rows)?);
                pasts.push(Past {
                    keys,
                    values,
                    length: 0,
                    shared: false,
                });
            }
            let past = &mut pasts[index];
            let length = past.length + rows;
            if past.shared || length > past.keys.dim(0)? {
                past.keys = grow(&past.keys, past.length, length)?;
                past.values = grow(&past.values, past.length, length)?;
                past.shared = false;
            }
            past.keys.slice_set(&keys, 0, past.length)?;
            past.values.slice_set(&values, 0, past.length)?;
            past.length = length;
            all.0.push(past.keys.narrow(0, 0, length)?);
            all.1.push(past.values.narrow(0, 0, length)?);
        }
        Ok(all)
    }
}

/// A buffer like `rows` for at least `length` tokens; half as much again, so that appending one by one is linear.
fn reserve(rows: &Tensor, length: usize) -> Result<Tensor> {
    let (_, kv_heads, head_dim) = rows.dims3()?;
    let capacity = (length + length / 2 + 16).next_multiple_of(16);
    Tensor::zeros((capacity, kv_heads, head_dim), rows.dtype(), rows.device())
}

fn grow(buffer: &Tensor, filled: usize, length: usize) -> Result<Tensor> {
    let grown = reserve(buffer, length)?;
    if filled > 0 {
        grown.slice_set(&buffer.narrow(0, 0, filled)?.contiguous()?, 0, 0)?;
    }
    Ok(grown)
}
