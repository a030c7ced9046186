//! The records of `resid-dump` and the figures they carry.

use std::io::Write;

use acts::{Dtype, TensorSummary};
use model::Point;
use process::{Error, Result, ResultExt, Stdout};
use records::{Begin, RecordPath, Status, Writer};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::plan::Plan;

/// Sizes of one tensor's rows, of the values as they are stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    row_count: u64,
    norm_sum: f64,
    abs_max: f32,
    abs_max_dim: u64,
    abs_max_sample_index: u64,
    abs_max_position: u64,
}

impl Figures {
    /// Adds one row; a number that is not finite is refused.
    pub fn add(&mut self, row: &[f32], sample_index: u64, position: u64) -> std::result::Result<(), usize> {
        // lane by lane, so that the compiler keeps them in registers
        let (chunks, rest) = row.as_chunks::<8>();
        let mut squares = [0f64; 8];
        let mut most = [0f32; 8];
        for chunk in chunks {
            for ((square, most), x) in squares.iter_mut().zip(&mut most).zip(chunk) {
                *square += f64::from(*x) * f64::from(*x);
                *most = most.max(x.abs());
            }
        }
        let of_rest = rest.iter().map(|x| f64::from(*x) * f64::from(*x));
        let square: f64 = squares.into_iter().chain(of_rest).sum();
        let largest = most.into_iter().chain(rest.iter().map(|x| x.abs())).fold(0.0, f32::max);
        if !square.is_finite() {
            return Err(row.iter().position(|x| !x.is_finite()).unwrap_or_default());
        }
        if largest > self.abs_max || self.row_count == 0 {
            self.abs_max = largest;
            self.abs_max_dim = row.iter().position(|x| x.abs() == largest).unwrap_or_default() as u64;
            (self.abs_max_sample_index, self.abs_max_position) = (sample_index, position);
        }
        self.norm_sum += square.sqrt();
        self.row_count += 1;
        Ok(())
    }

    pub fn record(
        &self,
        point: Point,
        path: &std::path::Path,
        width: u64,
        dtype: Dtype,
        summary: &TensorSummary,
    ) -> records::Tensor {
        records::Tensor {
            name: point.to_string(),
            site: point.site.to_string(),
            layer_index: point.layer_index().map(|layer| layer as u64),
            path: RecordPath(path.into()),
            shape: vec![summary.row_count, width],
            dtype: dtype.name().into(),
            digest: format!("blake3:{}", acts::hex(&summary.content_digest)),
            norm_mean: if self.row_count == 0 {
                0.0
            } else {
                self.norm_sum / self.row_count as f64
            },
            abs_max: self.abs_max,
            abs_max_dim: self.abs_max_dim,
            abs_max_sample_index: self.abs_max_sample_index,
            abs_max_position: self.abs_max_position,
            rest: Map::new(),
        }
    }
}

/// What `--plan` prints.
#[derive(Serialize)]
pub struct Shown<'p> {
    #[serde(flatten)]
    pub plan: &'p Plan,
    pub plan_digest: String,
    pub shard: String,
    pub shard_sample_count: usize,
    pub shard_token_count: u64,
    pub row_count: u64,
    pub raw_bytes: u64,
    pub weight_bytes: u64,
    pub parameter_count: u64,
}

/// One line of the end record's `massive_activations`: where a tensor's largest number stands.
#[derive(Serialize)]
pub struct Massive {
    pub name: String,
    pub abs_max: f32,
    /// In units of the mean norm of a row divided by the square root of its width: 1 is an ordinary coordinate.
    pub ratio: f64,
    pub abs_max_dim: u64,
    pub abs_max_sample_index: u64,
    pub abs_max_position: u64,
}

impl Massive {
    pub fn of(tensor: &records::Tensor) -> Massive {
        let width = tensor.shape.last().copied().unwrap_or(1) as f64;
        let ordinary = tensor.norm_mean / width.sqrt();
        Massive {
            name: tensor.name.clone(),
            abs_max: tensor.abs_max,
            ratio: if ordinary > 0.0 {
                f64::from(tensor.abs_max) / ordinary
            } else {
                0.0
            },
            abs_max_dim: tensor.abs_max_dim,
            abs_max_sample_index: tensor.abs_max_sample_index,
            abs_max_position: tensor.abs_max_position,
        }
    }

