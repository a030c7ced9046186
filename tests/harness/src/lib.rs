//! Runs the built tools as processes, the way a shell would, and finds test data.
//!
//! Every run has a deadline: a hang is a failure. Signals show as 128+N, as a shell shows them.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

mod cluster;
mod needs;

pub use cluster::Cluster;
pub use needs::{data, program, skip, smollm2};
pub use tempfile::TempDir;

/// A tool that is asked to refuse something answers well within this.
const DEADLINE: Duration = Duration::from_secs(120);

/// One run of a tool, being put together.
pub struct Run {
    command: Command,
    program: PathBuf,
    stdin: Option<Vec<u8>>,
    deadline: Duration,
}

/// How a run ended.
pub struct Done {
    /// The exit code; 128+N after signal N.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// A run of the program at `path` (`env!("CARGO_BIN_EXE_…")`, or `tool("…")`).
    pub fn new(path: impl AsRef<Path>) -> Run {
        let program = path.as_ref().to_path_buf();
        let mut command = Command::new(&program);
        for name in [
            "SHARD_INDEX",
            "SHARD_COUNT",
            "RANK",
            "WORLD_SIZE",
            "SLURM_ARRAY_TASK_ID",
            "AWS_BATCH_JOB_ARRAY_INDEX",
            "CLOUD_RUN_TASK_INDEX",
            "JOB_COMPLETION_INDEX",
            "SGE_TASK_ID",
            "PBS_ARRAY_INDEX",
        ] {
            command.env_remove(name);
        }
        Run {
            command,
            program,
            stdin: None,
            deadline: DEADLINE,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.command.arg(arg);
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Run {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub fn current_dir(mut self, path: impl AsRef<Path>) -> Run {
        self.command.current_dir(path);
        self
    }

    /// Bytes for standard input (default: empty).
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Run {
        self.stdin = Some(bytes.into());
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Run {
        self.deadline = deadline;
        self
    }

    /// Runs to the end.
    pub fn output(self) -> Done {
        self.run(Stdio::piped(), usize::MAX)
    }

    /// Runs with stdout on `path` (such as `/dev/full`).
    pub fn stdout_to(self, path: &str) -> Done {
        let file = File::options()
            .write(true)
            .open(path)
            .expect("opening the target of stdout");
        self.run(file.into(), 0)
    }

    /// Runs with a reader that goes away after `bytes` bytes, as `| head -c` does.
    pub fn stdout_closed_after(self, bytes: usize) -> Done {
        self.run(Stdio::piped(), bytes)
    }

    /// Feeds stdin and reads both outputs at once, so that no pipe can fill up and block; closes stdout after
    /// `read_bytes`.
    fn run(mut self, stdout: Stdio, read_bytes: usize) -> Done {
        self.command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let deadline = self.deadline;
        let bytes = self.stdin.take().unwrap_or_default();
        let mut child = self.start();
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        // A tool that stops reading early is no failure of the test.
        let feeder = thread::spawn(move || drop(stdin.write_all(&bytes)));
        let stdout = child.stdout.take().map(|pipe| drain(pipe, read_bytes));
        let stderr = child.stderr.take().map(|pipe| drain(pipe, usize::MAX));
        let status = wait(&mut child, deadline);
        feeder.join().expect("feeding stdin");
        let collect = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
            reader.map_or(Vec::new(), |thread| thread.join().expect("reading a pipe"))
        };
        Done {
            code: code(status),
            stdout: collect(stdout),
            stderr: String::from_utf8_lossy(&collect(stderr)).into_owned(),
        }
    }

    /// Starts it with everything but stderr on /dev/null, for tests that send signals.
    pub fn spawn(mut self) -> Child {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        self.start()
    }

    fn start(mut self) -> Child {
        let begin = Instant::now();
        loop {
            match self.command.spawn() {
                Ok(child) => return child,
                // a program that a test has just copied is held open by what another test forked meanwhile, until that runs its own
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && begin.elapsed() < self.deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => panic!("starting {}: {error}", self.program.display()),
            }
        }
    }
}

impl Done {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout is UTF-8")
    }

    /// Stdout as JSON lines.
    pub fn records(&self) -> Vec<serde_json::Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
            .collect()
    }

    /// Fails the test unless the run ended with `code`, showing what it said.
    #[track_caller]
    pub fn expect(self, code: i32) -> Done {
        assert_eq!(self.code, code, "stderr: {}", self.stderr);
        self
    }

    /// Fails the test unless the run was refused with `code` in one clear line that holds `words`.
    #[track_caller]
    pub fn refused(self, code: i32, words: &str) -> Done {
        assert_eq!(self.code, code, "stderr: {}", self.stderr);
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(
            matches!(lines.len(), 1 | 2),
            "one line and at most a hint, got: {}",
            self.stderr
        );
        assert!(lines[0].contains(": error: "), "{}", self.stderr);
        assert!(
            lines.get(1).is_none_or(|line| line.contains(": hint: ")),
            "{}",
            self.stderr
        );
        assert!(self.stderr.contains(words), "{words:?} is not in: {}", self.stderr);
        self
    }
}

/// Waits until a child ends, or kills it and fails the test.
pub fn wait(child: &mut Child, deadline: Duration) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("waiting") {
            return status;
        }
        if start.elapsed() > deadline {
            let _ = child.kill();
            panic!("still running after {} s", deadline.as_secs());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to a child that was not waited for. (A bare system has no program `kill`.)
pub fn signal(child: &Child, name: &str) {
    let number = match name {
        "CONT" => libc::SIGCONT,
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "KILL" => libc::SIGKILL,
        "STOP" => libc::SIGSTOP,
        "TERM" => libc::SIGTERM,
        _ => panic!("no test sends {name}"),
    };
    let id = i32::try_from(child.id()).expect("a process id is an i32");
    // SAFETY: the call takes numbers alone, and the id is the child's until it is waited for.
    assert_eq!(unsafe { libc::kill(id, number) }, 0, "SIG{name} to {id}");
}

/// The most memory that a running process has held, in bytes (Linux).
pub fn peak_bytes(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// The exit code as a shell shows it.
pub fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().expect("ended by code or signal"))
}

fn drain(pipe: impl Read + Send + 'static, bytes_max: usize) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.take(bytes_max as u64)
            .read_to_end(&mut bytes)
            .expect("reading a pipe");
        bytes
    })
}

