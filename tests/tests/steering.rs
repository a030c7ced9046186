//! `--steer` in the tools that take it: tokens and logits of PyTorch's hooks (`scripts/parity/steering.py`), the short forms, and plans that do
//! not fit.

use std::path::{Path, PathBuf};

use harness::{Done, Run, TempDir, temp_dir, tool, worded_model, workspace};
use model::{Checkpoint, Options, Site};
use process::{Existing, Output};
use serde_json::{Value, json};
use steering::{Made, Mode, Op, Operation, Plan};

/// A model with a tokenizer, and its plans.
struct Bench {
    dir: TempDir,
    family: &'static str,
}

fn wave(a: f64) -> Vec<f64> {
    (0..16)
        .map(|j| ((a * f64::from(j + 1)).sin() * 1e3).round_ties_even() / 1e3)
        .collect()
}

fn add(site: Site, layers: &[usize]) -> Operation {
    Operation::new(Op::Add, site, layers.to_vec(), vec![wave(0.7)])
}

impl Bench {
    fn new(family: &'static str) -> Bench {
        let dir = temp_dir();
        worded_model(family, &dir.path().join("model"));
        Bench { dir, family }
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.model(), &Options::default()).expect("a model")
    }

    fn made(&self) -> Made {
        Made::of(&self.checkpoint())
    }

    fn plan(&self, name: &str, operations: Vec<Operation>) -> String {
        self.plan_for(name, self.made(), operations)
    }

    fn plan_for(&self, name: &str, made: Made, operations: Vec<Operation>) -> String {
        let path = self.dir.path().join(name);
        let output = Output::create_binary(&path, Existing::Refuse, &[]).expect("an output");
        let header = acts::Header::new("test", "1", "sha256:0", None);
        let plan = Plan { made, operations };
        plan.write(output, header).expect("a plan").commit().expect("a file");
        path.display().to_string()
    }

    fn run(&self, name: &str, flags: &[&str], prompt: &str) -> Done {
        let input = json!({"id": "a", "prompt": prompt}).to_string() + "\n";
        let run = Run::new(tool(name)).arg("--model").arg(self.model());
        run.args(flags).arg("-").stdin(input).output()
    }

    fn completion(&self, flags: &[&str], prompt: &str) -> String {
        let base = ["--raw", "--max-new-tokens", "8", "--batch", "2"];
        let records = self.run("lm-gen", &[&base, flags].concat(), prompt).expect(0).records();
        let row = records
            .iter()
            .find(|row| row["type"] == "completion")
            .expect("a completion");
        row["completion"].as_str().expect("a text").trim().to_owned()
    }

    fn refused(&self, code: i32, words: &str, plan: &str) {
        self.run("lm-gen", &["--raw", "--steer", plan], "t5")
            .refused(code, words);
    }
}

fn words(ids: &[f64]) -> String {
    ids.iter().map(|id| format!("t{id}")).collect::<Vec<_>>().join(" ")
}

/// Numbers of lib/steering's goldens.
fn golden(family: &str, key: &str) -> Vec<f64> {
    let path = workspace().join(format!("lib/steering/tests/goldens/{family}.safetensors"));
    let bytes = std::fs::read(path).expect("the goldens");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let entry = &header[key];
    let at = |index: usize| 8 + length + entry["data_offsets"][index].as_u64().expect("an offset") as usize;
    let data = &bytes[at(0)..at(1)];
    match entry["dtype"].as_str() {
        Some("F32") => data
            .chunks_exact(4)
            .map(|x| f32::from_le_bytes(x.try_into().expect("4 bytes")).into())
            .collect(),
        _ => data
            .chunks_exact(8)
            .map(|x| i64::from_le_bytes(x.try_into().expect("8 bytes")) as f64)
            .collect(),
    }
}

