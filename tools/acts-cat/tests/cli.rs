//! acts-cat as a process.

use acts::{
    Codec, Dtype, File, Header, MomentsKey, MomentsParts, OpenOptions, Role, Shard, Site, State, TensorSpec,
    TokenClass, Writer,
};
use harness::{Done, Run, temp_dir};
use numerics::moments::{Moments, Precision};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

fn cat<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Done {
    Run::new(env!("CARGO_BIN_EXE_acts-cat")).args(args).output()
}

fn cat_in(directory: &Path, line: &str) -> Done {
    Run::new(env!("CARGO_BIN_EXE_acts-cat"))
        .args(line.split(' '))
        .current_dir(directory)
        .output()
}

/// Bytes that follow from `seed` and look random.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// `count` finite f32 that follow from `seed`.
fn values(count: usize, seed: u64) -> Vec<f32> {
    noise(count, seed)
        .into_iter()
        .map(|byte| (f32::from(byte) - 100.0) / 7.0)
        .collect()
}

fn npy(directory: &Path, name: &str, descr: &str, shape: &str, data: &[u8]) -> PathBuf {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let head = [
        b"\x93NUMPY\x01\x00".as_slice(),
        &(text.len() as u16).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat();
    let path = directory.join(name);
    std::fs::write(&path, [head.as_slice(), data].concat()).unwrap();
    path
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn open(path: impl AsRef<Path>) -> File {
    File::open(path.as_ref(), OpenOptions::default()).unwrap()
}

#[test]
fn an_array_goes_into_a_container_and_back_to_the_same_bytes() {
    let directory = temp_dir();
    for (descr, shape, bytes) in [
        ("<f4", "(1000, 32)", 4),
        ("<f8", "(1000, 32)", 8),
        ("<f2", "(32000,)", 2),
        ("<i8", "(500, 8, 4, 2)", 8),
        ("|u1", "(32000, 1)", 1),
        ("<u4", "(0, 7)", 0),
    ] {
        let data = noise(32_000 * bytes, 5);
        npy(directory.path(), "x.npy", descr, shape, &data);
        cat_in(directory.path(), "--from x.npy -o x.acts --force").expect(0);
        cat_in(directory.path(), "x.acts --to npy -o y.npy --force").expect(0);
        let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
        assert!(read("x.npy") == read("y.npy"), "{descr} {shape}");
        assert!(cat_in(directory.path(), "x.acts --to raw").expect(0).stdout == data);
    }
}

#[test]
fn an_array_comes_through_a_pipe_too() {
    let directory = temp_dir();
    let path = npy(directory.path(), "x.npy", "<f4", "(100, 8)", &noise(3200, 5));
    cat_in(directory.path(), "--from x.npy -o x.acts").expect(0);
    let run = |bytes: Vec<u8>| {
        Run::new(env!("CARGO_BIN_EXE_acts-cat"))
            .args(["--from", "-", "-o", "-"])
            .stdin(bytes)
            .output()
    };
    let piped = run(std::fs::read(path).unwrap()).expect(0);
    assert!(piped.stdout == std::fs::read(directory.path().join("x.acts")).unwrap());
    run(noise(1 << 20, 2)).refused(3, "neither an npy nor a safetensors file");
}

#[test]
fn codec_zstd_is_plain_zstd() {
    let Some(zstd) = harness::program("zstd") else { return };
    let directory = temp_dir();
    let data = noise(40_000 * 4, 5);
    npy(directory.path(), "x.npy", "<f4", "(1000, 40)", &data);
    for codec in ["zstd", "zstd-planes", "stored"] {
        cat_in(
            directory.path(),
            &format!("--from x.npy --codec {codec} -o x.acts --force"),
        )
        .expect(0);
        let path = directory.path().join("x.acts");
        for flag in ["-t", "-l", "-dc"] {
            let output = std::process::Command::new(&zstd)
                .arg(flag)
                .arg("-q")
                .arg(&path)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "zstd {flag}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            if (flag, codec) == ("-dc", "zstd") {
                assert!(output.stdout == data);
            }
        }
    }
}

#[test]
fn an_npy_of_rank_3_is_a_tensor_per_layer() {
    let directory = temp_dir();
    let data = values(3 * 10 * 4, 1);
    npy(directory.path(), "x.npy", "<f4", "(3, 10, 4)", &f32_bytes(&data));
    cat_in(directory.path(), "--from x.npy --name h -o x.acts").expect(0);
    let file = open(directory.path().join("x.acts"));
    let names: Vec<&str> = file.header().tensors.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["h.0", "h.1", "h.2"]);
    assert_eq!(file.to_vec::<f32>(1, 0..10).unwrap(), data[40..80]);
}

