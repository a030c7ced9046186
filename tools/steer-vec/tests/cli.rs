//! steer-vec as a process: a planted refusal direction, every rule, vectors of dumps made by hand, baked weights, bad input.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use acts::{Dtype, Header, TensorSpec, Writer};
use harness::{Done, Run, TempDir, temp_dir, worded_model};
use model::{Batch, Checkpoint, Options, Site, Steering, Tape};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use steering::{How, Mode, Op, Plan};

const WIDTH: usize = 16;
const LAYERS: usize = 5;
/// The tokens that open a refusal and an answer, and those that the template puts behind a question.
const REFUSAL: usize = 1;
const ANSWER: usize = 2;
const TAIL: [usize; 2] = [46, 47];

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_steer-vec"))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Orthonormal vectors that lie along no axis.
fn axes() -> Vec<Vec<f64>> {
    let mut axes: Vec<Vec<f64>> = Vec::new();
    for k in 0..WIDTH {
        let mut axis: Vec<f64> = (0..WIDTH)
            .map(|j| ((k + 1) as f64 * 0.7 * (j + 1) as f64 + 0.3 * k as f64).sin())
            .collect();
        for _ in 0..2 {
            for known in &axes {
                let along = dot(known, &axis);
                axis.iter_mut().zip(known).for_each(|(x, known)| *x -= along * known);
            }
        }
        let length = dot(&axis, &axis).sqrt();
        axes.push(axis.iter().map(|x| x / length).collect());
    }
    axes
}

/// How much of the refusal direction and of the false-refusal direction a token carries.
fn carried(token: usize) -> [f64; 2] {
    match token {
        3..=15 => [2.0, 0.0],  // harmful
        16..=28 => [0.4, 2.0], // harmless, and looks harmful
        _ => [0.0, 0.0],
    }
}

/// A model in which the attention of block 1 carries two directions from the question to the tokens behind it, and the head reads both as
/// refusal. All else is zero.
fn planted(directory: &Path) {
    let axes = axes();
    let (refusal, falsely, answer) = (&axes[0], &axes[1], &axes[2]);
    let mut tensors: HashMap<String, (Vec<usize>, Vec<f64>)> = HashMap::new();
    let square = |entry: &dyn Fn(usize, usize) -> f64| -> (Vec<usize>, Vec<f64>) {
        let numbers = (0..WIDTH)
            .flat_map(|i| (0..WIDTH).map(move |j| (i, j)))
            .map(|(i, j)| entry(i, j));
        (vec![WIDTH, WIDTH], numbers.collect())
    };
    let rows = |row: &dyn Fn(usize) -> Vec<f64>| -> (Vec<usize>, Vec<f64>) {
        (vec![48, WIDTH], (0..48).flat_map(row).collect())
    };
    let mix = |parts: &[(f64, &Vec<f64>)]| -> Vec<f64> {
        (0..WIDTH)
            .map(|j| parts.iter().map(|(weight, axis)| weight * axis[j]).sum())
            .collect()
    };
    let embed = |token: usize| {
        let [r, f] = carried(token);
        let own = 3 + token % 13;
        let behind = if TAIL.contains(&token) { 2.0 } else { 0.0 };
        mix(&[(r, refusal), (f, falsely), (behind, answer), (2.0, &axes[own])])
    };
    tensors.insert("model.embed_tokens.weight".into(), rows(&embed));
    let head = |token: usize| match token {
        REFUSAL => mix(&[(3.0, refusal), (3.0, falsely)]),
        ANSWER => mix(&[(2.0, answer)]),
        _ => vec![0.0; WIDTH],
    };
    tensors.insert("lm_head.weight".into(), rows(&head));
    tensors.insert("model.norm.weight".into(), (vec![WIDTH], vec![1.0; WIDTH]));
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.insert(name(norm), (vec![WIDTH], vec![1.0; WIDTH]));
        }
        for part in ["gate_proj", "up_proj", "down_proj"] {
            tensors.insert(name(&format!("mlp.{part}")), square(&|_, _| 0.0));
        }
        for part in ["q_proj", "k_proj"] {
            tensors.insert(name(&format!("self_attn.{part}")), square(&|_, _| 0.0));
        }
        let is_carrying = f64::from(u8::from(layer == 1));
        tensors.insert(
            name("self_attn.v_proj"),
            square(&|i, j| if i == j { is_carrying } else { 0.0 }),
        );
        let carry = |i: usize, j: usize| is_carrying * (refusal[i] * refusal[j] + falsely[i] * falsely[j]);
        tensors.insert(name("self_attn.o_proj"), square(&carry));
    }
    worded_model("llama", directory);
    write(directory, &tensors);
}

