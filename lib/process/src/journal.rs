//! The journal of a resumable run: `.OUT.journal`, JSON lines beside the partial file.
//!
//! The first line holds the plan, so that a resume under another plan names the first difference; the others are
//! marks that the tool defines (a unit and where it ends, say). Each line ends in a digest of itself: a torn or
//! damaged line ends the journal there. Deleting it costs time, never correctness: the partial file stays the truth.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::{Error, Result, ResultExt};
use crate::output::beside;
use crate::plan::{self, MixedCompute};
use crate::text::sha256;

/// BOUND: a mark is small; a longer line is damage.
const LINE_BYTES_MAX: u64 = 16 << 20;

pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Starts a journal for `output`, replacing what is there.
    pub fn create(output: &Path, plan: &impl Serialize) -> Result<Journal> {
        let path = beside(output, ".journal");
        Journal::clear(output)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .at(path.display())?;
        let mut journal = Journal { file, path };
        journal.mark(plan)?;
        Ok(journal)
    }

    /// Removes the journal of `output`, if there is one: that of a finished output is one whose run was killed at the very end.
    pub fn clear(output: &Path) -> Result<()> {
        let path = beside(output, ".journal");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at(path.display()),
            _ => Ok(()),
        }
    }

    /// Continues the journal of `output` if it has one: its marks, oldest first. Another plan is a conflict.
    pub fn resume<M: DeserializeOwned>(
        output: &Path,
        plan: &impl Serialize,
        mixed: MixedCompute,
    ) -> Result<(Journal, Vec<M>)> {
        let path = beside(output, ".journal");
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Journal::create(output, plan)?, Vec::new()));
            }
            Err(error) => return Err(error).at(path.display()),
        };
        let (lines, whole_bytes) = whole_lines(&file).at(path.display())?;
        let Some((first, rest)) = lines.split_first() else {
            return Ok((Journal::create(output, plan)?, Vec::new()));
        };
        let is = serde_json::to_value(plan).map_err(|cause| Error::bug("plan", cause))?;
        let difference = plan::difference(&mixed.comparable(first.clone()), &mixed.comparable(is));
        if let Some(difference) = difference {
            return Err(Error::conflict(
                output.display(),
                format!("the partial run has another plan: {difference}"),
            )
            .hint("run it with the same arguments, or --force to start over"));
        }
        let marks = rest
            .iter()
            .map_while(|value| serde_json::from_value(value.clone()).ok())
            .collect();
        let mut journal = Journal { file, path };
        journal.file.set_len(whole_bytes).at(journal.path.display())?;
        journal.file.seek(SeekFrom::End(0)).at(journal.path.display())?;
        Ok((journal, marks))
    }

    pub fn mark(&mut self, mark: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(mark).map_err(|cause| Error::bug("journal", cause))?;
        let line = format!("{text}\t{}\n", sha256(text.as_bytes()));
        self.file.write_all(line.as_bytes()).at(self.path.display())
    }

    /// The run is committed: the journal has done its work.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).at(self.path.display())
    }
}

fn whole_lines(file: &File) -> io::Result<(Vec<Value>, u64)> {
    let mut reader = BufReader::new(file);
    let mut lines = Vec::new();
    let mut whole_bytes = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        let parsed = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| line.strip_suffix('\n'))
            .and_then(|line| line.rsplit_once('\t'))
            .filter(|(text, digest)| sha256(text.as_bytes()) == *digest)
            .and_then(|(text, _)| serde_json::from_str(text).ok());
        match parsed {
            Some(value) => lines.push(value),
            None => return Ok((lines, whole_bytes)),
        }
        whole_bytes += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use serde_json::json;

    #[test]
    fn marks_come_back_in_order_and_damage_ends_them() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("d.acts");
        let plan = json!({"seed": 1});
        let mut journal = Journal::create(&output, &plan).unwrap();
        for unit in 0..5u32 {
            journal.mark(&unit).unwrap();
        }
        drop(journal);
        let path = beside(&output, ".journal");
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (_, marks) = Journal::resume::<u32>(&output, &plan, MixedCompute::default()).unwrap();
            assert!(marks.iter().copied().eq(0..marks.len() as u32), "cut at {cut}");
        }
        let mut flipped = whole.clone();
        let third = whole
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .nth(2)
            .unwrap()
            .0;
        flipped[third + 1] ^= 1;
        fs::write(&path, &flipped).unwrap();
        assert_eq!(
            Journal::resume::<u32>(&output, &plan, MixedCompute::default())
                .unwrap()
                .1,
            vec![0, 1]
        );
    }

    #[test]
    fn another_plan_is_a_conflict_that_names_the_difference() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("d.acts");
        drop(Journal::create(&output, &json!({"seed": 1})).unwrap());
        let error = Journal::resume::<u32>(&output, &json!({"seed": 2}), MixedCompute::default())
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.exit(), Some(Exit::Conflict));
        assert!(error.to_string().contains("seed: was 1, is 2"), "{error}");
    }
}
