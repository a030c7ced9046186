//! The reader against what the format's own packages make of the same files (`scripts/parity/gguf_fixtures.py`), and against files
//! that lie.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::Value as Json;

use super::*;
use crate::directory::Directory;
use crate::tokenizer::{Bos, Tokenizer};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/gguf")
        .join(name)
}

/// What is said of a file of these bytes, up to its last number.
fn read(bytes: &[u8]) -> Result<Vec<f32>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    let gguf = Gguf::open(&path, DType::F32, &Device::Cpu)?;
    gguf.stands_for()?;
    let mut names: Vec<_> = gguf.file.entries().iter().collect();
    names.sort_by_key(|(name, _)| *name);
    let values = names
        .into_iter()
        .map(|(_, entry)| blocks::dequantised(gguf.file.bytes_of(entry), entry.stored));
    Ok(values.collect::<Vec<_>>().concat())
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes).expect_err("such a file is read").to_string()
}

/// Name, dimensions, type and offset of a tensor, as a header claims them.
type Claimed<'a> = (&'a str, &'a [u64], u32, u64);

/// A file that says `keys` and claims `tensors`, with the bytes of `data` after its header.
fn file(keys: &[(&str, Vec<u8>)], tensors: &[Claimed], data: usize) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    for (key, value) in keys {
        text(&mut bytes, key);
        bytes.extend(value);
    }
    for (name, dims, kind, offset) in tensors {
        text(&mut bytes, name);
        bytes.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
    bytes
}

fn number(value: u32) -> Vec<u8> {
    [4u32.to_le_bytes(), value.to_le_bytes()].concat()
}

fn text(value: &str) -> Vec<u8> {
    let length = (value.len() as u64).to_le_bytes();
    [&8u32.to_le_bytes()[..], &length, value.as_bytes()].concat()
}

/// A list that claims `count` elements and holds `elements`.
fn list(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    let head = [9u32.to_le_bytes(), kind.to_le_bytes()].concat();
    [&head, &count.to_le_bytes()[..], elements].concat()
}

#[test]
fn every_stored_type_has_the_values_of_the_reference() {
    let file = File::open(&fixture("types.gguf")).unwrap();
    let golden = candle_core::safetensors::load(fixture("types.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(golden.len(), 16);
    for (name, expected) in &golden {
        let entry = &file.entries()[name];
        let values = blocks::dequantised(file.bytes_of(entry), entry.stored);
        let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values, expected, "{name}");
    }
}

/// The tokenizer of a file of these bytes.
fn tokenizer(bytes: &[u8]) -> Tokenizer {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vocabulary.gguf");
    fs::write(&path, bytes).unwrap();
    let files = vocabulary::files(&File::open(&path).unwrap()).unwrap();
    let files = files
        .into_iter()
        .map(|(name, json)| (name, json.to_string().into_bytes()));
    Tokenizer::open(&Directory::made(&path, files.collect())).unwrap()
}

#[test]
fn texts_have_the_tokens_of_llama_cpp() {
    let golden: Json = serde_json::from_slice(&fs::read(fixture("tokens.json")).unwrap()).unwrap();
    let texts = golden["texts"].as_array().unwrap();
    for (name, tokens) in golden["tokens"].as_object().unwrap() {
        let bytes = match fixture(&format!("{name}.gguf")) {
            pieces if name.starts_with("pieces") => fs::read(pieces).unwrap(),
            _ => spelling(&fs::read(fixture("byte-level.gguf")).unwrap(), "gpt-2", name),
        };
        let tokenizer = tokenizer(&bytes);
        for (at, text) in texts.iter().enumerate() {
            let ids = tokenizer.encode(text.as_str().unwrap(), Bos::Auto).unwrap();
            assert_eq!(Json::from(ids), tokens[at], "{name}: {text}");
        }
    }
}

#[test]
fn a_file_stands_for_the_same_bytes_whenever_it_is_read() {
    for name in ["byte-level.gguf", "pieces.gguf"] {
        let read = || {
            let files = vocabulary::files(&File::open(&fixture(name)).unwrap()).unwrap();
            files.into_iter().map(|(_, json)| json.to_string()).collect::<Vec<_>>()
        };
        assert!(read() == read(), "{name}");
    }
}

/// The same file with another text in the place of the first `from`.
fn spelling(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let spelt = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let from = spelt(from);
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], &spelt(to), &bytes[at + from.len()..]].concat()
}

