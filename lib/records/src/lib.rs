//! Bytes to checked records and back: JSON lines as the tools speak them (`man 5 records`), and datasets as people keep them.
//!
//! | want | take |
//! | --- | --- |
//! | write records | [`Writer`] |
//! | read records of ours, or plain JSON lines | [`Reader`], typed by [`Record`] structs such as [`Prompt`] and [`Completion`] |
//! | read a dataset in any format | [`dataset::open`], understood by [`dataset::Example`] |
//! | parse JSON lines on many threads | [`dataset::Options::open_source`] |
//! | scan gigabytes of JSON lines | [`Lines`] with [`Line::parse`], which says what it does not check |
//! | write results for other programs | [`exchange::Results`] |
//! | know who a row is | [`text_digest`], [`bucket`], [`JoinKey`], [`Index`], [`Seen`] |
//!
//! Input is hostile here: lengths, depths and counts are bounded by [`Limits`], and a message never quotes a value. Nothing in this crate
//! prints, exits or knows of flags.

pub mod dataset;
mod decode;
mod encode;
mod error;
pub mod exchange;
mod file;
mod format;
mod identity;
mod limits;
mod lines;
pub mod number;
mod question;
mod record;
mod stream;

pub use error::{Error, Fault, Place, Result};
pub use file::{read_rows, table_rows, write_rows};
pub use identity::{Index, JoinKey, Seen, bucket, id_of, text_digest};
pub use json::KeyName;
pub use limits::Limits;
pub use lines::{Line, Lines};
pub use record::*;
pub use stream::{Begin, End, Reader, Row, SCHEMA, Status, Writer};
