//! Several processes that train together: the bytes of one, whatever befalls them.

#[allow(dead_code)] // shared with the tests of one process
mod world;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Done, Run, signal};
use serde_json::Value;

use crate::world::{TOOL, World, write_json};

/// What every rank's run is given beside a plan.
const SLOTS: [&str; 8] = [
    "--slots",
    "4",
    "--batch-size",
    "8",
    "--threads",
    "1",
    "--rank-timeout",
    "60",
];

/// A port that is free now.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// One rank, as a process to be started.
fn rank(world: &World, out: &str, more: &[&str], rank: usize, count: usize, port: u16) -> Run {
    let count = count.to_string();
    let usual = [&SLOTS[..], &["--ranks", &count]].concat();
    let missing = usual.chunks(2).filter(|pair| !more.contains(&pair[0])).flatten();
    let flags: Vec<&str> = missing.chain(more).copied().collect();
    Run::new(TOOL)
        .args(world.arguments(out, &flags))
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", &count)
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string())
        .deadline(Duration::from_secs(900))
}

/// How all ranks of a run end.
fn train(world: &World, out: &str, more: &[&str], count: usize) -> Vec<Done> {
    let port = port();
    thread::scope(|scope| {
        let start = |number| scope.spawn(move || rank(world, out, more, number, count, port).output());
        let running: Vec<_> = (0..count).map(start).collect();
        running.into_iter().map(|done| done.join().unwrap()).collect()
    })
}

/// All ranks as children, for signals.
fn start(world: &World, out: &str, more: &[&str], count: usize) -> Vec<Child> {
    let port = port();
    (0..count)
        .map(|number| rank(world, out, more, number, count, port).spawn())
        .collect()
}

/// Waits for the records of a run that is going on to reach `lines` lines.
fn wait_for_records(world: &World, out: &str, lines: usize) {
    let path = world.path(&format!(".{out}.partial/metrics.jsonl"));
    let begun = Instant::now();
    while fs::read_to_string(&path).map_or(0, |text| text.lines().count()) < lines {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step is made");
        thread::sleep(Duration::from_millis(5));
    }
}

fn end(mut child: Child) -> (i32, String) {
    let status = harness::wait(&mut child, Duration::from_secs(60));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (harness::code(status), said)
}

fn assert_same(world: &World, one: &str, other: &str, files: &[&str]) {
    for file in files {
        let of = |out: &str| world.bytes(&format!("{out}/{file}"));
        assert!(of(one) == of(other), "{file} of {one} and of {other}");
    }
}

/// A configuration whose matrices are longer than the optimiser's chunks, so that ranks share single matrices.
fn wide_config(world: &World) -> String {
    let path = world.path("wide.json");
    let text = world.bytes("model/config.json");
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["intermediate_size"] = 5000.into();
    write_json(&path, &config);
    path.display().to_string()
}

#[test]
fn the_bytes_of_a_run_do_not_depend_on_the_number_of_ranks() {
    let world = World::new();
    let held_out = world.rows("held-out.jsonl", 5, 11);
    let (config, model) = (wide_config(&world), world.path("model").display().to_string());
    let held_out = held_out.to_str().unwrap();
    let few = "vcl:gamma=5,k=1,rows=last";
    let cases: [(&str, &[&str], &str); 5] = [
        (
            "full",
            &[
                "--aux",
                "vcl:gamma=5,k=2",
                "--micro-batch",
                "1",
                "--eval",
                held_out,
                "--eval-every",
                "7",
            ],
            "model",
        ),
        (
            "bf16",
            &[
                "--dtype",
                "bf16",
                "--aux",
                "vcl:gamma=5,k=2,pool=layer",
                "--aux",
                "decorrelate:gamma=1",
            ],
            "model",
        ),
        (
            "lora",
            &["--lora", "--lora-rank", "2", "--aux", few, "--eval", held_out],
            "adapter_model",
        ),
        (
            "lora-bf16",
            &[
                "--lora",
                "--dtype",
                "bf16",
                "--aux",
                "vcl:gamma=3,k=2",
                "--micro-batch",
                "1",
            ],
            "adapter_model",
        ),
        (
            "wide",
            &["--init", &config, "--tokenizer", &model, "--aux", "vcl:gamma=0,k=2"],
            "model",
        ),
    ];
    for (name, plan, product) in cases {
        let plan = [&["--steps", "20"], plan].concat();
        let product = format!("{product}.safetensors");
        let files = [
            &product,
            "metrics.jsonl",
            "checkpoints/step-00000020/optimizer.safetensors",
        ];
        let out = |count: usize| format!("{name}-{count}");
        for count in [1, 2, 4] {
            let mut all = train(&world, &out(count), &plan, count).into_iter();
            let first = all.next().unwrap().expect(0);
            assert_eq!(first.stdout, world.bytes(&format!("{}/metrics.jsonl", out(count))));
            for other in all {
                assert_eq!(other.expect(0).text(), "", "the first rank alone speaks");
            }
        }
        assert_same(&world, &out(1), &out(2), &files);
        assert_same(&world, &out(1), &out(4), &files);
    }
    // one slot adds in another order
    world
        .train(
            "one-slot",
            &[&["--batch-size", "8", "--steps", "20"], cases[0].1].concat(),
        )
        .expect(0);
    assert_ne!(
        world.bytes("one-slot/model.safetensors"),
        world.bytes("full-1/model.safetensors")
    );
    let losses = |out: &str| -> Vec<f64> {
        let rows = String::from_utf8(world.bytes(&format!("{out}/metrics.jsonl"))).unwrap();
        let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.filter_map(|row| row["loss"].as_f64()).collect()
    };
    let pairs = losses("one-slot").into_iter().zip(losses("full-1"));
    assert!(
        pairs.take(5).all(|(one, four)| (one - four).abs() < 1e-3 * one),
        "the same training"
    );
}

