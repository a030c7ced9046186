//! What this process has put in place, for the line at the end of a long run.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::text::safe_text;

static WRITTEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// More names than a line holds are counted.
const NAMED: usize = 3;

/// Notes that an output has its name. A file of a directory that is still being made is left to the directory.
pub fn written(path: &Path) {
    let in_making = path
        .components()
        .any(|part| part.as_os_str().as_encoded_bytes().ends_with(b".partial"));
    if !in_making {
        let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        written.push(path.to_path_buf());
    }
}

/// What a line about the run adds: the names, or nothing.
pub(crate) fn clause() -> String {
    said(&WRITTEN.lock().unwrap_or_else(PoisonError::into_inner))
}

fn said(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths
        .iter()
        .take(NAMED)
        .map(|path| safe_text(&path.display().to_string()))
        .collect();
    match (names.is_empty(), paths.len().saturating_sub(NAMED)) {
        (true, _) => String::new(),
        (false, 0) => format!("; wrote {}", names.join(", ")),
        (false, more) => format!("; wrote {} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_outputs_are_named_and_many_counted() {
        let paths: Vec<PathBuf> = ["a.acts", "b\n", "c", "d", "e"].map(PathBuf::from).to_vec();
        assert_eq!(said(&[]), "");
        assert_eq!(said(&paths[..1]), "; wrote a.acts");
        assert_eq!(said(&paths[2..]), "; wrote c, d, e");
        let line = said(&paths);
        assert!(!line.contains('\n') && line.ends_with(" and 2 more"), "{line}");
    }
}
