//! From arguments to what will be verified. Opens nothing.

use crate::cli::Args;
use process::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize)]
pub struct Plan {
    pub depth: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<(u64, u64)>,
    pub allow_partial: bool,
    pub map: bool,
    #[serde(skip)]
    pub inputs: Vec<PathBuf>,
}

impl Plan {
    pub fn new(args: &Args) -> Result<Plan> {
        if args
            .inputs
            .iter()
            .filter(|path| path.as_path() == Path::new("-"))
            .count()
            > 1
        {
            return Err(Error::usage("-", "stdin can be read once"));
        }
        let depth = match (args.full, args.sample) {
            (true, _) => "full",
            (false, Some(_)) => "sample",
            (false, None) => "quick",
        };
        Ok(Plan {
            depth,
            sample: args.sample,
            allow_partial: args.allow_partial,
            map: !args.no_map,
            inputs: args.inputs.clone(),
        })
    }

    pub fn depth(&self) -> acts::Depth {
        match (self.depth, self.sample) {
            ("full", _) => acts::Depth::Full,
            (_, Some((index, count))) => acts::Depth::Sample { index, count },
            _ => acts::Depth::Quick,
        }
    }

    pub fn open_options(&self) -> acts::OpenOptions {
        acts::OpenOptions {
            map: self.map,
            allow_partial: self.allow_partial,
        }
    }
}
