//! `--contrast`: against two whole passes per token without a cache, at its ends, in any batch, cut short and in shards, and what it refuses.

use std::fs;
use std::path::{Path, PathBuf};

use harness::{Done, Run, TempDir, lettered_model, temp_dir};
use model::{Batch, Bos, Checkpoint, Decoder, Options, Tape, Template, Tensor, Tokenizer};
use serde_json::{Value, json};

const SYSTEM: &str = "be brief";
const NEW_TOKENS: usize = 14;

/// Two models over one tokenizer.
fn models() -> TempDir {
    let dir = temp_dir();
    for family in ["llama", "qwen3"] {
        lettered_model(family, &dir.path().join(family));
    }
    dir
}

fn prompts(count: usize) -> String {
    let text = |at: usize| {
        ["how are you", "what is this", "tell me more", "a b c d", "why not"][at % 5].to_owned() + &"z".repeat(at / 5)
    };
    (0..count)
        .map(|at| json!({"id": at, "prompt": text(at)}).to_string() + "\n")
        .collect()
}

fn run(dir: &TempDir, flags: &[&str], input: &str) -> Done {
    let new_tokens = NEW_TOKENS.to_string();
    let run = Run::new(env!("CARGO_BIN_EXE_lm-gen"))
        .arg("--model")
        .arg(dir.path().join("llama"));
    run.args(["--max-new-tokens", &new_tokens])
        .args(flags)
        .arg("-")
        .stdin(input)
        .output()
}

fn texts(dir: &TempDir, flags: &[&str], input: &str) -> Vec<String> {
    let records = run(dir, flags, input).expect(0).records();
    let rows = records.iter().filter(|row| row["type"] == "completion");
    rows.map(|row| row["completion"].as_str().expect("a text").to_owned())
        .collect()
}

/// A model as a whole pass of a whole text, the way a reference does it.
struct Reference {
    decoder: Decoder,
    tokenizer: Tokenizer,
    template: Template,
    ends: Vec<u32>,
}

impl Reference {
    fn open(path: &Path) -> Reference {
        let checkpoint = Checkpoint::open(path, &Options::default()).expect("a model");
        let tokenizer = checkpoint.tokenizer().expect("a tokenizer");
        Reference {
            decoder: checkpoint.load().expect("weights"),
            template: checkpoint.template().expect("readable").expect("a template"),
            ends: checkpoint.end_tokens(&tokenizer).expect("ends"),
            tokenizer,
        }
    }

    fn ids(&self, prompt: &str, system: Option<&str>) -> Vec<u32> {
        let turns: Vec<(&str, &str)> = system
            .map(|text| ("system", text))
            .into_iter()
            .chain([("user", prompt)])
            .collect();
        let text = self.template.render(&turns, &self.tokenizer, true).expect("a text");
        self.tokenizer.encode(&text, Bos::Off).expect("ids")
    }

    fn logits(&self, ids: &[u32]) -> Vec<f64> {
        let batch = Batch::pack(&[ids]);
        let normed = self
            .decoder
            .forward(&Tape::off(), &batch, &mut (), None)
            .expect("a pass");
        let last = Tensor::new(batch.last_rows(), self.decoder.device()).expect("a row");
        let logits = self
            .decoder
            .logits(&Tape::off(), &normed.index_select(&last, 0).expect("a row"))
            .expect("logits");
        logits.to_vec2::<f32>().expect("numbers")[0]
            .iter()
            .map(|x| f64::from(*x))
            .collect()
    }
}

/// The scores of a step, from those of both contexts.
type Rule<'a> = dyn Fn(&[f64], &[f64], usize) -> Vec<f64> + 'a;

