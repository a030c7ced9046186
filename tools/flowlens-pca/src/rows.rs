//! Reading the rows of a layer, block by block, in canonical order, with the dimensions that were not dropped.

use crate::source::{Layer, Run, Source};
use process::{Result, ResultExt};
use rayon::prelude::*;

/// Rows handed out at a time, rounded up to whole blocks of the container: as many as moments take in one step.
const ROW_COUNT: u64 = 1024;

/// The rows of one layer.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub source: &'a Source,
    pub layer: &'a Layer,
    /// The dimensions to keep; `None` for all.
    pub columns: Option<&'a [usize]>,
}

/// What a block is read into.
struct Buffer<T> {
    prompts: Vec<u32>,
    rows: Vec<T>,
    /// The rows before dimensions were dropped.
    whole_rows: Vec<T>,
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self {
            prompts: Vec::new(),
            rows: Vec::new(),
            whole_rows: Vec::new(),
        }
    }
}

/// A block of rows: which prompt each belongs to, and the numbers.
pub struct Block<'a, T> {
    pub prompts: &'a [u32],
    /// (rows, width).
    pub rows: &'a [T],
}

impl Rows<'_> {
    pub fn width(&self) -> usize {
        self.columns.map_or(self.layer.width, <[usize]>::len)
    }

    /// Shows the blocks one after another; the next one is read meanwhile.
    pub fn for_each<T: acts::Element>(&self, mut visit: impl FnMut(Block<'_, T>) -> Result<()> + Send) -> Result<()> {
        let mut pieces = self.blocks()?;
        let mut first_row = 0;
        let mut load = |mut buffer: Buffer<T>| -> Result<Option<Buffer<T>>> {
            let Some(pieces) = pieces.next() else { return Ok(None) };
            process::signals::check()?;
            self.fill(&pieces, first_row, &mut buffer)?;
            first_row += buffer.prompts.len() as u32;
            Ok(Some(buffer))
        };
        let mut shown = load(Buffer::default())?;
        let mut spare = Buffer::default();
        while let Some(buffer) = shown {
            let block = Block {
                prompts: &buffer.prompts,
                rows: &buffer.rows,
            };
            let (visited, next) = rayon::join(|| visit(block), || load(spare));
            visited?;
            shown = next?;
            spare = buffer;
        }
        Ok(())
    }

    /// The rows in canonical order, divided where blocks of the container end, so that none is decoded twice.
    fn blocks(&self) -> Result<impl Iterator<Item = Vec<Run>>> {
        let block = self.block_row_count()?;
        let mut runs = self.source.runs().iter().copied().filter(|run| run.row_count > 0);
        let mut rest: Option<Run> = None;
        Ok(std::iter::from_fn(move || {
            let mut pieces = Vec::new();
            let mut room = block;
            while room > 0
                && let Some(run) = rest.take().or_else(|| runs.next())
            {
                let taken = run.row_count.min(room);
                room -= taken;
                pieces.push(Run {
                    row_count: taken,
                    ..run
                });
                if taken < run.row_count {
                    rest = Some(Run {
                        first_row: run.first_row + taken,
                        row_count: run.row_count - taken,
                        ..run
                    });
                }
            }
            (!pieces.is_empty()).then_some(pieces)
        }))
    }

    /// All rows as f64, with the prompt of each: for inputs known to be small.
    pub fn all(&self) -> Result<(Vec<u32>, Vec<f64>)> {
        let mut prompts = Vec::new();
        let mut rows = Vec::new();
        self.for_each::<f64>(|block| {
            prompts.extend_from_slice(block.prompts);
            rows.extend_from_slice(block.rows);
            Ok(())
        })?;
        Ok((prompts, rows))
    }

    /// The given rows, by their ascending index in canonical order.
    pub fn subset<T: acts::Element>(&self, indices: &[usize]) -> Result<Vec<T>> {
        let mut wanted = indices.iter().copied().peekable();
        let mut pieces: Vec<Run> = Vec::new();
        let mut before = 0;
        for run in self.source.runs() {
            let end = before + run.row_count as usize;
            while let Some(index) = wanted.next_if(|index| *index < end) {
                pieces.push(Run {
                    first_row: run.first_row + (index - before) as u64,
                    row_count: 1,
                    ..*run
                });
            }
            before = end;
        }
        let mut rows = vec![T::zeroed(); pieces.len() * self.layer.width];
        self.read(&pieces, &mut rows)?;
        Ok(match self.columns {
            None => rows,
            Some(_) => {
                let mut kept = vec![T::zeroed(); pieces.len() * self.width()];
                self.select(&rows, &mut kept);
                kept
            }
        })
    }

    fn block_row_count(&self) -> Result<u64> {
        let part = &self.source.parts[0];
        let stored = part
            .file
            .spec(self.layer.tensors[0])
            .at(&part.name)?
            .block_row_count
            .max(1);
        Ok(stored * ROW_COUNT.div_ceil(stored))
    }

    /// Reads the rows of `pieces`, of which the first is row `first_row` of all.
    fn fill<T: acts::Element>(&self, pieces: &[Run], first_row: u32, buffer: &mut Buffer<T>) -> Result<()> {
        let row_count: usize = pieces.iter().map(|piece| piece.row_count as usize).sum();
        buffer.prompts.clear();
        if self.source.prompts().is_some() {
            for piece in pieces {
                buffer
                    .prompts
                    .extend(std::iter::repeat_n(piece.prompt, piece.row_count as usize));
            }
        } else {
            // Every row is a prompt of its own.
            buffer.prompts.extend((first_row..).take(row_count));
        }
        buffer.rows.resize(row_count * self.width(), T::zeroed());
        if self.columns.is_none() {
            return self.read(pieces, &mut buffer.rows);
        }
        buffer.whole_rows.resize(row_count * self.layer.width, T::zeroed());
        self.read(pieces, &mut buffer.whole_rows)?;
        self.select(&buffer.whole_rows, &mut buffer.rows);
        Ok(())
    }

    fn select<T: acts::Element>(&self, rows: &[T], kept: &mut [T]) {
        let Some(columns) = self.columns else { return };
        kept.par_chunks_mut(columns.len().max(1))
            .zip(rows.par_chunks(self.layer.width))
            .with_min_len(64)
            .for_each(|(kept, row)| {
                for (kept, column) in kept.iter_mut().zip(columns) {
                    *kept = row[*column];
                }
            });
    }

    /// Fills `out` with the rows of `pieces`, in order.
    fn read<T: acts::Element>(&self, pieces: &[Run], out: &mut [T]) -> Result<()> {
        let width = self.layer.width;
        let joined = join(pieces);
        let mut at = 0;
        let long = joined.iter().all(|piece| piece.row_count >= 64);
        if joined.len() == 1 || long {
            for piece in &joined {
                let len = piece.row_count as usize * width;
                self.read_range(piece, &mut out[at..at + len])?;
                at += len;
            }
            return Ok(());
        }
        // Scattered rows: one gather per part, then each row to its place.
        for (part_index, part) in self.source.parts.iter().enumerate() {
            let mut rows = Vec::new();
            let mut places = Vec::new();
            let mut place = 0;
            for piece in &joined {
                if piece.part as usize == part_index {
                    rows.extend(piece.first_row..piece.first_row + piece.row_count);
                    places.extend(place..place + piece.row_count as usize);
                }
                place += piece.row_count as usize;
            }
            if rows.is_empty() {
                continue;
            }
            let tensor = self.layer.tensors[part_index];
            if rows.len() * width == out.len() {
                part.file.gather(tensor, &rows, out).at(&part.name)?;
                continue;
            }
            let mut gathered = vec![T::zeroed(); rows.len() * width];
            part.file.gather(tensor, &rows, &mut gathered).at(&part.name)?;
            for (place, row) in places.iter().zip(gathered.chunks_exact(width)) {
                out[place * width..(place + 1) * width].copy_from_slice(row);
            }
        }
        Ok(())
    }

    fn read_range<T: acts::Element>(&self, piece: &Run, out: &mut [T]) -> Result<()> {
        let part = &self.source.parts[piece.part as usize];
        let tensor = self.layer.tensors[piece.part as usize];
        part.file
            .read(tensor, piece.first_row..piece.first_row + piece.row_count, out)
            .at(&part.name)
    }
}

/// Pieces that follow one another in one part become one.
fn join(pieces: &[Run]) -> Vec<Run> {
    let mut joined: Vec<Run> = Vec::new();
    for piece in pieces {
        match joined.last_mut() {
            Some(last) if last.part == piece.part && last.first_row + last.row_count == piece.first_row => {
                last.row_count += piece.row_count;
            }
            _ => joined.push(*piece),
        }
    }
    joined
}
