//! Rows T, M, W and R of the fault matrix that concern containers. Each test is named after its row.

mod acts_craft;

use acts::{Codec, Depth, Dtype, Error, File, Header, OpenOptions, Stream, TensorSpec, Writer};
use acts_craft::{Craft, u8_header, zstd_frame};
use harness::{Done, Run, temp_dir, tool, workspace};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn bytes_of(seed: u64, count: usize) -> Vec<u8> {
    let mut out = vec![0; count];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Text-like bytes, so that zstd has something to do.
fn soft_bytes(seed: u64, count: usize) -> Vec<u8> {
    bytes_of(seed, count).into_iter().map(|byte| byte % 5).collect()
}

/// A container of about 6 KiB with all codecs and several blocks of each.
fn fixture() -> Vec<u8> {
    let mut header = Header::new("fixture", "1", "sha256:fixture", None);
    header.tensors = vec![
        TensorSpec::new("planes", Dtype::Bf16, &[4]),
        TensorSpec::new("zstd", Dtype::U32, &[]).codec(Codec::Zstd),
        TensorSpec::new("stored", Dtype::U8, &[]).codec(Codec::Stored),
    ];
    for (spec, rows) in header.tensors.iter_mut().zip([20, 40, 500]) {
        spec.block_row_count = rows;
    }
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    for turn in 0..3 {
        let values: Vec<f32> = soft_bytes(turn, 80).into_iter().map(f32::from).collect();
        writer.push_f32(0, &values).unwrap();
        let numbers: Vec<u32> = soft_bytes(turn + 9, 40).into_iter().map(u32::from).collect();
        writer.push_exact(1, &numbers).unwrap();
    }
    writer.push(2, &bytes_of(3, 300)).unwrap();
    writer.finish().unwrap().0
}

/// Reads everything that a file offers: opens, verifies in full.
fn read_file(bytes: &[u8]) -> Result<(), Error> {
    let file = File::from_bytes(bytes.to_vec(), OpenOptions::default())?;
    let mut first = None;
    file.verify(Depth::Full, |damage| first = first.take().or(Some(damage.error)))?;
    first.map_or(Ok(()), Err)
}

/// Reads a pipe to its end; gives the blocks that were handed out before the verdict.
fn read_stream(source: impl Read) -> (Vec<acts::Block>, Result<(), Error>) {
    let mut blocks = Vec::new();
    let mut stream = match Stream::new(source, false) {
        Ok(stream) => stream,
        Err(error) => return (blocks, Err(error)),
    };
    loop {
        match stream.next_block() {
            Ok(Some(block)) => blocks.push(block),
            Ok(None) => return (blocks, Ok(())),
            Err(error) => return (blocks, Err(error)),
        }
    }
}

#[track_caller]
fn refused_by_both(bytes: &[u8], what: &str) {
    let file = read_file(bytes);
    assert!(
        file.as_ref().is_err_and(|error| !error.is_environment()),
        "file: {what}: {file:?}"
    );
    let (_, stream) = read_stream(bytes);
    assert!(
        stream.as_ref().is_err_and(|error| !error.is_environment()),
        "stream: {what}: {stream:?}"
    );
}

fn descriptors(bytes: &[u8]) -> Vec<usize> {
    let magic = [0x51, 0x2a, 0x4d, 0x18];
    bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == magic)
        .map(|(at, _)| at)
        .collect()
}

fn manifest_at(bytes: &[u8]) -> usize {
    bytes
        .windows(16)
        .rposition(|window| window[..4] == [0x53, 0x2a, 0x4d, 0x18] && &window[8..] == b"actsend\n")
        .unwrap()
}

#[test]
fn the_craft_makes_sound_containers() {
    let raw = soft_bytes(1, 1000);
    let bytes = Craft::new(&raw, 300).build();
    read_file(&bytes).unwrap();
    let (blocks, accepted) = read_stream(bytes.as_slice());
    accepted.unwrap();
    assert_eq!(
        blocks.iter().flat_map(|block| block.raw.clone()).collect::<Vec<_>>(),
        raw
    );
}

#[test]
fn t_01_truncated_at_every_byte() {
    let whole = fixture();
    let (all, accepted) = read_stream(whole.as_slice());
    accepted.unwrap();
    for length in 0..whole.len() {
        let cut = &whole[..length];
        assert!(read_file(cut).is_err(), "file of {length} bytes");
        let (blocks, result) = read_stream(cut);
        assert!(
            result.is_err_and(|error| !error.is_environment()),
            "stream of {length} bytes"
        );
        for (block, original) in blocks.iter().zip(&all) {
            assert!(
                block.raw == original.raw,
                "a block of the prefix is the block that was written"
            );
        }
    }
}

#[test]
fn t_02_cut_at_every_block_boundary_with_and_without_the_trailer_glued_back() {
    let whole = fixture();
    let manifest = manifest_at(&whole);
    let boundaries: Vec<usize> = descriptors(&whole).into_iter().chain([manifest]).collect();
    for (index, cut) in boundaries.iter().enumerate() {
        refused_by_both(&whole[..*cut], "cut at a block boundary");
        if *cut < manifest {
            refused_by_both(
                &[&whole[..*cut], &whole[manifest..]].concat(),
                "cut, trailer glued back",
            );
            let next = boundaries[index + 1];
            refused_by_both(&[&whole[..*cut], &whole[next..]].concat(), "one block left out");
        }
    }
}

