//! Containers from npy and safetensors files, and from vLLM's dumps of hidden states: one safetensors file per request, with
//! `hidden_states` (tokens, layers, width) and `token_ids` (tokens).

use crate::cli::InputFormat;
use crate::plan::Plan;
use crate::safetensors::{self, Entry};
use crate::{npy, source};
use acts::{Codec, Dtype, Header, Role, Summary, TensorSpec, Writer};
use process::{Error, Output, Result, ResultExt};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One array in a file: where its elements lie and what they are.
struct Array {
    file: usize,
    offset: u64,
    dtype: Dtype,
    shape: Vec<u64>,
    name: String,
}

/// The files, hashed: what they hold is the input of the plan.
struct Inputs {
    files: Vec<(String, File)>,
    digest: String,
}

pub fn run(plan: &Plan, out: Output, name: &str) -> Result<(Output, Summary)> {
    let inputs = open(&listed(&plan.inputs)?)?;
    let mut arrays = Vec::new();
    for file in 0..inputs.files.len() {
        arrays.push(read_arrays(&inputs, file, plan)?);
    }
    let is_vllm = match plan.input_format {
        Some(format) => format == InputFormat::Vllm,
        None => !arrays.is_empty() && arrays.iter().all(|arrays| Request::arrays(arrays).is_some()),
    };
    let (header, order) = if is_vllm {
        requests(plan, &inputs, &arrays)?
    } else {
        tensors(plan, &inputs, arrays)?
    };
    let mut writer = Writer::new(out, header, plan.threads).at(name)?;
    for part in order {
        process::signals::check()?;
        part.push(&inputs, &mut writer, name)?;
    }
    writer.finish().at(name)
}

/// The files that were named, and those in the directories that were, by name.
fn listed(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).at(path.display())?;
        let mut found = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<Vec<_>>>()
            .at(path.display())?;
        found.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
        if found.is_empty() {
            return Err(Error::input(
                path.display(),
                "no .safetensors file is in this directory",
            ));
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn open(paths: &[PathBuf]) -> Result<Inputs> {
    let mut all = Vec::new();
    let mut files = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let mut file = match path == Path::new("-") {
            true => spool()?,
            false => File::open(path).at(&name)?,
        };
        let mut hash = blake3::Hasher::new();
        hash.update_reader(&mut file).at(&name)?;
        all.push(format!("blake3:{}", hash.finalize().to_hex()));
        files.push((name, file));
    }
    let digest = match all.as_slice() {
        [one] => one.clone(),
        many => process::sha256(many.join("\n").as_bytes()),
    };
    Ok(Inputs { files, digest })
}

/// Stdin in a file without a name, which can be sought in. What cannot be an array is refused by its first bytes, however long it is.
fn spool() -> Result<File> {
    let mut source = std::io::stdin().lock();
    let mut head = Vec::new();
    source.by_ref().take(9).read_to_end(&mut head).at("stdin")?;
    if !head.starts_with(npy::MAGIC) && head.get(8) != Some(&b'{') {
        return Err(Error::input("stdin", "neither an npy nor a safetensors file"));
    }
    let mut copy = tempfile::tempfile().at("temporary file")?;
    copy.write_all(&head).at("temporary file")?;
    let mut piece = vec![0; 1 << 20];
    loop {
        process::signals::check()?;
        match source.read(&mut piece).at("stdin")? {
            0 => break,
            count => copy.write_all(&piece[..count]).at("temporary file")?,
        }
    }
    copy.seek(SeekFrom::Start(0)).at("temporary file")?;
    Ok(copy)
}