#[test]
fn safetensors_come_in_and_go_out() {
    let directory = temp_dir();
    let (a, b) = (noise(6 * 4 * 2, 3), noise(50, 4));
    let text = format!(
        "{{\"__metadata__\":{{\"x\":\"y\"}},\"b.y\":{{\"dtype\":\"U8\",\"shape\":[50],\"data_offsets\":[48,98]}},\"a\":{{\"dtype\":\"BF16\",\"shape\":[6,4],\"data_offsets\":[0,{}]}}}}",
        a.len()
    );
    let file = [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes(), &a, &b].concat();
    std::fs::write(directory.path().join("x.safetensors"), &file).unwrap();
    cat_in(directory.path(), "--from x.safetensors -o x.acts").expect(0);
    let read = open(directory.path().join("x.acts"));
    assert_eq!(read.to_bytes(read.tensor("a").unwrap(), 0..6).unwrap(), a);
    cat_in(directory.path(), "x.acts -o y.safetensors").expect(0);
    cat_in(directory.path(), "--from y.safetensors -o y.acts").expect(0);
    let again = open(directory.path().join("y.acts"));
    for name in ["a", "b.y"] {
        let digest = |file: &File| file.summary(file.tensor(name).unwrap()).unwrap().content_digest;
        assert_eq!(digest(&read), digest(&again));
    }
    std::fs::write(directory.path().join("cut.safetensors"), &file[..file.len() - 1]).unwrap();
    cat_in(directory.path(), "--from cut.safetensors -o z.acts").refused(3, "the file holds 97");
}

#[test]
fn a_vllm_dump_without_tokens_is_not_believed_about_its_layers() {
    let directory = temp_dir();
    for (shape, words) in [
        ("[0,1099511627776,4]", "layers"),
        ("[0,65534,4]", "layers"),
        ("[0,60000,1152921504606846976]", "2^64"),
        ("[0,1,4611686018427387903]", "2^64"),
    ] {
        let text = format!(
            "{{\"hidden_states\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,0]}},\"token_ids\":{{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[0,0]}}}}"
        );
        let file = [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes()].concat();
        std::fs::write(directory.path().join("x.safetensors"), file).unwrap();
        cat_in(directory.path(), "--from x.safetensors -o x.acts").refused(3, words);
    }
}

