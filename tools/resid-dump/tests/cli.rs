//! `resid-dump` alone, as a process, over a small random model with a tokenizer of single letters.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Done, Run};
use serde_json::Value;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// A model directory `model/` of a family, and a file of prompts.
    fn new(case: &str) -> Place {
        let place = Place {
            directory: tempfile::tempdir().unwrap(),
        };
        harness::lettered_model(case, &place.path("model"));
        place.write(
            "prompts.jsonl",
            "{\"id\":\"one\",\"prompt\":\"the cat sat?\",\"completion\":\" on it\",\"label\":\"x\"}\n\
             {\"prompt\":\"a\",\"completion\":\"b\",\"label\":\"y\"}\n\
             {\"id\":3,\"prompt\":\"hello world, this is a longer prompt!\",\"completion\":\" yes\",\"label\":\"x\"}\n",
        );
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, arguments: &str) -> Run {
        Run::new(env!("CARGO_BIN_EXE_resid-dump"))
            .current_dir(self.directory.path())
            .args(["--model", "model"])
            .args(arguments.split_whitespace())
    }

    fn dump(&self, arguments: &str) -> Done {
        self.run(&format!("prompts.jsonl {arguments}")).output()
    }

    fn entries(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn rows<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["type"] == kind).collect()
}

#[test]
fn samples_come_first_then_tensors_then_the_end() {
    let place = Place::new("llama");
    let records = place.dump("-o d.acts").expect(0).records();
    let kinds: Vec<_> = records.iter().map(|record| record["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "begin", "sample", "sample", "sample", "tensor", "tensor", "tensor", "end"
        ]
    );
    let ids: Vec<_> = rows(&records, "sample")
        .iter()
        .map(|sample| sample["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, ["one", "#1", "3"]);
    let tensor = rows(&records, "tensor")[2];
    assert_eq!(tensor["name"], "resid_post.2");
    assert_eq!(tensor["shape"], serde_json::json!([3, 16]));
    assert_eq!(tensor["path"], "d.acts");
    let end = records.last().unwrap();
    assert_eq!((&end["row_count"], &end["status"]), (&6.into(), &"complete".into()));
    let massive = &end["massive_activations"][2];
    assert_eq!(
        (&massive["name"], &massive["abs_max"]),
        (&tensor["name"], &tensor["abs_max"])
    );
    assert_eq!(place.entries(), ["d.acts", "d.acts.run.json", "model", "prompts.jsonl"]);
}

#[test]
fn the_container_alone_goes_through_a_pipe_and_is_the_same() {
    let place = Place::new("llama");
    place.dump("-o d.acts").expect(0);
    let piped = place.dump("-o -").expect(0);
    assert_eq!(piped.stdout, fs::read(place.path("d.acts")).unwrap());
}

#[test]
fn positions_choose_the_rows_they_name() {
    let place = Place::new("llama");
    let shape = |name: &str, positions: &str| {
        let records = place
            .dump(&format!("-o {name} --positions {positions} --layers 0"))
            .expect(0)
            .records();
        rows(&records, "tensor")[0]["shape"][0].as_u64().unwrap()
    };
    assert_eq!(shape("a", "last"), 3);
    assert_eq!(shape("b", "all"), 12 + 1 + 37);
    assert_eq!(shape("c", "mean"), 3);
    assert_eq!(shape("d", "completion"), 6 + 1 + 4);
    assert_eq!(shape("e", "prompt-last"), 3);
    assert_eq!(shape("f", "-1"), 3);
    place
        .dump("-o g --positions 5")
        .refused(3, "has 1 tokens, none at position 5");
}

#[test]
fn a_row_does_not_depend_on_what_else_is_in_its_batch() {
    let place = Place::new("llama");
    let digests = |name: &str, batch: &str| {
        let arguments = format!("-o {name} --positions all --sites resid_post,mlp_gate,logits --batch-tokens {batch}");
        let records = place.dump(&arguments).expect(0).records();
        rows(&records, "tensor")
            .iter()
            .map(|tensor| tensor["digest"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(digests("a", "1"), digests("b", "2048"));
}

#[test]
fn chat_bos_and_stripping_change_the_tokens() {
    let place = Place::new("llama");
    let tokens = |name: &str, more: &str| {
        let records = place.dump(&format!("-o {name} {more}")).expect(0).records();
        rows(&records, "sample")[0]["token_count"].as_u64().unwrap()
    };
    assert_eq!(tokens("a", ""), 12);
    assert_eq!(tokens("b", "--strip-punct"), 11);
    assert_eq!(tokens("c", "--bos on"), 13);
    assert_eq!(tokens("d", "--chat"), 15);
}

#[test]
fn verify_tells_equal_from_different_and_says_where() {
    let place = Place::new("llama");
    place
        .dump("-o d.acts --positions all --sites resid_mid,resid_post")
        .expect(0);
    let record = place.dump("--verify d.acts").expect(0).records().remove(0);
    assert_eq!(
        (&record["outcome"], &record["same_model"]),
        (&"equal".into(), &true.into())
    );
    // another value in the last layer's last matrix: the layers before it stay equal
    let weights = place.path("model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let start = header["model.layers.2.mlp.down_proj.weight"]["data_offsets"][0]
        .as_u64()
        .unwrap() as usize;
    bytes[8 + length + start..][..4].copy_from_slice(&0.5f32.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    let record = place.dump("--verify d.acts").expect(1).records().remove(0);
    assert_eq!(record["outcome"], "different");
    assert_eq!(record["same_model"], false);
    assert_eq!(
        (&record["first"]["name"], &record["first"]["row_index"]),
        (&"resid_post.2".into(), &0.into())
    );
}

#[test]
fn shards_hold_every_sample_once() {
    let place = Place::new("llama");
    let mut seen = Vec::new();
    for shard in 0..4 {
        let records = place
            .dump(&format!("-o {shard}.acts --shard {shard}/4"))
            .expect(0)
            .records();
        seen.extend(
            rows(&records, "sample")
                .iter()
                .map(|sample| sample["sample_index"].as_u64().unwrap()),
        );
    }
    seen.sort();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn inspect_and_plan_print_and_write_nothing() {
    let place = Place::new("gpt_neox");
    let records = place.run("--inspect").output().expect(0).records();
    assert_eq!(
        (&records[0]["family"], &records[0]["parameter_count"]),
        (&"gpt_neox".into(), &7448.into())
    );
    assert!(records.iter().all(|record| record["site"] != "resid_mid"));
    let plan: Value = serde_json::from_str(place.dump("--plan --layers 0.3-1.0").expect(0).text()).unwrap();
    assert_eq!(plan["layers"], serde_json::json!([0, 1, 2]));
    assert_eq!(place.entries(), ["model", "prompts.jsonl"]);
}

#[test]
fn wrong_calls_are_refused_before_anything_is_written() {
    let place = Place::new("gpt_neox");
    place.dump("").refused(2, "--output");
    place.dump("-o d --sites resid_mid").refused(2, "parallel");
    place.dump("-o d --layers 3").refused(2, "there is no layer 3");
    place.dump("-o d --layers 0.01-0.02").refused(2, "no layer");
    place.dump("-o d --field nothing").refused(3, "nothing");
    place.dump("-o prompts.jsonl").refused(2, "also an input");
    place.dump("-o model/model.safetensors").refused(2, "also an input");
    place.dump("-o d --device cuda").refused(4, "--device");
    place.dump("-o d --moments --max-memory 1K").refused(2, "limit 1024");
    assert_eq!(place.entries(), ["model", "prompts.jsonl"]);
}

#[test]
fn l_08_a_prompt_that_cannot_run_stops_the_run_or_is_left_out() {
    let place = Place::new("llama");
    let long = "a ".repeat(40);
    place.write(
        "prompts.jsonl",
        &format!("{{\"prompt\":\"ok\"}}\n{{\"prompt\":\"\"}}\n{{\"prompt\":\"{long}\"}}\n"),
    );
    place.dump("-o d.acts").refused(3, "line 2");
    assert!(!place.path("d.acts").exists());
    let done = place.dump("-o d.acts --keep-going").expect(6);
    assert!(
        done.stderr.contains("no tokens") && done.stderr.contains("limit is 64"),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains("a a a"), "a prompt was quoted");
    assert_eq!(done.records().last().unwrap()["status"], "partial");
}

#[test]
fn l_09_another_model_than_the_pinned_one_is_refused() {
    let place = Place::new("llama");
    place.dump("-o d --model-digest blake3:00").refused(3, "pinned");
    let digest = place.run("--inspect").output().records()[0]["model_digest"]
        .as_str()
        .unwrap()
        .to_owned();
    place.dump(&format!("-o d --model-digest {digest}")).expect(0);
}

#[test]
fn w_01_a_full_disk_is_an_error() {
    let place = Place::new("llama");
    for arguments in [
        "prompts.jsonl -o -",
        "--inspect",
        "prompts.jsonl --plan",
        "--help",
        "--version",
    ] {
        let done = place.run(arguments).stdout_to("/dev/full");
        assert_eq!(done.code, 4, "{arguments}: {}", done.stderr);
    }
}

#[test]
fn w_02_a_disk_that_fills_up_keeps_what_a_resume_needs() {
    let place = Place::new("llama");
    long_input(&place);
    place.dump(&format!("-o whole.acts {LONG}")).expect(0);
    fs::create_dir(place.path("disk")).unwrap();
    // a mount of its own that nobody else sees; it starts too small and then grows
    let script = format!(
        "mount -t tmpfs -o size=64k tmpfs disk 2>/dev/null || {{ echo no mount; exit 0; }}
         for size in 64k 256k 1m 2m; do
             mount -o remount,size=$size disk
             \"$0\" --model model prompts.jsonl -o disk/d.acts --resume {LONG} >/dev/null
             echo $size $? $(ls disk)
         done
         mount -o remount,size=256m disk
         \"$0\" --model model prompts.jsonl -o disk/d.acts --resume {LONG} >/dev/null && cmp disk/d.acts whole.acts && echo equal"
    );
    let done = Run::new("unshare")
        .current_dir(place.directory.path())
        .args(["-m", "sh", "-c", &script])
        .arg(env!("CARGO_BIN_EXE_resid-dump"))
        .output();
    if done.code != 0 && done.stderr.contains("unshare") || done.text().contains("no mount") {
        return harness::skip(
            "namespaces",
            format!("no mount namespace here ({})", done.stderr.trim()),
        );
    }
    let lines: Vec<&str> = done.text().lines().collect();
    for (line, size) in lines.iter().zip(["64k", "256k", "1m", "2m"]) {
        assert_eq!(*line, format!("{size} 4"), "{}", done.stderr);
    }
    assert_eq!(lines.last(), Some(&"equal"), "{lines:?} {}", done.stderr);
    assert!(done.stderr.contains("No space left"), "{}", done.stderr);
}

#[test]
fn s_03_a_signal_leaves_no_output_and_says_how_to_go_on() {
    for (signal, code) in [("INT", 130), ("HUP", 129), ("TERM", 143)] {
        let place = Place::new("llama");
        long_input(&place);
        let mut child = place.run(&format!("prompts.jsonl -o d.acts --resume {LONG}")).spawn();
        wait_for(&place.path(".d.acts.journal"));
        harness::signal(&child, signal);
        let status = harness::wait(&mut child, Duration::from_secs(30));
        assert_eq!(harness::code(status), code, "SIG{signal}");
        assert!(!place.path("d.acts").exists());
        place.dump(&format!("-o d.acts --resume {LONG}")).expect(0);
    }
}

#[test]
fn l_10_a_model_changed_during_the_run_is_refused_before_anything_is_published() {
    let place = Place::new("llama");
    // the model's digest is in the plan before the prompts are read: the run waits for them, and the model changes meanwhile
    Run::new("mkfifo").arg(place.path("fifo")).output().expect(0);
    let mut child = place.run("fifo -o d.acts").spawn();
    let mut fifo = fs::OpenOptions::new().write(true).open(place.path("fifo")).unwrap();
    let weights = place.path("model/model.safetensors");
    let mut file = fs::OpenOptions::new().write(true).open(&weights).unwrap();
    file.seek(SeekFrom::End(-4)).unwrap();
    file.write_all(&0.125f32.to_le_bytes()).unwrap();
    fifo.write_all(&fs::read(place.path("prompts.jsonl")).unwrap()).unwrap();
    drop(fifo);
    let status = harness::wait(&mut child, Duration::from_secs(60));
    assert_eq!(harness::code(status), 3);
    assert!(!place.path("d.acts").exists());
}

#[test]
fn s_07_losing_the_reader_of_the_records_does_not_stop_the_work() {
    let place = Place::new("llama");
    let done = place.run("prompts.jsonl -o d.acts").stdout_closed_after(1);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(place.path("d.acts").exists());
}

/// Enough rows for several blocks of the container.
fn long_input(place: &Place) {
    let prompts: String = (0..1200)
        .map(|i| {
            format!(
                "{{\"prompt\":\"prompt number {i} which is long enough to fill sixty\",\"label\":\"{}\"}}\n",
                i % 3
            )
        })
        .collect();
    place.write("prompts.jsonl", &prompts);
}

const LONG: &str = "--positions all --sites logits,resid_post --codec stored --batch-tokens 512";

#[test]
fn c_01_killed_ten_times_and_resumed_the_bytes_are_those_of_one_run() {
    let place = Place::new("llama");
    long_input(&place);
    let clock = Instant::now();
    place.dump(&format!("-o whole.acts {LONG}")).expect(0);
    let whole = clock.elapsed();
    let mut kills = 0;
    for turn in 0..10 {
        let mut child = place.run(&format!("prompts.jsonl -o d.acts --resume {LONG}")).spawn();
        std::thread::sleep(
            whole
                .mul_f64(0.25 + 0.06 * f64::from(turn))
                .max(Duration::from_millis(20)),
        );
        kills += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        let _ = child.wait();
        if place.path("d.acts").exists() {
            break;
        }
    }
    assert!(kills > 0, "nothing was killed: this run tested nothing");
    place.dump(&format!("-o d.acts --resume {LONG}")).expect(0);
    assert!(fs::read(place.path("d.acts")).unwrap() == fs::read(place.path("whole.acts")).unwrap());
    assert!(!place.path(".d.acts.journal").exists());
    // a finished output of the same plan is a no-op, and its records are those of the run
    let (again, first) = (
        place.dump(&format!("-o d.acts --resume {LONG}")),
        place.dump(&format!("-o e.acts {LONG}")),
    );
    assert_eq!(
        again.expect(0).text(),
        first.expect(0).text().replace("e.acts", "d.acts")
    );
}

#[test]
fn c_04_a_resume_with_another_plan_names_the_first_difference() {
    let place = Place::new("llama");
    long_input(&place);
    // A run may be faster than its killer on a busy machine, and a killer faster than the journal's first line, without which there is
    // nothing to go on with: then once more.
    let has_plan = || fs::metadata(place.path(".d.acts.journal")).is_ok_and(|journal| journal.len() > 0);
    let stopped_midway = (0..20).any(|_| {
        let mut child = place.run(&format!("prompts.jsonl -o d.acts --force {LONG}")).spawn();
        while !has_plan() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill();
        child.wait().unwrap();
        has_plan() && place.path(".d.acts.partial").exists() && !place.path("d.acts").exists()
    });
    assert!(stopped_midway, "twenty runs were all faster than their killer");
    let resume = |more: &str| {
        place.dump(&format!(
            "-o d.acts --resume {} {more}",
            LONG.replace("--batch-tokens 512", "")
        ))
    };
    resume("").refused(5, "batch_tokens: was 512, is 2048");
    resume("--batch-tokens 512 --dtype bf16").refused(5, "dtype: was \"f32\", is \"bf16\"");
    resume("--batch-tokens 512 -n 5").refused(5, "limit");
    place.dump(&format!("-o d.acts {LONG}")).refused(5, "partial file");
    fs::write(place.path("prompts.jsonl"), "{\"prompt\":\"another\"}\n").unwrap();
    resume("--batch-tokens 512").refused(5, "input_digest");
}

fn wait_for(path: &Path) {
    let clock = Instant::now();
    while !path.exists() {
        assert!(
            clock.elapsed() < Duration::from_secs(30),
            "{} did not appear",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn c_06_without_its_journal_a_run_resumes_to_the_same_bytes() {
    let place = Place::new("llama");
    long_input(&place);
    place.dump(&format!("-o whole.acts {LONG}")).expect(0);
    let mut child = place.run(&format!("prompts.jsonl -o d.acts {LONG}")).spawn();
    wait_for(&place.path(".d.acts.journal"));
    std::thread::sleep(Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = fs::remove_file(place.path(".d.acts.journal"));
    if !place.path("d.acts").exists() {
        place.dump(&format!("-o d.acts --resume {LONG}")).expect(0);
    }
    assert!(fs::read(place.path("d.acts")).unwrap() == fs::read(place.path("whole.acts")).unwrap());
}

/// A container with one direction of the residual stream, for layer 1.
fn direction(path: &Path, values: &[f32]) {
    use acts::{Dtype, Header, TensorSpec, Writer};
    let mut header = Header::new("test", "1", "sha256:0", None);
    header.tensors = vec![TensorSpec::new("direction.1", Dtype::F32, &[values.len() as u64])];
    header.fix_blocks().unwrap();
    let mut writer = Writer::new(Vec::new(), header, 1).unwrap();
    writer.push_f32(0, values).unwrap();
    fs::write(path, writer.finish().unwrap().0).unwrap();
}

#[test]
fn an_ablated_direction_is_gone_from_the_dump_and_an_added_one_is_there() {
    let place = Place::new("llama");
    let values: Vec<f32> = (0..16).map(|at| ((at * 7 % 5) as f32) - 1.5).collect();
    let norm = values.iter().map(|x| x * x).sum::<f32>().sqrt();
    direction(&place.path("direction.acts"), &values);
    let along = |name: &str, arguments: &str, layer: usize| -> Vec<f64> {
        place.dump(&format!("{arguments} --positions all -o {name}")).expect(0);
        let file = acts::File::open(&place.path(name), acts::OpenOptions::default()).unwrap();
        let tensor = file.tensor(&format!("resid_post.{layer}")).unwrap();
        let rows = file.to_vec::<f32>(tensor, 0..file.row_count(tensor)).unwrap();
        let dot = |row: &[f32]| row.iter().zip(&values).map(|(x, r)| f64::from(x * r / norm)).sum();
        rows.chunks_exact(16).map(dot).collect()
    };
    let plain = along("plain.acts", "", 0);
    assert!(plain.iter().any(|x| x.abs() > 1e-2), "{plain:?}");
    for layer in [0, 2] {
        let ablated = along(&format!("ablated{layer}.acts"), "--ablate direction.acts@1", layer);
        assert!(ablated.iter().all(|x| x.abs() < 1e-5), "{ablated:?}");
    }
    let added = along("added.acts", "--add direction.acts@1:3:0", 0);
    for (added, plain) in added.iter().zip(&plain) {
        assert!((added - plain - 3.0).abs() < 1e-4, "{added} {plain}");
    }

    let file = acts::File::open(&place.path("ablated0.acts"), acts::OpenOptions::default()).unwrap();
    let stored = &file.header().meta["plan"]["interventions"];
    assert_eq!(stored[0]["action"], "ablate");
    assert_eq!(stored[0]["layers"], serde_json::json!([0, 1, 2]));
    place
        .dump("--verify ablated0.acts")
        .refused(2, "give the flags of the stored dump");
    let same = place.dump("--verify ablated0.acts --ablate direction.acts@1").expect(0);
    assert_eq!(same.records()[0]["outcome"], "equal");
    place
        .dump("--ablate direction.acts -o x.acts")
        .refused(3, "no direction of width 16 for layer 0");
}

#[test]
fn layers_may_be_counted_from_the_end() {
    let place = Place::new("llama");
    let plan = place.dump("--layers -1 --plan").expect(0);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["layers"], serde_json::json!([2]));
}

#[test]
fn the_largest_score_of_a_head_is_that_of_its_queries_and_keys() {
    // four heads of queries, two of keys, each eight wide
    let place = Place::new("qwen3");
    let sites = "q_proj,q,k,v,attn_logit_max,attn_proj,mlp_proj";
    let dump = format!("-o d.acts --positions all --layers 1 --store-dtype f32 --sites {sites}");
    let records = place.dump(&dump).expect(0).records();
    let widths: Vec<_> = rows(&records, "tensor")
        .iter()
        .map(|row| row["shape"][1].clone())
        .collect();
    assert_eq!(widths, [32, 32, 16, 16, 4, 16, 16]);

    let count = rows(&records, "sample")[0]["row_count"].as_u64().unwrap();
    let file = acts::File::open(&place.path("d.acts"), acts::OpenOptions::default()).unwrap();
    let numbers = |name: &str| -> Vec<f64> { file.to_vec(file.tensor(name).unwrap(), 0..count).unwrap() };
    let (q, k, largest) = (numbers("q.1"), numbers("k.1"), numbers("attn_logit_max.1"));
    for (at, found) in largest.iter().enumerate() {
        let (row, head) = (at / 4, at % 4);
        let score = |seen: usize| {
            let (q, k) = (&q[32 * row + 8 * head..][..8], &k[16 * seen + 8 * (head / 2)..][..8]);
            q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / 8f64.sqrt()
        };
        let expected = (0..=row).map(score).fold(f64::NEG_INFINITY, f64::max);
        assert!(
            (found - expected).abs() < 1e-5,
            "row {row}, head {head}: {found} {expected}"
        );
    }
}
