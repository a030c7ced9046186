//! act-stats alone, as a process, on dumps made here.

use acts::{Dtype, Header, Role, Shard, Site, TensorSpec, Writer};
use harness::{Done, Run, TempDir, temp_dir};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What ties a dump's shards together.
const PLAN: &str = "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";

fn act_stats() -> Run {
    Run::new(env!("CARGO_BIN_EXE_act-stats"))
}

/// One prompt: its group and its tokens, a row each.
#[derive(Clone)]
struct Prompt {
    index: u64,
    group: &'static str,
    rows: Vec<Vec<f64>>,
}

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(temp_dir())
    }

    /// A container of these prompts with two layers, the second twice the first.
    fn dump(
        &self,
        name: &str,
        prompts: &[Prompt],
        dtype: Dtype,
        shard: Option<Shard>,
        block_row_count: u64,
    ) -> PathBuf {
        let width = prompts[0].rows[0].len();
        self.dump_of_width(name, prompts, width, dtype, shard, block_row_count)
    }

    fn dump_of_width(
        &self,
        name: &str,
        prompts: &[Prompt],
        width: usize,
        dtype: Dtype,
        shard: Option<Shard>,
        block_row_count: u64,
    ) -> PathBuf {
        let width = width as u64;
        let mut header = Header::new("test", "1", PLAN, shard);
        header.tensors = vec![
            TensorSpec::activations(Site::ResidPost, Some(0), dtype, width),
            TensorSpec::activations(Site::ResidPost, Some(1), dtype, width),
            TensorSpec::row_table("token_id"),
            TensorSpec::row_table("sample_index"),
            TensorSpec::row_table("position"),
            TensorSpec::samples(),
        ];
        header.meta.insert("layer_count".into(), 2.into());
        header.fix_blocks().unwrap();
        header
            .tensors
            .iter_mut()
            .for_each(|spec| spec.block_row_count = block_row_count);
        let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
        let mut row_start = 0;
        for prompt in prompts {
            let rows = prompt.rows.concat();
            push(&mut writer, 0, dtype, &rows);
            push(&mut writer, 1, dtype, &rows.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
            let count = prompt.rows.len() as u32;
            let positions: Vec<u32> = (0..count).collect();
            let ids: Vec<u32> = positions.iter().map(|position| 1000 + position).collect();
            writer.push_exact::<u32>(2, &ids).unwrap();
            writer
                .push_exact::<u32>(3, &vec![prompt.index as u32; count as usize])
                .unwrap();
            writer.push_exact::<u32>(4, &positions).unwrap();
            let sample = json!({"type": "sample", "id": format!("p{}", prompt.index), "sample_index": prompt.index, "group": prompt.group,
                "text_digest": "", "token_count": count, "row_start": row_start, "row_count": count});
            writer.push(5, format!("{sample}\n").as_bytes()).unwrap();
            row_start += u64::from(count);
        }
        let path = self.0.path().join(name);
        std::fs::write(&path, writer.finish().unwrap().0).unwrap();
        path
    }
}

fn push(writer: &mut Writer<Vec<u8>>, tensor: usize, dtype: Dtype, rows: &[f64]) {
    match dtype {
        Dtype::F64 => writer.push_exact::<f64>(tensor, rows).unwrap(),
        _ => writer
            .push_f32(tensor, &rows.iter().map(|x| *x as f32).collect::<Vec<_>>())
            .unwrap(),
    }
}

/// sin(a·(i+1)(j+1) + 0.1·j): the listing's inputs for golden numbers.
fn sines(rows: u64, width: u64, a: f64) -> Vec<Vec<f64>> {
    let number = |i: u64, j: u64| (a * ((i + 1) * (j + 1)) as f64 + 0.1 * j as f64).sin();
    (0..rows).map(|i| (0..width).map(|j| number(i, j)).collect()).collect()
}

