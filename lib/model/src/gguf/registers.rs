//! Stored blocks → numbers in AVX2's registers: to the bit what `blocks` makes of them, which says how each type is laid out.
//!
//! Every type comes down to 32 small integers times a scale, perhaps less an offset. A byte is put on top of a lane, where it is 2^24
//! times itself, sign and all, and scales are as much smaller. Products of an integer and a scale have no more bits than an f32, so
//! that it does not matter whether an offset is taken off in the same step.

use std::arch::x86_64::*;

use products::Operand;
use products::blocks::{self, Bf16, Blocks};

use super::file::Stored;

/// What is done for a type, if its blocks are read here.
macro_rules! of_type {
    ($stored:expr, |$type:ident| $work:expr) => {
        of_type!($stored, |$type| $work, F16 Bf16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2K Q3K Q4K Q5K Q6K Iq4Nl Iq4Xs)
    };
    ($stored:expr, |$type:ident| $work:expr, $($name:ident)*) => {
        match $stored {
            $(Stored::$name => {
                type $type = $name;
                Some($work)
            })*
            Stored::F32 | Stored::Mxfp4 => None,
        }
    };
}

/// Writes the numbers of `bytes`, rounded to the type of their place. False where that cannot be done here, and nothing is written.
pub fn write<T: Operand>(bytes: &[u8], stored: Stored, into: &mut [T]) -> bool {
    of_type!(stored, |Type| blocks::write::<Type, _, _, _>(bytes, into)).unwrap_or(false)
}

/// Writes x · each row, as many as there are places, summed in so many lanes. False where that cannot be done here, and nothing is written.
pub fn multiply<'w>(
    x: &[f32],
    row: impl Fn(usize) -> &'w [u8],
    stored: Stored,
    lanes: usize,
    into: &mut [f32],
) -> bool {
    of_type!(stored, |Type| blocks::multiply::<Type, _, _>(x, row, lanes, into)).unwrap_or(false)
}

/// Sixteen bytes, in both halves of a register.
type Sixteen = __m256i;

/// 2^-24.
const SMALL: f32 = f32::from_bits((127 - 24) << 23);

#[inline]
#[target_feature(enable = "avx2")]
fn sixteen(bytes: &[u8], at: usize) -> Sixteen {
    let bytes = &bytes[at..at + 16];
    // SAFETY: sixteen bytes are there.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn thirty_two(bytes: &[u8], at: usize) -> [Sixteen; 2] {
    [sixteen(bytes, at), sixteen(bytes, at + 16)]
}

/// Eight bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn eight(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 8];
    // SAFETY: eight bytes are there.
    unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) }
}

/// The f16 at a byte, in every lane.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn half(bytes: &[u8], at: usize) -> __m256 {
    _mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes([bytes[at], bytes[at + 1]])))
}

/// The f16 at a byte as the scale of bytes on top of their lanes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scale(bytes: &[u8], at: usize) -> __m256 {
    _mm256_mul_ps(half(bytes, at), _mm256_set1_ps(SMALL))
}

/// Each byte's bits from `shift` on that are in `mask`.
#[inline]
#[target_feature(enable = "avx2")]
fn bits(bytes: Sixteen, shift: usize, mask: i8) -> Sixteen {
    let shifted = _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32));
    _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
}

/// The low halves of sixteen bytes, then the high ones.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(bytes: &[u8], at: usize) -> [Sixteen; 2] {
    let bytes = sixteen(bytes, at);
    [bits(bytes, 0, 15), bits(bytes, 4, 15)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn less(bytes: Sixteen, offset: i8) -> Sixteen {
    _mm256_sub_epi8(bytes, _mm256_set1_epi8(offset))
}

/// Signed bytes, times 2^24.
#[inline]
#[target_feature(enable = "avx2")]
fn wide(bytes: Sixteen) -> [__m256; 2] {
    const fn on_top(first: i8) -> [i8; 32] {
        let mut places = [-1; 32]; // which fill a lane with zeros
        let mut lane = 0;
        while lane < 8 {
            places[4 * lane + 3] = first + lane as i8;
            lane += 1;
        }
        places
    }
    const PLACES: [[i8; 32]; 2] = [on_top(0), on_top(8)];
    // SAFETY: 32 bytes are a register.
    let places = unsafe {
        [
            _mm256_loadu_si256(PLACES[0].as_ptr().cast()),
            _mm256_loadu_si256(PLACES[1].as_ptr().cast()),
        ]
    };
    [
        _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, places[0])),
        _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, places[1])),
    ]
}

