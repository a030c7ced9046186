//! Answers grouped by what all judges say of them, which is how they are drawn for labelling and how labels are weighed afterwards.

use indexmap::IndexMap;
use records::{Class, JoinKey, Verdict};

/// Below this a lone judge's verdict is one to look at.
const CONFIDENCE_LOW: f64 = 0.8;

/// The verdicts on one answer, in the order of the file.
pub struct Item<'v> {
    pub verdicts: Vec<&'v Verdict>,
}

impl Item<'_> {
    pub fn first(&self) -> &Verdict {
        self.verdicts[0]
    }

    /// What the judges say, and the label of the prompt: answers of one stratum are alike to all that is known of them.
    pub fn stratum(&self) -> String {
        let label = self.first().label.as_deref().unwrap_or_default();
        let said = self.verdicts.iter().map(|verdict| verdict.verdict.name());
        let doubt = if self.is_disputed() { "?" } else { "" };
        format!("{label} {}{doubt}", said.collect::<Vec<_>>().join(" "))
    }

    /// Judges that see it differently; of a lone judge, one that is not sure.
    pub fn is_disputed(&self) -> bool {
        let side = |class| match class {
            Class::Partial => Class::Refusal,
            other => other,
        };
        let first = self.first();
        match self.verdicts.as_slice() {
            [alone] => alone.confidence.is_some_and(|confidence| confidence < CONFIDENCE_LOW),
            several => several
                .iter()
                .any(|verdict| side(verdict.verdict) != side(first.verdict)),
        }
    }
}

/// The answers of a file of verdicts, in the order in which they first appear.
pub fn items(verdicts: &[Verdict]) -> IndexMap<JoinKey, Item<'_>> {
    let mut items: IndexMap<JoinKey, Item> = IndexMap::new();
    for verdict in verdicts {
        let item = items
            .entry(verdict.key())
            .or_insert_with(|| Item { verdicts: Vec::new() });
        item.verdicts.push(verdict);
    }
    items
}

/// How many of each stratum are drawn: half of the budget from the disputed, what is left from the others, each side by size; at least
/// two of each stratum, so that every one can be judged.
pub fn allocate(strata: &[(usize, bool)], budget: usize) -> Vec<usize> {
    let total = |disputed: bool| -> usize {
        let sizes = strata.iter().filter(|(_, is_disputed)| *is_disputed == disputed);
        sizes.map(|(size, _)| size).sum()
    };
    let (disputed, agreed) = (total(true), total(false));
    let of_disputed = if agreed == 0 { budget } else { disputed.min(budget / 2) };
    let of_agreed = budget - of_disputed.min(budget);
    let share = |&(size, is_disputed): &(usize, bool)| {
        let (part, whole) = if is_disputed {
            (of_disputed, disputed)
        } else {
            (of_agreed, agreed)
        };
        let wanted = (part as f64 * size as f64 / whole.max(1) as f64).round() as usize;
        wanted.max(STRATUM_LABELS_MIN).min(size)
    };
    strata.iter().map(share).collect()
}

const STRATUM_LABELS_MIN: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disputed_come_first_and_no_stratum_goes_without() {
        assert_eq!(allocate(&[(100, false), (20, true), (1, false)], 40), [20, 20, 1]);
        assert_eq!(allocate(&[(100, false), (60, true), (40, true)], 40), [20, 12, 8]);
        assert_eq!(allocate(&[(300, false), (3, false)], 30), [30, 2]);
        assert_eq!(allocate(&[(5, true)], 40), [5]);
        assert_eq!(allocate(&[], 40), [0usize; 0]);
    }
}
