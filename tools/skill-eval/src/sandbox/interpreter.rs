//! The Python that runs programs: the executable behind whatever shim, and the directories that it needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use process::{Error, Result, ResultExt};

const QUESTION: &str = "import sys, os
for path in (sys.executable, sys.base_prefix, sys.base_exec_prefix):
    print(os.path.realpath(path))";

const SYSTEM: [&str; 6] = ["/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache"];

pub struct Interpreter {
    pub executable: PathBuf,
    /// What must be seen inside, read-only; none lies in another.
    pub shown: Vec<PathBuf>,
}

impl Interpreter {
    /// Asks `python` where it is at home.
    pub fn find(python: &Path) -> Result<Interpreter> {
        let output = Command::new(python)
            .args(["-I", "-c", QUESTION])
            .stdin(Stdio::null())
            .output()
            .at(python.display())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines().map(PathBuf::from);
        let (true, Some(executable)) = (output.status.success(), lines.next()) else {
            return Err(
                Error::environment(python.display(), "is no Python interpreter that runs")
                    .hint("name one with --python"),
            );
        };
        let mut shown: Vec<PathBuf> = Vec::new();
        for path in SYSTEM.map(PathBuf::from).into_iter().chain(lines) {
            if path.exists() && !shown.iter().any(|known| path.starts_with(known)) {
                shown.push(path);
            }
        }
        Ok(Interpreter { executable, shown })
    }
}