/// Signed bytes times a scale of each sixteen.
#[inline]
#[target_feature(enable = "avx2")]
fn times(bytes: [Sixteen; 2], scales: [__m256; 2]) -> [__m256; 4] {
    let ([a, b], [c, d]) = (wide(bytes[0]), wide(bytes[1]));
    [
        _mm256_mul_ps(a, scales[0]),
        _mm256_mul_ps(b, scales[0]),
        _mm256_mul_ps(c, scales[1]),
        _mm256_mul_ps(d, scales[1]),
    ]
}

/// Bytes times a scale, less an offset, of each sixteen.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn times_less(bytes: [Sixteen; 2], scales: [__m256; 2], offsets: [__m256; 2]) -> [__m256; 4] {
    let ([a, b], [c, d]) = (wide(bytes[0]), wide(bytes[1]));
    [
        _mm256_fmsub_ps(a, scales[0], offsets[0]),
        _mm256_fmsub_ps(b, scales[0], offsets[0]),
        _mm256_fmsub_ps(c, scales[1], offsets[1]),
        _mm256_fmsub_ps(d, scales[1], offsets[1]),
    ]
}

/// One type: its name, bytes and numbers; what the groups of a block share; the numbers of a group.
macro_rules! blocks {
    (
        $name:ident [$bytes:literal; $numbers:literal] $scales:ty;
        scales($block:ident) => $make:expr;
        numbers($of:ident, $held:ident, $group:ident) => $decode:expr;
    ) => {
        pub struct $name;

        impl Blocks<$bytes, $numbers> for $name {
            type Scales = $scales;

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn scales($block: &[u8; $bytes]) -> $scales {
                $make
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn numbers($of: &[u8; $bytes], $held: &$scales, $group: usize) -> [__m256; 4] {
                $decode
            }
        }
    };
}

blocks! {
    F16 [64; 32] ();
    scales(_block) => ();
    numbers(block, _none, _group) => {
        let read = |at: usize| _mm256_cvtph_ps(_mm256_castsi256_si128(sixteen(block, at)));
        [read(0), read(16), read(32), read(48)]
    };
}

blocks! {
    Q8_0 [34; 32] __m256;
    scales(block) => half(block, 0);
    numbers(block, scale, _group) => {
        let read = |at: usize| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight(block, at))), *scale);
        [read(2), read(10), read(18), read(26)]
    };
}

blocks! {
    Q4_0 [18; 32] __m256;
    scales(block) => scale(block, 0);
    numbers(block, scale, _group) => {
        let [low, high] = nibbles(block, 2);
        times([less(low, 8), less(high, 8)], [*scale; 2])
    };
}

blocks! {
    Q4_1 [20; 32] [__m256; 2];
    scales(block) => [scale(block, 0), negative(half(block, 2))];
    numbers(block, held, _group) => times_less(nibbles(block, 4), [held[0]; 2], [held[1]; 2]);
}

blocks! {
    Q5_0 [22; 32] __m256;
    scales(block) => scale(block, 0);
    numbers(block, scale, _group) => {
        let [low, high] = five_bits(block, 2);
        times([less(low, 16), less(high, 16)], [*scale; 2])
    };
}

blocks! {
    Q5_1 [24; 32] [__m256; 2];
    scales(block) => [scale(block, 0), negative(half(block, 2))];
    numbers(block, held, _group) => times_less(five_bits(block, 4), [held[0]; 2], [held[1]; 2]);
}