/// Ten prompts of two groups with one to four tokens; numbers that bf16 holds, and one massive one.
fn prompts() -> Vec<Prompt> {
    let short = |x: f64| f64::from(f32::from_bits((x as f32).to_bits() & !0xffff));
    let mut prompts: Vec<Prompt> = (0..10)
        .map(|index| Prompt {
            index,
            group: if index % 3 == 0 { "harmful" } else { "harmless" },
            rows: sines(1 + index % 4, 21, 0.3 + 0.1 * index as f64),
        })
        .collect();
    prompts[7].rows[2][5] = -3000.0;
    for number in prompts.iter_mut().flat_map(|prompt| &mut prompt.rows).flatten() {
        *number = short(*number);
    }
    prompts
}

fn act<'r>(records: &'r [Value], layer: u64, group: &str) -> &'r Value {
    let is_it = |row: &&Value| row["type"] == "act" && row["layer_index"] == layer && row["group"] == group;
    records.iter().find(is_it).expect("an act record")
}

#[track_caller]
fn close(found: &Value, expected: f64, tolerance: f64) {
    let found = found.as_f64().expect("a number");
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

#[test]
fn the_golden_numbers_of_massive_activations_and_of_eight_bits() {
    let place = Place::new();
    let mut rows = sines(8, 32, 0.9);
    rows[3][5] = 250.0;
    let prompt = Prompt {
        index: 4,
        group: "",
        rows,
    };
    let path = place.dump("a.acts", &[prompt], Dtype::F64, None, 3);
    let done = act_stats().arg(path).args(["--int8", "max,at:1"]).output().expect(0);
    let records = done.records();
    let row = act(&records, 0, "");
    assert_eq!((&row["abs_max"], &row["count"]), (&json!(250.0), &json!(256)));
    assert_eq!(row["top"][0], json!([250.0, 4, 3, 5]));
    assert_eq!((&row["abs_max_token_id"], &row["depth"]), (&json!(1003), &json!(0.5)));
    close(&row["ratio_max"], 325.412930, 5e-7);
    close(&row["int8"]["max"]["sqnr_db"], 26.94727977, 5e-9);
    close(&row["int8"]["max"]["rel_rmse"], 0.04494030, 5e-9);
    close(&row["int8"]["max"]["rel_mae"], 0.39225897, 5e-9);
    close(&row["int8"]["max"]["clip_share"], 0.0, 0.0);
    close(&row["int8"]["at:1"]["sqnr_db"], 0.04369639, 5e-9);
    close(&row["int8"]["at:1"]["rel_rmse"], 0.99498190, 5e-9);
    close(&row["int8"]["at:1"]["rel_mae"], 0.60473740, 5e-9);
    close(&row["int8"]["at:1"]["clip_share"], 0.00390625, 0.0);
    let headline = records.iter().find(|row| row["type"] == "headline").unwrap();
    assert_eq!(
        (&headline["layer_index"], &headline["value"]),
        (&json!(1), &json!(500.0))
    );
}

#[test]
fn the_golden_share_of_small_changes_and_the_dimensions_that_carry_the_mass() {
    let place = Place::new();
    let prompt = Prompt {
        index: 0,
        group: "",
        rows: sines(64, 16, 0.02),
    };
    let path = place.dump("a.acts", &[prompt], Dtype::F32, None, 7);
    let run = act_stats()
        .arg(path)
        .args(["--temporal", "0.1", "--dim-flow", "0.5", "--run", "4"]);
    let records = run.output().expect(0).records();
    let row = act(&records, 0, "");
    assert_eq!(row["temporal_sparsity"], 0.5625);
    let flow = &row["dim_flow"];
    close(&flow["dims_share"], flow["dims_mean"].as_f64().unwrap() / 16.0, 1e-15);
    // numpy: by sorting and cumulating, then the lengths of the runs of every dimension.
    close(&flow["dims_mean"], 5.96875, 1e-12);
    close(&flow["shared_share"], 0.9345549738219895, 1e-12);
    close(&flow["single_share"], 0.013089005235602094, 1e-12);
}

/// What a run says, without its container.
fn bytes(run: Run) -> Vec<u8> {
    let options = [
        "--group",
        "group",
        "--bootstrap",
        "4,9",
        "--temporal",
        "0.2",
        "--dim-flow",
        "0.6",
        "--top",
        "25",
    ];
    run.args(options).output().expect(0).stdout
}

#[test]
fn threads_blocks_shards_and_a_pipe_change_no_byte() {
    let place = Place::new();
    let prompts = prompts();
    for dtype in [Dtype::Bf16, Dtype::F32, Dtype::F64] {
        let whole = place.dump("whole.acts", &prompts, dtype, None, 64);
        let expected = bytes(act_stats().arg(&whole));
        assert!(expected.len() > 1000);
        for threads in ["1", "3"] {
            let path = place.dump("blocks.acts", &prompts, dtype, None, 2);
            assert_eq!(bytes(act_stats().arg(&path).args(["--threads", threads])), expected);
        }
        assert_eq!(
            bytes(act_stats().arg("-").stdin(std::fs::read(&whole).unwrap())),
            expected
        );
        let shard = |index: u32| {
            let own: Vec<Prompt> = prompts
                .iter()
                .filter(|prompt| prompt.index % 3 == u64::from(index))
                .cloned()
                .collect();
            place.dump(
                &format!("{index}.acts"),
                &own,
                dtype,
                Some(Shard { index, count: 3 }),
                5,
            )
        };
        let shards = [2, 0, 1].map(shard);
        assert_eq!(bytes(act_stats().args(&shards)), expected);
        let two = act_stats().args(&shards[..2]).output();
        two.refused(3, "2 of 3 shards");
    }
}

/// A dump in three shards, and a fourth without a prompt.
fn shards(place: &Place, dtype: Dtype) -> Vec<PathBuf> {
    let shard = |index: u32| {
        let is_own = |prompt: &&Prompt| prompt.index % 3 == u64::from(index);
        let own: Vec<Prompt> = prompts().iter().filter(is_own).cloned().collect();
        let shard = Some(Shard { index, count: 4 });
        place.dump(&format!("{index}.acts"), &own, dtype, shard, 5)
    };
    let empty = Shard { index: 3, count: 4 };
    let mut all = [2, 0, 1].map(shard).to_vec();
    all.push(place.dump_of_width("3.acts", &[], 21, dtype, Some(empty), 5));
    all
}

/// What --part writes of each, in files.
fn parts(place: &Place, shards: &[PathBuf], flags: &[&str]) -> Vec<PathBuf> {
    let part = |(index, shard): (usize, &PathBuf)| {
        let path = place.0.path().join(format!("part-{index}.jsonl"));
        let part = act_stats().arg("--part").arg(shard).args(flags).output().expect(0);
        std::fs::write(&path, part.stdout).unwrap();
        path
    };
    shards.iter().enumerate().map(part).collect()
}

#[test]
fn parts_measured_apart_merge_to_the_bytes_of_the_whole() {
    let place = Place::new();
    let all = "--dim-flow 0.5 --run 2 --temporal 0.1 --bootstrap 5,20 --top 4";
    for (dtype, flags) in [
        (Dtype::Bf16, all.to_owned()),
        (Dtype::Bf16, format!("{all} --group group")),
        (Dtype::F32, format!("{all} --group group --int8 at:0.5")),
        (Dtype::F64, format!("{all} --int8 none")),
        (Dtype::F64, "--group group --int8 at:1,at:0.01".to_owned()),
    ] {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let shards = shards(&place, dtype);
        let expected = act_stats().args(&shards).args(&flags).output().expect(0).stdout;
        let mut parts = parts(&place, &shards, &flags);
        let merged = |parts: &[PathBuf]| act_stats().arg("merge").args(parts).output().expect(0).stdout;
        assert_eq!(merged(&parts), expected, "{dtype:?} {flags:?}");
        parts.reverse();
        assert_eq!(merged(&parts), expected);
    }
}

#[test]
fn parts_that_are_not_all_of_one_run_are_refused() {
    let place = Place::new();
    let shards = shards(&place, Dtype::Bf16);
    let written = parts(&place, &shards, &[]);
    let merge = |parts: &[PathBuf]| act_stats().arg("merge").args(parts).output();
    merge(&written[1..]).refused(3, "3 of 4 shards were given; there is no 2");
    merge(&[written[0].clone(), written[0].clone()]).refused(3, "is shard 2, as");
    merge(&shards).refused(3, "2.acts");
    let other = place.0.path().join("other.jsonl");
    let flags = ["--part", "--top", "3"];
    std::fs::write(
        &other,
        act_stats().args(flags).arg(&shards[1]).output().expect(0).stdout,
    )
    .unwrap();
    merge(&[written[0].clone(), other]).refused(3, "with other flags");

    let whole = place.dump("whole.acts", &prompts(), Dtype::Bf16, None, 64);
    act_stats()
        .arg("--part")
        .arg(&whole)
        .output()
        .refused(3, "is no shard of a run");
    let table = act_stats().args(["--part", "--format", "table"]).arg(&shards[0]);
    table.output().refused(2, "--format");
    act_stats()
        .arg("--part")
        .args(&shards)
        .output()
        .refused(2, "4 containers were given");
    let wide = place.dump(
        "wide.acts",
        &prompts(),
        Dtype::F32,
        Some(Shard { index: 0, count: 1 }),
        64,
    );
    act_stats()
        .arg("--part")
        .arg(wide)
        .output()
        .refused(2, "cannot know the whole run's scale");

    let text = std::fs::read_to_string(&written[0]).unwrap();
    let broken = |from: &str, to: &str| {
        let path = place.0.path().join("broken.jsonl");
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        merge(&[path])
    };
    broken("\"zero_count\":", "\"zero_count\":99999").refused(3, "more zeros than numbers");
    broken("\"cells\":[[", "\"cells\":[[9").refused(3, "no such cell");
    broken("\"top\":[{", "\"top\":[],\"tap\":[{").refused(3, "tap");
}

#[test]
fn one_pass_over_short_floats_says_what_two_say_over_long_ones() {
    let place = Place::new();
    let records = |dtype| {
        let path = place.dump("a.acts", &prompts(), dtype, None, 4);
        act_stats()
            .arg(path)
            .args(["--group", "group"])
            .output()
            .expect(0)
            .records()
    };
    let (short, long) = (records(Dtype::Bf16), records(Dtype::F64));
    for group in ["", "harmful", "harmless"] {
        let (short, long) = (act(&short, 0, group), act(&long, 0, group));
        for key in [
            "mean",
            "std",
            "rms",
            "mean_abs",
            "top",
            "massive_dims",
            "histogram",
            "entropy_nats",
            "zero_count",
            "ratio_mean",
        ] {
            assert_eq!(short[key], long[key], "{key}");
        }
        for key in ["mae", "rmse", "rel_mae", "rel_rmse", "sqnr_db", "clip_share"] {
            let expected = long["int8"]["max"][key].as_f64().unwrap();
            close(&short["int8"]["max"][key], expected, 1e-12 * expected.abs());
        }
    }
    let massive = act(&short, 0, "harmless");
    assert_eq!(
        (&massive["massive_count"], &massive["massive_dims"]),
        (&json!(1), &json!([[5, 1]]))
    );
    assert_eq!(act(&short, 0, "harmful")["massive_count"], 0);
    let both = ["harmful", "harmless"].map(|group| act(&short, 0, group)["count"].as_u64().unwrap());
    assert_eq!(act(&short, 0, "")["count"], both[0] + both[1]);
}

#[test]
fn rows_without_sample_records_are_prompts_of_their_own() {
    let place = Place::new();
    let mut header = Header::new("test", "1", PLAN, None);
    header.tensors = vec![TensorSpec::new("data.3", Dtype::F32, &[2, 2])];
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    writer.push_f32(0, &[1.0, 2.0, 3.0, 4.0, 5.0, -6.0, 7.0, 0.0]).unwrap();
    let path = place.0.path().join("plain.acts");
    std::fs::write(&path, writer.finish().unwrap().0).unwrap();
    let records = act_stats()
        .arg(&path)
        .args(["--temporal", "1"])
        .output()
        .expect(0)
        .records();
    let row = act(&records, 3, "");
    assert_eq!(
        (&row["component"], &row["row_count"], &row["mean"]),
        (&json!("data"), &json!(2), &json!(2.0))
    );
    assert_eq!(
        (&row["top"][0], &row["top"][1]),
        (&json!([7.0, 1, 0, 2]), &json!([-6.0, 1, 0, 1]))
    );
    assert!(row.get("temporal_sparsity").is_none() && row.get("depth").is_none());
    assert!(records.iter().all(|row| row["type"] != "headline"));
    let grouped = act_stats().arg(&path).args(["--group", "group"]).output();
    grouped.refused(3, "no sample records");
}

fn refused(path: &PathBuf, options: &[&str], words: &str) -> Done {
    act_stats().arg(path).args(options).output().refused(3, words)
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let place = Place::new();
    let path = place.dump("a.acts", &prompts(), Dtype::F32, None, 4);
    refused(&path, &["--components", "mlp_in"], "no component \"mlp_in\"");
    refused(&path, &["--group", "colour"], "no field \"colour\"");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 40);
    let cut = act_stats().stdin(bytes).output();
    cut.refused(3, "stdin");
    let mut prompts = prompts();
    prompts[3].rows[0][2] = f64::INFINITY;
    let path = place.dump("infinite.acts", &prompts, Dtype::F32, None, 4);
    refused(&path, &[], "NaN or infinite");
    let of_two_rows = |name: &str, samples: &str| {
        let mut header = Header::new("test", "1", PLAN, None);
        header.tensors = vec![
            TensorSpec::activations(Site::Embed, None, Dtype::F32, 2),
            TensorSpec::samples(),
        ];
        header.fix_blocks().unwrap();
        let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
        writer.push_f32(0, &[1.0, 2.0, 3.0, 4.0]).unwrap();
        writer.push(1, samples.as_bytes()).unwrap();
        let path = place.0.path().join(name);
        std::fs::write(&path, writer.finish().unwrap().0).unwrap();
        path
    };
    refused(&of_two_rows("none.acts", ""), &[], "has 2 rows, its samples claim 0");
    let one = json!({"type": "sample", "id": "p", "sample_index": 0, "group": "", "text_digest": "", "token_count": 1,
        "row_start": 0, "row_count": 1});
    let unclaimed = of_two_rows("unclaimed.acts", &format!("{one}\n"));
    refused(&unclaimed, &[], "has 2 rows, its samples claim 1");
    let mut header = Header::new("test", "1", PLAN, None);
    header.tensors = vec![TensorSpec::new("moments.0.resid_post.0.rest.mean", Dtype::F64, &[2]).role(Role::Moments)];
    header.fix_blocks().unwrap();
    let path = place.0.path().join("moments.acts");
    std::fs::write(&path, Writer::new(Vec::new(), header, 1).unwrap().finish().unwrap().0).unwrap();
    refused(&path, &[], "holds no activations");
}

