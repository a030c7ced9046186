//! A model directory: which files a model consists of, opened so that no name found in data leads outside.
//!
//! A Hugging Face cache (`models--org--name/`, or one of its `snapshots/REV/`) is a model directory too; its links into
//! `blobs/` are followed. Any other link that leaves the directory is refused unless its owner says `follow_links`.
//! A member that is no regular file is refused before it is opened: reading a fifo would wait for ever.
//! A model of another format is a directory whose files were made in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// BOUND: the largest JSON or text file read whole (tokenizers with 256 k entries take 35 MB).
const TEXT_BYTES_MAX: u64 = 256 << 20;
/// BOUND: the most shards an index may name.
const SHARDS_MAX: usize = 4096;
const PICKLES: [&str; 6] = ["pt", "pth", "bin", "ckpt", "pkl", "pickle"];
const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";

/// An existing model directory.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
    follow_links: bool,
    /// Files that lie in memory instead.
    made: Option<BTreeMap<&'static str, Vec<u8>>>,
}

impl Directory {
    /// Resolves `path` to a directory that holds a config.json.
    pub fn open(path: &Path, follow_links: bool) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|cause| Error::io("", cause))?;
        if !metadata.is_dir() {
            return Err(Error::file(
                "",
                match is_pickle(path) {
                    true => "pickle is not read: it can run code; convert the checkpoint to safetensors",
                    false => "a model is a directory with config.json, its weights and its tokenizer, or a GGUF file",
                },
            ));
        }
        let mut directory = Self::any(path, follow_links)?;
        if !directory.root.join("config.json").exists() && directory.root.join("snapshots").is_dir() {
            directory.root = snapshot(&directory.root)?;
        }
        match directory.has("config.json")? {
            true => Ok(directory),
            false => Err(directory.lacks_config()),
        }
    }

    /// Why this is no model, and what may have been meant.
    fn lacks_config(&self) -> Error {
        let names = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut ggufs: Vec<_> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.ends_with(".gguf"))
            .collect();
        ggufs.sort();
        match ggufs.first() {
            Some(one) => Error::file(
                "",
                format!("config.json is missing; name a GGUF file of it, such as {one:?}"),
            ),
            None => Error::file("", "config.json is missing"),
        }
    }

    /// A directory that need not hold a model (a tokenizer or a template alone).
    pub fn any(path: &Path, follow_links: bool) -> Result<Self> {
        let root = path.canonicalize().map_err(|cause| Error::io("", cause))?;
        Ok(Self {
            root,
            follow_links,
            made: None,
        })
    }

    /// The files of a directory that `path`, a model in another format, stands for.
    pub fn made(path: &Path, files: BTreeMap<&'static str, Vec<u8>>) -> Self {
        Self {
            root: path.to_owned(),
            follow_links: false,
            made: Some(files),
        }
    }

    /// Whether its files lie in memory.
    pub fn is_made(&self) -> bool {
        self.made.is_some()
    }

    /// The resolved directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether a file of this name can be opened; a link that leads outside is an error.
    pub fn has(&self, name: &str) -> Result<bool> {
        if let Some(files) = &self.made {
            return Ok(files.contains_key(name));
        }
        match self.root.join(name).symlink_metadata() {
            Ok(_) => self.resolve(name).map(|_| true),
            Err(_) => Ok(false),
        }
    }

    /// A name from data → a regular file beneath the directory.
    pub fn resolve(&self, name: &str) -> Result<PathBuf> {
        if let Some(cause) = refusal(name) {
            return Err(Error::file("", format!("the name {name:?} {cause}")));
        }
        let path = self.root.join(name);
        let target = path.canonicalize().map_err(|cause| Error::io(name, cause))?;
        if !(self.follow_links || self.holds(&target)) {
            let cause = format!("is a link to {}, outside the model directory", target.display());
            return Err(Error::file(name, cause));
        }
        match target.metadata().map_err(|cause| Error::io(name, cause))?.is_file() {
            true => Ok(path),
            false => Err(Error::file(name, "is not a regular file")),
        }
    }

    /// Beneath the directory, or among the blobs of the cache that it is a snapshot of.
    fn holds(&self, target: &Path) -> bool {
        let blobs = match self.root.parent() {
            Some(parent) if parent.ends_with("snapshots") => parent.parent().map(|cache| cache.join("blobs")),
            _ => None,
        };
        target.starts_with(&self.root) || blobs.is_some_and(|blobs| target.starts_with(blobs))
    }

    /// Opens a member.
    pub fn open_file(&self, name: &str) -> Result<File> {
        File::open(self.resolve(name)?).map_err(|cause| Error::io(name, cause))
    }

    /// Reads a small file whole.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        if let Some(files) = &self.made {
            let found = files.get(name).cloned();
            return found.ok_or_else(|| Error::file(name, "is missing"));
        }
        read_text(self.open_file(name)?, name)
    }

    /// Reads a small file if it is there.
    pub fn read_optional(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self.has(name)? {
            true => self.read(name).map(Some),
            false => Ok(None),
        }
    }

    /// The names of the weight files: `model.safetensors`, or the shards an index names, in order.
    pub fn weight_files(&self) -> Result<Vec<String>> {
        if let Some(text) = self.read_optional(INDEX)? {
            return self.indexed_files(&text);
        }
        if self.has(WEIGHTS)? {
            return Ok(vec![WEIGHTS.to_owned()]);
        }
        let unread = |cause| Error::io("", cause);
        for entry in std::fs::read_dir(&self.root).map_err(unread)? {
            let name = entry.map_err(unread)?.file_name();
            if is_pickle(Path::new(&name)) {
                return Err(Error::file(
                    &name.to_string_lossy(),
                    "pickle is not read: it can run code; convert it to safetensors",
                ));
            }
        }
        Err(Error::file("", "model.safetensors is missing"))
    }

    fn indexed_files(&self, text: &[u8]) -> Result<Vec<String>> {
        let refuse = |cause: String| Error::file(INDEX, cause);
        let index = json::document(text).map_err(|cause| refuse(cause.to_string()))?;
        let map = index
            .get("weight_map")
            .and_then(|map| map.as_object())
            .ok_or_else(|| refuse("weight_map is missing".into()))?;
        let mut names = BTreeSet::new();
        for (tensor, file) in map {
            let Some(name) = file.as_str() else {
                return Err(refuse(format!("tensor {tensor:?} names no file")));
            };
            if is_pickle(Path::new(name)) {
                return Err(refuse(format!("names {name:?}: pickle is not read")));
            }
            names.insert(name);
            if names.len() > SHARDS_MAX {
                return Err(refuse(format!("names more than {SHARDS_MAX} shards")));
            }
        }
        if names.is_empty() {
            return Err(refuse("names no shard".into()));
        }
        for name in &names {
            match self.resolve(name) {
                Err(Error::Io { cause, .. }) if cause.kind() == ErrorKind::NotFound => {
                    return Err(refuse(format!("names {name:?}, which is missing")));
                }
                other => other?,
            };
        }
        Ok(names.into_iter().map(str::to_owned).collect())
    }
}

