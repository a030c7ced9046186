//! What a run of steer-vec will do: inputs with their digests, settings, the model; and what it is carried out with.

use std::path::{Path, PathBuf};

use model::{Checkpoint, Compute, Options};
use process::{Error, Existing, OutputFlags, Result, ResultExt};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{Args, BakeArgs, ClipArgs, Command, DumpFlags, FlipArgs, ModelFlags, SearchFlags};
use crate::dump::{Groups, Tensors};
use crate::prompts::{Prompts, Speech};

#[derive(Serialize)]
pub struct Plan {
    pub command: &'static str,
    pub settings: Value,
    pub input_digests: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    pub version: &'static str,
}

/// What a plan is carried out with.
pub enum Opened {
    Groups(Box<Groups>),
    Search(Box<Trial>),
    Tensors(Box<Tensors>),
    /// The model whose numbers are flipped, and in which layers.
    Flip(Box<Checkpoint>, Vec<usize>),
    /// The model whose weights change.
    Bake(Box<Checkpoint>),
}

/// A model that is not loaded yet, and prompts for it.
pub struct Trial {
    pub checkpoint: Checkpoint,
    pub speech: Speech,
    pub harmful: Prompts,
    pub harmless: Prompts,
    pub pseudo: Option<Prompts>,
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Plan, Opened)> {
        match &args.command {
            Command::Mean(flags) => of_dumps("mean", &flags.rows, json!({"positions": flags.positions})),
            Command::Plane(flags) => {
                let mode = process::word(flags.mode);
                let settings = json!({"angle": flags.angle, "mode": mode, "position": flags.position});
                of_dumps("plane", &flags.rows, settings)
            }
            Command::Au(flags) => {
                let settings =
                    json!({"dimensions": flags.dimensions, "alpha": flags.alpha, "position": flags.position});
                of_dumps("au", &flags.rows, settings)
            }
            Command::Cluster(flags) => {
                let settings = json!({
                    "clusters_max": flags.clusters_max, "vector": process::word(flags.vector), "alpha": flags.alpha,
                    "gate": flags.gate, "seed": flags.seed, "position": flags.position,
                });
                of_dumps("cluster", &flags.rows, settings)
            }
            Command::Function(flags) => of_dumps("function", &flags.rows, json!({"position": flags.position})),
            Command::Select(flags) => {
                let settings = json!({"kl_max": flags.kl_max, "induced_min": flags.induced_min});
                of_search("select", &flags.search, None, settings)
            }
            Command::Surgical(flags) => {
                let settings = json!({"kl_max": flags.kl_max, "lambda": flags.lambda});
                of_search("surgical", &flags.search, Some(&flags.pseudo_harmful), settings)
            }
            Command::Clip(flags) => clip(flags),
            Command::Flip(flags) => flip(flags),
            Command::Bake(flags) => bake(flags),
        }
    }
}

fn of_dumps(command: &'static str, flags: &DumpFlags, mut settings: Value) -> Result<(Plan, Opened)> {
    check_output(&flags.output, &flags.dumps)?;
    let groups = Groups::open(flags)?;
    settings["positive"] = json!(flags.positive);
    settings["negative"] = json!(flags.negative);
    settings["places"] = groups.places.iter().map(|place| json!(place.to_string())).collect();
    let plan = Plan {
        command,
        settings,
        input_digests: digests(&flags.dumps)?,
        model_digest: groups.made.model_digest.clone(),
        template_digest: None,
        compute: None,
        version: process::VERSION,
    };
    Ok((plan, Opened::Groups(Box::new(groups))))
}

fn of_search(
    command: &'static str,
    flags: &SearchFlags,
    pseudo: Option<&PathBuf>,
    mut settings: Value,
) -> Result<(Plan, Opened)> {
    let inputs: Vec<PathBuf> = [&flags.harmful, &flags.harmless]
        .into_iter()
        .chain(pseudo)
        .cloned()
        .collect();
    check_output(&flags.output, &inputs)?;
    if !(flags.depth_max > 0.0 && flags.depth_max <= 1.0) {
        return Err(Error::usage(
            "--depth-max",
            "a share of the depth lies above 0 and at most at 1",
        ));
    }
    let checkpoint = open(&flags.model)?;
    let speech = Speech::open(flags, &checkpoint)?;
    let read = |path: &PathBuf, group| Prompts::read(path, group, flags, &speech, checkpoint.config());
    let trial = Trial {
        harmful: read(&flags.harmful, "harmful")?,
        harmless: read(&flags.harmless, "harmless")?,
        pseudo: pseudo.map(|path| read(path, "pseudo_harmful")).transpose()?,
        speech,
        checkpoint,
    };
    for (key, value) in [
        ("train", json!(flags.train)),
        ("validation", json!(flags.validation)),
        ("seed", json!(flags.seed)),
        ("keep_all", json!(flags.keep_all)),
        ("tokens", json!(trial.speech.tail_count)),
        ("refusal_tokens", json!(flags.refusal_tokens)),
        ("depth_max", json!(flags.depth_max)),
        ("use", json!(process::word(flags.purpose))),
        ("field", json!(flags.field)),
        ("system", json!(flags.system)),
        ("batch_tokens", json!(flags.batch_tokens)),
    ] {
        settings[key] = value;
    }
    let plan = Plan {
        command,
        settings,
        input_digests: digests(&inputs)?,
        model_digest: Some(trial.checkpoint.digest().to_owned()),
        template_digest: trial.speech.template_digest(),
        compute: Some(trial.checkpoint.compute()),
        version: process::VERSION,
    };
    Ok((plan, Opened::Search(Box::new(trial))))
}

