//! From a path to rows: standard input, compression by magic bytes, the format by name or first bytes.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Dataset, InputFormat, JsonLines, Options, Rows, Source};
use crate::error::{Fault, Result};
use crate::lines::{Lines, retry_interrupted};
use crate::stream::Reader;

pub(super) type SharedHasher = Arc<Mutex<blake3::Hasher>>;
pub(super) type Input = Box<dyn Read + Send>;

/// How much is looked at before rows are read.
const PEEK_BYTES: usize = 4096;
const BUFFER_BYTES: usize = 256 << 10;

pub(super) fn open(options: &Options, path: &Path) -> Result<Dataset> {
    if path.as_os_str() == "-" {
        return read(options, Box::new(std::io::stdin()), None);
    }
    let file = File::open(path).map_err(|error| Fault::Io(error).whole())?;
    #[cfg(feature = "parquet")]
    if let Some(dataset) = open_parquet(options, path, &file)? {
        return Ok(dataset);
    }
    read(options, Box::new(file), Some(path))
}

/// A Parquet file proper is read in place; one that is compressed or comes from a pipe is spooled first (see [`rows_of`]).
#[cfg(feature = "parquet")]
fn open_parquet(options: &Options, path: &Path, file: &File) -> Result<Option<Dataset>> {
    use std::os::unix::fs::FileExt;
    let mut magic = [0; 4];
    let is_regular = file.metadata().map_err(|error| Fault::Io(error).whole())?.is_file();
    let begins_so = is_regular && file.read_exact_at(&mut magic, 0).is_ok() && magic == *b"PAR1";
    let is_asked = match options.format {
        InputFormat::Auto => {
            begins_so || (is_regular && by_name(path) == Some(InputFormat::Parquet) && compression(&magic).is_none())
        }
        InputFormat::Parquet => is_regular && compression(&magic).is_none(),
        _ => false,
    };
    if !is_asked {
        return Ok(None);
    }
    let mut digest = None;
    if options.digests {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file).map_err(|error| Fault::Io(error).whole())?;
        digest = Some(Arc::new(Mutex::new(hasher)));
    }
    let file = file.try_clone().map_err(|error| Fault::Io(error).whole())?;
    let rows = super::parquet::Columns::new(file, &options.limits, options.fields.as_deref())?;
    Ok(Some(Dataset {
        rows: Box::new(rows),
        format: InputFormat::Parquet,
        digest,
        row_count: 0,
        is_done: false,
        goes_on: options.goes_on,
    }))
}

/// Reads from a stream; `path` only lends its extension.
pub(super) fn read(options: &Options, input: Input, path: Option<&Path>) -> Result<Dataset> {
    let digest = options.digests.then(SharedHasher::default);
    let input: Input = match &digest {
        Some(hasher) => Box::new(Hashed {
            input,
            hasher: hasher.clone(),
        }),
        None => input,
    };
    let (format, input) = decompress(options, input, path)?;
    Ok(Dataset {
        digest,
        ..dataset_of(options, format, input)?
    })
}

pub(super) fn open_source(options: &Options, path: &Path) -> Result<Source> {
    if path.as_os_str() == "-" {
        return read_source(options, Box::new(std::io::stdin()), None);
    }
    let file = File::open(path).map_err(|error| Fault::Io(error).whole())?;
    #[cfg(feature = "parquet")]
    if let Some(dataset) = open_parquet(options, path, &file)? {
        return Ok(Source::Rows(dataset));
    }
    read_source(options, Box::new(file), Some(path))
}

pub(super) fn read_source(options: &Options, input: Input, path: Option<&Path>) -> Result<Source> {
    let (format, input) = decompress(options, input, path)?;
    match format {
        InputFormat::Jsonl => Source::of_lines(options, input),
        _ => dataset_of(options, format, input).map(Source::Rows),
    }
}

/// The format that was named or found, and the bytes of it.
fn decompress(options: &Options, input: Input, path: Option<&Path>) -> Result<(InputFormat, Input)> {
    let (head, input) = peek(input)?;
    let input: Input = match compression(&head) {
        None => input,
        Some(Compression::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(input)),
        Some(Compression::Zstd) => {
            Box::new(zstd::Decoder::new(input).map_err(|error| Fault::from_read(error).whole())?)
        }
    };
    let (head, input) = peek(input)?;
    let format = match options.format {
        InputFormat::Auto => resolve(path, &head)?,
        named => named,
    };
    Ok((format, input))
}

pub(super) fn dataset_of(options: &Options, format: InputFormat, input: Input) -> Result<Dataset> {
    Ok(Dataset {
        rows: rows_of(options, format, input)?,
        format,
        digest: None,
        row_count: 0,
        is_done: false,
        goes_on: options.goes_on,
    })
}

