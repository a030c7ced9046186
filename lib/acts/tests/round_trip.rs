//! What goes in comes out: every dtype and codec, by file, by pipe, in any slice, for any number of threads, and after a resume.

mod common;

use acts::{Codec, Dtype, File, Header, OpenOptions, Role, Site, State, Stream, TensorSpec, Writer};
use common::{Container, noise, sample_container};
use proptest::prelude::*;

#[test]
fn every_dtype_and_codec_reads_back_the_bytes_that_were_pushed() {
    for container in [sample_container(1), sample_container(3)] {
        let file = File::from_bytes(container.bytes.clone(), OpenOptions::default()).unwrap();
        for (tensor, raw) in container.raw.iter().enumerate() {
            let rows = file.row_count(tensor);
            assert_eq!(
                &file.to_bytes(tensor, 0..rows).unwrap(),
                raw,
                "{}",
                file.spec(tensor).unwrap().name
            );
            assert_eq!(
                blake3::hash(raw).as_bytes(),
                &file.summary(tensor).unwrap().content_digest
            );
        }
        assert_eq!(
            file.verify(acts::Depth::Full, |damage| panic!("{:?}", damage.error))
                .unwrap(),
            file.block_count()
        );
    }
}

#[test]
fn a_pipe_gives_the_same_rows_as_the_file() {
    let container = sample_container(2);
    let mut stream = Stream::new(container.bytes.as_slice(), false).unwrap();
    let mut raw: Vec<Vec<u8>> = container.raw.iter().map(|_| Vec::new()).collect();
    while let Some(block) = stream.next_block().unwrap() {
        raw[block.tensor].extend_from_slice(&block.raw);
    }
    assert_eq!(raw, container.raw);
    assert_eq!(stream.summary().unwrap().file_bytes, container.bytes.len() as u64);
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let one = sample_container(1).bytes;
    for threads in [0, 2, 5] {
        assert!(sample_container(threads).bytes == one, "{threads} threads");
    }
}

#[test]
fn the_bytes_do_not_depend_on_how_rows_are_grouped_into_pushes() {
    let raw = noise(4000 * 8, 1);
    let write = |rows_per_push: usize| {
        let mut header = Header::new("test", "0", "plan", None);
        header.tensors = vec![TensorSpec::new("a", Dtype::F32, &[2])];
        header.tensors[0].block_row_count = 300;
        let mut writer = Writer::new(Vec::new(), header, 2).unwrap();
        for rows in raw.chunks(rows_per_push * 8) {
            writer.push(0, rows).unwrap();
        }
        writer.finish().unwrap().0
    };
    let once = write(4000);
    for rows in [1, 7, 299, 300, 301] {
        assert_eq!(write(rows), once);
    }
}

#[test]
fn scattered_rows_come_in_the_order_asked() {
    let container = sample_container(2);
    let file = File::from_bytes(container.bytes.clone(), OpenOptions::default()).unwrap();
    let tensor = file.tensor("resid_post.0").unwrap();
    let width = 8;
    let rows = [299u64, 0, 17, 17, 130, 298];
    let mut out = vec![0f32; rows.len() * width];
    file.gather(tensor, &rows, &mut out).unwrap();
    for (row, values) in rows.iter().zip(out.chunks(width)) {
        assert_eq!(values, file.to_vec::<f32>(tensor, *row..row + 1).unwrap());
    }
}

