//! A path in a record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A path in a record: text, or `{"bytes":"<hex>"}` where it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPath(pub PathBuf);

impl AsRef<Path> for RecordPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Serialize for RecordPath {
    fn serialize<S: Serializer>(&self, output: S) -> std::result::Result<S::Ok, S::Error> {
        use std::os::unix::ffi::OsStrExt;
        match self.0.to_str() {
            Some(text) => output.serialize_str(text),
            None => {
                let hex: String = self
                    .0
                    .as_os_str()
                    .as_bytes()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                BTreeMap::from([("bytes", hex)]).serialize(output)
            }
        }
    }
}

impl<'de> Deserialize<'de> for RecordPath {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<RecordPath, D::Error> {
        use serde::de::Error;
        use std::os::unix::ffi::OsStringExt;
        match Value::deserialize(input)? {
            Value::String(text) => Ok(RecordPath(text.into())),
            Value::Object(object) => {
                let hex = object
                    .get("bytes")
                    .and_then(Value::as_str)
                    .filter(|hex| hex.len() % 2 == 0 && hex.is_ascii());
                let bytes: Option<Vec<u8>> = hex.and_then(|hex| {
                    (0..hex.len())
                        .step_by(2)
                        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok())
                        .collect()
                });
                let bytes = bytes.ok_or_else(|| D::Error::custom("a path is a string or {\"bytes\":\"<hex>\"}"))?;
                Ok(RecordPath(std::ffi::OsString::from_vec(bytes).into()))
            }
            _ => Err(D::Error::custom("a path is a string or {\"bytes\":\"<hex>\"}")),
        }
    }
}
