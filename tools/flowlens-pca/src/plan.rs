//! What will be measured: the arguments and the inputs, resolved. Opens containers and reads their headers and tables; computes nothing.

use crate::basis::Basis;
use crate::cli::{Args, Center, Layout, Measures, OnNonfinite};
use crate::source::Source;
use process::{Error, Existing, Format, Result};
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

/// What the plan was made from, and where its products go.
pub struct Opened {
    pub source: Source,
    pub reference: Option<Reference>,
    pub products: Products,
}

/// What `--against` named, or the second form of `--stability`.
pub enum Reference {
    Dump(Box<Source>),
    Basis(Basis),
}

/// Where results go, and how.
pub struct Products {
    pub basis: Option<PathBuf>,
    pub direction: Option<PathBuf>,
    pub existing: Existing,
    /// Files being read, which no product may replace.
    pub inputs: Vec<PathBuf>,
    pub format: Format,
}

impl Plan {
    pub fn new(args: &Args) -> Result<(Self, Opened)> {
        let components = components(args)?;
        let drop_dims = drop_dims(args.drop_dims.as_deref())?;
        let (inputs, second) = match &args.stability {
            Some(forms) => (&forms[..1], Some(&forms[1])),
            None => (&args.inputs[..], args.against.as_ref()),
        };
        let source = Source::open(inputs, args)?;
        let reference = second.map(|path| open_second(path, args, &source)).transpose()?;
        let products = Products::new(args, inputs, second)?;
        let layout = args.layout.unwrap_or(match args.stability {
            Some(_) => Layout::Concat,
            None => Layout::Stacked,
        });
        let measures = measures(args, &source)?;
        check_rows(args, layout, &source)?;
        if layout == Layout::Stacked {
            source.check_widths()?;
        }
        let plan = Self {
            tool: "flowlens-pca",
            version: process::VERSION,
            input_digest: source.digest(),
            against_digest: reference.as_ref().map(Reference::digest),
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
        let opened = Opened {
            source,
            reference,
            products,
        };
        Ok((plan, opened))
    }
}

impl Reference {
    fn digest(&self) -> String {
        match self {
            Self::Dump(source) => source.digest(),
            Self::Basis(basis) => basis.digest.clone(),
        }
    }
}

fn open_second(path: &Path, args: &Args, source: &Source) -> Result<Reference> {
    if args.stability.is_none()
        && let Some(basis) = Basis::read(path, args.no_map)?
    {
        return Ok(Reference::Basis(basis));
    }
    Ok(Reference::Dump(Box::new(Source::open_beside(path, args, source)?)))
}

impl Products {
    fn new(args: &Args, inputs: &[PathBuf], second: Option<&PathBuf>) -> Result<Self> {
        let is_file = |path: &&PathBuf| *path != Path::new("-");
        let inputs: Vec<PathBuf> = inputs.iter().chain(second).filter(is_file).cloned().collect();
        let existing = Existing::from_flags(args.force, false);
        for (flag, output) in [("--basis", &args.basis), ("--direction", &args.direction)] {
            let Some(output) = output else { continue };
            if output == Path::new("-") {
                return Err(Error::usage(flag, "- would mix a container with the records on stdout"));
            }
            process::check_target(output, existing, &inputs)?;
        }
        if args.basis.is_some() && args.basis == args.direction {
            return Err(Error::usage("--direction", "is the same file as --basis"));
        }
        Ok(Self {
            basis: args.basis.clone(),
            direction: args.direction.clone(),
            existing,
            inputs,
            format: args.format.resolve(None),
        })
    }
}

/// Refuses moments where the rows themselves are needed.
fn check_rows(args: &Args, layout: Layout, source: &Source) -> Result<()> {
    let asked = [
        (layout == Layout::Concat, "--layout concat"),
        (args.prompts.is_some(), "--prompts"),
        (args.stability.is_some(), "--stability"),
        (args.resamples.is_some_and(|count| count > 0), "--resamples"),
    ];
    match asked.into_iter().find(|(is_asked, _)| *is_asked) {
        Some((_, what)) if !source.has_rows() => Err(source.needs_rows(what)),
        _ => Ok(()),
    }
}

fn components(args: &Args) -> Result<Components> {
    let text = args.components.as_str();
    match text.parse::<usize>() {
        _ if text == "id" => Ok(Components::Id),
        Ok(_) if args.stability.is_some() => Err(Error::usage(
            "--components",
            "the stability experiment has its own component, the first",
        )),
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
