//! The readers that a tool alone has, as its arguments put them to use. A fuzz program of the tool runs them in its own process, the
//! ordinary test as the program that it is.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use process::{Exit, Outcome, Result, Tool};

use super::{container, memory, place, write};

/// A reader is a line: the tool, a point, and what is read; whether the bytes are a container, whose digests are repaired; the arguments. There
/// IN is the file that holds the bytes, OUT is where a result goes, and DATA is tests/fixtures.
const TABLE: &str = "
act-stats.dump         container IN.acts --format jsonl
act-stats.fit          bytes     fit IN.jsonl --x layer_index --y ratio_sample_mean --format jsonl
act-stats.merge        bytes     merge IN.jsonl DATA/../fuzz/corpus/act-stats.merge/part-1 --format jsonl
acts-cat.gguf          container IN.acts --to gguf --output OUT --force
acts-cat.merge         container --merge IN.acts --output OUT --force
acts-cat.npy           bytes     --from IN.npy --output OUT --force
acts-cat.npy-out       container IN.acts --to npy --output OUT --force
acts-cat.rows          container IN.acts --to jsonl --output OUT --force --allow-partial
acts-cat.safetensors   bytes     --from IN.safetensors --output OUT --force
acts-cat.salvage       container --salvage IN.acts --output OUT --force
acts-cat.vllm          bytes     --from IN.safetensors --input-format vllm --output OUT --force
acts-check.samples     container --full IN.acts
ds-entropy.counts      container merge IN.acts --at 2 --format jsonl
ds-entropy.tiktoken    bytes     --tokens IN_gpt2.tiktoken DATA/releases/0.1.0/prompts.jsonl --format jsonl
ds-entropy.tokenizer   bytes     --tokens IN.json DATA/releases/0.1.0/prompts.jsonl --format jsonl
flowlens-pca.against   container DATA/releases/0.1.0/dump.acts --against IN.acts --format jsonl
flowlens-pca.dump      container IN.acts --resamples 2 --format jsonl
lm-gen.merge           bytes     --merge IN.jsonl --output OUT --force
refusal-eval.answers   bytes     judge IN.jsonl --judge prefix,substring --output OUT --force
refusal-eval.external  bytes     judge DATA/releases/0.1.0/completions.jsonl --judge prefix --external x=IN.csv --output OUT --force
refusal-eval.inspect   bytes     judge --from inspect IN.json --judge prefix --output OUT --force
refusal-eval.judge     bytes     judge DATA/releases/0.1.0/completions.jsonl --judge chat:IN.toml --plan
refusal-eval.labels    bytes     report DATA/releases/0.1.0/verdicts.jsonl --labels IN.csv --format jsonl --output OUT --force
refusal-eval.phrases   bytes     judge DATA/releases/0.1.0/completions.jsonl --judge prefix --prefixes IN --output OUT --force
refusal-eval.verdicts  bytes     report IN.jsonl --format jsonl --output OUT --force
resid-plot.records     bytes     IN.jsonl --to html --output OUT --force
skill-eval.answers     bytes     score IN.jsonl --bench gsm8k --output OUT --force
skill-eval.arc         bytes     prompts IN.jsonl --bench arc --output OUT --force
skill-eval.bbh         bytes     prompts IN.json --bench bbh --shots 0 --output OUT --force
skill-eval.gsm8k       bytes     prompts IN.jsonl --bench gsm8k --output OUT --force
skill-eval.hellaswag   bytes     prompts IN.jsonl --bench hellaswag --output OUT --force
skill-eval.humaneval   bytes     prompts IN.jsonl --bench humaneval --output OUT --force
skill-eval.ifeval      bytes     prompts IN.jsonl --bench ifeval --output OUT --force
skill-eval.lm-eval     bytes     score IN.jsonl --from lm-eval --bench gsm8k --output OUT --force
skill-eval.mmlu        bytes     prompts IN_test.csv --bench mmlu --shots 0 --output OUT --force
skill-eval.mmlu-table  bytes     prompts IN.csv --bench mmlu --shots 0 --output OUT --force
skill-eval.scores      bytes     report IN.jsonl --format jsonl --output OUT --force
skill-eval.truthfulqa  bytes     prompts IN --bench truthfulqa --output OUT --force
stable-regions.merge   bytes     --model DATA/models/llama --pairs DATA/../fuzz/corpus/stable-regions.pairs/ids --steps 4 --merge IN.jsonl --output OUT --force
stable-regions.pairs   bytes     --model DATA/models/llama --pairs IN.jsonl --list-pairs
steer-vec.clip         container clip IN.acts --output OUT --force
steer-vec.mean         container mean IN.acts --positive unsafe --negative safe --output OUT --force
";

/// A line of the table.
pub struct Use {
    pub name: &'static str,
    is_container: bool,
    arguments: &'static str,
}

pub fn uses() -> Vec<Use> {
    let read = |line: &'static str| {
        let mut words = line.splitn(2, ' ');
        let (name, rest) = (words.next()?, words.next()?.trim_start());
        let (kind, arguments) = rest.split_once(' ')?;
        Some(Use {
            name,
            is_container: kind == "container",
            arguments: arguments.trim_start(),
        })
    };
    TABLE.lines().filter_map(read).collect()
}

impl Use {
    pub fn tool(&self) -> &'static str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// The bytes as a file of `directory`, and the arguments that read it.
    pub fn given(&self, data: &[u8], directory: &Path) -> Vec<String> {
        let mut data = data.to_vec();
        if self.is_container {
            container::repair(&mut data);
        }
        let mut words: Vec<String> = self.arguments.split(' ').map(str::to_owned).collect();
        for word in &mut words {
            let start = word.rfind(['=', ':']).map_or(0, |at| at + 1);
            let path = match &word[start..] {
                name if name.starts_with("IN") => write(directory, name, &data),
                "OUT" => directory.join("OUT"),
                name => match name.strip_prefix("DATA/") {
                    Some(fixture) => super::fixtures().join(fixture),
                    None => continue,
                },
            };
            word.replace_range(start.., &path.display().to_string());
        }
        words.push("--quiet".into());
        words
    }
}

/// Runs the use that FUZZ_TARGET names in this process: it ends well, or refuses what it was given.
pub fn fuzz<A: Tool>(run: fn(A) -> Result<Outcome>, data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    static USE: OnceLock<Use> = OnceLock::new();
    let used = USE.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = uses().into_iter().find(|used| used.name == name);
        found.unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is in no table"))
    });
    memory::bounded(used.name, || {
        let words = used.given(data, place(&PLACE, &[]));
        let args = A::try_parse_from([used.tool().to_owned()].into_iter().chain(words));
        if let Err(error) = run(args.expect("arguments of the table")) {
            super::check_message(&error);
            assert_ne!(error.exit(), Some(Exit::Bug), "{error}");
        }
    });
}
