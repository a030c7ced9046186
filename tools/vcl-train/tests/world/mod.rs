//! A directory with a tiny model and training rows, and runs of the tool over them.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use harness::{Done, Run, TempDir, temp_dir};
use serde_json::{Value, json};

pub const TOOL: &str = env!("CARGO_BIN_EXE_vcl-train");

/// A directory with a tiny model (the goldens' weights, a tokenizer of letters) and training rows.
pub struct World {
    pub directory: TempDir,
}

impl World {
    pub fn new() -> Self {
        let world = Self { directory: temp_dir() };
        let model = world.path("model");
        fs::create_dir(&model).unwrap();
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/model");
        for name in ["config.json", "model.safetensors"] {
            fs::copy(goldens.join(name), model.join(name)).unwrap();
        }
        let mut vocab = serde_json::Map::new();
        let letters = ('a'..='z').chain([' ', '.', ',', '?', '\n']).map(String::from);
        for (id, token) in ["<unk>", "<s>", "</s>"]
            .into_iter()
            .map(String::from)
            .chain(letters)
            .enumerate()
        {
            vocab.insert(token, id.into());
        }
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                   "special": true})
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
        });
        write_json(&model.join("tokenizer.json"), &tokenizer);
        write_json(
            &model.join("tokenizer_config.json"),
            &json!({"bos_token": "<s>", "eos_token": "</s>"}),
        );
        world.rows("rows.jsonl", 1, 40);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Made-up conversations in which the answer repeats the question's letters.
    pub fn rows(&self, name: &str, seed: u64, count: usize) -> PathBuf {
        let mut state = seed;
        let mut draw = |bound: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let mut text = String::new();
        for id in 0..count {
            let length = 3 + draw(8);
            let word: String = (0..length).map(|_| char::from(b'a' + draw(26) as u8)).collect();
            let row =
                json!({"id": format!("r{id}"), "prompt": format!("{word}?"), "completion": format!("{word}, {word}.")});
            text.push_str(&format!("{row}\n"));
        }
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The arguments of a short run: these, and the usual ones that they do not name.
    pub fn arguments(&self, out: &str, more: &[&str]) -> Vec<OsString> {
        let path = |name: &str| self.path(name).into_os_string();
        let usual = [
            ("--model", path("model")),
            ("--data", path("rows.jsonl")),
            ("--threads", "2".into()),
            ("--batch-size", "6".into()),
            ("--steps", "12".into()),
            ("--lr", "0.005".into()),
            ("-o", path(out)),
        ];
        let is_named = |flag: &str| more.contains(&flag) || flag == "--model" && more.contains(&"--init");
        let missing = usual.into_iter().filter(|(flag, _)| !is_named(flag));
        let missing = missing.flat_map(|(flag, value)| [OsString::from(flag), value]);
        missing.chain(more.iter().map(OsString::from)).collect()
    }

    pub fn train(&self, out: &str, more: &[&str]) -> Done {
        Run::new(TOOL).args(self.arguments(out, more)).output()
    }

    /// Starts a run, and waits until it has said `lines` lines.
    pub fn start(&self, out: &str, more: &[&str], lines: usize) -> (Child, BufReader<ChildStdout>) {
        let mut child = Command::new(TOOL)
            .args(self.arguments(out, more))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        for _ in 0..lines {
            assert_ne!(output.read_line(&mut String::new()).unwrap(), 0, "the run ended early");
        }
        (child, output)
    }

    /// Kills a run with signal 9 once it has said `lines` lines.
    pub fn kill(&self, out: &str, more: &[&str], lines: usize) {
        let (mut child, _) = self.start(out, more, lines);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

pub fn write_json(path: &Path, value: &Value) {
    fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();
}