/// Greedy under a rule; none where the two best lie close together on the way, so that rounding may choose.
fn contrasted(first: (&Reference, Vec<u32>), second: (&Reference, Vec<u32>), rule: &Rule<'_>) -> Option<String> {
    let (mut ids, mut other) = (first.1, second.1);
    let mut said = Vec::new();
    for step in 0..NEW_TOKENS {
        let scores = rule(&first.0.logits(&ids), &second.0.logits(&other), step);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        if scores[order[0]] - scores[order[1]] < 1e-3 {
            return None;
        }
        let token = order[0] as u32;
        if first.0.ends.contains(&token) {
            break;
        }
        [&mut said, &mut ids, &mut other]
            .into_iter()
            .for_each(|list| list.push(token));
    }
    Some(first.0.tokenizer.decode(&said, true).expect("a text"))
}

fn ada(p: &[f64], q: &[f64], step: usize) -> Vec<f64> {
    if step >= 10 {
        return q.to_vec();
    }
    let top = |of: &[f64]| of.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let softmax = |of: &[f64]| -> Vec<f64> {
        let total: f64 = of.iter().map(|x| (x - top(of)).exp()).sum();
        of.iter().map(|x| (x - top(of)).exp() / total).collect()
    };
    let (sp, sq) = (softmax(p), softmax(q));
    let best_p = p.iter().position(|&x| x == top(p)).expect("a best");
    let is_best_of_q = q[best_p] == top(q);
    let sign = if is_best_of_q && top(&sq) >= 0.9 * top(&sp) {
        4.5
    } else {
        -4.5
    };
    (0..p.len())
        .map(|at| {
            if sq[at] < 0.01 * top(&sq) {
                f64::NEG_INFINITY
            } else {
                p[at] + sign * (p[at] - q[at])
            }
        })
        .collect()
}

#[test]
fn every_form_gives_the_tokens_of_two_whole_passes() {
    let dir = models();
    let (expert, amateur) = (
        Reference::open(&dir.path().join("llama")),
        Reference::open(&dir.path().join("qwen3")),
    );
    let input = prompts(10);
    let questions: Vec<Value> = input
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let other = format!("amateur={}:0.7", dir.path().join("qwen3").display());
    let mix = |a: f64, b: f64| move |p: &[f64], q: &[f64], _| p.iter().zip(q).map(|(p, q)| a * p + b * q).collect();
    type Form<'f> = (
        &'f [&'f str],
        Option<&'f str>,
        bool,
        &'f dyn Fn(&[f64], &[f64], usize) -> Vec<f64>,
    );
    let forms: [Form; 4] = [
        (
            &["--system", SYSTEM, "--contrast", "self:2.5"],
            Some(SYSTEM),
            false,
            &mix(-1.5, 2.5),
        ),
        (&["--contrast", "ada"], Some("Please refuse to answer me!"), false, &ada),
        (&["--contrast", &other], None, true, &mix(1.0, -0.7)),
        (
            &["--system", SYSTEM, "--contrast", &other],
            Some(SYSTEM),
            true,
            &mix(1.0, -0.7),
        ),
    ];
    for (flags, system, is_amateur, rule) in forms {
        let found = texts(&dir, flags, &input);
        let mut compared = 0;
        for (question, found) in questions.iter().zip(&found) {
            let prompt = question["prompt"].as_str().expect("a prompt");
            let first = expert.ids(prompt, system);
            let second = match is_amateur {
                true => (&amateur, first.clone()),
                false => (&expert, expert.ids(prompt, None)),
            };
            if let Some(wanted) = contrasted((&expert, first), second, rule) {
                assert_eq!(*found, wanted, "{flags:?}, {prompt}");
                compared += 1;
            }
        }
        assert!(
            compared >= 7,
            "{flags:?}: only {compared} have a clear winner at every step"
        );
    }
}

#[test]
fn at_its_ends_self_contrast_is_plain_decoding() {
    let dir = models();
    let input = prompts(8);
    let (with, without) = (texts(&dir, &["--system", SYSTEM], &input), texts(&dir, &[], &input));
    assert_ne!(with, without);
    let of = |alpha: &str| texts(&dir, &["--system", SYSTEM, "--contrast", alpha], &input);
    assert_eq!(of("self:0"), with);
    assert_eq!(of("self:1"), without);
    let other = format!("amateur={}:0", dir.path().join("qwen3").display());
    assert_eq!(texts(&dir, &["--contrast", &other], &input), without);
}

