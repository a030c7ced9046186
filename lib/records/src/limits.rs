//! The bounds of a line, one constant each. They hold for reading; [`crate::Writer`] holds itself to the first.

/// What one line, or one element of a JSON array, may cost. `man 5 records` lists the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a line without its line end (`--max-line-bytes`).
    pub line_bytes: usize,
    pub json: json::Limits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            line_bytes: 16 << 20,
            json: json::Limits {
                depth: 100,
                key_count: 1 << 16,
                // A logit vector over a vocabulary of 256 k fits.
                value_count: 1 << 20,
                // An exact decimal expansion of any f64 fits (at most 1,077).
                number_bytes: 1100,
                exact_integers: true,
            },
        }
    }
}
