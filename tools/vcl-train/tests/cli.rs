//! vcl-train as a process: what it writes, how it resumes, what it refuses.

mod world;

use std::fs;
use std::io::BufRead;
use std::path::PathBuf;

use harness::{Done, Run};
use serde_json::{Value, json};

use crate::world::{TOOL, World, write_json};

fn metrics(done: &Done) -> Vec<Value> {
    done.records()
        .into_iter()
        .filter(|row| row["type"] == "metric")
        .collect()
}

fn last_c_k(done: &Done) -> f64 {
    metrics(done).last().unwrap()["aux"]["vcl"]["c_k"].as_f64().unwrap()
}

#[test]
fn a_run_writes_a_model_and_says_every_step_once() {
    let world = World::new();
    let done = world
        .train(
            "out",
            &[
                "--steps",
                "40",
                "--eval-every",
                "20",
                "--eval",
                world.path("rows.jsonl").to_str().unwrap(),
            ],
        )
        .expect(0);
    let rows = done.records();
    assert_eq!(rows[0]["type"], "begin");
    assert_eq!(rows.last().unwrap()["status"], "complete");
    let steps: Vec<u64> = metrics(&done).iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=40).collect::<Vec<_>>());
    let losses: Vec<f64> = metrics(&done).iter().map(|row| row["loss"].as_f64().unwrap()).collect();
    assert!(losses[39] < losses[0] - 0.5, "{losses:?}");
    assert_eq!(rows.iter().filter(|row| row["type"] == "eval").count(), 2);
    assert_eq!(world.bytes("out/metrics.jsonl"), done.stdout);
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "run.json",
        "checkpoints/step-00000040/state.json",
    ] {
        assert!(world.path("out").join(name).exists(), "{name}");
    }
    assert!(!world.path(".out.partial").exists());
    // what was written can be trained on
    Run::new(TOOL)
        .arg("--model")
        .arg(world.path("out"))
        .arg("--data")
        .arg(world.path("rows.jsonl"))
        .arg("--probe")
        .output()
        .expect(0);
}

#[test]
fn the_same_plan_gives_the_same_bytes_whatever_the_threads() {
    let world = World::new();
    world.train("one", &["--aux", "vcl:gamma=5,k=2"]).expect(0);
    world
        .train("two", &["--aux", "vcl:gamma=5,k=2", "--threads", "1"])
        .expect(0);
    for name in ["model.safetensors", "metrics.jsonl"] {
        assert_eq!(
            world.bytes(&format!("one/{name}")),
            world.bytes(&format!("two/{name}")),
            "{name}"
        );
    }
}

