//! The input: one dump of one run, in one or several containers, as rows or as moments.
//!
//! Rows have one canonical order whatever the number of shards: by sample index, then as they lie. Containers without sample records
//! (made from npy) are taken one after another, every row a prompt of its own.

use crate::cli::Args;
use numerics::moments::{BucketTree, Moments};
use process::{Error, Result, ResultExt};
use records::{Sample, Tensor};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// Groups beyond this are a mistake: a field with one value per prompt.
const GROUP_COUNT_MAX: usize = 64;

/// One container of the dump.
pub struct Part {
    pub name: String,
    pub file: acts::File,
}

/// A layer that was selected.
pub struct Layer {
    pub index: u32,
    pub width: usize,
    /// The layer's tensor in each part; empty for moments.
    pub tensors: Vec<usize>,
    dtype: acts::Dtype,
}

/// Consecutive rows of one part that belong to one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub part: u32,
    pub first_row: u64,
    pub row_count: u64,
    /// Index among the prompts.
    pub prompt: u32,
}

/// Who the rows belong to.
pub struct Prompts {
    pub ids: Vec<String>,
    /// What a pair is recognised by: bench and id.
    pub keys: Vec<String>,
    pub text_digests: Vec<Option<String>>,
    /// Index into `Source::groups` of each prompt.
    pub groups: Vec<u32>,
}

enum Content {
    /// Runs in canonical order; prompts are `None` where every row is its own.
    Rows { runs: Vec<Run>, prompts: Option<Prompts> },
    /// Per layer index: tensor base names (`moments.<g>.<site>.<l>.<c>`) of each group.
    Moments,
}

pub struct Source {
    pub parts: Vec<Part>,
    pub site: String,
    pub layers: Vec<Layer>,
    /// Blocks of the model, for depth.
    pub layer_count: u32,
    /// Names of the groups; empty without `--group`.
    pub groups: Vec<String>,
    drop_bos: bool,
    content: Content,
}

impl Source {
    pub fn open(paths: &[PathBuf], args: &Args) -> Result<Self> {
        let (parts, names) = open_parts(paths, args)?;
        Self::new(parts, names, args, args.site.clone(), args.layers.as_deref())
    }

    /// The other side of a comparison: the same site and layers.
    pub fn open_beside(path: &Path, args: &Args, first: &Source) -> Result<Self> {
        let (parts, names) = open_parts(std::slice::from_ref(&path.to_path_buf()), args)?;
        let layers: Vec<String> = first.layers.iter().map(|layer| layer.index.to_string()).collect();
        let second = Self::new(parts, names, args, Some(first.site.clone()), Some(&layers.join(",")))?;
        for (a, b) in first.layers.iter().zip(&second.layers) {
            if a.width != b.width {
                return Err(Error::input(
                    path.display(),
                    format!("layer {} is {} wide, the input's {}", b.index, b.width, a.width),
                ));
            }
        }
        Ok(second)
    }

    fn new(
        parts: Vec<Part>,
        names: Option<BTreeSet<String>>,
        args: &Args,
        site: Option<String>,
        layers: Option<&str>,
    ) -> Result<Self> {
        one_run(&parts)?;
        let found = Found::new(&parts, names.as_ref())?;
        let site = found.choose_site(site, &parts)?;
        let available = &found.sites[&site];
        let layer_count = layer_count(&parts, available);
        let chosen = select_layers(layers, available.keys().copied().collect(), layer_count)?;
        let layers = chosen
            .iter()
            .map(|index| found.layer(&site, *index, &parts))
            .collect::<Result<Vec<Layer>>>()?;
        let mut source = Self {
            content: if found.moments {
                Content::Moments
            } else {
                Content::Rows {
                    runs: Vec::new(),
                    prompts: None,
                }
            },
            groups: Vec::new(),
            drop_bos: args.drop_bos,
            parts,
            site,
            layers,
            layer_count,
        };
        if found.moments {
            source.name_moment_groups(args)?;
        } else {
            source.read_rows_table(args)?;
        }
        Ok(source)
    }

    pub fn has_rows(&self) -> bool {
        matches!(self.content, Content::Rows { .. })
    }

    pub fn name(&self) -> String {
        match self.parts.as_slice() {
            [one] => one.name.clone(),
            [first, ..] => format!("{} and {} more", first.name, self.parts.len() - 1),
            [] => String::new(),
        }
    }