#[test]
fn the_table_names_the_largest_magnitude() {
    let place = Place::new();
    let path = place.dump("a.acts", &prompts(), Dtype::Bf16, None, 4);
    let done = act_stats()
        .arg(path)
        .args(["--format", "table", "--bootstrap", "5"])
        .output()
        .expect(0);
    assert!(
        done.text()
            .contains("The largest magnitude is -5984 (resid_post of layer 1, sample 7, position 2, dimension 5)."),
        "{}",
        done.text()
    );
    assert!(done.text().contains("Over 5 resamples of 5 prompts"));
}

/// Checkpoints of a made-up training as records: the golden law of massive activations, with a little made-up noise.
fn series(noise: f64) -> String {
    let steps = (0..10)
        .map(|power| f64::from(1 << power))
        .chain((1..=60).map(|step| 2000.0 * f64::from(step)));
    let line = |(at, step): (usize, f64)| {
        let x: f64 = 0.004 * step + 1.5;
        let y = 3.0 * (-0.02 * x).exp() * x.ln() + 5.0;
        let wave = 1.0 + noise * (2.4 * at as f64).sin();
        format!(
            "{{\"component\":\"resid_post\",\"layer_index\":3,\"step\":{step},\"ratio\":{{\"mean\":{}}}}}\n",
            y * wave
        )
    };
    steps.enumerate().map(line).collect()
}

