//! From arguments to what will be written. Maps the weights to take their digest; loads none.

use std::path::PathBuf;

use model::{Checkpoint, DType, Faults, Options};
use process::{Error, Existing, OutputDirectory, Result, ResultExt};
use serde::Serialize;

use crate::cli::Args;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub tool: &'static str,
    pub version: &'static str,
    /// Of the base with its adapters.
    pub model_digest: String,
    pub adapter_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<AveragePlan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip: Option<FlipPlan>,
    pub store_dtype: String,
}

/// How often a weight has a bit flipped.
#[derive(Debug, Clone, Serialize)]
pub struct FlipPlan {
    pub rate: f64,
    pub seed: u64,
}

/// What the weights are averaged with.
#[derive(Debug, Clone, Serialize)]
pub struct AveragePlan {
    pub model_digest: String,
    pub share: f64,
}

/// What a plan is carried out with.
pub struct Opened {
    pub checkpoint: Checkpoint,
    /// The other model, and how much of it.
    pub average: Option<(Checkpoint, f64)>,
    pub faults: Option<Faults>,
    /// As typed.
    pub name: String,
    /// Each with its stored shape.
    pub parameters: Vec<(String, Vec<usize>)>,
    pub dtype: DType,
    pub target: PathBuf,
    pub existing: Existing,
    pub inputs: Vec<PathBuf>,
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Self, Opened)> {
        let dtype = model::device::dtype(&args.store_dtype).map_err(|cause| Error::usage("--store-dtype", cause))?;
        let existing = Existing::from_flags(args.force, false);
        let inputs: Vec<PathBuf> = [&args.model]
            .into_iter()
            .chain(&args.adapter.adapters)
            .chain(&args.average)
            .cloned()
            .collect();
        let target = args.output.clone().unwrap_or_default();
        if !args.common.plan {
            OutputDirectory::check(&target, existing, &inputs)?;
        }
        let options = Options {
            follow_links: args.follow_links,
            digest: args.model_digest.clone(),
            adapters: args.adapter.adapters.clone(),
            other_base: args.adapter.other_base,
            ..Options::default()
        };
        let name = args.model.display().to_string();
        let checkpoint = Checkpoint::open(&args.model, &options).at(&name)?;
        let parameters = checkpoint.parameters().at(&name)?;
        let average = average(args, &parameters)?;
        let faults = faults(args)?;
        let plan = Self {
            tool: "lm-merge",
            version: process::VERSION,
            model_digest: checkpoint.digest().to_owned(),
            adapter_count: args.adapter.adapters.len(),
            average: average.as_ref().map(|(other, share)| AveragePlan {
                model_digest: other.digest().to_owned(),
                share: *share,
            }),
            flip: faults.map(|Faults { rate, seed }| FlipPlan { rate, seed }),
            store_dtype: args.store_dtype.clone(),
        };
        let opened = Opened {
            parameters,
            checkpoint,
            average,
            faults,
            name,
            dtype,
            target,
            existing,
            inputs,
        };
        Ok((plan, opened))
    }
}

/// None where nothing is flipped.
fn faults(args: &Args) -> Result<Option<Faults>> {
    let (rate, seed) = (args.flip_rate, args.flip_seed);
    match (0.0..=1.0).contains(&rate) {
        true => Ok((rate > 0.0).then_some(Faults { rate, seed })),
        false => Err(Error::usage("--flip-rate", "it is no number from 0 to 1")),
    }
}

/// The model to average with, which must have the same parameters.
fn average(args: &Args, parameters: &[(String, Vec<usize>)]) -> Result<Option<(Checkpoint, f64)>> {
    let Some(path) = &args.average else { return Ok(None) };
    if !(0.0..=1.0).contains(&args.average_share) {
        return Err(Error::usage("--average-share", "it is no number from 0 to 1"));
    }
    let options = Options {
        follow_links: args.follow_links,
        ..Options::default()
    };
    let name = path.display().to_string();
    let other = Checkpoint::open(path, &options).at(&name)?;
    if other.parameters().at(&name)? != parameters {
        return Err(Error::input(
            &name,
            "its parameters have other names or shapes than those of --model",
        ));
    }
    Ok(Some((other, args.average_share)))
}