fn read_arrays(inputs: &Inputs, file: usize, plan: &Plan) -> Result<Vec<Array>> {
    let (name, handle) = &inputs.files[file];
    let mut handle = handle;
    handle.seek(SeekFrom::Start(0)).at(name)?;
    let file_bytes = handle.metadata().at(name)?.len();
    let mut magic = [0u8; 6];
    let read = handle.read_at(&mut magic, 0).at(name)?;
    let format = plan.input_format.unwrap_or(if magic[..read].starts_with(b"\x93NUMPY") {
        InputFormat::Npy
    } else {
        InputFormat::Safetensors
    });
    if format == InputFormat::Npy {
        let array = npy::read_header(name, &mut handle)?;
        let offset = handle.stream_position().at(name)?;
        let bytes = array_bytes(name, array.dtype, &array.shape)?;
        if offset.checked_add(bytes) != Some(file_bytes) {
            return Err(Error::input(
                name,
                format!(
                    "shape {:?} takes {bytes} bytes, the file holds {}",
                    array.shape,
                    file_bytes.saturating_sub(offset)
                ),
            ));
        }
        return Ok(vec![Array {
            file,
            offset,
            dtype: array.dtype,
            shape: array.shape,
            name: plan.name.clone(),
        }]);
    }
    let (entries, start) = safetensors::read_header(name, &mut handle, file_bytes)?;
    let array = |entry: Entry| Array {
        file,
        offset: start + entry.start,
        dtype: entry.dtype,
        shape: entry.shape,
        name: entry.name,
    };
    Ok(entries.into_iter().map(array).collect())
}

fn array_bytes(name: &str, dtype: Dtype, shape: &[u64]) -> Result<u64> {
    shape
        .iter()
        .try_fold(dtype.bytes() as u64, |product, extent| product.checked_mul(*extent))
        .ok_or_else(|| Error::input(name, format!("shape {shape:?} is beyond 2^64 bytes")))
}

/// Bytes of one file that are rows of one tensor.
struct Part {
    tensor: usize,
    bytes: Bytes,
}

enum Bytes {
    /// A run of `length` bytes.
    Run { file: usize, offset: u64, length: u64 },
    /// `count` pieces of `length` bytes, `stride` apart.
    Strided {
        file: usize,
        offset: u64,
        length: u64,
        stride: u64,
        count: u64,
    },
    /// Numbers made here.
    Made(Vec<u32>),
    /// i64 elements that are stored as u32.
    Narrowed { file: usize, offset: u64, count: u64 },
}

impl Part {
    fn push(&self, inputs: &Inputs, writer: &mut Writer<Output>, name: &str) -> Result<()> {
        match &self.bytes {
            Bytes::Made(values) => writer.push_exact::<u32>(self.tensor, values).at(name),
            Bytes::Run { file, offset, length } => {
                let row_bytes = writer.header().tensors[self.tensor].row_bytes().at(name)?;
                for range in source::steps(0..length / row_bytes.max(1), row_bytes) {
                    process::signals::check()?;
                    let bytes = read(
                        inputs,
                        *file,
                        offset + range.start * row_bytes,
                        (range.end - range.start) * row_bytes,
                    )?;
                    writer.push(self.tensor, &bytes).at(name)?;
                }
                Ok(())
            }
            Bytes::Strided {
                file,
                offset,
                length,
                stride,
                count,
            } => {
                // A request is a few thousand tokens: all of it is read once per layer, in order.
                for piece in 0..*count {
                    writer
                        .push(self.tensor, &read(inputs, *file, offset + piece * stride, *length)?)
                        .at(name)?;
                }
                Ok(())
            }
            Bytes::Narrowed { file, offset, count } => {
                let (file_name, _) = &inputs.files[*file];
                let bytes = read(inputs, *file, *offset, count * 8)?;
                let values = bytes
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|value| u32::try_from(i64::from_le_bytes(*value)));
                let values = values.collect::<std::result::Result<Vec<_>, _>>();
                let values = values.map_err(|_| Error::input(file_name, "a token id is not within 0 and 2^32-1"))?;
                writer.push_exact::<u32>(self.tensor, &values).at(name)
            }
        }
    }
}

fn read(inputs: &Inputs, file: usize, offset: u64, length: u64) -> Result<Vec<u8>> {
    let (name, handle) = &inputs.files[file];
    // BOUND: offsets and lengths were compared with the file's size.
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    handle.read_exact_at(&mut bytes, offset).at(name)?;
    Ok(bytes)
}

fn spec(plan: &Plan, name: &str, dtype: Dtype, row_shape: &[u64], rows: u64) -> TensorSpec {
    let mut spec = TensorSpec::new(name, dtype, row_shape)
        .codec(plan.codec.unwrap_or(Codec::ZstdPlanes))
        .rows(rows);
    spec.level = plan.level.unwrap_or(spec.level);
    spec
}

