//! Runs one untrusted Python program and judges it: the program serves calls of its function in one confined interpreter, and a checker
//! in another makes the calls and looks at the answers. The program can say what it likes: what passes is decided where it is not.
//!
//! Each interpreter has user, mount, network, process, IPC and host-name namespaces and a session of its own, a root that holds a
//! read-only Python and one small empty directory, resource limits and a list of allowed system calls. Either all of it is in force or
//! nothing runs: [`Sandbox::new`] proves it on this machine, or refuses (exit 4). What a program may cost: one process (it may replace
//! itself by a program that it finds in its root, under the same limits), `memory_bytes` of address space, 16 MiB of each file, 32 MiB of
//! files, 64 open files, `seconds` of time.

mod calls;
mod child;
mod confinement;
mod dialogue;
mod interpreter;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use process::{Error, Result};

use child::{Child, Role};
use confinement::Confinement;
use dialogue::Verdict;
use interpreter::Interpreter;

/// What a program may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    pub seconds: u64,
    pub memory_bytes: u64,
}

/// Whether and how the programs of a model run.
pub struct Execution {
    pub is_allowed: bool,
    pub python: PathBuf,
    pub limits: Limits,
}

impl Execution {
    /// Refuses programs of a model where they were not allowed; tries the sandbox where they were.
    pub fn sandbox(&self) -> Result<Sandbox> {
        if !self.is_allowed {
            return Err(Error::usage("humaneval", "scoring runs programs that a model wrote")
                .hint("--allow-code-execution runs them in a sandbox"));
        }
        Sandbox::new(&self.python, self.limits)
    }
}

/// How a function is tested, in the benchmark's words.
#[derive(Debug)]
pub struct Check {
    /// Python that defines what the test calls beside the function.
    pub head: String,
    /// Python that defines `check`, of one argument: the function.
    pub test: String,
    /// The function's name in the program.
    pub entry_point: String,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The checks held.
    Passed,
    /// A check failed, or the program raised, exited, was killed or broke the rules; the last line of what was said.
    Failed(String),
    TimedOut,
    /// Nothing is known of the program: the check itself cannot be used.
    Untestable(String),
}

/// A sandbox that was tried and works.
pub struct Sandbox {
    interpreter: Interpreter,
    confinement: Arc<Confinement>,
    limits: Limits,
    /// Checkers that wait for their next program: an interpreter starts slowly.
    idle: Mutex<Vec<Child>>,
}

impl Sandbox {
    /// Finds the interpreter, prepares its confinement, and tries everything once.
    pub fn new(python: &Path, limits: Limits) -> Result<Sandbox> {
        let interpreter = Interpreter::find(python)?;
        let sandbox = Sandbox {
            confinement: Confinement::new(&interpreter, limits)?,
            interpreter,
            limits,
            idle: Mutex::default(),
        };
        let check = Check {
            head: String::new(),
            test: "def check(candidate):\n    assert candidate(1) == 2\n".into(),
            entry_point: "increment".into(),
        };
        match sandbox.judge("def increment(n):\n    return n + 1\n", &check)? {
            Ending::Passed => Ok(sandbox),
            Ending::Failed(said) | Ending::Untestable(said) => Err(Error::environment(
                "sandbox",
                format!("a trivial program failed in it: {said}"),
            )),
            Ending::TimedOut => Err(Error::environment("sandbox", "a trivial program timed out in it")),
        }
    }

    /// Runs `program` under `check`. An error is the sandbox's, never the program's.
    pub fn judge(&self, program: &str, check: &Check) -> Result<Ending> {
        let mut checker = match self.idle().pop() {
            Some(checker) => checker,
            None => self.start(Role::Checker)?,
        };
        let mut program_process = self.start(Role::Program)?;
        let deadline = Instant::now() + Duration::from_secs(self.limits.seconds);
        let task = dialogue::task(program, check);
        let verdict = dialogue::run(&mut checker, &mut program_process, task, deadline)?;
        let is_reusable = matches!(verdict, Verdict::Passed | Verdict::Failed(_));
        let ending = match verdict {
            Verdict::Passed => Ending::Passed,
            Verdict::Failed(why) | Verdict::Broken(why) => Ending::Failed(last_line(&why)),
            Verdict::Untestable(why) => Ending::Untestable(last_line(&why)),
            Verdict::Silent => program_process
                .last_words(deadline)?
                .map_or(Ending::TimedOut, |said| Ending::Failed(last_line(&said))),
            Verdict::Late => Ending::TimedOut,
        };
        if is_reusable {
            self.idle().push(checker);
        }
        Ok(ending)
    }

    fn start(&self, role: Role) -> Result<Child> {
        Child::start(&self.interpreter, &self.confinement, role)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last line that says something, shortened.
fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().chars().take(200).collect()
}
