//! flowlens-pca alone, as a process, on dumps made here.

use acts::{Dtype, Header, OpenOptions, Role, Shard, Site, TensorSpec, Writer};
use harness::{Done, Run, TempDir, temp_dir};
use numerics::moments::{BucketTree, Moments, Precision};
use numerics::rng::Rng;
use serde_json::Value;
use std::path::{Path, PathBuf};

const LAYERS: u32 = 4;
const WIDTH: usize = 12;

fn pca() -> Run {
    Run::new(env!("CARGO_BIN_EXE_flowlens-pca"))
}

/// A made-up dump: prompts of two groups whose centres part with depth, rows_each tokens per prompt.
#[derive(Clone)]
struct Dump {
    prompts: Vec<usize>,
    rows_each: usize,
    shift: f64,
    mark: &'static str,
    shard: Option<Shard>,
    width: usize,
    grouped: bool,
}

impl Dump {
    fn new(prompt_count: usize, rows_each: usize) -> Self {
        Self {
            prompts: (0..prompt_count).collect(),
            rows_each,
            shift: 0.0,
            mark: "",
            shard: None,
            width: WIDTH,
            grouped: true,
        }
    }

    fn group(prompt: usize) -> &'static str {
        if prompt.is_multiple_of(2) {
            "harmful"
        } else {
            "harmless"
        }
    }

    fn digest(prompt: usize, mark: &str) -> String {
        process::sha256(format!("prompt {prompt}{mark}").as_bytes())
    }

    fn row(&self, layer: u32, prompt: usize, token: usize) -> Vec<f32> {
        let rng = Rng::new(7 + u64::from(layer), "dump");
        let side = if prompt.is_multiple_of(2) { 1.0 } else { -1.0 };
        let unit = (prompt * 64 + token) as u64;
        (0..self.width)
            .map(|j| {
                let spread = 3.0 * 0.7_f64.powi(j as i32);
                let centre = if j == 1 { side * f64::from(layer) } else { 0.0 };
                let noise = spread * rng.normal(unit, j as u64);
                (10.0 + centre + noise + self.shift * rng.normal(unit, 1000 + j as u64)) as f32
            })
            .collect()
    }

    fn header(&self) -> Header {
        Header::new(
            "test",
            "1",
            &process::sha256(format!("{} {}", self.shift, self.mark).as_bytes()),
            self.shard,
        )
    }

    fn write(&self, path: &Path) -> PathBuf {
        let mut header = self.header();
        for layer in 0..LAYERS {
            header.tensors.push(TensorSpec::activations(
                Site::ResidPost,
                Some(layer),
                Dtype::F32,
                self.width as u64,
            ));
        }
        for table in ["token_id", "sample_index", "position"] {
            header.tensors.push(TensorSpec::row_table(table));
        }
        header.tensors.push(TensorSpec::samples());
        header.meta.insert("layer_count".into(), LAYERS.into());
        header.fix_blocks().unwrap();
        let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
        for (at, &prompt) in self.prompts.iter().enumerate() {
            for token in 0..self.rows_each {
                for layer in 0..LAYERS {
                    writer
                        .push_f32(layer as usize, &self.row(layer, prompt, token))
                        .unwrap();
                }
                let tables = [7, prompt as u32, token as u32];
                for (table, value) in tables.into_iter().enumerate() {
                    writer.push_exact::<u32>(LAYERS as usize + table, &[value]).unwrap();
                }
            }
            let sample = serde_json::json!({
                "type": "sample", "id": format!("p{prompt}"), "sample_index": prompt,
                "group": if self.grouped { Self::group(prompt) } else { "" },
                "text_digest": Self::digest(prompt, self.mark), "token_count": self.rows_each,
                "row_start": at * self.rows_each, "row_count": self.rows_each, "kind": Self::group(prompt),
            });
            writer
                .push(LAYERS as usize + 3, format!("{sample}\n").as_bytes())
                .unwrap();
        }
        let (bytes, _) = writer.finish().unwrap();
        std::fs::write(path, bytes).unwrap();
        path.to_path_buf()
    }

    /// The same rows as moments on the bucket tree, by group.
    fn write_moments(&self, path: &Path) -> PathBuf {
        let mut header = self.header();
        header.groups = vec!["harmful".into(), "harmless".into()];
        header.meta.insert("layer_count".into(), LAYERS.into());
        let mut tensors: Vec<(TensorSpec, Vec<f64>)> = Vec::new();
        for (g, group) in ["harmful", "harmless"].iter().enumerate() {
            for layer in 0..LAYERS {
                for class in ["bos", "rest"] {
                    let moments = self.moments(layer, group, class);
                    let base = format!("moments.{g}.resid_post.{layer}.{class}");
                    let mut push = |what: &str, shape: &[u64], dtype: Dtype, rows: Vec<f64>| {
                        let mut spec = TensorSpec::new(format!("{base}.{what}"), dtype, shape).role(Role::Moments);
                        spec.site = Some(Site::ResidPost);
                        spec.layer_index = Some(layer);
                        tensors.push((spec, rows));
                    };
                    let m2 = moments
                        .m2()
                        .map_or_else(|| vec![0.0; WIDTH * (WIDTH + 1) / 2], <[f64]>::to_vec);
                    push("count", &[], Dtype::I64, vec![moments.count() as f64]);
                    push("mean", &[WIDTH as u64], Dtype::F64, moments.mean().to_vec());
                    push("m2", &[], Dtype::F64, m2);
                    push("norm_sum", &[], Dtype::F64, vec![moments.norm_sum()]);
                    push("unit_sum", &[WIDTH as u64], Dtype::F64, moments.unit_sum().to_vec());
                }
            }
        }
        header.tensors = tensors.iter().map(|(spec, _)| spec.clone()).collect();
        header.fix_blocks().unwrap();
        let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
        for (index, (spec, rows)) in tensors.iter().enumerate() {
            if spec.dtype == Dtype::I64 {
                writer.push_exact::<i64>(index, &[rows[0] as i64]).unwrap();
            } else {
                writer.push_exact::<f64>(index, rows).unwrap();
            }
        }
        std::fs::write(path, writer.finish().unwrap().0).unwrap();
        path.to_path_buf()
    }

    fn moments(&self, layer: u32, group: &str, class: &str) -> Moments {
        let mut tree = BucketTree::new(WIDTH);
        for bucket in 0..64_u8 {
            let mut rows = Vec::new();
            for &prompt in &self.prompts {
                if records::bucket(&Self::digest(prompt, self.mark)) == Some(bucket) && Self::group(prompt) == group {
                    for token in (0..self.rows_each).filter(|token| (*token == 0) == (class == "bos")) {
                        rows.extend(self.row(layer, prompt, token));
                    }
                }
            }
            tree.push(
                bucket,
                bucket + 1,
                Moments::of_rows(WIDTH, &rows, Precision::Double).unwrap(),
            )
            .unwrap();
        }
        tree.finish().unwrap()
    }

    fn shard(&self, index: u32, count: u32) -> Self {
        let owns = |prompt: &usize| {
            let bucket = records::bucket(&Self::digest(*prompt, self.mark)).unwrap();
            u32::from(bucket) * count / 64 == index
        };
        Self {
            prompts: self.prompts.iter().copied().filter(owns).collect(),
            shard: Some(Shard { index, count }),
            ..self.clone()
        }
    }
}

