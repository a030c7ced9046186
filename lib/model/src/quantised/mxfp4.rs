//! Four-bit floats with a power of two for each 32 of a row: the experts of gpt-oss.

use rayon::prelude::*;

use super::{Parts, bits};
use crate::error::Result;

/// What stands behind a tensor's name in the names of its parts.
pub const PARTS: [&str; 2] = ["blocks", "scales"];

/// Numbers that have one scale.
const RUN: usize = 32;

/// The matrices (experts, in, out) called `name`: their parts are stored by output, (experts, out, in / 32, 16) bytes of two codes and
/// (experts, out, in / 32) scales.
pub fn values(parts: &Parts, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
    let [blocks, scales] = PARTS.map(|part| format!("{name}_{part}"));
    if parts.find(&blocks)?.is_none() {
        return Ok(None);
    }
    let [experts, inputs, outputs] = [shape[0], shape[1], shape[2]];
    if !inputs.is_multiple_of(RUN) {
        return Err(parts.refuse(
            &blocks,
            format!("are runs of {RUN} numbers, of which {inputs} are no multiple"),
        ));
    }
    let runs = inputs / RUN;
    let codes = parts.expect(&blocks, "U8", &[experts, outputs, runs, RUN / 2])?;
    let scales = parts.expect(&scales, "U8", &[experts, outputs, runs])?;
    let mut values = vec![0.0; experts * inputs * outputs];
    let each = values.par_chunks_exact_mut(inputs * outputs);
    let stored = codes
        .par_chunks_exact(outputs * inputs / 2)
        .zip(scales.par_chunks_exact(outputs * runs));
    each.zip(stored).for_each(|(values, (codes, scales))| {
        for run in 0..runs {
            let values = &mut values[run * RUN * outputs..][..RUN * outputs];
            for output in 0..outputs {
                let at = output * runs + run;
                write_run(&codes[at * RUN / 2..][..RUN / 2], scales[at], |number, value| {
                    values[number * outputs + output] = value;
                });
            }
        }
    });
    Ok(Some(values))
}

/// Of each byte the low half comes first.
fn write_run(codes: &[u8], scale: u8, mut write: impl FnMut(usize, f32)) {
    let scale = bits::e8m0(scale);
    for (at, byte) in codes.iter().enumerate() {
        write(2 * at, scale * bits::E2M1[usize::from(byte & 15)]);
        write(2 * at + 1, scale * bits::E2M1[usize::from(byte >> 4)]);
    }
}
