//! A directory as an output: made beside its place under another name, and renamed when it is whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::exit::{Error, Result, ResultExt};
use crate::output::{Existing, beside};

/// A directory that appears under its name when it is whole; unless it is committed, it leaves nothing.
pub struct OutputDirectory {
    target: PathBuf,
    partial: PathBuf,
}

impl OutputDirectory {
    /// Refuses a target that cannot be right, before any work is done. `inputs` are what is read: none of them is replaced.
    pub fn check(target: &Path, existing: Existing, inputs: &[PathBuf]) -> Result<()> {
        let subject = target.display();
        if target.file_name().is_none() {
            return Err(Error::usage(subject, "is no name for a directory"));
        }
        let Ok(found) = fs::symlink_metadata(target) else {
            return Ok(());
        };
        if let Ok(real) = target.canonicalize() {
            let is_inside = |input: &PathBuf| input.canonicalize().is_ok_and(|input| input.starts_with(&real));
            if inputs.iter().any(is_inside) {
                return Err(Error::usage(subject, "the output is also an input"));
            }
        }
        match existing {
            Existing::Replace if found.is_dir() => Ok(()),
            Existing::Replace => Err(Error::conflict(subject, "exists and is no directory")),
            _ => Err(Error::conflict(subject, "exists").hint("--force replaces it")),
        }
    }

    /// Makes the directory, under its other name.
    pub fn create(target: &Path, existing: Existing, inputs: &[PathBuf]) -> Result<Self> {
        Self::check(target, existing, inputs)?;
        let partial = beside(target, ".partial");
        if partial.symlink_metadata().is_ok() {
            if existing != Existing::Replace {
                let cause = "is in the way: what another run did not finish";
                return Err(Error::conflict(partial.display(), cause).hint("--force removes it"));
            }
            fs::remove_dir_all(&partial).at(partial.display())?;
        }
        fs::create_dir(&partial).at(partial.display())?;
        let target = target.to_path_buf();
        Ok(Self { target, partial })
    }

    /// Where its files are written.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Gives it its name.
    pub fn commit(self) -> Result<()> {
        sync(&self.partial)?;
        if self.target.symlink_metadata().is_ok() {
            fs::remove_dir_all(&self.target).at(self.target.display())?;
        }
        fs::rename(&self.partial, &self.target).at(self.target.display())?;
        crate::written(&self.target);
        match self.target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync(parent),
            None => sync(Path::new(".")),
        }
    }
}

impl Drop for OutputDirectory {
    fn drop(&mut self) {
        // what was committed is not there any more
        let _ = fs::remove_dir_all(&self.partial);
    }
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .at(path.display())
}
