//! How much is left out, as it is asked for, and what that means for one matrix.

use crate::criterion::Criterion;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Level {
    Share(f64),
    Cett(f64),
    Threshold(f64),
}

impl Level {
    pub fn number(self) -> f64 {
        match self {
            Self::Share(number) | Self::Cett(number) | Self::Threshold(number) => number,
        }
    }

    /// Its key in records.
    pub fn key(self) -> &'static str {
        match self {
            Self::Share(_) => "sparsity",
            Self::Cett(_) => "cett",
            Self::Threshold(_) => "threshold",
        }
    }

    /// Why a criterion does not take it.
    pub fn refusal(self, criterion: Criterion) -> Option<&'static str> {
        match self {
            Self::Cett(_) | Self::Threshold(_) if criterion.counts() => {
                Some("keeps so many inputs of every token, and has no threshold")
            }
            Self::Cett(_) | Self::Threshold(_) if criterion == Criterion::Rsparse => {
                Some("divides a share between its mask and its remainder, and takes nothing else")
            }
            Self::Cett(_) if criterion.is_pooled() => Some("has one threshold for all layers, and CETT is a layer's"),
            _ => None,
        }
    }
}

/// What one matrix reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Scores above this.
    Above(f64),
    /// So many of the largest scores of every token.
    Largest(usize),
}

/// A rule, and the rank of what is read of the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    pub rule: Rule,
    pub rank: usize,
}

impl Cut {
    pub fn above(threshold: f64) -> Self {
        Self {
            rule: Rule::Above(threshold),
            rank: 0,
        }
    }

    pub fn threshold(self) -> Option<f64> {
        match self.rule {
            Rule::Above(threshold) => Some(threshold),
            Rule::Largest(_) => None,
        }
    }

    pub fn keep(self) -> Option<usize> {
        match self.rule {
            Rule::Above(_) => None,
            Rule::Largest(count) => Some(count),
        }
    }
}