#[test]
fn t_03_trailing_garbage() {
    let whole = fixture();
    for garbage in [
        vec![0],
        bytes_of(1, 1),
        bytes_of(2, 1 << 20),
        vec![0; 4096],
        b"\x50\x2a\x4d\x18\0\0\0\0".to_vec(),
    ] {
        refused_by_both(&[whole.as_slice(), &garbage].concat(), "trailing bytes");
        refused_by_both(&[garbage.as_slice(), &whole].concat(), "leading bytes");
    }
}

#[test]
fn t_04_two_containers_concatenated() {
    let (one, other) = (fixture(), Craft::new(&soft_bytes(1, 100), 50).build());
    for second in [&one, &other] {
        let both = [one.as_slice(), second].concat();
        assert!(matches!(read_file(&both), Err(Error::Concatenated { .. })));
        let (_, result) = read_stream(both.as_slice());
        let Err(error) = result else { panic!("accepted") };
        assert!(
            matches!(error, Error::Concatenated { .. }) && error.to_string().contains("one by one"),
            "{error}"
        );
    }
}

#[test]
fn t_05_every_bit_flipped() {
    let whole = fixture();
    let mut bytes = whole.clone();
    for at in 0..whole.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(read_file(&bytes).is_err(), "file: bit {bit} of byte {at}");
            assert!(
                read_stream(bytes.as_slice()).1.is_err(),
                "stream: bit {bit} of byte {at}"
            );
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn t_06_random_flips_zeroed_and_repeated_pages() {
    let mut header = Header::new("fixture", "1", "sha256:fixture", None);
    header.tensors = vec![
        TensorSpec::new("x", Dtype::Bf16, &[64]),
        TensorSpec::new("y", Dtype::U8, &[]).codec(Codec::Stored),
    ];
    header.tensors[0].block_row_count = 512;
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 2).unwrap();
    writer.push(0, &bytes_of(1, 2 << 20)).unwrap();
    writer.push(1, &bytes_of(2, 1 << 20)).unwrap();
    let (whole, _) = writer.finish().unwrap();
    let pages = whole.len() / 4096;
    for case in 0..40u64 {
        let random = bytes_of(case, 32);
        let pick = |at: usize, below: usize| usize::from(u16::from_le_bytes([random[at], random[at + 1]])) * 31 % below;
        let mut bytes = whole.clone();
        let page = pick(0, pages) * 4096;
        match case % 3 {
            0 => (0..=pick(2, 8))
                .for_each(|flip| bytes[pick(4 + 2 * flip, pages) * 4096 + pick(2, 4096)] ^= 1 << (case % 8)),
            1 => bytes[page..page + 4096].fill(0),
            _ => {
                let from = pick(2, pages) * 4096;
                bytes.copy_within(from..from + 4096, page);
            }
        }
        if bytes != whole {
            assert!(read_file(&bytes).is_err(), "case {case}");
            assert!(read_stream(bytes.as_slice()).1.is_err(), "case {case}");
        }
    }
}

#[test]
fn t_07_swapped_duplicated_and_foreign_blocks_with_the_index_fixed_up() {
    let sound = Craft::new(&soft_bytes(1, 400), 100);
    let misplaced = |craft: Craft| {
        let bytes = craft.build();
        refused_by_both(&bytes, "misplaced block");
        let (_, result) = read_stream(bytes.as_slice());
        assert!(matches!(result, Err(Error::BlockMisplaced { .. })), "{result:?}");
    };
    misplaced(sound.clone().edited(|craft| craft.blocks.swap(1, 2)));
    misplaced(sound.clone().edited(|craft| craft.blocks[2] = craft.blocks[1].clone()));
    // Renumbered: now the rows tell.
    refused_by_both(
        &sound
            .clone()
            .edited(|craft| {
                craft.blocks[2] = acts_craft::Block {
                    number: 2,
                    ..craft.blocks[1].clone()
                }
            })
            .build(),
        "duplicate",
    );
    // A block of a sibling file: right number and rows, digest under the sibling's key.
    let mut sibling = Craft::new(&soft_bytes(2, 400), 100);
    sibling.key = [8; 32];
    sibling.json = sibling.json.replace("07", "08");
    let (own, foreign) = (sound.build(), sibling.build());
    let at = descriptors(&own);
    assert_eq!(at, descriptors(&foreign));
    let mixed = [&own[..at[1]], &foreign[at[1]..at[2]], &own[at[2]..]].concat();
    refused_by_both(&mixed, "foreign block");
}