#[test]
fn vllm_dumps_become_one_container_with_row_tables() {
    let directory = temp_dir();
    let dumps = directory.path().join("dumps");
    std::fs::create_dir(&dumps).unwrap();
    let (layers, width) = (2usize, 3usize);
    let mut expected: Vec<Vec<f32>> = vec![Vec::new(); layers];
    for (request, tokens) in [("req-a", 4usize), ("req-b", 2)] {
        let states = values(tokens * layers * width, tokens as u64);
        for row in states.chunks(layers * width) {
            for layer in 0..layers {
                expected[layer].extend_from_slice(&row[layer * width..(layer + 1) * width]);
            }
        }
        let ids: Vec<u8> = (0..tokens as i64).flat_map(|token| (token + 7).to_le_bytes()).collect();
        let states = f32_bytes(&states);
        let (start, end) = (states.len(), states.len() + ids.len());
        let text = format!(
            "{{\"hidden_states\":{{\"dtype\":\"F32\",\"shape\":[{tokens},{layers},{width}],\"data_offsets\":[0,{start}]}},\"token_ids\":{{\"dtype\":\"I64\",\"shape\":[{tokens}],\"data_offsets\":[{start},{end}]}}}}"
        );
        let file = [
            (text.len() as u64).to_le_bytes().as_slice(),
            text.as_bytes(),
            &states,
            &ids,
        ]
        .concat();
        std::fs::write(dumps.join(format!("{request}.safetensors")), file).unwrap();
    }
    cat_in(directory.path(), "--from dumps -o x.acts --name hidden").expect(0);
    let file = open(directory.path().join("x.acts"));
    for (layer, expected) in expected.iter().enumerate() {
        assert_eq!(
            &file
                .to_vec::<f32>(file.tensor(&format!("hidden.{layer}")).unwrap(), 0..6)
                .unwrap(),
            expected
        );
    }
    let column = |name: &str| file.to_vec::<u32>(file.tensor(name).unwrap(), 0..6).unwrap();
    assert_eq!(column("sample_index"), [0, 0, 0, 0, 1, 1]);
    assert_eq!(column("position"), [0, 1, 2, 3, 0, 1]);
    assert_eq!(column("token_id"), [7, 8, 9, 10, 7, 8]);
    assert_eq!(file.header().meta["request_ids"], serde_json::json!(["req-a", "req-b"]));
    let rows = cat_in(directory.path(), "x.acts --tensor hidden.1 --rows 4:5")
        .expect(0)
        .records();
    assert_eq!((&rows[1]["sample_index"], &rows[1]["token_id"]), (&1.into(), &7.into()));
}

/// One run, whole or one shard of it: five samples of one token each, pushed as resid-dump does; moments at the end.
fn dump(shard: Option<Shard>) -> Vec<u8> {
    let mut header = Header::new("resid-dump", "1", "sha256:plan", shard);
    let width = 6usize;
    header.tensors = vec![
        TensorSpec::activations(Site::ResidPost, Some(0), Dtype::Bf16, width as u64),
        TensorSpec::activations(Site::ResidPost, Some(1), Dtype::F32, width as u64).codec(Codec::Stored),
        TensorSpec::row_table("sample_index"),
        TensorSpec::samples(),
    ];
    let key = MomentsKey {
        group: 0,
        site: Site::ResidPost,
        layer_index: Some(1),
        class: TokenClass::Rest,
    };
    header.tensors.extend(key.specs(width as u64));
    header.sample_count = Some(40);
    header.groups = vec!["all".into()];
    for spec in header.tensors.iter_mut().take(3) {
        spec.block_row_count = 7;
    }
    header.fix_blocks().unwrap();
    let owns = |bucket: u32| shard.is_none_or(|shard| bucket * shard.count / 64 == shard.index);
    let bucket = |sample: u32| (sample * 29 + 3) % 64;
    let rows = |sample: u32| values((sample as usize % 4 + 1) * width, u64::from(sample) + 9);
    let mut writer = Writer::new(Vec::new(), header, 2).unwrap();
    let mut row_start = 0;
    for sample in (0..40u32).filter(|sample| owns(bucket(*sample))) {
        let values = rows(sample);
        let count = values.len() / width;
        writer.push_f32(0, &values).unwrap();
        writer.push_f32(1, &values).unwrap();
        writer.push_exact::<u32>(2, &vec![sample; count]).unwrap();
        let line = format!(
            "{{\"type\":\"sample\",\"id\":\"#{sample}\",\"sample_index\":{sample},\"group\":\"all\",\"text_digest\":\"sha256:{:02x}\",\"token_count\":{count},\"row_start\":{row_start},\"row_count\":{count}}}\n",
            bucket(sample) << 2
        );
        writer.push(3, line.as_bytes()).unwrap();
        row_start += count;
    }
    // Moments per bucket on the fixed tree, as numerics promises.
    let mut tree = numerics::moments::BucketTree::new(width);
    for owned in (0..64u32).filter(|bucket| owns(*bucket)) {
        let all: Vec<f32> = (0..40u32)
            .filter(|sample| bucket(*sample) == owned)
            .flat_map(rows)
            .collect();
        let moments = Moments::of_rows(width, &all, Precision::Double).unwrap();
        tree.push(owned as u8, owned as u8 + 1, moments).unwrap();
    }
    let whole = tree.finish().unwrap();
    let parts = MomentsParts {
        count: whole.count() as i64,
        mean: whole.mean().to_vec(),
        m2: whole.m2().unwrap_or_default().to_vec(),
        norm_sum: whole.norm_sum(),
        unit_sum: whole.unit_sum().to_vec(),
    };
    parts.push(&mut writer, 4).unwrap();
    writer.finish().unwrap().0
}

