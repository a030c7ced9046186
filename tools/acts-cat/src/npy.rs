//! NumPy's array file, version 1.0 to 3.0, little-endian and C-ordered: header to shape and back. Our own code, because the format is one
//! line of Python literals and what we take of it is seven element types.

use acts::Dtype;
use process::{Error, Result, ResultExt};
use std::io::Read;

pub const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// numpy leaves room for the first axis to grow in place; the same room gives the same bytes.
const FIRST_AXIS_DIGITS: usize = 21;
/// BOUND: a header describes one array; numpy itself refuses more than 10,000 bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
pub struct Array {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
}

fn descr(dtype: Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::F64 => "<f8",
        Dtype::F32 => "<f4",
        Dtype::F16 => "<f2",
        Dtype::U32 => "<u4",
        Dtype::I64 => "<i8",
        Dtype::U8 => "|u1",
        Dtype::Bf16 => return None,
    })
}

/// The bytes before the elements, exactly as `numpy.save` writes them.
pub fn header(dtype: Dtype, shape: &[u64]) -> Result<Vec<u8>> {
    let descr = descr(dtype).ok_or_else(|| Error::bug("npy", format!("{dtype} has no numpy type")))?;
    let axes = shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let axes = if shape.len() == 1 { format!("{axes},") } else { axes };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}");
    let first = shape
        .first()
        .map_or(0, |extent| FIRST_AXIS_DIGITS.saturating_sub(extent.to_string().len()));
    text.push_str(&" ".repeat(first));
    let unpadded = MAGIC.len() + 4 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let length = u16::try_from(text.len()).map_err(|_| Error::bug("npy", "a header over 64 KiB"))?;
    Ok([MAGIC.as_slice(), &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat())
}

/// Reads up to the first element.
pub fn read_header(name: &str, source: &mut impl Read) -> Result<Array> {
    let refuse = |cause: String| Error::input(name, cause);
    let mut head = [0u8; 8];
    source.read_exact(&mut head).at(name)?;
    if &head[..6] != MAGIC {
        return Err(refuse("not an npy file".into()));
    }
    let length = match head[6] {
        1 => {
            let mut bytes = [0u8; 2];
            source.read_exact(&mut bytes).at(name)?;
            usize::from(u16::from_le_bytes(bytes))
        }
        2 | 3 => {
            let mut bytes = [0u8; 4];
            source.read_exact(&mut bytes).at(name)?;
            usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
        }
        version => return Err(refuse(format!("npy version {version} is not known"))),
    };
    if length > HEADER_BYTES_MAX {
        return Err(refuse(format!(
            "its header has {length} bytes, limit {HEADER_BYTES_MAX}"
        )));
    }
    let mut text = vec![0; length];
    source.read_exact(&mut text).at(name)?;
    let text = std::str::from_utf8(&text).map_err(|_| refuse("its header is not text".into()))?;
    parse(text).map_err(refuse)
}

/// Reads the literal `{'descr': …, 'fortran_order': …, 'shape': (…), }`, keys in any order.
fn parse(text: &str) -> std::result::Result<Array, String> {
    let malformed = || "its header is not what numpy writes".to_string();
    let after = |key: &str| {
        let at = text.find(&format!("'{key}':")).ok_or_else(malformed)?;
        Ok::<&str, String>(text[at + key.len() + 3..].trim_start())
    };
    let descr = after("descr")?;
    let descr = descr
        .strip_prefix('\'')
        .and_then(|rest| rest.split_once('\''))
        .map(|(descr, _)| descr);
    let descr = descr.ok_or("structured arrays are not read")?;
    let dtype = Dtype::ALL
        .into_iter()
        .find(|dtype| self::descr(*dtype) == Some(descr) || (*dtype == Dtype::U8 && descr == "<u1"))
        .ok_or_else(|| format!("its elements are {descr}; f8, f4, f2, u4, i8 and u1, little-endian, are read"))?;
    if after("fortran_order")?.starts_with("True") {
        return Err("it is in Fortran order: save numpy.ascontiguousarray(x)".into());
    }
    let shape = after("shape")?
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
        .ok_or_else(malformed)?
        .0;
    let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    let shape = axes
        .map(|axis| axis.parse::<u64>().map_err(|_| malformed()))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Array { dtype, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back() {
        for shape in [vec![], vec![0], vec![7], vec![100_000, 256], vec![3, 4, 5]] {
            for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::U32, Dtype::I64, Dtype::U8] {
                let bytes = header(dtype, &shape).unwrap();
                assert_eq!(bytes.len() % 64, 0);
                let found = read_header("x", &mut bytes.as_slice()).unwrap();
                assert_eq!(
                    found,
                    Array {
                        dtype,
                        shape: shape.clone()
                    }
                );
            }
        }
    }

    #[test]
    fn what_numpy_wrote_is_what_we_write() {
        // numpy.save of zeros((100000, 256), 'f4'), numpy 2.
        let text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 256), }";
        let bytes = header(Dtype::F32, &[100_000, 256]).unwrap();
        assert_eq!(bytes.len(), 128);
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(&bytes[10..10 + text.len()], text);
        assert!(bytes[10 + text.len()..127].iter().all(|byte| *byte == b' '));
    }

    #[test]
    fn what_would_change_meaning_is_refused() {
        for text in [
            "{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
            "{}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
