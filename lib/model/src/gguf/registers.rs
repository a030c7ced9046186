//! Stored blocks → numbers in registers: to the bit what `blocks` makes of them, which says how each type is laid out.
//!
//! Every type comes down to groups of 32 signed bytes times a scale, perhaps with an offset. A byte is put on top of a lane, where it is
//! 2^24 times itself, sign and all, and scales are as much smaller. Products of an integer and a scale have no more bits than an f32, so
//! that it does not matter whether an offset is added in the same step. Of four bits there are sixteen: in wide registers they are
//! looked up in a table of the numbers that they stand for.

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

/// 2^-24.
const SMALL: f32 = f32::from_bits((127 - 24) << 23);

#[inline]
#[target_feature(enable = "avx2")]
fn sixteen(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 16];
    // SAFETY: sixteen bytes are there.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn thirty_two(bytes: &[u8], at: usize) -> __m256i {
    let bytes = &bytes[at..at + 32];
    // SAFETY: 32 bytes are there.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
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
fn bits(bytes: __m256i, shift: usize, mask: i8) -> __m256i {
    let shifted = _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32));
    _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
}

/// The low halves of sixteen bytes, then the high ones.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(bytes: &[u8], at: usize) -> __m256i {
    let twice = _mm256_broadcastsi128_si256(sixteen(bytes, at));
    let shifted = _mm256_srlv_epi64(twice, _mm256_setr_epi64x(0, 0, 4, 4));
    _mm256_and_si256(shifted, _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2")]
fn less(bytes: __m256i, offset: i8) -> __m256i {
    _mm256_sub_epi8(bytes, _mm256_set1_epi8(offset))
}

/// For each of so many lanes its own byte, from `first` on, on top, and below it a place where there is none.
const fn on_top<const BYTES: usize>(first: usize) -> [i8; BYTES] {
    let mut places = [-1; BYTES];
    let mut lane = 0;
    while lane < BYTES / 4 {
        places[4 * lane + 3] = (first + lane) as i8;
        lane += 1;
    }
    places
}

/// Signed bytes, times 2^24.
#[inline]
#[target_feature(enable = "avx2")]
fn eights(bytes: __m256i) -> [__m256; 4] {
    const PLACES: [[i8; 32]; 2] = [on_top(0), on_top(8)];
    // SAFETY: 32 bytes are a register.
    let places = PLACES.map(|places| unsafe { _mm256_loadu_si256(places.as_ptr().cast()) });
    let twice = [
        _mm256_permute4x64_epi64::<0b01_00_01_00>(bytes),
        _mm256_permute4x64_epi64::<0b11_10_11_10>(bytes),
    ];
    std::array::from_fn(|at| _mm256_cvtepi32_ps(_mm256_shuffle_epi8(twice[at / 2], places[at % 2])))
}

/// The same in registers of sixteen.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn sixteens(bytes: __m256i) -> [__m512; 2] {
    const PLACES: [[i8; 64]; 2] = [on_top(0), on_top(16)];
    PLACES.map(|places| {
        // SAFETY: 64 bytes are a register.
        let places = unsafe { _mm512_loadu_si512(places.as_ptr().cast()) };
        // of the place -1 the lowest six bits count, and there is a zero
        _mm512_cvtepi32_ps(_mm512_permutexvar_epi8(places, _mm512_zextsi256_si512(bytes)))
    })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn doubled(alike: __m256) -> __m512 {
    _mm512_broadcastss_ps(_mm256_castps256_ps128(alike))
}

/// Signed bytes times a scale of each sixteen.
struct Times(__m256i, [__m256; 2]);

impl Times {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn eights(self) -> [__m256; 4] {
        let (numbers, scales) = (eights(self.0), self.1);
        std::array::from_fn(|at| _mm256_mul_ps(numbers[at], scales[at / 2]))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx2")]
    fn sixteens(self) -> [__m512; 2] {
        let (numbers, scales) = (sixteens(self.0), self.1);
        std::array::from_fn(|at| _mm512_mul_ps(numbers[at], doubled(scales[at])))
    }
}

/// Bytes times a scale, with an offset, of each sixteen.
struct TimesPlus(__m256i, [__m256; 2], [__m256; 2]);

impl TimesPlus {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn eights(self) -> [__m256; 4] {
        let (numbers, scales, offsets) = (eights(self.0), self.1, self.2);
        std::array::from_fn(|at| _mm256_fmadd_ps(numbers[at], scales[at / 2], offsets[at / 2]))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx2")]
    fn sixteens(self) -> [__m512; 2] {
        let (numbers, scales, offsets) = (sixteens(self.0), self.1, self.2);
        std::array::from_fn(|at| _mm512_fmadd_ps(numbers[at], doubled(scales[at]), doubled(offsets[at])))
    }
}

/// What sixteen codes stand for, times a scale that is as much smaller.
struct Table([f32; 16]);

impl Table {
    const fn of(codes: [i8; 16]) -> Self {
        let mut numbers = [0.0; 16];
        let mut code = 0;
        while code < 16 {
            numbers[code] = codes[code] as f32 / SMALL;
            code += 1;
        }
        Self(numbers)
    }

    /// The numbers, times a scale.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn times(&self, scale: __m256) -> __m512 {
        // SAFETY: sixteen numbers are a register.
        _mm512_mul_ps(unsafe { _mm512_loadu_ps(self.0.as_ptr()) }, doubled(scale))
    }

    /// The numbers, times a scale, with an offset.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn times_plus(&self, scale: __m256, offset: __m256) -> __m512 {
        // SAFETY: likewise.
        _mm512_fmadd_ps(
            unsafe { _mm512_loadu_ps(self.0.as_ptr()) },
            doubled(scale),
            doubled(offset),
        )
    }
}

const PLAIN: [i8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const LESS_EIGHT: [i8; 16] = [-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7];
/// What the codes of the IQ4 types stand for.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
static OF_PLAIN: Table = Table::of(PLAIN);
static OF_LESS_EIGHT: Table = Table::of(LESS_EIGHT);
static OF_IQ4: Table = Table::of(IQ4);

/// The numbers in a table of the low halves of sixteen bytes, then of the high ones.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn looked_up(bytes: &[u8], at: usize, table: __m512) -> [__m512; 2] {
    let low = _mm512_cvtepu8_epi32(sixteen(bytes, at));
    [low, high(low)].map(|codes| _mm512_permutexvar_ps(codes, table))
}

/// The numbers in a table of the low halves of 32 bytes, or of the high ones.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn looked_up_all(bytes: &[u8], at: usize, are_high: bool, table: __m512) -> [__m512; 2] {
    let low = [at, at + 16].map(|at| _mm512_cvtepu8_epi32(sixteen(bytes, at)));
    let codes = if are_high { low.map(|low| high(low)) } else { low };
    codes.map(|codes| _mm512_permutexvar_ps(codes, table))
}

