//! The activation container, `.acts`: tensors that grow by rows, in blocks that are compressed, checked and addressable, in one file
//! that is also a valid zstd file and may be a pipe. `man/acts.5` is the specification; [`mod@frame`]'s tables are its byte offsets.
//!
//! Hostile input lives here: the code that reads makes no unchecked arithmetic, casts or indexes (the lints below hold it to that),
//! believes no size before it was bounded, and hands out no byte before its digest matched.
//!
//! # Writing
//!
//! Say what will come in a [`Header`], then push rows. Row tables and sample records are tensors like any other. Push sample by sample
//! and, within a sample, tensor by tensor in header order: then a merge of shards gives the same bytes as one run.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use acts::{Dtype, Header, OpenOptions, Role, Site, TensorSpec, Writer};
//!
//! let mut header = Header::new("example", "1.0", "sha256:of-the-plan", None);
//! header.tensors = vec![
//!     TensorSpec::activations(Site::ResidPost, Some(0), Dtype::Bf16, 4),
//!     TensorSpec::activations(Site::ResidPost, Some(1), Dtype::Bf16, 4),
//!     TensorSpec::row_table("token_id"),
//!     TensorSpec::row_table("sample_index"),
//!     TensorSpec::row_table("position"),
//!     TensorSpec::samples(),
//! ];
//! header.fix_blocks()?; // the default block sizes, which depend on the number of tensors
//!
//! let mut writer = Writer::new(Vec::new(), header, 2)?; // any `Write`; two compressing threads
//! for sample in 0..3u32 {
//!     writer.push_f32(0, &[0.5; 2 * 4])?; // two tokens of width 4, rounded to bf16
//!     writer.push_f32(1, &[1.5; 2 * 4])?;
//!     writer.push_exact::<u32>(2, &[17, 18])?;
//!     writer.push_exact::<u32>(3, &[sample; 2])?;
//!     writer.push_exact::<u32>(4, &[0, 1])?;
//!     writer.push(5, format!("{{\"sample_index\":{sample}}}\n").as_bytes())?;
//! }
//! let (bytes, summary) = writer.finish()?;
//! assert_eq!(summary.tensors[0].row_count, 6);
//!
//! // Reading rows of a file (here one in memory; `File::open(path, …)` maps it).
//! let file = acts::File::from_bytes(bytes.clone(), OpenOptions::default())?;
//! let tensor = file.tensor("resid_post.1")?;
//! let mut rows = vec![0f32; 2 * 4];
//! file.read::<f32>(tensor, 4..6, &mut rows)?; // or `f64`, or `read_raw` into bytes
//! assert_eq!(rows, [1.5; 8]);
//! file.gather::<f64>(tensor, &[5, 0], &mut vec![0.0; 8])?; // scattered rows
//! assert_eq!(file.to_vec::<u32>(file.tensor("sample_index")?, 0..6)?, [0, 0, 1, 1, 2, 2]);
//!
//! // Reading a pipe: forward only, accepted when `next_block` says `None`.
//! let mut stream = acts::Stream::new(bytes.as_slice(), false)?;
//! while let Some(block) = stream.next_block()? {
//!     assert!(block.row_count > 0 && stream.header().tensors[block.tensor].role != Role::Moments);
//! }
//! # Ok(()) }
//! ```
//!
//! # Resuming
//!
//! [`recover`] reads a partial file up to its last sound block; cut the file to [`Recovered::durable_bytes`], give both to
//! [`Writer::resume`], [`Writer::rewind`] each tensor to the row at which your replay begins, and push on: rows that are already there are
//! dropped, and the bytes come out as if the first run had never stopped.

#![cfg_attr(
    not(test),
    deny(
        clippy::as_conversions,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(target_endian = "big")]
compile_error!("the container holds little-endian numbers, and this reader hands them out in place");

mod codec;
mod direction;
mod dtype;
mod error;
mod file;
mod frame;
mod header;
mod ledger;
pub mod limits;
mod map;
mod moments;
mod stream;
mod verify;
mod writer;

pub use dtype::{Dtype, Element, NonFinite};
pub use error::{Error, Result};
pub use file::{File, OpenOptions};
pub use frame::VERSION;
pub use header::{Codec, Compute, Header, Role, Shard, Site, TensorSpec, file_id, hex};
pub use ledger::{State, TensorSummary};
pub use moments::{MomentsKey, MomentsParts, TokenClass};
pub use stream::{Block, Stream};
pub use verify::{
    Content, Damage, Depth, Recovered, SalvageReport, SalvagedBlock, first_difference, recover, salvage, salvage_header,
};
pub use writer::{Summary, Writer};
