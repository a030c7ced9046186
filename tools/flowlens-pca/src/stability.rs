//! `--stability A B`: the paper's experiment. Two forms of the same prompts share components; how alike are the prompts' projections
//! on the first one, layer by layer, beside the mean pairwise cosine, which says little.
//!
//! The paper's correlation may also be meant over layers: the path of one prompt's projection through the layers in its two forms. That one is
//! near 1 for any two prompts where norms grow with depth, so it stands beside its own control, two different prompts.

use crate::cli::Layout;
use crate::compare::Pairing;
use crate::fit::{centred, dot};
use crate::plan::Plan;
use crate::rows::Rows;
use crate::source::Source;
use ndarray::Array2;
use numerics::moments::{Accumulator, Precision, norm};
use numerics::spectrum::{Spectrum, gram};
use numerics::{measures, statistics};
use process::{Error, Result, ResultExt};
use products::{Product, matrix};
use records::{Stability, StabilityProfile};

pub fn run(plan: &Plan, first: &Source, second: &Source) -> Result<(Vec<Stability>, StabilityProfile)> {
    let forms = Forms::new(plan, first, second)?;
    let axes = match plan.layout {
        Layout::Concat => forms.side_by_side()?,
        Layout::Stacked => forms.stacked()?,
    };
    let mut rows = Vec::new();
    let mut paths = Paths::new(forms.prompt_count);
    for (at, axis) in axes.iter().enumerate() {
        let layer = forms.layer(at)?;
        let width = layer.width;
        let projections: Vec<f64> = layer.rows.chunks_exact(width).map(|row| dot(row, axis)).collect();
        let (a, b) = projections.split_at(forms.prompt_count);
        paths.push(a, b);
        let half = forms.prompt_count * width;
        rows.push(Stability {
            layer_index: first.layers[at].index as usize,
            depth: first.depth(Some(first.layers[at].index)),
            pc1_correlation: statistics::correlation(a, b),
            cosine_mean: cosine_mean(&layer.rows[..half], width),
            cosine_mean_b: cosine_mean(&layer.rows[half..], width),
        });
    }
    Ok((rows, paths.profile(first.depth(None).layer_count)))
}

/// What each prompt projects to, from layer to layer, in either form.
struct Paths {
    first: Vec<Vec<f64>>,
    second: Vec<Vec<f64>>,
}

impl Paths {
    fn new(prompt_count: usize) -> Self {
        Self {
            first: vec![Vec::new(); prompt_count],
            second: vec![Vec::new(); prompt_count],
        }
    }

    fn push(&mut self, first: &[f64], second: &[f64]) {
        for (paths, layer) in [(&mut self.first, first), (&mut self.second, second)] {
            paths.iter_mut().zip(layer).for_each(|(path, &x)| path.push(x));
        }
    }

    fn profile(&self, layer_count: Option<usize>) -> StabilityProfile {
        let count = self.first.len();
        let correlations = |distance: usize| -> Vec<f64> {
            let pair = |at: usize| statistics::correlation(&self.first[at], &self.second[(at + distance) % count]);
            let mut found: Vec<f64> = (0..count).filter_map(pair).collect();
            found.sort_unstable_by(f64::total_cmp);
            found
        };
        let (own, other) = (correlations(0), correlations(1));
        StabilityProfile {
            layer_count,
            prompt_count: count,
            correlation: statistics::quantile(&own, 0.5),
            correlation_min: own.first().copied(),
            correlation_other: statistics::quantile(&other, 0.5),
        }
    }
}

struct Forms<'a> {
    plan: &'a Plan,
    first: &'a Source,
    second: &'a Source,
    /// For each prompt of the first form, its row in the second.
    order: Vec<usize>,
    prompt_count: usize,
}

/// The rows of the first form, then those of the second in the first one's order.
struct Both {
    rows: Vec<f64>,
    width: usize,
}

