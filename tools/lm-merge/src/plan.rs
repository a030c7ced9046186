//! From arguments to what will be written. Maps the weights to take their digest; loads none.

use std::path::PathBuf;

use model::{Checkpoint, DType, Options};
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
    pub store_dtype: String,
}

/// What a plan is carried out with.
pub struct Opened {
    pub checkpoint: Checkpoint,
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
        let plan = Self {
            tool: "lm-merge",
            version: process::VERSION,
            model_digest: checkpoint.digest().to_owned(),
            adapter_count: args.adapter.adapters.len(),
            store_dtype: args.store_dtype.clone(),
        };
        let opened = Opened {
            parameters: checkpoint.parameters().at(&name)?,
            checkpoint,
            name,
            dtype,
            target,
            existing,
            inputs,
        };
        Ok((plan, opened))
    }
}
