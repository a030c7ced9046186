//! Outputs that are complete or absent.
//!
//! A file is written as `.NAME.partial` beside its final name, locked while it is written, and renamed only after its
//! length was checked and its bytes were synced. A pipe or device is written through. Nothing follows a planted link.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::exit::{Error, Result, ResultExt};
use crate::signals;
use crate::stdout::{Stdout, stdout};

/// What to do about what is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// An existing output or partial file is a conflict.
    Refuse,
    /// Replace the name; start over a partial file.
    Replace,
    /// Continue a partial file; an existing output is a conflict.
    Resume,
}

impl Existing {
    pub fn from_flags(force: bool, resume: bool) -> Existing {
        match (force, resume) {
            (true, _) => Existing::Replace,
            (false, true) => Existing::Resume,
            (false, false) => Existing::Refuse,
        }
    }
}

/// One output: stdout, a pipe or device written through, or a file committed by rename.
pub struct Output {
    target: Target,
    name: String,
}

enum Target {
    Stdout(Stdout),
    Through(BufWriter<File>),
    File(Partial),
}

struct Partial {
    file: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
    existing: Existing,
    keep: bool,
    committed: bool,
}

impl Output {
    /// Opens an output. `inputs` are the files being read: writing onto one of them is refused.
    pub fn create(path: &Path, existing: Existing, inputs: &[PathBuf]) -> Result<Output> {
        let name = path.display().to_string();
        if path.as_os_str() == "-" {
            return Ok(Output {
                target: Target::Stdout(stdout()),
                name: "stdout".into(),
            });
        }
        check_target(path, existing, inputs)?;
        let target = match fs::metadata(path) {
            Ok(found) if found.file_type().is_fifo() || found.file_type().is_char_device() => {
                let file = OpenOptions::new().write(true).open(path).at(&name)?;
                Target::Through(BufWriter::new(file))
            }
            _ => Target::File(Partial::open(path, existing, &name)?),
        };
        Ok(Output { target, name })
    }

    /// Like `create`, for bytes that are not text: refused on a terminal.
    pub fn create_binary(path: &Path, existing: Existing, inputs: &[PathBuf]) -> Result<Output> {
        let output = Output::create(path, existing, inputs)?;
        if matches!(&output.target, Target::Stdout(stdout) if stdout.is_terminal()) {
            return Err(
                Error::usage("-o -", "binary output is not written to a terminal").hint("redirect it, or name a file")
            );
        }
        Ok(output)
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For records beside a file: losing the reader of stdout stops the records, not the work.
    pub fn tolerant(self) -> Self {
        let target = match self.target {
            Target::Stdout(stdout) => Target::Stdout(stdout.tolerant()),
            other => other,
        };
        Self { target, ..self }
    }

    /// Whether this is a file that appears by rename (not stdout, a pipe or a device).
    pub fn is_file(&self) -> bool {
        matches!(self.target, Target::File(_))
    }

    /// Leaves the partial file in place when the run stops early, so that `--resume` can continue it.
    pub fn keep_partial(&mut self) {
        if let Target::File(partial) = &mut self.target {
            partial.keep = true;
            signals::guard(&partial.partial, |unfinished, path| {
                unfinished.retain(|other| other != path)
            });
        }
    }

    /// The bytes already in a partial file that is being resumed (0 for a fresh output).
    pub fn resumed_bytes(&self) -> Result<u64> {
        match &self.target {
            Target::File(partial) => Ok(partial.file.get_ref().metadata().at(&self.name)?.len()),
            _ => Ok(0),
        }
    }

    /// The partial file itself, for a resume that verifies what is there and cuts it where it stops being whole.
    pub fn partial_file(&mut self) -> Option<&mut File> {
        match &mut self.target {
            Target::File(partial) => Some(partial.file.get_mut()),
            _ => None,
        }
    }

    /// Makes what was written so far survive a crash: called at the points a resume may rely on.
    pub fn sync(&mut self) -> Result<()> {
        self.flush().at(&self.name)?;
        if let Target::File(partial) = &self.target {
            partial.file.get_ref().sync_data().at(&self.name)?;
        }
        Ok(())
    }

    /// Delivers the output: for a file, flushed, length-checked, synced and renamed.
    pub fn commit(self) -> Result<()> {
        let name = self.name;
        match self.target {
            Target::Stdout(stdout) => stdout.finish(),
            Target::Through(mut file) => file.flush().at(name),
            Target::File(partial) => partial.commit(&name),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::Stdout(stdout) => stdout.write(bytes),
            Target::Through(file) => file.write(bytes),
            Target::File(partial) => partial.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Stdout(stdout) => stdout.flush(),
            Target::Through(file) => file.flush(),
            Target::File(partial) => partial.file.flush(),
        }
    }
}

/// Refuses a target that cannot be right, before any work is done.
pub fn check_target(path: &Path, existing: Existing, inputs: &[PathBuf]) -> Result<()> {
    let name = path.display();
    if path.as_os_str() == "-" {
        return Ok(());
    }
    let found = fs::metadata(path).ok();
    if let Some(found) = &found {
        for input in inputs {
            let same = fs::metadata(input).is_ok_and(|input| input.dev() == found.dev() && input.ino() == found.ino());
            if same && !found.file_type().is_char_device() {
                return Err(Error::usage(name, "the output is also an input"));
            }
        }
        if found.is_dir() {
            return Err(Error::usage(name, "is a directory"));
        }
        if found.file_type().is_fifo() || found.file_type().is_char_device() {
            return Ok(());
        }
    }
    if existing != Existing::Replace && fs::symlink_metadata(path).is_ok() {
        return Err(exists(path));
    }
    let directory = parent(path);
    let listed = fs::metadata(&directory).at(directory.display())?;
    if !listed.is_dir() {
        return Err(Error::environment(directory.display(), "is not a directory"));
    }
    // SAFETY: `access` reads a NUL-terminated path that outlives the call.
    let writable = CString::new(directory.as_os_str().as_bytes())
        .map(|c_path| unsafe { libc::access(c_path.as_ptr(), libc::W_OK | libc::X_OK) } == 0);
    match writable {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::last_os_error()).at(directory.display()),
        Err(_) => Err(Error::usage(name, "the path holds a NUL byte")),
    }
}