    /// What to do about a number [`MASSIVE_RATIO`] times an ordinary one.
    pub fn doubt(&self) -> Option<String> {
        (self.ratio > MASSIVE_RATIO).then(|| {
            format!(
                "{}: {} in dimension {} at position {} is {:.0} times an ordinary number: flowlens-pca --drop-bos leaves first \
                 positions out and --drop-dims auto such dimensions",
                self.name, self.abs_max, self.abs_max_dim, self.abs_max_position, self.ratio
            )
        })
    }
}

/// A number of this many times the ordinary size decides means and distances.
const MASSIVE_RATIO: f64 = 100.0;

/// Keys of the end record.
#[derive(Serialize, Default)]
pub struct EndKeys {
    pub input_digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub massive_activations: Vec<Massive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_count: Option<u64>,
}

/// Moments of one tensor that were written.
#[derive(Serialize)]
#[serde(tag = "type", rename = "moments")]
pub struct MomentsRow {
    pub group: String,
    pub site: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_index: Option<u64>,
    pub class: &'static str,
    pub row_count: u64,
    pub norm_mean: f64,
    pub path: RecordPath,
}

/// What `--verify` found.
#[derive(Serialize)]
#[serde(tag = "type", rename = "verify")]
pub struct VerifyRow {
    pub outcome: &'static str,
    pub same_model: bool,
    pub same_tokens: bool,
    pub row_count: u64,
    /// Of all values, relative to the largest of their row.
    pub difference_max: f64,
    pub tolerance: f64,
    /// The first layer, and in it the first row, beyond the tolerance (or, within it, beyond equality).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Parting>,
}

#[derive(Serialize, Clone)]
pub struct Parting {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_index: Option<u64>,
    pub row_index: u64,
    pub sample_index: u64,
    pub position: u64,
    pub token_id: u64,
    pub difference: f64,
}

/// The model as `--inspect` prints it.
#[derive(Serialize)]
#[serde(tag = "type", rename = "model")]
pub struct ModelRow {
    pub family: &'static str,
    pub model_digest: String,
    pub layer_count: usize,
    pub hidden_size: usize,
    pub head_count: usize,
    pub kv_head_count: usize,
    pub head_dim: usize,
    pub mlp_size: usize,
    pub vocab_size: usize,
    pub position_count: usize,
    pub tied_head: bool,
    pub parameter_count: u64,
    pub weight_bytes: u64,
}

/// A site as `--inspect` prints it.
#[derive(Serialize)]
#[serde(tag = "type", rename = "site")]
pub struct SiteRow {
    pub site: &'static str,
    pub width: usize,
    pub tensor_count: usize,
    /// Of all its layers together, uncompressed.
    pub bytes_per_token_f32: usize,
    pub bytes_per_token_bf16: usize,
}

/// Records on stdout beside a file: losing their reader stops the records, not the work.
pub struct Records {
    writer: Option<Writer<Stdout>>,
}

impl Records {
    /// `None` where stdout carries the container.
    pub fn begin(wanted: bool, plan_digest: &str) -> Result<Records> {
        let mut records = Records {
            writer: wanted.then(|| Writer::new(process::stdout())),
        };
        let begin = Begin::new(process::tool_name(), process::VERSION).plan_digest(plan_digest);
        records.keep(|writer| writer.begin(&begin, &()))?;
        Ok(records)
    }

    pub fn row(&mut self, row: &impl Serialize) -> Result<()> {
        self.keep(|writer| writer.row(row))
    }

    pub fn end(mut self, status: Status, keys: &impl Serialize) -> Result<()> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        let ended = writer.end(status, keys).at("stdout").and_then(Stdout::finish);
        tolerate(ended).map(|_| ())
    }

    fn keep(&mut self, write: impl FnOnce(&mut Writer<Stdout>) -> records::Result<()>) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if !tolerate(write(writer).at("stdout"))? {
            self.writer = None;
        }
        Ok(())
    }
}

/// False where the reader has gone.
fn tolerate(written: Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.is_broken_pipe() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A sample record's line in the container.
pub fn line(sample: &records::Sample) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(sample).map_err(|cause| Error::bug("sample", cause))?;
    line.push(b'\n');
    Ok(line)
}

/// A record on its own on stdout, for the modes that print a few.
pub fn print(rows: &[Value]) -> Result<()> {
    let mut out = process::stdout();
    for row in rows {
        writeln!(out, "{row}").at("stdout")?;
    }
    out.finish()
}