fn write(directory: &Path, tensors: &HashMap<String, (Vec<usize>, Vec<f64>)>) {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, numbers))| {
            (
                name,
                shape,
                numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            )
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, data)| {
        (
            *name,
            TensorView::new(safetensors::Dtype::F32, shape.to_vec(), data).unwrap(),
        )
    });
    fs::write(
        directory.join("model.safetensors"),
        safetensors::serialize(views, None).unwrap(),
    )
    .unwrap();
    let config = json!({
        "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 48, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 45,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let settings = json!({
        "chat_template": "{% for m in messages %}{{ m.content }} t46 t47{% endfor %}",
    });
    fs::write(directory.join("tokenizer_config.json"), settings.to_string()).unwrap();
}

/// Questions of four tokens of a kind.
fn questions(path: &Path, kind: std::ops::Range<usize>, count: usize) {
    let line = |at: usize| {
        let token = |k: usize| format!("t{}", kind.start + (at * 5 + k * 3) % kind.len());
        json!({"id": at, "prompt": (0..4).map(token).collect::<Vec<_>>().join(" ")}).to_string() + "\n"
    };
    fs::write(path, (0..count).map(line).collect::<String>()).unwrap();
}

/// The planted model and prompts of the three kinds.
fn world() -> TempDir {
    let dir = temp_dir();
    planted(&dir.path().join("model"));
    questions(&dir.path().join("harmful"), 3..16, 20);
    questions(&dir.path().join("pseudo"), 16..29, 20);
    questions(&dir.path().join("harmless"), 29..45, 24);
    dir
}

fn search(dir: &TempDir, command: &str, flags: &[&str]) -> Done {
    let at = |name: &str| dir.path().join(name);
    let run = tool()
        .arg(command)
        .arg("--model")
        .arg(at("model"))
        .arg("--harmful")
        .arg(at("harmful"));
    let run = run
        .arg("--harmless")
        .arg(at("harmless"))
        .args(["--train", "12", "--validation", "8", "--force"]);
    run.args(flags).arg("-o").arg(at("plan.acts")).output()
}

fn rows(records: &[Value], kind: &str) -> Vec<Value> {
    records.iter().filter(|row| row["type"] == kind).cloned().collect()
}