#[test]
fn tools_give_the_tokens_and_logits_of_hooks_in_pytorch() {
    let mut token_count = 0;
    for family in ["llama", "gemma2", "gpt2"] {
        let bench = Bench::new(family);
        let prompt = words(&golden(family, "token_ids")[..5]);
        let mut rotation = Operation::new(Op::Rotate, Site::AttnOut, vec![0, 2], vec![wave(0.9), wave(1.3)]);
        (rotation.angle, rotation.mode) = (Some(60.0), Some(Mode::Absolute));
        let mut unit = add(Site::ResidMid, &[0, 2]);
        (unit.mode, unit.coefficient) = (Some(Mode::Unit), -1.25);
        for (name, operation, suffix) in [
            ("rotate-absolute.attn_out", rotation, ""),
            ("add-unit.resid_mid", unit, ":2"),
        ] {
            let plan = bench.plan(name, vec![operation]) + suffix;
            let margin = golden(family, &format!("{name}.margin"))[0];
            if margin > 1e-3 {
                let ends = bench.checkpoint().config().eos.clone();
                let mut wanted = golden(family, &format!("{name}.tokens"));
                let end = wanted.iter().position(|&id| ends.contains(&(id as u32)));
                wanted.truncate(end.unwrap_or(wanted.len()));
                token_count += wanted.len();
                let found = bench.completion(&["--steer", &plan], &prompt);
                assert_eq!(found, words(&wanted), "{family}, {name}");
            }
            let dump = bench.dir.path().join("logits.acts");
            let out = dump.display().to_string();
            let flags = ["--sites", "logits", "--steer", &plan, "--force", "-o", &out];
            bench.run("resid-dump", &flags, &prompt).expect(0);
            let file = acts::File::open(&dump, acts::OpenOptions::default()).expect("a dump");
            let logits: Vec<f32> = file.to_vec(0, 0..1).expect("a row");
            for (found, wanted) in logits.iter().zip(golden(family, &format!("{name}.logits"))) {
                assert!((f64::from(*found) - wanted).abs() < 1e-4, "{family}, {name}");
            }
        }
    }
    assert!(token_count >= 16, "only {token_count} tokens were compared");
}

#[test]
fn a_scale_of_zero_is_no_steering_and_layers_keep_those_of_the_plan() {
    let bench = Bench::new("llama");
    let plan = bench.plan("plan", vec![add(Site::ResidPost, &[0]), add(Site::MlpOut, &[2])]);
    let first = bench.plan("first", vec![add(Site::ResidPost, &[0])]);
    let of = |plan: String| bench.completion(&["--steer", &plan], "t5 t6 t7");
    let plain = bench.completion(&[], "t5 t6 t7");
    assert_eq!(of(format!("{plan}:0")), plain);
    assert_ne!(of(format!("{plan}:4")), plain);
    assert_eq!(of(format!("{plan}:4@0-1")), of(format!("{first}:4")));
    bench.refused(3, "no operation in these layers", &format!("{plan}@1"));
    bench.refused(2, "no layer 7", &format!("{plan}@7"));
}

#[test]
fn two_plans_are_done_one_after_the_other() {
    let bench = Bench::new("llama");
    let half = bench.plan("half", vec![add(Site::ResidPost, &[1])]);
    let one = bench.completion(&["--steer", &format!("{half}:6")], "t9 t4");
    let two = bench.completion(
        &["--steer", &format!("{half}:3"), "--steer", &format!("{half}:3")],
        "t9 t4",
    );
    assert_eq!(one, two);
    assert_ne!(one, bench.completion(&[], "t9 t4"));
}

#[test]
fn what_steered_stands_in_the_plan_of_the_run() {
    let bench = Bench::new("llama");
    let plan = bench.plan("plan", vec![add(Site::ResidPost, &[0])]);
    let shown = bench.run(
        "lm-gen",
        &["--raw", "--plan", "--steer", &format!("{plan}:0.5@0")],
        "t5",
    );
    let shown: Value = serde_json::from_str(shown.expect(0).text()).expect("a plan");
    let found = &shown["interventions"][0];
    assert_eq!(
        (&found["action"], &found["layers"]),
        (&json!({"steer": 0.5}), &json!([0]))
    );
    assert_eq!(
        found["digest"],
        process::sha256(&std::fs::read(&plan).expect("the plan"))
    );
}

#[test]
fn stable_regions_measures_the_model_as_it_is_steered() {
    let bench = Bench::new("llama");
    let plan = bench.plan("plan", vec![add(Site::MlpOut, &[1])]);
    let pairs = bench.dir.path().join("pairs.jsonl");
    std::fs::write(
        &pairs,
        json!({"id": "p", "a": "t5 t6 t7", "b": "t5 t6 t30"}).to_string() + "\n",
    )
    .expect("pairs");
    let curve = |flags: &[&str]| -> Value {
        let run = Run::new(tool("stable-regions")).arg("--model").arg(bench.model());
        let run = run
            .args(["--steps", "5", "--layers", "0", "--pairs"])
            .arg(&pairs)
            .args(flags);
        let records = run.output().expect(0).records();
        records.iter().find(|row| row["type"] == "region").expect("a region")["curve"].clone()
    };
    let plain = curve(&[]);
    assert_ne!(plain, curve(&["--steer", &format!("{plan}:3")]));
    assert_eq!(plain, curve(&["--steer", &format!("{plan}:0")]));
}