fn clip(flags: &ClipArgs) -> Result<(Plan, Opened)> {
    check_output(&flags.output, &flags.dumps)?;
    if !(flags.margin > 0.0 && flags.margin.is_finite()) {
        return Err(Error::usage("--margin", "it is no number above 0"));
    }
    let tensors = Tensors::open(&flags.dumps, &flags.of)?;
    let places = tensors.places.iter().map(|place| json!(place.to_string()));
    let plan = Plan {
        command: "clip",
        settings: json!({"per": process::word(flags.per), "margin": flags.margin, "places": places.collect::<Value>()}),
        input_digests: digests(&flags.dumps)?,
        model_digest: tensors.made.model_digest.clone(),
        template_digest: None,
        compute: None,
        version: process::VERSION,
    };
    Ok((plan, Opened::Tensors(Box::new(tensors))))
}

fn flip(flags: &FlipArgs) -> Result<(Plan, Opened)> {
    check_output(&flags.output, &[])?;
    let checkpoint = open(&flags.model)?;
    let config = checkpoint.config();
    if let Some(absence) = flags.site.absence(config) {
        let cause = format!(
            "{} blocks of this model {absence}: they have no {}",
            config.family, flags.site
        );
        return Err(Error::usage("--site", cause));
    }
    let layers = flags.layers.of(config.layer_count());
    let layers = layers.map_err(|cause| Error::usage("--layers", cause))?;
    let plan = Plan {
        command: "flip",
        settings: json!({
            "site": flags.site.to_string(), "layers": layers, "rate": flags.rate, "seed": flags.seed, "bits": flags.bits,
        }),
        input_digests: Vec::new(),
        model_digest: Some(checkpoint.digest().to_owned()),
        template_digest: None,
        compute: None,
        version: process::VERSION,
    };
    Ok((plan, Opened::Flip(Box::new(checkpoint), layers)))
}

fn bake(flags: &BakeArgs) -> Result<(Plan, Opened)> {
    let options = Options {
        follow_links: flags.follow_links,
        ..Options::default()
    };
    let checkpoint = Checkpoint::open(&flags.model, &options).at(flags.model.display())?;
    if checkpoint.directory().is_made() {
        return Err(Error::usage(
            flags.model.display(),
            "is no directory, and bake changes the files of one",
        )
        .hint("lm-merge makes a directory of a GGUF file"));
    }
    let plan = Plan {
        command: "bake",
        settings: json!({}),
        input_digests: digests(std::slice::from_ref(&flags.steer))?,
        model_digest: Some(checkpoint.digest().to_owned()),
        template_digest: None,
        compute: None,
        version: process::VERSION,
    };
    Ok((plan, Opened::Bake(Box::new(checkpoint))))
}

fn open(flags: &ModelFlags) -> Result<Checkpoint> {
    let options = Options {
        device: model::device::open(&flags.device).map_err(|cause| Error::environment("--device", cause))?,
        dtype: model::device::dtype(&flags.dtype).map_err(|cause| Error::usage("--dtype", cause))?,
        follow_links: flags.follow_links,
        digest: flags.model_digest.clone(),
        adapters: flags.adapter.adapters.clone(),
        other_base: flags.adapter.other_base,
        ..Options::default()
    };
    Checkpoint::open(&flags.model, &options).at(flags.model.display())
}

fn check_output(flags: &OutputFlags, inputs: &[PathBuf]) -> Result<()> {
    match flags.output.as_deref() {
        None => Err(Error::usage("--output", "is missing").hint("-o FILE, or -o - for the plan on stdout")),
        Some(path) if path == Path::new("-") => Ok(()),
        Some(path) => process::check_target(path, Existing::from_flags(flags.force, false), inputs),
    }
}

fn digests(paths: &[PathBuf]) -> Result<Vec<String>> {
    let digest = |path: &PathBuf| Ok(process::sha256(&std::fs::read(path).at(path.display())?));
    paths.iter().map(digest).collect()
}
