//! Auxiliary losses on the residual stream. One more is one file here, and a word in `Spec`.

mod subspace;
pub mod vcl;

use std::str::FromStr;

use candle_core::Result;
use model::Tensor;
use records::Metric;
use serde::Serialize;

use vcl::Vcl;

/// A loss on the residual rows of some layers, over all micro-batches of a step.
///
/// A step calls `begin`, `observe` for every layer of every micro-batch, `settle` once, and then `gradient` for every layer of
/// every micro-batch: what `settle` found is constant for the whole step, so that accumulation changes nothing.
pub trait Auxiliary {
    /// The blocks whose output it must see, ascending.
    fn layers(&self) -> &[usize];

    /// Which positions of a sequence are rows.
    fn rows(&self) -> Rows;

    fn begin(&mut self, step: u64);

    /// Rows (n, d) of one layer in one micro-batch, f32.
    fn observe(&mut self, layer: usize, rows: &Tensor) -> Result<()>;

    /// Fixes the step's statistics, and returns the loss.
    fn settle(&mut self) -> Result<f64>;

    /// Whether this step has gradients at all.
    fn is_active(&self) -> bool;

    /// The gradient of the loss with respect to these rows; none when it is zero.
    fn gradient(&self, layer: usize, rows: &Tensor) -> Result<Option<Tensor>>;

    /// Why the step's statistics mean little, if so.
    fn doubt(&self) -> Option<Doubt>;

    /// Its part of the step's record.
    fn report(&self, metric: &mut Metric);

    /// What a resumed run needs to go on with the same bits.
    fn state(&self) -> Result<Vec<(String, Tensor)>>;

    fn restore(&mut self, name: &str, value: &Tensor) -> Result<()>;
}

/// A statistic over too few rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Doubt {
    pub cause: String,
    /// The loss has no meaning at all; otherwise it is only noisy.
    pub is_fatal: bool,
}

/// Which positions of a sequence are rows of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rows {
    /// Those that hold completion tokens.
    Completion,
    /// The last of the sequence.
    Last,
    All,
}

/// What `--aux` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Spec {
    Vcl(vcl::Options),
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("vcl", options) => options.parse().map(Self::Vcl),
            (name, _) => Err(format!("{name:?} is unknown (known: vcl)")),
        }
    }
}

impl Spec {
    /// The loss for a model of `layer_count` blocks.
    pub fn build(&self, layer_count: usize) -> std::result::Result<Box<dyn Auxiliary>, String> {
        match self {
            Self::Vcl(options) => Ok(Box::new(Vcl::new(options.clone(), layer_count)?)),
        }
    }
}