/// What is wrong with a name from data. Written any other way than plainly, two names could mean one file.
fn refusal(name: &str) -> Option<&'static str> {
    let mut parts = name.split('/');
    if name.starts_with('/') || parts.clone().any(|part| part == "..") {
        return Some("leads outside the model directory");
    }
    let is_odd = name.contains('\0') || parts.any(|part| matches!(part, "" | "."));
    is_odd.then_some("is not a plain path beneath the model directory")
}

/// Reads a small file whole.
pub(crate) fn read_text(file: File, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|cause| Error::io(name, cause))?;
    match bytes.len() as u64 > TEXT_BYTES_MAX {
        true => Err(Error::file(
            name,
            format!("is larger than the limit of {TEXT_BYTES_MAX} bytes"),
        )),
        false => Ok(bytes),
    }
}

fn is_pickle(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| PICKLES.contains(&extension))
}

/// `models--org--name` → the snapshot that refs/main names, or the only one.
fn snapshot(cache: &Path) -> Result<PathBuf> {
    let missing = || Error::file("", "config.json is missing");
    let snapshots = cache.join("snapshots");
    let main = Directory {
        root: cache.to_owned(),
        follow_links: false,
        made: None,
    }
    .read_optional("refs/main")?;
    if let Some(revision) = main.and_then(|bytes| String::from_utf8(bytes).ok()) {
        let revision = revision.trim();
        if !revision.is_empty() && revision.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(snapshots.join(revision));
        }
    }
    let mut found = std::fs::read_dir(&snapshots)
        .map_err(|_| missing())?
        .flatten()
        .map(|entry| entry.path());
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(Error::file("", "holds several snapshots; name one of them")),
        (None, _) => Err(missing()),
    }
}