#[test]
fn c_09_killed_anywhere_and_resumed_the_bytes_are_those_of_one_run() {
    let world = World::new();
    let plan = [
        "--aux",
        "vcl:gamma=5,k=2,warmup=6",
        "--checkpoint-every",
        "3",
        "--steps",
        "30",
    ];
    world.train("whole", &plan).expect(0);
    let again = [&plan[..], &["--resume"]].concat();
    let mut resume = Vec::from(plan);
    // KILLS=50 for a night
    let kills = std::env::var("KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(5);
    for lines in (0..kills).map(|kill| 2 + kill * 28 / kills) {
        world.kill("killed", &resume, lines);
        resume.clone_from(&again);
    }
    let done = world.train("killed", &again).expect(0);
    for name in [
        "model.safetensors",
        "metrics.jsonl",
        "checkpoints/step-00000030/optimizer.safetensors",
    ] {
        assert_eq!(
            world.bytes(&format!("whole/{name}")),
            world.bytes(&format!("killed/{name}")),
            "{name}"
        );
    }
    assert_eq!(done.stdout, world.bytes("whole/metrics.jsonl"));
}

#[test]
fn adapters_resume_to_the_bit_too() {
    let world = World::new();
    let plan = [
        "--lora",
        "--lora-rank",
        "2",
        "--checkpoint-every",
        "2",
        "--micro-batch",
        "2",
        "--aux",
        "vcl:gamma=2,k=1",
    ];
    world.train("whole", &plan).expect(0);
    world.kill("killed", &plan, 8);
    world.train("killed", &[&plan[..], &["--resume"]].concat()).expect(0);
    assert_eq!(
        world.bytes("whole/adapter_model.safetensors"),
        world.bytes("killed/adapter_model.safetensors")
    );
}

#[test]
fn c_08_a_damaged_newest_checkpoint_falls_back_to_the_one_before() {
    let world = World::new();
    let plan = ["--checkpoint-every", "3", "--steps", "20"];
    world.train("whole", &plan).expect(0);
    world.kill("killed", &plan, 12);
    let checkpoints = world.path(".killed.partial/checkpoints");
    let mut names: Vec<PathBuf> = fs::read_dir(&checkpoints)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("step-"));
    names.sort();
    assert_eq!(names.len(), 2, "two are kept");
    let newest = names[1].join("optimizer.safetensors");
    let sound = fs::read(&newest).unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    let cut = |at: usize| sound[..at].to_vec();
    let left = world.path("left");
    fs::rename(world.path(".killed.partial"), &left).unwrap();
    for damaged in [flipped, cut(0), cut(64), cut(sound.len() / 2), cut(sound.len() - 1)] {
        let _ = fs::remove_dir_all(world.path("killed"));
        Run::new("cp")
            .arg("-r")
            .arg(&left)
            .arg(world.path(".killed.partial"))
            .output()
            .expect(0);
        fs::write(&newest, &damaged).unwrap();
        let resumed = world.train("killed", &[&plan[..], &["--resume"]].concat()).expect(0);
        let warning = "optimizer.safetensors is damaged";
        assert_eq!(resumed.stderr.matches(warning).count(), 1, "{}", resumed.stderr);
        assert_eq!(
            world.bytes("whole/model.safetensors"),
            world.bytes("killed/model.safetensors"),
            "{} bytes",
            damaged.len()
        );
        assert_eq!(world.bytes("whole/metrics.jsonl"), resumed.stdout);
    }
}

#[test]
fn c_07_a_full_disk_at_a_checkpoint_keeps_the_one_before() {
    let world = World::new();
    let plan = ["--checkpoint-every", "3"];
    world.train("whole", &plan).expect(0);
    let size = |name: &str| fs::metadata(world.path(name)).unwrap().len();
    // room for the weights of a checkpoint, not for its moments
    let (weights, moments) = (
        size("whole/model.safetensors"),
        size("whole/checkpoints/step-00000012/optimizer.safetensors"),
    );
    assert!(weights + 1024 < moments);
    let limited = |limit: u64, more: &[&str]| {
        let blocks = limit / 512;
        let run = Run::new("/bin/sh").args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\""), TOOL]);
        run.args(world.arguments("out", &[&plan[..], more].concat())).output()
    };
    let full = limited(weights + 1024, &[]).expect(4);
    assert!(full.stderr.contains("optimizer.safetensors"), "{}", full.stderr);
    assert!(!world.path("out").exists());
    world.kill("killed", &plan, 7);
    fs::rename(world.path(".killed.partial"), world.path(".out2.partial")).unwrap();
    let run = |more: &[&str]| world.arguments("out2", &[&plan[..], &["--resume"], more].concat());
    Run::new("/bin/sh")
        .args([
            "-c",
            &format!("ulimit -f {}; exec \"$0\" \"$@\"", (weights + 1024) / 512),
            TOOL,
        ])
        .args(run(&[]))
        .output()
        .expect(4);
    Run::new(TOOL).args(run(&[])).output().expect(0);
    for name in ["model.safetensors", "metrics.jsonl"] {
        assert_eq!(
            world.bytes(&format!("whole/{name}")),
            world.bytes(&format!("out2/{name}")),
            "{name}"
        );
    }
}

#[test]
fn a_signal_saves_and_the_run_goes_on_later() {
    let world = World::new();
    let (mut child, output) = world.start("out", &["--steps", "400", "--checkpoint-every", "400"], 6);
    harness::signal(&child, "TERM");
    let rest = output.lines().count();
    assert_eq!(harness::code(child.wait().unwrap()), 143);
    assert!(rest < 390, "it stopped before the end");
    assert!(fs::read_dir(world.path(".out.partial/checkpoints")).unwrap().count() > 0);
}

