//! The real trained model of the shared data against its reference, made by transformers in f32.

use std::path::{Path, PathBuf};

use model::{Batch, Bos, Checkpoint, DType, KvCache, Options, Patch, Point, Site, Tape, Taps, Tensor};

fn stories() -> Option<PathBuf> {
    harness::data("models/stories260k")
}

fn checkpoint(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &Options::default()).unwrap()
}

/// The largest difference relative to the largest reference value of its row.
fn difference(ours: &Tensor, reference: &Tensor) -> f32 {
    let (ours, reference) = (ours.to_vec2::<f32>().unwrap(), reference.to_vec2::<f32>().unwrap());
    assert_eq!((ours.len(), ours[0].len()), (reference.len(), reference[0].len()));
    let rows = ours.iter().zip(&reference).map(|(ours, reference)| {
        let scale = reference.iter().fold(0f32, |most, x| most.max(x.abs()));
        ours.iter()
            .zip(reference)
            .fold(0f32, |most, (a, b)| most.max((a - b).abs() / scale))
    });
    rows.fold(0.0, f32::max)
}

struct Reference {
    ids: Vec<Vec<u32>>,
    residuals: Vec<Tensor>, // (layers + 1, rows, hidden)
    logits: Vec<Tensor>,    // (rows, vocab)
}

fn reference(path: &Path) -> Reference {
    let archive = candle_core::npy::NpzTensors::new(path.join("reference.npz")).unwrap();
    let get = |name: String| archive.get(&name).unwrap().unwrap();
    Reference {
        ids: (0..2)
            .map(|i| get(format!("ids_{i}")).to_dtype(DType::U32).unwrap().to_vec1().unwrap())
            .collect(),
        residuals: (0..2).map(|i| get(format!("resid_{i}"))).collect(),
        logits: (0..2).map(|i| get(format!("logits_{i}"))).collect(),
    }
}

#[test]
fn a_trained_llama_equals_transformers_at_every_layer_in_one_ragged_batch() {
    let Some(path) = stories() else { return };
    let decoder = checkpoint(&path).load().unwrap();
    let reference = reference(&path);
    let batch = Batch::pack(&reference.ids);
    let points = |layer: usize| Point::new(if layer == 0 { Site::Embed } else { Site::ResidPost }, layer.max(1) - 1);
    let mut taps = Taps::new((0..=5).map(points));
    let normed = decoder.forward(&Tape::off(), &batch, &mut taps, None).unwrap();
    let logits = decoder.logits(&Tape::off(), &normed).unwrap();
    for sequence in 0..2 {
        let rows = batch.rows(sequence);
        let of = |t: &Tensor| t.narrow(0, rows.start, rows.len()).unwrap();
        for layer in 0..=5 {
            let theirs = reference.residuals[sequence].get(layer).unwrap();
            let most = difference(&of(taps.get(points(layer)).unwrap()), &theirs);
            assert!(most <= 1e-5, "sequence {sequence}, {}: {most}", points(layer));
        }
        let most = difference(&of(&logits), &reference.logits[sequence]);
        assert!(most <= 1e-5, "sequence {sequence}, logits: {most}");
    }
}

#[test]
fn the_tokenizer_gives_the_reference_ids() {
    let Some(path) = stories() else { return };
    let tokenizer = checkpoint(&path).tokenizer().unwrap();
    let texts = [
        "Once upon a time, there was a little girl named Lily.",
        "Tom wanted to play with the big red ball, but his mom said no.",
    ];
    for (text, ids) in texts.iter().zip(reference(&path).ids) {
        assert_eq!(tokenizer.encode(text, Bos::Auto).unwrap(), ids);
        assert_eq!(tokenizer.encode(text, Bos::Off).unwrap(), ids[1..]);
        assert_eq!(tokenizer.decode(&ids, true).unwrap().trim(), *text);
    }
}

