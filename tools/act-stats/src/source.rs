//! The input: one dump of one run, in one or several containers. Which tensors it holds, and which rows belong to which prompt.

mod parts;
mod samples;

pub use samples::check_group_count;

use crate::cli::MeasureArgs;
use process::{Error, Result, ResultExt};
use records::Depth;
use std::collections::BTreeMap;
use std::ops::Range;

/// One container of the dump.
pub struct Part {
    pub name: String,
    pub file: acts::File,
    /// Its prompts, as their rows lie; empty where every row is a prompt of its own.
    pub runs: Vec<Run>,
    /// Number of the first row over all parts.
    pub first: u64,
}

/// The rows of one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub first_row: u64,
    pub row_count: u64,
    pub sample: u64,
    /// Index into `Source::groups`.
    pub group: usize,
}

/// A site of one layer: a tensor in every part.
pub struct Component {
    pub tensor: String,
    pub site: String,
    pub layer_index: Option<u32>,
    pub width: usize,
    pub dtype: acts::Dtype,
    /// Its index in each part.
    pub tensors: Vec<usize>,
}

/// Rows that are worked on one after another: whole prompts of one part.
pub struct Unit<'a> {
    pub part: usize,
    pub rows: Range<u64>,
    /// Empty where every row is a prompt of its own.
    pub runs: &'a [Run],
}

pub struct Source {
    pub parts: Vec<Part>,
    pub components: Vec<Component>,
    /// Names of the groups; empty without `--group`.
    pub groups: Vec<String>,
    /// With `--part`, the shard that is measured alone.
    pub shard: Option<acts::Shard>,
    layer_count: Option<usize>,
}

impl Source {
    pub fn open(args: &MeasureArgs) -> Result<Self> {
        let (mut parts, names) = parts::open(args)?;
        let shard = match args.part {
            true => Some(parts::only_shard(&parts)?),
            false => None,
        };
        if shard.is_none() {
            parts::check_one_run(&parts)?;
        }
        let components = components(&parts, args, names.as_ref())?;
        let groups = samples::read(&mut parts, args.group.as_deref())?;
        let mut first = 0;
        for part in &mut parts {
            part.first = first;
            first += components[0].row_count(part, 0);
        }
        let source = Self {
            layer_count: layer_count(&parts[0])?,
            parts,
            components,
            groups,
            shard,
        };
        source.check()?;
        Ok(source)
    }

    pub fn depth(&self, component: &Component) -> Depth {
        Depth::of(component.layer_index.map(|index| index as usize), self.layer_count)
    }

    /// The rows of a component in about `count` units.
    pub fn units(&self, component: &Component, count: usize) -> Vec<Unit<'_>> {
        let row_count = |at: usize| component.row_count(&self.parts[at], at);
        let total: u64 = (0..self.parts.len()).map(row_count).sum();
        let rows_each = total.div_ceil(count.max(1) as u64).max(1);
        (0..self.parts.len())
            .flat_map(|at| self.parts[at].units(at, row_count(at), rows_each))
            .collect()
    }

    /// What the numbers come from, whatever the shards: the plan of the run that made them (its input and model are in it), or the
    /// contents of the tensors.
    pub fn digest(&self) -> String {
        let first = &self.parts[0].file;
        if let (Some(plan), Ok(_)) = (&first.header().plan_digest, first.tensor("samples")) {
            return plan.clone();
        }
        let contents = self.parts.iter().flat_map(|part| {
            let tensors = part.file.header().tensors.iter().enumerate();
            tensors.filter_map(|(index, spec)| {
                let summary = part.file.summary(index).ok()?;
                Some(format!("{} {}", spec.name, process::hex(&summary.content_digest)))
            })
        });
        process::sha256(contents.collect::<Vec<_>>().join("\n").as_bytes())
    }

    /// Refuses numbers that are not finite, rows that no prompt claims, and an input without a row.
    fn check(&self) -> Result<()> {
        for component in &self.components {
            let mut total = 0;
            for (at, part) in self.parts.iter().enumerate() {
                let summary = part.file.summary(component.tensors[at]).at(&part.name)?;
                let count = summary.non_finite.nan_count + summary.non_finite.inf_count;
                if count > 0 {
                    return Err(Error::input(
                        format!("{}: {}", part.name, component.tensor),
                        format!("{count} numbers are NaN or infinite"),
                    ));
                }
                let last = part.runs.last().map(|run| run.first_row + run.row_count);
                let claimed = last.or(part.file.tensor("samples").is_ok().then_some(0));
                if claimed.is_some_and(|claimed| claimed != summary.row_count) {
                    return Err(Error::input(
                        format!("{}: {}", part.name, component.tensor),
                        format!(
                            "has {} rows, its samples claim {}",
                            summary.row_count,
                            claimed.unwrap_or(0)
                        ),
                    ));
                }
                total += summary.row_count;
            }
            if total == 0 && self.shard.is_none() {
                return Err(Error::input(
                    &self.parts[0].name,
                    format!("{} has no rows", component.tensor),
                ));
            }
        }
        Ok(())
    }
}

impl Component {
    /// Rows in part number `at`.
    pub fn row_count(&self, part: &Part, at: usize) -> u64 {
        part.file.row_count(self.tensors[at])
    }
}

