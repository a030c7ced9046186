//! What is taken out of a container: a tensor's rows, and the row tables beside them.

use crate::source::{Source, steps};
use acts::{Content, Role, TensorSpec};
use process::{Error, Result, ResultExt};
use std::ops::Range;

/// A tensor and the rows of it that are wanted.
pub struct Slice {
    pub tensor: usize,
    pub rows: Range<u64>,
}

impl Slice {
    pub fn spec<'s>(&self, source: &'s Source) -> Result<&'s TensorSpec> {
        source.file.spec(self.tensor).at(&source.name)
    }

    /// Hands out the stored bytes in order, a step of rows at a time. Where that is all of a tensor, its digest and its counts are
    /// compared with what the container says of it.
    pub fn for_each_step(&self, source: &Source, mut put: impl FnMut(Range<u64>, &[u8]) -> Result<()>) -> Result<()> {
        let spec = self.spec(source)?;
        let mut content = Content::default();
        for rows in steps(self.rows.clone(), spec.row_bytes().at(&source.name)?) {
            process::signals::check()?;
            let bytes = source.file.to_bytes(self.tensor, rows.clone()).at(&source.name)?;
            content.add(spec.dtype, &bytes);
            put(rows, &bytes)?;
        }
        match self.rows == (0..source.file.row_count(self.tensor)) {
            true => source.file.agree(self.tensor, &content).at(&source.name),
            false => Ok(()),
        }
    }
}

/// The row tables that belong to a tensor's rows.
pub struct RowTables {
    pub sample_index: Option<usize>,
    pub position: Option<usize>,
    pub token_id: Option<usize>,
}

impl RowTables {
    pub fn of(source: &Source, tensor: usize) -> Result<RowTables> {
        let file = &source.file;
        let aligned = file.spec(tensor).at(&source.name)?.role == Role::Activations;
        let table = |name: &str| {
            let index = file.header().tensor_index(name)?;
            (aligned
                && file.spec(index).ok()?.role == Role::RowTable
                && file.row_count(index) == file.row_count(tensor))
            .then_some(index)
        };
        Ok(RowTables {
            sample_index: table("sample_index"),
            position: table("position"),
            token_id: table("token_id"),
        })
    }

    /// One column of a table, if there is one.
    pub fn column(source: &Source, table: Option<usize>, rows: &Range<u64>) -> Result<Option<Vec<u32>>> {
        table
            .map(|table| source.file.to_vec::<u32>(table, rows.clone()).at(&source.name))
            .transpose()
    }
}

/// The one tensor of a format that holds one.
pub fn only<'s>(source: &Source, slices: &'s [Slice], format: &str) -> Result<&'s Slice> {
    match slices {
        [slice] => Ok(slice),
        _ => Err(Error::usage(
            "--tensor",
            format!(
                "{format} holds one tensor, {} are chosen in {}",
                slices.len(),
                source.name
            ),
        )
        .hint("choose one with --tensor NAME")),
    }
}
