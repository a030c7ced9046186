//! What will be measured: the arguments and the inputs, resolved. Opens containers and reads their headers and tables; computes nothing.

use crate::cli::{Args, Center, Layout, Measures, OnNonfinite};
use crate::container;
use crate::source::Source;
use process::{Error, Existing, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Bootstrap resamples where the user names none.
const RESAMPLE_COUNT: u64 = 1000;

/// How many components to keep, and how they are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Components {
    /// The whole spectrum; components up to the intrinsic dimension.
    Id,
    /// The leading ones alone, by the block method.
    Leading(usize),
}

/// Which dimensions are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropDims {
    None,
    Auto,
    List(Vec<usize>),
}

/// Everything that decides the numbers: what `--plan` prints and `plan_digest` covers.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub tool: &'static str,
    pub version: &'static str,
    /// Digests of names and contents of the tensors read.
    pub input_digest: String,
    pub against_digest: Option<String>,
    pub site: String,
    pub layers: Vec<u32>,
    pub layout: Layout,
    pub center: Center,
    pub group: Option<String>,
    pub drop_bos: bool,
    pub drop_dims: DropDims,
    pub components: Components,
    pub measures: Measures,
    pub exact: bool,
    pub prompts: Option<String>,
    pub group_a: Option<String>,
    pub group_b: Option<String>,
    pub stability: bool,
    pub resamples: u64,
    pub seed: u64,
    pub neighbour_rows: usize,
    pub on_nonfinite: OnNonfinite,
    #[serde(skip)]
    pub max_memory: u64,
}

/// A plan and the inputs it was made from.
pub struct Planned {
    pub plan: Plan,
    pub source: Source,
    pub reference: Option<Reference>,
}

/// What `--against` named, or the second form of `--stability`.
pub enum Reference {
    Dump(Box<Source>),
    Basis(container::Basis),
}

impl Planned {
    pub fn new(args: &Args) -> Result<Self> {
        let components = components(&args.components)?;
        let drop_dims = drop_dims(args.drop_dims.as_deref())?;
        let (inputs, second) = match &args.stability {
            Some(forms) => (vec![forms[0].clone()], Some(&forms[1])),
            None => (args.inputs.clone(), args.against.as_ref()),
        };
        let source = Source::open(&inputs, args)?;
        let reference = match second {
            Some(path) if args.stability.is_none() && container::is_basis(path, args.no_map)? => {
                Some(Reference::Basis(container::Basis::read(path, args.no_map)?))
            }
            Some(path) => Some(Reference::Dump(Box::new(Source::open_beside(path, args, &source)?))),
            None => None,
        };
        for output in [&args.basis, &args.direction].into_iter().flatten() {
            process::check_target(output, existing(args.force), &read_paths(&inputs, second))?;
        }
        if let (Some(basis), Some(direction)) = (&args.basis, &args.direction)
            && basis == direction
        {
            return Err(Error::usage("--direction", "is the same file as --basis"));
        }
        let measures = measures(args, &source)?;
        let layout = args.layout.unwrap_or(if args.stability.is_some() {
            Layout::Concat
        } else {
            Layout::Stacked
        });
        let has_rows = source.has_rows();
        for (asked, what) in [
            (layout == Layout::Concat, "--layout concat"),
            (args.prompts.is_some(), "--prompts"),
            (args.stability.is_some(), "--stability"),
            (args.resamples.is_some_and(|count| count > 0), "--resamples"),
        ] {
            if asked && !has_rows {
                return Err(source.needs_rows(what));
            }
        }
        if layout == Layout::Stacked {
            source.check_widths()?;
        }
        if components != Components::Id && args.stability.is_some() {
            return Err(Error::usage(
                "--components",
                "the stability experiment has its own component, the first",
            ));
        }
        let plan = Plan {
            tool: "flowlens-pca",
            version: process::VERSION,
            input_digest: source.digest(),
            against_digest: reference.as_ref().map(|reference| match reference {
                Reference::Dump(source) => source.digest(),
                Reference::Basis(basis) => basis.digest.clone(),
            }),
            site: source.site.clone(),
            layers: source.layers.iter().map(|layer| layer.index).collect(),
            layout,
            center: args.center,
            group: args.group.clone(),
            drop_bos: args.drop_bos,
            drop_dims,
            components,
            measures,
            exact: args.exact,
            prompts: args.prompts.clone(),
            group_a: args.group_a.clone(),
            group_b: args.group_b.clone(),
            stability: args.stability.is_some(),
            resamples: args.resamples.unwrap_or(RESAMPLE_COUNT),
            seed: args.seed,
            neighbour_rows: args.neighbour_rows as usize,
            on_nonfinite: args.on_nonfinite,
            max_memory: args.max_memory,
        };
        Ok(Self {
            plan,
            source,
            reference,
        })
    }
}

pub fn existing(force: bool) -> Existing {
    Existing::from_flags(force, false)
}

pub fn read_paths(inputs: &[PathBuf], second: Option<&PathBuf>) -> Vec<PathBuf> {
    inputs
        .iter()
        .chain(second)
        .filter(|path| *path != Path::new("-"))
        .cloned()
        .collect()
}

fn components(text: &str) -> Result<Components> {
    match text.parse::<usize>() {
        _ if text == "id" => Ok(Components::Id),
        Ok(count) if (1..=256).contains(&count) => Ok(Components::Leading(count)),
        _ => Err(Error::usage(
            "--components",
            format!("\"{text}\" is neither id nor a number from 1 to 256"),
        )),
    }
}

fn drop_dims(text: Option<&str>) -> Result<DropDims> {
    match text {
        None => Ok(DropDims::None),
        Some("auto") => Ok(DropDims::Auto),
        Some(list) => {
            let mut dims = list
                .split(',')
                .map(|item| item.trim().parse().ok())
                .collect::<Option<Vec<usize>>>()
                .ok_or_else(|| {
                    Error::usage(
                        "--drop-dims",
                        format!("\"{list}\" is neither auto nor a list of dimensions"),
                    )
                })?;
            dims.sort_unstable();
            dims.dedup();
            Ok(DropDims::List(dims))
        }
    }
}

fn measures(args: &Args, source: &Source) -> Result<Measures> {
    match args.measures {
        Some(Measures::All) if !source.has_rows() => Err(source.needs_rows("--measures all")),
        Some(measures) => Ok(measures),
        None if source.has_rows() => Ok(Measures::All),
        None => Ok(Measures::Moments),
    }
}
