//! Stored blocks → numbers, by the arithmetic of the format's own library. Each type is one short loop over arrays of known size, which
//! says how it is laid out; where `registers` has the type too, it does the work, to the same bits.

use products::{Operand, wide};
use rayon::prelude::*;

use super::file::Stored;
#[cfg(target_arch = "x86_64")]
use super::registers;
use crate::quantised::bits::{E2M1, e8m0};

/// Numbers that one thread takes at a time: a multiple of every block.
const CHUNK: usize = 1 << 16;

/// The numbers of `bytes`, which hold whole blocks, on all threads.
pub fn dequantised(bytes: &[u8], stored: Stored) -> Vec<f32> {
    let mut numbers = vec![0.0; stored.count_in(bytes.len())];
    let chunks = bytes.par_chunks(stored.bytes_of(CHUNK));
    let each = numbers.par_chunks_mut(CHUNK).zip(chunks);
    each.for_each(|(numbers, bytes)| write(bytes, stored, numbers));
    numbers
}

/// The first number of `bytes` that is infinite or none, and where it stands.
pub fn first_infinite(bytes: &[u8], stored: Stored) -> Option<(usize, f32)> {
    let chunks = bytes.par_chunks(stored.bytes_of(CHUNK)).enumerate();
    let found = chunks.map_init(Vec::new, |numbers, (chunk, bytes)| {
        numbers.resize(stored.count_in(bytes.len()), 0.0);
        write(bytes, stored, numbers);
        let at = numbers.iter().position(|number| !number.is_finite())?;
        Some((chunk * CHUNK + at, numbers[at]))
    });
    found.find_first(Option::is_some).flatten()
}

/// Writes the numbers of `bytes` on this thread, rounded to the type of their place.
pub fn write<T: Operand>(bytes: &[u8], stored: Stored, into: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if registers::write(bytes, stored, into) {
        return;
    }
    write_plainly(bytes, stored, into);
}

/// Writes x · each row, as many as there are places, summed in so many lanes. False where their numbers have to be written for it.
pub fn multiply<'w>(
    _x: &[f32],
    _row: impl Fn(usize) -> &'w [u8],
    _stored: Stored,
    _lanes: usize,
    _into: &mut [f32],
) -> bool {
    #[cfg(target_arch = "x86_64")]
    return registers::multiply(_x, _row, _stored, _lanes, _into);
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// As [`write`], on any processor.
pub fn write_plainly<T: Operand>(bytes: &[u8], stored: Stored, into: &mut [T]) {
    match stored {
        Stored::F32 => blocks(bytes, into, f32),
        Stored::F16 => blocks(bytes, into, f16),
        Stored::Bf16 => blocks(bytes, into, bf16),
        Stored::Q4_0 => blocks(bytes, into, q4_0),
        Stored::Q4_1 => blocks(bytes, into, q4_1),
        Stored::Q5_0 => blocks(bytes, into, q5_0),
        Stored::Q5_1 => blocks(bytes, into, q5_1),
        Stored::Q8_0 => blocks(bytes, into, q8_0),
        Stored::Q2K => blocks(bytes, into, q2_k),
        Stored::Q3K => blocks(bytes, into, q3_k),
        Stored::Q4K => blocks(bytes, into, q4_k),
        Stored::Q5K => blocks(bytes, into, q5_k),
        Stored::Q6K => blocks(bytes, into, q6_k),
        Stored::Iq4Nl => blocks(bytes, into, iq4_nl),
        Stored::Iq4Xs => blocks(bytes, into, iq4_xs),
        Stored::Mxfp4 => blocks(bytes, into, mxfp4),
    }
}

fn blocks<T: Operand, const BYTES: usize, const NUMBERS: usize>(
    bytes: &[u8],
    into: &mut [T],
    numbers: impl Fn(&[u8; BYTES]) -> [f32; NUMBERS],
) {
    let (bytes, into) = (bytes.as_chunks().0, into.as_chunks_mut::<NUMBERS>().0);
    assert_eq!(bytes.len(), into.len(), "whole blocks");
    wide!({
        for (bytes, into) in bytes.iter().zip(&mut *into) {
            let numbers = numbers(bytes);
            for (into, number) in into.iter_mut().zip(numbers) {
                *into = T::of(number);
            }
        }
    });
}

#[inline(always)]
fn f32(bytes: &[u8; 4]) -> [f32; 1] {
    [f32::from_le_bytes(*bytes)]
}

#[inline(always)]
fn f16(bytes: &[u8; 2]) -> [f32; 1] {
    [half(bytes, 0)]
}

#[inline(always)]
fn bf16(bytes: &[u8; 2]) -> [f32; 1] {
    [f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16)]
}

