//! One rank among all: which part of what is learned is its own, and how gradients and weights come together.
//!
//! Gradients are added up over all ranks by a tree, after which a rank holds the sum for its own share; the optimiser keeps its state for that
//! share alone, changes those weights, and all weights are gathered again.

use std::io::{Error, Result};
use std::ops::Range;

use model::ops::{Gradients, change_row};
use model::optimiser::{CHUNK, norm, squares};
use model::{DType, Tensor, export};
use ranks::{Layout, Shares, Values, World};

pub struct Share {
    pub world: World,
    layout: Layout,
    shares: Shares,
}

impl Share {
    /// Of these tensors, which are cut where the optimiser's chunks are.
    pub fn new(world: World, tensors: &[Tensor]) -> Self {
        let layout = Layout::new(tensors.iter().map(Tensor::elem_count));
        Self {
            shares: Shares::new(&layout, CHUNK, &world),
            layout,
            world,
        }
    }

    /// What of each tensor is this rank's own.
    pub fn ranges(&self) -> Vec<Range<usize>> {
        self.layout.within(&self.shares.own())
    }

    /// Adds up the gradients of all ranks; each then holds the sum for its own share, and nothing that means anything beside it.
    pub fn add_up(&self, tensors: &[Tensor], gradients: &mut Gradients) -> model::Result<()> {
        if self.world.is_alone() {
            return Ok(());
        }
        let rows = gradients.rows(tensors)?;
        let layout = &self.layout;
        Ok(ranks::reduce_scatter(
            &self.world,
            &self.shares,
            &mut Sums { layout, rows },
        )?)
    }

    /// The norm over all gradients, of which each rank knows its share: every rank adds the same partial sums in the same order.
    pub fn norm(&self, tensors: &[Tensor], gradients: &Gradients) -> model::Result<f64> {
        let mut own = Vec::new();
        for (tensor, range) in tensors.iter().zip(self.ranges()) {
            own.extend(
                squares(tensor, gradients, range)?
                    .into_iter()
                    .flat_map(f64::to_le_bytes),
            );
        }
        let all = self.world.gather_row(self.shares.own().start, &own)?;
        let mut all = all.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
        let of_tensor = |tensor: &Tensor| all.by_ref().take(tensor.elem_count().div_ceil(CHUNK)).collect();
        let partials: Vec<Vec<f64>> = tensors.iter().map(of_tensor).collect();
        Ok(norm(&partials))
    }

    /// Brings every rank's changed weights to all.
    pub fn gather(&self, tensors: &[Tensor]) -> model::Result<()> {
        if self.world.is_alone() {
            return Ok(());
        }
        let layout = &self.layout;
        Ok(ranks::all_gather(
            &self.world,
            &self.shares,
            &mut Weights { layout, tensors },
        )?)
    }
}

/// Gradients that add what they take.
struct Sums<'a> {
    layout: &'a Layout,
    rows: Vec<&'a mut [f32]>,
}

impl Values for Sums<'_> {
    fn width(&self) -> usize {
        size_of::<f32>()
    }

    fn read(&self, range: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        for (at, within) in self.layout.touched(&range) {
            out.extend_from_slice(bytemuck::cast_slice(&self.rows[at][within]));
        }
        Ok(())
    }

    fn take(&mut self, range: Range<usize>, bytes: &[u8]) -> Result<()> {
        let (mut theirs, _) = bytes.as_chunks();
        for (at, within) in self.layout.touched(&range) {
            let (here, rest) = theirs.split_at(within.len());
            for (sum, theirs) in self.rows[at][within].iter_mut().zip(here) {
                *sum += f32::from_ne_bytes(*theirs);
            }
            theirs = rest;
        }
        Ok(())
    }
}

/// Weights that take the place of what was there.
struct Weights<'a> {
    layout: &'a Layout,
    tensors: &'a [Tensor],
}

impl Weights<'_> {
    fn dtype(&self) -> DType {
        self.tensors.first().map_or(DType::F32, Tensor::dtype)
    }
}

impl Values for Weights<'_> {
    fn width(&self) -> usize {
        self.dtype().size_in_bytes()
    }

    fn read(&self, range: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
        for (at, within) in self.layout.touched(&range) {
            let row = self.tensors[at]
                .flatten_all()
                .and_then(|row| row.narrow(0, within.start, within.len()));
            let bytes = row.map_err(Error::other).map(|row| export::bytes(&row, self.dtype()))?;
            out.extend(bytes.map_err(Error::other)?);
        }
        Ok(())
    }

    fn take(&mut self, range: Range<usize>, mut bytes: &[u8]) -> Result<()> {
        for (at, within) in self.layout.touched(&range) {
            let (here, rest) = bytes.split_at(within.len() * self.width());
            let tensor = &self.tensors[at];
            Tensor::from_raw_buffer(here, self.dtype(), &[within.len()], tensor.device())
                .and_then(|row| change_row(tensor, within.start, &row))
                .map_err(Error::other)?;
            bytes = rest;
        }
        Ok(())
    }
}
