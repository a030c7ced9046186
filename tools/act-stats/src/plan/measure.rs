//! What will be measured: the arguments and the inputs, resolved. Opens containers and reads their headers and sample records.

use crate::cli::{MeasureArgs, Scale};
use crate::source::Source;
use numerics::activity::Settings;
use process::{Error, Format, Result};
use serde::Serialize;

/// Everything that decides the numbers: what `--plan` prints and `plan_digest` covers.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub tool: &'static str,
    pub version: &'static str,
    pub input_digest: String,
    pub components: Vec<String>,
    pub group: Option<String>,
    pub top: u32,
    pub quantiles: Vec<f64>,
    pub int8: Vec<String>,
    pub massive_magnitude: f64,
    pub massive_ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim_flow: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temporal: Option<f64>,
    pub bootstrap: Vec<u64>,
    pub resamples: u64,
    pub seed: u64,
    #[serde(skip)]
    pub scales: Vec<Scale>,
}

/// What the plan was made from, and how results are written.
pub struct Opened {
    pub source: Source,
    pub format: Format,
}

impl Plan {
    pub fn new(args: &MeasureArgs) -> Result<(Self, Opened)> {
        let source = Source::open(args)?;
        let scales = scales(&args.int8)?;
        let plan = Self {
            tool: "act-stats",
            version: process::VERSION,
            input_digest: source.digest(),
            components: source
                .components
                .iter()
                .map(|component| component.tensor.clone())
                .collect(),
            group: args.group.clone(),
            top: args.top,
            quantiles: args.quantiles.clone(),
            int8: scales.iter().map(scale_name).collect(),
            massive_magnitude: args.massive_magnitude,
            massive_ratio: args.massive_ratio,
            dim_flow: args.dim_flow,
            run: args.dim_flow.map(|_| args.run),
            temporal: args.temporal,
            bootstrap: args.bootstrap.clone(),
            resamples: args.resamples,
            seed: args.seed,
            scales,
        };
        let opened = Opened {
            source,
            format: args.format.resolve(None),
        };
        Ok((plan, opened))
    }

    pub fn settings(&self) -> Settings {
        Settings {
            top_count: self.top as usize,
            massive_magnitude: self.massive_magnitude,
            massive_ratio: self.massive_ratio,
        }
    }
}

fn scales(asked: &[Scale]) -> Result<Vec<Scale>> {
    match asked {
        [Scale::None] => Ok(Vec::new()),
        scales if scales.contains(&Scale::None) => Err(Error::usage("--int8", "none stands alone")),
        scales => Ok(scales.to_vec()),
    }
}

/// What a scale is called in records.
pub fn scale_name(scale: &Scale) -> String {
    match scale {
        Scale::None => "none".into(),
        Scale::Max => "max".into(),
        Scale::Quantile(share) => share.to_string(),
        Scale::At(limit) => format!("at:{limit}"),
    }
}