/// The f16 at a byte. (The `half` crate asks the processor for every number, which no compiler unrolls.)
#[inline(always)]
fn half(bytes: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let (sign, rest) = (bits << 16 & 0x8000_0000, (bits & 0x7fff) << 13);
    let is_finite = bits & 0x7c00 != 0x7c00;
    let scaled = f32::from_bits(rest) * f32::from_bits((127 + 112) << 23); // exponents are 112 apart
    let magnitude = if is_finite {
        scaled.to_bits()
    } else {
        rest | 0x7f80_0000
    };
    f32::from_bits(sign | magnitude)
}

/// The low halves of bytes, then the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [i32; 32] {
    std::array::from_fn(|at| i32::from(bytes[at % 16] >> (at / 16 * 4) & 15))
}

/// A fifth bit for each of 32 numbers.
#[inline(always)]
fn fifth_bits(bytes: &[u8]) -> [i32; 32] {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    std::array::from_fn(|at| ((bits >> at & 1) << 4) as i32)
}

/// A scale, then nibbles that stand for -8 to 7.
#[inline(always)]
fn q4_0(bytes: &[u8; 18]) -> [f32; 32] {
    let scale = half(bytes, 0);
    nibbles(&bytes[2..]).map(|q| (q - 8) as f32 * scale)
}

/// A scale, a least number, then nibbles.
#[inline(always)]
fn q4_1(bytes: &[u8; 20]) -> [f32; 32] {
    let (scale, least) = (half(bytes, 0), half(bytes, 2));
    nibbles(&bytes[4..]).map(|q| q as f32 * scale + least)
}

/// A scale, fifth bits, then nibbles: -16 to 15.
#[inline(always)]
fn q5_0(bytes: &[u8; 22]) -> [f32; 32] {
    let (scale, fifth, low) = (half(bytes, 0), fifth_bits(&bytes[2..]), nibbles(&bytes[6..]));
    std::array::from_fn(|at| ((low[at] | fifth[at]) - 16) as f32 * scale)
}

/// A scale, a least number, fifth bits, then nibbles.
#[inline(always)]
fn q5_1(bytes: &[u8; 24]) -> [f32; 32] {
    let (scale, least) = (half(bytes, 0), half(bytes, 2));
    let (fifth, low) = (fifth_bits(&bytes[4..]), nibbles(&bytes[8..]));
    std::array::from_fn(|at| (low[at] | fifth[at]) as f32 * scale + least)
}

/// A scale, then signed bytes.
#[inline(always)]
fn q8_0(bytes: &[u8; 34]) -> [f32; 32] {
    let scale = half(bytes, 0);
    std::array::from_fn(|at| f32::from(bytes[2 + at] as i8) * scale)
}

/// For each sixteen numbers a scale and an offset of four bits; two bits a number; a scale of each.
#[inline(always)]
fn q2_k(bytes: &[u8; 84]) -> [f32; 256] {
    let (scale, least) = (half(bytes, 80), half(bytes, 82));
    let mut numbers = [0.0; 256];
    for (group, numbers) in numbers.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let both = bytes[group];
        let (scale, least) = (scale * f32::from(both & 15), least * f32::from(both >> 4));
        let (from, shift) = two_bits(group);
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = scale * f32::from(bytes[16 + from + at] >> shift & 3) - least;
        }
    }
    numbers
}

/// Where the two bits of a group of sixteen numbers begin: the byte, and the bit in each.
#[inline(always)]
fn two_bits(group: usize) -> (usize, usize) {
    (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2)
}

/// A third bit for each number, the low two bits, sixteen scales of six bits, and one of all.
#[inline(always)]
fn q3_k(bytes: &[u8; 110]) -> [f32; 256] {
    let scale = half(bytes, 108);
    let mut numbers = [0.0; 256];
    for (group, numbers) in numbers.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = bytes[96 + group % 8] >> (group / 8 * 4) & 15;
        let high = bytes[104 + group % 4] >> (group / 4 * 2) & 3;
        let scale = scale * f32::from((low | high << 4) as i8 - 32);
        let (from, shift) = two_bits(group);
        for (at, number) in numbers.iter_mut().enumerate() {
            let third = bytes[group % 2 * 16 + at] >> (group / 2) & 1;
            let low = bytes[32 + from + at] >> shift & 3;
            *number = scale * f32::from((low | third << 2) as i8 - 4);
        }
    }
    numbers
}

