//! The shared records: rows that one tool writes and another reads, a file for each producer. Names and types are pinned in
//! `man 5 records`; where a struct has a `rest`, the keys that it does not name are kept there, in order. Rows of one tool alone live in its `report.rs`.

mod activity;
mod completion;
mod dump;
mod geometry;
mod message;
mod path;
mod prompt;
mod region;
mod score;
mod sparsity;
mod steering;
mod training;
mod verdict;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use activity::{Act, DimFlow, Fit, Headline, Histogram, Int8, Resampled};
pub use completion::{Completion, Finish};
pub use dump::{Sample, Tensor};
pub use geometry::{Compare, Contrast, Depth, Geometry, Layer, Stability, StabilityProfile, Stack, Trajectory};
pub use message::Message;
pub(crate) use message::text_of_content;
pub use path::RecordPath;
pub use prompt::Prompt;
pub use region::{Measured, Region, RegionOutcome, RegionSlopes, RegionSummary, Slice};
pub use score::{Score, SkillReport, Versus};
pub use sparsity::{Ppl, Sparsity};
pub use steering::Candidate;
pub use training::{Eval, Metric};
pub use verdict::{Class, Correction, Harm, RefusalReport, RefusalSummary, Verdict};

/// A row type of a stream.
pub trait Record: Serialize + DeserializeOwned {
    /// The value of `type`; the same as in `#[serde(rename)]`.
    const TYPE: &'static str;
}

macro_rules! record_types {
    (shared { $($record:ty = $name:literal),* $(,)? } of_one_tool { $($own:literal),* $(,)? }) => {
        $(impl Record for $record { const TYPE: &'static str = $name; })*

        /// Every row type that a tool of ours writes. In a plain stream a `type` outside this list is the user's own key.
        pub const TYPES: &[&str] = &["begin", "end", $($name,)* $($own,)*];
    };
}
record_types! {
    shared {
        Sample = "sample", Tensor = "tensor",
        Layer = "layer", Stack = "stack", Trajectory = "trajectory", Contrast = "contrast", Compare = "compare",
        Stability = "stability", StabilityProfile = "stability_profile",
        Act = "act", Headline = "headline", Fit = "fit",
        Sparsity = "sparsity", Ppl = "ppl",
        Prompt = "prompt", Completion = "completion",
        Verdict = "verdict", RefusalReport = "refusal_report",
        Score = "score", SkillReport = "skill_report",
        Candidate = "candidate",
        Metric = "metric", Eval = "eval",
        Region = "region", RegionSummary = "region_summary", Slice = "slice",
    }
    of_one_tool {
        "act_part", "sample_maxima", "entropy", "ngram", "template", "tokens",
        "moments", "verify", "model", "site", "merged",
        "refusal_pair", "calibration", "opis", "self_training", "coverage", "pseudo_label",
        "region_compare", "region_verdict", "pair",
        "probe",
        "figure", "finding",
        "clip_limit", "refusal_token", "prompt_set", "dimension", "clustering", "plane_layer",
        "anchor", "anchor_space", "head", "dro_step", "shift",
        "header", "content", "row", "missing",
        "container", "damage",
    }
}

type Rest = Map<String, Value>;

/// An optional key that, when there, has its type: `null` is not a number. (A `null` text is read as absent: pandas writes it so.)
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(input).map(Some)
}