fn rows_of(options: &Options, format: InputFormat, input: Input) -> Result<Box<dyn Rows>> {
    let Options { limits, fields, .. } = options.clone();
    Ok(match format {
        InputFormat::Auto => unreachable!("resolved by the caller"),
        InputFormat::Jsonl => {
            let mut reader = Reader::with_limits(input, limits)
                .strict(options.is_strict)
                .accept_partial(options.accepts_partial);
            if let Some(fields) = &fields {
                reader = reader.fields(&fields.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Box::new(JsonLines {
                reader,
                record: Default::default(),
            })
        }
        InputFormat::Json => Box::new(super::json::Elements::new(without_mark(input)?, limits, fields)),
        InputFormat::Csv => Box::new(super::csv::Table::new(without_mark(input)?, b',', options)?),
        InputFormat::Tsv => Box::new(super::csv::Table::new(without_mark(input)?, b'\t', options)?),
        InputFormat::Text => Box::new(super::text::TextLines::new(Lines::with_limits(input, &limits))),
        #[cfg(feature = "parquet")]
        InputFormat::Parquet => {
            // Parquet's index is at its end: a stream must be kept whole, on disk and under no name.
            let mut spool = tempfile::tempfile().map_err(|error| Fault::Io(error).whole())?;
            let mut input = input;
            std::io::copy(&mut input, &mut spool).map_err(|error| Fault::from_read(error).whole())?;
            Box::new(super::parquet::Columns::new(spool, &limits, fields.as_deref())?)
        }
        #[cfg(not(feature = "parquet"))]
        InputFormat::Parquet => return Err(Fault::FormatUnsupported("Parquet is not built into this tool").whole()),
    })
}

/// Drops a byte order mark.
fn without_mark(input: Input) -> Result<BufReader<Input>> {
    let (head, mut input) = peek(input)?;
    if head.starts_with(b"\xEF\xBB\xBF") {
        input
            .read_exact(&mut [0; 3])
            .map_err(|error| Fault::from_read(error).whole())?;
    }
    Ok(BufReader::with_capacity(BUFFER_BYTES, input))
}

/// The first bytes, and the input with them still before it. Waits for no more than the first four bytes and one that is not blank.
fn peek(mut input: Input) -> Result<(Vec<u8>, Input)> {
    let mut head = vec![0; PEEK_BYTES];
    let mut length = 0;
    while length < PEEK_BYTES && (length < 4 || first_character(&head[..length]).is_none()) {
        let read =
            retry_interrupted(|| input.read(&mut head[length..])).map_err(|error| Fault::from_read(error).whole())?;
        if read == 0 {
            break;
        }
        length += read;
    }
    head.truncate(length);
    Ok((head.clone(), Box::new(Cursor::new(head).chain(input))))
}

enum Compression {
    Gzip,
    Zstd,
}

fn compression(head: &[u8]) -> Option<Compression> {
    match head {
        [0x1f, 0x8b, ..] => Some(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
        // A skippable frame may come first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Compression::Zstd),
        _ => None,
    }
}

fn first_character(head: &[u8]) -> Option<u8> {
    head.strip_prefix(b"\xEF\xBB\xBF")
        .unwrap_or(head)
        .iter()
        .copied()
        .find(|byte| !byte.is_ascii_whitespace())
}

fn by_name(path: &Path) -> Option<InputFormat> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let mut parts = name
        .rsplit('.')
        .skip_while(|part| matches!(*part, "gz" | "gzip" | "zst" | "zstd"));
    match parts.next()? {
        "jsonl" | "ndjson" => Some(InputFormat::Jsonl),
        "json" => Some(InputFormat::Json),
        "csv" => Some(InputFormat::Csv),
        "tsv" => Some(InputFormat::Tsv),
        "parquet" | "pq" => Some(InputFormat::Parquet),
        "txt" | "text" => Some(InputFormat::Text),
        _ => None,
    }
}

/// The name decides, except between JSON and JSON lines, where files are often misnamed and the first character knows better.
fn resolve(path: Option<&Path>, head: &[u8]) -> Result<InputFormat> {
    let named = path.and_then(by_name);
    match (named, first_character(head)) {
        (None | Some(InputFormat::Parquet), _) if head.starts_with(b"PAR1") => Ok(InputFormat::Parquet),
        (None | Some(InputFormat::Jsonl), Some(b'[')) => Ok(InputFormat::Json),
        (None, Some(b'{')) => Ok(InputFormat::Jsonl),
        (Some(format), _) => Ok(format),
        (None, None) => Err(Fault::InputEmpty.whole()),
        (None, Some(_)) => Err(Fault::FormatUnknown.whole()),
    }
}

/// Hashes what passes.
struct Hashed {
    input: Input,
    hasher: SharedHasher,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hasher
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .update(&buffer[..read]);
        Ok(read)
    }
}
