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
    fn write<T: Operand>(&self, rows: Range<usize>, into: &mut [T]) {
        let row = self.stored.bytes_of(self.shape.1);
        let bytes = &self.file.bytes()[self.bytes.clone()];
        blocks::write(&bytes[rows.start * row..rows.end * row], self.stored, into);
    }
}

impl<T: Operand> Rows<T> for Matrix {
    fn dim(&self) -> (usize, usize) {
        self.shape
    }

    fn write(&self, rows: Range<usize>, into: &mut [T]) {
        let Some(order) = &self.order else {
            return self.write(rows, into);
        };
        for (&row, into) in order[rows].iter().zip(into.chunks_exact_mut(self.shape.1)) {
            self.write(row as usize..row as usize + 1, into);
        }
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.shape, self.stored)
    }
}
