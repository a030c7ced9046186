//! Chat templates and tokenizers made to hurt, through real tools: each ends with 3 in one line, within seconds and within a gigabyte.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::{Done, Run, TempDir, lettered_model, temp_dir, tool};
use serde_json::{Value, json};

/// A rendering ends after five seconds of processor time, which take far longer on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);
const MEMORY_BYTES_MAX: i64 = 1 << 30;

/// A tiny model whose template or tokenizer is about to be replaced, and a prompt for it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(temp_dir());
        lettered_model("llama", &place.path("model"));
        place.write(
            "rows.jsonl",
            "{\"id\":\"a\",\"prompt\":\"abc\",\"completion\":\"abc\"}\n",
        );
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn generate(&self) -> Done {
        self.generate_with("--chat")
    }

    fn generate_with(&self, flag: &str) -> Done {
        let run = Run::new(tool("lm-gen")).arg("--model").arg(self.path("model"));
        bounded(
            run.args(["-q", "--max-new-tokens", "2", flag])
                .arg(self.path("rows.jsonl")),
        )
    }

    fn count(&self) -> Done {
        let run = Run::new(tool("ds-entropy"))
            .arg("--tokens")
            .arg(self.path("model/tokenizer.json"));
        bounded(run.arg(self.path("rows.jsonl")))
    }
}

/// Runs within the bounds, or fails the test.
#[track_caller]
fn bounded(run: Run) -> Done {
    let done = run.deadline(DEADLINE).output();
    let peak = children_peak_bytes();
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes: {}", done.stderr);
    done
}

/// The most memory that any process which this one has waited for ever held, theirs included.
fn children_peak_bytes() -> i64 {
    // SAFETY: getrusage fills the structure.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    usage.ru_maxrss * 1024
}

#[test]
fn a_chat_template_is_bounded_in_memory_time_and_depth() {
    let set = "{% set ns = namespace(s='abcdefgh', l=[]) %}";
    let attacks = [
        ("doubling", format!("{set}{{% for i in range(60) %}}{{% set ns.s = ns.s ~ ns.s %}}{{% endfor %}}{{{{ ns.s }}}}"), "MiB"),
        ("adding", format!("{set}{{% for i in range(60) %}}{{% set ns.s = ns.s + ns.s %}}{{% endfor %}}{{{{ ns.s }}}}"), "MiB"),
        ("macro", "{% macro f(s, n) %}{% if n > 0 %}{{ f(s ~ s, n - 1) }}{% else %}{{ s }}{% endif %}{% endmacro %}{{ f('abcdefgh', 60) }}".into(), "MiB"),
        ("join", format!("{set}{{% for i in range(60) %}}{{% set ns.s = [ns.s, ns.s]|join %}}{{% endfor %}}{{{{ ns.s }}}}"), "MiB"),
        ("format", "{{ \"%10000000000s\"|format('a') }}".into(), "MiB"),
        ("replace", format!("{set}{{% for i in range(12) %}}{{% set ns.s = ns.s|replace('a', 'a' * 1000) %}}{{% endfor %}}{{{{ ns.s }}}}"), "MiB"),
        ("indent", "{{ 'a\nb'|indent(100000000000) }}".into(), ""),
        ("list", format!("{set}{{% for i in range(60) %}}{{% set ns.l = ns.l + ns.l + [1] %}}{{% endfor %}}{{{{ ns.l|length }}}}"), ""),
        ("constant", "{{ (('a' * 99999999) ~ ('b' * 99999999)) ~ (('a' * 99999999) ~ ('b' * 99999999)) ~ ('c' * 99999999) ~ ('d' * 99999999) }}".into(), "MiB"),
        ("deep", format!("{set}{{% for i in range(100000) %}}{{% set ns.l = [ns.l] %}}{{% endfor %}}{{{{ ns.l|tojson }}}}"), "stack"),
        ("slow", format!("{set}{{% set ns.s = 'a' * 50000000 %}}{{% for i in range(100000) %}}{{% if 'b' in ns.s %}}x{{% endif %}}{{% endfor %}}"), "processor time"),
    ];
    for (name, template, words) in attacks {
        let place = Place::new();
        place.write("model/chat_template.jinja", &template);
        eprintln!("{name}");
        place.generate().refused(3, words);
    }
}

#[test]
fn a_template_that_fails_on_one_prompt_still_renders_the_next() {
    let place = Place::new();
    let template = "{% set ns = namespace(s='a') %}{% if 'bomb' in messages[0].content %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{% endif %}{{ messages[0].content }}";
    place.write("model/chat_template.jinja", template);
    let row = |id: usize, prompt: &str| json!({"id": id.to_string(), "prompt": prompt}).to_string() + "\n";
    place.write("rows.jsonl", &[row(0, "abc"), row(1, "bomb"), row(2, "def")].concat());
    let run = Run::new(tool("lm-gen")).arg("--model").arg(place.path("model"));
    let done = bounded(
        run.args(["--max-new-tokens", "2", "--keep-going"])
            .arg(place.path("rows.jsonl")),
    )
    .expect(6);
    let ids: Vec<Value> = done
        .records()
        .iter()
        .filter(|row| row["type"] == "completion" && row["finish"] != "error")
        .map(|row| row["id"].clone())
        .collect();
    assert_eq!(ids, ["0", "2"]);
}

