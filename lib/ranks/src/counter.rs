//! Adding in the order of a balanced tree while keeping no more values than the tree has levels.

/// A carrying binary counter of sums: two of one height become one of the next.
#[derive(Debug)]
pub struct Counter<T> {
    /// Sums with their heights, which fall.
    sums: Vec<(u32, T)>,
}

impl<T> Default for Counter<T> {
    fn default() -> Self {
        Self { sums: Vec::new() }
    }
}

impl<T> Counter<T> {
    /// Adds the next value; `add` gets the left sum first.
    pub fn push<E>(&mut self, value: T, mut add: impl FnMut(T, T) -> Result<T, E>) -> Result<(), E> {
        let (mut height, mut sum) = (0, value);
        while let Some((_, left)) = self.sums.pop_if(|(other, _)| *other == height) {
            (height, sum) = (height + 1, add(left, sum)?);
        }
        self.sums.push((height, sum));
        Ok(())
    }

    /// The sum of all values, of which there was a power of two.
    pub fn take(&mut self) -> Option<T> {
        assert!(self.sums.len() <= 1, "a power of two of values");
        self.sums.pop().map(|(_, sum)| sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_added_as_a_balanced_tree_from_the_left() {
        let mut counter = Counter::default();
        let mut most = 0;
        for value in 0..8 {
            let add = |left: String, right: String| Ok::<_, ()>(format!("({left}{right})"));
            counter.push(value.to_string(), add).unwrap();
            most = most.max(counter.sums.len());
        }
        assert_eq!(counter.take().unwrap(), "(((01)(23))((45)(67)))");
        assert_eq!(most, 3);
        assert_eq!(counter.take(), None);
    }
}
