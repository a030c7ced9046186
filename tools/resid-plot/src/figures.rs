//! From records to figures. Each kind reads the record types it shows and returns nothing where they are absent, so that a
//! page can be asked for "whatever these records hold".

mod activity;
mod candidates;
mod curves;
mod layers;
mod projection;
mod rates;
mod slices;
mod sparsity;
mod spectrum;
mod sweep;
mod training;
mod trajectory;

use crate::figure::Figure;
use crate::source::Source;
use process::Result;

/// A figure by its name on the command line.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Trajectory,
    Projection,
    Spectrum,
    Concentration,
    /// Any number of `layer` records against depth.
    Layer(String),
    Training,
    Refusal,
    Skill,
    Interpolation,
    Slice,
    /// Largest magnitudes over depth.
    Massive,
    /// Histograms of magnitudes over depth.
    Magnitudes,
    /// Laws and the points that they were fitted to.
    Law,
    Candidates,
    /// Errors of matrices against the share of inputs left out.
    Sparsity,
    /// The model's perplexity against the same.
    Perplexity,
    /// `RECORD.FIELD` of every source against the source's x.
    Sweep {
        record: String,
        field: String,
    },
}

impl Kind {
    /// What a page shows when no figure is named, in this order.
    pub const PLAIN: [Kind; 15] = [
        Kind::Trajectory,
        Kind::Projection,
        Kind::Spectrum,
        Kind::Concentration,
        Kind::Training,
        Kind::Refusal,
        Kind::Skill,
        Kind::Interpolation,
        Kind::Slice,
        Kind::Massive,
        Kind::Magnitudes,
        Kind::Law,
        Kind::Candidates,
        Kind::Sparsity,
        Kind::Perplexity,
    ];

    pub fn figures(&self, sources: &[Source]) -> Result<Option<Figure>> {
        match self {
            Self::Trajectory => trajectory::figure(sources),
            Self::Projection => projection::figure(sources),
            Self::Spectrum => spectrum::figure(sources),
            Self::Concentration => layers::concentration(sources),
            Self::Layer(field) => layers::field(sources, field),
            Self::Training => training::figure(sources),
            Self::Refusal => rates::refusal(sources),
            Self::Skill => rates::skill(sources),
            Self::Interpolation => curves::figure(sources),
            Self::Slice => slices::figure(sources),
            Self::Massive => activity::massive(sources),
            Self::Magnitudes => activity::magnitudes(sources),
            Self::Law => activity::laws(sources),
            Self::Candidates => candidates::figure(sources),
            Self::Sparsity => sparsity::errors(sources),
            Self::Perplexity => sparsity::perplexity(sources),
            Self::Sweep { record, field } => sweep::figure(sources, record, field),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trajectory => f.write_str("trajectory"),
            Self::Projection => f.write_str("projection"),
            Self::Spectrum => f.write_str("spectrum"),
            Self::Concentration => f.write_str("concentration"),
            Self::Layer(field) => write!(f, "layer:{field}"),
            Self::Training => f.write_str("training"),
            Self::Refusal => f.write_str("refusal"),
            Self::Skill => f.write_str("skill"),
            Self::Interpolation => f.write_str("interpolation"),
            Self::Slice => f.write_str("slice"),
            Self::Massive => f.write_str("massive"),
            Self::Magnitudes => f.write_str("magnitudes"),
            Self::Law => f.write_str("law"),
            Self::Candidates => f.write_str("candidates"),
            Self::Sparsity => f.write_str("sparsity"),
            Self::Perplexity => f.write_str("perplexity"),
            Self::Sweep { record, field } => write!(f, "sweep:{record}.{field}"),
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Some(plain) = Self::PLAIN.iter().find(|kind| kind.to_string() == text) {
            return Ok(plain.clone());
        }
        match text.split_once(':') {
            Some(("layer", field)) if !field.is_empty() => Ok(Self::Layer(field.to_string())),
            Some(("sweep", path)) => match path.split_once('.') {
                Some((record, field)) if !record.is_empty() && !field.is_empty() => Ok(Self::Sweep {
                    record: record.to_string(),
                    field: field.to_string(),
                }),
                _ => Err("a sweep is named sweep:RECORD.FIELD".to_string()),
            },
            _ => Err(format!(
                "unknown figure; there are {}, layer:FIELD and sweep:RECORD.FIELD",
                Self::PLAIN
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
        }
    }
}

/// The quantile of unsorted finite values, of which there is at least one.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    numerics::statistics::quantile(values, share).unwrap_or(f64::NAN)
}