#[test]
fn another_plan_is_a_conflict_that_names_the_first_difference() {
    let world = World::new();
    world.kill("out", &["--checkpoint-every", "3"], 8);
    world.train("out", &[]).refused(5, "not finished");
    world
        .train("out", &["--checkpoint-every", "3", "--resume", "--lr", "0.1"])
        .refused(5, "schedule.peak: was 0.005, is 0.1");
    world.rows("rows.jsonl", 2, 40);
    world
        .train("out", &["--checkpoint-every", "3", "--resume"])
        .refused(5, "digest");
    world.train("out", &["--checkpoint-every", "3", "--force"]).expect(0);
}

#[test]
fn c_11_another_machine_continues_a_run_only_when_asked() {
    let world = World::new();
    world.kill("out", &["--checkpoint-every", "3"], 8);
    let path = world.path(".out.partial/plan.json");
    let mut saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let here = saved["plan"]["compute"].clone();
    assert_eq!(here.as_object().unwrap().len(), 3, "{here}");
    saved["plan"]["compute"]["kernel"] = "other".into();
    saved["digest"] = process::sha256(saved["plan"].to_string().as_bytes()).into();
    write_json(&path, &saved);
    let resume = ["--checkpoint-every", "3", "--resume"];
    world.train("out", &resume).refused(5, "compute.kernel");
    let mixed = [&resume[..], &["--allow-mixed-compute"]].concat();
    world.train("out", &mixed).expect(0);
    let manifest: Value = serde_json::from_slice(&world.bytes("out/run.json")).unwrap();
    assert_eq!(manifest["plan"]["compute"], here);
}

#[test]
fn a_saved_plan_with_a_changed_byte_is_damage_and_not_another_plan() {
    let world = World::new();
    world.kill("out", &["--checkpoint-every", "3"], 8);
    let path = world.path(".out.partial/plan.json");
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replacen("\"seed\": 42", "\"seed\": 43", 1);
    assert_ne!(text, changed);
    fs::write(&path, changed).unwrap();
    let resumed = world.train("out", &["--checkpoint-every", "3", "--resume"]);
    resumed.refused(3, "is damaged");
}

#[test]
fn a_finished_output_is_left_alone() {
    let world = World::new();
    let first = world.train("out", &[]).expect(0);
    world.train("out", &[]).refused(5, "exists");
    let again = world.train("out", &["--resume"]).expect(0);
    assert_eq!(first.stdout, again.stdout);
    world
        .train("out", &["--resume", "--seed", "7"])
        .refused(5, "seed: was 42, is 7");
}

#[test]
fn no_auxiliary_loss_is_built_in() {
    let world = World::new();
    let plain = metrics(&world.train("plain", &[]).expect(0)).remove(0);
    assert_eq!(plain["aux"], json!({}));
    assert_eq!(plain["loss_total"], plain["loss"]);
    let window = "vcl:k=2,gamma=3,window=1,-1,rows=all";
    let with = metrics(&world.train("with", &["--aux", window]).expect(0)).remove(0);
    let keys: Vec<&String> = with["aux"]["vcl"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["k", "gamma", "sign", "c_k", "c_k_layers", "row_count", "loss"]);
    let layers: Vec<&String> = with["aux"]["vcl"]["c_k_layers"].as_object().unwrap().keys().collect();
    assert_eq!(layers, ["1", "3"]);
    let number = |value: &Value| value.as_f64().unwrap();
    assert_eq!(
        number(&with["loss_total"]),
        number(&with["loss"]) + number(&with["aux"]["vcl"]["loss"])
    );
    assert_eq!(
        number(&with["aux"]["vcl"]["loss"]),
        3.0 * number(&with["aux"]["vcl"]["c_k"])
    );
    assert!(plain.get("norm_mean").is_none() && number(&with["norm_mean"]) > 0.0);
}

#[test]
fn observing_changes_nothing_but_the_record() {
    let world = World::new();
    world.train("plain", &[]).expect(0);
    world.train("observed", &["--aux", "vcl:gamma=0,k=1"]).expect(0);
    assert_eq!(
        world.bytes("plain/model.safetensors"),
        world.bytes("observed/model.safetensors")
    );
}