/// The high halves of bytes, as far as an index counts: its lowest four bits. (A shift would be done before bytes are widened, once more.)
#[inline]
#[target_feature(enable = "avx512f")]
fn high(codes: __m512i) -> __m512i {
    _mm512_ror_epi32::<4>(codes)
}

/// One type: its name, bytes and numbers; what the groups of a block share; the numbers of a group in registers of eight and of sixteen,
/// or what both are made of.
macro_rules! blocks {
    (
        $name:ident [$bytes:literal; $numbers:literal] $scales:ty;
        scales($block:ident) => $make:expr;
        group($of:ident, $held:ident, $group:ident) => $decode:expr;
    ) => {
        blocks! {
            $name [$bytes; $numbers] $scales;
            scales($block) => $make;
            eights($of, $held, $group) => $decode.eights();
            sixteens($of, $held, $group) => $decode.sixteens();
        }
    };
    (
        $name:ident [$bytes:literal; $numbers:literal] $scales:ty;
        scales($block:ident) => $make:expr;
        eights($of:ident, $held:ident, $group:ident) => $eights:expr;
        sixteens($wide_of:ident, $wide_held:ident, $wide_group:ident) => $sixteens:expr;
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
                $eights
            }

            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx2,fma,f16c")]
            unsafe fn wide_numbers($wide_of: &[u8; $bytes], $wide_held: &$scales, $wide_group: usize) -> [__m512; 2] {
                $sixteens
            }
        }
    };
}

