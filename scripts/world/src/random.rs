//! Draws in order from the project's counter-based generator: one stream per part of the world, so that a longer corpus does not
//! change the evaluation.

use numerics::rng::Rng;

pub struct Random {
    rng: Rng,
    unit: u64,
    position: u64,
}

impl Random {
    pub fn new(seed: u64, part: &str) -> Self {
        Self {
            rng: Rng::new(seed, part),
            unit: 0,
            position: 0,
        }
    }

    /// The draws of one row depend on the row's number alone.
    pub fn row(&mut self, unit: u64) -> &mut Self {
        self.unit = unit;
        self.position = 0;
        self
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.position += 1;
        self.rng.below(self.unit, self.position, bound)
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `count` different items in a drawn order.
    pub fn several<T: Clone>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut left = items.to_vec();
        (0..count.min(items.len()))
            .map(|_| {
                let index = self.below(left.len());
                left.swap_remove(index)
            })
            .collect()
    }
}