fn shards(directory: &Path, count: u32) -> Vec<String> {
    (0..count)
        .map(|index| {
            let name = format!("shard-{index}-of-{count}.acts");
            std::fs::write(directory.join(&name), dump(Some(Shard { index, count }))).unwrap();
            name
        })
        .collect()
}

#[test]
fn any_power_of_two_of_shards_merges_to_the_bytes_of_one_run() {
    let directory = temp_dir();
    let whole = dump(None);
    for count in [1, 2, 4, 8, 64] {
        let mut names = shards(directory.path(), count);
        // The order in which a shell lists them is not the order of the shards.
        names.reverse();
        cat_in(
            directory.path(),
            &format!("--merge {} -o merged.acts --force --max-memory 1K", names.join(" ")),
        )
        .expect(0);
        assert!(
            std::fs::read(directory.path().join("merged.acts")).unwrap() == whole,
            "{count} shards"
        );
    }
}

#[test]
fn three_shards_merge_to_the_same_rows_and_nearly_the_same_moments() {
    let directory = temp_dir();
    std::fs::write(directory.path().join("whole.acts"), dump(None)).unwrap();
    let names = shards(directory.path(), 3);
    cat_in(directory.path(), &format!("--merge {} -o merged.acts", names.join(" "))).expect(0);
    let (merged, whole) = (
        open(directory.path().join("merged.acts")),
        open(directory.path().join("whole.acts")),
    );
    for tensor in 0..4 {
        assert_eq!(merged.summary(tensor).unwrap(), whole.summary(tensor).unwrap());
    }
    let (a, b) = (
        MomentsParts::read(&merged, 4).unwrap(),
        MomentsParts::read(&whole, 4).unwrap(),
    );
    assert_eq!(a.count, b.count);
    assert!(
        a.m2.iter()
            .zip(&b.m2)
            .all(|(a, b)| (a - b).abs() <= 1e-9 * b.abs().max(1.0))
    );
}

#[test]
fn a_merge_checks_coverage_overlap_and_configuration() {
    let directory = temp_dir();
    let names = shards(directory.path(), 4);
    let merge = |files: &str| cat_in(directory.path(), &format!("--merge {files} -o merged.acts"));
    merge(&format!("{} {} {}", names[0], names[1], names[3])).refused(3, "of 4 shards, 1 missing: 2");
    merge(&format!("{} {}", names.join(" "), names[2])).refused(3, "is shard 2 of 4");
    let other = shards(directory.path(), 2);
    merge(&format!("{} {}", names[0], other[1])).refused(3, "is one of 2 shards");
    std::fs::write(directory.path().join("whole.acts"), dump(None)).unwrap();
    merge(&format!("{} whole.acts", names[0])).refused(3, "is no shard");
    // The same shard under another plan.
    let mut header = File::from_bytes(dump(Some(Shard { index: 1, count: 2 })), OpenOptions::default())
        .unwrap()
        .header()
        .clone();
    header.plan_digest = Some("sha256:other".into());
    let (bytes, _) = Writer::new(Vec::new(), header, 1).unwrap().finish_partial().unwrap();
    std::fs::write(directory.path().join("other.acts"), bytes).unwrap();
    cat_in(
        directory.path(),
        &format!("--merge {} other.acts --allow-partial -o merged.acts", other[0]),
    )
    .refused(3, "plan_digest differs");
    assert!(!directory.path().join("merged.acts").exists());
}

