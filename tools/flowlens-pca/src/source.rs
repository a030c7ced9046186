//! The input: one dump of one run, in one or several containers, as rows or as moments.
//!
//! Rows have one canonical order whatever the number of shards: by sample index, then as they lie. Containers without sample records
//! (made from npy) are taken one after another, every row a prompt of its own.

mod moments;
mod parts;
mod samples;
mod tensors;

pub use parts::Part;

use crate::cli::Args;
use parts::{one_run, open_parts};
use process::{Error, Layers, Result, ResultExt};
use records::Depth;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tensors::{Found, layer_count, select_layers};

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
    /// Blocks of the model, where the containers say it.
    layer_count: Option<u32>,
    /// Names of the groups; empty without `--group`.
    pub groups: Vec<String>,
    drop_bos: bool,
    content: Content,
}

impl Source {
    pub fn open(paths: &[PathBuf], args: &Args) -> Result<Self> {
        let (parts, names) = open_parts(paths, args)?;
        Self::new(parts, names, args, args.site.clone(), &args.layers)
    }

    /// The other side of a comparison: the same site and layers.
    pub fn open_beside(path: &Path, args: &Args, first: &Source) -> Result<Self> {
        let (parts, names) = open_parts(std::slice::from_ref(&path.to_path_buf()), args)?;
        let same = first
            .layers
            .iter()
            .map(|layer| (layer.index.into(), layer.index.into()));
        let second = Self::new(
            parts,
            names,
            args,
            Some(first.site.clone()),
            &Layers::Listed(same.collect()),
        )?;
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
        layers: &Layers,
    ) -> Result<Self> {
        one_run(&parts)?;
        let found = Found::new(&parts, names.as_ref())?;
        let site = found.choose_site(site, &parts)?;
        let available = &found.sites[&site];
        let layer_count = layer_count(&parts, available)?;
        let available: Vec<u32> = available.keys().copied().collect();
        let chosen = select_layers(layers, &available, layer_count)?;
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

    /// Blocks of the model, where the containers say it.
    pub fn layer_count(&self) -> Option<usize> {
        self.layer_count.map(|count| count as usize)
    }

    /// How deep a row of this layer, or of all of them, stands.
    pub fn depth(&self, layer_index: Option<u32>) -> Depth {
        Depth::of(layer_index.map(|index| index as usize), self.layer_count())
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
        if let Content::Rows { runs, .. } = &mut self.content {
            *runs = without_rows(runs, bad);
        }
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
}

/// Runs without the given rows (part, row), which must be sorted.
fn without_rows(runs: &[Run], bad: &[(u32, u64)]) -> Vec<Run> {
    let mut kept = Vec::with_capacity(runs.len());
    for run in runs {
        let mut first = run.first_row;
        let end = run.first_row + run.row_count;
        let from = bad.partition_point(|&at| at < (run.part, first));
        let inside = bad[from..].iter().take_while(|&&at| at < (run.part, end));
        for gap in inside.map(|(_, row)| *row).chain([end]) {
            if gap > first {
                kept.push(Run {
                    first_row: first,
                    row_count: gap - first,
                    ..*run
                });
            }
            first = gap + 1;
        }
    }
    kept
}