fn rows<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|row| row["type"] == kind).collect()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} is not in {row}"))
}

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs().max(1.0),
        "{found} is not {expected}"
    );
}

fn run(args: &[&str], paths: &[&Path]) -> Done {
    pca().args(args).args(paths).output().expect(0)
}

#[test]
fn every_layer_group_and_the_stack_are_reported_in_order() {
    let dir = temp_dir();
    let dump = Dump::new(60, 1).write(&dir.path().join("a.acts"));
    let records = run(&["--group", "group"], &[&dump]).records();
    assert_eq!(records[0]["type"], "begin");
    assert_eq!(records.last().unwrap()["type"], "end");
    let layers = rows(&records, "layer");
    assert_eq!(layers.len(), 4 * 3);
    assert_eq!(
        (&layers[1]["group"], &layers[2]["group"]),
        (&"harmful".into(), &"harmless".into())
    );
    for layer in &layers {
        let c_k = &layer["c_k"];
        assert!(number(c_k, "1") <= number(c_k, "2") && number(c_k, "8") <= 1.0);
        // IsoScore is the participation ratio in another form.
        near(
            number(layer, "iso_score"),
            (number(layer, "participation_ratio") - 1.0) / (WIDTH as f64 - 1.0),
            1e-12,
        );
        for key in [
            "effective_rank",
            "stable_rank",
            "alpha_req",
            "matrix_entropy",
            "norm_mean",
            "dispersion",
            "anisotropy",
            "id_twonn",
            "id_mle",
        ] {
            assert!(number(layer, key).is_finite());
        }
    }
    let stacks = rows(&records, "stack");
    assert_eq!(stacks.len(), 3);
    assert_eq!(stacks[0]["row_count"], 240);
    let id = number(stacks[0], "id_twonn");
    assert_eq!(stacks[0]["component_id"], id.ceil() as u64);
    assert!(number(stacks[0], "norm_growth_b") > 0.5);
    // The groups part with depth.
    let contrasts = rows(&records, "contrast");
    assert_eq!(contrasts.len(), 4);
    assert!(number(contrasts[3], "fisher_ratio") > 2.0 * number(contrasts[0], "fisher_ratio"));
    assert!(number(contrasts[3], "silhouette") > number(contrasts[0], "silhouette"));
    assert!(number(contrasts[3], "separation") > 1.0);
    let trajectory = rows(&records, "trajectory")[0];
    assert_eq!(trajectory["depth"], serde_json::json!([0.25, 0.5, 0.75, 1.0]));
    assert_eq!(trajectory["center3"][0].as_array().unwrap().len(), 3);
    for at in 0..4 {
        let value = |key: &str| trajectory[key][at].as_f64().unwrap();
        assert!(value("low") <= value("projection") && value("projection") <= value("high"));
    }
}

#[test]
fn output_is_the_same_for_any_threads_shards_and_way_in() {
    let dir = temp_dir();
    let whole = Dump::new(80, 3);
    let path = whole.write(&dir.path().join("whole.acts"));
    let expected = run(&["--group", "group", "--resamples", "50"], &[&path]).stdout;
    for threads in ["1", "3"] {
        let found = run(
            &["--group", "group", "--resamples", "50", "--threads", threads],
            &[&path],
        )
        .stdout;
        assert!(found == expected, "{threads} threads");
    }
    let shards: Vec<PathBuf> = (0..4)
        .map(|index| whole.shard(index, 4).write(&dir.path().join(format!("{index}.acts"))))
        .collect();
    let order: Vec<&Path> = [2, 0, 3, 1].iter().map(|at: &usize| shards[*at].as_path()).collect();
    assert!(
        run(&["--group", "group", "--resamples", "50"], &order).stdout == expected,
        "four shards"
    );
    let piped = pca()
        .args(["--group", "group", "--resamples", "50", "-"])
        .stdin(std::fs::read(&path).unwrap());
    assert!(piped.output().expect(0).stdout == expected, "a pipe of container bytes");
    let records: String = (0..LAYERS)
        .map(|layer| {
            let record = serde_json::json!({
                "type": "tensor", "name": format!("resid_post.{layer}"), "site": "resid_post", "layer_index": layer,
                "path": path, "shape": [240, WIDTH], "dtype": "f32", "digest": "blake3:0", "norm_mean": 1.0,
                "abs_max": 1.0, "abs_max_dim": 0, "abs_max_sample_index": 0, "abs_max_position": 0,
            });
            format!("{record}\n")
        })
        .collect();
    let named = pca().args(["--group", "group", "--resamples", "50"]).stdin(records);
    assert!(named.output().expect(0).stdout == expected, "tensor records");
}

