//! A confined interpreter as a process: its start, the frames it is sent and sends, its last words. It is killed when dropped.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use process::{Error, Result, ResultExt};

use super::confinement::Confinement;
use super::interpreter::Interpreter;

/// The same limit stands in `plain.py`; one byte more for the checker's tag.
const FRAME_BYTES_MAX: u64 = (16 << 20) + 1;
/// What is kept of a program's errors; the rest is read and dropped.
const ERRORS_BYTES_MAX: usize = 64 << 10;

/// What an interpreter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Holds the model's text and serves calls of its function.
    Program,
    /// Holds the benchmark's text and makes the calls. It lives on from program to program.
    Checker,
}

impl Role {
    fn driver(self) -> &'static str {
        match self {
            Role::Program => concat!(include_str!("plain.py"), include_str!("program.py")),
            Role::Checker => concat!(include_str!("plain.py"), include_str!("checker.py")),
        }
    }
}

pub struct Child {
    /// Killed, it takes with it all that it started: it waits for the first process of a namespace, which is tied to it.
    pub process: std::process::Child,
    pub pipes: Pipes,
    errors: Option<JoinHandle<Vec<u8>>>,
}

impl Child {
    /// Returns when the interpreter runs, with all of its confinement in force.
    pub fn start(interpreter: &Interpreter, confinement: &Arc<Confinement>, role: Role) -> Result<Child> {
        let (mut step_reader, step_writer) = io::pipe().at("sandbox")?;
        let entry = confinement.entry(role, step_writer.into());
        let mut command = Command::new(&interpreter.executable);
        command
            .args(["-I", "-S", "-B", "-c", role.driver()])
            .env_clear()
            .env("PYTHONHASHSEED", "0")
            .env("HOME", "/work")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: the closure runs between fork and exec and makes system calls alone, on memory prepared before the fork.
        unsafe { command.pre_exec(move || entry.enter()) };
        let spawned = command.spawn();
        // The writing end goes with the command; then what is read below ends.
        drop(command);
        let mut process = spawned.map_err(|cause| {
            let mut step = String::new();
            // What the child could say before it failed; without it the cause stands alone.
            let _ = step_reader.read_to_string(&mut step);
            let step = if step.is_empty() { "starting it" } else { &step };
            Error::environment("sandbox", format!("{step}: {cause}"))
                .hint("code runs only where the kernel gives user, mount, network and process namespaces to this user")
        })?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err(Error::bug("sandbox", "a pipe that was asked for is missing"));
        };
        Ok(Child {
            process,
            pipes: Pipes {
                stdin: Some(stdin),
                stdout: BufReader::new(stdout),
            },
            errors: Some(std::thread::spawn(move || tail(stderr))),
        })
    }

    /// Why a program that answers no more has ended; `None` where it has not ended in time.
    pub fn last_words(&mut self, deadline: Instant) -> Result<Option<String>> {
        let status = loop {
            if let Some(status) = self.process.try_wait().at("sandbox")? {
                break status;
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            process::signals::check()?;
            std::thread::sleep(Duration::from_millis(1));
        };
        let errors = self.errors.take().map(JoinHandle::join).transpose();
        let errors = errors.map_err(|_| Error::bug("sandbox", "the thread of a pipe panicked"))?;
        let errors = String::from_utf8_lossy(&errors.unwrap_or_default()).trim().to_owned();
        Ok(Some(if errors.is_empty() { describe(status) } else { errors }))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Either call fails only where the process has been waited for already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The ending of a program that said nothing.
fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => "exited before its end".into(),
        Some(code) if code > 128 => format!("killed by signal {}", code - 128),
        _ => status.to_string(),
    }
}

/// Frames to and from an interpreter: the length in four bytes, most significant first, and then that many bytes.
pub struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Pipes {
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        stdin.write_all(&[&length.to_be_bytes(), frame].concat())
    }

    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stdout.read_exact(&mut length)?;
        let length = u64::from(u32::from_be_bytes(length));
        if length > FRAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // BOUND: grows with the bytes that come, up to the limit.
        let mut frame = Vec::new();
        self.stdout.by_ref().take(length).read_to_end(&mut frame)?;
        if frame.len() as u64 == length {
            Ok(frame)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Lets the interpreter see the end of its input, and says whether it ends without another byte.
    pub fn ends(&mut self) -> io::Result<bool> {
        self.stdin = None;
        Ok(self.stdout.read(&mut [0])? == 0)
    }
}

/// The last bytes of a stream that may be endless.
fn tail(mut stream: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return kept,
            Ok(read) => {
                kept.extend_from_slice(&chunk[..read]);
                // BOUND: twice the limit, whatever the program writes.
                if kept.len() > 2 * ERRORS_BYTES_MAX {
                    kept.drain(..kept.len() - ERRORS_BYTES_MAX);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
    }
}