#[test]
fn a_planted_refusal_direction_is_found() {
    let dir = world();
    let records = search(&dir, "select", &[]).expect(0).records();
    let tokens = rows(&records, "refusal_token");
    assert_eq!((tokens.len(), &tokens[0]["token_id"]), (1, &json!(REFUSAL)));
    assert_eq!(
        (&tokens[0]["share_harmful"], &tokens[0]["share_harmless"]),
        (&json!(1.0), &json!(0.0))
    );

    let candidates = rows(&records, "candidate");
    assert_eq!(candidates.len(), LAYERS * TAIL.len());
    for row in &candidates {
        let layer = row["layer_index"].as_u64().unwrap();
        let discarded = match layer {
            0 | 1 => json!("nan"), // the tail knows nothing of the question yet
            4 => json!("layer"),
            _ => Value::Null,
        };
        assert_eq!(row["discarded"], discarded, "{row}");
        if (2..4).contains(&layer) {
            assert!(row["kl"].as_f64().unwrap() < 1e-6, "{row}");
            assert!(row["refusal_harmful"].as_f64().unwrap() < -3.0, "{row}");
            assert!(row["induced_harmless"].as_f64().unwrap() > 0.0, "{row}");
        }
    }
    let chosen: Vec<&Value> = candidates.iter().filter(|row| row["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);

    let plan = Plan::read(&dir.path().join("plan.acts")).unwrap();
    let sites: Vec<Site> = plan.operations.iter().map(|operation| operation.site).collect();
    assert_eq!(sites, [Site::ResidPre, Site::AttnOut, Site::MlpOut]);
    for operation in &plan.operations {
        assert_eq!((operation.op, operation.layers.len()), (Op::Ablate, LAYERS));
        assert!(cosine(&operation.vectors[0], &axes()[0]) > 1.0 - 1e-9);
        assert_eq!(operation.source["layer_index"], chosen[0]["layer_index"]);
        assert_eq!(operation.source["norm"], chosen[0]["norm"]);
    }
}

#[test]
fn a_false_refusal_direction_is_found_beside_the_true_one() {
    let dir = world();
    let pseudo = dir.path().join("pseudo").display().to_string();
    let records = search(&dir, "surgical", &["--pseudo-harmful", &pseudo])
        .expect(0)
        .records();
    let chosen = rows(&records, "candidate")
        .into_iter()
        .find(|row| row["chosen"] == true)
        .unwrap();
    let score = chosen["refusal_pseudo"].as_f64().unwrap();
    assert!(score < -1.0 && chosen["induced_harmless"].is_null(), "{records:#?}");
    let plan = Plan::read(&dir.path().join("plan.acts")).unwrap();
    assert!(cosine(&plan.operations[0].vectors[0], &axes()[1]) > 1.0 - 1e-6);
    let all = search(&dir, "surgical", &["--pseudo-harmful", &pseudo, "--lambda", "0"]).expect(0);
    drop(all);
    let whole = Plan::read(&dir.path().join("plan.acts")).unwrap();
    assert!(cosine(&whole.operations[0].vectors[0], &axes()[1]) < 0.999);
}

#[test]
fn where_every_candidate_is_discarded_the_answer_is_no() {
    let dir = world();
    for (flag, reason) in [
        ("--kl-max=-1", "kl"),
        ("--induced-min=99", "induced"),
        ("--depth-max=0.4", "layer"),
    ] {
        let output = search(&dir, "select", &[flag]).expect(1);
        let warning = &output.stderr;
        assert!(
            warning.contains("no candidate is left of ") && warning.contains(reason),
            "{warning}"
        );
        let records = output.records();
        let candidates = rows(&records, "candidate");
        let tried: Vec<&Value> = candidates
            .iter()
            .filter(|row| [json!(2), json!(3)].contains(&row["layer_index"]))
            .collect();
        assert_eq!(tried.len(), 4);
        tried
            .iter()
            .for_each(|row| assert_eq!(row["discarded"], reason, "{flag}"));
        assert!(candidates.iter().all(|row| row["chosen"] == false));
        assert!(!dir.path().join("plan.acts").exists());
    }
}

#[test]
fn the_same_prompts_give_the_same_bytes_and_use_says_what_the_plan_does() {
    let dir = world();
    let plan = || fs::read(dir.path().join("plan.acts")).unwrap();
    let first = search(&dir, "select", &["--refusal-tokens", "1"]).expect(0);
    let bytes = plan();
    let again = search(&dir, "select", &["--refusal-tokens", "1"]).expect(0);
    assert!(first.stdout == again.stdout && bytes == plan());
    let renamed = fs::read_to_string(dir.path().join("harmful"))
        .unwrap()
        .replace("\"prompt\"", "\"instruction\"");
    fs::write(dir.path().join("harmful"), renamed).unwrap();
    search(&dir, "select", &["--refusal-tokens", "1"]).refused(3, "prompt");
    let harmless = fs::read_to_string(dir.path().join("harmless"))
        .unwrap()
        .replace("\"prompt\"", "\"instruction\"");
    fs::write(dir.path().join("harmless"), harmless).unwrap();
    search(&dir, "select", &["--use", "add", "--field", "instruction"]).expect(0);
    let added = Plan::read(&dir.path().join("plan.acts")).unwrap();
    assert_eq!((added.operations.len(), added.operations[0].op), (1, Op::Add));
}

#[test]
fn a_model_that_refuses_nothing_is_refused() {
    let dir = world();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::copy(at("harmless"), at("harmful")).unwrap();
    search(&dir, "select", &[]).refused(3, "no token opens");
    search(&dir, "select", &["--refusal-tokens", "1"]).refused(3, "none of the 12 harmful prompts for train");
    search(&dir, "select", &["--refusal-tokens", "48"]).refused(2, "beyond the vocabulary");
    fs::write(at("harmful"), "{\"id\":1,\"prompt\":\"t3\"}\n").unwrap();
    search(&dir, "select", &[]).refused(3, "1 prompts");
    fs::write(at("model/tokenizer_config.json"), "{}").unwrap();
    search(&dir, "select", &[]).refused(3, "no chat template");
}

/// A dump of one site: rows of two groups, of every layer.
fn dump(path: &Path, layers: &[[Vec<Vec<f64>>; 2]], first_id: usize) {
    let width = layers[0][0][0].len();
    let mut header = Header::new("test", "1", "sha256:0", None);
    header.meta.insert("layer_count".into(), layers.len().into());
    header.model_digest = Some("blake3:00".into());
    let spec = |layer| TensorSpec::activations(acts::Site::ResidPost, Some(layer), Dtype::F32, width as u64);
    header.tensors = (0..layers.len() as u32).map(spec).collect();
    header.tensors.push(TensorSpec::samples());
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    for (layer, groups) in layers.iter().enumerate() {
        let numbers: Vec<f32> = groups.iter().flatten().flatten().map(|x| *x as f32).collect();
        writer.push_f32(layer, &numbers).unwrap();
    }
    let mut row = 0;
    for (group, rows) in ["a", "b"].iter().zip(&layers[0]) {
        for at in 0..rows.len() {
            let sample = json!({
                "type": "sample", "id": format!("p{}", first_id + at), "sample_index": row, "group": group, "text_digest": "sha256:0",
                "token_count": 1, "row_start": row, "row_count": 1,
            });
            writer.push(layers.len(), format!("{sample}\n").as_bytes()).unwrap();
            row += 1;
        }
    }
    fs::write(path, writer.finish().unwrap().0).unwrap();
}

fn wave(count: usize, a: f64) -> Vec<Vec<f64>> {
    let at = |i: usize, j: usize| (a * ((i + 1) * (j + 1)) as f64 + 0.1 * j as f64).sin();
    (0..count).map(|i| (0..WIDTH).map(|j| at(i, j)).collect()).collect()
}

fn of_dump(command: &str, dir: &TempDir, flags: &[&str]) -> (Vec<Value>, Plan) {
    let at = |name: &str| dir.path().join(name);
    let run = tool()
        .arg(command)
        .arg(at("dump.acts"))
        .args(["--positive", "a", "--negative", "b", "--force"]);
    let records = run
        .args(flags)
        .arg("-o")
        .arg(at("plan.acts"))
        .output()
        .expect(0)
        .records();
    (records, Plan::read(&at("plan.acts")).unwrap())
}

fn near(found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-5, "{found}, not {wanted}");
    }
}

