//! The plan of `prompts`: benchmarks and where the parts of their rows stand.

use std::path::PathBuf;

use process::{Error, Result, Target};
use serde::Serialize;

use crate::benchmarks::Columns;
use crate::cli::{BenchFlags, PromptsArgs};

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    pub benches: Vec<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// A benchmark in a plan.
#[derive(Serialize)]
pub struct Source {
    pub bench: String,
    #[serde(skip)]
    pub path: PathBuf,
    pub columns: Columns,
}

pub struct Opened {
    pub target: Target,
}

impl Plan {
    pub fn new(flags: &PromptsArgs) -> Result<(Plan, Opened)> {
        let plan = Plan::of(&flags.bench)?;
        let files: Vec<PathBuf> = plan.benches.iter().map(|bench| bench.path.clone()).collect();
        let target = flags.output.target(&files);
        Ok((plan, Opened { target }))
    }

    pub fn of(flags: &BenchFlags) -> Result<Plan> {
        let mut benches: Vec<Source> = Vec::new();
        for (bench, path) in &flags.benches {
            if benches.iter().any(|known| known.bench == *bench) {
                return Err(Error::usage("--bench", format!("{bench} is given twice")));
            }
            benches.push(Source {
                bench: bench.clone(),
                path: path.clone(),
                columns: Columns::of(bench, &flags.map, &flags.wanted)?,
            });
        }
        Ok(Plan {
            command: "prompts",
            benches,
            limit: flags.limit,
        })
    }
}