impl<'a> Forms<'a> {
    fn new(plan: &'a Plan, first: &'a Source, second: &'a Source) -> Result<Self> {
        for source in [first, second] {
            if source.prompts().is_none() {
                return Err(Error::input(
                    source.name(),
                    "has no sample records, so no ids to pair prompts by",
                ));
            }
            if source.row_count() != source.prompt_count() as u64 {
                return Err(Error::input(source.name(), "has more than one row per prompt")
                    .hint("dump the last position alone"));
            }
        }
        let pairing = Pairing::new(first, second, false)?;
        let Some(order) = pairing.order else {
            return Err(Error::input(
                second.name(),
                format!("does not hold the prompts of {}", first.name()),
            ));
        };
        let prompt_count = order.len();
        if prompt_count < 3 {
            return Err(Error::input(
                first.name(),
                format!("{prompt_count} prompts give no correlation, at least 3 do"),
            ));
        }
        let bytes = (2 * prompt_count as u64).pow(2) * 8 * 4;
        if plan.layout == Layout::Concat && bytes > plan.max_memory {
            return Err(Error::input(
                first.name(),
                format!(
                    "{prompt_count} prompts in two forms need about {} MiB, limit {} MiB",
                    bytes >> 20,
                    plan.max_memory >> 20
                ),
            )
            .hint("--max-memory, or --layout stacked"));
        }
        Ok(Self {
            plan,
            first,
            second,
            order,
            prompt_count,
        })
    }

    fn layer(&self, at: usize) -> Result<Both> {
        let first = Rows {
            source: self.first,
            layer: &self.first.layers[at],
            columns: None,
        };
        let second = Rows {
            source: self.second,
            layer: &self.second.layers[at],
            columns: None,
        };
        let width = first.width();
        let (prompts, mut rows) = first.all()?;
        let (other_prompts, others) = second.all()?;
        // One row per prompt: a prompt's row is found by its number.
        let mut place = vec![0; other_prompts.len()];
        for (row, prompt) in other_prompts.iter().enumerate() {
            place[*prompt as usize] = row;
        }
        for prompt in prompts {
            let row = place[self.order[prompt as usize]];
            rows.extend_from_slice(&others[row * width..(row + 1) * width]);
        }
        if let Some(bad) = rows.chunks_exact(width).position(|row| !norm(row).is_finite()) {
            return Err(Error::input(
                if bad < self.prompt_count {
                    self.first.name()
                } else {
                    self.second.name()
                },
                format!("layer {}: a row holds a number that is not finite", first.layer.index),
            ));
        }
        Ok(Both { rows, width })
    }

    /// The first component of all layers side by side, both forms together: its segment in every layer.
    fn side_by_side(&self) -> Result<Vec<Vec<f64>>> {
        let row_count = 2 * self.prompt_count;
        let mut sum = Array2::zeros((row_count, row_count));
        let mut width = 0;
        for at in 0..self.first.layers.len() {
            let both = self.layer(at)?;
            sum += &gram(matrix(&both.centred(), row_count, both.width));
            width += both.width;
        }
        let (_, weights) = Spectrum::of_gram(sum, width, 1).at(self.first.name())?;
        (0..self.first.layers.len())
            .map(|at| {
                let both = self.layer(at)?;
                if weights.is_empty() {
                    return Ok(vec![0.0; both.width]);
                }
                Ok(Product::of(weights.view(), matrix(&both.centred(), row_count, both.width)).to_vec())
            })
            .collect()
    }

    /// The first component of all (prompt, layer) rows of both forms.
    fn stacked(&self) -> Result<Vec<Vec<f64>>> {
        let width = self.first.layers[0].width;
        let mut accumulator = Accumulator::<f64>::new(width, Precision::Double);
        for at in 0..self.first.layers.len() {
            let both = self.layer(at)?;
            let rows = match self.plan.center {
                crate::cli::Center::Layer => both.centred(),
                crate::cli::Center::Global => both.rows,
            };
            accumulator.push(&rows).at(self.first.name())?;
        }
        let moments = accumulator.finish().at(self.first.name())?;
        let spectrum = Spectrum::of_moments(&moments, 1).at(self.first.name())?;
        let axis = spectrum.component(0).map_or_else(|| vec![0.0; width], <[f64]>::to_vec);
        Ok(vec![axis; self.first.layers.len()])
    }
}

impl Both {
    fn centred(&self) -> Vec<f64> {
        centred(&self.rows, &mean(&self.rows, self.width))
    }
}

fn mean(rows: &[f64], width: usize) -> Vec<f64> {
    let count = (rows.len() / width) as f64;
    let mut mean = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        for (mean, x) in mean.iter_mut().zip(row) {
            *mean += x / count;
        }
    }
    mean
}

fn cosine_mean(rows: &[f64], width: usize) -> Option<f64> {
    let mut unit_sum = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        let length = norm(row);
        if length > 0.0 {
            for (sum, x) in unit_sum.iter_mut().zip(row) {
                *sum += x / length;
            }
        }
    }
    measures::mean_pairwise_cosine(&unit_sum, (rows.len() / width) as u64)
}
