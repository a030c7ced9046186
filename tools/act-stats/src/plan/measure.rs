//! What will be measured: the arguments and the inputs, resolved. Opens containers and reads their headers and sample records.

use crate::cli::{MeasureArgs, Scale, parse_scale};
use crate::source::Source;
use numerics::activity::Settings;
use process::{Error, Format, Result};
use serde::{Deserialize, Serialize};

/// Everything that decides the numbers: what `--plan` prints and `plan_digest` covers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub tool: String,
    pub version: String,
    pub input_digest: String,
    pub components: Vec<String>,
    pub group: Option<String>,
    pub top: u32,
    pub quantiles: Vec<f64>,
    pub int8: Vec<String>,
    pub massive_magnitude: f64,
    pub massive_ratio: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dim_flow: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
        if source.shard.is_some() {
            check_scales_of_part(&source, &scales)?;
        }
        let plan = Self {
            tool: "act-stats".into(),
            version: process::VERSION.into(),
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

    /// Understands the scales of a plan that was written down.
    pub fn read_scales(&mut self) -> std::result::Result<(), String> {
        self.scales = self
            .int8
            .iter()
            .map(|name| parse_scale(name))
            .collect::<std::result::Result<_, _>>()?;
        Ok(())
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

/// The counts of bf16 magnitudes are complete, so that their losses follow at any scale; others are seen only with the scale known.
fn check_scales_of_part(source: &Source, scales: &[Scale]) -> Result<()> {
    let follows = |scale: &Scale| matches!(scale, Scale::Max | Scale::Quantile(_));
    let wide = source
        .components
        .iter()
        .find(|component| component.dtype != acts::Dtype::Bf16);
    match wide.filter(|_| scales.iter().any(follows)) {
        None => Ok(()),
        Some(component) => {
            let cause = format!(
                "{} is not of bf16, and a part cannot know the whole run's scale",
                component.tensor
            );
            Err(Error::usage("--int8", cause).hint("--int8 none, or at:X; or give all containers to one act-stats"))
        }
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