#[test]
fn a_re_encoded_container_has_the_same_content() {
    let directory = temp_dir();
    std::fs::write(directory.path().join("x.acts"), dump(None)).unwrap();
    let source = open(directory.path().join("x.acts"));
    for codec in ["stored", "zstd", "zstd-planes"] {
        cat_in(
            directory.path(),
            &format!("x.acts --codec {codec} --level 5 -o y.acts --force"),
        )
        .expect(0);
        let file = open(directory.path().join("y.acts"));
        for tensor in 0..source.header().tensors.len() {
            assert_eq!(
                file.summary(tensor).unwrap().content_digest,
                source.summary(tensor).unwrap().content_digest
            );
            assert_eq!(file.spec(tensor).unwrap().codec.name(), codec);
        }
    }
    cat_in(
        directory.path(),
        "x.acts --store-dtype f16 -o h.acts --tensor resid_post.1",
    )
    .expect(0);
    let half = open(directory.path().join("h.acts"));
    assert_eq!(half.spec(0).unwrap().dtype, Dtype::F16);
    let (rounded, exact) = (
        half.to_vec::<f32>(0, 0..5).unwrap(),
        source.to_vec::<f32>(1, 0..5).unwrap(),
    );
    assert!(
        rounded
            .iter()
            .zip(&exact)
            .all(|(rounded, exact)| (rounded - exact).abs() <= exact.abs() / 1024.0)
    );
}

#[test]
fn the_same_arguments_give_the_same_bytes_for_any_number_of_threads() {
    let directory = temp_dir();
    npy(
        directory.path(),
        "x.npy",
        "<f4",
        "(3000, 64)",
        &f32_bytes(&values(3000 * 64, 3)),
    );
    cat_in(directory.path(), "--from x.npy -o a.acts --threads 1").expect(0);
    cat_in(directory.path(), "--from x.npy -o b.acts --threads 4").expect(0);
    let piped = cat_in(directory.path(), "--from x.npy -o -").expect(0);
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    assert!(read("a.acts") == read("b.acts") && read("a.acts") == piped.stdout);
}

#[test]
fn the_header_and_rows_are_records() {
    let directory = temp_dir();
    let path = directory.path().join("x.acts");
    std::fs::write(&path, dump(None)).unwrap();
    let rows = cat([&path]).expect(0).records();
    assert_eq!(
        (&rows[1]["type"], &rows[1]["tool"]),
        (&"header".into(), &"resid-dump".into())
    );
    assert_eq!(rows[2]["tensor"], "resid_post.0");
    let rows = cat_in(directory.path(), "x.acts --tensor resid_post.? --head 3")
        .expect(0)
        .records();
    assert_eq!(rows.len(), 2 + 6);
    assert_eq!(rows[1]["values"].as_array().unwrap().len(), 6);
    assert_eq!(rows[4]["tensor"], "resid_post.1");
    let samples = cat_in(directory.path(), "x.acts --tensor samples --to jsonl")
        .expect(0)
        .records();
    assert_eq!(
        (&samples[3]["type"], &samples[3]["sample_index"]),
        (&"sample".into(), &2.into())
    );
    cat_in(directory.path(), "x.acts --tensor nothing.*").refused(3, "no tensor is named nothing.*");
    cat_in(directory.path(), "x.acts --rows 5:99999").refused(3, "it has");
    cat_in(directory.path(), "x.acts --to npy").refused(2, "npy holds one tensor");
}