#[test]
fn spread_lowers_c_k_and_concentrate_raises_it() {
    let world = World::new();
    for seed in ["1", "2", "3"] {
        let c_k = |sign: &str, gamma: &str| {
            let aux = format!("vcl:k=2,gamma={gamma},sign={sign},window=0.3-0.8");
            let name = format!("{sign}-{gamma}-{seed}");
            last_c_k(
                &world
                    .train(&name, &["--aux", &aux, "--seed", seed, "--steps", "25"])
                    .expect(0),
            )
        };
        let (plain, spread, concentrated) = (c_k("spread", "0"), c_k("spread", "10"), c_k("concentrate", "10"));
        assert!(
            spread < plain - 0.02 && plain + 0.02 < concentrated,
            "seed {seed}: {spread} {plain} {concentrated}"
        );
    }
}

#[test]
fn adapters_become_a_peft_directory_or_a_merged_model() {
    let world = World::new();
    let lora = ["--lora", "--lora-rank", "2", "--lora-targets", "q_proj,down_proj"];
    world.train("adapter", &lora).expect(0);
    let config: Value = serde_json::from_slice(&world.bytes("adapter/adapter_config.json")).unwrap();
    assert_eq!(config["target_modules"], json!(["down_proj", "q_proj"]));
    assert!(!world.path("adapter/model.safetensors").exists());
    world.train("merged", &[&lora[..], &["--merge"]].concat()).expect(0);
    assert!(world.path("merged/model.safetensors").exists() && !world.path("merged/adapter_config.json").exists());
    assert_ne!(
        world.bytes("merged/model.safetensors"),
        world.bytes("model/model.safetensors")
    );
    world
        .train("none", &["--lora", "--lora-targets", "x_proj"])
        .refused(2, "x_proj");
    world.train("none", &["--merge"]).refused(2, "--merge");
}

#[test]
fn a_mixture_takes_its_shares() {
    let world = World::new();
    let (a, b) = (world.rows("a.jsonl", 3, 20), world.rows("b.jsonl", 4, 30));
    let data = [format!("safety={}", a.display()), format!("general={}", b.display())];
    let run = |more: &[&str]| {
        let sources = [
            "--data",
            &data[0],
            "--data",
            &data[1],
            "--mix",
            "safety=0.4,general=0.6",
        ];
        world.train("mixed", &[&sources[..], more].concat())
    };
    let plan: Value = serde_json::from_slice(&run(&["--total", "25", "--plan"]).expect(0).stdout).unwrap();
    assert_eq!(plan["mix"]["row_counts"], json!([["safety", 10], ["general", 15]]));
    assert_eq!(plan["work"]["sample_count"], 25);
    assert!(
        !world.path("mixed").exists() && !world.path(".mixed.partial").exists(),
        "a plan writes nothing"
    );
    run(&["--total", "25"]).expect(0);
    run(&["--total", "100"]).refused(3, "safety has 20 rows, the mixture takes 40");
}

#[test]
fn training_from_scratch_needs_only_a_config_and_a_tokenizer() {
    let world = World::new();
    let run = |out: &str, seed: &str| {
        Run::new(TOOL)
            .arg("--init")
            .arg(world.path("model/config.json"))
            .arg("--tokenizer")
            .arg(world.path("model"))
            .arg("--data")
            .arg(world.path("rows.jsonl"))
            .args(["--quiet", "--steps", "2", "--seed", seed, "-o"])
            .arg(world.path(out))
            .output()
            .expect(0);
        world.bytes(&format!("{out}/model.safetensors"))
    };
    assert_eq!(run("one", "1"), run("two", "1"));
    assert_ne!(run("three", "2"), run("four", "1"));
}