fn header(plan: &Plan, inputs: &Inputs, tensors: Vec<TensorSpec>, meta: serde_json::Value) -> Result<Header> {
    let digest = process::plan::digest(&(
        process::tool_name(),
        process::VERSION,
        plan,
        &plan.name,
        &inputs.digest,
        &meta,
    ))?;
    let mut header = Header::new(process::tool_name(), process::VERSION, &digest, None);
    header.input_digest = Some(inputs.digest.clone());
    header.tensors = tensors;
    if let serde_json::Value::Object(meta) = meta {
        header.meta = meta;
    }
    header.fix_blocks().at(&plan.name)?;
    Ok(header)
}

/// Every array as a tensor: the first axis is rows, except that the first axis of an npy of rank 3 is layers.
fn tensors(plan: &Plan, inputs: &Inputs, arrays: Vec<Vec<Array>>) -> Result<(Header, Vec<Part>)> {
    if plan.store_dtype.is_some() {
        return Err(Error::usage("--store-dtype", "--from keeps element types")
            .hint("convert the container: acts-cat x.acts --store-dtype bf16 -o y.acts"));
    }
    let is_npy = plan.input_format != Some(InputFormat::Safetensors);
    let several = arrays.len() > 1;
    let mut specs = Vec::new();
    let mut parts = Vec::new();
    for (index, array) in arrays.into_iter().flatten().enumerate() {
        let (file_name, _) = &inputs.files[array.file];
        let from_npy = is_npy && array.name == plan.name;
        let base = if from_npy && several {
            format!("{}.{index}", array.name)
        } else {
            array.name.clone()
        };
        let (layers, shape) = match array.shape.as_slice() {
            [layers, shape @ ..] if from_npy && shape.len() == 2 => (Some(*layers), shape),
            shape => (None, shape),
        };
        let (rows, row_shape) = match shape {
            [rows, row_shape @ ..] => (*rows, row_shape),
            [] => (1, &[][..]),
        };
        let length = array_bytes(file_name, array.dtype, shape)?;
        for layer in 0..layers.unwrap_or(1) {
            let name = if layers.is_some() {
                format!("{base}.{layer}")
            } else {
                base.clone()
            };
            parts.push(Part {
                tensor: specs.len(),
                bytes: Bytes::Run {
                    file: array.file,
                    offset: array.offset + layer * length,
                    length,
                },
            });
            specs.push(spec(plan, &name, array.dtype, row_shape, rows));
            if specs.len() > acts::limits::TENSORS {
                return Err(Error::input(
                    file_name,
                    format!("more than {} tensors", acts::limits::TENSORS),
                ));
            }
        }
    }
    Ok((header(plan, inputs, specs, serde_json::json!({}))?, parts))
}

/// What stands beside the layers of vLLM's requests.
const ROW_TABLES: [&str; 3] = ["token_id", "sample_index", "position"];
/// BOUND: layers of a request, each a tensor.
const LAYERS_MAX: u64 = (acts::limits::TENSORS - ROW_TABLES.len()) as u64;

/// One request of vLLM: its states of every layer, and its tokens.
struct Request<'a> {
    states: &'a Array,
    tokens: &'a Array,
    count: u64,
    /// Layers, width and element type: the same in all requests.
    form: (u64, u64, Dtype),
}

impl<'a> Request<'a> {
    /// The two arrays of one request, if that is what a file holds.
    fn arrays(arrays: &'a [Array]) -> Option<(&'a Array, &'a Array)> {
        let find = |name: &str, rank: usize| {
            arrays
                .iter()
                .find(|array| array.name == name && array.shape.len() == rank)
        };
        find("hidden_states", 3).zip(find("token_ids", 1))
    }