#[test]
fn moments_give_what_rows_give_and_shards_of_moments_give_the_same_bits() {
    let dir = temp_dir();
    let whole = Dump::new(80, 3);
    let by_rows = run(
        &["--group", "group", "--exact", "--measures", "moments"],
        &[&whole.write(&dir.path().join("rows.acts"))],
    )
    .records();
    let path = whole.write_moments(&dir.path().join("moments.acts"));
    let by_moments = run(&["--group", "group"], &[&path]);
    let records = by_moments.records();
    for kind in ["layer", "stack"] {
        for (a, b) in rows(&by_rows, kind).iter().zip(rows(&records, kind)) {
            assert_eq!(a["row_count"], b["row_count"]);
            for key in [
                "participation_ratio",
                "effective_rank",
                "alpha_req",
                "norm_mean",
                "anisotropy",
            ] {
                near(number(a, key), number(b, key), 1e-9);
            }
            assert!(b.get("id_twonn").is_none() && b.get("dispersion").is_none());
        }
    }
    for count in [2, 4, 64] {
        let shards: Vec<PathBuf> = (0..count)
            .map(|index| {
                whole
                    .shard(index, count)
                    .write_moments(&dir.path().join(format!("{count}-{index}.acts")))
            })
            .collect();
        let paths: Vec<&Path> = shards.iter().map(PathBuf::as_path).collect();
        assert!(
            run(&["--group", "group"], &paths).stdout == by_moments.stdout,
            "{count} shards"
        );
    }
    let dropped = run(&["--drop-bos"], &[&path]).records();
    assert_eq!(rows(&dropped, "layer")[0]["row_count"], 160);
    for (asked, words) in [
        (vec!["--layout", "concat"], "--layout concat needs rows"),
        (vec!["--measures", "all"], "--measures all needs rows"),
        (vec!["--prompts", "all"], "--prompts needs rows"),
        (vec!["--resamples", "10"], "--resamples needs rows"),
    ] {
        pca().args(asked).arg(&path).output().refused(3, words);
    }
    let shard = whole.shard(0, 2).write_moments(&dir.path().join("half.acts"));
    pca().arg(shard).output().refused(3, "1 of 2 shards");
}

#[test]
fn a_dump_compared_with_itself_is_aligned_and_does_not_differ() {
    let dir = temp_dir();
    let path = Dump::new(50, 1).write(&dir.path().join("a.acts"));
    let records = run(&["--resamples", "99", "--against", path.to_str().unwrap()], &[&path]).records();
    let compares = rows(&records, "compare");
    assert_eq!(compares.len(), 5 * 5);
    for row in compares {
        near(number(row, "alignment"), 1.0, 1e-12);
        near(number(row, "overlap"), 1.0, 1e-12);
        assert_eq!(row["paired"], true);
        assert_eq!(
            (
                number(row, "c_k_delta"),
                number(row, "c_k_delta_low"),
                number(row, "c_k_delta_high")
            ),
            (0.0, 0.0, 0.0)
        );
        assert_eq!(number(row, "p_value"), 1.0);
        assert!(
            row["angles"]
                .as_array()
                .unwrap()
                .iter()
                .all(|angle| angle.as_f64().unwrap() < 1e-6)
        );
        if row.get("layer_index").is_some() {
            near(number(row, "cka"), 1.0, 1e-12);
        } else {
            assert!(number(row, "procrustes") < 1e-6);
        }
    }
    let own: Vec<&Value> = rows(&records, "trajectory")
        .into_iter()
        .filter(|row| row["basis"] == "own")
        .collect();
    let reference: Vec<&Value> = rows(&records, "trajectory")
        .into_iter()
        .filter(|row| row["basis"] == "reference")
        .collect();
    assert_eq!(own.len(), reference.len());
    assert_eq!(own[0]["projection"], reference[0]["projection"]);
}

#[test]
fn a_flatter_spectrum_is_seen_with_an_interval_that_leaves_zero_out() {
    let dir = temp_dir();
    let base = Dump::new(100, 1);
    let a = Dump {
        shift: 2.0,
        ..base.clone()
    }
    .write(&dir.path().join("a.acts"));
    let b = base.write(&dir.path().join("b.acts"));
    let records = run(&["--resamples", "199", "--against", b.to_str().unwrap()], &[&a]).records();
    let stack = rows(&records, "compare")
        .into_iter()
        .find(|row| row.get("layer_index").is_none() && row["component"] == "2")
        .unwrap()
        .clone();
    assert!(
        number(&stack, "c_k_delta") < 0.0 && number(&stack, "c_k_delta_high") < 0.0,
        "{stack}"
    );
    assert!(number(&stack, "p_value") <= 0.01 + 1e-12 && stack["paired"] == true);
    // Other prompts on the other side: no pairs, still an interval.
    let other = Dump {
        prompts: (200..290).collect(),
        ..base
    }
    .write(&dir.path().join("c.acts"));
    let records = run(&["--resamples", "99", "--against", other.to_str().unwrap()], &[&a]).records();
    let row = rows(&records, "compare")[0];
    assert!(row["paired"] == false && row.get("c_k_delta_low").is_some() && row.get("cka").is_none());
}