#[test]
fn mapped_pread_and_memory_agree_and_stored_rows_are_the_files_own_pages() {
    let container = sample_container(2);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.acts");
    std::fs::write(&path, &container.bytes).unwrap();
    for map in [true, false] {
        let file = File::open(
            &path,
            OpenOptions {
                map,
                ..OpenOptions::default()
            },
        )
        .unwrap();
        for (tensor, raw) in container.raw.iter().enumerate() {
            let mut seen = Vec::new();
            file.for_each_block(tensor, 0..file.row_count(tensor), |_, bytes| {
                if map && file.spec(tensor)?.codec == Codec::Stored {
                    let data_alignment = bytes.as_ptr().addr() % 4096;
                    assert_eq!(data_alignment, 0, "a stored block begins at a page");
                }
                seen.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
            assert_eq!(&seen, raw);
        }
    }
}

#[test]
fn reading_outside_the_rows_or_into_a_narrower_type_is_refused() {
    let container = sample_container(1);
    let file = File::from_bytes(container.bytes, OpenOptions::default()).unwrap();
    let wide = file.tensor("wide").unwrap();
    let rows = file.row_count(wide);
    assert!(matches!(
        file.to_bytes(wide, 0..rows + 1),
        Err(acts::Error::RowsOutOfRange { .. })
    ));
    assert!(matches!(
        file.to_vec::<f32>(wide, 0..1),
        Err(acts::Error::DtypeMismatch { .. })
    ));
    assert!(matches!(
        file.gather::<f64>(wide, &[rows], &mut [0.0]),
        Err(acts::Error::RowsOutOfRange { .. })
    ));
    assert!(matches!(file.tensor("nothing"), Err(acts::Error::NoSuchTensor(_))));
}

#[test]
fn an_empty_container_and_a_tensor_without_rows_are_valid() {
    let header = Header::new("test", "0", "plan", None);
    let (bytes, _) = Writer::new(Vec::new(), header, 1).unwrap().finish().unwrap();
    assert_eq!(
        File::from_bytes(bytes, OpenOptions::default()).unwrap().block_count(),
        0
    );
    let mut header = Header::new("test", "0", "plan", None);
    header.tensors = vec![TensorSpec::new("a", Dtype::F16, &[3]).rows(0)];
    header.fix_blocks().unwrap();
    let (bytes, _) = Writer::new(Vec::new(), header, 1).unwrap().finish().unwrap();
    let file = File::from_bytes(bytes.clone(), OpenOptions::default()).unwrap();
    assert_eq!(file.to_vec::<f32>(0, 0..0).unwrap(), Vec::<f32>::new());
    assert!(
        Stream::new(bytes.as_slice(), false)
            .unwrap()
            .next_block()
            .unwrap()
            .is_none()
    );
}

#[test]
fn fewer_rows_than_declared_are_no_complete_container_but_a_partial_one() {
    let write = |partial: bool| {
        let mut header = Header::new("test", "0", "plan", None);
        header.tensors = vec![TensorSpec::new("a", Dtype::U8, &[]).rows(10)];
        header.fix_blocks().unwrap();
        let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
        writer.push(0, &[1, 2, 3]).unwrap();
        if partial {
            writer.finish_partial()
        } else {
            writer.finish()
        }
    };
    assert!(write(false).is_err());
    let (bytes, summary) = write(true).unwrap();
    assert_eq!(summary.state, State::Partial);
    let strict = File::from_bytes(bytes.clone(), OpenOptions::default());
    assert!(matches!(strict.err(), Some(acts::Error::Incomplete("partial"))));
    let file = File::from_bytes(
        bytes.clone(),
        OpenOptions {
            allow_partial: true,
            ..OpenOptions::default()
        },
    )
    .unwrap();
    assert_eq!(file.to_bytes(0, 0..3).unwrap(), [1, 2, 3]);
    let last = |allow_partial| {
        let mut stream = Stream::new(bytes.as_slice(), allow_partial).unwrap();
        stream.next_block().unwrap();
        stream.next_block()
    };
    assert!(last(false).is_err() && last(true).unwrap().is_none());
}

/// Two tensors of unequal rows per sample, pushed the way `resid-dump` does.
fn push_samples(writer: &mut Writer<Vec<u8>>, samples: std::ops::Range<u32>) {
    for sample in samples {
        writer.push_f32(0, &[sample as f32 + 0.25; 3 * 8]).unwrap();
        writer.push_f32(1, &[-(sample as f32); 3 * 8]).unwrap();
        writer.push_exact::<u32>(2, &[sample; 3]).unwrap();
        writer
            .push(3, format!("{{\"sample_index\":{sample}}}\n").as_bytes())
            .unwrap();
    }
}

fn dump_header() -> Header {
    let mut header = Header::new("test", "0", "plan", None);
    header.tensors = vec![
        TensorSpec::activations(Site::ResidPost, Some(0), Dtype::Bf16, 8),
        TensorSpec::activations(Site::ResidPost, Some(1), Dtype::F32, 8).codec(Codec::Stored),
        TensorSpec::row_table("sample_index"),
        TensorSpec::samples(),
    ];
    for (spec, rows) in header.tensors.iter_mut().zip([20, 7, 33, 100]) {
        spec.block_row_count = rows;
    }
    header
}

#[test]
fn a_run_cut_at_any_byte_and_resumed_ends_with_the_same_bytes() {
    let samples = 40u32;
    let mut writer = Writer::new(Vec::new(), dump_header(), 1).unwrap();
    push_samples(&mut writer, 0..samples);
    let (whole, _) = writer.finish().unwrap();
    // Every 97th cut, and every one near the ends.
    let cuts = (0..whole.len())
        .filter(|cut| cut % 97 == 0 || *cut < 50 || whole.len() - cut < 50)
        .chain([whole.len()]);
    for cut in cuts {
        let Some(recovered) = acts::recover(&whole[..cut], &dump_header()).unwrap() else {
            assert!(cut < 1500, "cut at {cut}: a whole header is enough to go on");
            continue;
        };
        assert_eq!(recovered.is_finished(), cut == whole.len());
        let durable = usize::try_from(recovered.durable_bytes()).unwrap();
        assert!(durable <= cut);
        // The newest sample all of whose rows are durable everywhere; every sample has 3 rows, and its record ends somewhere.
        let first = (0..3).map(|tensor| recovered.row_count(tensor) / 3).min().unwrap();
        let text = (0..first).map(|sample| format!("{{\"sample_index\":{sample}}}\n").len() as u64);
        let text_rows: Vec<u64> = std::iter::once(0)
            .chain(text.scan(0, |sum, bytes| {
                *sum += bytes;
                Some(*sum)
            }))
            .collect();
        let first = text_rows
            .iter()
            .rposition(|rows| *rows <= recovered.row_count(3))
            .unwrap();
        let mut writer = Writer::resume(whole[..durable].to_vec(), recovered, 2).unwrap();
        for tensor in 0..3 {
            writer.rewind(tensor, first as u64 * 3).unwrap();
        }
        writer.rewind(3, text_rows[first]).unwrap();
        push_samples(&mut writer, first as u32..samples);
        assert!(writer.finish().unwrap().0 == whole, "cut at {cut}");
    }
}

#[test]
fn a_partial_file_of_another_plan_is_not_resumed() {
    let mut writer = Writer::new(Vec::new(), dump_header(), 1).unwrap();
    push_samples(&mut writer, 0..20);
    writer.flush().unwrap();
    let (bytes, _) = writer.finish_partial().unwrap();
    let mut other = dump_header();
    other.model_digest = Some("blake3:00".into());
    match acts::recover(bytes.as_slice(), &other) {
        Err(acts::Error::HeaderDiffers(field)) => assert_eq!(field, "model_digest"),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn what_a_bit_flip_left_of_a_partial_file_is_recomputed() {
    let mut writer = Writer::new(Vec::new(), dump_header(), 1).unwrap();
    push_samples(&mut writer, 0..40);
    let (whole, _) = writer.finish().unwrap();
    let header_bytes = whole.len() - whole.len() / 2;
    for at in (header_bytes..whole.len()).step_by(61) {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        let recovered = acts::recover(damaged.as_slice(), &dump_header()).unwrap().unwrap();
        assert!(!recovered.is_finished());
        assert!(recovered.durable_bytes() <= at as u64);
    }
}

#[test]
fn salvage_gives_every_block_that_verifies_and_only_those() {
    let Container { mut bytes, raw, .. } = sample_container(1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.acts");
    let mut total = 0;
    for damage in [false, true] {
        if damage {
            let descriptor = bytes
                .windows(4)
                .position(|window| window == [0x51, 0x2a, 0x4d, 0x18])
                .unwrap();
            bytes[descriptor + 45] ^= 1;
            bytes.truncate(bytes.len() - 300);
        }
        std::fs::write(&path, &bytes).unwrap();
        let mut blocks = 0;
        let header = acts::salvage_header(&path).unwrap();
        acts::salvage(&path, true, |block| {
            let start = (block.first_row * header.tensors[block.tensor].row_bytes()?) as usize;
            assert_eq!(block.raw, raw[block.tensor][start..start + block.raw.len()]);
            blocks += 1;
            Ok(())
        })
        .unwrap();
        if damage {
            assert_eq!(blocks, total - 1, "one block was hit");
        }
        total = blocks;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_tensor_survives(
        dtype in 0..Dtype::ALL.len(), codec in 0..3usize, width in 1..9u64, rows in 0..400usize, block_rows in 1..90u64,
        threads in 0..4usize, seed in 0..1000u64, from in 0..400u64, count in 0..400u64,
    ) {
        let dtype = Dtype::ALL[dtype];
        let row_bytes = width as usize * dtype.bytes();
        let raw = noise(rows * row_bytes, seed);
        let mut header = Header::new("test", "0", "plan", None);
        header.tensors = vec![TensorSpec::new("x", dtype, &[width]).codec(Codec::ALL[codec]).role(Role::Data)];
        header.tensors[0].block_row_count = block_rows;
        let mut writer = Writer::new(Vec::new(), header, threads).unwrap();
        writer.push(0, &raw).unwrap();
        let (bytes, _) = writer.finish().unwrap();
        let file = File::from_bytes(bytes, OpenOptions::default()).unwrap();
        let start = from.min(rows as u64);
        let end = (start + count).min(rows as u64);
        let expected = &raw[start as usize * row_bytes..end as usize * row_bytes];
        prop_assert_eq!(file.to_bytes(0, start..end).unwrap(), expected);
    }
}
