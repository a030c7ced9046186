//! The criteria: where each looks, what it scores, and how it cuts.

use clap::ValueEnum;
use model::Site;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Criterion {
    Zero,
    TopK,
    Fat,
    Teal,
    Cats,
    Chess,
    Wina,
    Cett,
    Rsparse,
}

/// What the magnitude of an input is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    One,
    /// The norm of the matrix's column.
    ColumnNorm,
    /// The root mean square of what the activated gate is multiplied by.
    UpSize,
}

impl Criterion {
    pub fn name(self) -> String {
        process::word(self)
    }

    /// Where it looks, and leaves out, to thin out what is read at a site.
    pub fn acts_at(self, site: Site) -> Option<Site> {
        match (self, site) {
            (Self::Cats, Site::AttnIn) => None,
            (Self::Cats | Self::Chess, Site::MlpIn) => Some(Site::MlpAct),
            _ => Some(site),
        }
    }

    pub fn factor(self, site: Site) -> Factor {
        match (self, site) {
            (Self::Wina | Self::Cett | Self::Rsparse, _) => Factor::ColumnNorm,
            (Self::Chess, Site::MlpIn) => Factor::UpSize,
            _ => Factor::One,
        }
    }

    /// Whether so many inputs of every token are kept; else those above a threshold.
    pub fn counts(self) -> bool {
        matches!(self, Self::TopK | Self::Wina)
    }

    /// Whether one threshold holds for all layers.
    pub fn is_pooled(self) -> bool {
        self == Self::Fat
    }
}