#[test]
fn a_container_on_stdin_is_read_like_a_file() {
    let run = |bytes: Vec<u8>, line: &str| {
        Run::new(env!("CARGO_BIN_EXE_acts-cat"))
            .args(line.split(' '))
            .stdin(bytes)
            .output()
    };
    let rows = run(dump(None), "- --tensor resid_post.1 --rows 2:4")
        .expect(0)
        .records();
    assert_eq!(rows.len(), 4);
    let mut bytes = dump(None);
    bytes.truncate(bytes.len() - 10);
    run(bytes, "-").refused(3, "stdin");
    run(noise(100_000, 1), "-").refused(3, "not an .acts file");
}

#[test]
fn what_is_not_finite_is_refused_in_records_and_kept_in_bytes() {
    let directory = temp_dir();
    let data = f32_bytes(&[1.0, f32::NAN, f32::INFINITY, -0.0]);
    npy(directory.path(), "x.npy", "<f4", "(4, 1)", &data);
    cat_in(directory.path(), "--from x.npy -o x.acts").expect(0);
    assert!(cat_in(directory.path(), "x.acts --to raw").expect(0).stdout == data);
    let refused = cat_in(directory.path(), "x.acts --to jsonl");
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    let header = cat_in(directory.path(), "x.acts").expect(0).records();
    assert_eq!(
        (&header[2]["nan_count"], &header[2]["inf_count"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn salvage_keeps_what_verifies_and_marks_it() {
    let directory = temp_dir();
    let whole = dump(None);
    let mut damaged = whole.clone();
    let descriptors: Vec<usize> = whole
        .windows(4)
        .enumerate()
        .filter(|(_, window)| window == &[0x51, 0x2a, 0x4d, 0x18])
        .map(|(at, _)| at)
        .collect();
    damaged[descriptors[4] + 50] ^= 1;
    damaged.truncate(damaged.len() - 100);
    std::fs::write(directory.path().join("x.acts"), &damaged).unwrap();
    cat_in(directory.path(), "x.acts").refused(3, "no end mark");
    let rows = cat_in(directory.path(), "--salvage x.acts -o y.acts")
        .expect(0)
        .records();
    assert!(rows.iter().any(|row| row["type"] == "missing"), "{rows:?}");
    cat_in(directory.path(), "y.acts").refused(3, "salvaged");
    let rows = cat_in(directory.path(), "y.acts --allow-partial").expect(0).records();
    assert_eq!(
        (&rows[1]["state"], &rows[1]["salvaged"]),
        (&State::Salvaged.name().into(), &true.into())
    );
    let original = File::from_bytes(whole, OpenOptions::default()).unwrap();
    let rescued = File::open(
        &directory.path().join("y.acts"),
        OpenOptions {
            allow_partial: true,
            ..OpenOptions::default()
        },
    )
    .unwrap();
    let missing = &rescued.header().meta["salvage"]["missing"][0];
    let tensor = rescued.tensor(missing["tensor"].as_str().unwrap()).unwrap();
    let lost = missing["row_start"].as_u64().unwrap();
    assert!(matches!(
        rescued.to_bytes(tensor, lost..lost + 1),
        Err(acts::Error::RowMissing { .. })
    ));
    let (mut kept, mut gone) = (0, 0);
    for tensor in 0..rescued.header().tensors.len() {
        for row in 0..rescued.row_count(tensor) {
            match rescued.to_bytes(tensor, row..row + 1) {
                Ok(bytes) => {
                    assert_eq!(bytes, original.to_bytes(tensor, row..row + 1).unwrap());
                    kept += 1;
                }
                Err(_) => gone += 1,
            }
        }
    }
    assert_eq!(gone, 7, "one block of seven rows was hit");
    assert!(kept > 100);
}

#[test]
fn a_parquet_table_carries_rows_and_their_tables() {
    use arrow_array::cast::AsArray;
    let directory = temp_dir();
    std::fs::write(directory.path().join("x.acts"), dump(None)).unwrap();
    cat_in(directory.path(), "x.acts --tensor resid_post.1 -o x.parquet").expect(0);
    let file = std::fs::File::open(directory.path().join("x.parquet")).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 1 << 20).unwrap();
    let batches: Vec<_> = reader.map(|batch| batch.unwrap()).collect();
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let source = open(directory.path().join("x.acts"));
    assert_eq!(rows as u64, source.row_count(1));
    let list = batches[0].column_by_name("values").unwrap().as_fixed_size_list();
    let values = list.values().as_primitive::<arrow_array::types::Float32Type>().values();
    assert_eq!(
        &values[..],
        source.to_vec::<f32>(1, 0..batches[0].num_rows() as u64).unwrap()
    );
    assert!(batches[0].column_by_name("sample_index").is_some());
}

#[test]
fn outputs_follow_the_house_rules() {
    let directory = temp_dir();
    npy(directory.path(), "x.npy", "<f4", "(10, 2)", &f32_bytes(&values(20, 3)));
    cat_in(directory.path(), "--from x.npy").refused(2, "a container needs a place");
    cat_in(directory.path(), "--from x.npy -o x.acts").expect(0);
    cat_in(directory.path(), "--from x.npy -o x.acts").refused(5, "exists");
    cat_in(directory.path(), "x.acts --codec stored -o x.acts --force").refused(2, "the output is also an input");
    cat_in(directory.path(), "x.acts --to npy --codec zstd -o y.npy").refused(2, "--to acts");
    cat_in(directory.path(), "x.acts y.acts --to raw").refused(2, "one container at a time");
    let full = |line: &str| {
        Run::new(env!("CARGO_BIN_EXE_acts-cat"))
            .args(line.split(' '))
            .current_dir(directory.path())
            .stdout_to("/dev/full")
    };
    for line in [
        "x.acts --to jsonl",
        "x.acts --to raw",
        "x.acts --to npy",
        "x.acts --to parquet",
        "x.acts",
        "--from x.npy -o -",
    ] {
        full(line).refused(4, "No space left");
    }
    npy(
        directory.path(),
        "long.npy",
        "<f4",
        "(200000, 2)",
        &f32_bytes(&values(400_000, 3)),
    );
    cat_in(directory.path(), "--from long.npy -o long.acts").expect(0);
    let closed = Run::new(env!("CARGO_BIN_EXE_acts-cat"))
        .args(["long.acts", "--to", "jsonl"])
        .current_dir(directory.path())
        .stdout_closed_after(1);
    assert_eq!((closed.code, closed.stderr.as_str()), (141, ""));
    let role = open(directory.path().join("x.acts")).spec(0).unwrap().role;
    assert_eq!(role, Role::Data);
}

#[test]
fn a_name_that_no_tensor_has_is_answered_with_those_that_there_are() {
    let directory = temp_dir();
    std::fs::write(directory.path().join("x.acts"), dump(None)).unwrap();
    let refused = cat_in(directory.path(), "x.acts --tensor token_ids");
    refused.refused(
        3,
        "no tensor is named token_ids (there are resid_post.*, sample_index, samples,",
    );
}

#[test]
fn row_tables_go_with_the_rows_into_safetensors() {
    let directory = temp_dir();
    std::fs::write(directory.path().join("x.acts"), dump(None)).unwrap();
    cat_in(directory.path(), "x.acts -o x.safetensors").expect(0);
    cat_in(directory.path(), "--from x.safetensors -o y.acts").expect(0);
    let (was, is) = (
        open(directory.path().join("x.acts")),
        open(directory.path().join("y.acts")),
    );
    let table = |file: &File| {
        let tensor = file.tensor("sample_index").unwrap();
        file.to_vec::<u32>(tensor, 0..file.row_count(tensor)).unwrap()
    };
    assert_eq!(table(&was), table(&is));
}