#[test]
fn a_basis_is_saved_read_back_and_aligned_with_its_own_data() {
    let dir = temp_dir();
    let path = Dump::new(50, 1).write(&dir.path().join("a.acts"));
    let basis = dir.path().join("basis.acts");
    let fitted = run(&["--basis", basis.to_str().unwrap()], &[&path]).records();
    let file = acts::File::open(&basis, OpenOptions::default()).unwrap();
    let components = file.tensor("basis.components").unwrap();
    let v = file.to_vec::<f64>(components, 0..file.row_count(components)).unwrap();
    for row in v.chunks(WIDTH) {
        near(row.iter().map(|x| x * x).sum(), 1.0, 1e-12);
        let largest = row
            .iter()
            .fold(0.0_f64, |best, x| if x.abs() > best.abs() { *x } else { best });
        assert!(largest > 0.0);
    }
    let values = file
        .to_vec::<f64>(file.tensor("basis.eigenvalues").unwrap(), 0..1)
        .unwrap();
    assert_eq!(
        values[0],
        fitted.iter().find(|row| row["type"] == "stack").unwrap()["eigenvalues"][0]
            .as_f64()
            .unwrap()
    );
    let records = run(&["--against", basis.to_str().unwrap()], &[&path]).records();
    assert!(
        rows(&records, "compare")
            .iter()
            .all(|row| (number(row, "alignment") - 1.0).abs() < 1e-12)
    );
    let reference = rows(&records, "trajectory")
        .into_iter()
        .find(|row| row["basis"] == "reference")
        .unwrap()
        .clone();
    let own = rows(&fitted, "trajectory")[0].clone();
    assert_eq!(reference["projection"], own["projection"]);
    pca()
        .arg("--basis")
        .arg(&basis)
        .arg(&path)
        .output()
        .refused(5, "exists");
    pca()
        .arg("--basis")
        .arg(&path)
        .arg("--force")
        .arg(&path)
        .output()
        .refused(2, "the output is also an input");
    let narrow = Dump {
        width: 8,
        ..Dump::new(50, 1)
    }
    .write(&dir.path().join("narrow.acts"));
    pca()
        .arg("--against")
        .arg(&basis)
        .arg(&narrow)
        .output()
        .refused(3, "a basis of 12 dimensions, the input has 8");
}

#[test]
fn directions_point_from_the_second_group_to_the_first() {
    let dir = temp_dir();
    let path = Dump::new(200, 1).write(&dir.path().join("a.acts"));
    let out = dir.path().join("direction.acts");
    let args = [
        "--group",
        "kind",
        "--group-a",
        "harmful",
        "--group-b",
        "harmless",
        "--direction",
        out.to_str().unwrap(),
    ];
    let records = run(&args, &[&path]).records();
    let file = acts::File::open(&out, OpenOptions::default()).unwrap();
    let direction = file.to_vec::<f64>(file.tensor("direction.3").unwrap(), 0..1).unwrap();
    assert!(direction[1] > 0.9, "{direction:?}");
    near(direction.iter().map(|x| x * x).sum(), 1.0, 1e-12);
    let contrast = rows(&records, "contrast")[3].clone();
    near(
        number(&contrast, "projection_a") - number(&contrast, "projection_b"),
        number(&contrast, "centroid_distance"),
        1e-9,
    );
    pca()
        .args(["--group", "group", "--group-a", "harmful", "--group-b", "none"])
        .arg(&path)
        .output()
        .refused(3, "there is no group \"none\"");
}

#[test]
fn the_stability_experiment_pairs_two_forms_of_the_same_prompts() {
    let dir = temp_dir();
    let base = Dump::new(90, 1);
    let a = base.write(&dir.path().join("a.acts"));
    let b = Dump {
        shift: 0.1,
        mark: "?",
        ..base.clone()
    }
    .write(&dir.path().join("b.acts"));
    for layout in [&["--stability"][..], &["--layout", "stacked", "--stability"]] {
        let records = pca().args(layout).arg(&a).arg(&b).output().expect(0).records();
        let layers = rows(&records, "stability");
        assert_eq!(layers.len(), 4);
        for row in layers {
            assert!(number(row, "pc1_correlation") > 0.95, "{row}");
            assert!((number(row, "cosine_mean") - number(row, "cosine_mean_b")).abs() < 0.01);
        }
        let profile = rows(&records, "stability_profile")[0];
        assert_eq!(profile["prompt_count"], 90);
        assert!(number(profile, "correlation") > 0.95, "{profile}");
        assert!(
            number(profile, "correlation") > number(profile, "correlation_other"),
            "{profile}"
        );
        assert!(
            number(profile, "correlation") >= number(profile, "correlation_min"),
            "{profile}"
        );
    }
    let other = Dump {
        prompts: (1..91).collect(),
        ..base
    }
    .write(&dir.path().join("c.acts"));
    pca()
        .arg("--stability")
        .arg(&a)
        .arg(&other)
        .output()
        .refused(3, "does not hold the prompts of");
}

#[test]
fn concatenated_layers_have_one_spectrum_of_prompts() {
    let dir = temp_dir();
    let path = Dump::new(30, 1).write(&dir.path().join("a.acts"));
    let basis = dir.path().join("basis.acts");
    let records = run(
        &[
            "--layout",
            "concat",
            "--group",
            "group",
            "--basis",
            basis.to_str().unwrap(),
        ],
        &[&path],
    )
    .records();
    let stack = rows(&records, "stack")[0].clone();
    assert_eq!((&stack["layout"], &stack["row_count"]), (&"concat".into(), &30.into()));
    // Total variance is the sum over layers.
    let total = |row: &Value| row["eigenvalues"][0].as_f64().unwrap() / row["evr"][0].as_f64().unwrap();
    let sum: f64 = rows(&records, "layer")
        .iter()
        .filter(|row| row["group"] == "")
        .map(|row| total(row))
        .sum();
    near(total(&stack), sum, 1e-10);
    let file = acts::File::open(&basis, OpenOptions::default()).unwrap();
    let length: f64 = (0..LAYERS)
        .map(|layer| {
            let tensor = file.tensor(&format!("basis.{layer}.components")).unwrap();
            file.to_vec::<f64>(tensor, 0..1)
                .unwrap()
                .iter()
                .map(|x| x * x)
                .sum::<f64>()
        })
        .sum();
    near(length, 1.0, 1e-12);
}