#[test]
fn a_plan_for_another_model_is_refused() {
    let bench = Bench::new("llama");
    let made = bench.made();
    let of = |name: &str, change: &dyn Fn(&mut Made)| {
        let mut other = made.clone();
        change(&mut other);
        bench.plan_for(name, other, vec![add(Site::ResidPost, &[0])])
    };
    bench.refused(
        3,
        "the width 32, the model has 16",
        &of("width", &|made| made.width = 32),
    );
    bench.refused(
        3,
        "a layer count of 4, the model has 3",
        &of("depth", &|made| made.layer_count = 4),
    );
    bench.refused(
        3,
        "the family gpt2",
        &of("family", &|made| made.family = Some("gpt2".into())),
    );
    let digest = of("digest", &|made| made.model_digest = Some("blake3:00".into()));
    bench.refused(3, "was made for the model blake3:00", &digest);
    let insisted = bench.completion(&["--steer", &digest, "--allow-other-model"], "t5 t6");
    assert_eq!(insisted, bench.completion(&["--steer", &of("own", &|_| ())], "t5 t6"));
    let unknown = of("unknown", &|made| (made.model_digest, made.family) = (None, None));
    assert_eq!(insisted, bench.completion(&["--steer", &unknown], "t5 t6"));
}

#[test]
fn places_that_a_model_has_not_are_refused() {
    let bench = Bench::new("gpt_neox");
    let refused = |words: &str, operation| {
        let name = words.replace(' ', "-");
        bench.refused(3, words, &bench.plan(&name, vec![operation]));
    };
    refused("are parallel and have none", add(Site::ResidMid, &[0]));
    refused("lies in no block", add(Site::FinalNorm, &[0]));
    refused("layer 3, and the model has 3", add(Site::ResidPre, &[3]));
    refused("mlp_gate has the width 24", add(Site::MlpGate, &[0]));
    assert_eq!(bench.family, "gpt_neox");
}

/// A container of these tensors.
fn container(path: &Path, json: &str, vector: &[f64]) {
    use acts::{Dtype, Header, Role, TensorSpec, Writer};
    let mut header = Header::new("test", "1", "sha256:0", None);
    header.meta.insert("layer_count".into(), 3.into());
    header.meta.insert("width".into(), 16.into());
    header.tensors = vec![
        TensorSpec::new("steer", Dtype::U8, &[]).role(Role::Steering),
        TensorSpec::new("steer.0.vector", Dtype::F64, &[vector.len() as u64]).role(Role::Steering),
    ];
    header.fix_blocks().expect("blocks");
    let mut writer = Writer::new(Vec::new(), header, 1).expect("a writer");
    writer.push(0, json.as_bytes()).expect("the text");
    writer.push_exact::<f64>(1, vector).expect("a vector");
    std::fs::write(path, writer.finish().expect("an end").0).expect("a file");
}

