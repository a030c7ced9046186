//! One component: its rows are shown to tallies, unit by unit on all threads, and the tallies of the units are merged.

use crate::cli::Scale;
use crate::plan::measure::Plan;
use crate::source::{Component, Part, Run, Source, Unit};
use numerics::activity::{Activity, Place};
use numerics::keys::{Keys, Number};
use numerics::quantisation::{self, Losses};
use numerics::sequences::{Changes, Flow};
use process::{Result, ResultExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is known of the rows of one group.
#[derive(Serialize, Deserialize)]
pub struct Tally {
    pub activity: Activity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// By scale of the plan; `None` for a scale that does not exist, because all numbers are zero.
    pub losses: Vec<Option<Losses>>,
}

/// The largest magnitude of each prompt: its number, its group and the magnitude.
pub type SampleMaxima = Vec<(u64, usize, f64)>;

/// A component, whole and by group.
pub struct Measured {
    pub whole: Tally,
    pub groups: Vec<Option<Tally>>,
    pub samples: SampleMaxima,
}

/// A number as it is stored, or without loss wider.
pub trait Element: acts::Element + Number {}
impl Element for f32 {}
impl Element for f64 {}

/// Measures a component; a second time over its rows where the scales of eight-bit integers could not be known in the first.
pub fn component<T: Element>(plan: &Plan, source: &Source, component: &Component) -> Result<Measured> {
    let rows = Rows { source, component };
    let mut groups = Groups::new();
    let mut samples = SampleMaxima::new();
    for (part, found) in rows.scan(|unit| tally_unit::<T>(plan, &rows, unit))? {
        merge_groups(&mut groups, part);
        samples.extend(found);
    }
    let mut whole = Tally::new(plan);
    groups.iter().flatten().for_each(|tally| whole.merge(tally));
    let mut measured = Measured { whole, groups, samples };
    measured.count_losses::<T>(plan, &rows)?;
    if source.groups.is_empty() {
        measured.groups.clear();
    }
    Ok(measured)
}

/// The rows of a component.
struct Rows<'a> {
    source: &'a Source,
    component: &'a Component,
}

impl Rows<'_> {
    /// Works on all units, on all threads.
    fn scan<R: Send>(&self, work: impl Fn(&Unit<'_>) -> Result<R> + Sync) -> Result<Vec<R>> {
        // Enough for every thread; a unit that begins inside a block decodes it once more.
        let alone = self.source.components.len() < rayon::current_num_threads();
        let count = if alone { 4 * rayon::current_num_threads() } else { 1 };
        let units = self.source.units(self.component, count);
        units.par_iter().map(&work).collect()
    }

    /// Shows the rows of a unit, block by block, and where each prompt ends.
    fn for_each<T: Element>(&self, unit: &Unit<'_>, mut visit: impl FnMut(Event<'_, T>) + Send) -> Result<()> {
        let part = &self.source.parts[unit.part];
        let tensor = self.component.tensors[unit.part];
        let spec = part.file.spec(tensor).at(&part.name)?;
        let (dtype, row_bytes) = (spec.dtype, spec.row_bytes().at(&part.name)? as usize);
        let mut row = vec![T::zeroed(); self.component.width];
        let mut prompts = Prompts::new(part, unit);
        let mut start = unit.rows.start;
        while start < unit.rows.end {
            process::signals::check()?;
            let block = spec.block_row_count.max(1);
            let end = (start / block + 1).saturating_mul(block).min(unit.rows.end);
            let show = |first_row: u64, bytes: &[u8]| {
                for (number, bytes) in (first_row..).zip(bytes.chunks_exact(row_bytes)) {
                    T::widen(dtype, bytes, &mut row);
                    let (run, is_last) = prompts.of(number);
                    let place = Place {
                        sample: run.sample,
                        row: number,
                        source: unit.part as u32,
                    };
                    visit(Event::Row(&row, place, run.group));
                    if is_last {
                        visit(Event::EndOfSample(run));
                    }
                }
                Ok(())
            };
            part.file.for_each_block(tensor, start..end, show).at(&part.name)?;
            start = end;
        }
        Ok(())
    }
}

enum Event<'a, T> {
    /// A row, its place and the group of its prompt.
    Row(&'a [T], Place, usize),
    EndOfSample(Run),
}

/// Whose row is next.
struct Prompts<'a> {
    runs: &'a [Run],
    at: usize,
    /// Number of the part's first row over all parts, for rows that are prompts of their own.
    first: u64,
}