blocks! {
    F16 [64; 32] ();
    scales(_block) => ();
    eights(block, _none, _group) => {
        let read = |at: usize| _mm256_cvtph_ps(sixteen(block, at));
        [read(0), read(16), read(32), read(48)]
    };
    sixteens(block, _none, _group) => [0, 32].map(|at| _mm512_cvtph_ps(thirty_two(block, at)));
}

blocks! {
    Q8_0 [34; 32] __m256;
    scales(block) => half(block, 0);
    eights(block, scale, _group) => {
        let read = |at: usize| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight(block, at))), *scale);
        [read(2), read(10), read(18), read(26)]
    };
    sixteens(block, scale, _group) => {
        let read = |at: usize| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen(block, at)));
        [2, 18].map(|at| _mm512_mul_ps(read(at), doubled(*scale)))
    };
}

blocks! {
    Q4_0 [18; 32] __m256;
    scales(block) => scale(block, 0);
    eights(block, scale, _group) => Times(less(nibbles(block, 2), 8), [*scale; 2]).eights();
    sixteens(block, scale, _group) => looked_up(block, 2, OF_LESS_EIGHT.times(*scale));
}

blocks! {
    Q4_1 [20; 32] [__m256; 2];
    scales(block) => [scale(block, 0), half(block, 2)];
    eights(block, held, _group) => TimesPlus(nibbles(block, 4), [held[0]; 2], [held[1]; 2]).eights();
    sixteens(block, held, _group) => looked_up(block, 4, OF_PLAIN.times_plus(held[0], held[1]));
}

blocks! {
    Q5_0 [22; 32] __m256;
    scales(block) => scale(block, 0);
    group(block, scale, _group) => Times(less(five_bits(block, 2), 16), [*scale; 2]);
}

blocks! {
    Q5_1 [24; 32] [__m256; 2];
    scales(block) => [scale(block, 0), half(block, 2)];
    group(block, held, _group) => TimesPlus(five_bits(block, 4), [held[0]; 2], [held[1]; 2]);
}

blocks! {
    Iq4Nl [18; 32] __m256;
    scales(block) => scale(block, 0);
    eights(block, scale, _group) => Times(codes(block, 2), [*scale; 2]).eights();
    sixteens(block, scale, _group) => looked_up(block, 2, OF_IQ4.times(*scale));
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
    eights(block, scales, group) => Times(codes(block, 8 + 16 * group), alike(scales[group])).eights();
    sixteens(block, scales, group) => looked_up(block, 8 + 16 * group, OF_IQ4.times(_mm256_set1_ps(scales[group])));
}

blocks! {
    Q2K [84; 256] [[f32; 16]; 2];
    scales(block) => {
        let both = _mm256_castsi128_si256(sixteen(block, 0));
        [
            products_of(scale(block, 80), bits(both, 0, 15)),
            products_of(negative(half(block, 82)), bits(both, 4, 15)),
        ]
    };
    group(block, held, group) => {
        let bytes = thirty_two(block, 16 + group / 4 * 32);
        TimesPlus(bits(bytes, group % 4 * 2, 3), pair(&held[0], group), pair(&held[1], group))
    };
}

blocks! {
    Q3K [110; 256] [f32; 16];
    scales(block) => {
        let [first, second, high] = [word(block, 96), word(block, 100), word(block, 104)];
        let six = |low: u32, shift: usize| low & 0x0f0f_0f0f | (high >> shift & 0x0303_0303) << 4;
        let bytes = registers_of([six(first, 0), six(second, 2), six(first >> 4, 4), six(second >> 4, 6)]);
        products_of(scale(block, 108), less(bytes, 32))
    };
    group(block, scales, group) => {
        let (low, third) = (thirty_two(block, 32 + group / 4 * 32), thirty_two(block, 0));
        let third = _mm256_slli_epi16::<2>(bits(third, group, 1));
        Times(less(_mm256_or_si256(bits(low, group % 4 * 2, 3), third), 4), pair(scales, group))
    };
}

blocks! {
    Q4K [144; 256] [[f32; 8]; 2];
    scales(block) => six_bits(block);
    eights(block, held, group) => {
        let numbers = bits(thirty_two(block, 16 + group / 2 * 32), group % 2 * 4, 15);
        TimesPlus(numbers, alike(held[0][group]), alike(held[1][group])).eights()
    };
    sixteens(block, held, group) => {
        let [scale, offset] = [held[0][group], held[1][group]].map(|held| _mm256_set1_ps(held));
        looked_up_all(block, 16 + group / 2 * 32, group % 2 == 1, OF_PLAIN.times_plus(scale, offset))
    };
}