blocks! {
    Iq4Nl [18; 32] __m256;
    scales(block) => scale(block, 0);
    numbers(block, scale, _group) => times(codes(block, 2), [*scale; 2]);
}

blocks! {
    Iq4Xs [136; 256] [f32; 8];
    scales(block) => {
        let (all, high) = (_mm256_cvtss_f32(scale(block, 0)), u16::from_le_bytes([block[2], block[3]]));
        let mut scales = [0.0; 8];
        for (group, scale) in scales.iter_mut().enumerate() {
            let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
            let high = (high >> (2 * group) & 3) as u8;
            *scale = all * f32::from((low | high << 4) as i8 - 32);
        }
        scales
    };
    numbers(block, scales, group) => times(codes(block, 8 + 16 * group), alike(scales[group]));
}

blocks! {
    Q2K [84; 256] [[f32; 16]; 2];
    scales(block) => {
        let both = sixteen(block, 0);
        [
            products_of(scale(block, 80), bits(both, 0, 15)),
            products_of(half(block, 82), bits(both, 4, 15)),
        ]
    };
    numbers(block, held, group) => {
        let [first, second] = thirty_two(block, 16 + group / 4 * 32);
        let number = |bytes| bits(bytes, group % 4 * 2, 3);
        times_less([number(first), number(second)], pair(&held[0], group), pair(&held[1], group))
    };
}

blocks! {
    Q3K [110; 256] [f32; 16];
    scales(block) => {
        let [first, second, high] = [word(block, 96), word(block, 100), word(block, 104)];
        let six = |low: u32, shift: usize| low & 0x0f0f_0f0f | (high >> shift & 0x0303_0303) << 4;
        let bytes = registers_of([six(first, 0), six(second, 2), six(first >> 4, 4), six(second >> 4, 6)]);
        products_of(scale(block, 108), less(_mm256_broadcastsi128_si256(bytes), 32))
    };
    numbers(block, scales, group) => {
        let (low, third) = (thirty_two(block, 32 + group / 4 * 32), thirty_two(block, 0));
        let number = |low, third| {
            let third = _mm256_slli_epi16::<2>(bits(third, group, 1));
            less(_mm256_or_si256(bits(low, group % 4 * 2, 3), third), 4)
        };
        times([number(low[0], third[0]), number(low[1], third[1])], pair(scales, group))
    };
}

blocks! {
    Q4K [144; 256] [[f32; 8]; 2];
    scales(block) => six_bits(block);
    numbers(block, held, group) => {
        let [first, second] = thirty_two(block, 16 + group / 2 * 32);
        let number = |bytes| bits(bytes, group % 2 * 4, 15);
        times_less([number(first), number(second)], alike(held[0][group]), alike(held[1][group]))
    };
}

blocks! {
    Q5K [176; 256] [[f32; 8]; 2];
    scales(block) => six_bits(block);
    numbers(block, held, group) => {
        let (low, fifth) = (thirty_two(block, 48 + group / 2 * 32), thirty_two(block, 16));
        let number = |low, fifth| {
            let fifth = _mm256_slli_epi16::<4>(bits(fifth, group, 1));
            _mm256_or_si256(bits(low, group % 2 * 4, 15), fifth)
        };
        let numbers = [number(low[0], fifth[0]), number(low[1], fifth[1])];
        times_less(numbers, alike(held[0][group]), alike(held[1][group]))
    };
}

blocks! {
    Q6K [210; 256] [f32; 16];
    scales(block) => products_of(scale(block, 208), sixteen(block, 192));
    numbers(block, scales, group) => {
        let (side, quarter) = (group / 4, group % 4);
        let (low, high) = (thirty_two(block, side * 64 + quarter % 2 * 32), thirty_two(block, 128 + side * 32));
        let number = |low, high| {
            let high = _mm256_slli_epi16::<4>(bits(high, quarter * 2, 3));
            less(_mm256_or_si256(bits(low, quarter / 2 * 4, 15), high), 32)
        };
        times([number(low[0], high[0]), number(low[1], high[1])], pair(scales, group))
    };
}