impl<'a> Prompts<'a> {
    fn new(part: &Part, unit: &Unit<'a>) -> Self {
        Self {
            runs: unit.runs,
            at: 0,
            first: part.first,
        }
    }

    /// The prompt of a row, which follows on the last one that was asked for; and whether it is the prompt's last.
    fn of(&mut self, row: u64) -> (Run, bool) {
        if self.runs.is_empty() {
            let own = Run {
                first_row: row,
                row_count: 1,
                sample: self.first + row,
                group: 0,
            };
            return (own, true);
        }
        let end = |run: Run| run.first_row + run.row_count;
        while row >= end(self.runs[self.at]) {
            self.at += 1;
        }
        let run = self.runs[self.at];
        (run, row + 1 == end(run))
    }
}

type Groups = Vec<Option<Tally>>;

fn tally_unit<T: Element>(plan: &Plan, rows: &Rows<'_>, unit: &Unit<'_>) -> Result<(Groups, SampleMaxima)> {
    let mut groups = Groups::new();
    let mut samples = SampleMaxima::new();
    let mut keys = Keys::default();
    rows.for_each::<T>(unit, |event| match event {
        Event::Row(row, place, group) => slot(&mut groups, group)
            .get_or_insert_with(|| Tally::new(plan))
            .push(row, place, &mut keys),
        Event::EndOfSample(run) => {
            let tally = slot(&mut groups, run.group).get_or_insert_with(|| Tally::new(plan));
            let magnitude = tally.end_sample();
            if !plan.bootstrap.is_empty() {
                samples.push((run.sample, run.group, magnitude));
            }
        }
    })?;
    Ok((groups, samples))
}

/// Where the tally of a group stands.
fn slot(groups: &mut Groups, group: usize) -> &mut Option<Tally> {
    if groups.len() <= group {
        groups.resize_with(group + 1, || None);
    }
    &mut groups[group]
}

fn merge_groups(groups: &mut Groups, part: Groups) {
    for (group, tally) in part.into_iter().enumerate() {
        let Some(tally) = tally else { continue };
        match slot(groups, group) {
            Some(there) => there.merge(&tally),
            empty => *empty = Some(tally),
        }
    }
}

impl Tally {
    fn new(plan: &Plan) -> Self {
        Self {
            activity: Activity::new(plan.settings()),
            flow: plan.dim_flow.zip(plan.run).map(|(mass, run)| Flow::new(mass, run)),
            changes: plan.temporal.map(Changes::new),
            losses: Vec::new(),
        }
    }

    fn push<T: Number>(&mut self, row: &[T], place: Place, keys: &mut Keys<T::Key>) {
        self.activity.push(row, place, keys);
        if let Some(flow) = &mut self.flow {
            flow.push(row);
        }
        if let Some(changes) = &mut self.changes {
            changes.push(row);
        }
    }

    fn end_sample(&mut self) -> f64 {
        self.flow.iter_mut().for_each(Flow::end_sample);
        self.changes.iter_mut().for_each(Changes::end_sample);
        self.activity.end_sample()
    }

    /// Adds what lies behind another, of other prompts.
    pub fn merge(&mut self, other: &Tally) {
        self.activity.merge(&other.activity);
        if let (Some(flow), Some(other)) = (&mut self.flow, &other.flow) {
            flow.merge(other);
        }
        if let (Some(changes), Some(other)) = (&mut self.changes, &other.changes) {
            changes.merge(other);
        }
        self.merge_losses(other);
    }

    fn merge_losses(&mut self, other: &Tally) {
        if self.losses.is_empty() {
            self.losses.clone_from(&other.losses);
            return;
        }
        for (losses, other) in self.losses.iter_mut().zip(&other.losses) {
            if let (Some(losses), Some(other)) = (losses, other) {
                losses.merge(other);
            }
        }
    }

    /// The scales of the plan for these numbers.
    pub fn scales(&self, plan: &Plan) -> Vec<Option<quantisation::Scale>> {
        let limit = |scale: &Scale| match scale {
            Scale::None => None,
            Scale::Max => Some(self.activity.max.max(-self.activity.min)),
            Scale::Quantile(share) => self.activity.magnitudes.quantile(*share),
            Scale::At(limit) => Some(*limit),
        };
        plan.scales
            .iter()
            .map(|scale| limit(scale).and_then(quantisation::Scale::new))
            .collect()
    }
}

