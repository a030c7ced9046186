//! The bounds of a line, one constant each. They hold for reading; [`crate::Writer`] holds itself to the first.

/// What one line, or one element of a JSON array, may cost. `man 5 records` lists the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a line without its line end (`--max-line-bytes`).
    pub line_bytes: usize,
    /// Objects and arrays within each other.
    pub depth: usize,
    /// Keys of all objects of a line together.
    pub key_count: usize,
    /// Values of a line together. A logit vector over a vocabulary of 256 k fits.
    pub value_count: usize,
    /// Characters of one number: an exact decimal expansion of any f64 fits (at most 1,077).
    pub number_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            line_bytes: 16 << 20,
            depth: 100,
            key_count: 1 << 16,
            value_count: 1 << 20,
            number_bytes: 1100,
        }
    }
}
