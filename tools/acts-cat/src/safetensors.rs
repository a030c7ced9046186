//! safetensors headers, both ways. Our own reader, because safetensors 0.8 accepts a header twice naming one tensor and multiplies shapes
//! unchecked; our own writer, because the crate wants all tensors in memory.

use acts::Dtype;
use process::{Error, Result, ResultExt};
use std::io::Read;

/// BOUND: what the format's own reader allows.
const HEADER_BYTES_MAX: u64 = 100_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Bytes, from the end of the header.
    pub start: u64,
    pub end: u64,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "F64",
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
        Dtype::U32 => "U32",
        Dtype::I64 => "I64",
        Dtype::U8 => "U8",
    }
}

/// Reads up to the first element: the tensors in the order of their bytes, and where those begin. `file_bytes` bounds every claim.
pub fn read_header(name: &str, source: &mut impl Read, file_bytes: u64) -> Result<(Vec<Entry>, u64)> {
    let refuse = |cause: String| Error::input(name, cause);
    let mut length = [0u8; 8];
    source.read_exact(&mut length).at(name)?;
    let length = u64::from_le_bytes(length);
    let limit = HEADER_BYTES_MAX.min(file_bytes.saturating_sub(8));
    if length > limit {
        return Err(refuse(format!(
            "its header claims {length} bytes, at most {limit} are possible"
        )));
    }
    let mut text = Vec::new();
    source.take(length).read_to_end(&mut text).at(name)?;
    let mut found = json::document(&text).map_err(|fault| refuse(format!("safetensors header: {fault}")))?;
    found.shift_remove("__metadata__");
    let data_bytes = file_bytes - 8 - length;
    let mut entries = found
        .into_iter()
        .map(|(tensor, description)| entry(tensor, description).map_err(refuse))
        .collect::<Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| (entry.start, entry.end));
    let mut expected = 0;
    for entry in &entries {
        if entry.start != expected {
            return Err(refuse(format!(
                "tensor {:?} begins at byte {} where {expected} follows",
                entry.name, entry.start
            )));
        }
        expected = entry.end;
    }
    if expected != data_bytes {
        return Err(refuse(format!(
            "its tensors take {expected} bytes, the file holds {data_bytes}"
        )));
    }
    Ok((entries, 8 + length))
}

fn entry(name: String, description: serde_json::Value) -> std::result::Result<Entry, String> {
    let Description {
        dtype,
        shape,
        data_offsets: (start, end),
    } = serde_json::from_value(description).map_err(|error| format!("safetensors header: tensor {name:?}: {error}"))?;
    let found = Dtype::ALL.into_iter().find(|known| dtype_name(*known) == dtype);
    let dtype =
        found.ok_or_else(|| format!("tensor {name:?} holds {dtype}; F64, F32, F16, BF16, U32, I64 and U8 are read"))?;
    let bytes = shape
        .iter()
        .try_fold(1u64, |product, extent| product.checked_mul(*extent))
        .and_then(|elements| elements.checked_mul(dtype.bytes() as u64));
    if end.checked_sub(start).is_none() || end.checked_sub(start) != bytes {
        return Err(format!(
            "tensor {name:?} of shape {shape:?} does not take bytes {start}..{end}"
        ));
    }
    Ok(Entry {
        name,
        dtype,
        shape,
        start,
        end,
    })
}

/// The bytes before the elements of tensors that follow one another in this order.
pub fn header(tensors: &[(String, Dtype, Vec<u64>)]) -> Result<Vec<u8>> {
    let mut object = serde_json::Map::new();
    let mut at = 0u64;
    for (name, dtype, shape) in tensors {
        let bytes = shape.iter().product::<u64>() * dtype.bytes() as u64;
        let description =
            serde_json::json!({"dtype": dtype_name(*dtype), "shape": shape, "data_offsets": [at, at + bytes]});
        object.insert(name.clone(), description);
        at += bytes;
    }
    let mut text = serde_json::to_vec(&object).map_err(|error| Error::bug("safetensors", error))?;
    // The format wants the elements aligned to 8 bytes.
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([(text.len() as u64).to_le_bytes().as_slice(), &text].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, data_bytes: usize) -> Vec<u8> {
        [
            (text.len() as u64).to_le_bytes().as_slice(),
            text.as_bytes(),
            &vec![0; data_bytes],
        ]
        .concat()
    }

    fn read(bytes: &[u8]) -> Result<(Vec<Entry>, u64)> {
        read_header("x", &mut &bytes[..], bytes.len() as u64)
    }

    #[test]
    fn a_header_reads_back() {
        let tensors = [
            ("b".to_string(), Dtype::Bf16, vec![2, 3]),
            ("a".to_string(), Dtype::U8, vec![5]),
        ];
        let mut bytes = header(&tensors).unwrap();
        assert_eq!(bytes.len() % 8, 0);
        bytes.extend([0; 17]);
        let (entries, start) = read(&bytes).unwrap();
        assert_eq!(start as usize, bytes.len() - 17);
        assert_eq!(
            entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
            ["b", "a"]
        );
    }

    #[test]
    fn overflow_duplicates_holes_overlaps_and_lies_are_refused() {
        let tensor = |name: &str, shape: &str, offsets: &str| {
            format!("\"{name}\":{{\"dtype\":\"U8\",\"shape\":{shape},\"data_offsets\":{offsets}}}")
        };
        for (text, data) in [
            (format!("{{{}}}", tensor("a", "[9223372036854775808,2]", "[0,0]")), 0),
            (
                format!("{{{},{}}}", tensor("a", "[1]", "[0,1]"), tensor("a", "[1]", "[1,2]")),
                2,
            ),
            (
                format!("{{{},{}}}", tensor("a", "[1]", "[0,1]"), tensor("b", "[1]", "[2,3]")),
                3,
            ),
            (
                format!("{{{},{}}}", tensor("a", "[2]", "[0,2]"), tensor("b", "[2]", "[1,3]")),
                3,
            ),
            (format!("{{{}}}", tensor("a", "[1]", "[0,1]")), 2),
            (format!("{{{}}}", tensor("a", "[1]", "[1,0]")), 0),
            ("[]".to_string(), 0),
        ] {
            assert!(read(&file(&text, data)).is_err(), "{text}");
        }
        assert!(read(&u64::MAX.to_le_bytes()).is_err());
        assert!(read(&file(&format!("{{{}}}", tensor("a", "[1]", "[0,1]")), 1)).is_ok());
    }
}
