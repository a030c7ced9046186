//! Integers packed into words: GPTQ and AWQ.

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::{Parts, bits};
use crate::error::{Error, Result};

/// How integers lie in words of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packing {
    /// Along the inputs, in order; zero points may be stored one too low.
    Gptq { bits: usize, zero_offset: u32 },
    /// Along the outputs, even ones before odd ones.
    Awq,
}

/// Where in eight outputs each four bits of a word belong.
const AWQ_ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

impl Packing {
    pub fn gptq(said: &Map<String, Value>) -> Result<Self> {
        let bits = match said.get("bits").and_then(Value::as_u64) {
            Some(bits @ (2 | 4 | 8)) => bits as usize,
            _ => return refuse(said, "bits"),
        };
        let format = said.get("checkpoint_format").and_then(Value::as_str);
        match format.unwrap_or("gptq") {
            "gptq" => Ok(Self::Gptq { bits, zero_offset: 1 }),
            "gptq_v2" => Ok(Self::Gptq { bits, zero_offset: 0 }),
            _ => refuse(said, "checkpoint_format"),
        }
    }

    pub fn awq(said: &Map<String, Value>) -> Result<Self> {
        let version = said.get("version").and_then(Value::as_str).map(str::to_lowercase);
        match (said.get("bits").and_then(Value::as_u64), version.as_deref()) {
            (Some(4), None | Some("gemm")) => Ok(Self::Awq),
            (Some(4), _) => refuse(said, "version"),
            _ => refuse(said, "bits"),
        }
    }
}

fn refuse<T>(said: &Map<String, Value>, key: &str) -> Result<T> {
    let value = said.get(key).unwrap_or(&Value::Null);
    Err(Error::Config(format!(
        "quantization_config: {key} = {value} is not read"
    )))
}

/// The integers of a matrix, (in, out), and the zero points of its groups, (groups, out).
type Integers = (Vec<u32>, Vec<u32>);

/// `(q − zero) · scale` of every output and input, (out, in).
pub fn values(parts: &Parts, shape: &[usize], packing: Packing) -> Result<Option<Vec<f32>>> {
    if parts.find("qweight")?.is_none() {
        return Ok(None);
    }
    let (outputs, inputs) = (shape[0], shape[1]);
    let groups = match parts.get("scales")?.shape {
        &[groups, columns] if columns == outputs && (1..=inputs).contains(&groups) => groups,
        other => return Err(parts.refuse("scales", format!("has shape {other:?} for {shape:?}"))),
    };
    let group_of = groups_of(parts, inputs, groups)?;
    let scales = parts.numbers("scales", groups * outputs)?;
    let (integers, zeros) = match packing {
        Packing::Gptq { bits, zero_offset } => gptq(parts, [inputs, outputs, groups], bits, zero_offset)?,
        Packing::Awq => awq(parts, [inputs, outputs, groups])?,
    };
    let value = |at: usize| {
        let (output, input) = (at / inputs, at % inputs);
        let of_group = group_of[input] * outputs + output;
        (integers[input * outputs + output] as f32 - zeros[of_group] as f32) * scales[of_group]
    };
    Ok(Some((0..outputs * inputs).into_par_iter().map(value).collect()))
}

fn gptq(parts: &Parts, [inputs, outputs, groups]: [usize; 3], bits: usize, zero_offset: u32) -> Result<Integers> {
    let per_word = 32 / bits;
    if !inputs.is_multiple_of(per_word) || !outputs.is_multiple_of(per_word) {
        return Err(no_whole_words(parts, inputs, outputs));
    }
    let across = outputs / per_word;
    let weights = bits::words(parts.expect("qweight", "I32", &[inputs / per_word, outputs])?);
    let zeros = bits::words(parts.expect("qzeros", "I32", &[groups, across])?);
    let mask = (1u32 << bits) - 1;
    let zero = |at: usize| {
        let (group, output) = (at / outputs, at % outputs);
        zeros[group * across + output / per_word] >> (output % per_word * bits) & mask
    };
    let integer = |at: usize| {
        let (input, output) = (at / outputs, at % outputs);
        weights[input / per_word * outputs + output] >> (input % per_word * bits) & mask
    };
    let zeros: Vec<u32> = (0..groups * outputs).map(zero).collect();
    if zero_offset == 1 && zeros.contains(&mask) {
        // programs disagree on whether the sum runs over
        return Err(parts.refuse("qzeros", "holds a zero point one above the largest".into()));
    }
    let integers = (0..inputs * outputs).into_par_iter().map(integer).collect();
    Ok((integers, zeros.into_iter().map(|zero| zero + zero_offset).collect()))
}

fn awq(parts: &Parts, [inputs, outputs, groups]: [usize; 3]) -> Result<Integers> {
    if !outputs.is_multiple_of(8) {
        return Err(no_whole_words(parts, inputs, outputs));
    }
    let weights = parts.expect("qweight", "I32", &[inputs, outputs / 8])?;
    let zeros = parts.expect("qzeros", "I32", &[groups, outputs / 8])?;
    Ok((in_order(&bits::words(weights)), in_order(&bits::words(zeros))))
}

fn no_whole_words(parts: &Parts, inputs: usize, outputs: usize) -> Error {
    parts.refuse(
        "qweight",
        format!("of {inputs} by {outputs} is no whole number of words"),
    )
}

/// The group of each input: what `g_idx` says, or equal runs.
fn groups_of(parts: &Parts, inputs: usize, groups: usize) -> Result<Vec<usize>> {
    if parts.find("g_idx")?.is_some() {
        let given = bits::words(parts.expect("g_idx", "I32", &[inputs])?);
        return match given.iter().find(|group| **group as usize >= groups) {
            None => Ok(given.into_iter().map(|group| group as usize).collect()),
            Some(group) => Err(parts.refuse("g_idx", format!("names group {group} of {groups}"))),
        };
    }
    match inputs.is_multiple_of(groups) {
        true => Ok((0..inputs).map(|input| input / (inputs / groups)).collect()),
        false => Err(parts.refuse("scales", format!("has {groups} groups for {inputs} inputs"))),
    }
}

/// The integers of words, eight each, in the order of the outputs.
fn in_order(words: &[u32]) -> Vec<u32> {
    let mut integers = vec![0; 8 * words.len()];
    for (word, into) in words.iter().zip(integers.chunks_exact_mut(8)) {
        for (place, output) in AWQ_ORDER.into_iter().enumerate() {
            into[output] = word >> (4 * place) & 15;
        }
    }
    integers
}
