//! Exit codes and the errors that carry them.
//!
//! One table for every tool: a script may branch on the code, a person reads the one line on stderr.
//! Library errors know nothing of exit codes; `ResultExt::at` classifies them when a tool names the subject.

use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::io;

use crate::text::safe_text;

/// What a process says to its caller when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Complete = 0,
    Verdict = 1,
    Usage = 2,
    Input = 3,
    Environment = 4,
    Conflict = 5,
    Partial = 6,
    Bug = 70,
}

impl Exit {
    /// Code, name and meaning: rendered into every man page.
    pub const TABLE: &[(Exit, &str, &str)] = &[
        (
            Exit::Complete,
            "complete",
            "the whole result was delivered and, for files, is durable",
        ),
        (
            Exit::Verdict,
            "verdict",
            "the tool worked and the measured answer is no",
        ),
        (Exit::Usage, "usage", "the arguments are wrong"),
        (
            Exit::Input,
            "input",
            "the data was refused: malformed, truncated, corrupt, over a limit; retrying is pointless",
        ),
        (
            Exit::Environment,
            "environment",
            "missing file, permission, no space, I/O error, no device, out of memory; retry later",
        ),
        (
            Exit::Conflict,
            "conflict",
            "the output exists, a lock is held, or the resume state belongs to another plan",
        ),
        (
            Exit::Partial,
            "partial",
            "--keep-going finished with failed items; the output is valid and says partial",
        ),
        (Exit::Bug, "bug", "a broken invariant of the program: please report it"),
    ];

    pub fn code(self) -> i32 {
        i32::from(self as u8)
    }
}

/// How a run that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    Verdict,
    Partial,
}

impl Outcome {
    pub fn exit(self) -> Exit {
        match self {
            Outcome::Complete => Exit::Complete,
            Outcome::Verdict => Exit::Verdict,
            Outcome::Partial => Exit::Partial,
        }
    }

    /// Partial, or else complete.
    pub fn partial_if(is_partial: bool) -> Outcome {
        if is_partial {
            Outcome::Partial
        } else {
            Outcome::Complete
        }
    }

