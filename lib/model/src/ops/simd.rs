//! The innermost loops, written so that the compiler vectorises them for the widest registers the machine has: what is called
//! inside of `products::wide!`, and therefore `#[inline(always)]`.

/// Independent partial sums of a reduction: two AVX-512 registers.
const LANES: usize = 32;

/// e^x within 2 units in the last place; NaN stays NaN, and what over- or underflows saturates at the largest or smallest
/// normal number.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts: the first has few bits, so that n · LN2_HIGH is exact
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits
    const ROUND: f32 = 12_582_912.0;
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // e^r on [-ln2/2, ln2/2] (Cephes expf)
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.0e-1;
    let e = p * r * r + r + 1.0;
    e * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    // 1 - 2/(e^2x + 1) loses relative accuracy near zero, where the series takes over
    const SERIES: [f32; 5] = [
        -1382.0 / 155_925.0,
        62.0 / 2835.0,
        -17.0 / 315.0,
        2.0 / 15.0,
        -1.0 / 3.0,
    ];
    let x2 = x * x;
    let mut series = SERIES[0];
    for term in &SERIES[1..] {
        series = series * x2 + term;
    }
    let series = x + x * x2 * series;
    let whole = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if x2 < 0.09 { series } else { whole }
}

/// Sums `f(i)` with a fixed order that does not depend on the register width.
macro_rules! reduce {
    ($len:expr, $index:ident => $term:expr) => {{
        let mut lanes = [0.0f32; LANES];
        let whole = $len / LANES * LANES;
        let mut start = 0;
        while start < whole {
            for lane in 0..LANES {
                let $index = start + lane;
                lanes[lane] += $term;
            }
            start += LANES;
        }
        for $index in whole..$len {
            lanes[$index - whole] += $term;
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }};
}

#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let len = x.len();
    let y = &y[..len];
    reduce!(len, i => x[i] * y[i])
}

#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    let len = x.len();
    reduce!(len, i => x[i])
}

#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            // a NaN must survive, so that it is seen
            *lane = if x > *lane || x.is_nan() { x } else { *lane };
        }
    }
    let rest = chunks.remainder().iter().copied();
    lanes
        .into_iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, x| if x > a || x.is_nan() { x } else { a })
}

/// Turns `x` into `exp(x - shift)` and returns the sum.
#[inline(always)]
pub(super) fn exp_shifted(x: &mut [f32], shift: f32) -> f32 {
    for x in x.iter_mut() {
        *x = exp(*x - shift);
    }
    sum(x)
}

/// Σ (x - mean)².
#[inline(always)]
pub(super) fn squared_distance(x: &[f32], mean: f32) -> f32 {
    let len = x.len();
    reduce!(len, i => (x[i] - mean) * (x[i] - mean))
}

/// Σ g · s · (x - mean).
#[inline(always)]
pub(super) fn dot3_centred(g: &[f32], s: &[f32], x: &[f32], mean: f32) -> f32 {
    let len = g.len();
    let (s, x) = (&s[..len], &x[..len]);
    reduce!(len, i => g[i] * s[i] * (x[i] - mean))
}

/// Σ exp(x - shift), leaving `x` as it is.
#[inline(always)]
pub(super) fn exp_sum(x: &[f32], shift: f32) -> f32 {
    let len = x.len();
    reduce!(len, i => exp(x[i] - shift))
}