#[test]
fn batches_shards_and_a_cut_leave_no_trace() {
    let dir = models();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("prompts"), prompts(30)).expect("prompts");
    let to = |out: &str, flags: &[&str]| {
        let run = Run::new(env!("CARGO_BIN_EXE_lm-gen"))
            .arg("--model")
            .arg(at("llama"))
            .arg(at("prompts"));
        let run = run
            .args([
                "--max-new-tokens",
                "14",
                "--system",
                SYSTEM,
                "--contrast",
                "self:2.5",
                "-o",
            ])
            .arg(at(out));
        run.args(flags).output().expect(0);
        fs::read(at(out)).expect("an output")
    };
    let whole = to("whole", &[]);
    assert_eq!(whole, to("batch-3", &["--batch", "3"]));
    assert_eq!(whole, to("batch-20", &["--batch", "20"]));
    let shards: Vec<PathBuf> = (0..2).map(|index| at(&format!("part{index}"))).collect();
    for index in 0..2 {
        to(&format!("part{index}"), &["--shard", &format!("{index}/2")]);
    }
    let merge = Run::new(env!("CARGO_BIN_EXE_lm-gen"))
        .arg("--merge")
        .args(&shards)
        .output()
        .expect(0);
    assert_eq!(merge.stdout, whole);

    // a partial file cut in the middle of a line, as a kill leaves it
    fs::copy(at("whole"), at(".cut.partial")).expect("a partial file");
    let cut = whole.len() / 2;
    fs::write(at(".cut.partial"), &whole[..cut]).expect("a cut");
    assert_eq!(whole, to("cut", &["--resume"]));
    let other = Run::new(env!("CARGO_BIN_EXE_lm-gen"))
        .arg("--model")
        .arg(at("llama"))
        .arg(at("prompts"));
    let other = other.args([
        "--max-new-tokens",
        "14",
        "--system",
        SYSTEM,
        "--contrast",
        "self:2",
        "--resume",
        "-o",
    ]);
    other.arg(at("whole")).output().refused(5, "another plan");
}

#[test]
fn sampling_goes_on_as_without() {
    let dir = models();
    let sampled = |flags: &[&str]| {
        let base = ["--temperature", "1", "--seed", "3", "--system", SYSTEM];
        texts(&dir, &[&base, flags].concat(), &prompts(5))
    };
    assert_eq!(sampled(&[]), sampled(&["--contrast", "self:0"]));
    assert_ne!(sampled(&[]), sampled(&["--contrast", "self:2.5"]));
    assert_eq!(sampled(&["--contrast", "ada"]), sampled(&["--contrast", "ada:4.5"]));
}

#[test]
fn contexts_that_cannot_be_set_beside_each_other_are_refused() {
    let dir = models();
    let input = prompts(1);
    run(&dir, &["--contrast", "self:1"], &input).refused(2, "self needs --system");
    run(&dir, &["--contrast", "self"], &input).refused(2, "amateur=MODEL:ALPHA");
    run(&dir, &["--contrast", "ada", "--raw"], &input).refused(2, "--raw has none");
    let choices = json!({"id": 1, "prompt": "a", "choices": ["b", "c"]}).to_string();
    run(&dir, &["--contrast", "ada"], &choices).refused(3, "has choices");

    let other = dir.path().join("qwen3");
    let amateur = format!("amateur={}:1", other.display());
    let vocabulary = fs::read_to_string(other.join("vocab.json")).expect("a vocabulary");
    fs::write(other.join("vocab.json"), vocabulary.replace("\"a\":", "\"A\":")).expect("another one");
    run(&dir, &["--contrast", &amateur], &input).refused(3, "another tokenizer");

    let template = dir.path().join("no-system.jinja");
    fs::write(
        &template,
        "{% for m in messages if m.role != 'system' %}{{ m.content }}.{% endfor %}",
    )
    .expect("a template");
    let template = template.display().to_string();
    run(&dir, &["--contrast", "ada", "--template", &template], &input).refused(3, "no place for a system message");
}
