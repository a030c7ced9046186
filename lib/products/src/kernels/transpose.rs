//! Sixteen registers of sixteen units, transposed.

use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(mut r: [__m512i; 16]) -> [__m512i; 16] {
    let mut t = r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // r[4i + j] holds, in its four quarters, columns j, j + 4, j + 8, j + 12 of rows 4i..4i + 4
    for j in 0..4 {
        let low = _mm512_shuffle_i32x4::<0x88>(r[j], r[4 + j]); // columns j, j + 8 of rows 0..8
        let high = _mm512_shuffle_i32x4::<0x88>(r[8 + j], r[12 + j]);
        let low_odd = _mm512_shuffle_i32x4::<0xdd>(r[j], r[4 + j]); // columns j + 4, j + 12
        let high_odd = _mm512_shuffle_i32x4::<0xdd>(r[8 + j], r[12 + j]);
        t[j] = _mm512_shuffle_i32x4::<0x88>(low, high);
        t[j + 8] = _mm512_shuffle_i32x4::<0xdd>(low, high);
        t[j + 4] = _mm512_shuffle_i32x4::<0x88>(low_odd, high_odd);
        t[j + 12] = _mm512_shuffle_i32x4::<0xdd>(low_odd, high_odd);
    }
    t
}