#[test]
fn what_changes_tokens_and_is_not_known_is_refused_by_name() {
    let bytes = fs::read(fixture("byte-level.gguf")).unwrap();
    let refusal = |from: &str, to: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vocabulary.gguf");
        fs::write(&path, spelling(&bytes, from, to)).unwrap();
        vocabulary::files(&File::open(&path).unwrap()).unwrap_err().to_string()
    };
    let said = refusal("gpt-2", "viking");
    assert!(
        said.starts_with("tokenizer: tokenizer.ggml.pre = \"viking\" is not read (read: gpt-2, "),
        "{said}"
    );
    let said = refusal("tokenizer.ggml.pre", "tokenizer.ggml.pro");
    assert!(said.contains("tokenizer.ggml.pre is missing"), "{said}");
    let said = refusal("gpt2", "bert");
    assert!(said.contains("tokenizer.ggml.model = \"bert\" is not read"), "{said}");
    let said = refusal("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eos_token_od");
    assert!(said.contains("tokenizer.ggml.eos_token_od is not known here"), "{said}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = fs::read(fixture("llama.gguf")).unwrap();
    for length in (0..bytes.len()).step_by(bytes.len() / 97).chain([bytes.len() - 1]) {
        assert!(read(&bytes[..length]).is_err(), "cut at {length} of {}", bytes.len());
    }
}

/// Bytes of the header, one at a time: refused, or read; and never a panic.
#[test]
fn a_header_with_any_byte_changed_is_refused_or_read() {
    let bytes = fs::read(fixture("qwen2.gguf")).unwrap();
    let header = bytes
        .windows(23)
        .rposition(|window| window == b"blk.2.ffn_up.weight\x02\0\0\0")
        .unwrap();
    let mut refused = 0;
    for at in 0..header {
        let mut changed = bytes.clone();
        changed[at] ^= [0xff, 0x01, 0x80][at % 3];
        refused += usize::from(read(&changed).is_err());
    }
    assert!(refused > header / 3, "{refused} of {header}");
}

#[test]
fn counts_and_lengths_beyond_the_file_are_refused_at_once() {
    let huge = 1u64 << 60;
    let mut bytes = file(&[], &[], 0);
    bytes[8..16].copy_from_slice(&huge.to_le_bytes());
    assert!(refusal(&bytes).contains("claims 1152921504606846976 tensors"));
    let mut bytes = file(&[], &[], 0);
    bytes[16..24].copy_from_slice(&huge.to_le_bytes());
    assert!(refusal(&bytes).contains("claims 1152921504606846976 keys"));
    let long = [&8u32.to_le_bytes()[..], &huge.to_le_bytes()].concat();
    assert!(refusal(&file(&[("a", long)], &[], 0)).contains("a of 1152921504606846976 bytes"));
    for kind in [0, 5, 6, 7, 8, 12] {
        let said = refusal(&file(&[("a", list(kind, huge, b""))], &[], 0));
        assert!(said.contains("claims 1152921504606846976 a in"), "{said}");
    }
    assert!(refusal(&file(&[("a", list(9, 1, b""))], &[], 0)).contains("nests arrays"));
    let said = refusal(&file(&[], &[("a", &[huge, huge], 0, 0)], 64));
    assert!(said.contains("has the shape"), "{said}");
}

#[test]
fn keys_and_tensors_that_contradict_each_other_are_refused() {
    let twice = [("a", number(1)), ("a", number(2))];
    assert!(refusal(&file(&twice, &[], 0)).contains("the key \"a\" stands twice"));
    for alignment in [0, 3, 1 << 31] {
        let said = refusal(&file(&[("general.alignment", number(alignment))], &[], 0));
        assert!(said.contains("expected a power of two"), "{said}");
    }
    let row: &[u64] = &[16];
    let cases: [(&[Claimed], &str); 6] = [
        (&[("a", row, 0, 0), ("a", row, 0, 64)], "stands twice"),
        (&[("a", row, 0, 0), ("b", row, 0, 32)], "overlaps"),
        (&[("a", row, 0, 16)], "not a multiple of 32"),
        (&[("a", row, 0, 128)], "claims 64 bytes at 128"),
        (&[("a", row, 0, u64::MAX - 31)], "claims 64 bytes at"),
        (&[("a", row, 18, 0)], "the type IQ3_XXS, which is not read"),
    ];
    for (tensors, expected) in cases {
        let said = refusal(&file(&[], tensors, 128));
        assert!(said.contains(expected), "{said}");
    }
}

