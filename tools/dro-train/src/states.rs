//! States: what the final norm gives at the last token of each prompt.

use std::ops::Range;

use model::{Batch, Decoder, Tape, Tensor};

/// Consecutive prompts that run together: at most so many tokens, or one prompt.
pub fn units(prompts: &[&[u32]], batch_tokens: usize) -> Vec<Range<usize>> {
    let mut units: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (at, prompt) in prompts.iter().enumerate() {
        tokens += prompt.len();
        match units.last_mut() {
            Some(unit) if tokens <= batch_tokens => unit.end = at + 1,
            _ => {
                units.push(at..at + 1);
                tokens = prompt.len();
            }
        }
    }
    units
}

/// The states of a batch, and the tensor of all rows that they were taken from.
pub fn of_batch<'m>(tape: &Tape<'m>, decoder: &'m Decoder, batch: &Batch) -> model::Result<(Tensor, Vec<Vec<f64>>)> {
    let normed = decoder.forward(tape, batch, &mut (), None)?; // (rows, hidden)
    let last = Tensor::new(batch.last_rows(), decoder.device())?;
    let states = normed.index_select(&last, 0)?.to_dtype(model::DType::F64)?.to_vec2()?;
    Ok((normed, states))
}

/// The states of all prompts; `seen` hears how many are done.
pub fn of_all(
    decoder: &Decoder,
    prompts: &[&[u32]],
    batch_tokens: usize,
    mut seen: impl FnMut(usize) -> process::Result<()>,
) -> process::Result<Vec<Vec<f64>>> {
    use process::ResultExt;
    let mut all = Vec::with_capacity(prompts.len());
    for unit in units(prompts, batch_tokens) {
        let batch = Batch::pack(&prompts[unit.clone()]);
        all.extend(of_batch(&decoder.tape().steady(), decoder, &batch).at("--model")?.1);
        seen(unit.len())?;
    }
    Ok(all)
}