#[test]
fn mpi_gives_the_bytes_of_tcp() {
    if !cfg!(feature = "mpi") {
        return harness::skip("mpi", "this build has no MPI (--features vcl-train/mpi)");
    }
    let Some(mpirun) = harness::program("mpirun") else {
        return;
    };
    let world = World::new();
    let start = |out: &str, count: &str, more: &[&str]| {
        let usual = ["--transport", "mpi", "--ranks"];
        let flags = [&SLOTS[..], &["--steps", "20", "--aux", "vcl:gamma=5,k=2"], &usual, more].concat();
        Run::new(&mpirun)
            .args(["-n", count, "--oversubscribe", TOOL])
            .args(world.arguments(out, &flags))
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .output()
    };
    train(&world, "tcp", &["--steps", "20", "--aux", "vcl:gamma=5,k=2"], 2);
    for count in ["2", "4"] {
        let out = format!("mpi-{count}");
        let done = start(&out, count, &[count]).expect(0);
        assert_eq!(done.stdout, world.bytes(&format!("{out}/metrics.jsonl")));
        assert_same(&world, "tcp", &out, &["model.safetensors", "metrics.jsonl"]);
    }
    let refused = start("refused", "2", &["4"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("4, but MPI has started 2"),
        "{}",
        refused.stderr
    );
}

#[test]
fn cards_are_asked_for_where_messages_go_between_them() {
    let world = World::new();
    let wanted = ["--transport", "nccl"];
    let refused = train(&world, "refused", &wanted, 2);
    for done in refused {
        let said = done.expect(2).stderr;
        assert!(said.contains("nccl, but --device cpu is no card"), "{said}");
    }
}

#[test]
fn a_rank_that_is_killed_ends_the_others_and_any_number_goes_on() {
    let world = World::new();
    let plan = ["--steps", "40", "--checkpoint-every", "4", "--aux", "vcl:gamma=2,k=2"];
    train(&world, "whole", &plan, 1).remove(0).expect(0);
    for (victim, count, again) in [(1, 2, 4), (0, 4, 1), (3, 4, 2)] {
        let out = format!("killed-{victim}-of-{count}");
        let mut children = start(&world, &out, &plan, count);
        wait_for_records(&world, &out, 10);
        signal(&children[victim], "KILL");
        let killed = Instant::now();
        assert_eq!(end(children.remove(victim)).0, 137);
        for child in children {
            let (code, said) = end(child);
            assert!(code == 4 && said.contains(" is gone: "), "{code}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
        for done in train(&world, &out, &[&plan[..], &["--resume"]].concat(), again) {
            done.expect(0);
        }
        assert_same(&world, "whole", &out, &["model.safetensors", "metrics.jsonl"]);
    }
}

#[test]
fn a_signal_to_one_rank_stops_all_at_one_step_with_a_checkpoint() {
    let world = World::new();
    let plan = ["--steps", "60", "--checkpoint-every", "60", "--lora", "--dtype", "bf16"];
    train(&world, "whole", &plan, 1).remove(0).expect(0);
    for told in [0, 1] {
        let out = format!("told-{told}");
        let children = start(&world, &out, &plan, 2);
        wait_for_records(&world, &out, 5);
        signal(&children[told], "TERM");
        for child in children {
            assert_eq!(end(child).0, 143);
        }
        let checkpoints = fs::read_dir(world.path(&format!(".{out}.partial/checkpoints")))
            .unwrap()
            .count();
        assert_eq!(checkpoints, 1);
        for done in train(&world, &out, &[&plan[..], &["--resume"]].concat(), 4) {
            done.expect(0);
        }
        assert_same(&world, "whole", &out, &["adapter_model.safetensors", "metrics.jsonl"]);
    }
}

#[test]
fn a_finished_run_is_left_alone_by_all_ranks() {
    let world = World::new();
    let first = train(&world, "out", &[], 2).remove(0).expect(0);
    let again = train(&world, "out", &["--resume"], 2);
    let said: Vec<Vec<u8>> = again.into_iter().map(|done| done.expect(0).stdout).collect();
    assert_eq!(said, [first.stdout, Vec::new()]);
    let refused = train(&world, "out", &[], 2);
    assert!(refused[0].stderr.contains("exists"), "{}", refused[0].stderr);
    assert_eq!(refused.iter().map(|done| done.code).collect::<Vec<_>>(), [5, 4]);
}

/// Two ranks with flags of their own.
fn pair(world: &World, of_rank: [&[&str]; 2]) -> [Done; 2] {
    let port = port();
    thread::scope(|scope| {
        let start = |number: usize| scope.spawn(move || rank(world, "out", of_rank[number], number, 2, port).output());
        [0, 1].map(start).map(|running| running.join().unwrap())
    })
}

#[test]
fn ranks_that_would_not_do_the_same_are_refused_by_all() {
    let world = World::new();
    let other = world.rows("other.jsonl", 9, 40).display().to_string();
    for (flags, words) in [
        (
            &["--lr", "0.1"][..],
            "rank 1: does not do what rank 0 does: plan.schedule.peak",
        ),
        (&["--data", &other], "plan.data"),
        (&["--dtype", "bf16"], "plan.compute.dtype"),
        (&["--slots", "8", "--batch-size", "8"], "plan.settings"),
        (&["--probe"], "probe"),
    ] {
        for done in pair(&world, [&[], flags]) {
            done.refused(5, words);
        }
        assert!(!world.path(".out.partial").exists(), "nothing was begun");
    }
}

#[test]
fn a_rendezvous_that_fails_says_why_within_its_limit() {
    let world = World::new();
    let alone = |number, port, count: &str| {
        let run = rank(&world, "out", &["--rank-timeout", "1"], number, 2, port).env("WORLD_SIZE", count);
        run.output()
    };
    alone(0, port(), "2").refused(4, "not all 2 ranks came within 1 s: 1 missing");
    alone(1, port(), "2").refused(4, "the first rank was not there within 1 s");
    alone(0, port(), "4").refused(2, "--ranks: 2, but WORLD_SIZE says 4");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    alone(0, taken.local_addr().unwrap().port(), "2").refused(4, "in use");
    world
        .train("out", &["--ranks", "2"])
        .refused(2, "2 ranks share 1 slots");
    let two = [&SLOTS[..], &["--ranks", "2"]].concat();
    world.train("out", &two).refused(2, "RANK: is not set");
    let open = rank(&world, "out", &[], 0, 2, port()).env("MASTER_ADDR", "0.0.0.0");
    open.output()
        .refused(2, "FLOWLENS_SECRET: is not set, and others can reach 0.0.0.0");
}

#[test]
fn a_stranger_is_hung_up_on_and_changes_nothing() {
    let world = World::new();
    let port = port();
    train(&world, "whole", &[], 2);
    let (first, other) = thread::scope(|scope| {
        let world = &world;
        let start = |number| {
            let run = rank(world, "out", &[], number, 2, port).env("FLOWLENS_SECRET", "of this test");
            scope.spawn(move || run.output())
        };
        let first = start(0);
        let mut stranger = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // it is hung up on before the second rank comes
        stranger.read_to_end(&mut Vec::new()).unwrap_or_default();
        let other = start(1);
        (first.join().unwrap(), other.join().unwrap())
    });
    other.expect(0);
    let first = first.expect(0);
    assert!(
        first.stderr.contains("is no rank of this run and was hung up on"),
        "{}",
        first.stderr
    );
    assert_same(&world, "whole", "out", &["model.safetensors"]);
}

#[test]
fn the_plan_says_what_each_number_of_ranks_needs() {
    let world = World::new();
    let plan = |more: &[&str]| -> Value {
        let done = world
            .train("out", &[&["--batch-size", "8", "--plan"], more].concat())
            .expect(0);
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let (one, four) = (plan(&[]), plan(&["--slots", "4"]));
    assert!(
        one["work"].get("ranks").is_none() && one["settings"].get("slots").is_none(),
        "as ever: {one}"
    );
    assert!(
        one["compute"]["kernel"].is_string(),
        "ranks with other kernels are told by it"
    );
    let of = |at: usize, key: &str| four["work"]["ranks"][at][key].as_u64().unwrap();
    let trained = four["work"]["trained_parameter_count"].as_u64().unwrap();
    assert_eq!([0, 1, 2].map(|at| of(at, "rank_count")), [1, 2, 4]);
    assert_eq!(four["work"]["memory_bytes"], of(0, "memory_bytes"));
    // f32: a buffer of gradients for each level of slots, and moments divided among ranks
    assert_eq!(
        of(0, "memory_bytes") - of(1, "memory_bytes"),
        4 * trained + 8 * trained / 2
    );
    assert_eq!(
        of(1, "memory_bytes") - of(2, "memory_bytes"),
        4 * trained + 8 * trained / 2 - 8 * trained / 4
    );
    assert_eq!(
        [0, 1, 2].map(|at| of(at, "sent_bytes_per_step")),
        [0, 8 * trained / 2, 8 * trained * 3 / 4]
    );
}

/// What a graphics card of 80 GB holds, by the plan's count: nothing of this size is made.
#[test]
fn eight_billion_parameters_fit_on_eight_cards_of_80_gb() {
    let world = World::new();
    let mut config: Value = serde_json::from_slice(&world.bytes("model/config.json")).unwrap();
    for (key, value) in [
        ("hidden_size", 4096),
        ("intermediate_size", 14336),
        ("num_hidden_layers", 32),
        ("num_attention_heads", 32),
        ("num_key_value_heads", 8),
        ("head_dim", 128),
        ("vocab_size", 128_256),
    ] {
        config[key] = value.into();
    }
    config["tie_word_embeddings"] = false.into();
    write_json(&world.path("large.json"), &config);
    let (config, tokenizer) = (world.path("large.json"), world.path("model"));
    let done = Run::new(TOOL)
        .args([
            "--init",
            config.to_str().unwrap(),
            "--tokenizer",
            tokenizer.to_str().unwrap(),
        ])
        .args(["--data", world.path("rows.jsonl").to_str().unwrap()])
        .args([
            "--dtype",
            "bf16",
            "--recompute",
            "--slots",
            "8",
            "--batch-size",
            "8",
            "--plan",
        ])
        .output()
        .expect(0);
    let plan: Value = serde_json::from_slice(&done.stdout).unwrap();
    let parameters = plan["model"]["parameter_count"].as_u64().unwrap();
    assert_eq!(parameters, 8_030_261_248, "as Llama 3.1 8B has");
    let bytes = |at: usize| plan["work"]["ranks"][at]["memory_bytes"].as_u64().unwrap();
    assert!(bytes(0) > 160_000_000_000, "not on one");
    assert!((60_000_000_000..62_000_000_000).contains(&bytes(3)), "{}", bytes(3));
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// One after the other: a rank killed, told to stop, held up for a while, started twice, or never started. WEEK=50 for a long one.
#[test]
fn a_week_of_failures_ends_in_the_bytes_of_a_quiet_run() {
    let events = std::env::var("WEEK")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(6);
    let world = World::new();
    let steps = (40 * events).to_string();
    let plan = [
        "--steps",
        &steps,
        "--checkpoint-every",
        "5",
        "--aux",
        "vcl:gamma=2,k=2",
        "--rank-timeout",
        "5",
    ];
    train(&world, "whole", &plan, 1).remove(0).expect(0);
    let again = [&plan[..], &["--resume"]].concat();
    let mut dice = Dice(22);
    for event in 0..events {
        let count = 1 << dice.below(3);
        let victim = dice.below(count);
        let lines = 4 + dice.below(30) + 40 * event;
        match dice.below(5) {
            kind @ 0..=2 => {
                let children = start(&world, "out", &again, count);
                wait_for_records(&world, "out", lines);
                signal(&children[victim], ["KILL", "TERM", "STOP"][kind]);
                if kind == 2 {
                    thread::sleep(Duration::from_millis(700));
                    signal(&children[victim], "CONT");
                    signal(&children[0], "INT");
                }
                for child in children {
                    let (code, said) = end(child);
                    assert!([4, 130, 137, 143].contains(&code), "{code}: {said}");
                }
            }
            3 => {
                let port = port();
                let second = |at: usize| rank(&world, "out", &again, at.min(1), 4, port).spawn();
                for child in [0, 1, 2].map(second) {
                    let (code, said) = end(child);
                    assert!([3, 4].contains(&code), "{code}: {said}");
                }
            }
            _ => {
                let never = [&again[..again.len() - 3], &["--resume", "--rank-timeout", "1"]].concat();
                let alone = rank(&world, "out", &never, victim, 4, port());
                assert_eq!(alone.output().code, 4);
            }
        }
    }
    for done in train(&world, "out", &again, 2) {
        done.expect(0);
    }
    assert_same(&world, "whole", "out", &["model.safetensors", "metrics.jsonl"]);
}
