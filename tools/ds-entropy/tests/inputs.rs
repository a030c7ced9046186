//! `ds-entropy` as a process: what it reads. Tokenizers of every form, chat templates, Parquet, scored records, and input that is bad in part.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use harness::Run;
use serde_json::{Value, json};

fn tool() -> Run {
    Run::new(env!("CARGO_BIN_EXE_ds-entropy"))
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn row(completion: &str) -> String {
    json!({"prompt": "q", "completion": completion}).to_string() + "\n"
}

fn rows_of_type(records: &[Value], kind: &str) -> Vec<Value> {
    records.iter().filter(|row| row["type"] == kind).cloned().collect()
}

/// The tokens and ids of one text.
fn tokens(tokenizer: &Path, text: &str) -> (Value, Value) {
    let done = tool()
        .args(["tokens", "--tokens"])
        .arg(tokenizer)
        .stdin(row(text))
        .output()
        .expect(0);
    let row = &rows_of_type(&done.records(), "tokens")[0];
    (row["tokens"].clone(), row["token_ids"].clone())
}

#[test]
fn a_tiktoken_file_merges_by_rank() {
    let directory = harness::temp_dir();
    let path = directory.path().join("tiny.cl100k.tiktoken");
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let words: [&[u8]; 5] = [b"he", b"ll", b"hell", b" hell", b"lo"];
    let lines = |words: &[&[u8]]| -> String {
        let bytes = (0..=255u8).map(|byte| encode(&[byte]));
        let lines = bytes.chain(words.iter().map(|word| encode(word))).enumerate();
        lines.map(|(rank, token)| format!("{token} {rank}\n")).collect()
    };
    fs::write(&path, lines(&words)).unwrap();
    // he before ll before hell; `lo` would need the l that ll took; ` hell` is a token whole.
    let expected = (json!(["hell", "o", "Ġhell", "!"]), json!([258, 111, 259, 33]));
    assert_eq!(tokens(&path, "hello hell!"), expected);
    assert_eq!(tokens(directory.path(), "hello hell!"), expected, "by its directory");
    // Bytes of a character that no merge covers.
    assert_eq!(tokens(&path, "é").1, json!([0xc3, 0xa9]));

    for (text, words) in [
        (lines(&words).replacen(" 7\n", " 8\n", 1), "ranks are not 0, 1, 2"),
        (lines(&words).replacen("AA==", "A", 1), "its token is not base64"),
        (
            lines(&words[..1]).lines().skip(1).collect::<Vec<_>>().join("\n"),
            "ranks are not",
        ),
        (lines(&[b"he", b"he"]), "lists a token twice"),
    ] {
        fs::write(&path, text).unwrap();
        tool()
            .args(["--tokens".as_ref(), path.as_os_str()])
            .stdin(row("x"))
            .output()
            .refused(3, words);
    }
    let unknown = directory.path().join("mystery.tiktoken");
    fs::write(&unknown, lines(&words)).unwrap();
    tool()
        .args(["--tokens".as_ref(), unknown.as_os_str()])
        .stdin(row("x"))
        .output()
        .refused(3, "its word pattern cannot be told from its name");
}

#[test]
fn a_vocabulary_with_merges_is_a_tokenizer() {
    let directory = harness::temp_dir();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write(
        "vocab.json",
        r#"{"h":0,"e":1,"l":2,"o":3,"Ġ":4,"he":5,"ll":6,"hell":7,"Ġhell":8,"<end>":9}"#,
    );
    write("merges.txt", "#version: 0.2\nh e\nl l\nhe ll\nĠ hell\n");
    let expected = (json!(["hell", "o", "Ġhell"]), json!([7, 3, 8]));
    assert_eq!(tokens(directory.path(), "hello hell"), expected);
    assert_eq!(tokens(&directory.path().join("vocab.json"), "hello hell"), expected);

    // An added token stands for itself.
    write(
        "tokenizer_config.json",
        r#"{"tokenizer_class":"GPT2Tokenizer","added_tokens_decoder":{"9":{"content":"<end>","special":true}}}"#,
    );
    assert_eq!(tokens(directory.path(), "hell<end>o").1, json!([7, 9, 3]));

    write("tokenizer_config.json", r#"{"tokenizer_class":"BertTokenizer"}"#);
    tool()
        .args(["--tokens".as_ref(), directory.path().as_os_str()])
        .stdin(row("x"))
        .output()
        .refused(3, "whose word pattern is in no file here");
    fs::remove_file(directory.path().join("merges.txt")).unwrap();
    tool()
        .args(["--tokens".as_ref(), directory.path().as_os_str()])
        .stdin(row("x"))
        .output()
        .refused(3, "holds no tokenizer");
}

#[test]
fn gpt2_s_own_files_give_the_ids_that_everybody_knows() {
    let Some(path) = harness::data("tokenizers/gpt2") else {
        return;
    };
    assert_eq!(
        tokens(&path, "Hello, world!"),
        (json!(["Hello", ",", "Ġworld", "!"]), json!([15496, 11, 995, 0]))
    );
}

/// A model directory whose tokens are words, so that its conversations can be counted by eye.
fn chat_model(directory: &Path) {
    let words = ["<unk>", "<user>", "<assistant>", "<end>", "a", "b", "c", "d", "e"];
    let vocabulary: serde_json::Map<String, Value> = words
        .iter()
        .zip(0..)
        .map(|(word, id)| ((*word).into(), id.into()))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    let template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}\
                    {% if add_generation_prompt %}<assistant> {% endif %}";
    fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(
        directory.join("tokenizer_config.json"),
        json!({"chat_template": template}).to_string(),
    )
    .unwrap();
}

#[test]
fn the_share_of_tokens_that_bear_loss_is_that_of_the_assistant_s_turns() {
    let directory = harness::temp_dir();
    chat_model(directory.path());
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let one = json!({"g": "one", "messages": [turn("user", "a b"), turn("assistant", "c d e")]});
    let two = json!({"g": "two", "messages": [
        turn("user", "a"), turn("assistant", "b c"), turn("user", "d"), turn("assistant", "e"),
    ]});
    let run = |rows: &[&Value]| {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        tool()
            .args(["--group", "g", "--template"])
            .arg(directory.path())
            .stdin(text)
            .output()
    };
    // one: <user> a b <end> | <assistant> + c d e <end>: 4 of 9. Two such rows have the same share.
    // two: 3 + <assistant> + b c <end> + 3 + <assistant> + e <end>: 5 of 13.
    let done = run(&[&one, &two, &one]).expect(0);
    let shares: Vec<Value> = rows_of_type(&done.records(), "entropy")
        .iter()
        .map(|row| row["loss_token_share"].clone())
        .collect();
    assert_eq!(shares, [json!(4.0 / 9.0), json!(5.0 / 13.0)]);
    let bare = json!({"g": "one", "text": "a b"});
    run(&[&bare]).refused(3, "has no turns to render");
    fs::remove_file(directory.path().join("tokenizer_config.json")).unwrap();
    run(&[&one]).refused(3, "has no chat template");
}

#[test]
fn parquet_gives_the_bytes_that_json_lines_give() {
    let run = |name: &str| {
        tool()
            .args(["--group", "source", "--lower"])
            .arg(fixture(name))
            .output()
    };
    let lines = run("mix.jsonl").expect(0);
    assert_eq!(run("mix.parquet").expect(0).text(), lines.text());
    let piped = tool()
        .args(["--group", "source", "--lower"])
        .stdin(fs::read(fixture("mix.parquet")).unwrap())
        .output()
        .expect(0);
    assert_eq!(piped.text(), lines.text());
}

#[test]
fn a_truncated_parquet_is_refused_by_name_and_counted_under_keep_going() {
    let directory = harness::temp_dir();
    let bytes = fs::read(fixture("mix.parquet")).unwrap();
    for length in [bytes.len() / 2, bytes.len() - 1, 4] {
        let path = directory.path().join("cut.parquet");
        fs::write(&path, &bytes[..length]).unwrap();
        tool().arg(&path).output().refused(3, "cut.parquet");
        tool().stdin(&bytes[..length]).output().refused(3, "stdin");
        let partial = tool()
            .args(["--keep-going", "--group", "source"])
            .args([&path, &fixture("mix.jsonl")])
            .output()
            .expect(6);
        assert!(partial.stderr.contains("cut.parquet"), "{}", partial.stderr);
        assert!(
            partial.stderr.contains("what follows in this input was not read"),
            "{}",
            partial.stderr
        );
        let records = partial.records();
        let end = records.last().unwrap();
        assert_eq!(
            (&end["status"], &end["refused_row_count"]),
            (&json!("partial"), &json!(1))
        );
        let samples: u64 = rows_of_type(&records, "entropy")
            .iter()
            .map(|row| row["sample_count"].as_u64().unwrap())
            .sum();
        assert_eq!(samples, 60, "the whole file beside it");
    }
}

/// 3,000 good rows with bad ones among them, enough for several blocks.
fn rows_with_bad_ones() -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let bad: [&[u8]; 5] = [
        b"{\"prompt\":\"q\",\"completion\":",
        b"{\"prompt\":\"q\"}",
        b"{\"prompt\":\"q\",\"completion\":\"\xff\"}",
        b"{\"prompt\":\"q\",\"completion\":\" \"}",
        b"{\"text\":\"of another schema\"}",
    ];
    for index in 0..3000 {
        let text = format!("row {index} of many, {}", "with some words more ".repeat(20));
        bytes.extend(
            json!({"id": index, "prompt": format!("question {index}"), "completion": text})
                .to_string()
                .bytes(),
        );
        bytes.push(b'\n');
        if index % 600 == 300 {
            bytes.extend_from_slice(bad[index / 600]);
            bytes.push(b'\n');
        }
    }
    (bytes, bad.len())
}