#[test]
fn a_plan_that_makes_no_sense_is_refused() {
    let bench = Bench::new("llama");
    let path = bench.dir.path().join("bad.acts");
    let line = |rest: &str| {
        format!(
            r#"{{"operations":[{{"site":"resid_post","layers":[0],"positions":"all","op":"add","coefficient":1.0{rest}}}]}}"#
        )
    };
    let nan = [vec![f64::NAN], wave(0.7)[1..].to_vec()].concat();
    let cases: [(String, Vec<f64>, &str); 8] = [
        (line(""), nan, "not finite at dimension 0"),
        (line(""), vec![0.0; 16], "vector 0 is zero"),
        (line(""), wave(0.7)[..8].to_vec(), "a vector of 8"),
        (line(r#","power":2"#), wave(0.7), "power"),
        (line(r#","op":"add""#), wave(0.7), "duplicate key"),
        (
            line(r#","gate":{"kind":"cosine","at_least":0.5}"#),
            wave(0.7),
            "a gate of 0 vectors",
        ),
        (line("").replace("resid_post", "resid"), wave(0.7), "resid"),
        (line("").replace("[0]", "[]"), wave(0.7), "names no layer"),
    ];
    for (json, vector, words) in cases {
        container(&path, &json, &vector);
        bench.refused(3, words, &path.display().to_string());
    }
    std::fs::write(&path, "no container").expect("a file");
    bench.refused(3, "not an .acts file", &path.display().to_string());
    let dump = bench.dir.path().join("dump.acts");
    bench
        .run("resid-dump", &["-o", &dump.display().to_string()], "t5")
        .expect(0);
    bench.refused(3, "is no steering plan", &dump.display().to_string());
    bench.refused(4, "/nowhere.acts", "/nowhere.acts");
}

#[test]
fn limits_hold_back_what_flipped_bits_do() {
    let bench = Bench::new("llama");
    let path = |name: &str| bench.dir.path().join(name).display().to_string();
    let dumped = |name: &str, flags: &[&str]| {
        let base = [
            "--raw",
            "--positions",
            "all",
            "--sites",
            "mlp_in,mlp_out",
            "--layers",
            "1",
            "--store-dtype",
            "f32",
            "-o",
        ];
        bench.run(
            "resid-dump",
            &[&base[..], &[&path(name)], flags].concat(),
            "t9 t4 t7 t30 t12",
        )
    };
    let dump = |name: &str, flags: &[&str]| -> Vec<f32> {
        dumped(name, flags).expect(0);
        let file = acts::File::open(Path::new(&path(name)), acts::OpenOptions::default()).expect("a dump");
        let tensor = file.tensor("mlp_in.1").expect("the site");
        file.to_vec(tensor, 0..file.row_count(tensor)).expect("numbers")
    };
    let steer_vec = |args: &[&str]| Run::new(tool("steer-vec")).args(args).output().expect(0);
    let clean = dump("clean.acts", &[]);
    let width = bench.checkpoint().config().mlp_size;
    let (flips, again, limits, limit) = (
        path("flips.acts"),
        path("again.acts"),
        path("limits.acts"),
        path("limit.acts"),
    );
    let model = bench.model().display().to_string();
    let mut seeds = 5..50;
    for out in [&flips, &again] {
        // A flip of the exponent's first bit makes what lies between 1 and 2 infinite, which no dump takes; where it strikes depends on the
        // last bits of the processor's products.
        let is_finite = |seed: &i32| {
            steer_vec(&[
                "flip",
                "--model",
                &model,
                "--layers",
                "1",
                "--rate",
                "0.5",
                "--seed",
                &seed.to_string(),
                "--force",
                "-o",
                out,
            ])
            .expect(0);
            dumped("tried.acts", &["--steer", out, "--force"]).code == 0
        };
        seeds.find(is_finite).expect("flips that leave every number finite");
    }
    let records = steer_vec(&["clip", &path("clean.acts"), "--site", "mlp_in", "-o", &limits]).records();
    steer_vec(&[
        "clip",
        &path("clean.acts"),
        "--site",
        "mlp_in",
        "--per",
        "layer",
        "-o",
        &limit,
    ]);

    let flipped = dump("flipped.acts", &["--steer", &flips]);
    let hit = flipped
        .iter()
        .zip(&clean)
        .filter(|(a, b)| a.to_bits() != b.to_bits())
        .count();
    assert!(
        (clean.len() / 4..3 * clean.len() / 4).contains(&hit),
        "{hit} of {}",
        clean.len()
    );
    assert_eq!(flipped, dump("same.acts", &["--steer", &flips]));
    assert_ne!(flipped, dump("other.acts", &["--steer", &again]));
    assert_eq!(clean, dump("none.acts", &["--steer", &format!("{flips}:0")]));

    let largest = |at: usize| {
        clean
            .iter()
            .skip(at)
            .step_by(width)
            .fold(0f32, |most, x| most.max(x.abs()))
    };
    let most = clean.iter().fold(0f32, |most, x| most.max(x.abs()));
    assert!(flipped.iter().any(|x| x.abs() > most));
    assert_eq!(records[1]["limit_max"].as_f64(), Some(f64::from(most)));
    let held = dump("held.acts", &["--steer", &flips, "--steer", &limits]);
    for (at, x) in held.iter().enumerate() {
        assert!(x.abs() <= largest(at % width), "{x} in dimension {}", at % width);
    }
    let held = dump("held-all.acts", &["--steer", &flips, "--steer", &limit]);
    assert!(held.iter().all(|x| x.abs() <= most));
    assert_eq!(
        clean,
        dump("within.acts", &["--steer", &limits]),
        "nothing lies beyond its own limits"
    );
    let refused = Run::new(tool("steer-vec")).args(["flip", "--model", &model, "--rate", "1.5", "-o", &path("x.acts")]);
    refused.output().refused(2, "from 0 to 1");
}