/// The keys of a small model.
fn small(architecture: &str, changes: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let key = |suffix: &str| format!("{architecture}.{suffix}");
    let eps = [6u32.to_le_bytes(), 1e-5f32.to_le_bytes()].concat();
    let mut keys: Vec<(String, Vec<u8>)> = vec![
        ("general.architecture".into(), text(architecture)),
        (key("block_count"), number(1)),
        (key("context_length"), number(64)),
        (key("embedding_length"), number(8)),
        (key("feed_forward_length"), number(8)),
        (key("attention.head_count"), number(2)),
        (key("attention.layer_norm_rms_epsilon"), eps),
    ];
    for (suffix, value) in changes {
        let name = key(suffix);
        keys.retain(|(key, _)| *key != name);
        keys.push((name, value.clone()));
    }
    keys.retain(|(_, value)| !value.is_empty());
    let keys: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    file(&keys, &[("token_embd.weight", &[8, 4], 0, 0)], 128)
}

#[test]
fn what_changes_numbers_and_is_not_computed_is_refused_by_name() {
    assert!(read(&small("llama", &[])).is_ok());
    let half = [6u32.to_le_bytes(), 0.5f32.to_le_bytes()].concat();
    let by_layer = list(4, 2, &[1, 0, 0, 0, 2, 0, 0, 0]);
    let cases = [
        (
            "attention.scale",
            half.clone(),
            "llama.attention.scale is not known here and may change the result",
        ),
        ("expert_count", number(8), "llama.expert_used_count is missing"),
        (
            "expert_shared_count",
            number(1),
            "llama.expert_shared_count is not known here",
        ),
        ("logit_scale", half.clone(), "llama.logit_scale is not known here"),
        (
            "rope.scaling.type",
            text("su"),
            "llama.rope.scaling.type = \"su\" is not computed",
        ),
        (
            "rope.scaling.attn_factor",
            half,
            "llama.rope.scaling.attn_factor stands without",
        ),
        (
            "rope.dimension_count",
            number(2),
            "llama.rope.dimension_count is not the length of a head",
        ),
        (
            "attention.value_length",
            number(8),
            "llama.attention.value_length differs from key_length",
        ),
        (
            "feed_forward_length",
            by_layer,
            "llama.feed_forward_length differs by layer",
        ),
        (
            "attention.layer_norm_rms_epsilon",
            Vec::new(),
            "layer_norm_rms_epsilon is missing",
        ),
        ("context_length", text("long"), "llama.context_length is no integer"),
    ];
    for (key, value, expected) in cases {
        let said = refusal(&small("llama", &[(key, value)]));
        assert!(said.contains(expected), "{said}");
    }
    let said = refusal(&small("mamba", &[]));
    assert!(
        said.contains("the architecture \"mamba\" is not read (read: llama, mistral3, qwen2,"),
        "{said}"
    );
}

/// How a model is opened whose matrices stay as they are stored.
fn as_stored(dtype: DType) -> crate::Options {
    crate::Options {
        dtype,
        weights: crate::Weights::AsStored,
        ..crate::Options::default()
    }
}

