//! A probe that keeps the wanted rows of the wanted sites, and one forward pass over a unit.

use model::{Batch, Decoder, Point, Probe, Result, Site, Tape, Tensor};

use crate::plan::Job;
use crate::prompts::Sample;
use crate::selection::Positions;

struct Collector<'a> {
    points: &'a [Point],
    /// Rows to keep; all where absent.
    rows: Option<Tensor>,
    seen: Vec<Option<Tensor>>,
}

impl Probe for Collector<'_> {
    fn wants(&self, point: Point) -> bool {
        self.points.contains(&point)
    }

    fn visit(&mut self, point: Point, value: &Tensor) -> model::ProbeResult {
        if let Some(index) = self.points.iter().position(|wanted| *wanted == point) {
            self.seen[index] = Some(match &self.rows {
                Some(rows) => value.index_select(rows, 0)?,
                None => value.clone(),
            });
        }
        Ok(None)
    }
}

/// Runs the samples together; one tensor (rows, width) per point, the samples' rows one after another.
pub fn forward(decoder: &Decoder, job: &Job, samples: &[&Sample]) -> Result<Vec<Tensor>> {
    let ids: Vec<&[u32]> = samples.iter().map(|sample| sample.token_ids.as_slice()).collect();
    let batch = Batch::pack(&ids);
    let chosen: Vec<u32> = samples
        .iter()
        .enumerate()
        .flat_map(|(index, sample)| {
            let start = batch.rows(index).start;
            sample.positions.clone().map(move |position| (start + position) as u32)
        })
        .collect();
    let rows = match chosen.len() == batch.row_count() {
        true => None,
        false => Some(Tensor::new(chosen, decoder.device())?),
    };
    let mut collector = Collector {
        points: &job.points,
        rows,
        seen: vec![None; job.points.len()],
    };
    let tape = Tape::off().steady();
    let depth = job
        .points
        .iter()
        .map(|point| point.depth(&job.config))
        .max()
        .unwrap_or(0);
    let needs_head = |site| job.points.iter().any(|point| point.site == site);
    if needs_head(Site::FinalNorm) || needs_head(Site::Logits) {
        let normed = decoder.forward(&tape, &batch, &mut collector, None)?;
        if needs_head(Site::Logits) {
            let normed = match &collector.rows {
                Some(rows) => normed.index_select(rows, 0)?,
                None => normed,
            };
            let logits = decoder.logits(&tape, &normed)?;
            let index = job.points.iter().position(|point| point.site == Site::Logits);
            collector.seen[index.unwrap_or_default()] = Some(logits);
        }
    } else {
        decoder.residual(&tape, &batch, depth, &mut collector, None)?;
    }
    let missing = |point: &Point| model::Error::Site(format!("{point} was not passed"));
    let seen = collector.seen.into_iter().zip(&job.points);
    seen.map(|(tensor, point)| tensor.ok_or_else(|| missing(point)))
        .collect()
}

/// Each sample's rows of one tensor, in order: its values as they are, or their mean.
pub fn per_sample(
    tensor: &Tensor,
    samples: &[&Sample],
    positions: Positions,
    mut visit: impl FnMut(&Sample, &[f32]) -> process::Result<()>,
) -> process::Result<()> {
    use process::ResultExt;
    let width = tensor.dim(1).at("tensor")?;
    model::taps::read(tensor, |values| {
        let mut start = 0;
        for sample in samples {
            let end = start + sample.positions.len() * width;
            let rows = &values[start..end];
            start = end;
            match positions {
                Positions::Mean => visit(sample, &mean(rows, width))?,
                _ => visit(sample, rows)?,
            }
        }
        Ok(())
    })
    .at("tensor")?
}

fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0f64; width];
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let count = (rows.len() / width) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}