#[test]
fn the_law_of_massive_activations_is_fitted_and_compared() {
    let run = act_stats().args([
        "fit",
        "--y",
        "ratio.mean",
        "--law",
        "massive,first_order,second_order,logarithm",
    ]);
    let records = run.stdin(series(0.01)).output().expect(0).records();
    let fits: Vec<&Value> = records.iter().filter(|row| row["type"] == "fit").collect();
    assert_eq!(fits.len(), 4);
    let massive = fits[0];
    for (name, value) in [("A", 3.0), ("lambda", 0.02), ("gamma", 0.004), ("t0", 1.5), ("K", 5.0)] {
        close(&massive["parameters"][name][0], value, 0.05 * value);
        assert!(massive["parameters"][name][1].as_f64().unwrap() > 0.0);
    }
    close(&massive["peak"], 3994.27, 200.0);
    let best: Vec<bool> = fits.iter().map(|fit| fit["best"] == true).collect();
    assert_eq!(best, [true, false, false, false]);
    assert_eq!(
        (&massive["layer_index"], &massive["count"], &massive["peak_observable"]),
        (&json!(3), &json!(70), &json!(true))
    );
    assert_eq!(massive["points"].as_array().unwrap().len(), 70);
}

#[test]
fn a_series_that_determines_no_law_is_refused_or_left_out() {
    let few: String = series(0.0).lines().take(5).map(|line| format!("{line}\n")).collect();
    let fit = |law: &str| {
        act_stats()
            .args(["fit", "--y", "ratio.mean", "--law", law])
            .stdin(few.clone())
    };
    fit("massive").output().refused(
        3,
        "series resid_post layer 3: law massive: 5 points cannot determine 5 parameters",
    );
    let records = fit("massive,linear").arg("--keep-going").output().expect(6).records();
    assert_eq!(
        (&records[1]["law"], &records[2]["status"]),
        (&json!("linear"), &json!("partial"))
    );
    act_stats()
        .arg("fit")
        .stdin(few.clone())
        .output()
        .refused(3, "no record holds ratio_sample_mean");
    let unplaced = act_stats().args(["fit", "--x", "size", "--y", "ratio.mean"]).stdin(few);
    unplaced.output().refused(3, "no number under \"size\"");
}

#[test]
fn measures_of_checkpoints_are_placed_by_their_arguments() {
    let place = Place::new();
    let mut args = vec![
        "fit".to_owned(),
        "--y".into(),
        "rms".into(),
        "--law".into(),
        "linear".into(),
    ];
    for step in 1..5 {
        let rows = vec![vec![f64::from(step); 4]];
        let path = place.dump(
            "a.acts",
            &[Prompt {
                index: 0,
                group: "",
                rows,
            }],
            Dtype::F32,
            None,
            4,
        );
        let records = place.0.path().join(format!("{step}.jsonl"));
        std::fs::write(&records, act_stats().arg(path).output().expect(0).stdout).unwrap();
        args.push(format!("{step}={}", records.display()));
    }
    let records = act_stats().args(&args).output().expect(0).records();
    let slopes: Vec<&Value> = records
        .iter()
        .filter(|row| row["type"] == "fit")
        .map(|row| &row["parameters"]["b"][0])
        .collect();
    assert_eq!(slopes.len(), 2);
    close(slopes[0], 1.0, 1e-12);
    close(slopes[1], 2.0, 1e-12);
}
