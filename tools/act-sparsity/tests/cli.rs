//! What a model can do without: act-sparsity against numpy (`scripts/parity/act_sparsity.py`), its plans in lm-gen, and its search.

use std::fs;
use std::path::{Path, PathBuf};

use acts::{Dtype, Header, TensorSpec, Writer};
use harness::{Done, Run, TempDir, temp_dir, tool, worded_model, workspace};
use serde_json::{Value, json};

/// A model with a tokenizer, activations of it and texts of its own.
struct Bench(TempDir);

impl Bench {
    fn new() -> Bench {
        let dir = temp_dir();
        worded_model("llama", &dir.path().join("model"));
        Bench(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, name: &str, args: &[&str]) -> Done {
        let run = Run::new(tool(name)).current_dir(self.0.path());
        run.args(["--model", "model"]).args(args).output()
    }

    fn measure(&self, args: &[&str]) -> Vec<Value> {
        let records = self.run("act-sparsity", args).expect(0).records();
        let is_row = |row: &Value| row["type"] != "begin" && row["type"] != "end";
        records.into_iter().filter(is_row).collect()
    }

    fn refused(&self, code: i32, words: &str, args: &[&str]) {
        self.run("act-sparsity", args).refused(code, words);
    }

    /// Prompts, a dump of them and what the model says to them.
    fn texts(&self) {
        let prompt = |index: usize| {
            let words: Vec<String> = (0..5).map(|at| format!("t{}", 3 + (7 * index + 5 * at) % 44)).collect();
            json!({"id": index.to_string(), "prompt": words.join(" ")}).to_string() + "\n"
        };
        fs::write(self.path("prompts.jsonl"), (0..6).map(prompt).collect::<String>()).expect("prompts");
        let sites = "attn_in,mlp_in,mlp_act,mlp_up";
        let dump = [
            "prompts.jsonl",
            "--positions",
            "all",
            "--sites",
            sites,
            "-o",
            "dump.acts",
        ];
        self.run("resid-dump", &dump).expect(0);
        let answers = [
            "--raw",
            "--max-new-tokens",
            "12",
            "prompts.jsonl",
            "-o",
            "answers.jsonl",
        ];
        self.run("lm-gen", &answers).expect(0);
    }

    /// As lm-gen scores the answers.
    fn perplexity(&self, flags: &[&str]) -> f64 {
        let base = ["--raw", "--score", "answers.jsonl"];
        let rows = self.run("lm-gen", &[&base, flags].concat()).expect(0).records();
        let sum = |key: &str| rows.iter().filter_map(|row| row[key].as_f64()).sum::<f64>();
        (-sum("log_prob") / sum("token_count")).exp()
    }
}

/// What transformers computed at a site of the llama fixture: rows of f32, and their width.
fn golden(name: &str) -> (Vec<f32>, usize) {
    let bytes = fs::read(workspace().join("tests/fixtures/models/llama/golden.safetensors")).expect("the goldens");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let number = |value: &Value| value.as_u64().expect("a number") as usize;
    let offsets = &header[name]["data_offsets"];
    let data = &bytes[8 + length..][number(&offsets[0])..number(&offsets[1])];
    let floats = data
        .chunks_exact(4)
        .map(|x| f32::from_le_bytes(x.try_into().expect("4 bytes")));
    (floats.collect(), number(&header[name]["shape"][1]))
}

/// A dump of those numbers, with the sites that follow from them.
fn dump_of_goldens(path: &Path) {
    let mut header = Header::new("test", "1", "sha256:0", None);
    header.meta.insert("layer_count".into(), 3.into());
    let mut tensors = Vec::new();
    for layer in 0..3 {
        let (gate, width) = golden(&format!("mlp_gate.{layer}"));
        let silu = |x: f32| (f64::from(x) / (1.0 + (-f64::from(x)).exp())) as f32;
        let act: Vec<f32> = gate.into_iter().map(silu).collect();
        let (hidden, _) = golden(&format!("mlp_in.{layer}"));
        let up = hidden
            .iter()
            .zip(&act)
            .map(|(hidden, act)| (f64::from(*hidden) / f64::from(*act)) as f32);
        let (mixed, narrow) = golden(&format!("attn_in.{layer}"));
        for (site, rows, width) in [
            (acts::Site::MlpUp, up.collect(), width),
            (acts::Site::MlpAct, act, width),
            (acts::Site::MlpIn, hidden, width),
            (acts::Site::AttnIn, mixed, narrow),
        ] {
            let spec = TensorSpec::activations(site, Some(layer), Dtype::F32, width as u64);
            header.tensors.push(spec);
            tensors.push(rows);
        }
    }
    header.fix_blocks().expect("blocks");
    let mut writer = Writer::new(Vec::new(), header, 1).expect("a writer");
    for (index, rows) in tensors.iter().enumerate() {
        writer.push_exact::<f32>(index, rows).expect("rows");
    }
    fs::write(path, writer.finish().expect("an end").0).expect("a file");
}

#[test]
fn every_criterion_gives_the_numbers_of_numpy() {
    let bench = Bench::new();
    dump_of_goldens(&bench.path("dump.acts"));
    let criteria = "zero,topk,fat,teal,cats,chess,wina,cett,rsparse";
    let mut rows = bench.measure(&["dump.acts", "--criterion", criteria, "--alpha", "0.5"]);
    rows.extend(
        bench
            .measure(&["dump.acts", "--criterion", "cett", "--cett", "0.2"])
            .into_iter()
            .map(|mut row| {
                row["criterion"] = "cett at 0.2".into();
                row
            }),
    );
    let wanted = fs::read_to_string(workspace().join("tools/act-sparsity/tests/numpy.json")).expect("the goldens");
    let wanted: Vec<Value> = serde_json::from_str(&wanted).expect("JSON");
    assert_eq!(rows.len(), wanted.len());
    for wanted in &wanted {
        let is_same = |row: &&Value| {
            ["site", "layer_index", "criterion"]
                .iter()
                .all(|key| row[key] == wanted[key])
        };
        let found = rows
            .iter()
            .find(is_same)
            .unwrap_or_else(|| panic!("no row for {wanted}"));
        for (key, wanted_number) in wanted.as_object().expect("an object").iter() {
            if let Some(number) = wanted_number.as_f64() {
                let found_number = found[key].as_f64().unwrap_or(f64::NAN);
                let difference = (found_number - number).abs();
                assert!(
                    difference <= 1e-6 * number.abs().max(1e-3),
                    "{key}: {found}, wanted {wanted}"
                );
            }
        }
    }
}

#[test]
fn a_greedy_division_leaves_out_as_much_and_loses_less_where_it_looks() {
    let bench = Bench::new();
    dump_of_goldens(&bench.path("dump.acts"));
    let of = |allocation: &str| {
        let rows = bench.measure(&["dump.acts", "--criterion", "teal", "--allocation", allocation]);
        let weight = |row: &Value| if row["site"] == "mlp_in" { 24.0 } else { 16.0 };
        let sum = |of: &dyn Fn(&Value) -> f64| rows.iter().map(of).sum::<f64>();
        let share = |row: &Value| weight(row) * row["sparsity"].as_f64().expect("a share");
        let worst = rows
            .iter()
            .map(|row| row["rel_error"].as_f64().expect("an error"))
            .fold(0.0, f64::max);
        (sum(&share) / sum(&weight), worst)
    };
    let (uniform, greedy) = (of("uniform"), of("greedy"));
    assert!((uniform.0 - greedy.0).abs() < 0.01, "{uniform:?} {greedy:?}");
    assert!(greedy.1 < uniform.1, "{uniform:?} {greedy:?}");
    bench.refused(
        2,
        "fat has one threshold for all layers",
        &["dump.acts", "--criterion", "fat", "--allocation", "greedy"],
    );
}

#[test]
fn nothing_left_out_changes_no_score_and_a_run_does_not_go_on_under_another_plan() {
    let bench = Bench::new();
    bench.texts();
    for (criterion, share) in [("wina", "0"), ("teal", "0"), ("cats", "0"), ("wina", "0.9")] {
        let plan = format!("{criterion}-{share}.acts");
        bench.measure(&["dump.acts", "--criterion", criterion, "--sparsity", share, "-o", &plan]);
        let (plain, sparse) = (bench.perplexity(&[]), bench.perplexity(&["--sparsify", &plan]));
        assert_eq!(plain == sparse, share == "0", "{criterion} {share}: {plain} {sparse}");
    }
    let run = |plan: &str, more: &[&str]| {
        let base = ["--raw", "prompts.jsonl", "-o", "out.jsonl", "--sparsify", plan];
        bench.run("lm-gen", &[&base, more].concat())
    };
    run("wina-0.acts", &[]).expect(0);
    run("wina-0.acts", &["--resume"]).expect(0);
    run("wina-0.9.acts", &["--resume"]).refused(5, "out.jsonl");
}

#[test]
fn the_search_brackets_each_bound_and_its_plan_has_the_perplexity_it_says() {
    let bench = Bench::new();
    bench.texts();
    let dense = bench.perplexity(&[]);
    for criterion in ["teal", "wina", "cett"] {
        let plan = format!("{criterion}.acts");
        let base = [
            "dump.acts",
            "--sites",
            "mlp_in",
            "--criterion",
            criterion,
            "--resolution",
            "0.02",
        ];
        let search = [
            "--completions",
            "answers.jsonl",
            "--ppl",
            "10",
            "-o",
            &plan,
            "--",
            "--raw",
        ];
        let rows = bench.measure(&[&base[..], &search].concat());
        let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"));
        let (found, tried): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(|row| row.get("percent").is_some());
        assert_eq!(
            (found.len(), number(tried[0], "level"), number(tried[0], "perplexity")),
            (1, 0.0, dense)
        );
        assert!(tried.len() > 3, "{rows:?}");
        let (found, bound) = (found[0], 1.1 * dense);
        assert_eq!(number(found, "perplexity_dense"), dense);
        assert!(number(found, "perplexity") <= bound && bound < number(found, "perplexity_beyond"));
        let width = number(found, "level_beyond") - number(found, "level");
        assert!(0.0 < width && width <= 0.02, "{found}");
        assert_eq!(bench.perplexity(&["--sparsify", &plan]), number(found, "perplexity"));
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let bench = Bench::new();
    bench.texts();
    let of = |criterion: &'static str| ["dump.acts", "--criterion", criterion];
    let refused = |code, words, criterion, more: &[&str]| bench.refused(code, words, &[&of(criterion), more].concat());
    refused(
        2,
        "a plan is of one criterion at one level",
        "teal,wina",
        &["-o", "p.acts"],
    );
    refused(2, "teal is named twice", "teal,teal", &[]);
    refused(2, "has no threshold", "wina", &["--cett", "0.1"]);
    refused(2, "takes nothing else", "rsparse", &["--threshold", "0.1"]);
    refused(2, "CETT is a layer's", "fat", &["--cett", "0.1"]);
    refused(2, "needs mlp_in", "cats", &["--sites", "attn_in"]);
    refused(2, "not mlp_in or attn_in", "teal", &["--sites", "resid_post"]);
    refused(2, "completions", "teal", &["--ppl", "1"]);
    refused(2, "not a share", "teal", &["--sparsity", "1.5"]);
    refused(
        2,
        "no level to search",
        "zero",
        &["--ppl", "1", "--completions", "answers.jsonl"],
    );
    refused(4, "nowhere", "teal", &["--ppl", "1", "--completions", "nowhere"]);
    // lm-gen's own refusal comes through
    refused(
        3,
        "--score wants a completion",
        "teal",
        &["--ppl", "1", "--completions", "prompts.jsonl", "--", "--raw"],
    );
    let choices = json!({"id": "a", "prompt": "t5", "choices": [" t6", " t7"]}).to_string() + "\n";
    fs::write(bench.path("choices.jsonl"), choices).expect("a file");
    refused(
        3,
        "not of choices",
        "teal",
        &["--ppl", "1", "--completions", "choices.jsonl", "--", "--raw"],
    );

    let dump = [
        "prompts.jsonl",
        "--positions",
        "all",
        "--sites",
        "mlp_in",
        "-o",
        "narrow.acts",
    ];
    bench.run("resid-dump", &dump).expect(0);
    bench.refused(3, "mlp_act.0: is not there", &["narrow.acts", "--criterion", "cats"]);
    bench.refused(3, "has no attn_in", &["narrow.acts", "--sites", "attn_in"]);
    let residual = ["prompts.jsonl", "--sites", "resid_post", "-o", "residual.acts"];
    bench.run("resid-dump", &residual).expect(0);
    bench.refused(3, "has no mlp_in and no attn_in", &["residual.acts"]);
    worded_model("mistral", &bench.path("other"));
    let other = Run::new(tool("act-sparsity")).current_dir(bench.0.path());
    let other = other.args(["narrow.acts", "--model", "other"]).output();
    other.refused(3, "is of the model blake3:");

    worded_model("gpt2", &bench.path("plain"));
    let plain = |tool_name: &str, args: &[&str]| {
        let run = Run::new(tool(tool_name)).current_dir(bench.0.path());
        run.args(["--model", "plain"]).args(args).output()
    };
    let dump = [
        "prompts.jsonl",
        "--positions",
        "all",
        "--sites",
        "mlp_in,mlp_act",
        "-o",
        "plain.acts",
    ];
    plain("resid-dump", &dump).expect(0);
    plain("act-sparsity", &["plain.acts", "--criterion", "cats"]).expect(0);
    plain("act-sparsity", &["plain.acts", "--criterion", "chess"]).refused(2, "have no gate");

    let steer = |args: &[&str], words: &str| {
        bench
            .run("lm-gen", &[&["--raw", "prompts.jsonl"], args].concat())
            .refused(3, words)
    };
    steer(&["--sparsify", "narrow.acts"], "is no steering plan");
    let mut operation = steering::Operation::new(steering::Op::Add, model::Site::MlpOut, vec![0], vec![vec![1.0; 16]]);
    operation.coefficient = 0.5;
    let checkpoint = model::Checkpoint::open(&bench.path("model"), &model::Options::default()).expect("a model");
    let plan = steering::Plan {
        made: steering::Made::of(&checkpoint),
        operations: vec![operation],
    };
    let output =
        process::Output::create_binary(&bench.path("add.acts"), process::Existing::Refuse, &[]).expect("an output");
    let written = plan
        .write(output, Header::new("test", "1", "sha256:0", None))
        .expect("a plan");
    written.commit().expect("a file");
    steer(&["--sparsify", "add.acts"], "does more than leave numbers out");
}