#[test]
fn t_08_the_index_lies() {
    let sound = Craft::new(&soft_bytes(1, 400), 100);
    type Lie = (&'static str, fn(&mut Craft));
    let lies: Vec<Lie> = vec![
        ("2^32-1 blocks", |craft| craft.block_count = Some(u64::from(u32::MAX))),
        ("2^61 blocks", |craft| craft.block_count = Some(1 << 61)),
        ("2^32-1 tensors", |craft| craft.tensor_count = Some(u32::MAX)),
        ("2^32-1 frames", |craft| craft.seek_count = Some(u32::MAX)),
        ("0 frames", |craft| craft.seek_count = Some(0)),
        ("backward", |craft| craft.blocks[2].offset_claim = Some(0)),
        ("overlap", |craft| {
            craft.blocks[2].offset_claim = Some(craft.header().0.len() as u64 + 72)
        }),
        ("hole", |craft| {
            craft.blocks[1].offset_claim = Some(craft.header().0.len() as u64 + 200)
        }),
        ("beyond the end", |craft| craft.blocks[3].offset_claim = Some(u64::MAX)),
        ("manifest elsewhere", |craft| craft.manifest_offset = Some(10)),
        ("another manifest offset", |craft| {
            craft.manifest_offset = Some(u64::MAX)
        }),
        ("more rows than the blocks hold", |craft| craft.totals[0].rows += 1),
        ("more bytes", |craft| craft.totals[0].raw_bytes += 1),
        ("no such tensor", |craft| craft.blocks[0].tensor = 1),
        ("rows beyond", |craft| craft.blocks[3].first_row = u64::MAX - 50),
        ("rows out of step", |craft| craft.blocks[3].first_row = 350),
        ("a gap in the rows", |craft| craft.blocks[3].first_row = 400),
        ("no rows", |craft| craft.blocks[3].row_count = 0),
        ("seek sizes shifted", |seek| seek.seek_edit = |seek| seek[2].0 += 1),
        ("seek frame dropped", |seek| seek.seek_edit = |seek| _ = seek.remove(2)),
        ("seek content size", |seek| seek.seek_edit = |seek| seek[2].1 ^= 1),
        ("unknown state", |craft| craft.state = 9),
        ("salvaged, the header says not", |craft| craft.state = 3),
        ("partial", |craft| craft.state = 2),
        ("digest of a block", |craft| {
            craft.blocks[1].digest_claim = Some([1; 32])
        }),
    ];
    for (what, edit) in lies {
        let bytes = sound.clone().edited(edit).build();
        let start = Instant::now();
        refused_by_both(&bytes, what);
        assert!(start.elapsed() < Duration::from_millis(50), "{what}");
    }
}

/// Bytes that claim much more than they are.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let footer = |frames: u32| [&frames.to_le_bytes(), [0u8].as_slice(), &0x8F92_EAB1u32.to_le_bytes()].concat();
    let table = |frames: u32, length: u32| {
        [
            0x184D_2A5Eu32.to_le_bytes().as_slice(),
            &length.to_le_bytes(),
            &footer(frames),
        ]
        .concat()
    };
    let (header, _) = Craft::new(&[], 1).header();
    vec![
        ("seek table of 2^32-1 frames in 17 bytes", table(u32::MAX, 9)),
        ("n*8 wraps u32", [header.clone(), table(0x2000_0000, 9)].concat()),
        ("n*12 wraps u32", [header.clone(), table(0x1555_5556, 17)].concat()),
        (
            "largest count after a header",
            [header.clone(), table(u32::MAX, u32::MAX - 7)].concat(),
        ),
        ("empty seek table", [header, table(0, 9)].concat()),
    ]
}

#[test]
fn t_09_seek_table_bombs() {
    for (what, bytes) in bombs() {
        refused_by_both(&bytes, what);
    }
}

#[test]
fn t_10_header_lengths() {
    let sound = Craft::new(&soft_bytes(1, 100), 50).build();
    let file_bytes = sound.len() as u32;
    for length in [0u32, 1, file_bytes, file_bytes + 1, 1 << 31, u32::MAX, u32::MAX - 47] {
        for (frame, text) in [
            (length, length.wrapping_sub(48)),
            (length.wrapping_add(48), length),
            (length, u32::from_le_bytes(sound[20..24].try_into().unwrap())),
        ] {
            let mut bytes = sound.clone();
            bytes[4..8].copy_from_slice(&frame.to_le_bytes());
            bytes[20..24].copy_from_slice(&text.to_le_bytes());
            if bytes != sound {
                refused_by_both(&bytes, &format!("frame {frame}, text {text}"));
            }
        }
    }
}

