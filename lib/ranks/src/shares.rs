//! A long row of values that ranks add up together and then own in shares.
//!
//! Recursive halving: at each level two ranks hold sums over the same range; each gives half of it away and adds the other's half to its
//! own. After the last level a rank owns one share, summed over all ranks, and has sent less than twice its own share for each doubling.
//! Gathering is the same path backwards. A range is cut at a border of the optimiser's pieces only, so that what is computed piece by
//! piece has the same bits on any number of ranks.

use std::io::Result;
use std::ops::Range;

use crate::World;

/// Values per message: large enough to fill a network, small beside the values themselves.
const BLOCK: usize = 1 << 20;

/// Values in a row, wherever they lie, as bytes.
pub trait Values {
    /// Bytes of one value.
    fn width(&self) -> usize;

    /// Appends the bytes of a range.
    fn read(&self, range: Range<usize>, out: &mut Vec<u8>) -> Result<()>;

    /// Takes up what a peer has of a range: adds it, or overwrites with it.
    fn take(&mut self, range: Range<usize>, bytes: &[u8]) -> Result<()>;
}

/// Several tensors, one after the other, as one row.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Where each part starts, and where the last one ends.
    starts: Vec<usize>,
}

impl Layout {
    pub fn new(lens: impl IntoIterator<Item = usize>) -> Self {
        let mut starts = vec![0];
        for len in lens {
            starts.push(starts[starts.len() - 1] + len);
        }
        Self { starts }
    }

    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What of each part lies in `range`, by the part's own counting; empty where it has nothing there.
    pub fn within(&self, range: &Range<usize>) -> Vec<Range<usize>> {
        let mut all = vec![0..0; self.starts.len() - 1];
        for (part, within) in self.touched(range) {
            all[part] = within;
        }
        all
    }

    /// The parts that `range` touches: their number, and what of them.
    pub fn touched(&self, range: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + use<'_> {
        let first = self.starts.partition_point(|&start| start <= range.start).max(1) - 1;
        let range = range.clone();
        let bounds = self.starts[first..].windows(2).enumerate();
        bounds
            .take_while({
                let end = range.end;
                move |(_, bounds)| bounds[0] < end
            })
            .map(move |(index, bounds)| {
                let within = range.start.max(bounds[0]) - bounds[0]..range.end.min(bounds[1]) - bounds[0];
                (first + index, within)
            })
            .filter(|(_, within)| !within.is_empty())
    }

    /// Where pieces of at most `piece` values start, which begin anew at each part, and where the last one ends.
    fn borders(&self, piece: usize) -> Vec<usize> {
        let of_part = |bounds: &[usize]| (bounds[0]..bounds[1]).step_by(piece);
        let starts = self.starts.windows(2).flat_map(of_part);
        starts.chain([self.len()]).collect()
    }
}

/// Which range of the row is whose, at each level of the tree.
#[derive(Clone, Debug)]
pub struct Shares {
    /// What this rank keeps at each level, and what it gives away.
    path: Vec<(Range<usize>, Range<usize>)>,
    own: Range<usize>,
}

impl Shares {
    /// The shares of a row that is cut at borders of pieces of at most `piece` values.
    pub fn new(layout: &Layout, piece: usize, world: &World) -> Self {
        let borders = layout.borders(piece);
        let (mut own, mut path) = (0..layout.len(), Vec::new());
        for level in world.levels() {
            let middle = own.start + own.len() / 2;
            let cut = borders[borders.partition_point(|&border| border < middle)];
            let (left, right) = (own.start..cut, cut..own.end);
            let (kept, given) = match world.peer(level) {
                (_, true) => (left, right),
                (_, false) => (right, left),
            };
            path.push((kept.clone(), given));
            own = kept;
        }
        Self { path, own }
    }

    /// The range that this rank owns in the end.
    pub fn own(&self) -> Range<usize> {
        self.own.clone()
    }
}

/// Adds up every rank's values; `values` must add what it takes. This rank's own range is then the sum over all ranks, and the
/// rest of the row means nothing.
pub fn reduce_scatter(world: &World, shares: &Shares, values: &mut impl Values) -> Result<()> {
    for (level, (kept, given)) in world.levels().zip(&shares.path) {
        swap(world, level, given, kept, values)?;
    }
    Ok(())
}

/// Brings every rank's own range to all; `values` must overwrite with what it takes.
pub fn all_gather(world: &World, shares: &Shares, values: &mut impl Values) -> Result<()> {
    for (level, (kept, given)) in world.levels().zip(&shares.path).rev() {
        swap(world, level, kept, given, values)?;
    }
    Ok(())
}

