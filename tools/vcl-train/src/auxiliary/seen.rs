//! What an auxiliary loss has seen of one layer in a step.
//!
//! Rows are kept while they are fewer than their dimensions, or are folded into second moments at once: as the loss wants it. What slots and
//! ranks have seen is put together from left to right; whether rows are still kept then depends on how many they are together.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Result};
use model::Tensor;
use numerics::shifted::Shifted;

use super::folded::{Folded, matrix64, vector};

/// By layer.
pub type Observed = BTreeMap<usize, Seen>;

pub struct Seen {
    pub count: usize,
    /// Rows, in the parts in which they came; none once they are folded.
    pub held: Vec<Tensor>,
    pub folded: Option<Folded>,
    /// Whether rows fewer than dimensions are kept.
    holds: bool,
}

impl Seen {
    /// Keeps rows while they are fewer than dimensions.
    pub fn holding() -> Self {
        Self {
            count: 0,
            held: Vec::new(),
            folded: None,
            holds: true,
        }
    }

    /// Keeps no rows.
    pub fn folding() -> Self {
        Self {
            holds: false,
            ..Self::holding()
        }
    }

    pub fn add(&mut self, rows: &Tensor) -> Result<()> {
        let (n, d) = rows.dims2()?;
        if n == 0 {
            return Ok(());
        }
        self.count += n;
        self.held.push(rows.clone());
        self.settle_for(d)
    }

    /// What the next slot has seen.
    pub fn merge(mut self, mut right: Self) -> Result<Self> {
        if self.count == 0 || right.count == 0 {
            return Ok(if self.count == 0 { right } else { self });
        }
        self.count += right.count;
        if self.folded.is_none() && right.folded.is_none() {
            let d = self.held[0].dim(1)?;
            if self.holds && self.count <= d {
                self.held.append(&mut right.held);
                return Ok(self);
            }
        }
        self.fold()?;
        right.fold()?;
        if let (Some(sum), Some(other)) = (&mut self.folded, &right.folded) {
            sum.sums.merge(&other.sums);
        }
        Ok(self)
    }

    fn settle_for(&mut self, d: usize) -> Result<()> {
        match self.holds && self.count <= d {
            true => Ok(()),
            false => self.fold(),
        }
    }

    pub fn fold(&mut self) -> Result<()> {
        for rows in std::mem::take(&mut self.held) {
            let folded = match &mut self.folded {
                Some(folded) => folded,
                none => none.insert(Folded::about(rows.mean_keepdim(0)?)?),
            };
            folded.add(&rows)?;
        }
        Ok(())
    }

    pub fn mean(&self) -> Result<Vec<f64>> {
        if let Some(folded) = &self.folded {
            return Ok(folded.sums.mean());
        }
        let mut mean = vec![0.0; self.held[0].dim(1)?];
        for rows in &self.held {
            let sum = vector(&rows.sum(0)?)?;
            mean.iter_mut().zip(sum).for_each(|(mean, x)| *mean += f64::from(x));
        }
        mean.iter_mut().for_each(|mean| *mean /= self.count as f64);
        Ok(mean)
    }

    /// As named tensors, for its way to another rank.
    pub fn tensors(&self, name: &str) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = vec![(
            format!("{name}.count"),
            Tensor::new(&[self.count as i64], &Device::Cpu)?,
        )];
        for (index, rows) in self.held.iter().enumerate() {
            tensors.push((format!("{name}.held.{index}"), rows.clone()));
        }
        if let Some(Folded { shift, sums }) = &self.folded {
            let (sum, second) = sums.sums();
            let flat: Vec<f64> = second.iter().copied().collect();
            tensors.push((format!("{name}.shift"), shift.clone()));
            tensors.push((format!("{name}.sum"), Tensor::new(sum, &Device::Cpu)?));
            tensors.push((
                format!("{name}.second"),
                Tensor::from_vec(flat, second.dim(), &Device::Cpu)?,
            ));
        }
        Ok(tensors)
    }

    /// What another rank sent; none if it has not seen this layer.
    pub fn read(&self, tensors: &HashMap<String, Tensor>, name: &str, device: &Device) -> Result<Option<Self>> {
        let get = |part: &str| tensors.get(&format!("{name}.{part}"));
        let Some(count) = get("count") else {
            return Ok(None);
        };
        let count = count.to_vec1::<i64>()?[0] as usize;
        let held = (0..).map_while(|index| get(&format!("held.{index}")));
        let folded = match (get("shift"), get("sum"), get("second")) {
            (Some(shift), Some(sum), Some(second)) => Some(Folded {
                sums: Shifted::of_sums(&vector(&shift.squeeze(0)?)?, count, sum.to_vec1()?, matrix64(second)?),
                shift: shift.to_device(device)?,
            }),
            _ => None,
        };
        Ok(Some(Self {
            count,
            held: held.map(|rows| rows.to_device(device)).collect::<Result<_>>()?,
            folded,
            holds: self.holds,
        }))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    fn rows(seed: usize, n: usize) -> Tensor {
        let value = |at: usize| ((at * 37 + seed * 101) % 53) as f32 / 7.0 + 5.0;
        Tensor::from_vec((0..n * 6).map(value).collect::<Vec<f32>>(), (n, 6), &Device::Cpu).unwrap()
    }

    /// Slots of so many rows each, put together as a tree; the right half of each sum goes through the transport's form.
    fn merged(slots: &[usize], empty: fn() -> Seen) -> Seen {
        let [n] = slots else {
            let (left, right) = slots.split_at(slots.len() / 2);
            let right = merged(right, empty);
            let sent: HashMap<String, Tensor> = right.tensors("x").unwrap().into_iter().collect();
            let right = empty().read(&sent, "x", &Device::Cpu).unwrap().unwrap();
            return merged(left, empty).merge(right).unwrap();
        };
        let mut seen = empty();
        if *n > 0 {
            seen.add(&rows(*n, *n)).unwrap();
        }
        seen
    }

    #[test]
    fn slots_see_together_what_one_sees_alone() {
        let cases = [
            (&[1, 2, 1, 2][..], true),
            (&[2, 3, 4, 1], false),
            (&[9, 1, 0, 8], false),
            (&[0, 3, 0, 1], true),
        ];
        for (slots, stays) in cases {
            for (empty, held) in [(Seen::holding as fn() -> Seen, stays), (Seen::folding, false)] {
                let mut whole = empty();
                for &n in slots.iter().filter(|&&n| n > 0) {
                    whole.add(&rows(n, n)).unwrap();
                }
                let found = merged(slots, empty);
                assert_eq!((found.count, found.folded.is_none()), (whole.count, held), "{slots:?}");
                for (found, expected) in found.mean().unwrap().iter().zip(whole.mean().unwrap()) {
                    assert!((found - expected).abs() < 1e-6);
                }
                if let (Some(found), Some(whole)) = (&found.folded, &whole.folded) {
                    let scatter = |folded: &Folded| {
                        let mean = folded.sums.mean();
                        let mut scatter = Array2::zeros((6, 6));
                        folded.sums.add_scatter(&mean, &mean, scatter.view_mut());
                        scatter
                    };
                    let difference = scatter(found) - scatter(whole);
                    assert!(difference.iter().all(|x| x.abs() < 1e-3), "{difference}");
                }
            }
        }
    }
}