#[test]
fn mean_and_function_are_differences_of_means() {
    let dir = temp_dir();
    let (a, b) = (wave(20, 0.41), wave(20, 0.83));
    dump(
        &dir.path().join("dump.acts"),
        &[[a.clone(), b.clone()], [b.clone(), a.clone()]],
        0,
    );
    let mean = |rows: &[Vec<f64>], j: usize| rows.iter().map(|row| row[j]).sum::<f64>() / 20.0;
    let wanted: Vec<f64> = (0..WIDTH).map(|j| mean(&a, j) - mean(&b, j)).collect();
    for command in ["mean", "function"] {
        let (records, plan) = of_dump(command, &dir, &[]);
        assert_eq!(rows(&records, "candidate").len(), 2);
        assert_eq!((plan.operations.len(), plan.operations[0].site), (2, Site::ResidPost));
        near(&plan.operations[0].vectors[0], &wanted);
        near(
            &plan.operations[1].vectors[0],
            &wanted.iter().map(|x| -x).collect::<Vec<_>>(),
        );
        assert_eq!(plan.operations[1].layers, [1]);
    }
}

#[test]
fn au_scales_the_dimensions_of_numpy() {
    let dir = temp_dir();
    dump(&dir.path().join("dump.acts"), &[[wave(20, 0.41), wave(20, 0.83)]], 0);
    let (records, plan) = of_dump("au", &dir, &["--dimensions", "4", "--alpha", "8"]);
    let found: Vec<(u64, f64)> = rows(&records, "dimension")
        .iter()
        .map(|row| (row["dim"].as_u64().unwrap(), row["beta"].as_f64().unwrap()))
        .collect();
    assert_eq!(found, [(14, -1.0), (4, -0.65), (9, -0.65), (2, -0.6)]);
    let operation = &plan.operations[0];
    assert_eq!((operation.op, operation.coefficient), (Op::Scale, 8.0));
    let factors = &operation.vectors[0];
    assert_eq!((factors[14], factors[4], factors[0]), (-1.0, -0.65, 0.0));
}