/// Sends one range to the peer of a level and takes another from it, block by block.
fn swap(world: &World, level: u32, out: &Range<usize>, into: &Range<usize>, values: &mut impl Values) -> Result<()> {
    let (peer, _) = world.peer(level);
    let width = values.width();
    let block = |of: &Range<usize>, at: usize| of.end.min(of.start + at)..of.end.min(of.start + at + BLOCK);
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for at in (0..out.len().max(into.len())).step_by(BLOCK) {
        let into = block(into, at);
        sent.clear();
        values.read(block(out, at), &mut sent)?;
        received.resize(into.len() * width, 0);
        world.swap(peer, &sent, &mut received)?;
        values.take(into, &received)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Counter;
    use crate::world::tests::on_ranks;

    /// Plain values that add, or overwrite.
    struct Plain {
        values: Vec<f32>,
        adds: bool,
    }

    impl Values for Plain {
        fn width(&self) -> usize {
            4
        }

        fn read(&self, range: Range<usize>, out: &mut Vec<u8>) -> Result<()> {
            out.extend(self.values[range].iter().flat_map(|value| value.to_le_bytes()));
            Ok(())
        }

        fn take(&mut self, range: Range<usize>, bytes: &[u8]) -> Result<()> {
            let (others, _) = bytes.as_chunks();
            for (own, other) in self.values[range].iter_mut().zip(others) {
                let other = f32::from_le_bytes(*other);
                *own = if self.adds { *own + other } else { other };
            }
            Ok(())
        }
    }

    /// The sum of `slots` rows over `count` ranks, as every rank has it in the end.
    fn summed(slots: &[Vec<f32>], layout: &Layout, piece: usize, count: usize) -> Vec<Vec<u32>> {
        on_ranks(count, |world| {
            let mut counter = Counter::default();
            for slot in &slots[world.own(slots.len())] {
                let add = |left: Vec<f32>, right: Vec<f32>| {
                    Ok::<_, ()>(left.iter().zip(right).map(|(left, right)| left + right).collect())
                };
                counter.push(slot.clone(), add).unwrap();
            }
            let mut plain = Plain {
                values: counter.take().unwrap(),
                adds: true,
            };
            let shares = Shares::new(layout, piece, &world);
            reduce_scatter(&world, &shares, &mut plain).unwrap();
            plain.adds = false;
            all_gather(&world, &shares, &mut plain).unwrap();
            plain.values.iter().map(|value| value.to_bits()).collect()
        })
    }

    proptest! {
        #[test]
        fn the_bits_of_a_sum_do_not_depend_on_the_number_of_ranks(
            lens in prop::collection::vec(0_usize..40, 1..6), piece in 1_usize..16, seed: u32,
        ) {
            let layout = Layout::new(lens);
            // mixed exponents: another order of additions gives other bits
            let value = |slot: u32, at: usize| {
                let bits = (slot * 7919 + at as u32 * 104_729).wrapping_mul(2_654_435_761) ^ seed;
                (f64::from(bits) - 2e9) as f32 * 10_f32.powi((bits % 13) as i32 - 6)
            };
            let slots: Vec<Vec<f32>> = (0..8).map(|slot| (0..layout.len()).map(|at| value(slot, at)).collect()).collect();
            let alone = summed(&slots, &layout, piece, 1);
            for count in [2, 4, 8] {
                for rank in summed(&slots, &layout, piece, count) {
                    prop_assert_eq!(&rank, &alone[0]);
                }
            }
        }

        #[test]
        fn shares_are_whole_pieces_and_together_the_whole(lens in prop::collection::vec(0_usize..40, 1..6), piece in 1_usize..16) {
            let layout = Layout::new(lens);
            let borders = layout.borders(piece);
            for count in [1, 2, 4, 8] {
                let mut owned = on_ranks(count, |world| Shares::new(&layout, piece, &world).own());
                owned.sort_by_key(|range| (range.start, range.end));
                let mut end = 0;
                for range in owned {
                    prop_assert_eq!(range.start, end);
                    prop_assert!(borders.contains(&range.start) && borders.contains(&range.end));
                    end = range.end;
                }
                prop_assert_eq!(end, layout.len());
            }
        }
    }

    #[test]
    fn a_range_of_the_row_is_named_by_its_parts() {
        let layout = Layout::new([3, 0, 5, 2]);
        assert_eq!(
            layout.touched(&(1..9)).collect::<Vec<_>>(),
            [(0, 1..3), (2, 0..5), (3, 0..1)]
        );
        assert_eq!(layout.within(&(4..8)), [0..0, 0..0, 1..5, 0..0]);
        assert_eq!(layout.touched(&(3..3)).count(), 0);
    }
}