/// The scale and the offset of each of eight groups, six bits each in twelve bytes.
#[inline(always)]
fn six_bits(bytes: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = match group {
        0..4 => (bytes[group] & 63, bytes[group + 4] & 63),
        _ => (
            bytes[group + 4] & 15 | bytes[group - 4] >> 6 << 4,
            bytes[group + 4] >> 4 | bytes[group] >> 6 << 4,
        ),
    };
    (f32::from(scale), f32::from(least))
}

/// Two scales, twelve bytes of scales and offsets for each 32 numbers, then nibbles: low ones of 32 bytes, then the high ones.
#[inline(always)]
fn q4_k(bytes: &[u8; 144]) -> [f32; 256] {
    let (scale, least) = (half(bytes, 0), half(bytes, 2));
    let mut numbers = [0.0; 256];
    for (group, numbers) in numbers.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let own = six_bits(&bytes[4..16], group);
        let (scale, least) = (scale * own.0, least * own.1);
        let (from, shift) = (16 + group / 2 * 32, group % 2 * 4);
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = scale * f32::from(bytes[from + at] >> shift & 15) - least;
        }
    }
    numbers
}

/// As [`q4_k`], with a fifth bit for each number before the nibbles.
#[inline(always)]
fn q5_k(bytes: &[u8; 176]) -> [f32; 256] {
    let (scale, least) = (half(bytes, 0), half(bytes, 2));
    let mut numbers = [0.0; 256];
    for (group, numbers) in numbers.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let own = six_bits(&bytes[4..16], group);
        let (scale, least) = (scale * own.0, least * own.1);
        let (from, shift) = (48 + group / 2 * 32, group % 2 * 4);
        for (at, number) in numbers.iter_mut().enumerate() {
            let fifth = (bytes[16 + at] >> group & 1) << 4;
            *number = scale * f32::from(bytes[from + at] >> shift & 15 | fifth) - least;
        }
    }
    numbers
}

/// Nibbles, two more bits for each number, a signed scale for each sixteen, and one of all.
#[inline(always)]
fn q6_k(bytes: &[u8; 210]) -> [f32; 256] {
    let scale = half(bytes, 208);
    let mut numbers = [0.0; 256];
    for (group, numbers) in numbers.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = scale * f32::from(bytes[192 + group] as i8);
        let (side, quarter, first) = (group / 8, group % 8 / 2, group % 2 * 16);
        let low_from = side * 64 + quarter % 2 * 32 + first;
        let high_from = 128 + side * 32 + first;
        for (at, number) in numbers.iter_mut().enumerate() {
            let low = bytes[low_from + at] >> (quarter / 2 * 4) & 15;
            let high = bytes[high_from + at] >> (quarter * 2) & 3;
            *number = scale * f32::from((low | high << 4) as i8 - 32);
        }
    }
    numbers
}

/// What the 16 codes of the IQ4 types stand for, before their scale.
const IQ4_CODES: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

/// A scale, then 32 codes.
#[inline(always)]
fn iq4_nl(bytes: &[u8; 18]) -> [f32; 32] {
    codes(&bytes[2..], half(bytes, 0), &IQ4_CODES)
}

/// A scale, the high two bits of eight 6-bit scales, their low four bits, then eight groups of 32 codes.
#[inline(always)]
fn iq4_xs(bytes: &[u8; 136]) -> [f32; 256] {
    let scale = half(bytes, 0);
    let high = u16::from_le_bytes([bytes[2], bytes[3]]);
    let mut numbers = [0.0; 256];
    for (group, numbers) in numbers.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = bytes[4 + group / 2] >> (4 * (group % 2)) & 15;
        let high = (high >> (2 * group) & 3) as u8;
        let scale = scale * f32::from((low | high << 4) as i8 - 32);
        *numbers = codes(&bytes[8 + 16 * group..], scale, &IQ4_CODES);
    }
    numbers
}

/// A power of two, then 32 codes.
#[inline(always)]
fn mxfp4(bytes: &[u8; 17]) -> [f32; 32] {
    codes(&bytes[1..], e8m0(bytes[0]), &E2M1)
}

#[inline(always)]
fn codes(bytes: &[u8], scale: f32, table: &[f32; 16]) -> [f32; 32] {
    nibbles(bytes).map(|code| scale * table[code as usize])
}
