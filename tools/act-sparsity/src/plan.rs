//! What will be measured: matrices, criteria and levels. Opens dump and model, and loads no weight.

use std::path::{Path, PathBuf};

use model::{Checkpoint, Compute, Options, Point, Site};
use process::{Error, Result, ResultExt};
use serde::Serialize;

use crate::cli::{Allocation, Args};
use crate::criterion::{Criterion, Factor};
use crate::dump::Dump;
use crate::level::Level;
use crate::perplexity::Scoring;

/// Everything that decides the numbers: what `--plan` prints and `plan_digest` covers.
#[derive(Serialize)]
pub struct Plan {
    pub tool: &'static str,
    pub version: &'static str,
    pub model_digest: String,
    pub input_digest: String,
    pub sites: Vec<String>,
    pub layers: Vec<usize>,
    pub criteria: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level_kind: Option<&'static str>,
    pub levels: Vec<f64>,
    pub allocation: Allocation,
    pub rows: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
}

/// How the model itself is asked.
#[derive(Serialize)]
pub struct Search {
    pub percents: Vec<f64>,
    pub resolution: f64,
    pub completions_digest: String,
    pub lm_gen: Vec<String>,
    pub compute: Compute,
}

/// What a plan is carried out with.
pub struct Opened {
    pub checkpoint: Checkpoint,
    pub dump: Dump,
    /// What the matrices read, site by site.
    pub points: Vec<Point>,
    pub criteria: Vec<Criterion>,
    pub levels: Vec<Level>,
    pub scoring: Option<Scoring>,
    pub target: Target,
}

/// Where the plan of what is left out goes.
pub struct Target {
    pub path: Option<PathBuf>,
    pub is_forced: bool,
    /// Never written onto.
    pub inputs: Vec<PathBuf>,
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Plan, Opened)> {
        let levels = levels(args);
        check_criteria(args, &levels)?;
        let checkpoint = open(args)?;
        let dump = Dump::open(&args.dumps, args.rows)?;
        dump.check_model(&checkpoint, args.allow_other_model)?;
        let points = points(args, &checkpoint, &dump)?;
        let looked_at = looked_at(&points, &args.criterion);
        for point in &looked_at {
            if let Some(absence) = point.site.absence(checkpoint.config()) {
                let cause = format!("{} is needed, and blocks of this model {absence}", point.site);
                return Err(Error::usage("--criterion", cause));
            }
            dump.check(*point, point.site.width(checkpoint.config()))?;
        }
        let mut layers: Vec<usize> = points.iter().map(|point| point.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        let plan = Plan {
            tool: "act-sparsity",
            version: process::VERSION,
            model_digest: checkpoint.digest().to_owned(),
            input_digest: dump.digest(&looked_at)?,
            sites: site_names(&points),
            layers,
            criteria: args.criterion.iter().map(|criterion| criterion.name()).collect(),
            level_kind: levels.first().map(|level| level.key()),
            levels: levels.iter().map(|level| level.number()).collect(),
            allocation: args.allocation,
            rows: args.rows,
            alpha: args.criterion.contains(&Criterion::Rsparse).then_some(args.alpha),
            search: search(args, &checkpoint)?,
        };
        let opened = Opened {
            scoring: args.completions.as_deref().map(|path| Scoring::new(args, path)),
            target: target(args),
            criteria: args.criterion.clone(),
            checkpoint,
            dump,
            points,
            levels,
        };
        Ok((plan, opened))
    }
}

fn levels(args: &Args) -> Vec<Level> {
    let of = |numbers: &[f64], kind: fn(f64) -> Level| numbers.iter().copied().map(kind).collect::<Vec<_>>();
    let is_given = |numbers: &[f64]| !numbers.is_empty();
    match args {
        _ if is_given(&args.ppl) => Vec::new(),
        _ if is_given(&args.cett) => of(&args.cett, Level::Cett),
        _ if is_given(&args.threshold) => of(&args.threshold, Level::Threshold),
        _ if is_given(&args.sparsity) => of(&args.sparsity, Level::Share),
        _ => vec![Level::Share(0.5)],
    }
}