blocks! {
    Q5K [176; 256] [[f32; 8]; 2];
    scales(block) => six_bits(block);
    group(block, held, group) => {
        let (low, fifth) = (thirty_two(block, 48 + group / 2 * 32), thirty_two(block, 16));
        let fifth = _mm256_slli_epi16::<4>(bits(fifth, group, 1));
        let numbers = _mm256_or_si256(bits(low, group % 2 * 4, 15), fifth);
        TimesPlus(numbers, alike(held[0][group]), alike(held[1][group]))
    };
}

blocks! {
    Q6K [210; 256] [f32; 16];
    scales(block) => products_of(scale(block, 208), _mm256_castsi128_si256(sixteen(block, 192)));
    group(block, scales, group) => {
        let (side, quarter) = (group / 4, group % 4);
        let (low, high) = (thirty_two(block, side * 64 + quarter % 2 * 32), thirty_two(block, 128 + side * 32));
        let high = _mm256_slli_epi16::<4>(bits(high, quarter * 2, 3));
        Times(less(_mm256_or_si256(bits(low, quarter / 2 * 4, 15), high), 32), pair(scales, group))
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

/// What the first sixteen signed bytes are, times a number.
#[inline]
#[target_feature(enable = "avx2")]
fn products_of(number: __m256, bytes: __m256i) -> [f32; 16] {
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
fn registers_of(words: [u32; 4]) -> __m256i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm256_castsi128_si256(_mm_setr_epi32(a, b, c, d))
}

/// The scales and the offsets of eight groups, six bits each in the twelve bytes from the fourth on.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn six_bits(block: &[u8]) -> [[f32; 8]; 2] {
    // the first four of either are a word's bytes less two bits, which are the upper ones of the last four
    let words = sixteen(block, 0);
    let of_word = _mm_srlv_epi32(_mm_shuffle_epi32::<0b10_10_01_01>(words), _mm_setr_epi32(0, 2, 0, 2));
    let rest = _mm_srlv_epi32(_mm_shuffle_epi32::<0b11_11_11_11>(words), _mm_setr_epi32(0, 0, 0, 4));
    let (first, upper, lower) = (0x3f3f_3f3f, 0x3030_3030, 0x0f0f_0f0f);
    let bytes = _mm_or_si128(
        _mm_and_si128(of_word, _mm_setr_epi32(first, upper, first, upper)),
        _mm_and_si128(rest, _mm_setr_epi32(0, lower, 0, lower)),
    );
    let bytes = _mm256_castsi128_si256(bytes);
    let (scales, offsets) = (
        products_of(scale(block, 0), bytes),
        products_of(negative(half(block, 2)), bytes),
    );
    [
        std::array::from_fn(|group| scales[group]),
        std::array::from_fn(|group| offsets[8 + group]),
    ]
}

/// Nibbles and the fifth bit of each, which stand before them.
#[inline]
#[target_feature(enable = "avx2")]
fn five_bits(bytes: &[u8], at: usize) -> __m256i {
    // each byte eight times, and of each copy another bit
    let eight_times = |byte: i64| 0x0101_0101_0101_0101 * byte;
    let bytes_of = _mm256_setr_epi64x(eight_times(0), eight_times(1), eight_times(2), eight_times(3));
    let fifths = _mm256_shuffle_epi8(_mm256_set1_epi32(word(bytes, at).cast_signed()), bytes_of);
    let each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let is_set = _mm256_cmpeq_epi8(_mm256_and_si256(fifths, each), each);
    let fifths = _mm256_and_si256(is_set, _mm256_set1_epi8(16));
    _mm256_or_si256(nibbles(bytes, at + 4), fifths)
}

/// What 32 codes of the IQ4 types stand for.
#[inline]
#[target_feature(enable = "avx2")]
fn codes(bytes: &[u8], at: usize) -> __m256i {
    // SAFETY: sixteen bytes are there.
    let table = unsafe { _mm_loadu_si128(IQ4.as_ptr().cast()) };
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles(bytes, at))
}