#[test]
fn layers_dims_and_components_can_be_chosen() {
    let dir = temp_dir();
    let path = Dump::new(40, 1).write(&dir.path().join("a.acts"));
    let indices = |args: &[&str]| -> Vec<u64> {
        let records = run(args, &[&path]).records();
        rows(&records, "layer")
            .iter()
            .map(|row| row["layer_index"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(indices(&["--layers", "0,2-3"]), [0, 2, 3]);
    assert_eq!(indices(&["--layers", "0.5-0.75"]), [1, 2]);
    assert_eq!(indices(&["--layers", "-1"]), [3]);
    pca()
        .args(["--layers", "0.0-0.1"])
        .arg(&path)
        .output()
        .refused(2, "0.0-0.1 holds no layer of 4");
    pca()
        .args(["--layers", "9"])
        .arg(&path)
        .output()
        .refused(2, "there is no layer 9");
    let records = run(&["--drop-dims", "0,5", "--components", "2"], &[&path]).records();
    assert_eq!(records.last().unwrap()["dropped_dims"], serde_json::json!([0, 5]));
    let layer = rows(&records, "layer")[0];
    assert_eq!(layer["eigenvalues"].as_array().unwrap().len(), 2);
    assert!(layer.get("effective_rank").is_none() && layer["c_k"].get("3").is_none());
    pca()
        .args(["--drop-dims", "12"])
        .arg(&path)
        .output()
        .refused(3, "dimension 12 is beyond the width 12");
    pca()
        .args(["--components", "0"])
        .arg(&path)
        .output()
        .refused(2, "neither id nor a number");
}

#[test]
fn centring_each_layer_takes_the_layers_means_out_of_the_stack() {
    let dir = temp_dir();
    let path = Dump::new(40, 1).write(&dir.path().join("a.acts"));
    let basis = dir.path().join("basis.acts");
    let records = run(&["--center", "layer", "--basis", basis.to_str().unwrap()], &[&path]).records();
    let total = |row: &Value| row["eigenvalues"][0].as_f64().unwrap() / row["evr"][0].as_f64().unwrap();
    let layers: f64 = rows(&records, "layer").iter().map(|row| total(row)).sum();
    near(total(rows(&records, "stack")[0]), layers / 4.0, 1e-6);
    let file = acts::File::open(&basis, OpenOptions::default()).unwrap();
    assert!(file.tensor("basis.2.components").is_ok() && file.tensor("basis.components").is_ok());
}

#[test]
fn single_prompts_have_trajectories() {
    let dir = temp_dir();
    let path = Dump::new(20, 2).write(&dir.path().join("a.acts"));
    let records = run(&["--prompts", "p3,p7", "--resamples", "0"], &[&path]).records();
    let ids: Vec<&str> = rows(&records, "trajectory")
        .iter()
        .filter_map(|row| row["id"].as_str())
        .collect();
    assert!(ids.contains(&"p3") && ids.contains(&"p7"));
    pca()
        .args(["--prompts", "p99"])
        .arg(&path)
        .output()
        .refused(3, "there is no prompt \"p99\"");
}

/// A container of plain data, as acts-cat makes one from npy.
fn plain(dir: &TempDir, name: &str, width: usize, values: &[f32]) -> PathBuf {
    let mut header = Header::new("test", "1", &process::sha256(name.as_bytes()), None);
    let mut spec = TensorSpec::new("data", Dtype::F32, &[width as u64]);
    spec.block_row_count = 100;
    header.tensors.push(spec);
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    writer.push_f32(0, values).unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, writer.finish().unwrap().0).unwrap();
    path
}

#[test]
fn rows_that_are_not_finite_are_refused_or_dropped_and_counted() {
    let dir = temp_dir();
    let rng = Rng::new(1, "plain");
    let mut values: Vec<f32> = (0..90).map(|i| rng.normal(0, i) as f32).collect();
    let clean = plain(&dir, "clean.acts", 3, &[&values[..12], &values[15..]].concat());
    values[13] = f32::NAN;
    let path = plain(&dir, "bad.acts", 3, &values);
    pca().arg(&path).output().refused(3, "1 numbers are NaN or infinite");
    let dropped = run(&["--on-nonfinite", "drop"], &[&path]).records();
    assert_eq!(dropped.last().unwrap()["dropped_row_count"], 1);
    let expected = run(&[], &[&clean]).records();
    assert_eq!(
        rows(&dropped, "layer")[0]["eigenvalues"],
        rows(&expected, "layer")[0]["eigenvalues"]
    );
}

#[test]
fn rows_of_many_blocks_are_each_seen_once_whole_in_parts_or_with_some_left_out() {
    let dir = temp_dir();
    let (width, row_count) = (5, 3000); // read 1,100 at a time, worked off 1,024 at a time
    let rng = Rng::new(2, "plain");
    let values: Vec<f32> = (0..row_count * width)
        .map(|at| rng.normal(0, at as u64) as f32)
        .collect();
    let layer = |args: &[&str], paths: &[&Path]| rows(&run(args, paths).records(), "layer")[0].clone();
    let whole = layer(&[], &[&plain(&dir, "whole.acts", width, &values)]);
    let (first, second) = values.split_at(1700 * width);
    let parts = [
        plain(&dir, "a.acts", width, first),
        plain(&dir, "b.acts", width, second),
    ];
    assert_eq!(layer(&[], &[&parts[0], &parts[1]]), whole);

    let moments = Moments::of_rows(width, &values, Precision::Double).unwrap();
    near(number(&whole, "row_count"), 3000.0, 0.0);
    near(number(&whole, "norm_mean"), moments.norm_sum() / 3000.0, 1e-12);
    let variance: f64 = whole["eigenvalues"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .sum();
    near(variance, moments.total_scatter() / 3000.0, 1e-7);

    let mut spoilt = values.clone();
    let mut kept = Vec::new();
    for (row, numbers) in values.chunks(width).enumerate() {
        if [0, 1099, 1100, 2999].contains(&row) {
            spoilt[row * width + 3] = f32::INFINITY;
        } else {
            kept.extend_from_slice(numbers);
        }
    }
    let spoilt = layer(
        &["--on-nonfinite", "drop"],
        &[&plain(&dir, "spoilt.acts", width, &spoilt)],
    );
    assert_eq!(spoilt["row_count"], 2996);
    assert_eq!(
        spoilt["eigenvalues"],
        layer(&[], &[&plain(&dir, "kept.acts", width, &kept)])["eigenvalues"]
    );
}

#[test]
fn one_row_constant_rows_and_few_rows_leave_out_what_is_not_defined() {
    let dir = temp_dir();
    let one = run(&[], &[&plain(&dir, "one.acts", 3, &[1.0, 2.0, 3.0])]).records();
    let layer = rows(&one, "layer")[0];
    assert_eq!(layer["row_count"], 1);
    assert!(
        layer.get("participation_ratio").is_none() && layer.get("evr").is_none() && layer.get("id_twonn").is_none()
    );
    near(number(layer, "norm_mean"), 14.0_f64.sqrt(), 1e-15);
    let same = run(&[], &[&plain(&dir, "same.acts", 2, &[5.0, 7.0].repeat(30))]).records();
    let layer = rows(&same, "layer")[0];
    assert!(layer.get("effective_rank").is_none() && layer["c_k"].as_object().is_none_or(|c_k| c_k.is_empty()));
    near(number(layer, "anisotropy"), 1.0, 1e-12);
    pca()
        .arg(plain(&dir, "none.acts", 2, &[]))
        .output()
        .refused(3, "holds no rows");
}

#[test]
fn more_components_than_rows_can_span_are_refused() {
    let dir = temp_dir();
    let values: Vec<f32> = (0..20).map(|i| (i * i % 7) as f32).collect();
    let few = plain(&dir, "few.acts", 5, &values);
    pca().args(["--components", "4"]).arg(&few).output().refused(
        3,
        "4 rows of 5 dimensions have no more than 3 components, and 4 were asked for",
    );
    run(&["--components", "3"], &[&few]);
    let moments = Dump::new(3, 1).write_moments(&dir.path().join("moments.acts"));
    pca()
        .args(["--components", "200"])
        .arg(&moments)
        .output()
        .refused(3, "and 200 were asked for");
}

#[test]
fn what_is_wrong_with_the_input_is_said_in_one_line() {
    let dir = temp_dir();
    let path = Dump::new(10, 1).write(&dir.path().join("a.acts"));
    pca()
        .arg(dir.path().join("missing.acts"))
        .output()
        .refused(4, "missing.acts");
    pca()
        .args(["--group", "colour"])
        .arg(&path)
        .output()
        .refused(3, "has no field \"colour\"");
    let alike = Dump {
        grouped: false,
        ..Dump::new(10, 1)
    }
    .write(&dir.path().join("alike.acts"));
    pca()
        .args(["--group", "group"])
        .arg(&alike)
        .output()
        .refused(3, "resid-dump --group FIELD");
    pca()
        .args(["--site", "embed"])
        .arg(&path)
        .output()
        .refused(3, "there is no site \"embed\"");
    pca()
        .args(["--drop-dims", "x"])
        .arg(&path)
        .output()
        .refused(2, "neither auto nor a list");
    pca().output().refused(3, "stdin: is empty");
    pca().stdin("{\"id\":\"x\"}\n").output().refused(3, "names no tensor");
    let cut = std::fs::read(&path).unwrap();
    pca().arg("-").stdin(&cut[..cut.len() - 9]).output().refused(3, "stdin");
    pca().arg(&path).arg(&path).output().refused(3, "sample 0 is also in");
    let narrow = Dump {
        width: 8,
        ..Dump::new(10, 1)
    }
    .write(&dir.path().join("narrow.acts"));
    pca()
        .arg("--against")
        .arg(&narrow)
        .arg(&path)
        .output()
        .refused(3, "layer 0 is 8 wide, the input's 12");
    pca().arg("--plan").arg(&path).output().expect(0);
    assert_eq!(pca().arg(&path).stdout_to("/dev/full").code, 4);
}

#[test]
fn layers_of_different_widths_share_no_space_but_lie_side_by_side() {
    let dir = temp_dir();
    let rng = Rng::new(2, "widths");
    let mut header = Header::new("test", "1", &process::sha256(b"widths"), None);
    for (layer, width) in [(0, 3_u64), (1, 5)] {
        header
            .tensors
            .push(TensorSpec::new(format!("data.{layer}"), Dtype::F32, &[width]));
    }
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    for (tensor, width) in [(0, 3), (1, 5)] {
        let values: Vec<f32> = (0..20 * width).map(|i| rng.normal(tensor, i) as f32).collect();
        writer.push_f32(tensor as usize, &values).unwrap();
    }
    let path = dir.path().join("widths.acts");
    std::fs::write(&path, writer.finish().unwrap().0).unwrap();
    pca()
        .arg(&path)
        .output()
        .refused(3, "layer 0 is 3 wide and layer 1 is 5");
    let records = run(&["--layout", "concat"], &[&path]).records();
    assert_eq!(rows(&records, "stack")[0]["row_count"], 20);
    assert_eq!(
        rows(&records, "trajectory")[0]["projection"].as_array().unwrap().len(),
        2
    );
}

#[test]
fn leading_components_by_passes_over_the_rows_are_those_of_the_whole_spectrum() {
    let dir = temp_dir();
    let (row_count, width) = (2400, 2304); // as wide as passes need for one component
    let rng = Rng::new(3, "passes");
    let values: Vec<f32> = (0..row_count * width)
        .map(|i| (5.0 + rng.normal((i / width) as u64, (i % width) as u64) / (1.0 + (i % width) as f64)) as f32)
        .collect();
    let path = plain(&dir, "wide.acts", width, &values);
    let whole = run(&["--exact", "--measures", "moments"], &[&path]).records();
    let leading = run(&["--components", "1"], &[&path]).records();
    let (whole, leading) = (rows(&whole, "layer")[0], rows(&leading, "layer")[0]);
    near(
        leading["eigenvalues"][0].as_f64().unwrap(),
        whole["eigenvalues"][0].as_f64().unwrap(),
        1e-7,
    );
    near(number(&leading["c_k"], "1"), number(&whole["c_k"], "1"), 1e-7);
    near(number(leading, "norm_mean"), number(whole, "norm_mean"), 1e-12);
    near(number(leading, "anisotropy"), number(whole, "anisotropy"), 1e-12);
}

#[test]
fn a_trajectory_is_also_given_over_the_mean_norms_of_its_layers() {
    let dir = temp_dir();
    let path = Dump::new(40, 1).write(&dir.path().join("a.acts"));
    let records = run(&["--group", "group"], &[&path]).records();
    let all = rows(&records, "layer").into_iter().filter(|row| row["group"] == "");
    let norms: Vec<f64> = all.map(|row| number(row, "norm_mean")).collect();
    let trajectories = rows(&records, "trajectory");
    assert!(!trajectories.is_empty());
    for row in trajectories {
        let list = |key: &str| -> Vec<f64> {
            row[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|x| x.as_f64().unwrap())
                .collect()
        };
        assert_eq!(list("projection_normed").len(), norms.len());
        for ((normed, projection), norm) in list("projection_normed").iter().zip(list("projection")).zip(&norms) {
            near(normed * norm, projection, 1e-12);
        }
        assert!(number(row, "norm_correlation").abs() <= 1.0 + 1e-12);
    }
}

#[test]
fn a_table_is_for_people() {
    let dir = temp_dir();
    let path = Dump::new(40, 1).write(&dir.path().join("a.acts"));
    let table = run(&["--format", "table", "--group", "group"], &[&path]);
    let text = table.text();
    for words in [
        "layer",
        "harmless",
        "TwoNN",
        "PC_ID is component",
        "Fisher",
        "smoothness",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}

/// Residuals of a small trained model from transformers, where the development data is present; expected values by numpy in f64.
#[test]
fn the_golden_of_the_small_real_model_holds() {
    const LAYERS: usize = 6;
    const WIDTH: usize = 64;
    // First eigenvalue, C_1, participation ratio, effective rank, mean norm, dispersion; the last line is the stack's.
    const EXPECTED: [[f64; 6]; 7] = [
        [
            0.4630659618178903,
            0.13968953746774132,
            16.405859635476276,
            28.426869132619863,
            1.942490599827724,
            1.7873748049785634,
        ],
        [
            3.4663654812529576,
            0.25695698031126873,
            10.398794963704786,
            28.557864692994507,
            4.16564253816048,
            3.5664958622450955,
        ],
        [
            5.615116311986384,
            0.22716189390891223,
            11.798433660566454,
            29.662622525037346,
            5.8673753780002125,
            4.860829635369357,
        ],
        [
            8.05423867160095,
            0.19483235563528842,
            13.22711308364075,
            29.653733197907833,
            7.769926450271892,
            6.346561713272737,
        ],
        [
            13.567900492547757,
            0.19381847359993315,
            12.906928005170217,
            29.316100791732147,
            10.50670977068468,
            8.248491501429976,
        ],
        [
            25.948062409764642,
            0.20271505609149457,
            12.577593005051694,
            29.368875530850087,
            13.22459145372314,
            11.163209825043584,
        ],
        [
            9.758124850886343,
            0.18355614050370161,
            14.619529847830494,
            48.76954013298772,
            7.246122698444686,
            6.6305350601728446,
        ],
    ];
    let Some(reference) = harness::data("models/stories260k/reference.npz") else {
        return;
    };
    let archive = std::fs::read(reference).unwrap();
    let texts = [stored_f32(&archive, "resid_0.npy"), stored_f32(&archive, "resid_1.npy")];
    let dir = temp_dir();
    let mut header = Header::new("test", "1", &process::sha256(b"golden"), None);
    for layer in 0..LAYERS {
        header
            .tensors
            .push(TensorSpec::new(format!("resid.{layer}"), Dtype::F32, &[WIDTH as u64]));
    }
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    for text in &texts {
        let layer_len = text.len() / LAYERS;
        for layer in 0..LAYERS {
            writer
                .push_f32(layer, &text[layer * layer_len..(layer + 1) * layer_len])
                .unwrap();
        }
    }
    let path = dir.path().join("golden.acts");
    std::fs::write(&path, writer.finish().unwrap().0).unwrap();
    let records = run(&["--exact"], &[&path]).records();
    let found = rows(&records, "layer").into_iter().chain(rows(&records, "stack"));
    for (row, expected) in found.zip(EXPECTED) {
        near(row["eigenvalues"][0].as_f64().unwrap(), expected[0], 1e-12);
        near(number(&row["c_k"], "1"), expected[1], 1e-12);
        for (key, expected) in ["participation_ratio", "effective_rank", "norm_mean", "dispersion"]
            .into_iter()
            .zip(&expected[2..])
        {
            near(number(row, key), *expected, 1e-9);
        }
    }
}

/// An array of f32 in an uncompressed .npz: a zip of .npy files, stored.
fn stored_f32(archive: &[u8], name: &str) -> Vec<f32> {
    let at = archive
        .windows(name.len())
        .position(|window| window == name.as_bytes())
        .expect("the array is in the archive");
    let short = |at: usize| usize::from(u16::from_le_bytes([archive[at], archive[at + 1]]));
    let npy = at + name.len() + short(at - 2);
    assert_eq!(&archive[npy..npy + 6], b"\x93NUMPY");
    let start = npy + 10 + short(npy + 8);
    let end = start
        + archive[start..]
            .windows(4)
            .position(|window| window == b"PK\x03\x04")
            .expect("an array follows");
    archive[start..end]
        .chunks_exact(4)
        .map(|x| f32::from_le_bytes(x.try_into().unwrap()))
        .collect()
}

/// Four rows of one layer, with what a damaged file may say about them.
fn odd(path: &Path, samples: &[(u64, u64)], table: &[u32], layer_index: u32, layer_count: u64) -> PathBuf {
    let mut header = Header::new("test", "1", &process::sha256(b"odd"), None);
    header.tensors = vec![
        TensorSpec::activations(Site::ResidPost, Some(layer_index), Dtype::F32, 2),
        TensorSpec::samples(),
        TensorSpec::row_table("sample_index"),
    ];
    header.meta.insert("layer_count".into(), layer_count.into());
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    writer.push_f32(0, &[1.0, 2.0, 3.0, 5.0, 8.0, 1.0, 0.0, 4.0]).unwrap();
    for (index, (start, count)) in samples.iter().enumerate() {
        let sample = serde_json::json!({
            "type": "sample", "id": index.to_string(), "sample_index": index, "group": "", "text_digest": process::sha256(b""),
            "token_count": count, "row_start": start, "row_count": count,
        });
        writer.push(1, format!("{sample}\n").as_bytes()).unwrap();
    }
    writer.push_exact::<u32>(2, table).unwrap();
    std::fs::write(path, writer.finish().unwrap().0).unwrap();
    path.to_path_buf()
}

#[test]
fn a_row_of_two_samples_or_of_none_or_of_another_is_refused() {
    let dir = temp_dir();
    let path = dir.path().join("odd.acts");
    run(&[], &[&odd(&path, &[(2, 2), (0, 2)], &[1, 1, 0, 0], 0, 1)]);
    for (samples, cause) in [
        (&[(0, 2), (1, 3)], "row 1 is claimed by two of the samples"),
        (&[(0, 1), (2, 2)], "row 1 is claimed by none of the samples"),
        (&[(0, 2), (2, 1)], "row 3 is claimed by none of the samples"),
        (&[(0, 2), (0, 4)], "row 0 is claimed by two of the samples"),
    ] {
        pca().arg(odd(&path, samples, &[0; 4], 0, 1)).output().refused(3, cause);
    }
    for (table, cause) in [
        (&[0, 1, 1, 1][..], "row 1 is of sample 1 by sample_index"),
        (&[0, 0, 1], "sample_index ends at row 3"),
        (&[0, 0, 1, 1, 1], "row 4 is of sample 1 by sample_index"),
    ] {
        pca()
            .arg(odd(&path, &[(0, 2), (2, 2)], table, 0, 1))
            .output()
            .refused(3, cause);
    }
}

#[test]
fn a_layer_that_no_model_has_is_refused() {
    let dir = temp_dir();
    let path = dir.path().join("odd.acts");
    for (layer_index, layer_count) in [(u32::MAX, 1), (0, 1 << 40), (70_000, 1)] {
        pca()
            .arg(odd(&path, &[(0, 4)], &[0; 4], layer_index, layer_count))
            .args(["--layers", "0.5-1.0"])
            .output()
            .refused(3, "limit 65536");
    }
}

#[test]
fn a_container_and_records_do_not_share_stdout() {
    let dir = temp_dir();
    let path = odd(&dir.path().join("odd.acts"), &[(0, 4)], &[0; 4], 0, 1);
    pca()
        .args(["--basis", "-"])
        .arg(&path)
        .output()
        .refused(2, "mix a container with the records");
}

/// A small file may hold one block of many rows that all coincide: none of them holds all others as its neighbours.
#[test]
fn a_million_rows_of_zeros_in_one_block_take_little_memory() {
    const ROW_COUNT: usize = 1_000_000;
    let dir = temp_dir();
    let path = dir.path().join("zeros.acts");
    let mut header = Header::new("test", "1", &process::sha256(b"zeros"), None);
    let mut spec = TensorSpec::activations(Site::ResidPost, Some(0), Dtype::F32, 1);
    spec.block_row_count = ROW_COUNT as u64;
    header.tensors = vec![spec];
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    writer.push_f32(0, &vec![0.0; ROW_COUNT]).unwrap();
    std::fs::write(&path, writer.finish().unwrap().0).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 100_000);

    let limited = "ulimit -d 400000 && exec \"$0\" --threads 2 \"$1\"";
    let done = Run::new("sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_flowlens-pca")])
        .arg(&path)
        .output()
        .expect(0);
    assert_eq!(rows(&done.records(), "layer")[0]["row_count"], ROW_COUNT);
}
