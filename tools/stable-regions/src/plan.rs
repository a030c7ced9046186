//! From arguments to a resolved plan: models opened but not loaded, pairs read or built, layers checked, conflicts refused.

use crate::cli::{Args, Bos, Distance, PathKind, Read};
use crate::pairs::{self, Pair, Prompt, Speller};
use crate::slices::{self, Triple};
use crate::verdicts::Verdicts;
use model::{Config, DType, Device, Directory, Template, Tokenizer, Weights};
use process::{Error, Existing, Result, ResultExt, Shard};
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
pub struct Plan {
    pub models: Vec<Opened>,
    pub input_digests: Vec<String>,
    pub pair_count: usize,
    pub slice_count: usize,
    pub chat: bool,
    pub bos: Bos,
    pub read: Read,
    pub path_kind: PathKind,
    pub distances: Vec<Distance>,
    pub steps: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bisect: Option<f64>,
    pub min_distance: f64,
    pub gate_flips: bool,
    pub baseline: bool,
    pub slice_steps: usize,
    pub seed: u64,
    pub keep_going: bool,
    pub compute: Compute,
    pub batch_rows: usize,
    #[serde(skip)]
    pub pairs: Vec<Pair>,
    #[serde(skip)]
    pub triples: Vec<Triple>,
    #[serde(skip)]
    pub verdicts: Option<Verdicts>,
    #[serde(skip)]
    pub shard: Shard,
}

#[derive(Serialize)]
pub struct Compute {
    pub dtype: String,
    pub device: String,
}

#[derive(Serialize)]
pub struct Opened {
    pub model_digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer_digest: Option<String>,
    pub layers: Vec<usize>,
    pub read_layer: usize,
    /// Passes of one token, prefixes aside.
    pub one_token_passes: usize,
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub config: Config,
    #[serde(skip)]
    pub weights: Weights,
    #[serde(skip)]
    pub speller: Speller,
}

impl Plan {
    pub fn new(args: &Args) -> Result<Self> {
        check_flags(args)?;
        let shard = args.shard.resolve()?;
        if let Some(target) = &args.output.output {
            let inputs: Vec<PathBuf> = inputs(args).map(Path::to_path_buf).collect();
            process::check_target(target, Existing::from_flags(args.output.force, false), &inputs)?;
        }
        let device = model::device::open(&args.device).map_err(|cause| Error::environment("--device", cause))?;
        let dtype = model::device::dtype(&args.dtype).map_err(|cause| Error::usage("--dtype", cause))?;
        let mut models = args
            .model
            .iter()
            .map(|path| open(args, path, dtype, &device))
            .collect::<Result<Vec<_>>>()?;

        let (pairs, mut input_digests) = pairs::collect(args, &models[0].speller)?;
        let triples = match &args.slice {
            Some(path) => slices::read(path, args.input_format, &mut input_digests)?,
            None => Vec::new(),
        };
        let verdicts = match &args.verdicts {
            Some(path) => Some(Verdicts::read(path, args.judge.as_deref())?),
            None => None,
        };
        let by_tokens = |prompt: &Prompt| matches!(prompt, Prompt::Tokens(_));
        let speaks_tokens = pairs.iter().any(|pair| by_tokens(&pair.a) || by_tokens(&pair.b));
        if let Some(other) = models
            .iter()
            .find(|model| model.tokenizer_digest != models[0].tokenizer_digest)
            && speaks_tokens
        {
            return Err(Error::usage(
                "--model",
                format!("{} has another tokenizer, and these pairs are tokens", other.name),
            )
            .hint("give the pairs as texts (--pairs), or compare checkpoints of one model"));
        }
        let ways = if args.baseline { 2 } else { 1 };
        for model in &mut models {
            let points =
                pairs.len() * args.steps as usize * ways + triples.len() * 3 * (args.slice_steps as usize).pow(2);
            model.one_token_passes = points * model.layers.len();
        }
        let mut distances = Vec::new();
        for &distance in &args.distance {
            if !distances.contains(&distance) {
                distances.push(distance);
            }
        }
        Ok(Self {
            models,
            input_digests,
            pair_count: pairs.len(),
            slice_count: triples.len(),
            chat: args.chat,
            bos: args.bos,
            read: args.read,
            path_kind: args.path,
            distances,
            steps: args.steps as usize,
            bisect: args.bisect,
            min_distance: args.min_distance,
            gate_flips: args.gate_flips,
            baseline: args.baseline,
            slice_steps: args.slice_steps as usize,
            seed: args.seed,
            keep_going: args.keep_going,
            compute: Compute {
                dtype: args.dtype.clone(),
                device: args.device.clone(),
            },
            batch_rows: args.batch_rows as usize,
            pairs,
            triples,
            verdicts,
            shard,
        })
    }

    pub fn digest(&self) -> Result<String> {
        process::plan::digest(self)
    }

    /// The values of α: evenly spaced, both ends exact.
    pub fn alpha(&self) -> Vec<f64> {
        (0..self.steps).map(|i| i as f64 / (self.steps - 1) as f64).collect()
    }
}