/// A sound byte-level tokenizer over letters.
fn sound() -> Value {
    let letters = ["Ġ"]
        .map(str::to_owned)
        .into_iter()
        .chain(('a'..='z').map(String::from));
    let vocab: serde_json::Map<String, Value> = letters.enumerate().map(|(id, token)| (token, id.into())).collect();
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}})
}

fn with(place: &str, value: Value) -> Value {
    let mut file = sound();
    *file.pointer_mut(place).unwrap() = value;
    file
}

#[test]
fn a_sound_tokenizer_is_read_by_both_tools() {
    let place = Place::new();
    place.write("model/tokenizer.json", &sound().to_string());
    place.generate().expect(0);
    place.count().expect(0);
}

#[test]
fn l_06_a_hostile_tokenizer_json_ends_with_3_in_seconds() {
    let replace =
        |pattern: &str, content: String| json!({"type": "Replace", "pattern": {"String": pattern}, "content": content});
    let many = |count: usize, part: Value| json!({"type": "Sequence", "normalizers": vec![part; count]});
    let mut prefixed = sound();
    prefixed["model"]["continuing_subword_prefix"] = "##".into();
    prefixed["model"]["merges"] = json!(["a b"]);
    let piece = json!({"Sequence": {"id": "A", "type_id": 0}});
    let template =
        |single: Value| json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}});
    let cut = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false});
    let attacks = [
        ("a decoder that is a number", with("/decoder", json!(7)), ""),
        ("a merge shorter than the prefix", prefixed, "without the prefix"),
        (
            "replace",
            with("/normalizer", many(6, replace("a", "a".repeat(100)))),
            "times longer",
        ),
        (
            "replace a little",
            with("/normalizer", many(12, replace("a", "a".repeat(10)))),
            "times longer",
        ),
        (
            "prepend",
            with(
                "/normalizer",
                json!({"type": "Prepend", "prepend": "a".repeat(50_000_000)}),
            ),
            "longer than",
        ),
        (
            "bytes of bytes",
            with(
                "/pre_tokenizer",
                json!({"type": "Sequence", "pretokenizers": vec![cut; 20]}),
            ),
            "times longer",
        ),
        (
            "a long token",
            with("/model/vocab", json!({"a".repeat(100_000): 0})),
            "longer than",
        ),
        (
            "an id of 2^31",
            with("/model/vocab", json!({"a": 1u64 << 31})),
            "is not a number up to",
        ),
        (
            "an added id of 2^31",
            with(
                "/added_tokens",
                json!([{"id": 1u64 << 31, "content": "<x>", "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}]),
            ),
            "is not a number up to",
        ),
        (
            "copies of the text",
            with("/post_processor", template(json!(vec![piece; 1000]))),
            "repeats its text",
        ),
        ("dropout", with("/model/dropout", json!(0.5)), "random"),
    ];
    for (name, file, words) in attacks {
        let place = Place::new();
        place.write("model/tokenizer.json", &file.to_string());
        place.write(
            "rows.jsonl",
            &(json!({"id": "a", "prompt": "a".repeat(20_000), "completion": "a".repeat(20_000)}).to_string() + "\n"),
        );
        eprintln!("{name}");
        place.generate().refused(3, words);
        place.count().refused(3, words);
    }
}

#[test]
fn a_token_that_a_template_does_not_define_is_a_refusal() {
    let place = Place::new();
    let single = json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);
    let defined = json!({"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}});
    let file = with(
        "/post_processor",
        json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": defined}),
    );
    place.write("model/tokenizer.json", &file.to_string());
    place.generate_with("--raw").expect(0);
    let file = file
        .to_string()
        .replace("\"special_tokens\":{\"<s>\"", "\"special_tokens\":{\"<t>\"");
    place.write("model/tokenizer.json", &file);
    place.generate_with("--raw").refused(3, "tokenizer");
}

#[test]
fn padding_and_truncation_that_are_switched_off_need_no_sense() {
    let place = Place::new();
    let mut file = sound();
    place.write("model/tokenizer.json", &file.to_string());
    let plain = place.generate().expect(0).records();
    file["padding"] = json!({"strategy": {"Fixed": 1u64 << 36}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "a"});
    file["truncation"] = json!({"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0});
    place.write("model/tokenizer.json", &file.to_string());
    let padded = place.generate().expect(0).records();
    assert_eq!(plain[1]["text"], padded[1]["text"]);
}

/// Bytes of a sound file, changed one place at a time.
#[test]
fn no_mutation_of_a_tokenizer_json_is_a_bug_or_a_hang() {
    let text = sound().to_string();
    let place = Place::new();
    for at in (0..text.len()).step_by(text.len() / 60) {
        for byte in *b"\"0{" {
            let mut changed = text.clone().into_bytes();
            changed[at] = byte;
            fs::write(place.path("model/tokenizer.json"), changed).unwrap();
            for done in [place.generate(), place.count()] {
                assert!(
                    [0, 3].contains(&done.code),
                    "byte {at} is {byte}: {} {}",
                    done.code,
                    done.stderr
                );
            }
        }
    }
}
