//! A matrix that stays in the mapped file: its rows are dequantised whenever a product wants them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use products::{Operand, Rows};

use super::blocks;
use super::file::{File, Stored};

pub struct Matrix {
    pub file: Arc<File>,
    /// Of the file.
    pub bytes: Range<usize>,
    pub stored: Stored,
    /// (rows, numbers of a row), which are whole blocks.
    pub shape: (usize, usize),
    /// Which stored row stands where, if not each at its own place.
    pub order: Option<Vec<u32>>,
}

impl Matrix {
    /// Rows as they lie in the file.
    fn stored_rows(&self, rows: Range<usize>) -> &[u8] {
        let row = self.stored.bytes_of(self.shape.1);
        &self.file.bytes()[self.bytes.clone()][rows.start * row..rows.end * row]
    }

    fn row(&self, at: usize) -> &[u8] {
        let at = self.order.as_ref().map_or(at, |order| order[at] as usize);
        self.stored_rows(at..at + 1)
    }
}

impl<T: Operand> Rows<T> for Matrix {
    fn dim(&self) -> (usize, usize) {
        self.shape
    }

    fn write(&self, rows: Range<usize>, into: &mut [T]) {
        if self.order.is_none() {
            return blocks::write(self.stored_rows(rows), self.stored, into);
        }
        for (row, into) in rows.zip(into.chunks_exact_mut(self.shape.1)) {
            blocks::write(self.row(row), self.stored, into);
        }
    }

    fn multiply(&self, rows: Range<usize>, x: &[f32], lanes: usize, into: &mut [f32]) -> bool {
        blocks::multiply(x, |at| self.row(rows.start + at), self.stored, lanes, into)
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.shape, self.stored)
    }
}