/// Logits of a few tokens.
fn logits(model: &Path, options: &crate::Options) -> Result<Vec<f32>> {
    let decoder = crate::Checkpoint::open(model, options)?.load()?;
    let batch = crate::Batch::pack(&[&[1u32, 7, 30, 12, 5][..], &[2, 3]]);
    let normed = decoder.forward(&decoder.tape(), &batch, &mut (), None)?;
    let logits = decoder.logits(&decoder.tape(), &normed)?;
    Ok(logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// Whether the logits of a model whose matrices stay as they are stored are those of one whose matrices are numbers.
#[track_caller]
fn is_the_same(model: &Path) {
    for dtype in [DType::F32, DType::BF16] {
        for precision in [crate::Precision::Full, crate::Precision::Medium] {
            let stored = crate::Options {
                precision,
                ..as_stored(dtype)
            };
            let plain = crate::Options {
                weights: crate::Weights::Dequantised,
                ..stored.clone()
            };
            let (plain, stored) = (logits(model, &plain).unwrap(), logits(model, &stored).unwrap());
            assert!(plain == stored, "{} in {dtype:?} {precision:?}", model.display());
        }
    }
}

#[test]
fn matrices_as_stored_give_the_logits_of_their_numbers() {
    let mut models: Vec<PathBuf> = fs::read_dir(fixture(""))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    models.retain(|path| {
        Gguf::is_at(path)
            && crate::Checkpoint::open(path, &crate::Options::default()).is_ok_and(|model| model.load().is_ok())
    });
    assert!(models.len() > 25, "{models:?}");
    models.iter().for_each(|model| is_the_same(model));
    if let Some(model) = harness::smollm2() {
        is_the_same(&model);
    }
}

/// In every type, whatever the number of rows, as numbers and as pairs of them, and on any number of threads.
#[test]
fn products_with_every_type_as_stored_have_the_bits_of_those_with_its_numbers() {
    let file = std::sync::Arc::new(File::open(&fixture("types.gguf")).unwrap());
    let of_rows = |(rows, width), dtype| {
        let numbers: Vec<f32> = (0..rows * width)
            .map(|at| ((at * 7919 % 1009) as f32 / 504.5) - 1.0)
            .collect();
        Tensor::from_vec(numbers, (rows, width), &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap()
    };
    for (name, entry) in file.entries() {
        let numbers = blocks::dequantised(file.bytes_of(entry), entry.stored);
        let shapes = [(3, 512), (6, 256), (32, 48)].into_iter();
        let shapes = shapes.filter(|(_, width)| width % entry.stored.block().0 == 0);
        for ((count, width), first) in shapes.flat_map(|shape| [(shape, 0), (shape, 2)]) {
            let order: Vec<u32> = (0..count).map(|row| (row + first) % count).collect();
            let shape = (count as usize, width);
            let index = Tensor::new(order.as_slice(), &Device::Cpu).unwrap();
            let numbers = Tensor::from_slice(&numbers, shape, &Device::Cpu).unwrap();
            let numbers = numbers.index_select(&index, 0).unwrap();
            let stored = matrix::Matrix {
                file: file.clone(),
                bytes: entry.bytes.clone(),
                stored: entry.stored,
                shape,
                order: (first > 0).then_some(order),
            };
            for (rows, dtype) in [1, 3, 4, 40]
                .into_iter()
                .flat_map(|rows| [(rows, DType::F32), (rows, DType::BF16)])
            {
                let (x, numbers) = (of_rows((rows, width), dtype), numbers.to_dtype(dtype).unwrap());
                let bits = |y: Tensor| {
                    y.to_dtype(DType::F32)
                        .unwrap()
                        .flatten_all()
                        .unwrap()
                        .to_vec1::<f32>()
                        .unwrap()
                };
                for threads in [1, 2, 7] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let (plain, found) = pool.install(|| {
                        let tape = crate::Tape::off();
                        (
                            crate::ops::linear(&tape, &x, &numbers, None),
                            crate::ops::linear_stored(&tape, &x, &stored, None),
                        )
                    });
                    assert_eq!(
                        bits(found.unwrap()),
                        bits(plain.unwrap()),
                        "{name} {shape:?}: {rows} rows of {dtype:?}"
                    );
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn any_bytes(count: usize) -> Vec<u8> {
    (0..count)
        .scan(1u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 24) as u8)
        })
        .collect()
}

/// Of any bytes, wherever they begin: what is no number may be another one.
#[cfg(target_arch = "x86_64")]
#[test]
fn numbers_made_in_registers_have_the_bits_of_those_of_plain_loops() {
    let bytes = any_bytes(1 << 16);
    let file = File::open(&fixture("types.gguf")).unwrap();
    for stored in file.entries().values().map(|entry| entry.stored) {
        for start in 0..3 {
            let bytes = &bytes[start..start + stored.bytes_of(1 << 12)];
            let (mut found, mut exact) = (vec![0f32; 1 << 12], vec![0f32; 1 << 12]);
            if !registers::write(bytes, stored, &mut found) {
                assert!(
                    !is_x86_feature_detected!("f16c") || matches!(stored, file::Stored::F32 | file::Stored::Mxfp4),
                    "{stored:?}"
                );
                continue;
            }
            blocks::write_plainly(bytes, stored, &mut exact);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            assert!(found.iter().zip(&exact).all(same), "{stored:?} from {start}");
        }
    }
}

/// A row times each unit vector is its numbers, in registers of either width.
#[cfg(target_arch = "x86_64")]
#[test]
fn numbers_that_are_multiplied_in_registers_are_those_of_plain_loops() {
    const COUNT: usize = 256;
    let bytes = any_bytes(1 << 14);
    // Of 256 numbers in f16, one of 32 is infinite or none: only exponents below 16.
    let small: Vec<u8> = bytes.iter().map(|byte| byte & 0xbf).collect();
    let file = File::open(&fixture("types.gguf")).unwrap();
    for (stored, lanes) in file
        .entries()
        .values()
        .flat_map(|entry| [8, 16].map(|lanes| (entry.stored, lanes)))
    {
        let exact = |start: usize| {
            let bytes = if stored == file::Stored::F16 { &small } else { &bytes };
            let bytes = &bytes[start..start + stored.bytes_of(COUNT)];
            let mut numbers = vec![0f32; COUNT];
            blocks::write_plainly(bytes, stored, &mut numbers);
            numbers
                .iter()
                .all(|number| number.is_finite())
                .then_some((bytes, numbers))
        };
        let (bytes, exact) = (0..1 << 10).find_map(exact).expect("finite numbers somewhere");
        for (at, &number) in exact.iter().enumerate() {
            let (mut x, mut found) = ([0f32; COUNT], [f32::NAN]);
            x[at] = 1.0;
            if !registers::multiply(&x, |_| bytes, stored, lanes, &mut found) {
                let is_elsewhere = matches!(stored, file::Stored::F32 | file::Stored::Mxfp4);
                assert!(is_elsewhere || !is_x86_feature_detected!("avx512f"), "{stored:?}");
                break;
            }
            assert_eq!(found, [number], "{stored:?} in {lanes} lanes, {at}");
        }
    }
}

#[test]
fn what_is_held_as_stored_does_not_learn_and_is_in_a_gguf_file() {
    let decoder = crate::Checkpoint::open(&fixture("stored.gguf"), &as_stored(DType::F32))
        .unwrap()
        .load()
        .unwrap();
    let learning = decoder.parameters().iter().map(|parameter| &parameter.tensor);
    let tape = crate::Tape::recording(Rc::new(crate::ops::Learning::of(learning)));
    let batch = crate::Batch::pack(&[[1u32, 7]]);
    let refusal = decoder.forward(&tape, &batch, &mut (), None).unwrap_err().to_string();
    assert!(refusal.contains("no gradient"), "{refusal}");
    let refusal = logits(&fixture("stored.gguf"), &as_stored(DType::F16))
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("not multiplied in F16"), "{refusal}");
    let directory = fixture("../models/llama");
    let refusal = crate::Checkpoint::open(&directory, &as_stored(DType::F32))
        .err()
        .unwrap()
        .to_string();
    assert!(refusal.contains("is no GGUF file"), "{refusal}");
}

/// The experts of one model, whose codes lie in another order in each format.
#[test]
fn experts_in_four_bits_are_those_of_a_directory() {
    let [own, theirs] = ["mxfp4.gguf", "../mxfp4"].map(|name| {
        let checkpoint = crate::Checkpoint::open(&fixture(name), &crate::Options::default()).unwrap();
        checkpoint.load().unwrap()
    });
    assert_eq!(own.config(), theirs.config());
    for (own, theirs) in own.parameters().iter().zip(theirs.parameters()) {
        let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(own.name, theirs.name);
        assert!(numbers(&own.tensor) == numbers(&theirs.tensor), "{}", own.name);
    }
    assert_eq!(own.parameters().len(), theirs.parameters().len());
}

#[test]
fn what_is_infinite_is_refused_as_stored_too() {
    let mut bytes = fs::read(fixture("stored.gguf")).unwrap();
    let at = File::open(&fixture("stored.gguf")).unwrap().entries()["blk.1.ffn_down.weight"]
        .bytes
        .start;
    bytes[at + 18..at + 20].copy_from_slice(&0x7c00u16.to_le_bytes()); // the scale of the second block
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    for options in [crate::Options::default(), as_stored(DType::F32)] {
        let refusal = logits(&path, &options).unwrap_err().to_string();
        assert!(
            refusal.contains("mlp.down_proj.weight: holds") && refusal.contains("at element"),
            "{refusal}"
        );
    }
}