#[test]
fn t_11_header_texts() {
    let sound = u8_header(50, "");
    let deep = |depth: usize| {
        u8_header(
            50,
            &format!(",\"meta\":{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)),
        )
    };
    let craft = || Craft::new(&soft_bytes(1, 100), 50);
    read_file(&craft().with_json(deep(10)).build()).unwrap();
    for (what, json) in [
        ("not JSON", "{".to_string()),
        ("an array", "[]".to_string()),
        ("empty", String::new()),
        ("BOM", format!("\u{feff}{sound}")),
        ("two values", format!("{sound}{sound}")),
        ("unknown field", u8_header(50, ",\"surprise\":1")),
        ("duplicate key", u8_header(50, ",\"tool\":\"again\"")),
        ("duplicate key in meta", u8_header(50, ",\"meta\":{\"a\":1,\"a\":2}")),
        ("nested 17 deep", deep(17)),
        ("nested 100,000 deep", deep(100_000)),
        (
            "2,000,000 values",
            u8_header(50, &format!(",\"meta\":{{\"a\":[{}0]}}", "0,".repeat(2_000_000))),
        ),
        ("file id", sound.replace("sha256:07", "sha256:0G")),
        (
            "tensor named twice",
            sound.replace(
                "\"tensors\":[",
                &format!("\"tensors\":[{},", tensor("x", "u8", "[]", 1)),
            ),
        ),
    ] {
        refused_by_both(&craft().with_json(json).build(), what);
    }
    let mut bytes = craft().build();
    let at = 24 + sound.find("craft").unwrap();
    bytes[at] = 0xff;
    let end = 24 + sound.len();
    let digest = *blake3::hash(&bytes[..end]).as_bytes();
    bytes[end..end + 32].copy_from_slice(&digest);
    refused_by_both(&bytes, "not UTF-8");
}

fn tensor(name: &str, dtype: &str, shape: &str, block_rows: u64) -> String {
    format!(
        "{{\"name\":\"{name}\",\"dtype\":\"{dtype}\",\"row_shape\":{shape},\"codec\":\"zstd\",\"level\":1,\"block_row_count\":{block_rows},\"role\":\"data\"}}"
    )
}

fn with_tensor(text: &str) -> Vec<u8> {
    let json = format!(
        "{{\"file_id\":\"sha256:{}\",\"tool\":\"craft\",\"tool_version\":\"0\",\"tensors\":[{text}]}}",
        "07".repeat(32)
    );
    Craft::new(&[], 1)
        .with_json(json)
        .edited(|craft| craft.totals[0].digest = *blake3::hash(b"").as_bytes())
        .build()
}

#[test]
fn t_12_shapes_that_overflow() {
    for (shape, is_valid) in [
        ("[]", true),
        ("[1]", true),
        ("[1,1,1,1,1,1,1]", true),
        ("[1,1,1,1,1,1,1,1]", false),
        ("[1,1,1,1,1,1,1,1,1]", false),
        ("[0]", false),
        ("[5,0]", false),
        ("[1099511627776]", false),
        ("[1099511627777]", false),
        ("[9223372036854775808,2]", false),
        ("[9223372036854775808]", false),
        ("[4294967296,4294967296]", false),
        ("[18446744073709551615,18446744073709551615]", false),
        ("[67108864]", true),
        ("[67108865]", false),
        ("[-1]", false),
        ("[1.5]", false),
    ] {
        let result = read_file(&with_tensor(&tensor("x", "u8", shape, 1)));
        assert_eq!(result.is_ok(), is_valid, "{shape}: {result:?}");
    }
}

#[test]
fn t_13_sizes_that_do_not_fit() {
    assert!(read_file(&with_tensor(&tensor("x", "u8", "[3]", 10))).is_ok());
    for text in [
        tensor("x", "u9", "[3]", 10),
        tensor("x", "u8", "[3]", 0),
        tensor("x", "u8", "[3]", 22_369_622),
        tensor("x", "f64", "[3]", u64::MAX),
        tensor("x", "u8", "[3]", 10).replace("\"level\":1", "\"level\":99"),
        tensor("x", "u8", "[3]", 10).replace("\"zstd\"", "\"lz4\""),
        tensor("x", "u8", "[3]", 10).replace("\"data\"", "\"other\""),
        tensor("x", "u8", "[3]", 10).replace("\"role\":\"data\"", "\"role\":\"data\",\"row_count\":99999999999999"),
        tensor("x", "u8", "[3]", 10).replace("\"role\":\"data\"", "\"role\":\"data\",\"row_count\":5"),
        tensor("x", "u8", "[3]", 10).replace("\"role\":\"data\"", "\"role\":\"data\",\"site\":\"resid_post\""),
    ] {
        assert!(read_file(&with_tensor(&text)).is_err(), "{text}");
    }
    // 3 rows of 1 byte that claim 4 bytes, and the other way round.
    for raw_bytes in [0, 2, 4, u32::MAX] {
        let craft = Craft::new(&soft_bytes(1, 3), 3).edited(|craft| craft.blocks[0].raw_bytes = raw_bytes);
        refused_by_both(&craft.build(), &format!("3 rows, {raw_bytes} bytes"));
    }
}

#[test]
fn t_14_bombs_are_bounded_by_the_block() {
    // An honest block of the largest size, 64 MiB of zeros in two kilobytes or so.
    let mut header = Header::new("fixture", "1", "sha256:fixture", None);
    header.tensors = vec![TensorSpec::new("x", Dtype::U8, &[]).codec(Codec::Zstd)];
    header.tensors[0].block_row_count = u64::from(acts::limits::BLOCK_RAW_BYTES);
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    writer.push(0, &vec![0; 64 << 20]).unwrap();
    let (bytes, _) = writer.finish().unwrap();
    assert!(bytes.len() < 20_000);
    read_file(&bytes).unwrap();
    // One byte more is refused before anything is decoded.
    let mut lie = Craft::new(&soft_bytes(1, 100), 100);
    lie.json = u8_header(u64::from(acts::limits::BLOCK_RAW_BYTES) + 1, "");
    refused_by_both(&lie.build(), "a block over the limit");
    let mut lie = Craft::new(&soft_bytes(1, 100), 100);
    lie.blocks[0].raw_bytes = acts::limits::BLOCK_RAW_BYTES + 1;
    lie.blocks[0].row_count = acts::limits::BLOCK_RAW_BYTES + 1;
    refused_by_both(&lie.build(), "more rows than a block has");
}

#[test]
fn t_15_frames_that_libzstd_would_take() {
    let raw = soft_bytes(1, 100);
    let payload = |payload: Vec<u8>| {
        let length = payload.len() as u32;
        Craft::new(&raw, 100).edited(|craft| {
            craft.blocks[0].payload = payload;
            craft.blocks[0].frames = vec![(length, 100)];
        })
    };
    let sound = zstd_frame(&raw);
    read_file(&payload(sound.clone()).build()).unwrap();
    let magic = acts_craft::ZSTD_MAGIC;
    let body = &sound[10..];
    let with_head = |head: &[u8]| [magic.as_slice(), head, body].concat();
    let window = |log: u8| with_head(&[&[0x84, (log - 10) << 3], 100u32.to_le_bytes().as_slice()].concat());
    read_file(&payload(window(24)).build()).unwrap();
    let empty_frame = zstd_frame(&[]);
    let mut flipped = sound.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    for (what, frame) in [
        ("window 2^25", window(25)),
        ("window 2^27", window(27)),
        ("window 2^41", window(41)),
        (
            "content 2^62 in an empty frame",
            [
                magic.as_slice(),
                &[0xC4, 7 << 3],
                &(1u64 << 62).to_le_bytes(),
                &[1, 0, 0],
                &acts_craft::checksum(&[]),
            ]
            .concat(),
        ),
        (
            "content 99",
            with_head(&[&[0x84, 7 << 3], 99u32.to_le_bytes().as_slice()].concat()),
        ),
        ("no content size", with_head(&[0x04, 7 << 3])),
        (
            "no checksum",
            [
                magic.as_slice(),
                &[0x80, 7 << 3],
                &100u32.to_le_bytes(),
                &body[..body.len() - 4],
            ]
            .concat(),
        ),
        (
            "dictionary",
            with_head(&[&[0x85, 7 << 3, 1], 100u32.to_le_bytes().as_slice()].concat()),
        ),
        (
            "reserved bit",
            with_head(&[&[0x8C, 7 << 3], 100u32.to_le_bytes().as_slice()].concat()),
        ),
        ("legacy magic", [&[0x22, 0xb5, 0x2f, 0xfd], &sound[4..]].concat()),
        ("wrong checksum", flipped),
        ("two frames", [sound.clone(), sound.clone()].concat()),
        ("an empty frame after it", [sound.clone(), empty_frame.clone()].concat()),
        ("an empty frame before it", [empty_frame, sound.clone()].concat()),
        (
            "skippable frames",
            [b"\x50\x2a\x4d\x18\0\0\0\0".repeat(1000), sound.clone()].concat(),
        ),
        ("nothing", vec![]),
    ] {
        let start = Instant::now();
        refused_by_both(&payload(frame).build(), what);
        assert!(start.elapsed() < Duration::from_secs(1), "{what}");
    }
    // A flood of skippable frames between blocks.
    let whole = Craft::new(&raw, 100).build();
    let at = descriptors(&whole)[0];
    let flood = [
        &whole[..at],
        &b"\x57\x2a\x4d\x18\0\0\0\0".repeat(1_000_000),
        &whole[at..],
    ]
    .concat();
    refused_by_both(&flood, "skippable flood");
}

fn check(path: impl AsRef<Path>) -> Done {
    Run::new(tool("acts-check"))
        .arg("--full")
        .arg(path.as_ref())
        .deadline(Duration::from_secs(10))
        .output()
}

#[test]
fn t_16_what_is_no_container_is_named() {
    let directory = temp_dir();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (path, words) in [
        (file("z", &zstd_frame(b"hello")), "plain zstd"),
        (
            file("gz", b"\x1f\x8b\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            "gzip",
        ),
        (file("st", b"\x10\0\0\0\0\0\0\0{\"__metadata__\":{}}"), "safetensors"),
        (
            file("npy", b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order'"),
            "npy",
        ),
        (file("npz", b"PK\x03\x04aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "zip"),
        (file("empty", b""), "an empty file"),
        (directory.path().to_path_buf(), "a directory"),
        (PathBuf::from("/dev/zero"), "zeros"),
        (PathBuf::from("/dev/urandom"), "not an .acts file"),
        (PathBuf::from("/dev/null"), "an empty file"),
        (file("one", b"P"), "truncated"),
    ] {
        check(&path).refused(3, words);
        Run::new(tool("acts-cat"))
            .arg(&path)
            .deadline(Duration::from_secs(10))
            .output()
            .refused(3, words);
    }
    check(directory.path().join("absent")).refused(4, "No such file");
}

#[test]
fn t_17_a_newer_version_is_refused_and_every_released_one_is_read() {
    let newer = Craft::new(&soft_bytes(1, 100), 50)
        .edited(|craft| craft.version = 2)
        .build();
    for result in [read_file(&newer), read_stream(newer.as_slice()).1] {
        assert!(
            matches!(result, Err(Error::UnsupportedVersion { found: 2, .. })),
            "{result:?}"
        );
    }
    // Version 1 as it was when it was frozen.
    let path = workspace().join("tests/fixtures/acts/version-1.acts");
    if std::env::var_os("UPDATE").is_some() && !path.exists() {
        std::fs::write(&path, fixture()).unwrap();
    }
    let frozen = std::fs::read(path).unwrap();
    read_file(&frozen).unwrap();
    let file = File::from_bytes(frozen, OpenOptions::default()).unwrap();
    let rows = file.to_vec::<f32>(0, 0..3).unwrap();
    assert_eq!(rows, soft_bytes(0, 12).into_iter().map(f32::from).collect::<Vec<_>>());
    assert_eq!(file.to_bytes(2, 0..300).unwrap(), bytes_of(3, 300));
}

#[test]
fn t_18_every_float_is_stored_bit_exactly() {
    let patterns: Vec<u32> = vec![
        0x7fc0_0000,
        0x7f80_0001,
        0xffff_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x8000_0000,
        1,
        0x8000_0001,
        0x007f_ffff,
        0x3f80_0000,
    ];
    for codec in Codec::ALL {
        let mut header = Header::new("fixture", "1", "sha256:fixture", None);
        header.tensors = vec![TensorSpec::new("x", Dtype::F32, &[]).codec(codec)];
        header.fix_blocks().unwrap();
        let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
        let values: Vec<f32> = patterns.iter().map(|bits| f32::from_bits(*bits)).collect();
        writer.push_f32(0, &values).unwrap();
        let (bytes, summary) = writer.finish().unwrap();
        assert_eq!(
            summary.tensors[0].non_finite,
            acts::NonFinite {
                nan_count: 3,
                inf_count: 2
            }
        );
        let file = File::from_bytes(bytes, OpenOptions::default()).unwrap();
        let found: Vec<u32> = file
            .to_vec::<f32>(0, 0..10)
            .unwrap()
            .into_iter()
            .map(f32::to_bits)
            .collect();
        assert_eq!(found, patterns);
    }
}

/// Gives what it has in pieces of the given sizes, interrupted now and then.
struct Drip<'a> {
    bytes: &'a [u8],
    sizes: Vec<usize>,
    turn: usize,
}

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(7) {
            return Err(std::io::Error::from(std::io::ErrorKind::Interrupted));
        }
        let size = self.sizes[self.turn % self.sizes.len()]
            .min(buffer.len())
            .min(self.bytes.len());
        let (head, tail) = self.bytes.split_at(size);
        buffer[..size].copy_from_slice(head);
        self.bytes = tail;
        Ok(size)
    }
}

#[test]
fn t_19_a_pipe_may_drip() {
    let whole = fixture();
    let (expected, _) = read_stream(whole.as_slice());
    for sizes in [
        vec![1],
        vec![2, 3],
        vec![1, 1000, 17],
        bytes_of(5, 64).into_iter().map(|byte| usize::from(byte) + 1).collect(),
    ] {
        let (blocks, result) = read_stream(Drip {
            bytes: &whole,
            sizes,
            turn: 0,
        });
        result.unwrap();
        assert!(
            blocks
                .iter()
                .zip(&expected)
                .all(|(found, expected)| found.raw == expected.raw)
        );
    }
}

#[test]
fn t_20_a_changed_byte_with_repaired_digests_is_still_found() {
    let raw = soft_bytes(1, 300);
    let sound = Craft::new(&raw, 100);
    let other = zstd_frame(&soft_bytes(9, 100));
    // The block's own digest repaired (the craft does it), the manifest's not.
    let original = descriptors(&sound.build())[1];
    let before = sound.build();
    let claimed: [u8; 32] = before[original + 40..original + 72].try_into().unwrap();
    let stale = sound.clone().edited(|craft| {
        craft.blocks[1].payload = other.clone();
        craft.blocks[1].digest_claim = Some(claimed);
    });
    refused_by_both(&stale.build(), "block digest repaired, manifest stale");
    // All of them repaired but the content digest: only decoding tells.
    let repaired = sound.clone().edited(|craft| craft.blocks[1].payload = other);
    refused_by_both(&repaired.build(), "content digest stale");
    // The count of NaN elements is checked as well.
    refused_by_both(
        &sound.edited(|craft| craft.totals[0].nan_count = 1).build(),
        "a NaN count that lies",
    );
}

#[test]
fn t_20_a_reader_of_all_rows_compares_what_it_read() {
    let place = temp_dir();
    let sound = Craft::new(&soft_bytes(1, 300), 100);
    let lies = [
        (
            "digest",
            sound.clone().edited(|craft| craft.totals[0].digest = [0; 32]),
            "content of x",
        ),
        (
            "nan",
            sound.clone().edited(|craft| craft.totals[0].nan_count = 1),
            "content of x",
        ),
        (
            "raw",
            sound.clone().edited(|craft| craft.totals[0].raw_bytes = 299),
            "299 raw bytes of x where its blocks hold 300",
        ),
    ];
    for (name, lie, words) in lies {
        let path = place.path().join(name);
        std::fs::write(&path, lie.build()).unwrap();
        for form in ["raw", "npy", "safetensors", "parquet", "acts"] {
            let copy = place.path().join(format!("{name}.{form}"));
            let run = Run::new(tool("acts-cat"))
                .args(["--to", form, "-o"])
                .arg(&copy)
                .arg(&path);
            run.output().refused(3, words);
            assert!(!copy.exists(), "{name} as {form}");
        }
        Run::new(tool("acts-check"))
            .arg("--full")
            .arg(&path)
            .output()
            .refused(3, words);
    }
}

#[test]
fn t_20_a_table_of_samples_that_holds_no_samples_is_found_by_a_full_check() {
    let place = temp_dir();
    let path = place.path().join("samples.acts");
    let mut craft = Craft::new(b"{\"id\":no JSON}\n", 100);
    craft.json = craft
        .json
        .replace("\"name\":\"x\"", "\"name\":\"samples\"")
        .replace("\"role\":\"data\"", "\"role\":\"samples\"");
    std::fs::write(&path, craft.build()).unwrap();
    Run::new(tool("acts-check"))
        .arg("--full")
        .arg(&path)
        .output()
        .refused(3, "samples");
}

/// The attacks that are kept as files, for other readers of the format and for the tools as processes.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let sound = Craft::new(&soft_bytes(1, 400), 100);
    let bombs = bombs();
    vec![
        ("seek-bomb.acts", bombs[0].1.clone()),
        ("seek-wrap-8.acts", bombs[1].1.clone()),
        ("seek-wrap-12.acts", bombs[2].1.clone()),
        ("cut-at-block.acts", {
            let whole = sound.build();
            whole[..descriptors(&whole)[2]].to_vec()
        }),
        (
            "swapped-blocks.acts",
            sound.clone().edited(|craft| craft.blocks.swap(1, 2)).build(),
        ),
        (
            "index-hole.acts",
            sound
                .clone()
                .edited(|craft| craft.blocks[1].offset_claim = Some(1 << 40))
                .build(),
        ),
        (
            "block-count.acts",
            sound.clone().edited(|craft| craft.block_count = Some(1 << 61)).build(),
        ),
        (
            "shape-overflow.acts",
            with_tensor(&tensor("x", "u8", "[9223372036854775808,2]", 1)),
        ),
        (
            "duplicate-key.acts",
            sound
                .clone()
                .with_json(u8_header(100, ",\"meta\":{\"a\":1,\"a\":2}"))
                .build(),
        ),
        (
            "path-name.acts",
            with_tensor(&tensor("../../etc/passwd", "u8", "[]", 1)),
        ),
        (
            "newline-name.acts",
            with_tensor(&tensor("a\\nacts-check: error: b", "u8", "[]", 1)),
        ),
        ("window.acts", {
            let mut frame = zstd_frame(&soft_bytes(1, 100));
            frame[5] = (41 - 10) << 3;
            Craft::new(&soft_bytes(1, 100), 100)
                .edited(|craft| craft.blocks[0].payload = frame)
                .build()
        }),
        (
            "content-digest.acts",
            sound.edited(|craft| craft.totals[0].digest = [0; 32]).build(),
        ),
    ]
}

#[test]
fn r_01_the_attacks_on_disk_are_refused_by_every_reader_in_bounded_memory() {
    let folder = workspace().join("tests/fixtures/attacks");
    for (name, bytes) in attacks() {
        let path = folder.join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(
            std::fs::read(&path).unwrap() == bytes,
            "{name} is out of step with the code that makes it (UPDATE=1 rewrites it)"
        );
        refused_by_both(&bytes, name);
        // The same under a limit on memory that leaves little beyond the program itself.
        for line in ["acts-check --full", "acts-check --full --no-map", "acts-cat --to raw"] {
            let (program, flags) = line.split_once(' ').unwrap();
            let limited = "ulimit -v 1000000; program=$1; shift; exec \"$program\" \"$@\"";
            let run = Run::new("bash")
                .args(["-c", limited, "sh"])
                .arg(tool(program))
                .args(flags.split(' '))
                .arg(&path);
            run.deadline(Duration::from_secs(10)).output().refused(3, name);
        }
        Run::new(tool("acts-check"))
            .arg("-")
            .stdin(bytes)
            .deadline(Duration::from_secs(10))
            .output()
            .refused(3, "stdin");
    }
    let described = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for (name, _) in attacks() {
        assert!(described.contains(name), "{name} is not described in attacks/README.md");
    }
}

/// A file of several megabytes, stored and compressed.
fn large(path: &Path) {
    let mut header = Header::new("fixture", "1", "sha256:fixture", None);
    header.tensors = vec![
        TensorSpec::new("stored", Dtype::F32, &[256]).codec(Codec::Stored),
        TensorSpec::new("planes", Dtype::F32, &[256]),
    ];
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    for tensor in 0..2 {
        writer.push(tensor, &bytes_of(tensor as u64, 4 << 20)).unwrap();
    }
    std::fs::write(path, writer.finish().unwrap().0).unwrap();
}

#[test]
fn m_01_a_mapped_file_truncated_underneath_is_an_error_of_the_environment() {
    let directory = temp_dir();
    let path = directory.path().join("x.acts");
    for map in [true, false] {
        for tensor in 0..2 {
            large(&path);
            let file = File::open(
                &path,
                OpenOptions {
                    map,
                    ..OpenOptions::default()
                },
            )
            .unwrap();
            std::fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(8192)
                .unwrap();
            let error = file.to_bytes(tensor, 0..4096).unwrap_err();
            assert!(error.is_environment(), "{error}");
            assert!(
                error.to_string().contains("truncated while it was being read"),
                "{error}"
            );
            assert!(file.verify(Depth::Full, |_| {}).is_err());
        }
    }
    // A sound file read afterwards in the same process is none the worse.
    large(&path);
    assert_eq!(
        File::open(&path, OpenOptions::default())
            .unwrap()
            .to_bytes(0, 0..4096)
            .unwrap(),
        bytes_of(0, 4 << 20)
    );
}

#[test]
fn m_02_a_file_rewritten_or_grown_underneath_is_a_checksum_mismatch() {
    use std::os::unix::fs::FileExt;
    let directory = temp_dir();
    let path = directory.path().join("x.acts");
    for map in [true, false] {
        large(&path);
        let file = File::open(
            &path,
            OpenOptions {
                map,
                ..OpenOptions::default()
            },
        )
        .unwrap();
        let writer = std::fs::File::options().write(true).open(&path).unwrap();
        let length = writer.metadata().unwrap().len();
        writer.write_all_at(&[0xAA; 4096], length).unwrap();
        assert_eq!(file.to_bytes(0, 0..100).unwrap(), bytes_of(0, 102_400));
        writer
            .write_all_at(&vec![0xAA; usize::try_from(length).unwrap() - 8192], 4096)
            .unwrap();
        assert!(matches!(
            file.to_bytes(0, 0..100),
            Err(Error::ChecksumMismatch { .. } | Error::Malformed { .. })
        ));
    }
}

#[test]
fn m_03_a_file_replaced_or_unlinked_is_read_on_from_the_old_inode() {
    let directory = temp_dir();
    let path = directory.path().join("x.acts");
    for map in [true, false] {
        large(&path);
        let file = File::open(
            &path,
            OpenOptions {
                map,
                ..OpenOptions::default()
            },
        )
        .unwrap();
        std::fs::write(directory.path().join("y"), b"other").unwrap();
        std::fs::rename(directory.path().join("y"), &path).unwrap();
        file.verify(Depth::Full, |damage| panic!("{:?}", damage.error)).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.verify(Depth::Full, |damage| panic!("{:?}", damage.error)).unwrap();
    }
}

#[test]
fn m_04_a_reader_beside_a_writer_that_commits_sees_the_old_or_the_new_file() {
    let directory = temp_dir();
    let path = directory.path().join("x.acts");
    let versions = [fixture(), Craft::new(&soft_bytes(1, 400), 100).build()];
    std::fs::write(&path, &versions[0]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for turn in 0..200 {
                let partial = directory.path().join("partial");
                std::fs::write(&partial, &versions[turn % 2]).unwrap();
                std::fs::rename(&partial, &path).unwrap();
            }
        });
        let mut opens = 0;
        while !writer.is_finished() || opens < 300 {
            let file = File::open(&path, OpenOptions::default()).unwrap();
            file.verify(Depth::Full, |damage| panic!("{:?}", damage.error)).unwrap();
            opens += 1;
        }
    });
}

