//! What a checker and a program have to say to each other, passed on frame by frame and in time. The checker alone gives the verdict.

use std::io::ErrorKind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use process::{Error, Result, ResultExt};

use super::Check;
use super::child::{Child, Pipes};

/// How often a signal to us is looked for.
const TURN: Duration = Duration::from_millis(50);

pub enum Verdict {
    Passed,
    /// A check failed.
    Failed(String),
    /// The program broke the rules of the dialogue.
    Broken(String),
    /// The check cannot be used.
    Untestable(String),
    /// The program ended before it had answered.
    Silent,
    Late,
}

/// The checker's task: a tuple of four texts, as `plain.py` reads it.
pub fn task(program: &str, check: &Check) -> Vec<u8> {
    let texts = [program, &check.head, &check.test, &check.entry_point];
    let lines = texts.map(|text| format!("\ns{}", process::hex(text.as_bytes())));
    format!("t{}{}", texts.len(), lines.concat()).into_bytes()
}

/// Gives the task and waits for the verdict until `deadline`. Whoever is late is killed.
pub fn run(checker: &mut Child, program: &mut Child, task: Vec<u8>, deadline: Instant) -> Result<Verdict> {
    let (sender, verdicts) = channel();
    let verdict = std::thread::scope(|scope| {
        let (checker_pipes, program_pipes) = (&mut checker.pipes, &mut program.pipes);
        scope.spawn(move || sender.send(converse(checker_pipes, program_pipes, &task)));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match verdicts.recv_timeout(left.min(TURN)) {
                Ok(verdict) => return verdict,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::bug("sandbox", "the thread of a dialogue panicked"));
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() || process::signals::received().is_some() => {
                    // Whoever waits for a pipe of theirs goes on.
                    checker.process.kill().at("sandbox")?;
                    program.process.kill().at("sandbox")?;
                    return Ok(Verdict::Late);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    })?;
    process::signals::check()?;
    Ok(verdict)
}

/// Passes on calls and answers until the checker has its verdict.
fn converse(checker: &mut Pipes, program: &mut Pipes, task: &[u8]) -> Result<Verdict> {
    checker.send(task).at("sandbox")?;
    loop {
        // Whatever ended the checker came with an answer of the program.
        let Ok(said) = checker.receive() else {
            return Ok(Verdict::Broken("no valid answer: the checker could not bear it".into()));
        };
        let (tag, rest) = said.split_first().unwrap_or((&0, &[]));
        let text = || String::from_utf8_lossy(rest).into_owned();
        match tag {
            b'c' => match program.send(rest).and_then(|()| program.receive()) {
                Ok(answer) => checker.send(&answer).at("sandbox")?,
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    return Ok(Verdict::Broken("no valid answer: longer than the limit".into()));
                }
                Err(_) => return Ok(Verdict::Silent),
            },
            b'p' if program.ends().unwrap_or(false) => return Ok(Verdict::Passed),
            b'p' => return Ok(Verdict::Broken("said more than it was asked".into())),
            b'f' => return Ok(Verdict::Failed(text())),
            b'x' => return Ok(Verdict::Broken(text())),
            b'u' => return Ok(Verdict::Untestable(text())),
            _ => return Err(Error::bug("sandbox", "the checker said what no checker says")),
        }
    }
}
