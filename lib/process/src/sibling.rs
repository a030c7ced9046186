//! Another tool of this project as a process: found beside this program, then on PATH.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use crate::exit::{Error, Outcome, Result, ResultExt};
use crate::signals;

/// A call of another tool, word by word.
pub struct Sibling {
    tool: &'static str,
    args: Vec<OsString>,
}

impl Sibling {
    pub fn new(tool: &'static str) -> Sibling {
        Sibling { tool, args: Vec::new() }
    }

    pub fn arg(mut self, word: impl Into<OsString>) -> Sibling {
        self.args.push(word.into());
        self
    }

    pub fn args<W: Into<OsString>>(mut self, words: impl IntoIterator<Item = W>) -> Sibling {
        self.args.extend(words.into_iter().map(Into::into));
        self
    }

    /// Runs it to its end, without input or output, and passes on how it ended. Its progress goes on to our stderr; its refusal becomes
    /// ours, with its exit code, so that there is one line.
    pub fn run(self) -> Result<Outcome> {
        run(self.tool, &self.args, None)
    }

    /// This process becomes the tool, with its input, output and exit code. Comes back only where it cannot, with why.
    pub fn exec(self) -> Error {
        match locate(self.tool) {
            Ok(program) => Error::from_source(program.display(), &Command::new(&program).args(self.args).exec()),
            Err(error) => error,
        }
    }

    /// As [`Sibling::run`], for a call whose answer is what it prints.
    pub fn output(self) -> Result<Vec<u8>> {
        let mut printed = Vec::new();
        run(self.tool, &self.args, Some(&mut printed))?;
        Ok(printed)
    }
}

fn run(tool: &str, args: &[OsString], printed: Option<&mut Vec<u8>>) -> Result<Outcome> {
    let program = locate(tool)?;
    let mut child = Command::new(&program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(if printed.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stderr(Stdio::piped())
        .spawn()
        .at(program.display())?;
    // Both pipes are emptied at once, so that neither can stop the child.
    let reader = child.stdout.take().map(|mut stdout| {
        thread::Builder::new().spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        })
    });
    let reader = reader.transpose().at("a thread")?;
    let (mut cause, mut hint) = (None, None);
    let (error_mark, hint_mark) = (format!("{tool}: error: "), format!("{tool}: hint: "));
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(io::Result::ok) {
            if let Some(text) = line.strip_prefix(&error_mark) {
                cause = Some(text.to_string());
            } else if let Some(text) = line.strip_prefix(&hint_mark) {
                hint = Some(text.to_string());
            } else {
                // A closed stderr is no reason to stop.
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }
    let status = child.wait().at(tool)?;
    if let (Some(reader), Some(printed)) = (reader, printed) {
        let read = reader.join().map_err(|_| Error::bug(tool, "its reader panicked"))?;
        *printed = read.at(tool)?;
    }
    signals::check()?;
    match status.code() {
        Some(0) => return Ok(Outcome::Complete),
        Some(1) => return Ok(Outcome::Verdict),
        Some(6) => return Ok(Outcome::Partial),
        _ => {}
    }
    let cause = cause.unwrap_or_else(|| status.to_string());
    let error = match status.code() {
        Some(2) => Error::usage(tool, cause),
        Some(3) => Error::input(tool, cause),
        Some(5) => Error::conflict(tool, cause),
        Some(70) => Error::bug(tool, cause),
        _ => Error::environment(tool, cause),
    };
    Err(match hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

fn locate(tool: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(tool)));
    if let Some(path) = beside.filter(|path| path.is_file()) {
        return Ok(path);
    }
    let on_path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|directory| directory.join(tool))
        .find(|path| path.is_file());
    on_path.ok_or_else(|| Error::environment(tool, format!("not found beside {} nor on PATH", crate::tool_name())))
}