impl Part {
    fn units(&self, at: usize, row_count: u64, rows_each: u64) -> Vec<Unit<'_>> {
        let plain = |start: u64| Unit {
            part: at,
            rows: start..row_count.min(start + rows_each),
            runs: &[],
        };
        if self.runs.is_empty() {
            return (0..row_count).step_by(rows_each as usize).map(plain).collect();
        }
        let slot = |run: &Run| run.first_row / rows_each;
        let prompts = self.runs.chunk_by(|a, b| slot(a) == slot(b));
        prompts
            .map(|runs| {
                let last = runs[runs.len() - 1];
                Unit {
                    part: at,
                    rows: runs[0].first_row..last.first_row + last.row_count,
                    runs,
                }
            })
            .collect()
    }
}

/// The tensors that hold activations, by site and layer, and of these the ones that were asked for.
fn components(
    parts: &[Part],
    args: &MeasureArgs,
    names: Option<&std::collections::BTreeSet<String>>,
) -> Result<Vec<Component>> {
    let first = &parts[0];
    let mut found: BTreeMap<(String, Option<u32>), String> = BTreeMap::new();
    for spec in &first.file.header().tensors {
        let is_rows = matches!(spec.role, acts::Role::Activations | acts::Role::Data);
        if is_rows && spec.dtype.is_float() && names.is_none_or(|names| names.contains(&spec.name)) {
            let key = match spec.site {
                Some(site) => (site.to_string(), spec.layer_index),
                None => split_name(&spec.name),
            };
            found.insert(key, spec.name.clone());
        }
    }
    if found.is_empty() {
        let refusal = Error::input(&first.name, "holds no activations");
        return Err(refusal.hint("a dump of --moments has sums alone; dump the activations themselves"));
    }
    choose(&mut found, args, first)?;
    let opened = found.into_iter();
    opened
        .map(|((site, layer), name)| component(parts, site, layer, name))
        .collect()
}

/// Keeps the components and layers that were asked for; what was named must be there. A site that exists once has no layer to choose.
fn choose(found: &mut BTreeMap<(String, Option<u32>), String>, args: &MeasureArgs, first: &Part) -> Result<()> {
    for wanted in &args.components {
        if !found.keys().any(|(site, _)| site == wanted) {
            let known: std::collections::BTreeSet<&str> = found.keys().map(|(site, _)| site.as_str()).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            let refusal = Error::input(&first.name, format!("there is no component \"{wanted}\""));
            return Err(refusal.hint(format!("components: {known}")));
        }
    }
    found.retain(|(site, _), _| args.components.is_empty() || args.components.contains(site));
    let last = found.keys().filter_map(|(_, layer)| *layer).max();
    let Some(last) = last else { return Ok(()) };
    let count = layer_count(first)?.unwrap_or(last as usize + 1).max(last as usize + 1);
    let wanted = args.layers.of(count).map_err(|cause| Error::usage("--layers", cause))?;
    found.retain(|(_, layer), _| layer.is_none_or(|layer| wanted.contains(&(layer as usize))));
    if !found.keys().any(|(_, layer)| layer.is_some()) {
        return Err(Error::input(
            "--layers",
            format!("no layer of {} is in the input", args.layers),
        ));
    }
    Ok(())
}

fn component(parts: &[Part], site: String, layer_index: Option<u32>, tensor: String) -> Result<Component> {
    let mut tensors = Vec::new();
    let mut shape = None;
    for part in parts {
        let index = part.file.tensor(&tensor).at(&part.name)?;
        let spec = part.file.spec(index).at(&part.name)?;
        let this = (spec.row_elements().at(&part.name)?, spec.dtype);
        if *shape.get_or_insert(this) != this {
            return Err(Error::input(
                &part.name,
                format!("{tensor} differs in width or type from {}", parts[0].name),
            ));
        }
        tensors.push(index);
    }
    let (width, dtype) = shape.ok_or_else(|| Error::bug(&tensor, "no container"))?;
    Ok(Component {
        tensor,
        site,
        layer_index,
        width: width as usize,
        dtype,
        tensors,
    })
}

/// `name.3` is layer 3 of `name`; a name without a number has no layer.
fn split_name(name: &str) -> (String, Option<u32>) {
    let split = name
        .rsplit_once('.')
        .map(|(stem, number)| (stem, number.parse::<u32>()));
    match split {
        Some((stem, Ok(layer))) => (stem.to_owned(), Some(layer)),
        _ => (name.to_owned(), None),
    }
}

/// Blocks of the model, where the header says it.
fn layer_count(part: &Part) -> Result<Option<usize>> {
    /// BOUND: no model has more blocks; the number comes from the file.
    const LAYER_COUNT_MAX: u64 = 1 << 16;
    let Some(said) = part.file.header().meta.get("layer_count") else {
        return Ok(None);
    };
    let count = said.as_u64().filter(|count| (1..=LAYER_COUNT_MAX).contains(count));
    let count = count.ok_or_else(|| {
        Error::input(
            &part.name,
            format!("is of a model with {said} layers; limit {LAYER_COUNT_MAX}"),
        )
    })?;
    Ok(Some(count as usize))
}