fn check_criteria(args: &Args, levels: &[Level]) -> Result<()> {
    for (at, criterion) in args.criterion.iter().enumerate() {
        let refuse = |cause: &str| Err(Error::usage("--criterion", format!("{} {cause}", criterion.name())));
        if args.criterion[..at].contains(criterion) {
            return refuse("is named twice");
        }
        if *criterion == Criterion::Zero && !args.ppl.is_empty() {
            return refuse("leaves out zeros alone, and has no level to search");
        }
        if let Some(refusal) = levels.iter().find_map(|level| level.refusal(*criterion)) {
            return refuse(refusal);
        }
    }
    let plan_count = args.criterion.len() * (levels.len() + args.ppl.len());
    match args.output.output.is_some() && plan_count != 1 {
        true => Err(Error::usage("-o", "a plan is of one criterion at one level")),
        false => Ok(()),
    }
}

fn open(args: &Args) -> Result<Checkpoint> {
    let device = model::device::open(&args.device).map_err(|cause| Error::environment("--device", cause))?;
    let dtype = model::device::dtype(&args.dtype).map_err(|cause| Error::usage("--dtype", cause))?;
    let options = Options {
        device,
        dtype,
        follow_links: args.follow_links,
        adapters: args.adapter.adapters.clone(),
        other_base: args.adapter.other_base,
        ..Options::default()
    };
    Checkpoint::open(&args.model, &options).at(args.model.display())
}

/// What is read at the sites and layers that were asked for.
fn points(args: &Args, checkpoint: &Checkpoint, dump: &Dump) -> Result<Vec<Point>> {
    let wanted = args.layers.of(checkpoint.config().layer_count());
    let wanted = wanted.map_err(|cause| Error::usage("--layers", cause))?;
    let sites = match args.sites.is_empty() {
        true => &[Site::AttnIn, Site::MlpIn],
        false => args.sites.as_slice(),
    };
    let mut points = dump.points(sites);
    points.retain(|point| wanted.contains(&point.layer));
    for site in &args.sites {
        if !points.iter().any(|point| point.site == *site) {
            return Err(Error::input(dump.name(), format!("has no {site} of these layers")));
        }
    }
    if points.is_empty() {
        let refusal = Error::input(dump.name(), "has no mlp_in and no attn_in of these layers");
        return Err(refusal.hint("resid-dump --sites mlp_in,attn_in --positions all"));
    }
    for criterion in &args.criterion {
        if !points.iter().any(|point| criterion.acts_at(point.site).is_some()) {
            let cause = format!("{} looks at the MLP's gate, and needs mlp_in", criterion.name());
            return Err(Error::usage("--criterion", cause));
        }
    }
    Ok(points)
}

/// Every tensor that is read.
fn looked_at(points: &[Point], criteria: &[Criterion]) -> Vec<Point> {
    let mut all = points.to_vec();
    for point in points {
        let at = |site| Point::new(site, point.layer);
        for criterion in criteria {
            all.extend(criterion.acts_at(point.site).map(at));
            let wants_up = criterion.factor(point.site) == Factor::UpSize;
            all.extend(wants_up.then(|| at(Site::MlpUp)));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Of points that stand site by site.
pub fn site_names(points: &[Point]) -> Vec<String> {
    let mut names: Vec<String> = points.iter().map(|point| point.site.to_string()).collect();
    names.dedup();
    names
}

fn search(args: &Args, checkpoint: &Checkpoint) -> Result<Option<Search>> {
    let Some(path) = args.completions.as_deref() else {
        return Ok(None);
    };
    if path == Path::new("-") {
        return Err(Error::usage(
            "--completions",
            "are read once for every level: name a file",
        ));
    }
    let text = std::fs::read(path).at(path.display())?;
    Ok(Some(Search {
        percents: args.ppl.clone(),
        resolution: args.resolution,
        completions_digest: process::sha256(&text),
        lm_gen: args.lm_gen.clone(),
        compute: checkpoint.compute(),
    }))
}

fn target(args: &Args) -> Target {
    let inputs = args.dumps.iter().chain(&args.completions);
    Target {
        path: args.output.output.clone(),
        is_forced: args.output.force,
        inputs: inputs.cloned().collect(),
    }
}