#[test]
fn rows_that_teach_nothing_are_refused_or_counted() {
    let world = World::new();
    let mut text = fs::read_to_string(world.path("rows.jsonl")).unwrap();
    text.push_str(&format!(
        "{}\n",
        json!({"id": "mute", "messages": [{"role": "user", "content": "abc"}]})
    ));
    fs::write(world.path("rows.jsonl"), &text).unwrap();
    world.train("out", &[]).refused(3, "no completion token");
    let plan = world.train("out", &["--no-completion", "drop", "--plan"]).expect(0);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["data"][0]["no_completion_dropped_count"], 1);

    let drop = ["--no-completion", "drop", "--max-length", "20"];
    world
        .train("out", &[&drop[..], &["--over-length", "refuse"]].concat())
        .refused(3, "limit 20");
    for (what, key) in [("truncate", "truncated_count"), ("drop", "over_length_dropped_count")] {
        let plan = world
            .train("out", &[&drop[..], &["--over-length", what, "--plan"]].concat())
            .expect(0);
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
        assert!(plan["data"][0][key].as_u64().unwrap() > 0, "{what}: {plan}");
    }
    world
        .train("out", &["--no-completion", "drop", "--max-length", "100"])
        .refused(2, "--max-length");
}

#[test]
fn a_completion_ends_with_the_token_that_ends_the_turn() {
    let world = World::new();
    write_json(
        &world.path("one.jsonl"),
        &json!({"prompt": "abc?", "completion": "abc, abc."}),
    );
    let directory = world.path("template");
    fs::create_dir(&directory).unwrap();
    let turn = "{{ m.content }}{% if m.role == 'assistant' %}{{ '</s>' }}{% endif %}{{ '\\n' }}";
    fs::write(
        directory.join("chat_template.jinja"),
        format!("{{% for m in messages %}}{turn}{{% endfor %}}"),
    )
    .unwrap();
    let (data, template) = (world.path("one.jsonl"), directory.display().to_string());
    let learned = |more: &[&str]| {
        let usual = [
            "--data",
            data.to_str().unwrap(),
            "--template",
            template.as_str(),
            "--steps",
            "1",
            "--batch-size",
            "1",
            "--plan",
        ];
        let plan = world.train("out", &[&usual[..], more].concat()).expect(0);
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
        plan["work"]["loss_token_count"].as_u64().unwrap()
    };
    // nine letters and </s>; the line feed after it is the template's
    assert_eq!(learned(&[]), 10);
    assert_eq!(learned(&["--learn-line-end"]), 11);
}

#[test]
fn a_loss_that_is_no_number_stops_with_the_step_and_the_rows() {
    let world = World::new();
    let done = world.train(
        "out",
        &[
            "--lr",
            "1e30",
            "--warmup",
            "0",
            "--clip",
            "0",
            "--checkpoint-every",
            "1",
        ],
    );
    assert!(
        done.stderr.contains("step 2: ") && done.stderr.contains("rows:r"),
        "{}",
        done.stderr
    );
    assert_eq!(done.code, 3);
    assert!(
        world.path(".out.partial/checkpoints/step-00000001/state.json").exists(),
        "the last good one is kept"
    );
}

#[test]
fn arguments_that_mean_nothing_are_refused() {
    let world = World::new();
    world.train("out", &["--aux", "vcl:k=0"]).refused(2, "k: expected");
    world.train("out", &["--aux", "other"]).refused(2, "unknown");
    world
        .train("out", &["--aux", "vcl:window=0.01-0.02"])
        .refused(2, "holds no layer");
    world
        .train("out", &["--aux", "vcl", "--aux", "none"])
        .refused(2, "none stands alone");
    world
        .train("out", &["--aux", "vcl:gamma=1,k=16,rows=last"])
        .refused(3, "C_16 over");
    world.train("out", &["--dtype", "f64"]).refused(2, "f64");
    world
        .train("out", &["--dtype", "bf16", "--precision", "medium"])
        .refused(2, "products of f32");
    world.train("out", &["--batch-size", "0"]).refused(2, "batch-size");
    assert!(!world.path("out").exists());
}

#[test]
fn two_writers_of_one_name_do_not_meet() {
    let world = World::new();
    let (mut child, _output) = world.start("out", &["--steps", "2000", "--checkpoint-every", "2000"], 1);
    world.train("out", &["--force"]).refused(5, "another run");
    child.kill().unwrap();
    child.wait().unwrap();
}
