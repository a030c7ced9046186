//! Language models: weights → activations, logits and gradients, with taps.
//!
//! One decoder for every family of [`Config::families`], run over packed sequences without padding. This crate does no I/O beyond
//! reading and writing a model directory, and knows nothing of records or containers.
//!
//! ```no_run
//! use model::*;
//! # fn main() -> model::Result<()> {
//! memory::keep_freed_buffers(); // first in main of a tool that runs a model
//! let checkpoint = Checkpoint::open("models/stories260k".as_ref(), &Options::default())?; // nothing is loaded yet
//! let tokenizer = checkpoint.tokenizer()?;
//! let decoder = checkpoint.load()?;
//!
//! // Sequences of any lengths in one batch; look at two sites on the way.
//! let texts = ["Once upon a time", "The cat"];
//! let ids: Vec<_> = texts.iter().map(|text| tokenizer.encode(text, Bos::Auto)).collect::<Result<_>>()?;
//! let batch = Batch::pack(&ids);
//! let points = [Point::new(Site::ResidPost, 2), Point::new(Site::MlpGate, 0)];
//! let mut taps = Taps::new(points);
//! let tape = Tape::off(); // or a recording one: gradients for `decoder.parameters()`
//! let normed = decoder.forward(&tape, &batch, &mut taps, None)?; // (rows, hidden)
//! let residual = taps.get(points[0]).unwrap(); // (rows, hidden), rows as in `batch.rows(i)`
//!
//! // Logits of chosen rows only.
//! let last = Tensor::new(batch.last_rows(), decoder.device())?;
//! let logits = decoder.logits(&tape, &normed.index_select(&last, 0)?)?; // (sequences, vocab)
//!
//! // A cache: prefill a ragged batch, then one token per sequence and step. `select` reorders or forks it,
//! // `retain` drops finished sequences.
//! let mut cache = KvCache::new();
//! decoder.forward(&tape, &batch, &mut (), Some(&mut cache))?;
//! decoder.forward(&tape, &Batch::pack(&[[42u32], [7]]), &mut (), Some(&mut cache))?;
//!
//! // Intervention: put another residual in the place of row 3 after block 0. `Probe` is the general form: it sees the
//! // tensor of every point it wants and may return another (a direction ablated, say).
//! let values = residual.narrow(0, 0, 1)?;
//! let mut patch = Patch { point: Point::new(Site::ResidPost, 0), rows: vec![3], values };
//! let mut seen = Taps::new(points);
//! decoder.forward(&tape, &batch, &mut (&mut patch, &mut seen), None)?;
//!
//! // Only as deep as needed: the residual after 2 blocks.
//! decoder.residual(&tape, &batch, 2, &mut (), None)?;
//! # Ok(()) }
//! ```

#![cfg_attr(not(feature = "decoder"), allow(dead_code))]

#[cfg(feature = "decoder")]
mod adapter;
#[cfg(feature = "decoder")]
pub mod batch;
#[cfg(feature = "decoder")]
mod blocks;
#[cfg(feature = "decoder")]
pub mod cache;
#[cfg(feature = "decoder")]
pub mod checkpoint;
#[cfg(feature = "decoder")]
pub mod compute;
#[cfg(feature = "decoder")]
pub mod config;
mod confined;
#[cfg(feature = "decoder")]
pub mod decoder;
#[cfg(feature = "decoder")]
pub mod device;
pub mod directory;
mod error;
#[cfg(feature = "decoder")]
pub mod export;
#[cfg(feature = "decoder")]
mod families;
mod faults;
#[cfg(feature = "decoder")]
mod gguf;
#[cfg(feature = "decoder")]
mod hub;
#[cfg(feature = "decoder")]
mod loader;
#[cfg(feature = "decoder")]
pub mod memory;
#[cfg(feature = "decoder")]
mod mixture;
#[cfg(feature = "decoder")]
mod mlp;
#[cfg(feature = "decoder")]
mod names;
#[cfg(feature = "decoder")]
pub mod ops;
#[cfg(feature = "decoder")]
pub mod optimiser;
#[cfg(feature = "decoder")]
mod quantised;
#[cfg(feature = "decoder")]
mod reader;
#[cfg(feature = "decoder")]
mod rope;
#[cfg(feature = "decoder")]
mod safetensors;
#[cfg(feature = "decoder")]
pub mod soft_prompt;
#[cfg(feature = "decoder")]
pub mod steering;
#[cfg(feature = "decoder")]
mod stream;
#[cfg(feature = "decoder")]
pub mod taps;
pub mod template;
pub mod tokenizer;
#[cfg(feature = "decoder")]
pub mod weights;
#[cfg(feature = "decoder")]
mod wrapper;

#[cfg(feature = "decoder")]
pub use batch::Batch;
#[cfg(feature = "decoder")]
pub use cache::KvCache;
#[cfg(feature = "decoder")]
pub use candle_core::{DType, Device, Tensor};
#[cfg(feature = "decoder")]
pub use checkpoint::{Checkpoint, Options};
#[cfg(feature = "decoder")]
pub use compute::{Compute, Precision};
#[cfg(feature = "decoder")]
pub use config::Config;
#[cfg(feature = "decoder")]
pub use decoder::Decoder;
pub use directory::Directory;
pub use error::{Error, Result};
pub use faults::Faults;
#[cfg(feature = "decoder")]
pub use half;
#[cfg(feature = "decoder")]
pub use loader::Parameter;
#[cfg(feature = "decoder")]
pub use ops::Tape;
#[cfg(feature = "decoder")]
pub use soft_prompt::{Slot, SoftPrompt};
#[cfg(feature = "decoder")]
pub use steering::{Steered, Steering};
#[cfg(feature = "decoder")]
pub use stream::StreamWriter;
#[cfg(feature = "decoder")]
pub use taps::{Patch, Point, Probe, ProbeResult, Site, Taps};
pub use template::{Template, Turn};
pub use tokenizer::{Bos, Tokenizer};
#[cfg(feature = "decoder")]
pub use weights::{Source, Weights};
