//! Other people's readers take our containers: the zstd program, zeekstd's seekable reader, and the Python package.

mod common;

use acts::{Codec, Dtype, Header, TensorSpec, Writer};
use common::{noise, sample_container};
use std::io::{Cursor, Read};
use std::process::Command;

/// One tensor of `raw` bytes, in blocks of 10,000.
fn single(codec: Codec, raw: &[u8]) -> Vec<u8> {
    let mut header = Header::new("test", "0", "plan", None);
    header.tensors = vec![TensorSpec::new("x", Dtype::Bf16, &[4]).codec(codec)];
    header.tensors[0].block_row_count = 1250;
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    writer.push(0, raw).unwrap();
    writer.finish().unwrap().0
}

#[test]
fn a_seekable_reader_reads_the_rows_at_any_offset() {
    let raw = noise(64_000, 5);
    let bytes = single(Codec::Zstd, &raw);
    let mut decoder = zeekstd::Decoder::new(Cursor::new(&bytes)).expect("zeekstd reads the seek table");
    let mut all = Vec::new();
    decoder.read_to_end(&mut all).expect("zeekstd decodes every frame");
    assert!(all == raw);
    for offset in [0usize, 9_999, 10_000, 33_333, 63_990] {
        decoder.set_offset(offset as u64).expect("seeking");
        let mut some = [0; 10];
        decoder.read_exact(&mut some).expect("reading after a seek");
        assert_eq!(some, raw[offset..offset + 10]);
    }
}

#[test]
fn the_seekable_reader_takes_every_codec() {
    let raw = noise(64_000, 6);
    let mut planes: Vec<u8> = Vec::new();
    for block in raw.chunks(10_000) {
        planes.extend(block.iter().step_by(2));
        planes.extend(block.iter().skip(1).step_by(2));
    }
    for (codec, expected) in [(Codec::Stored, vec![]), (Codec::ZstdPlanes, planes)] {
        let bytes = single(codec, &raw);
        let mut decoder = zeekstd::Decoder::new(Cursor::new(&bytes)).expect("zeekstd reads the seek table");
        let mut all = Vec::new();
        decoder.read_to_end(&mut all).expect("zeekstd decodes every frame");
        assert!(all == expected, "{codec}");
    }
}

#[test]
fn zstd_tests_lists_and_decodes_a_container() {
    if harness::program("zstd").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.acts");
    let raw = noise(64_000, 7);
    for (bytes, expected) in [
        (single(Codec::Zstd, &raw), Some(&raw)),
        (sample_container(2).bytes, None),
    ] {
        std::fs::write(&path, bytes).unwrap();
        for flag in ["-t", "-l", "-dc"] {
            let output = Command::new("zstd").args(["-q", flag]).arg(&path).output().unwrap();
            assert!(
                output.status.success(),
                "zstd {flag}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            if flag == "-dc" {
                assert!(expected.is_none_or(|raw| *raw == output.stdout));
            }
        }
    }
}

#[test]
fn the_python_package_reads_every_dtype_and_codec() {
    let python = std::env::var("FLOWLENS_PYTHON").unwrap_or_else(|_| "python3".into());
    if !Command::new(&python)
        .args(["-c", "import blake3, numpy, zstandard"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return harness::skip(
            "numpy",
            format!("{python} has no blake3, numpy and zstandard (FLOWLENS_PYTHON names another)"),
        );
    }
    let scripts = format!("{}/../../scripts/python", env!("CARGO_MANIFEST_DIR"));
    let container = sample_container(2);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.acts");
    std::fs::write(&path, &container.bytes).unwrap();
    // It prints name and digest of each tensor's raw bytes; sha256 is what Python has at hand.
    let program = "
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import flowlens
container = flowlens.read(sys.argv[2])
for name in container:
    raw = container.raw(name)
    assert container.raw(name, 17, 170).tobytes() == raw[17:170].tobytes(), name
    print(name, hashlib.sha256(raw.tobytes()).hexdigest())
";
    let output = Command::new(&python)
        .args(["-c", program, &scripts])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let file = acts::File::from_bytes(container.bytes, acts::OpenOptions::default()).unwrap();
    assert_eq!(printed.lines().count(), container.raw.len());
    for (line, raw) in printed.lines().zip(&container.raw) {
        let (name, digest) = line.split_once(' ').unwrap();
        use sha2::Digest;
        let expected: [u8; 32] = sha2::Sha256::digest(raw).into();
        assert_eq!(digest, acts::hex(&expected), "{name}");
        assert!(file.tensor(name).is_ok());
    }
}
