//! lm-gen as a process: beside this program, then on PATH.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use process::{Error, Outcome, Result, ResultExt};
use records::Prompt;

/// A run of lm-gen over a file of prompts.
pub struct Generator<'a> {
    pub model: &'a Path,
    pub args: Vec<String>,
}

impl Generator<'_> {
    /// Answers `prompts` into `completions`; partial where some could not be run.
    pub fn run(&self, prompts: &Path, completions: &Path) -> Result<Outcome> {
        let program = locate()?;
        let mut child = Command::new(&program)
            .arg("--model")
            .arg(self.model)
            .args(&self.args)
            .arg("--output")
            .arg(completions)
            .arg(prompts)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .at(program.display())?;
        // Its progress goes on to our stderr; its last word becomes ours, so that there is one line.
        let mut cause = None;
        let mut hint = None;
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                if let Some(text) = line.strip_prefix("lm-gen: error: ") {
                    cause = Some(text.to_string());
                } else if let Some(text) = line.strip_prefix("lm-gen: hint: ") {
                    hint = Some(text.to_string());
                } else {
                    // A closed stderr is no reason to stop.
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            }
        }
        let status = child.wait().at("lm-gen")?;
        process::signals::check()?;
        match status.code() {
            Some(0) => return Ok(Outcome::Complete),
            Some(6) => return Ok(Outcome::Partial),
            _ => {}
        }
        let cause = cause.unwrap_or_else(|| format!("{status}"));
        let error = match status.code() {
            Some(2) => Error::usage("lm-gen", cause),
            Some(3) => Error::input("lm-gen", cause),
            Some(5) => Error::conflict("lm-gen", cause),
            Some(70) => Error::bug("lm-gen", cause),
            _ => Error::environment("lm-gen", cause),
        };
        Err(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }
}

/// Writes prompt records as plain lines.
pub fn write_prompts(path: &Path, prompts: &[Prompt]) -> Result<()> {
    let file = std::fs::File::create(path).at(path.display())?;
    let mut writer = records::Writer::new(std::io::BufWriter::new(file));
    for prompt in prompts {
        writer.row(prompt).at(path.display())?;
    }
    writer.into_output().at(path.display())?;
    Ok(())
}

fn locate() -> Result<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("lm-gen")));
    if let Some(path) = beside.filter(|path| path.is_file()) {
        return Ok(path);
    }
    let on_path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join("lm-gen"))
        .find(|path| path.is_file());
    on_path.ok_or_else(|| Error::environment("lm-gen", "not found beside skill-eval nor on PATH"))
}

/// A directory for the files between us and lm-gen, removed when it goes out of scope.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Scratch> {
        let root = std::env::temp_dir();
        for attempt in 0u32..64 {
            let path = root.join(format!("skill-eval-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).at(path.display()),
            }
        }
        Err(Error::environment(
            root.display(),
            "no free name for a temporary directory",
        ))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-overs in the temporary directory do no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