#[test]
fn m_05_a_container_on_a_fifo_is_read_as_a_stream() {
    let directory = temp_dir();
    let (path, fifo) = (directory.path().join("x.acts"), directory.path().join("fifo"));
    std::fs::write(&path, fixture()).unwrap();
    let script = "mkfifo \"$2\" && { cat \"$1\" > \"$2\" & } && exec \"$3\" \"$2\"";
    for program in ["acts-check", "acts-cat"] {
        let _ = std::fs::remove_file(&fifo);
        let run = Run::new("bash")
            .args(["-c", script, "sh"])
            .args([&path, &fifo, &tool(program)]);
        run.deadline(Duration::from_secs(10)).output().expect(0);
    }
}

/// An array of `megabytes` as npy, to be converted.
fn array(directory: &Path, megabytes: usize) {
    let mut text = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 256), }}",
        megabytes * 1024
    );
    text.push_str(&" ".repeat(117 - text.len()));
    text.push('\n');
    let head = [
        b"\x93NUMPY\x01\0".as_slice(),
        &(text.len() as u16).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat();
    std::fs::write(directory.join("x.npy"), [head, bytes_of(1, megabytes << 20)].concat()).unwrap();
}

fn leftovers(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !matches!(name.as_str(), "x.npy" | "trace"))
        .collect()
}

#[test]
fn w_03_a_file_size_limit_leaves_nothing() {
    let directory = temp_dir();
    array(directory.path(), 1);
    for blocks in [0, 1, 4, 64, 500] {
        let script = format!("ulimit -f {blocks}; exec \"$1\" --from x.npy -o x.acts");
        let run = Run::new("bash")
            .args(["-c", &script, "sh"])
            .arg(tool("acts-cat"))
            .current_dir(directory.path());
        run.output().refused(4, "x.acts");
        assert_eq!(leftovers(directory.path()), Vec::<String>::new(), "{blocks} blocks");
    }
}

#[test]
fn r_04_without_threads_or_descriptors_the_bytes_are_the_same() {
    let directory = temp_dir();
    array(directory.path(), 2);
    let run = |script: &str| {
        let run = Run::new("bash")
            .args(["-c", script, "sh"])
            .arg(tool("acts-cat"))
            .current_dir(directory.path());
        run.output()
    };
    run("exec \"$1\" --from x.npy -o y.acts").expect(0);
    run("ulimit -n 16; exec \"$1\" --from x.npy -o z.acts --threads 8").expect(0);
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    assert!(read("y.acts") == read("z.acts"));
}