fn inputs(args: &Args) -> impl Iterator<Item = &Path> {
    [&args.pairs, &args.last_token, &args.slice, &args.verdicts]
        .into_iter()
        .flatten()
        .chain(&args.texts)
        .map(PathBuf::as_path)
}

fn check_flags(args: &Args) -> Result<()> {
    if let Some(eps) = args.bisect
        && !(1e-9..1.0).contains(&eps)
    {
        return Err(Error::usage("--bisect", format!("{eps} is not between 1e-9 and 1")));
    }
    if !(args.min_distance >= 0.0 && args.min_distance.is_finite()) {
        return Err(Error::usage(
            "--min-distance",
            format!("{} is not a distance", args.min_distance),
        ));
    }
    if args.output.output.is_some() && args.slice.is_none() {
        return Err(Error::usage(
            "--output",
            "the container holds the fields of slices, and no --slice is given",
        )
        .hint("records go to stdout"));
    }
    if args.random.is_some() && args.texts.is_empty() {
        return Err(Error::usage("--random", "no TEXT to draw from"));
    }
    if !args.texts.is_empty() && args.random.is_none() && args.across.is_none() {
        return Err(Error::usage(
            args.texts[0].display(),
            "texts are read by --random and --across only",
        ));
    }
    if args.verdicts.is_some() && args.pairs.is_none() && args.across.is_none() {
        return Err(Error::usage(
            "--verdicts",
            "only pairs of --pairs and --across carry prompt ids",
        ));
    }
    Ok(())
}

fn open(args: &Args, path: &Path, dtype: DType, device: &Device) -> Result<Opened> {
    let name = path.display().to_string();
    let directory = Directory::open(path, false).at(&name)?;
    let config_text = directory.read("config.json").at(&name)?;
    let config = Config::parse(&config_text).at(&name)?;
    let weights = Weights::open(&directory, dtype, device).at(&name)?;
    let spells = [
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
        "vocab.bpe",
        "encoder.json",
    ];
    let mut tokenizer = None;
    for file in spells {
        if tokenizer.is_none() && directory.has(file).at(&name)? {
            tokenizer = Some(Tokenizer::open(&directory).at(&name)?);
        }
    }
    let template = match args.chat {
        true => Some(
            Template::open(&directory)
                .at(&name)?
                .ok_or_else(|| Error::input(&name, "the model has no chat template"))?,
        ),
        false => None,
    };
    let last = config.layer_count - 1;
    let read_layer = args.read_layer.unwrap_or(last);
    if read_layer > last {
        return Err(Error::usage(
            "--read-layer",
            format!("{name} has blocks 0 to {last}, not {read_layer}"),
        ));
    }
    let layers = layers(&args.layer, read_layer, last, &name)?;
    Ok(Opened {
        model_digest: format!("blake3:{}", weights.digest(&config_text).to_hex()),
        tokenizer_digest: tokenizer
            .as_ref()
            .map(|tokenizer| format!("blake3:{}", tokenizer.digest().to_hex())),
        layers,
        read_layer,
        one_token_passes: 0,
        name,
        config,
        weights,
        speller: Speller {
            tokenizer,
            template,
            bos: match args.bos {
                Bos::Auto => model::Bos::Auto,
                Bos::On => model::Bos::On,
                Bos::Off => model::Bos::Off,
            },
        },
    })
}

/// `all`, or indices and ranges; every one before the block that is read.
fn layers(text: &str, read_layer: usize, last: usize, model: &str) -> Result<Vec<usize>> {
    let malformed = || {
        Error::usage(
            "--layer",
            format!("{text:?} is not all, or indices and ranges such as 0,3,5-7"),
        )
    };
    let mut layers = Vec::new();
    if text == "all" {
        layers.extend(0..read_layer);
    } else {
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to): (usize, usize) = (
                from.parse().map_err(|_| malformed())?,
                to.parse().map_err(|_| malformed())?,
            );
            if from > to {
                return Err(malformed());
            }
            // BOUND: a range ends where the model does, whatever was typed.
            if to > last {
                return Err(Error::usage(
                    "--layer",
                    format!("{model} has blocks 0 to {last}, not {to}"),
                ));
            }
            layers.extend(from..=to);
        }
    }
    layers.sort_unstable();
    layers.dedup();
    match layers.last() {
        Some(&deepest) if deepest >= read_layer => Err(Error::usage(
            "--layer",
            format!(
                "the residual after block {deepest} is replaced, but the answer is read after block {read_layer}, which must be later"
            ),
        )),
        Some(_) => Ok(layers),
        None => Err(Error::usage(
            "--layer",
            format!("{model} has no block before block {read_layer}, which is read"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_indices_ranges_or_all_before_the_one_read() {
        let parse = |text| layers(text, 4, 5, "m");
        assert_eq!(parse("all").unwrap(), [0, 1, 2, 3]);
        assert_eq!(parse("3,0-1,1").unwrap(), [0, 1, 3]);
        for refused in ["4", "2-4", "6", "0-99999999999", "3-1", "x", ""] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }
}