    pub fn needs_rows(&self, what: &str) -> Error {
        Error::input(self.name(), format!("holds moments, and {what} needs rows"))
            .hint("dump the activations themselves (resid-dump without --moments)")
    }

    /// Runs of rows in canonical order.
    pub fn runs(&self) -> &[Run] {
        match &self.content {
            Content::Rows { runs, .. } => runs,
            Content::Moments => &[],
        }
    }

    pub fn row_count(&self) -> u64 {
        self.runs().iter().map(|run| run.row_count).sum()
    }

    pub fn prompts(&self) -> Option<&Prompts> {
        match &self.content {
            Content::Rows { prompts, .. } => prompts.as_ref(),
            Content::Moments => None,
        }
    }

    /// Prompts, or rows where every row is its own.
    pub fn prompt_count(&self) -> usize {
        self.prompts()
            .map_or_else(|| self.row_count() as usize, |prompts| prompts.ids.len())
    }

    /// The group of a prompt: its index in `groups`.
    pub fn group_of(&self, prompt: u32) -> usize {
        self.prompts()
            .map_or(0, |prompts| prompts.groups[prompt as usize] as usize)
    }

    pub fn group_index(&self, name: &str) -> Result<usize> {
        self.groups.iter().position(|group| group == name).ok_or_else(|| {
            let known: Vec<&str> = self.groups.iter().map(String::as_str).collect();
            Error::input(self.name(), format!("there is no group \"{name}\""))
                .hint(format!("groups: {}", known.join(", ")))
        })
    }

    /// Whether rows must be read as f64.
    pub fn is_double(&self) -> bool {
        self.layers.iter().any(|layer| layer.dtype == acts::Dtype::F64)
    }

    pub fn check_widths(&self) -> Result<()> {
        let Some(first) = self.layers.first() else {
            return Ok(());
        };
        match self.layers.iter().find(|layer| layer.width != first.width) {
            Some(other) => Err(Error::input(
                self.name(),
                format!(
                    "layer {} is {} wide and layer {} is {}: they share no space to stack them in",
                    first.index, first.width, other.index, other.width
                ),
            )
            .hint("--layout concat, or --layers of one width")),
            None => Ok(()),
        }
    }