    fn new(name: &str, arrays: &'a [Array]) -> Result<Request<'a>> {
        let refuse = |cause: String| Err(Error::input(name, cause));
        let Some((states, tokens)) = Request::arrays(arrays) else {
            return refuse("not a vLLM dump: hidden_states (tokens, layers, width) and token_ids (tokens)".into());
        };
        let [count, layers, width] = states.shape[..] else {
            return Err(Error::bug(name, "a rank that was checked"));
        };
        if tokens.shape[0] != count {
            return refuse(format!(
                "{} token ids for {count} rows of hidden states",
                tokens.shape[0]
            ));
        }
        if !states.dtype.is_float() || !matches!(tokens.dtype, Dtype::I64 | Dtype::U32) {
            return refuse(format!(
                "hidden states of {} and token ids of {}",
                states.dtype, tokens.dtype
            ));
        }
        // A dump without tokens holds no byte, whatever it claims: its own size bounds nothing.
        if layers > LAYERS_MAX {
            return refuse(format!("{layers} layers, limit {LAYERS_MAX}"));
        }
        let token_bytes = array_bytes(name, states.dtype, &[layers, width])?;
        if states.offset.checked_add(token_bytes).is_none() {
            return refuse(format!("{layers} layers of {width} are beyond 2^64 bytes"));
        }
        Ok(Request {
            states,
            tokens,
            count,
            form: (layers, width, states.dtype),
        })
    }

    /// Where its rows of every tensor lie: a tensor per layer, then the row tables.
    fn parts(&self, name: &str, sample: usize) -> Result<Vec<Part>> {
        let (layers, width, dtype) = self.form;
        let row_bytes = array_bytes(name, dtype, &[width])?;
        let number = u32::try_from(sample).map_err(|_| Error::input(name, "more than 2^32 requests"))?;
        let last = u32::try_from(self.count).map_err(|_| Error::input(name, "more than 2^32 tokens"))?;
        let states = (0..layers).map(|layer| Bytes::Strided {
            file: sample,
            offset: self.states.offset + layer * row_bytes,
            length: row_bytes,
            stride: row_bytes * layers,
            count: self.count,
        });
        let token_ids = match self.tokens.dtype {
            Dtype::U32 => Bytes::Run {
                file: sample,
                offset: self.tokens.offset,
                length: self.count * 4,
            },
            _ => Bytes::Narrowed {
                file: sample,
                offset: self.tokens.offset,
                count: self.count,
            },
        };
        let sample_indices = Bytes::Made(vec![number; last as usize]);
        let positions = Bytes::Made((0..last).collect());
        let all = states.chain([token_ids, sample_indices, positions]).enumerate();
        Ok(all.map(|(tensor, bytes)| Part { tensor, bytes }).collect())
    }
}

/// vLLM's dumps as one container: one tensor per layer, the row tables, and in `meta` the request of each sample.
fn requests(plan: &Plan, inputs: &Inputs, arrays: &[Vec<Array>]) -> Result<(Header, Vec<Part>)> {
    let mut form: Option<(u64, u64, Dtype)> = None;
    let mut parts = Vec::new();
    let mut ids = Vec::new();
    let mut rows = 0u64;
    for (sample, arrays) in arrays.iter().enumerate() {
        let (name, _) = &inputs.files[sample];
        let request = Request::new(name, arrays)?;
        let known = *form.get_or_insert(request.form);
        if known != request.form {
            let [found, first] =
                [request.form, known].map(|(layers, width, dtype)| format!("{layers} layers of {width} {dtype}"));
            return Err(Error::input(
                name,
                format!("{found} where the first request has {first}"),
            ));
        }
        parts.extend(request.parts(name, sample)?);
        let stem = Path::new(name).file_stem().unwrap_or_default();
        ids.push(stem.to_string_lossy().into_owned());
        rows += request.count;
    }
    let (layers, width, dtype) = form.ok_or_else(|| Error::input("--from", "no request"))?;
    let mut specs: Vec<TensorSpec> = (0..layers)
        .map(|layer| spec(plan, &format!("{}.{layer}", plan.name), dtype, &[width], rows).role(Role::Activations))
        .collect();
    for table in ROW_TABLES {
        specs.push(TensorSpec::row_table(table).rows(rows));
    }
    let meta = serde_json::json!({"source": "vllm", "request_ids": ids});
    Ok((header(plan, inputs, specs, meta)?, parts))
}