#[test]
fn bad_rows_in_the_middle_lose_themselves_alone_from_a_file_a_pipe_or_compressed() {
    let directory = harness::temp_dir();
    let (bytes, bad_count) = rows_with_bad_ones();
    let plain = directory.path().join("rows.jsonl");
    let packed = directory.path().join("rows.jsonl.zst");
    fs::write(&plain, &bytes).unwrap();
    fs::write(&packed, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
    let from_file = tool().arg("--keep-going").arg(&plain).output().expect(6);
    let records = from_file.records();
    let end = records.last().unwrap();
    assert_eq!(
        (&end["status"], &end["refused_row_count"]),
        (&json!("partial"), &json!(bad_count))
    );
    assert_eq!(rows_of_type(&records, "entropy")[0]["sample_count"], 3000);
    for words in [
        "line 302: not JSON",
        "line 903: has no completion",
        "line 1504: not UTF-8",
        "line 2105: its completion is empty",
        "row 2705 is of the schema Text",
    ] {
        assert!(
            from_file.stderr.contains(words),
            "{words:?} is not in {}",
            from_file.stderr
        );
    }
    for threads in ["1", "3"] {
        let run = || tool().args(["--keep-going", "--threads", threads]);
        assert_eq!(run().arg(&packed).output().expect(6).text(), from_file.text());
        assert_eq!(run().stdin(bytes.clone()).output().expect(6).text(), from_file.text());
    }
    tool().arg(&packed).output().refused(3, "line 302: not JSON");
    tool().stdin(bytes).output().refused(3, "stdin: line 302: not JSON");
}

#[test]
fn rows_that_are_bad_in_tables_and_arrays_lose_themselves_alone_too() {
    for (format, input) in [
        ("csv", "prompt,completion\nq,a b\nq\nq,c d\n"),
        (
            "json",
            r#"[{"prompt":"q","completion":"a b"}, 7, {"prompt":"q","completion":"c d"}]"#,
        ),
    ] {
        let partial = tool()
            .args(["--keep-going", "--input-format", format])
            .stdin(input)
            .output()
            .expect(6);
        let records = partial.records();
        assert_eq!(rows_of_type(&records, "entropy")[0]["sample_count"], 2, "{format}");
        assert_eq!(records.last().unwrap()["refused_row_count"], 1, "{format}");
        tool()
            .args(["--input-format", format])
            .stdin(input)
            .output()
            .refused(3, "stdin: ");
    }
}

#[test]
fn shards_with_refused_rows_merge_to_the_end_record_of_one_run() {
    let directory = harness::temp_dir();
    let path = directory.path().join("rows.jsonl");
    let (bytes, _) = rows_with_bad_ones();
    fs::write(&path, bytes).unwrap();
    let whole = tool().arg("--keep-going").arg(&path).output().expect(6);
    let mut files = Vec::new();
    for shard in 0..3 {
        let counts = directory.path().join(format!("{shard}.acts"));
        tool()
            .args(["--keep-going", "--shard", &format!("{shard}/3"), "--counts"])
            .args([&counts, &path])
            .output()
            .expect(6);
        files.push(counts);
    }
    let merged = tool().arg("merge").args(&files).output().expect(6);
    assert_eq!(merged.text(), whole.text());

    // Rows that a tokenizer or a template refuses are found by their own shard alone, and count once as well.
    chat_model(directory.path());
    let template = "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}";
    fs::write(
        directory.path().join("tokenizer_config.json"),
        json!({"chat_template": template}).to_string(),
    )
    .unwrap();
    let texts = (0..40).map(|index| {
        if index % 10 == 0 {
            "bad".to_owned()
        } else {
            format!("good {index}")
        }
    });
    let rows: String = texts
        .enumerate()
        .map(|(index, text)| json!({"prompt": format!("q{index}"), "completion": text}).to_string() + "\n")
        .collect();
    fs::write(&path, rows).unwrap();
    let run = || tool().args(["--keep-going", "--template"]).arg(directory.path());
    let whole = run().arg(&path).output().expect(6);
    assert_eq!(whole.records().last().unwrap()["refused_row_count"], 4);
    for (shard, counts) in files.iter().enumerate() {
        run()
            .args(["--force", "--shard", &format!("{shard}/3"), "--counts"])
            .args([counts, &path])
            .output();
    }
    let merged = tool().arg("merge").args(&files).output().expect(6);
    assert_eq!(merged.text(), whole.text());
}

#[test]
fn a_gibibyte_in_one_line_through_a_pipe_is_gone_past_in_bounded_memory() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ds-entropy"))
        .args(["--keep-going", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(row("before").as_bytes()).unwrap();
    stdin.write_all(b"{\"prompt\":\"q\",\"completion\":\"").unwrap();
    let mebibyte = vec![b'x'; 1 << 20];
    for _ in 0..1024 {
        stdin.write_all(&mebibyte).unwrap();
    }
    let peak = harness::peak_bytes(&child).expect("it runs");
    stdin.write_all(b"\"}\n").unwrap();
    stdin.write_all(row("after it").as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(r#""sample_count":2,"token_count":3"#), "{text}");
    assert!(text.contains(r#""refused_row_count":1"#), "{text}");
    assert!(peak < 128 << 20, "{peak} bytes: the line limit is 16 MiB");
    drop(output.stderr);

    // Without --keep-going it is refused at the limit, long before its end.
    tool()
        .stdin([row("before").into_bytes(), vec![b'x'; 17 << 20]].concat())
        .output()
        .refused(3, "stdin: line 2: longer than 16777216 bytes");
}

#[test]
fn an_input_of_refused_rows_alone_has_zero_counts_and_no_nulls() {
    let done = tool()
        .args(["--keep-going", "--at", "10", "--refusals"])
        .stdin("{\"prompt\":\"q\"}\n{}\n")
        .output()
        .expect(6);
    assert!(!done.text().contains("null"), "{}", done.text());
    let records = done.records();
    let groups = rows_of_type(&records, "entropy");
    assert_eq!(groups.len(), 2);
    for group in groups {
        assert_eq!((&group["sample_count"], &group["token_count"]), (&json!(0), &json!(0)));
        for measure in [
            "h1",
            "msttr",
            "distinct_1",
            "zstd_ratio",
            "at",
            "perplexity",
            "length_quantiles",
            "template_coverage",
        ] {
            assert!(group.get(measure).is_none(), "{measure} of nothing: {group}");
        }
    }
}

#[test]
fn fewer_than_fifty_tokens_have_no_msttr() {
    let words = |count: usize| (0..count).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ");
    let msttr = |text: &str| {
        let done = tool()
            .args(["--tokens", "whitespace"])
            .stdin(row(text))
            .output()
            .expect(0);
        assert!(!done.text().contains("null"));
        rows_of_type(&done.records(), "entropy")[0].get("msttr").cloned()
    };
    assert_eq!(msttr(&words(49)), None);
    assert_eq!(msttr(&words(50)), Some(json!(1.0)));
    // The last short segment is dropped, whatever it repeats.
    assert_eq!(msttr(&format!("{} w0 w0 w0", words(50))), Some(json!(1.0)));
}

#[test]
fn perplexity_by_group_comes_from_the_stream_that_lm_gen_writes() {
    let scored = |id: &str, group: &str, log_prob: f64, token_count: u64| {
        json!({"type": "completion", "id": id, "bench": "b", "group": group, "prompt": "q", "completion": "an answer of words",
               "text_digest": "sha256:0", "model_digest": "blake3:0", "attempt_index": 0, "token_count": token_count,
               "log_prob": log_prob, "finish": "stop"})
        .to_string()
            + "\n"
    };
    let begin = "{\"type\":\"begin\",\"schema\":\"flowlens/1\",\"tool\":\"lm-gen\",\"version\":\"0.1.0\"}\n";
    let end = "{\"type\":\"end\",\"row_count\":3,\"status\":\"complete\"}\n";
    let rows = scored("1", "safety", -4.0, 4) + &scored("2", "safety", -6.0, 2) + &scored("3", "general", -10.0, 4);
    let stream = format!("{begin}{rows}{end}");
    let done = tool().args(["--group", "group"]).stdin(stream).output().expect(0);
    let groups = rows_of_type(&done.records(), "entropy");
    let perplexity = |group: usize, key: &str| groups[group]["perplexity"][key].as_f64().unwrap();
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs();
    assert_eq!(
        (&groups[0]["group"], &groups[1]["group"]),
        (&json!("general"), &json!("safety"))
    );
    assert!(close(perplexity(0, "mean"), 2.5f64.exp()) && groups[0]["perplexity"].get("sd").is_none());
    // Safety: nll 1 and 3 a sample, 10 nats over 6 tokens.
    let (low, high) = (1f64.exp(), 3f64.exp());
    assert!(close(perplexity(1, "nll_mean_nats"), 10.0 / 6.0));
    assert!(close(perplexity(1, "mean"), (low + high) / 2.0));
    assert!(close(perplexity(1, "sd"), (high - low) / 2f64.sqrt()));
    assert!(close(perplexity(1, "p50"), low) && close(perplexity(1, "p99"), high));
    // A producer that did not finish is no data set.
    tool()
        .args(["--group", "group"])
        .stdin(format!("{begin}{rows}"))
        .output()
        .refused(3, "did not finish");
}

#[test]
fn both_bounds_name_the_group_and_the_value_that_break_them() {
    let rows = json!({"s": "dull", "prompt": "q", "completion": "no no no no"}).to_string()
        + "\n"
        + &json!({"s": "rich", "prompt": "q", "completion": "every word here differs"}).to_string()
        + "\n";
    let done = tool()
        .args([
            "--group",
            "s",
            "--tokens",
            "whitespace",
            "--fail-under",
            "h1=1",
            "--fail-over",
            "length_quantiles.max=3",
        ])
        .stdin(rows.clone())
        .output()
        .expect(1);
    let lines: Vec<&str> = done.stderr.lines().filter(|line| line.contains(": fail: ")).collect();
    assert_eq!(
        lines,
        [
            "ds-entropy: fail: group dull: h1 is 0, under 1",
            "ds-entropy: fail: group dull: length_quantiles.max is 4, over 3",
            "ds-entropy: fail: group rich: length_quantiles.max is 4, over 3",
        ]
    );
    // A verdict never hides that rows are missing.
    tool()
        .args(["--keep-going", "--tokens", "whitespace", "--fail-under", "h1=99"])
        .stdin(row("a b") + "{\"prompt\":\"q\"}\n")
        .output()
        .expect(6);
}