/// A directory that goes away with the test.
pub fn temp_dir() -> TempDir {
    tempfile::tempdir().expect("making a temporary directory")
}

/// A built tool of this workspace, for tests that see several. `make test` builds them first.
pub fn tool(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace` first",
        path.display()
    );
    path
}

/// Every tool of the workspace, by its directory, in order.
pub fn tools() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(workspace().join("tools"))
        .expect("tools/")
        .map(|entry| entry.expect("an entry of tools/").file_name().into_string())
        .collect::<Result<_, _>>()
        .expect("UTF-8 names");
    names.sort();
    names
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("tests/harness is two below the root")
        .to_path_buf()
}

/// Makes a model directory of a committed random model, with a tokenizer of single letters and a chat template.
pub fn lettered_model(case: &str, directory: &Path) {
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).expect("writing a model file");
    let source = workspace().join("tests/fixtures/models").join(case);
    std::fs::create_dir(directory).expect("making a model directory");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(source.join(name), directory.join(name)).expect("a model of tests/fixtures");
    }
    let marks = ["<s>", "Ġ", ".", ",", "?", "!", "'"].map(str::to_owned).into_iter();
    let tokens = marks.chain(('a'..='z').chain('0'..='9').map(String::from));
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    write("vocab.json", &serde_json::Value::from(vocabulary).to_string());
    write("merges.txt", "#version: 0.2\n");
    write(
        "tokenizer_config.json",
        r#"{"tokenizer_class":"GPT2Tokenizer","bos_token":"<s>",
            "chat_template":"{% for m in messages %}{{ m.role[0] }} {{ m.content }}.{% endfor %}"}"#,
    );
}

/// Makes a model directory of a committed random model, with a tokenizer whose token n is the word `tn`, without a chat template.
pub fn worded_model(case: &str, directory: &Path) {
    let source = workspace().join("tests/fixtures/models").join(case);
    std::fs::create_dir_all(directory).expect("making a model directory");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(source.join(name), directory.join(name)).expect("a model of tests/fixtures");
    }
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..48).map(|id| (format!("t{id}"), id.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"},
    });
    std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).expect("writing a tokenizer");
}
