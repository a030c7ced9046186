//! The records of `flowlens` alone.

use serde::Serialize;

/// Something found out about this machine; unlike every other record it is of the machine, and stands in no other stream.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "finding")]
pub struct Finding {
    pub subject: String,
    pub value: String,
    /// Whether the tools can do with it.
    pub fine: bool,
}
