//! Element types, how a stored row becomes numbers, and the count of non-finite ones. All numbers are little-endian.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    U32,
    I64,
    U8,
}

impl Dtype {
    pub const ALL: [Dtype; 7] = [
        Dtype::F64,
        Dtype::F32,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::U32,
        Dtype::I64,
        Dtype::U8,
    ];

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::U8 => 1,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "f64",
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::U32 => "u32",
            Dtype::I64 => "i64",
            Dtype::U8 => "u8",
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::Bf16)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Dtype {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Dtype::ALL
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .ok_or_else(|| format!("unknown dtype {text:?} (f64, f32, f16, bf16, u32, i64, u8)"))
    }
}

/// A number that stored elements can be read as without loss.
pub trait Element: Copy + Send + Sync + bytemuck::Pod {
    const DTYPE: Dtype;

    /// Fills `out` from the little-endian `bytes` of `dtype`; false if the conversion would lose something. Lengths must agree.
    fn widen(dtype: Dtype, bytes: &[u8], out: &mut [Self]) -> bool;
}

/// `out[i] = convert(bytes[i])` for elements of `N` bytes.
fn fill<const N: usize, T>(bytes: &[u8], out: &mut [T], convert: impl Fn([u8; N]) -> T) -> bool {
    let (elements, _) = bytes.as_chunks::<N>();
    for (slot, element) in out.iter_mut().zip(elements) {
        *slot = convert(*element);
    }
    true
}

fn copy<T: bytemuck::Pod>(bytes: &[u8], out: &mut [T]) -> bool {
    let target: &mut [u8] = bytemuck::cast_slice_mut(out);
    if target.len() == bytes.len() {
        target.copy_from_slice(bytes);
    }
    true
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    fn widen(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> bool {
        match dtype {
            Dtype::F32 => copy(bytes, out),
            // Widening by the bit pattern keeps a signalling NaN's payload, which a float conversion need not.
            Dtype::Bf16 => fill(bytes, out, |[low, high]: [u8; 2]| f32::from_le_bytes([0, 0, low, high])),
            Dtype::F16 => fill(bytes, out, |element: [u8; 2]| f16::from_le_bytes(element).to_f32()),
            Dtype::U8 => fill(bytes, out, |[element]: [u8; 1]| f32::from(element)),
            Dtype::F64 | Dtype::U32 | Dtype::I64 => false,
        }
    }
}

impl Element for f64 {
    const DTYPE: Dtype = Dtype::F64;
    fn widen(dtype: Dtype, bytes: &[u8], out: &mut [f64]) -> bool {
        match dtype {
            Dtype::F64 => copy(bytes, out),
            Dtype::F32 => fill(bytes, out, |element: [u8; 4]| f64::from(f32::from_le_bytes(element))),
            Dtype::Bf16 => fill(bytes, out, |element: [u8; 2]| bf16::from_le_bytes(element).to_f64()),
            Dtype::F16 => fill(bytes, out, |element: [u8; 2]| f16::from_le_bytes(element).to_f64()),
            Dtype::U32 => fill(bytes, out, |element: [u8; 4]| f64::from(u32::from_le_bytes(element))),
            Dtype::U8 => fill(bytes, out, |[element]: [u8; 1]| f64::from(element)),
            Dtype::I64 => false,
        }
    }
}

impl Element for u32 {
    const DTYPE: Dtype = Dtype::U32;
    fn widen(dtype: Dtype, bytes: &[u8], out: &mut [u32]) -> bool {
        match dtype {
            Dtype::U32 => copy(bytes, out),
            Dtype::U8 => fill(bytes, out, |[element]: [u8; 1]| u32::from(element)),
            _ => false,
        }
    }
}

impl Element for i64 {
    const DTYPE: Dtype = Dtype::I64;
    fn widen(dtype: Dtype, bytes: &[u8], out: &mut [i64]) -> bool {
        match dtype {
            Dtype::I64 => copy(bytes, out),
            Dtype::U32 => fill(bytes, out, |element: [u8; 4]| i64::from(u32::from_le_bytes(element))),
            Dtype::U8 => fill(bytes, out, |[element]: [u8; 1]| i64::from(element)),
            _ => false,
        }
    }
}

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;
    fn widen(dtype: Dtype, bytes: &[u8], out: &mut [u8]) -> bool {
        matches!(dtype, Dtype::U8) && copy(bytes, out)
    }
}

/// Appends `values` to `bytes` as `dtype`, rounding to nearest even; false if `dtype` is no float.
pub(crate) fn narrow_f32(dtype: Dtype, values: &[f32], bytes: &mut Vec<u8>) -> bool {
    match dtype {
        Dtype::F32 => bytes.extend_from_slice(bytemuck::cast_slice(values)),
        Dtype::F64 => bytes.extend(values.iter().flat_map(|value| f64::from(*value).to_le_bytes())),
        Dtype::Bf16 => bytes.extend(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes())),
        Dtype::F16 => bytes.extend(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes())),
        Dtype::U32 | Dtype::I64 | Dtype::U8 => return false,
    }
    true
}

