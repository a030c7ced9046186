//! From arguments to what will be done: the mode, the format, the target. Looks at names and flags, opens no container.

use crate::cli::{Args, InputFormat, OutputFormat, RowBounds};
use acts::{Codec, Dtype};
use process::{Error, Existing, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What a run does, in one word each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Header,
    Convert,
    Import,
    Merge,
    Salvage,
}

#[derive(Debug, Serialize)]
pub struct Plan {
    pub mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowBounds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<Codec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_dtype: Option<Dtype>,
    pub input_count: usize,
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub format: OutputFormat,
    #[serde(skip)]
    pub input_format: Option<InputFormat>,
    #[serde(skip)]
    pub inputs: Vec<PathBuf>,
    #[serde(skip)]
    pub target: Option<PathBuf>,
    #[serde(skip)]
    pub existing: Existing,
    #[serde(skip)]
    pub allow_mixed_compute: bool,
    #[serde(skip)]
    pub cache_bytes_max: u64,
    #[serde(skip)]
    pub open: acts::OpenOptions,
    #[serde(skip)]
    pub threads: usize,
}

impl Plan {
    pub fn new(args: &Args) -> Result<Plan> {
        let target = args.output.output.clone();
        let chooses_rows = args.head.is_some() || args.rows.is_some() || !args.tensor.is_empty();
        let encodes = args.codec.is_some() || args.level.is_some() || args.store_dtype.is_some();
        let named = target.as_deref().and_then(format_of);
        let mode = match args {
            _ if !args.from.is_empty() => Mode::Import,
            _ if args.merge => Mode::Merge,
            _ if args.salvage => Mode::Salvage,
            _ if args.header => Mode::Header,
            _ if args.to.is_some() || target.is_some() || chooses_rows || encodes => Mode::Convert,
            _ => Mode::Header,
        };
        let format = match (mode, args.to, named) {
            (Mode::Import | Mode::Merge | Mode::Salvage, ..) => OutputFormat::Acts,
            (Mode::Header, ..) => OutputFormat::Jsonl,
            (Mode::Convert, Some(format), _) => format,
            (Mode::Convert, None, Some(format)) => format,
            (Mode::Convert, None, None) if encodes => OutputFormat::Acts,
            (Mode::Convert, None, None) => match target.as_deref() {
                Some(path) if path != Path::new("-") => {
                    return Err(Error::usage(path.display(), "its name says no format").hint("give --to"));
                }
                _ => OutputFormat::Jsonl,
            },
        };
        if encodes && format != OutputFormat::Acts {
            return Err(Error::usage(
                "--to",
                "--codec, --level and --store-dtype are for --to acts",
            ));
        }
        if format == OutputFormat::Acts && target.is_none() {
            return Err(Error::usage("--output", "a container needs a place").hint("-o FILE, or -o - for stdout"));
        }
        if mode == Mode::Header && target.is_some() {
            return Err(Error::usage("--output", "the header goes to stdout"));
        }
        if args.store_dtype.is_some_and(|dtype| !dtype.is_float()) {
            return Err(Error::usage(
                "--store-dtype",
                "f64, f32, f16 and bf16 are element types of activations",
            ));
        }
        let inputs = if mode == Mode::Import {
            args.from.clone()
        } else {
            args.inputs.clone()
        };
        if inputs.len() > 1 && matches!(mode, Mode::Header | Mode::Convert | Mode::Salvage) {
            return Err(
                Error::usage(inputs[1].display(), "one container at a time").hint("--merge puts shards together")
            );
        }
        Ok(Plan {
            mode,
            to: (mode != Mode::Header).then(|| name_of(format)),
            tensors: args.tensor.clone(),
            rows: args.rows,
            head: args.head,
            codec: args.codec,
            level: args.level,
            store_dtype: args.store_dtype,
            input_count: inputs.len(),
            name: args.name.clone(),
            format,
            input_format: args.input_format,
            inputs,
            target,
            existing: Existing::from_flags(args.output.force, false),
            allow_mixed_compute: args.allow_mixed_compute,
            cache_bytes_max: args.max_memory,
            open: acts::OpenOptions {
                map: !args.no_map,
                allow_partial: args.allow_partial,
            },
            threads: args.common.thread_count(),
        })
    }

    /// Inputs that are files, which an output may not be.
    pub fn files(&self) -> Vec<PathBuf> {
        self.inputs
            .iter()
            .filter(|path| path.as_path() != Path::new("-"))
            .cloned()
            .collect()
    }
}

const FORMATS: [(OutputFormat, &str); 7] = [
    (OutputFormat::Jsonl, "jsonl"),
    (OutputFormat::Raw, "raw"),
    (OutputFormat::Npy, "npy"),
    (OutputFormat::Safetensors, "safetensors"),
    (OutputFormat::Parquet, "parquet"),
    (OutputFormat::Gguf, "gguf"),
    (OutputFormat::Acts, "acts"),
];

fn name_of(format: OutputFormat) -> &'static str {
    FORMATS
        .into_iter()
        .find(|(known, _)| *known == format)
        .map_or("", |(_, name)| name)
}

fn format_of(path: &Path) -> Option<OutputFormat> {
    let extension = path.extension()?.to_str()?;
    FORMATS
        .into_iter()
        .find(|(_, name)| *name == extension)
        .map(|(format, _)| format)
}