fn exists(path: &Path) -> Error {
    Error::conflict(path.display(), "exists").hint("--force replaces it")
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// `.NAME.suffix` beside `path`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    parent(path).join(name)
}

/// Takes the lock of an output's writer, trying `attempts` times; says whether it was free.
fn lock(file: &File, attempts: u32) -> io::Result<bool> {
    for attempt in 0..attempts {
        if attempt > 0 {
            thread::sleep(Duration::from_millis(10));
        }
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

fn busy(name: &str) -> Error {
    Error::conflict(name, "is being written by another process")
}

fn partial_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .mode(0o666);
    options
}

/// The partial file of an earlier run, locked: to be continued or started over.
fn take_over(partial: &Path, existing: Existing, name: &str) -> Result<File> {
    let shown = partial.display();
    if !fs::symlink_metadata(partial).at(&shown)?.is_file() {
        return Err(Error::conflict(shown, "is in the way and is not a regular file"));
    }
    let file = partial_options().open(partial).at(&shown)?;
    if !lock(&file, 1).at(&shown)? {
        return Err(busy(name));
    }
    match existing {
        Existing::Refuse => {
            return Err(Error::conflict(shown, "a partial file of an earlier run is there")
                .hint("--resume continues it where the tool can, --force starts over"));
        }
        Existing::Replace => {
            file.set_len(0).at(&shown)?;
            signals::guard(partial, |unfinished, partial| unfinished.push(partial.to_path_buf()));
        }
        Existing::Resume => {}
    }
    Ok(file)
}

impl Partial {
    fn open(path: &Path, existing: Existing, name: &str) -> Result<Partial> {
        let partial = beside(path, ".partial");
        let shown = partial.display().to_string();
        let fresh = signals::guard(&partial, |unfinished, partial| {
            let opened = partial_options().create_new(true).open(partial);
            if opened.is_ok() && existing != Existing::Resume {
                unfinished.push(partial.to_path_buf());
            }
            opened
        });
        let file = match fresh {
            // A process that only looks at a partial file holds its lock for an instant: wait that out.
            Ok(file) => match lock(&file, 20) {
                Ok(true) => file,
                Ok(false) => return Err(busy(name)),
                // A disk that cannot lock: what was just made is of no use to anyone.
                Err(error) => {
                    abandon(&partial, true);
                    return Err(error).at(&shown);
                }
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => take_over(&partial, existing, name)?,
            Err(error) => return Err(error).at(&shown),
        };
        let mut opened = Partial {
            file: BufWriter::with_capacity(256 << 10, file),
            partial,
            path: path.to_path_buf(),
            existing,
            keep: existing == Existing::Resume,
            committed: false,
        };
        if !opened.is_in_place() {
            opened.keep = true;
            return Err(busy(name));
        }
        if existing != Existing::Replace && fs::symlink_metadata(path).is_ok() {
            return Err(exists(path));
        }
        Ok(opened)
    }

    /// Whether the name still leads to the locked file: before the lock was taken, another writer may have finished and renamed it.
    fn is_in_place(&self) -> bool {
        let ours = self.file.get_ref().metadata();
        let found = fs::symlink_metadata(&self.partial);
        matches!((ours, found), (Ok(ours), Ok(found)) if ours.ino() == found.ino() && ours.dev() == found.dev())
    }

    fn commit(mut self, name: &str) -> Result<()> {
        self.file.flush().at(name)?;
        let file = self.file.get_mut();
        let position = file.stream_position().at(name)?;
        let length = file.metadata().at(name)?.len();
        if length != position {
            return Err(Error::environment(
                name,
                format!("{position} bytes were written, the file holds {length}"),
            ));
        }
        // Never retried: after a failed fsync the kernel may have dropped the very pages it failed to write.
        file.sync_all().at(name)?;
        let (partial, path, existing) = (&self.partial, &self.path, self.existing);
        signals::guard(partial, |unfinished, _| {
            if existing != Existing::Replace && fs::symlink_metadata(path).is_ok() {
                return Err(exists(path));
            }
            fs::rename(partial, path).at(name)?;
            unfinished.retain(|other| other != partial);
            Ok(())
        })?;
        self.committed = true;
        crate::written(&self.path);
        let directory = parent(&self.path);
        File::open(&directory)
            .and_then(|directory| directory.sync_all())
            .at(format!(
                "{name} (the file is in place and whole, its directory entry may not be durable)"
            ))
    }
}

/// A partial file is no longer to be removed by a signal: it is removed now, or kept.
fn abandon(partial: &Path, remove: bool) {
    signals::guard(partial, |unfinished, partial| {
        unfinished.retain(|other| other != partial);
        if remove {
            let _ = fs::remove_file(partial);
        }
    });
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        // What BufWriter still holds belongs to the partial file only if it is kept for a resume.
        if self.keep {
            let _ = self.file.flush();
        }
        abandon(&self.partial, !self.keep);
    }
}

impl Read for Output {
    /// Reads back a file being resumed; stdout and pipes cannot be read.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.partial_file() {
            Some(file) => file.read(buffer),
            None => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }
}

impl Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.target {
            Target::File(partial) => partial.file.seek(to),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }
}