#[inline]
#[target_feature(enable = "avx2")]
fn negative(x: __m256) -> __m256 {
    _mm256_xor_ps(x, _mm256_set1_ps(-0.0))
}

#[inline]
#[target_feature(enable = "avx2")]
fn alike(number: f32) -> [__m256; 2] {
    [_mm256_set1_ps(number); 2]
}

/// Of two neighbouring sixteens.
#[inline]
#[target_feature(enable = "avx2")]
fn pair(numbers: &[f32; 16], group: usize) -> [__m256; 2] {
    [
        _mm256_set1_ps(numbers[2 * group]),
        _mm256_set1_ps(numbers[2 * group + 1]),
    ]
}

/// What sixteen signed bytes are, times a number.
#[inline]
#[target_feature(enable = "avx2")]
fn products_of(number: __m256, bytes: Sixteen) -> [f32; 16] {
    let bytes = _mm256_castsi256_si128(bytes);
    let halves = [
        _mm256_cvtepi8_epi32(bytes),
        _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)),
    ];
    let mut products = [0.0; 16];
    for (half, into) in halves.into_iter().zip(products.as_chunks_mut::<8>().0) {
        // SAFETY: a register is eight numbers.
        unsafe { _mm256_storeu_ps(into.as_mut_ptr(), _mm256_mul_ps(_mm256_cvtepi32_ps(half), number)) };
    }
    products
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
#[target_feature(enable = "avx2")]
fn registers_of(words: [u32; 4]) -> __m128i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm_setr_epi32(a, b, c, d)
}

/// The scales and the offsets of eight groups, six bits each in the twelve bytes from the fourth on.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn six_bits(block: &[u8]) -> [[f32; 8]; 2] {
    let [scales, offsets, rest] = [word(block, 4), word(block, 8), word(block, 12)];
    let first = |of: u32| of & 0x3f3f_3f3f;
    let last = |of: u32, low: u32| low & 0x0f0f_0f0f | (of >> 6 & 0x0303_0303) << 4;
    let bytes = registers_of([
        first(scales),
        last(scales, rest),
        first(offsets),
        last(offsets, rest >> 4),
    ]);
    let bytes = _mm256_broadcastsi128_si256(bytes);
    let (scales, offsets) = (products_of(scale(block, 0), bytes), products_of(half(block, 2), bytes));
    [
        std::array::from_fn(|group| scales[group]),
        std::array::from_fn(|group| offsets[8 + group]),
    ]
}

/// Nibbles and the fifth bit of each, which stand before them.
#[inline]
#[target_feature(enable = "avx2")]
fn five_bits(bytes: &[u8], at: usize) -> [Sixteen; 2] {
    let [low, high] = nibbles(bytes, at + 4);
    let fifth = _mm256_set1_epi32(word(bytes, at).cast_signed());
    let spread = |byte: i64| {
        // eight copies of the byte, then eight of the next one, of each of which one bit is kept
        let (first, second) = (0x0101_0101_0101_0101 * byte, 0x0101_0101_0101_0101 * (byte + 1));
        let each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
        let bytes = _mm256_shuffle_epi8(fifth, _mm256_setr_epi64x(first, second, first, second));
        _mm256_and_si256(
            _mm256_cmpeq_epi8(_mm256_and_si256(bytes, each), each),
            _mm256_set1_epi8(16),
        )
    };
    [_mm256_or_si256(low, spread(0)), _mm256_or_si256(high, spread(2))]
}

/// What 32 codes of the IQ4 types stand for.
#[inline]
#[target_feature(enable = "avx2")]
fn codes(bytes: &[u8], at: usize) -> [Sixteen; 2] {
    let codes = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    let table = _mm256_broadcastsi128_si256(codes);
    let [low, high] = nibbles(bytes, at);
    [_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high)]
}
