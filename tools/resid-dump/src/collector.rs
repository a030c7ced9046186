//! A probe that keeps the wanted rows of the wanted sites, and one forward pass over a unit.

use model::{Batch, Decoder, Point, Probe, Result, Site, Tensor};

use crate::plan::Opened;
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
            self.seen[index] = self.kept(value)?;
        }
        Ok(None)
    }
}

impl Collector<'_> {
    fn kept(&self, value: &Tensor) -> model::ProbeResult {
        match &self.rows {
            Some(rows) => value.index_select(rows, 0).map(Some),
            None => Ok(Some(value.clone())),
        }
    }
}

/// Runs the samples together, under the run's interventions; one tensor (rows, width) per point, the samples' rows one after
/// another.
pub fn forward(decoder: &Decoder, opened: &Opened, samples: &[&Sample]) -> Result<Vec<Tensor>> {
    let points = &opened.points;
    let ids: Vec<&[u32]> = samples.iter().map(|sample| sample.token_ids.as_slice()).collect();
    let batch = Batch::pack(&ids);
    let mut collector = Collector {
        points,
        rows: rows(decoder, &batch, samples)?,
        seen: vec![None; points.len()],
    };
    let tape = decoder.tape().steady();
    let mut probe = (opened.steering.probe(), &mut collector);
    let needs_head = points
        .iter()
        .any(|point| matches!(point.site, Site::FinalNorm | Site::Logits));
    if needs_head {
        let normed = decoder.forward(&tape, &batch, &mut probe, None)?;
        let logits = points.iter().position(|point| point.site == Site::Logits);
        if let (Some(index), Some(normed)) = (logits, collector.kept(&normed)?) {
            collector.seen[index] = Some(decoder.logits(&tape, &normed)?);
        }
    } else {
        let depth = points
            .iter()
            .map(|point| point.depth(opened.config()))
            .max()
            .unwrap_or(0);
        decoder.residual(&tape, &batch, depth, &mut probe, None)?;
    }
    let missing = |point: &Point| model::Error::Site(format!("{point} was not passed"));
    let seen = collector.seen.into_iter().zip(points);
    seen.map(|(tensor, point)| tensor.ok_or_else(|| missing(point)))
        .collect()
}

/// The rows of the batch that are kept; none where all are.
fn rows(decoder: &Decoder, batch: &Batch, samples: &[&Sample]) -> Result<Option<Tensor>> {
    let chosen: Vec<u32> = samples
        .iter()
        .enumerate()
        .flat_map(|(index, sample)| {
            let start = batch.rows(index).start;
            sample.positions.clone().map(move |position| (start + position) as u32)
        })
        .collect();
    match chosen.len() == batch.row_count() {
        true => Ok(None),
        false => Ok(Some(Tensor::new(chosen, decoder.device())?)),
    }
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

/// The values as they are stored in a type, widened again.
pub fn rounded(values: &[f32], dtype: acts::Dtype) -> Vec<f32> {
    use model::half::{bf16, f16};
    match dtype {
        acts::Dtype::Bf16 => values.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
        acts::Dtype::F16 => values.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
        _ => values.to_vec(),
    }
}