    /// Rows with NaN or infinity among the selected tensors, by the containers' own count.
    pub fn non_finite(&self) -> Result<Option<(String, u64)>> {
        for layer in &self.layers {
            for (part, tensor) in self.parts.iter().zip(&layer.tensors) {
                let summary = part.file.summary(*tensor).at(&part.name)?;
                let count = summary.non_finite.nan_count + summary.non_finite.inf_count;
                if count > 0 {
                    return Ok(Some((
                        format!("{}: {}", part.name, part.file.spec(*tensor).at(&part.name)?.name),
                        count,
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Leaves out the given rows (part, row), which must be sorted.
    pub fn drop_rows(&mut self, bad: &[(u32, u64)]) {
        let Content::Rows { runs, .. } = &mut self.content else {
            return;
        };
        let mut kept = Vec::with_capacity(runs.len());
        for run in runs.iter() {
            let mut first = run.first_row;
            let end = run.first_row + run.row_count;
            let from = bad.partition_point(|&at| at < (run.part, first));
            for &(_, row) in bad[from..].iter().take_while(|&&at| at < (run.part, end)) {
                if row > first {
                    kept.push(Run {
                        first_row: first,
                        row_count: row - first,
                        ..*run
                    });
                }
                first = row + 1;
            }
            if first < end {
                kept.push(Run {
                    first_row: first,
                    row_count: end - first,
                    ..*run
                });
            }
        }
        *runs = kept;
    }

    /// What the numbers come from, whatever the shards: the plan of the run that made them (its input and model are in it), or the
    /// contents of the tensors.
    pub fn digest(&self) -> String {
        let header = self.parts[0].file.header();
        if let (Some(plan), true) = (&header.plan_digest, self.prompts().is_some() || !self.has_rows()) {
            return plan.clone();
        }
        let mut lines = Vec::new();
        for part in &self.parts {
            for (index, spec) in part.file.header().tensors.iter().enumerate() {
                if let Ok(summary) = part.file.summary(index) {
                    lines.push(format!("{} {}", spec.name, process::hex(&summary.content_digest)));
                }
            }
        }
        process::sha256(lines.join("\n").as_bytes())
    }

    /// The moments of a layer: one per group (one alone without `--group`).
    pub fn moments(&self, layer: &Layer) -> Result<Vec<Moments>> {
        let count = self.groups.len().max(1);
        (0..count).map(|group| self.group_moments(layer, group)).collect()
    }

    fn group_moments(&self, layer: &Layer, group: usize) -> Result<Moments> {
        let mut whole = Moments::empty(layer.width);
        // Without --group the stored groups are one.
        let stored: Vec<String> = match self.groups.get(group) {
            Some(name) => vec![name.clone()],
            None => stored_groups(&self.parts),
        };
        for name in stored {
            for class in ["bos", "rest"] {
                if class == "bos" && self.drop_bos {
                    continue;
                }
                let mut tree = BucketTree::new(layer.width);
                for part in by_shard(&self.parts) {
                    let Some(index) = header_groups(part).iter().position(|group| *group == name) else {
                        continue;
                    };
                    let base = format!("moments.{index}.{}.{}.{class}", self.site, layer.index);
                    if let Some(moments) = read_moments(part, &base, layer.width)? {
                        let (start, end) = buckets(part);
                        tree.push(start, end, moments).at(&part.name)?;
                    }
                }
                whole.merge(&tree.finish().at(self.name())?).at(self.name())?;
            }
        }
        Ok(whole)
    }

    fn name_moment_groups(&mut self, args: &Args) -> Result<()> {
        let mut shards = BTreeSet::new();
        for part in &self.parts {
            if !shards.insert(buckets(part)) {
                return Err(Error::input(&part.name, "the same shard was given twice"));
            }
        }
        let mut end = 0;
        for (from, to) in shards {
            if from != end {
                break;
            }
            end = to;
        }
        if end != 64 {
            return Err(Error::input(
                self.name(),
                "shards are missing: the moments do not cover the whole run",
            )
            .hint("give every shard, or merge them with acts-cat --merge"));
        }
        if let Some(field) = &args.group {
            let groups = stored_groups(&self.parts);
            if groups.iter().all(String::is_empty) {
                return Err(Error::input(
                    self.name(),
                    format!("these moments were not taken by group, so there is no \"{field}\""),
                )
                .hint("resid-dump --moments --group FIELD"));
            }
            self.groups = groups;
        }
        Ok(())
    }

    fn read_rows_table(&mut self, args: &Args) -> Result<()> {
        let with_samples = self
            .parts
            .iter()
            .filter(|part| part.file.tensor("samples").is_ok())
            .count();
        if with_samples == 0 {
            if let Some(field) = &args.group {
                return Err(Error::input(
                    self.name(),
                    format!("has no sample records, so no field \"{field}\" to group by"),
                )
                .hint("dump with resid-dump, which keeps them"));
            }
            let mut runs = Vec::new();
            for (at, part) in self.parts.iter().enumerate() {
                let row_count = self
                    .layers
                    .first()
                    .map_or(0, |layer| part.file.row_count(layer.tensors[at]));
                runs.push(Run {
                    part: at as u32,
                    first_row: 0,
                    row_count,
                    prompt: 0,
                });
            }
            self.check_row_counts()?;
            if self.drop_bos {
                return Err(Error::input(
                    self.name(),
                    "has no positions, so no first row of a prompt to drop",
                ));
            }
            self.content = Content::Rows { runs, prompts: None };
            return Ok(());
        }
        if with_samples < self.parts.len() {
            return Err(Error::input(
                self.name(),
                "some containers have sample records and some have none",
            ));
        }
        self.check_row_counts()?;
        let mut samples: Vec<(u32, Sample)> = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            for sample in read_samples(part)? {
                samples.push((at as u32, sample));
            }
        }
        samples.sort_by_key(|(_, sample)| sample.sample_index);
        if let Some(pair) = samples
            .windows(2)
            .find(|pair| pair[0].1.sample_index == pair[1].1.sample_index)
        {
            return Err(Error::input(
                &self.parts[pair[1].0 as usize].name,
                format!(
                    "sample {} is also in {}",
                    pair[1].1.sample_index, self.parts[pair[0].0 as usize].name
                ),
            ));
        }
        let mut groups: Vec<String> = Vec::new();
        let mut prompts = Prompts {
            ids: Vec::new(),
            keys: Vec::new(),
            text_digests: Vec::new(),
            groups: Vec::new(),
        };
        let mut runs = Vec::new();
        for (part, sample) in samples {
            let part_name = &self.parts[part as usize].name;
            let group = match &args.group {
                Some(field) => field_of(&sample, field).ok_or_else(|| {
                    Error::input(
                        part_name,
                        format!("sample {} has no field \"{field}\"", sample.sample_index),
                    )
                })?,
                None => String::new(),
            };
            let group_index = match groups.iter().position(|known| *known == group) {
                Some(index) => index,
                None => {
                    groups.push(group);
                    groups.len() - 1
                }
            };
            if groups.len() > GROUP_COUNT_MAX {
                return Err(Error::input(
                    part_name,
                    format!(
                        "--group gives more than {GROUP_COUNT_MAX} groups: the field differs from prompt to prompt"
                    ),
                ));
            }
            let prompt = prompts.ids.len() as u32;
            let total = self.layers.first().map_or(0, |layer| {
                self.parts[part as usize].file.row_count(layer.tensors[part as usize])
            });
            if sample
                .row_start
                .checked_add(sample.row_count)
                .is_none_or(|end| end > total)
            {
                return Err(Error::input(
                    part_name,
                    format!(
                        "sample {} claims rows beyond the {total} there are",
                        sample.sample_index
                    ),
                ));
            }
            runs.push(Run {
                part,
                first_row: sample.row_start,
                row_count: sample.row_count,
                prompt,
            });
            prompts.keys.push(format!(
                "{}\u{0}{}",
                sample.bench.as_deref().unwrap_or_default(),
                sample.id
            ));
            prompts.ids.push(sample.id);
            prompts
                .text_digests
                .push((!sample.text_digest.is_empty()).then_some(sample.text_digest));
            prompts.groups.push(group_index as u32);
        }
        if args.group.is_some() {
            // Groups are told apart by name, so their order does not depend on which prompt came first.
            let mut order: Vec<usize> = (0..groups.len()).collect();
            order.sort_by(|a, b| groups[*a].cmp(&groups[*b]));
            let mut rank = vec![0; groups.len()];
            for (at, index) in order.iter().enumerate() {
                rank[*index] = at as u32;
            }
            for group in &mut prompts.groups {
                *group = rank[*group as usize];
            }
            self.groups = order.into_iter().map(|index| groups[index].clone()).collect();
        }
        if self.drop_bos {
            runs = self.without_first_positions(runs)?;
        }
        self.content = Content::Rows {
            runs,
            prompts: Some(prompts),
        };
        Ok(())
    }

    fn check_row_counts(&self) -> Result<()> {
        for (at, part) in self.parts.iter().enumerate() {
            let mut counts = self.layers.iter().map(|layer| part.file.row_count(layer.tensors[at]));
            let first = counts.next().unwrap_or(0);
            if let Some(other) = counts.find(|count| *count != first) {
                return Err(Error::input(
                    &part.name,
                    format!("layers have {first} and {other} rows: they must have the same"),
                ));
            }
        }
        Ok(())
    }

    /// Leaves out rows at position 0, where the token that begins every text sits.
    fn without_first_positions(&self, runs: Vec<Run>) -> Result<Vec<Run>> {
        let positions =
            self.parts
                .iter()
                .map(|part| {
                    let table = part.file.tensor("position").map_err(|_| {
                        Error::input(&part.name, "has no positions, so no first row of a prompt to drop")
                    })?;
                    part.file
                        .to_vec::<u32>(table, 0..part.file.row_count(table))
                        .at(&part.name)
                })
                .collect::<Result<Vec<Vec<u32>>>>()?;
        let mut bad: Vec<(u32, u64)> = Vec::new();
        for run in &runs {
            for row in run.first_row..run.first_row + run.row_count {
                if positions[run.part as usize].get(row as usize) == Some(&0) {
                    bad.push((run.part, row));
                }
            }
        }
        bad.sort_unstable();
        let mut without = Self {
            content: Content::Rows { runs, prompts: None },
            parts: Vec::new(),
            site: String::new(),
            layers: Vec::new(),
            layer_count: 0,
            groups: Vec::new(),
            drop_bos: false,
        };
        without.drop_rows(&bad);
        Ok(without.runs().to_vec())
    }
}

/// Tensors of the parts, by site and layer.
struct Found {
    moments: bool,
    sites: BTreeMap<String, BTreeMap<u32, String>>,
}

impl Found {
    fn new(parts: &[Part], names: Option<&BTreeSet<String>>) -> Result<Self> {
        let mut rows: BTreeMap<String, BTreeMap<u32, String>> = BTreeMap::new();
        let mut moments: BTreeMap<String, BTreeMap<u32, String>> = BTreeMap::new();
        let part = &parts[0];
        for spec in &part.file.header().tensors {
            if names.is_some_and(|names| !names.contains(&spec.name)) && spec.role != acts::Role::Moments {
                continue;
            }
            match spec.role {
                acts::Role::Activations | acts::Role::Data if spec.dtype.is_float() => {
                    let (site, layer) = match (spec.site, spec.layer_index) {
                        (Some(site), layer) => (site.to_string(), layer.unwrap_or(0)),
                        (None, _) => split_name(&spec.name),
                    };
                    rows.entry(site).or_default().insert(layer, spec.name.clone());
                }
                acts::Role::Moments => {
                    if let [_, _, site, layer, _, "mean"] = spec.name.split('.').collect::<Vec<_>>()[..]
                        && let Ok(layer) = layer.parse()
                    {
                        moments
                            .entry(site.to_owned())
                            .or_default()
                            .insert(layer, spec.name.clone());
                    }
                }
                _ => {}
            }
        }
        match (rows.is_empty(), moments.is_empty()) {
            (true, true) => Err(Error::input(&part.name, "holds no activations and no moments")),
            (true, false) => Ok(Self {
                moments: true,
                sites: moments,
            }),
            _ => Ok(Self {
                moments: false,
                sites: rows,
            }),
        }
    }

    fn choose_site(&self, wish: Option<String>, parts: &[Part]) -> Result<String> {
        let known = || self.sites.keys().cloned().collect::<Vec<_>>().join(", ");
        match wish {
            Some(site) if self.sites.contains_key(&site) => Ok(site),
            Some(site) => Err(Error::input(&parts[0].name, format!("there is no site \"{site}\""))
                .hint(format!("sites: {}", known()))),
            None if self.sites.contains_key("resid_post") => Ok("resid_post".to_owned()),
            None if self.sites.len() == 1 => Ok(self.sites.keys().next().cloned().unwrap_or_default()),
            None => Err(Error::usage(
                "--site",
                format!("the container holds several: {}", known()),
            )),
        }
    }

    fn layer(&self, site: &str, index: u32, parts: &[Part]) -> Result<Layer> {
        let name = &self.sites[site][&index];
        let mut layer: Option<Layer> = None;
        for part in parts {
            let tensor = part.file.tensor(name).at(&part.name)?;
            let spec = part.file.spec(tensor).at(&part.name)?;
            let [width] = spec.row_shape[..] else {
                return Err(Error::input(
                    &part.name,
                    format!(
                        "{name} has rows of rank {}, and a row here is a vector",
                        spec.row_shape.len()
                    ),
                ));
            };
            let width = width as usize;
            match &mut layer {
                None => {
                    layer = Some(Layer {
                        index,
                        width,
                        tensors: Vec::new(),
                        dtype: spec.dtype,
                    })
                }
                Some(layer) if layer.width != width || layer.dtype != spec.dtype => {
                    return Err(Error::input(
                        &part.name,
                        format!("{name} differs in width or type from {}", parts[0].name),
                    ));
                }
                Some(_) => {}
            }
            if let (Some(layer), false) = (&mut layer, self.moments) {
                layer.tensors.push(tensor);
            }
        }
        layer.ok_or_else(|| Error::bug(name, "no container"))
    }
}

/// `name.3` is layer 3 of `name`; a name without a number is one layer.
fn split_name(name: &str) -> (String, u32) {
    match name
        .rsplit_once('.')
        .map(|(stem, number)| (stem, number.parse::<u32>()))
    {
        Some((stem, Ok(layer))) => (stem.to_owned(), layer),
        _ => (name.to_owned(), 0),
    }
}

/// Blocks of the model: as the header says, else as many as the layers seen imply.
fn layer_count(parts: &[Part], available: &BTreeMap<u32, String>) -> u32 {
    let said = parts[0]
        .file
        .header()
        .meta
        .get("layer_count")
        .and_then(serde_json::Value::as_u64);
    let seen = available.keys().next_back().map_or(0, |last| last + 1);
    said.and_then(|count| u32::try_from(count).ok())
        .filter(|count| *count >= seen)
        .unwrap_or(seen)
}

fn select_layers(wish: Option<&str>, available: Vec<u32>, layer_count: u32) -> Result<Vec<u32>> {
    let Some(text) = wish else { return Ok(available) };
    let malformed = || {
        Error::usage(
            "--layers",
            format!("\"{text}\" is neither a list of layers (0,3,5-8) nor a window of depth (0.3-0.5)"),
        )
    };
    if text.contains('.') {
        let (low, high) = text.split_once('-').ok_or_else(malformed)?;
        let (low, high): (f64, f64) = (
            low.trim().parse().map_err(|_| malformed())?,
            high.trim().parse().map_err(|_| malformed())?,
        );
        let chosen: Vec<u32> = available
            .into_iter()
            .filter(|layer| {
                let depth = f64::from(layer + 1) / f64::from(layer_count);
                low - 1e-9 <= depth && depth <= high + 1e-9
            })
            .collect();
        if chosen.is_empty() {
            return Err(Error::usage(
                "--layers",
                format!("no layer of {layer_count} has a depth in {text}"),
            ));
        }
        return Ok(chosen);
    }
    let mut chosen = BTreeSet::new();
    for item in text.split(',') {
        let (first, last) = match item.trim().split_once('-') {
            Some((first, last)) => (
                first.parse().map_err(|_| malformed())?,
                last.parse().map_err(|_| malformed())?,
            ),
            None => {
                let one: u32 = item.trim().parse().map_err(|_| malformed())?;
                (one, one)
            }
        };
        if first > last {
            return Err(malformed());
        }
        for layer in first..=last {
            if !available.contains(&layer) {
                let known: Vec<String> = available.iter().map(u32::to_string).collect();
                return Err(Error::input("--layers", format!("layer {layer} is not in the input"))
                    .hint(format!("layers there: {}", known.join(", "))));
            }
            chosen.insert(layer);
        }
    }
    Ok(chosen.into_iter().collect())
}

/// Containers given together must be shards of one run, or plain data.
fn one_run(parts: &[Part]) -> Result<()> {
    let first = parts[0].file.header();
    for part in &parts[1..] {
        let header = part.file.header();
        for (what, a, b) in [
            ("plan", &first.plan_digest, &header.plan_digest),
            ("model", &first.model_digest, &header.model_digest),
        ] {
            if a != b && header.shard.is_some() {
                return Err(Error::input(
                    &part.name,
                    format!("is no shard of the run of {}: the {what} differs", parts[0].name),
                ));
            }
        }
        if first.compute != header.compute {
            return Err(Error::input(
                &part.name,
                format!("was computed otherwise than {}", parts[0].name),
            ));
        }
    }
    let mut seen = HashMap::new();
    for part in parts {
        if let Some(shard) = part.file.header().shard
            && let Some(other) = seen.insert(shard.index, &part.name)
        {
            return Err(Error::input(
                &part.name,
                format!("is shard {} of {}, and so is {other}", shard.index, shard.count),
            ));
        }
    }
    if let Some(shard) = first.shard
        && seen.len() != shard.count as usize
    {
        return Err(Error::input(
            &parts[0].name,
            format!("{} of {} shards were given", seen.len(), shard.count),
        )
        .hint("give every shard: a part of a run is not its geometry"));
    }
    Ok(())
}

/// The hash buckets that a container's shard owns.
fn buckets(part: &Part) -> (u8, u8) {
    match part.file.header().shard {
        // Shard i of n owns the buckets b with floor(b·n/64) = i.
        Some(shard) => {
            let first = |index: u32| (64 * index).div_ceil(shard.count) as u8;
            (first(shard.index), first(shard.index + 1))
        }
        None => (0, 64),
    }
}

fn by_shard(parts: &[Part]) -> Vec<&Part> {
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|part| buckets(part));
    parts
}

fn header_groups(part: &Part) -> Vec<String> {
    match part.file.header().groups.as_slice() {
        [] => vec![String::new()],
        groups => groups.to_vec(),
    }
}

fn stored_groups(parts: &[Part]) -> Vec<String> {
    let all: BTreeSet<String> = parts.iter().flat_map(header_groups).collect();
    all.into_iter().collect()
}

fn read_moments(part: &Part, base: &str, width: usize) -> Result<Option<Moments>> {
    let file = &part.file;
    let Ok(count) = file.tensor(&format!("{base}.count")) else {
        return Ok(None);
    };
    if file.row_count(count) == 0 {
        return Ok(None);
    }
    let count = file.to_vec::<i64>(count, 0..1).at(&part.name)?[0];
    let count = u64::try_from(count).map_err(|_| Error::input(&part.name, format!("{base}.count is negative")))?;
    if count == 0 {
        return Ok(None);
    }
    let read = |what: &str| {
        let tensor = file.tensor(&format!("{base}.{what}")).at(&part.name)?;
        file.to_vec::<f64>(tensor, 0..file.row_count(tensor)).at(&part.name)
    };
    let norm_sum = read("norm_sum")?.first().copied().unwrap_or(0.0);
    Moments::from_parts(width, count, read("mean")?, read("m2")?, norm_sum, read("unit_sum")?)
        .at(format!("{}: {base}", part.name))
        .map(Some)
}

fn read_samples(part: &Part) -> Result<Vec<Sample>> {
    let tensor = part.file.tensor("samples").at(&part.name)?;
    let bytes = part
        .file
        .to_bytes(tensor, 0..part.file.row_count(tensor))
        .at(&part.name)?;
    let mut samples = Vec::new();
    if bytes.is_empty() {
        return Ok(samples);
    }
    let mut reader = records::Reader::new(bytes.as_slice());
    while let Some(sample) = reader.next_record::<Sample>().at(format!("{}: samples", part.name))? {
        samples.push(sample);
    }
    Ok(samples)
}

/// A field of a sample record as text.
fn field_of(sample: &Sample, field: &str) -> Option<String> {
    match field {
        "group" => Some(sample.group.clone()),
        "id" => Some(sample.id.clone()),
        "bench" => sample.bench.clone(),
        other => match sample.rest.get(other)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Null => None,
            value => Some(value.to_string()),
        },
    }
}

/// Opens files, or what stdin holds: container bytes, or records that name tensors.
fn open_parts(paths: &[PathBuf], args: &Args) -> Result<(Vec<Part>, Option<BTreeSet<String>>)> {
    let stdin_named = paths.iter().filter(|path| path.as_path() == Path::new("-")).count();
    if stdin_named > 1 || (stdin_named == 1 && paths.len() > 1) {
        return Err(Error::usage("-", "stdin is one input and comes alone"));
    }
    if !paths.is_empty() && stdin_named == 0 {
        return Ok((open_files(paths, args)?, None));
    }
    let mut stdin = BufReader::with_capacity(1 << 20, std::io::stdin());
    let first = std::io::BufRead::fill_buf(&mut stdin).at("stdin")?.first().copied();
    match first {
        None => Err(Error::input("stdin", "is empty").hint("name a container, or pipe one")),
        Some(byte) if byte == b'{' || byte.is_ascii_whitespace() => {
            let mut reader = records::Reader::new(stdin);
            let mut paths: Vec<PathBuf> = Vec::new();
            let mut names = BTreeSet::new();
            while let Some(row) = reader.next_row().at("stdin")? {
                if row.kind.as_deref() != Some("tensor") {
                    continue;
                }
                let tensor: Tensor = row.decode().at("stdin")?;
                names.insert(tensor.name);
                if !paths.contains(&tensor.path.0) {
                    paths.push(tensor.path.0);
                }
            }
            if paths.is_empty() {
                return Err(Error::input("stdin", "names no tensor").hint("resid-dump -o FILE writes tensor records"));
            }
            Ok((open_files(&paths, args)?, Some(names)))
        }
        Some(_) => Ok((vec![spool(stdin, args)?], None)),
    }
}

fn open_files(paths: &[PathBuf], args: &Args) -> Result<Vec<Part>> {
    let options = acts::OpenOptions {
        map: !args.no_map,
        ..acts::OpenOptions::default()
    };
    paths
        .iter()
        .map(|path| {
            let name = path.display().to_string();
            let file = acts::File::open(path, options).at(&name)?;
            Ok(Part { name, file })
        })
        .collect()
}

/// Keeps a piped container in a file without a name: it is read more than once.
fn spool(mut input: impl Read, args: &Args) -> Result<Part> {
    let mut file = tempfile::tempfile().at("a temporary file for stdin")?;
    std::io::copy(&mut input, &mut file).at("stdin to a temporary file")?;
    file.rewind().at("a temporary file for stdin")?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
    let options = acts::OpenOptions {
        map: !args.no_map,
        ..acts::OpenOptions::default()
    };
    let file = acts::File::open(&path, options).at("stdin")?;
    Ok(Part {
        name: "stdin".to_owned(),
        file,
    })
}
