//! Model directories and prompt rows as every tool that runs a model meets them.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Run, TempDir, lettered_model, temp_dir, tool};
use records::dataset::{Example, InputFormat, Options};
use serde_json::{Value, json};

/// A model with a chat template, rows to run it on and rows to train it on.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(temp_dir());
        lettered_model("llama", &place.path("model"));
        fs::write(
            place.path("rows.jsonl"),
            "{\"id\":\"a\",\"prompt\":\"yes?\",\"completion\":\"no\",\"a\":\"ab\",\"b\":\"ac\"}\n",
        )
        .unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Every tool that takes --model, asked for its plan.
    fn plans(&self, model: &Path) -> Vec<Run> {
        let rows = self.path("rows.jsonl").display().to_string();
        let planned = |name: &str, args: &[&str]| {
            Run::new(tool(name))
                .deadline(Duration::from_secs(20))
                .arg("--model")
                .arg(model)
                .arg("--plan")
                .args(args)
        };
        vec![
            planned("lm-gen", &[&rows]),
            planned("resid-dump", &[&rows]),
            planned("stable-regions", &["--pairs", &rows]),
            planned("vcl-train", &["--data", &rows]),
        ]
    }
}

#[test]
fn every_tool_names_a_bad_model_once() {
    let place = Place::new();
    let (empty, file) = (place.path("empty"), place.path("rows.jsonl"));
    fs::create_dir(&empty).unwrap();
    let damaged = place.path("damaged");
    lettered_model("llama", &damaged);
    fs::write(damaged.join("config.json"), "{").unwrap();
    for path in [place.path("nowhere"), empty, file, damaged] {
        for run in place.plans(&path) {
            let stderr = run.output().stderr;
            let line = stderr.lines().next().unwrap_or_default();
            let named = line.matches(&path.display().to_string()).count();
            assert_eq!(named, 1, "{line}");
        }
    }
}

#[test]
fn a_member_of_a_model_that_is_no_regular_file_is_refused_at_once() {
    for name in [
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    ] {
        for kind in ["fifo", "directory", "socket", "device"] {
            let place = Place::new();
            let (model, member) = (place.path("model"), place.path("model").join(name));
            let _ = fs::remove_file(&member);
            let mut listener = None;
            match kind {
                "fifo" => assert!(Command::new("mkfifo").arg(&member).status().unwrap().success()),
                "directory" => fs::create_dir(&member).unwrap(),
                "socket" => listener = Some(UnixListener::bind(&member).unwrap()),
                _ => symlink("/dev/zero", &member).unwrap(),
            }
            let run = Run::new(tool("lm-gen")).deadline(Duration::from_secs(20));
            let run = run.arg("--follow-links").arg("--plan").arg("--model").arg(&model);
            run.arg(place.path("rows.jsonl"))
                .output()
                .refused(3, &format!("{name}: is not a regular file"));
            drop(listener);
        }
    }
}

#[test]
fn a_template_may_lie_in_any_directory_and_is_the_same_for_every_tool() {
    let place = Place::new();
    let directory = place.path("template");
    fs::create_dir(&directory).unwrap();
    let text = "{% for m in messages %}{{ m.content }}.{% endfor %}";
    fs::write(directory.join("chat_template.jinja"), text).unwrap();
    let digest = format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex());
    for (name, rows) in [
        ("lm-gen", vec![]),
        ("resid-dump", vec![]),
        ("vcl-train", vec!["--data"]),
    ] {
        let run = Run::new(tool(name)).arg("--model").arg(place.path("model"));
        let run = run.arg("--template").arg(&directory).arg("--plan").args(rows);
        let plan: Value = serde_json::from_slice(&run.arg(place.path("rows.jsonl")).output().expect(0).stdout).unwrap();
        let found = plan.get("template_digest").or(plan["text"].get("template_digest"));
        assert_eq!(found, Some(&Value::from(digest.clone())), "{name}");
    }
}

#[test]
fn a_chat_row_has_one_digest_in_every_tool() {
    let part = |text: &str| json!([{"type": "text", "text": text}]);
    let rows = [
        json!({"id": "bare", "prompt": "one two"}),
        json!({"id": "system", "prompt": "one", "system": "be brief"}),
        json!({"id": "turns", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}]}),
        json!({"id": "parts", "messages": [{"role": "user", "content": part("hello")}]}),
        json!({"id": "system and turns", "system": "be brief", "messages": [{"role": "user", "content": "d"}]}),
        json!({"id": "no user", "messages": [{"role": "assistant", "content": "e"}]}),
    ];
    let place = Place::new();
    let text: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    fs::write(place.path("chat.jsonl"), &text).unwrap();
    let digests = |name: &str, kind: &str, args: &[&str]| -> Vec<(String, String)> {
        let run = Run::new(tool(name))
            .current_dir(place.0.path())
            .args(["--model", "model", "--chat"]);
        let records = run.args(args).arg("chat.jsonl").output().expect(0).records();
        let rows = records.iter().filter(|row| row["type"] == kind);
        rows.map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("id"), text("text_digest"))
        })
        .collect()
    };
    let generated = digests("lm-gen", "completion", &["--max-new-tokens", "1"]);
    assert_eq!(generated.len(), rows.len());
    assert_eq!(generated, digests("resid-dump", "sample", &["-o", "chat.acts"]));

    // vcl-train and stable-regions recognise conversations by the same library: their question is the same text.
    let dataset = Options::new()
        .format(InputFormat::Jsonl)
        .open(place.path("chat.jsonl"))
        .unwrap();
    for (row, (id, digest)) in dataset.zip(&generated) {
        let example = Example::recognise(&row.unwrap(), None).unwrap();
        if let Some(question) = example.prompt() {
            assert_eq!(records::text_digest(question), *digest, "{id}");
        }
    }
}
