//! The rows of this tool, filled from what was measured.

use model::{Point, Site};
use numerics::sparsity::Loss;
use records::{Depth, Ppl, Sparsity};

use crate::criterion::Criterion;
use crate::level::{Cut, Level};
use crate::search::{Found, Tried};

/// What stands in every row of a study.
pub struct Told {
    pub criterion: Criterion,
    pub layer_count: usize,
}

impl Told {
    pub fn sparsity(&self, point: Point, level: Level, cut: Cut, (loss, row_count): (Loss, u64)) -> Sparsity {
        let level = (self.criterion != Criterion::Zero).then_some(level);
        Sparsity {
            site: point.site.to_string(),
            layer_index: point.layer,
            depth: Depth::of(Some(point.layer), Some(self.layer_count)),
            matrix: match point.site {
                Site::AttnIn => Site::AttnOut,
                _ => Site::MlpOut,
            }
            .to_string(),
            criterion: self.criterion.name(),
            level_kind: level.map(|level| level.key().to_owned()),
            level: level.map(Level::number),
            row_count,
            sparsity: loss.sparsity,
            threshold: cut.threshold(),
            keep: cut.keep(),
            rank: (self.criterion == Criterion::Rsparse).then_some(cut.rank),
            rel_error: loss.relative_error,
            cett: loss.cett,
            rest: Default::default(),
        }
    }
}

/// What a search found, and what it tried on the way.
pub struct Curve<'a> {
    pub sites: &'a [String],
    pub criterion: Criterion,
    pub level_kind: &'static str,
    pub perplexity_dense: f64,
}

impl Curve<'_> {
    pub fn tried(&self, tried: Tried) -> Ppl {
        Ppl {
            sites: self.sites.to_vec(),
            criterion: self.criterion.name(),
            level_kind: self.level_kind.to_owned(),
            level: tried.level,
            sparsity: tried.sparsity,
            perplexity: Some(tried.perplexity).filter(|perplexity| perplexity.is_finite()),
            perplexity_dense: self.perplexity_dense,
            percent: None,
            level_beyond: None,
            perplexity_beyond: None,
            rest: Default::default(),
        }
    }

    /// None where even the level 0 exceeds the bound.
    pub fn found(&self, found: &Found) -> Option<Ppl> {
        let beyond = found.beyond.map(|beyond| beyond.perplexity);
        Some(Ppl {
            percent: Some(found.percent),
            level_beyond: found.beyond.map(|beyond| beyond.level),
            perplexity_beyond: beyond.filter(|perplexity| perplexity.is_finite()),
            ..self.tried(found.within?)
        })
    }
}