#[test]
fn cluster_finds_planted_clusters_and_gates_each() {
    let dir = temp_dir();
    let axes = axes();
    let near_axis = |axis: usize, at: usize| -> Vec<f64> {
        (0..WIDTH)
            .map(|j| 4.0 * axes[axis][j] + 0.2 * axes[5 + at % 7][j])
            .collect()
    };
    let forget: Vec<Vec<f64>> = (0..24).map(|at| near_axis(at % 3, at / 3)).collect();
    let retain: Vec<Vec<f64>> = (0..10).map(|at| near_axis(4, at)).collect();
    dump(&dir.path().join("dump.acts"), &[[forget, retain]], 0);
    let (records, plan) = of_dump(
        "cluster",
        &dir,
        &["--clusters-max", "6", "--alpha", "0.5", "--gate", "0.6"],
    );
    let chosen = rows(&records, "clustering")
        .into_iter()
        .find(|row| row["chosen"] == true)
        .unwrap();
    assert_eq!(
        (&chosen["cluster_count"], &chosen["sizes"]),
        (&json!(3), &json!([8, 8, 8]))
    );
    assert_eq!(plan.operations.len(), 3);
    for (axis, operation) in plan.operations.iter().enumerate() {
        let gate = operation.gate.as_ref().unwrap();
        assert!(cosine(&gate.direction, &axes[axis]) > 0.99 && gate.at_least == 0.6);
        assert!(cosine(&operation.vectors[0], &axes[axis]) > 0.99);
        assert!((dot(&operation.vectors[0], &operation.vectors[0]).sqrt() - 16.04f64.sqrt()).abs() < 1e-4);
        assert_eq!((operation.op, operation.coefficient), (Op::Redirect, 0.5));
    }
}

#[test]
fn plane_rotates_the_layers_in_which_the_groups_part() {
    let dir = temp_dir();
    let axes = axes();
    let around = |weights: &[(f64, usize)], at: usize| -> Vec<f64> {
        let noise = 0.1 * axes[8 + at % 5][at % 3];
        (0..WIDTH)
            .map(|j| weights.iter().map(|(w, axis)| w * axes[*axis][j]).sum::<f64>() + noise * axes[9][j])
            .collect()
    };
    let group = |weights: &[(f64, usize)]| -> Vec<Vec<f64>> { (0..6).map(|at| around(weights, at)).collect() };
    let layers = [
        [group(&[(3.0, 0)]), group(&[(1.0, 0)])],                       // the same side
        [group(&[(2.0, 0), (0.5, 1)]), group(&[(-2.0, 0)])],            // opposite
        [group(&[(2.0, 0), (-0.5, 1)]), group(&[(-2.0, 0), (0.1, 1)])], // opposite
    ];
    dump(&dir.path().join("dump.acts"), &layers, 0);
    let (records, plan) = of_dump("plane", &dir, &["--angle", "90"]);
    let chosen: Vec<bool> = rows(&records, "plane_layer")
        .iter()
        .map(|row| row["chosen"] == true)
        .collect();
    assert_eq!(chosen, [false, true, true]);
    let operation = &plan.operations[0];
    assert_eq!(
        (operation.op, operation.mode, operation.angle),
        (Op::Rotate, Some(Mode::Relative), Some(90.0))
    );
    assert_eq!(operation.layers, [1, 2]);
    let basis = operation.basis().unwrap();
    assert!(cosine(&basis[0], &axes[0]) > 0.98 && cosine(&basis[1], &axes[1]).abs() > 0.98);
}

#[test]
fn dumps_that_do_not_fit_are_refused() {
    let dir = temp_dir();
    let at = |name: &str| dir.path().join(name);
    let groups = || [wave(4, 0.41), wave(4, 0.83)];
    dump(&at("one"), &[groups()], 0);
    dump(&at("other"), &[groups()], 2);
    let run = |command: &str, files: &[&str], flags: &[&str]| {
        let files: Vec<PathBuf> = files.iter().map(|name| at(name)).collect();
        tool()
            .arg(command)
            .args(files)
            .args(flags)
            .arg("-o")
            .arg(at("plan"))
            .output()
    };
    run("mean", &["one"], &[]).refused(2, "one dump needs two groups");
    run("mean", &["one"], &["--positive", "a", "--negative", "c"]).refused(3, "no sample of --negative \"c\"");
    run(
        "mean",
        &["one"],
        &["--positive", "a", "--negative", "b", "--positions", "-2"],
    )
    .refused(3, "none at position -2");
    run(
        "mean",
        &["one"],
        &["--positive", "a", "--negative", "b", "--site", "mlp_out"],
    )
    .refused(3, "no activations");
    run("au", &["one", "other"], &["--positive", "a", "--negative", "b"]).refused(3, "no sample p0 to pair");
    dump(&at("same"), &[[wave(4, 0.41), wave(4, 0.41)]], 0);
    run("mean", &["same"], &["--positive", "a", "--negative", "b"]).refused(3, "the same mean");
    dump(&at("nan"), &[[vec![vec![f64::NAN; WIDTH]], wave(1, 0.83)]], 0);
    run("mean", &["nan"], &["--positive", "a", "--negative", "b"]).refused(3, "is not finite at resid_post.0");
    tool().arg("mean").arg(at("one")).output().refused(2, "--output");
}