#[test]
fn decoding_step_by_step_from_a_cache_equals_one_pass() {
    let Some(path) = stories() else { return };
    let decoder = checkpoint(&path).load().unwrap();
    let ids = reference(&path).ids;
    let whole = decoder
        .forward(&Tape::off(), &Batch::pack(&ids), &mut (), None)
        .unwrap();
    let mut cache = KvCache::new();
    let starts: Vec<&[u32]> = ids.iter().map(|ids| &ids[..ids.len() - 5]).collect();
    decoder
        .forward(&Tape::off(), &Batch::pack(&starts), &mut (), Some(&mut cache))
        .unwrap();
    let mut last = None;
    for step in (1..=5).rev() {
        let tokens: Vec<_> = ids.iter().map(|ids| [ids[ids.len() - step]]).collect();
        last = Some(
            decoder
                .forward(&Tape::off(), &Batch::pack(&tokens), &mut (), Some(&mut cache))
                .unwrap(),
        );
    }
    assert_eq!(cache.lengths(), [16, 22]);
    let expected = Tensor::cat(&[whole.narrow(0, 15, 1).unwrap(), whole.narrow(0, 37, 1).unwrap()], 0).unwrap();
    assert!(difference(&last.unwrap(), &expected) < 1e-5);
}

#[test]
fn many_continuations_share_one_prefix_and_do_not_disturb_each_other() {
    let Some(path) = stories() else { return };
    let decoder = checkpoint(&path).load().unwrap();
    let ids = reference(&path).ids.remove(0);
    let (prefix, ends) = (&ids[..10], [[40u32, 50], [60, 70], [40, 50]]);
    let mut cache = KvCache::new();
    decoder
        .forward(&Tape::off(), &Batch::pack(&[prefix]), &mut (), Some(&mut cache))
        .unwrap();
    let mut forked = cache.select(&[0, 0, 0]);
    let ours = decoder
        .forward(&Tape::off(), &Batch::pack(&ends), &mut (), Some(&mut forked))
        .unwrap();
    let alone: Vec<_> = ends.iter().map(|end| [prefix, end].concat()).collect();
    let whole = decoder
        .forward(&Tape::off(), &Batch::pack(&alone), &mut (), None)
        .unwrap();
    for (index, rows) in [(0, 10), (2, 22), (4, 34)] {
        let theirs = whole.narrow(0, rows, 2).unwrap();
        assert!(difference(&ours.narrow(0, index, 2).unwrap(), &theirs) < 1e-5);
    }
    assert_eq!((cache.lengths(), forked.lengths()), (&[10][..], &[12, 12, 12][..]));
}

#[test]
fn a_patched_row_changes_its_sequence_and_no_other() {
    let Some(path) = stories() else { return };
    let decoder = checkpoint(&path).load().unwrap();
    let batch = Batch::pack(&reference(&path).ids);
    let point = Point::new(Site::ResidPost, 0);
    let mut clean = Taps::new([point]);
    let before = decoder.forward(&Tape::off(), &batch, &mut clean, None).unwrap();
    // the first sequence's last row is put in place of the second's: only rows that see it may change
    let values = clean.get(point).unwrap().narrow(0, 15, 1).unwrap();
    let mut patch = Patch {
        point,
        rows: vec![37],
        values: values.clone(),
    };
    let mut seen = Taps::new([point]);
    let after = decoder
        .forward(&Tape::off(), &batch, &mut (&mut patch, &mut seen), None)
        .unwrap();
    assert_eq!(
        difference(&seen.get(point).unwrap().narrow(0, 37, 1).unwrap(), &values),
        0.0
    );
    assert_eq!(
        difference(&before.narrow(0, 0, 37).unwrap(), &after.narrow(0, 0, 37).unwrap()),
        0.0
    );
    assert!(difference(&before.narrow(0, 37, 1).unwrap(), &after.narrow(0, 37, 1).unwrap()) > 1e-3);
}