/// As [`narrow_f32`], from f64.
pub(crate) fn narrow_f64(dtype: Dtype, values: &[f64], bytes: &mut Vec<u8>) -> bool {
    match dtype {
        Dtype::F64 => bytes.extend_from_slice(bytemuck::cast_slice(values)),
        #[expect(clippy::as_conversions, reason = "the one rounding conversion that std offers")]
        Dtype::F32 => bytes.extend(values.iter().flat_map(|value| (*value as f32).to_le_bytes())),
        Dtype::Bf16 => bytes.extend(values.iter().flat_map(|value| bf16::from_f64(*value).to_le_bytes())),
        Dtype::F16 => bytes.extend(values.iter().flat_map(|value| f16::from_f64(*value).to_le_bytes())),
        Dtype::U32 | Dtype::I64 | Dtype::U8 => return false,
    }
    true
}

/// NaN and infinite elements of one block or tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NonFinite {
    pub nan_count: u64,
    pub inf_count: u64,
}

impl NonFinite {
    pub(crate) fn add(&mut self, other: NonFinite) {
        self.nan_count = self.nan_count.saturating_add(other.nan_count);
        self.inf_count = self.inf_count.saturating_add(other.inf_count);
    }

    pub fn is_clean(self) -> bool {
        self == NonFinite::default()
    }

    /// Counts in the raw little-endian bytes of a block.
    pub(crate) fn count(dtype: Dtype, raw: &[u8]) -> NonFinite {
        match dtype {
            Dtype::F64 => count_wide(raw),
            Dtype::F32 => count::<4>(raw, u32::from_le_bytes, 0x7f80_0000),
            Dtype::F16 => count::<2>(raw, |e| u32::from(u16::from_le_bytes(e)), 0x7c00),
            Dtype::Bf16 => count::<2>(raw, |e| u32::from(u16::from_le_bytes(e)), 0x7f80),
            Dtype::U32 | Dtype::I64 | Dtype::U8 => NonFinite::default(),
        }
    }
}

/// `infinity` is the bit pattern of +Inf; a magnitude above it is a NaN. One pass asks only whether any exists, because almost always none does.
fn count<const N: usize>(raw: &[u8], load: impl Fn([u8; N]) -> u32, infinity: u32) -> NonFinite {
    let (elements, _) = raw.as_chunks::<N>();
    let magnitude = infinity | (infinity & infinity.wrapping_neg()).wrapping_sub(1);
    if elements.iter().fold(0, |largest, e| largest.max(load(*e) & magnitude)) < infinity {
        return NonFinite::default();
    }
    let mut found = NonFinite::default();
    for element in elements {
        let bits = load(*element) & magnitude;
        found.nan_count = found.nan_count.saturating_add(u64::from(bits > infinity));
        found.inf_count = found.inf_count.saturating_add(u64::from(bits == infinity));
    }
    found
}

fn count_wide(raw: &[u8]) -> NonFinite {
    let (elements, _) = raw.as_chunks::<8>();
    let mut found = NonFinite::default();
    for element in elements {
        let value = f64::from_le_bytes(*element);
        found.nan_count = found.nan_count.saturating_add(u64::from(value.is_nan()));
        found.inf_count = found.inf_count.saturating_add(u64::from(value.is_infinite()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_and_infinity_are_counted_in_every_float() {
        for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let values = [
                1.0f32,
                f32::NAN,
                -0.0,
                f32::INFINITY,
                f32::NEG_INFINITY,
                -f32::NAN,
                1e-40,
                -1.0,
            ];
            let mut raw = Vec::new();
            assert!(narrow_f32(dtype, &values, &mut raw));
            assert_eq!(
                NonFinite::count(dtype, &raw),
                NonFinite {
                    nan_count: 2,
                    inf_count: 2
                },
                "{dtype}"
            );
            let mut clean = Vec::new();
            narrow_f32(dtype, &[1.0, -2.0, 0.0], &mut clean);
            assert!(NonFinite::count(dtype, &clean).is_clean());
        }
    }

    #[test]
    fn widening_never_rounds() {
        let mut out = [0f32; 2];
        assert!(f32::widen(Dtype::Bf16, &[0x80, 0x3f, 0x81, 0xff], &mut out));
        assert_eq!(out[0], 1.0);
        assert_eq!(out[1].to_bits(), 0xff81_0000);
        assert!(!f32::widen(Dtype::F64, &[0; 16], &mut out));
        assert!(!f64::widen(Dtype::I64, &[0; 8], &mut [0f64]));
    }
}