/// A direction taken out of the stream of a fixture model.
fn ablation(family: &str, dir: &TempDir) -> PathBuf {
    let path = dir.path().join("model");
    worded_model(family, &path);
    let checkpoint = Checkpoint::open(&path, &Options::default()).unwrap();
    let width = checkpoint.config().hidden_size;
    let vector: Vec<f64> = (0..width).map(|j| (0.9 * (j + 1) as f64).sin()).collect();
    let layers: Vec<usize> = (0..checkpoint.config().layer_count()).collect();
    let operations = [Site::ResidPre, Site::AttnOut, Site::MlpOut]
        .map(|site| steering::Operation::new(Op::Ablate, site, layers.clone(), vec![vector.clone()]));
    let plan = Plan {
        made: steering::Made::of(&checkpoint),
        operations: operations.into(),
    };
    save(&plan, &dir.path().join("plan.acts"));
    path
}

fn save(plan: &Plan, path: &Path) {
    let output = process::Output::create_binary(path, process::Existing::Replace, &[]).unwrap();
    plan.write(output, Header::new("test", "1", "sha256:0", None))
        .unwrap()
        .commit()
        .unwrap();
}

fn bake(dir: &TempDir, out: &str) -> Done {
    let at = |name: &str| dir.path().join(name);
    tool()
        .arg("bake")
        .arg("--model")
        .arg(at("model"))
        .arg("--steer")
        .arg(at("plan.acts"))
        .arg("-o")
        .arg(at(out))
        .output()
}

fn logits(path: &Path, plan: Option<&Plan>) -> Vec<f32> {
    let checkpoint = Checkpoint::open(path, &Options::default()).unwrap();
    let decoder = checkpoint.load().unwrap();
    let mut steering = Steering::new(checkpoint.config(), checkpoint.device());
    let layers: Vec<usize> = (0..checkpoint.config().layer_count()).collect();
    let how = How {
        scale: 1.0,
        layers: &layers,
        allow_other_model: false,
    };
    plan.iter()
        .for_each(|plan| plan.steer(&mut steering, &checkpoint, how).unwrap());
    let batch = Batch::pack(&[[5u32, 17, 40, 9, 3]]);
    let normed = decoder
        .forward(&Tape::off(), &batch, &mut steering.probe(), None)
        .unwrap();
    decoder
        .logits(&Tape::off(), &normed)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

#[test]
fn baked_weights_compute_what_the_plan_computes() {
    for family in ["llama", "gpt2", "qwen2", "gpt_neox", "gemma", "phi3"] {
        let dir = temp_dir();
        let model = ablation(family, &dir);
        bake(&dir, "baked").expect(0);
        let plan = Plan::read(&dir.path().join("plan.acts")).unwrap();
        let (plain, steered) = (logits(&model, None), logits(&model, Some(&plan)));
        let baked = logits(&dir.path().join("baked"), None);
        let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(far(&baked, &steered) < 1e-4, "{family}: {}", far(&baked, &steered));
        assert!(far(&baked, &plain) > 1e-2, "{family}");
        assert!(dir.path().join("baked/tokenizer.json").exists());
    }
}

#[test]
fn what_cannot_stand_in_weights_is_refused() {
    for family in ["gemma2", "olmo2"] {
        let dir = temp_dir();
        ablation(family, &dir);
        bake(&dir, "baked").refused(3, "norms stand between");
        assert!(!dir.path().join("baked").exists());
    }
    let dir = temp_dir();
    ablation("llama", &dir);
    let path = dir.path().join("plan.acts");
    let whole = Plan::read(&path).unwrap();
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = whole.clone();
        change(&mut plan);
        save(&plan, &path);
    };
    with(&|plan| plan.operations[1].layers = vec![0, 1]);
    bake(&dir, "baked").refused(3, "a part of the residual stream");
    with(&|plan| plan.operations[0].coefficient = 0.5);
    bake(&dir, "baked").refused(3, "only that can stand in weights");
    with(&|plan| plan.made.model_digest = Some("blake3:00".into()));
    bake(&dir, "baked").refused(3, "was made for the model");
    with(&|_| ());
    bake(&dir, "baked").expect(0);
    bake(&dir, "baked").refused(5, "exists");
}