/// What is lost under the scales of everything and of each group.
#[derive(Clone)]
struct ByScale {
    scales: Vec<Option<quantisation::Scale>>,
    losses: Vec<Option<Losses>>,
}

impl ByScale {
    fn new(plan: &Plan, tally: &Tally) -> Self {
        let scales = tally.scales(plan);
        Self {
            losses: scales.iter().map(|scale| scale.map(|_| Losses::default())).collect(),
            scales,
        }
    }

    fn add<T: Number>(&mut self, row: &[T]) {
        for (scale, losses) in self.scales.iter().zip(&mut self.losses) {
            if let (Some(scale), Some(losses)) = (scale, losses) {
                losses.add(row, *scale);
            }
        }
    }

    fn merge(&mut self, other: &ByScale) {
        for (losses, other) in self.losses.iter_mut().zip(&other.losses) {
            if let (Some(losses), Some(other)) = (losses, other) {
                losses.merge(other);
            }
        }
    }
}

impl Measured {
    pub fn tallies(&self) -> impl Iterator<Item = &Tally> {
        std::iter::once(&self.whole).chain(self.groups.iter().flatten())
    }

    /// From the tallies of a run's shards by group, and the maxima of its prompts; `None` where losses are missing that only the rows
    /// could have shown.
    pub fn of_parts(
        plan: &Plan,
        groups: &[String],
        mut tallies: BTreeMap<String, Tally>,
        samples: SampleMaxima,
    ) -> Option<Self> {
        let mut whole = Tally::new(plan);
        tallies.values().for_each(|tally| whole.merge(tally));
        let groups = groups.iter().map(|name| tallies.remove(name)).collect();
        let mut measured = Self { whole, groups, samples };
        if measured.whole.activity.magnitudes.is_complete() {
            measured.derive_losses(plan);
        }
        let is_known = |tally: &Tally| tally.losses.len() == plan.scales.len();
        let all_known = measured.tallies().all(is_known);
        all_known.then_some(measured)
    }

    /// By the names of the groups, or everything under none where there are no groups; what has no rows is left out.
    pub fn divided<'a>(&'a self, groups: &'a [String]) -> Vec<(&'a str, &'a Tally)> {
        if groups.is_empty() {
            let has_rows = self.whole.activity.row_count > 0;
            return has_rows.then_some(("", &self.whole)).into_iter().collect();
        }
        let named = groups.iter().map(String::as_str).zip(&self.groups);
        named
            .filter_map(|(name, tally)| Some((name, tally.as_ref()?)))
            .collect()
    }

    /// From complete counts of magnitudes.
    fn derive_losses(&mut self, plan: &Plan) {
        let tallies = self.groups.iter_mut().flatten().chain([&mut self.whole]);
        for tally in tallies {
            let magnitudes = &tally.activity.magnitudes;
            let of = |scale: quantisation::Scale| Losses::of(magnitudes, scale);
            tally.losses = tally.scales(plan).into_iter().map(|scale| scale.map(of)).collect();
        }
    }

    fn count_losses<T: Element>(&mut self, plan: &Plan, rows: &Rows<'_>) -> Result<()> {
        if rows.source.shard.is_some() && rows.component.dtype == acts::Dtype::Bf16 {
            return Ok(()); // they follow from the counts of the whole run
        }
        if rows.source.shard.is_none() && self.whole.activity.magnitudes.is_complete() {
            self.derive_losses(plan);
            return Ok(());
        }
        let grouped = self
            .groups
            .iter()
            .map(|tally| Some(ByScale::new(plan, tally.as_ref()?)));
        let fresh: (ByScale, Vec<Option<ByScale>>) = (ByScale::new(plan, &self.whole), grouped.collect());
        let (mut whole, mut groups) = fresh.clone();
        let units = rows.scan(|unit| {
            let (mut whole, mut groups) = fresh.clone();
            rows.for_each::<T>(unit, |event| {
                if let Event::Row(row, _, group) = event {
                    whole.add(row);
                    groups[group].iter_mut().for_each(|losses| losses.add(row));
                }
            })?;
            Ok((whole, groups))
        })?;
        for (unit_whole, unit_groups) in &units {
            whole.merge(unit_whole);
            for (group, unit) in groups.iter_mut().flatten().zip(unit_groups.iter().flatten()) {
                group.merge(unit);
            }
        }
        self.whole.losses = whole.losses;
        for (tally, by_scale) in self.groups.iter_mut().flatten().zip(groups.into_iter().flatten()) {
            tally.losses = by_scale.losses;
        }
        Ok(())
    }
}
