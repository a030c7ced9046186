//! The forms in which every tool takes a model: a GGUF file, a name of the hub, a base with adapters.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Done, Run, TempDir, lettered_model, temp_dir, tool, workspace};
use serde_json::{Value, json};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A model as a directory and as a GGUF file, and rows that are prompts, pairs and training data at once.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(temp_dir());
        lettered_model("qwen3", &place.path("directory"));
        let file = workspace().join("tests/fixtures/gguf/lettered.gguf");
        fs::copy(file, place.path("file.gguf")).unwrap();
        let rows = [
            ("a", "yes, or no?", "no."),
            ("b", "abc 123", "def!"),
            ("c", "why", "it's so"),
        ];
        let row = |(id, prompt, completion)| json!({"id": id, "prompt": prompt, "completion": completion, "a": "ab", "b": "ac"});
        let text: String = rows.map(|it| row(it).to_string() + "\n").concat();
        fs::write(place.path("rows.jsonl"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Every tool that runs a model, asked for its plan.
    fn plans(&self, model: &Path) -> Vec<Run> {
        let rows = self.path("rows.jsonl").display().to_string();
        let planned = |name: &str, args: &[&str]| {
            let run = Run::new(tool(name)).deadline(Duration::from_secs(20)).arg("--model");
            run.arg(model).arg("--plan").args(args)
        };
        vec![
            planned("lm-gen", &[&rows]),
            planned("resid-dump", &[&rows]),
            planned("stable-regions", &["--pairs", &rows]),
            planned("vcl-train", &["--data", &rows]),
            planned("lm-merge", &[]),
        ]
    }

    /// What lm-gen says of a model.
    fn completions(&self, model: &Path, args: &[&str]) -> Vec<Value> {
        let run = Run::new(tool("lm-gen")).arg("--model").arg(model).args(args);
        let done = run.arg(self.path("rows.jsonl")).output().expect(0);
        let all = done
            .records()
            .into_iter()
            .filter(|record| record["type"] == "completion");
        all.map(|mut record| {
            record["model_digest"] = Value::Null;
            record
        })
        .collect()
    }

    /// A cache of the hub with the model under the name `o/n`.
    fn cache(&self) -> PathBuf {
        let repository = self.path("hub/models--o--n");
        fs::create_dir_all(repository.join("snapshots")).unwrap();
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        let snapshot = repository.join("snapshots").join(COMMIT);
        lettered_model("qwen3", &snapshot);
        fs::rename(snapshot.join("model.safetensors"), repository.join("blobs/b")).unwrap();
        symlink("../../blobs/b", snapshot.join("model.safetensors")).unwrap();
        fs::write(repository.join("refs/main"), COMMIT).unwrap();
        self.path("hub")
    }

    /// An adapter that vcl-train made, or its base with the adapter merged.
    fn trained(&self, name: &str, args: &[&str]) -> PathBuf {
        let output = self.path(name);
        let run = Run::new(tool("vcl-train")).arg("--model").arg(self.path("directory"));
        let run = run.arg("--data").arg(self.path("rows.jsonl")).arg("-o").arg(&output);
        let lora = [
            "--lora",
            "--lora-rank",
            "2",
            "--lr",
            "0.1",
            "--epochs",
            "3",
            "--batch-size",
            "1",
        ];
        run.args(lora).args(args).output().expect(0);
        output
    }
}

/// The digest that a plan names.
fn digest(plan: Done) -> Value {
    fn find(value: &Value) -> Option<Value> {
        match value {
            Value::Object(map) => {
                let own = ["model_digest", "weights_digest"].iter().find_map(|key| map.get(*key));
                own.cloned().or_else(|| map.values().find_map(find))
            }
            Value::Array(list) => list.iter().find_map(find),
            _ => None,
        }
    }
    find(&serde_json::from_slice(&plan.expect(0).stdout).unwrap()).expect("a plan names its model")
}

#[test]
fn every_tool_takes_a_gguf_file() {
    let place = Place::new();
    let bytes = fs::read(place.path("file.gguf")).unwrap();
    let own = Value::from(format!("blake3:{}", blake3::hash(&bytes).to_hex()));
    for run in place.plans(&place.path("file.gguf")) {
        assert_eq!(digest(run.output()), own);
    }
    let args = ["--max-new-tokens", "12", "--chat"];
    let from_file = place.completions(&place.path("file.gguf"), &args);
    assert_eq!(from_file, place.completions(&place.path("directory"), &args));
    assert_eq!(from_file.len(), 3);
}

#[test]
fn a_gguf_file_becomes_a_directory() {
    let place = Place::new();
    let run = Run::new(tool("lm-merge")).arg("--model").arg(place.path("file.gguf"));
    run.arg("-o").arg(place.path("made")).output().expect(0);
    let args = ["--max-new-tokens", "12", "--chat"];
    assert_eq!(
        place.completions(&place.path("made"), &args),
        place.completions(&place.path("file.gguf"), &args)
    );
}

#[test]
fn a_directory_that_only_holds_a_gguf_file_says_so() {
    let place = Place::new();
    fs::create_dir(place.path("holds")).unwrap();
    fs::copy(place.path("file.gguf"), place.path("holds/q4.gguf")).unwrap();
    for run in place.plans(&place.path("holds")) {
        run.output().refused(3, "name a GGUF file of it, such as \"q4.gguf\"");
    }
}

#[test]
fn every_tool_finds_a_name_in_the_hubs_cache() {
    let place = Place::new();
    let hub = place.cache();
    for (variable, value) in [("HF_HUB_CACHE", hub.clone()), ("HF_HOME", place.path(""))] {
        for name in ["o/n", "o/n@main", &format!("o/n@{COMMIT}")] {
            let found = place.plans(Path::new(name)).into_iter();
            let directory = place.plans(&place.path("directory")).into_iter();
            for (found, directory) in found.zip(directory) {
                let found = found
                    .current_dir(place.0.path())
                    .env("HF_HUB_CACHE", "")
                    .env(variable, &value);
                assert_eq!(digest(found.output()), digest(directory.output()));
            }
        }
    }
}

#[test]
fn a_name_that_is_not_there_says_where_it_was_looked_for_and_how_to_bring_it() {
    let place = Place::new();
    let hub = place.cache();
    for run in place.plans(Path::new("o/other")) {
        let done = run.env("HF_HUB_CACHE", &hub).output();
        let looked_at = hub.join("models--o--other").display().to_string();
        done.refused(4, &looked_at);
    }
    let run = place.plans(Path::new("o/n@v2")).remove(0);
    run.env("HF_HUB_CACHE", &hub)
        .output()
        .refused(4, "hf download o/n --revision v2");
}

#[test]
fn what_leaves_the_cache_is_refused() {
    type Change = fn(&Place, &Path);
    let outside: [(Change, &str); 4] = [
        (
            |place, hub| {
                let repository = hub.join("models--o--n");
                fs::rename(&repository, place.path("elsewhere")).unwrap();
                symlink(place.path("elsewhere"), &repository).unwrap();
            },
            "outside the hub's cache",
        ),
        (
            |place, hub| {
                let snapshot = hub.join("models--o--n/snapshots").join(COMMIT);
                fs::remove_dir_all(&snapshot).unwrap();
                symlink(place.path("directory"), &snapshot).unwrap();
            },
            "outside the hub's cache",
        ),
        (
            |_, hub| fs::write(hub.join("models--o--n/refs/main"), "../../../directory").unwrap(),
            "names no commit",
        ),
        (
            |_, hub| {
                let main = hub.join("models--o--n/refs/main");
                fs::remove_file(&main).unwrap();
                assert!(Command::new("mkfifo").arg(&main).status().unwrap().success());
            },
            "is not a regular file",
        ),
    ];
    for (change, said) in outside {
        let place = Place::new();
        let hub = place.cache();
        change(&place, &hub);
        for run in place.plans(Path::new("o/n")) {
            run.env("HF_HUB_CACHE", &hub).output().refused(3, said);
        }
    }
}

#[test]
fn an_adapter_laid_over_its_base_is_the_merged_model() {
    let place = Place::new();
    let adapter = place.trained("adapter", &[]);
    let merged = place.trained("merged", &["--merge"]);
    let run = Run::new(tool("lm-merge")).arg("--model").arg(place.path("directory"));
    run.arg("--adapter")
        .arg(&adapter)
        .arg("-o")
        .arg(place.path("own"))
        .output()
        .expect(0);
    for name in [
        "model.safetensors",
        "config.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
    ] {
        let read = |directory: &Path| fs::read(directory.join(name)).unwrap();
        assert!(read(&place.path("own")) == read(&merged), "{name}");
    }
    let over = ["--adapter", adapter.to_str().unwrap(), "--score", "--per-token"];
    let scores = place.completions(&place.path("directory"), &over);
    assert_eq!(scores, place.completions(&merged, &over[2..]));
    assert_ne!(scores, place.completions(&place.path("directory"), &over[2..]));
    let digests = |args: &[&str], model: &Path| -> Vec<Value> {
        let plans = place.plans(model).into_iter();
        plans.map(|run| digest(run.args(args).output())).collect()
    };
    let [with, without] = [&over[..2], &[]].map(|args| digests(args, &place.path("directory")));
    assert!(with.iter().all(|digest| *digest == with[0]), "{with:?}");
    assert_ne!(with[0], without[0]);
}

#[test]
fn an_adapter_of_another_base_is_taken_on_request_only() {
    let place = Place::new();
    let adapter = place.trained("adapter", &[]);
    for run in place.plans(&place.path("file.gguf")) {
        let done = run.arg("--adapter").arg(&adapter).output();
        done.refused(3, "says that it was made for");
    }
    for run in place.plans(&place.path("file.gguf")) {
        run.arg("--adapter")
            .arg(&adapter)
            .arg("--other-base")
            .output()
            .expect(0);
    }
}

#[test]
fn an_adapter_is_refused_where_it_is_not_clear_what_it_means() {
    let place = Place::new();
    let adapter = place.trained("adapter", &[]);
    let (model, rows) = (place.path("directory"), place.path("rows.jsonl"));
    let two = Run::new(tool("stable-regions"))
        .arg("--pairs")
        .arg(&rows)
        .arg("--adapter")
        .arg(&adapter);
    let two = two.arg("--model").arg(&model).arg(&model);
    two.output().refused(2, "which of the models is meant?");
    let run = Run::new(tool("vcl-train"))
        .arg("--model")
        .arg(&model)
        .arg("--data")
        .arg(&rows);
    let run = run.arg("--lora").arg("--adapter").arg(&adapter).arg("--plan");
    run.output().refused(2, "belong to a base that lies nowhere");
}