    /// The worse of two outcomes: partial outranks verdict outranks complete.
    pub fn and(self, other: Outcome) -> Outcome {
        let rank = |outcome: Outcome| match outcome {
            Outcome::Complete => 0,
            Outcome::Verdict => 1,
            Outcome::Partial => 2,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

#[derive(Debug)]
enum Kind {
    Exit(Exit),
    /// The reader of our stdout went away: end as SIGPIPE ends a process.
    Pipe,
    /// A signal asked us to stop and the work is in order.
    Signal(i32),
}

/// A refusal: which exit code, what it is about, why, and perhaps what to do.
#[derive(Debug)]
pub struct Error(Box<Refusal>);

#[derive(Debug)]
struct Refusal {
    kind: Kind,
    subject: String,
    cause: String,
    hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(kind: Kind, subject: impl Display, cause: impl Display) -> Self {
        Error(Box::new(Refusal {
            kind,
            subject: subject.to_string(),
            cause: cause.to_string(),
            hint: None,
        }))
    }

    pub fn usage(subject: impl Display, cause: impl Display) -> Self {
        Self::new(Kind::Exit(Exit::Usage), subject, cause)
    }

    pub fn input(subject: impl Display, cause: impl Display) -> Self {
        Self::new(Kind::Exit(Exit::Input), subject, cause)
    }

    pub fn environment(subject: impl Display, cause: impl Display) -> Self {
        Self::new(Kind::Exit(Exit::Environment), subject, cause)
    }

    pub fn conflict(subject: impl Display, cause: impl Display) -> Self {
        Self::new(Kind::Exit(Exit::Conflict), subject, cause)
    }

    pub fn bug(subject: impl Display, cause: impl Display) -> Self {
        Self::new(Kind::Exit(Exit::Bug), subject, cause)
    }

    /// The work stopped in good order because signal `number` asked for it.
    pub fn interrupted(number: i32) -> Self {
        Self::new(Kind::Signal(number), "run", "interrupted")
    }

    pub fn hint(mut self, hint: impl Display) -> Self {
        self.0.hint = Some(hint.to_string());
        self
    }

    /// The exit code, or `None` where the process ends by a signal.
    pub fn exit(&self) -> Option<Exit> {
        match self.0.kind {
            Kind::Exit(exit) => Some(exit),
            Kind::Pipe | Kind::Signal(_) => None,
        }
    }

    pub fn is_broken_pipe(&self) -> bool {
        matches!(self.0.kind, Kind::Pipe)
    }

    /// The signal to die of, if any.
    pub(crate) fn signal(&self) -> Option<i32> {
        match self.0.kind {
            Kind::Pipe => Some(libc::SIGPIPE),
            Kind::Signal(number) => Some(number),
            Kind::Exit(_) => None,
        }
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Classifies any library error by the I/O error at its root, if there is one.
    pub fn from_source(subject: impl Display, error: &(dyn StdError + 'static)) -> Self {
        let kind = match root_io(error) {
            Some(io) if io.raw_os_error() == Some(libc::EPIPE) => Kind::Pipe,
            Some(io) if io.raw_os_error() == Some(libc::EISDIR) => Kind::Exit(Exit::Input),
            Some(io) if is_environment(io) => Kind::Exit(Exit::Environment),
            _ => Kind::Exit(Exit::Input),
        };
        Self::new(kind, subject, chain_text(error))
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", safe_text(&self.0.subject), safe_text(&self.0.cause))
    }
}

/// Names the subject of a failure and turns it into an exit code.
pub trait ResultExt<T> {
    fn at(self, subject: impl Display) -> Result<T>;
}

impl<T, E: StdError + 'static> ResultExt<T> for std::result::Result<T, E> {
    fn at(self, subject: impl Display) -> Result<T> {
        self.map_err(|error| Error::from_source(subject, &error))
    }
}

fn root_io<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    let mut found = None;
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            found = Some(io);
            // An io::Error shows its inner error's source, not the inner error itself.
            if let Some(inner) = io.get_ref() {
                next = Some(inner as &(dyn StdError + 'static));
                continue;
            }
        }
        next = current.source();
    }
    found
}

fn is_environment(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    error.raw_os_error().is_some()
        || matches!(
            error.kind(),
            NotFound
                | PermissionDenied
                | StorageFull
                | OutOfMemory
                | TimedOut
                | WriteZero
                | ConnectionAborted
                | AddrInUse
        )
}

fn chain_text(error: &(dyn StdError + 'static)) -> String {
    let mut text = plain(&error.to_string());
    let mut next = error.source();
    while let Some(source) = next {
        let more = plain(&source.to_string());
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

/// Drops Rust's "(os error 2)", which says nothing to a person.
fn plain(text: &str) -> String {
    match (text.find(" (os error "), text.ends_with(')')) {
        (Some(at), true) => text[..at].to_string(),
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_operating_system_is_environment() {
        let failed: io::Result<()> = Err(io::Error::from_raw_os_error(libc::ENOSPC));
        let error = failed.at("x.acts").unwrap_err();
        assert_eq!(error.exit(), Some(Exit::Environment));
        assert_eq!(error.to_string(), "x.acts: No space left on device");
    }

    #[test]
    fn malformed_data_is_input() {
        let failed = "x".parse::<u32>().map(|_| ());
        assert_eq!(failed.at("row 3").unwrap_err().exit(), Some(Exit::Input));
        let cut: io::Result<()> = Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert_eq!(cut.at("file").unwrap_err().exit(), Some(Exit::Input));
    }

    #[test]
    fn a_closed_pipe_has_no_exit_code_of_its_own() {
        let failed: io::Result<()> = Err(io::Error::from_raw_os_error(libc::EPIPE));
        let error = failed.at("stdout").unwrap_err();
        assert!(error.is_broken_pipe());
        assert_eq!(error.exit(), None);
    }

    #[test]
    fn text_from_data_cannot_break_the_line() {
        let error = Error::input("row\n2", "bad \u{1b}[31m value");
        assert_eq!(error.to_string(), "row\\n2: bad \\u{1b}[31m value");
    }

    #[test]
    fn partial_outranks_verdict() {
        assert_eq!(Outcome::Verdict.and(Outcome::Partial), Outcome::Partial);
        assert_eq!(Outcome::Partial.and(Outcome::Verdict), Outcome::Partial);
        assert_eq!(Outcome::Complete.and(Outcome::Verdict), Outcome::Verdict);
    }
}
