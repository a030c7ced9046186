//! `--soft-prompt` in the tools that take it: where it is the embeddings of a text, every bit is that of the text; and files and prompts that do
//! not fit are refused.

use std::collections::HashMap;
use std::path::PathBuf;

use harness::{Done, Run, TempDir, temp_dir, tool, worded_model};
use model::{Checkpoint, Options, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'system' %}t3 {{ m.content }} t4 {% else %}t5 {{ m.content }} t6 {% endif %}\
                        {% endfor %}t7";
const TEXT: &str = "t10 t11 t12";
const IDS: [u32; 3] = [10, 11, 12];

/// A model with a tokenizer and a chat template, and soft prompts for it.
struct Bench {
    dir: TempDir,
}

/// What a file of a soft prompt says, and holds.
struct Soft {
    text: &'static str,
    model_digest: String,
    tokenizer_digest: String,
    values: Vec<f32>,
    width: usize,
}

impl Bench {
    fn new(family: &str) -> Bench {
        let dir = temp_dir();
        worded_model(family, &dir.path().join("model"));
        std::fs::write(dir.path().join("model/chat_template.jinja"), TEMPLATE).expect("a template");
        Bench { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The embeddings of the text.
    fn soft(&self) -> Soft {
        let checkpoint = Checkpoint::open(&self.path("model"), &Options::default()).expect("a model");
        let config = checkpoint.config();
        let [table, _] = config.table_names();
        let table = checkpoint
            .weight(&table, &[config.vocab_size, config.hidden_size])
            .expect("a table");
        let rows = table
            .index_select(&Tensor::new(&IDS, table.device()).expect("ids"), 0)
            .expect("rows");
        let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
        Soft {
            text: TEXT,
            model_digest: checkpoint.digest().to_owned(),
            tokenizer_digest: format!("blake3:{}", tokenizer.digest().to_hex()),
            values: rows.flatten_all().expect("rows").to_vec1().expect("numbers"),
            width: config.hidden_size,
        }
    }

    fn write(&self, name: &str, soft: &Soft) -> String {
        let data: Vec<u8> = soft.values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let shape = vec![soft.values.len() / soft.width, soft.width];
        let view = TensorView::new(Dtype::F32, shape, &data).expect("a tensor");
        let said = [
            ("text", soft.text),
            ("model_digest", soft.model_digest.as_str()),
            ("tokenizer_digest", soft.tokenizer_digest.as_str()),
        ];
        let said: HashMap<String, String> = said.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let path = self.path(name);
        let bytes = safetensors::serialize([("soft_prompt", view)], Some(said)).expect("a file");
        std::fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    }

    fn changed(&self, name: &str, change: impl FnOnce(&mut Soft)) -> String {
        let mut soft = self.soft();
        change(&mut soft);
        self.write(name, &soft)
    }

    fn own(&self) -> String {
        self.changed("own.safetensors", |_| ())
    }

    fn run(&self, name: &str, flags: &[&str], prompt: &Value) -> Done {
        let run = Run::new(tool(name)).arg("--model").arg(self.path("model"));
        run.args(flags).arg("-").stdin(prompt.to_string() + "\n").output()
    }

    fn answer(&self, flags: &[&str], prompt: &Value) -> Value {
        let base = ["--max-new-tokens", "8", "--batch", "2"];
        let records = self.run("lm-gen", &[&base, flags].concat(), prompt).expect(0).records();
        let mut row = records
            .into_iter()
            .find(|row| row["type"] == "completion")
            .expect("a completion");
        row.as_object_mut().expect("an object").remove("system");
        row
    }

    fn refused(&self, code: i32, words: &str, flags: &[&str]) {
        self.run("lm-gen", flags, &asked()).refused(code, words);
    }
}

fn asked() -> Value {
    json!({"id": "a", "prompt": "t20 t21"})
}

fn residuals(path: &std::path::Path) -> Vec<Vec<f32>> {
    let file = acts::File::open(path, acts::OpenOptions::default()).expect("a dump");
    let tensors = file.header().tensors.iter().enumerate();
    let sites = tensors.filter(|(_, tensor)| tensor.name.contains("resid") || tensor.name == "logits");
    sites
        .map(|(at, _)| file.to_vec(at, 0..file.row_count(at)).expect("rows"))
        .collect()
}

#[test]
fn the_embeddings_of_a_text_are_that_text_to_the_bit() {
    for family in ["llama", "gemma2", "gpt2"] {
        let bench = Bench::new(family);
        let soft = bench.own();
        let told = bench.answer(&["--system", TEXT], &asked());
        assert_eq!(bench.answer(&["--soft-prompt", &soft], &asked()), told, "{family}");

        let scored = json!({"id": "a", "prompt": "t20 t21", "choices": ["t30 t31", "t32"]});
        let told = bench.answer(&["--system", TEXT], &scored);
        assert_eq!(bench.answer(&["--soft-prompt", &soft], &scored), told, "{family}");
        assert_ne!(
            bench.answer(&[], &scored)["choice_log_prob"],
            told["choice_log_prob"],
            "{family}"
        );

        let contrast = ["--contrast", "self:2.5"];
        let told = bench.answer(&[&contrast[..], &["--system", TEXT]].concat(), &asked());
        assert_eq!(
            bench.answer(&[&contrast[..], &["--soft-prompt", &soft]].concat(), &asked()),
            told,
            "{family}"
        );

        let dump = |name: &str, flags: &[&str], prompt: &Value| {
            let path = bench.path(name);
            let out = path.display().to_string();
            let base = [
                "--chat",
                "--sites",
                "resid_post,logits",
                "--positions",
                "all",
                "-o",
                &out,
            ];
            bench.run("resid-dump", &[&base, flags].concat(), prompt).expect(0);
            residuals(&path)
        };
        let written = dump(
            "written.acts",
            &[],
            &json!({"id": "a", "prompt": "t20 t21", "system": TEXT}),
        );
        assert_eq!(
            dump("soft.acts", &["--soft-prompt", &soft], &asked()),
            written,
            "{family}"
        );
    }
}

#[test]
fn stable_regions_measures_prompts_behind_a_soft_prompt() {
    let bench = Bench::new("llama");
    let pairs = bench.path("pairs.jsonl");
    let curve = |pair: Value, flags: &[&str]| -> Value {
        std::fs::write(&pairs, pair.to_string() + "\n").expect("pairs");
        let run = Run::new(tool("stable-regions")).arg("--model").arg(bench.path("model"));
        let run = run
            .args(["--steps", "5", "--layers", "0", "--pairs"])
            .arg(&pairs)
            .args(flags);
        let records = run.output().expect(0).records();
        records.iter().find(|row| row["type"] == "region").expect("a region")["curve"].clone()
    };
    let written = |last: u32| json!([3, 10, 11, 12, 4, 5, 20, last, 6, 7]);
    let tokens = json!({"id": "p", "tokens_a": written(21), "tokens_b": written(40)});
    let texts = json!({"id": "p", "a": "t20 t21", "b": "t20 t40"});
    let soft = bench.own();
    assert_eq!(
        curve(texts.clone(), &["--chat", "--soft-prompt", &soft]),
        curve(tokens, &[])
    );
    assert_ne!(
        curve(texts.clone(), &["--chat"]),
        curve(texts, &["--chat", "--soft-prompt", &soft])
    );
}

#[test]
fn other_rows_say_something_else_and_stand_in_the_plan() {
    let bench = Bench::new("llama");
    let own = bench.own();
    let other = bench.changed("other.safetensors", |soft| {
        soft.values.iter_mut().for_each(|x| *x *= -3.0)
    });
    let scored = json!({"id": "a", "prompt": "t20", "choices": ["t30"]});
    let log_prob = |soft: &str| bench.answer(&["--soft-prompt", soft], &scored)["choice_log_prob"].clone();
    assert_ne!(log_prob(&own), log_prob(&other));
    let out = bench.path("out.jsonl").display().to_string();
    let write = |soft: &str, more: &[&str]| {
        let flags = ["--soft-prompt", soft, "--max-new-tokens", "2", "-o", &out];
        bench.run("lm-gen", &[&flags, more].concat(), &asked())
    };
    write(&own, &[]).expect(0);
    write(&own, &["--resume"]).expect(0);
    write(&other, &["--resume"]).refused(5, "another");
    let shown = bench
        .run("lm-gen", &["--soft-prompt", &own, "--plan"], &asked())
        .expect(0);
    let shown: Value = serde_json::from_str(shown.text()).expect("a plan");
    assert_eq!(
        shown["soft_prompt"],
        process::sha256(&std::fs::read(&own).expect("the file"))
    );
}

#[test]
fn a_soft_prompt_that_does_not_fit_is_refused() {
    let bench = Bench::new("llama");
    let refused = |words: &str, change: &dyn Fn(&mut Soft)| {
        let file = bench.changed("bad.safetensors", change);
        bench.refused(3, words, &["--soft-prompt", &file]);
    };
    refused("the model's width is 16", &|soft| soft.width = 8);
    refused("NaN at element 5", &|soft| soft.values[5] = f32::NAN);
    refused("under the tokenizer blake3:00", &|soft| {
        soft.tokenizer_digest = "blake3:00".into()
    });
    refused("on the model blake3:00", &|soft| soft.model_digest = "blake3:00".into());
    refused("3 rows, and the text that it stands for is 2 tokens", &|soft| {
        soft.text = "t10 t11"
    });
    refused("its metadata has no `text`", &|soft| soft.text = "");
    let other = bench.changed("other.safetensors", |soft| soft.model_digest = "blake3:00".into());
    let insisted = bench.answer(&["--soft-prompt", &other, "--allow-other-model"], &asked());
    assert_eq!(insisted, bench.answer(&["--soft-prompt", &bench.own()], &asked()));
    bench.refused(4, "nowhere", &["--soft-prompt", "nowhere"]);
}

#[test]
fn prompts_without_a_place_for_it_are_refused() {
    let bench = Bench::new("llama");
    let own = bench.own();
    bench.refused(2, "cannot be used with", &["--soft-prompt", &own, "--raw"]);
    bench.refused(2, "cannot be used with", &["--soft-prompt", &own, "--system", "t1"]);
    bench.refused(
        2,
        "ada brings a system message",
        &["--soft-prompt", &own, "--contrast", "ada"],
    );
    let flat = bench.path("flat.jinja");
    std::fs::write(
        &flat,
        "{% for m in messages if m.role != 'system' %}{{ m.content }} {% endfor %}t7",
    )
    .expect("a template");
    let flat = flat.display().to_string();
    bench.refused(
        3,
        "has no place for a system message",
        &["--soft-prompt", &own, "--template", &flat],
    );
    std::fs::write(
        &flat,
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}",
    )
    .expect("a template");
    bench.refused(3, "no system role", &["--soft-prompt", &own, "--template", &flat]);
    let systematic = json!({"id": "a", "prompt": "t20", "system": "t9"});
    let run = bench.run("lm-gen", &["--soft-prompt", &own], &systematic);
    run.refused(3, "a system message of the prompt's own");
    bench
        .run("resid-dump", &["--soft-prompt", &own, "-o", "x.acts"], &asked())
        .refused(2, "--soft-prompt");
}
