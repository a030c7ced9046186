//! A model directory: which files a model consists of, opened so that no name found in data leads outside.
//!
//! A Hugging Face cache (`models--org--name/`, or one of its `snapshots/REV/`) is a model directory too; its links into
//! `blobs/` are followed. Any other link that leaves the directory is refused unless its owner says `follow_links`.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// BOUND: the largest JSON or text file read whole (tokenizers with 256 k entries take 35 MB).
const TEXT_BYTES_MAX: u64 = 256 << 20;
/// BOUND: the most shards an index may name.
const SHARDS_MAX: usize = 4096;
const PICKLES: [&str; 6] = ["pt", "pth", "bin", "ckpt", "pkl", "pickle"];

/// An existing model directory.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
    follow_links: bool,
}

impl Directory {
    /// Resolves `path` to a directory that holds a config.json.
    pub fn open(path: &Path, follow_links: bool) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|cause| Error::io(path, cause))?;
        if !metadata.is_dir() {
            return Err(Error::file(
                path,
                match is_pickle(path) {
                    true => "pickle is not read: it can run code; convert the checkpoint to safetensors",
                    false => "a model is a directory with config.json, its weights and its tokenizer",
                },
            ));
        }
        let root = path.canonicalize().map_err(|cause| Error::io(path, cause))?;
        let root = match root.join("config.json").exists() {
            true => root,
            false => snapshot(&root)?,
        };
        let directory = Self { root, follow_links };
        if !directory.has("config.json")? {
            return Err(Error::file(path, "config.json is missing"));
        }
        Ok(directory)
    }

    /// A directory that need not hold a model (a tokenizer alone).
    pub fn any(path: &Path, follow_links: bool) -> Result<Self> {
        let root = path.canonicalize().map_err(|cause| Error::io(path, cause))?;
        Ok(Self { root, follow_links })
    }

    /// The resolved directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether a file of this name can be opened; a link that leads outside is an error.
    pub fn has(&self, name: &str) -> Result<bool> {
        match self.root.join(name).symlink_metadata() {
            Ok(_) => self.resolve(name).map(|_| true),
            Err(_) => Ok(false),
        }
    }

    /// A name from data → a path beneath the directory.
    pub fn resolve(&self, name: &str) -> Result<PathBuf> {
        let plain = !name.is_empty()
            && !name.contains('\0')
            && Path::new(name)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
        if !plain {
            return Err(Error::file(
                &self.root,
                format!("the name {name:?} leads outside the model directory"),
            ));
        }
        let path = self.root.join(name);
        let target = path.canonicalize().map_err(|cause| Error::io(&path, cause))?;
        let blobs = match self.root.parent() {
            Some(parent) if parent.ends_with("snapshots") => parent.parent().map(|cache| cache.join("blobs")),
            _ => None,
        };
        let inside = target.starts_with(&self.root) || blobs.is_some_and(|blobs| target.starts_with(blobs));
        match inside || self.follow_links {
            true => Ok(path),
            false => Err(Error::file(
                &path,
                format!("is a link to {}, outside the model directory", target.display()),
            )),
        }
    }

    /// Reads a small file whole.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.resolve(name)?;
        let file = File::open(&path).map_err(|cause| Error::io(&path, cause))?;
        let mut bytes = Vec::new();
        file.take(TEXT_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|cause| Error::io(&path, cause))?;
        match bytes.len() as u64 > TEXT_BYTES_MAX {
            true => Err(Error::file(
                &path,
                format!("is larger than the limit of {TEXT_BYTES_MAX} bytes"),
            )),
            false => Ok(bytes),
        }
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
        const INDEX: &str = "model.safetensors.index.json";
        if let Some(text) = self.read_optional(INDEX)? {
            let path = self.root.join(INDEX);
            let index = json::document(&text).map_err(|cause| Error::file(&path, cause))?;
            let map = index
                .get("weight_map")
                .and_then(|map| map.as_object())
                .ok_or_else(|| Error::file(&path, "weight_map is missing"))?;
            let mut names = std::collections::BTreeSet::new();
            for (tensor, file) in map {
                let Some(file) = file.as_str() else {
                    return Err(Error::file(&path, format!("tensor {tensor:?} names no file")));
                };
                refuse_pickle_name(&path, file)?;
                names.insert(file);
                if names.len() > SHARDS_MAX {
                    return Err(Error::file(&path, format!("names more than {SHARDS_MAX} shards")));
                }
            }
            if names.is_empty() {
                return Err(Error::file(&path, "names no shard"));
            }
            for name in &names {
                match self.resolve(name) {
                    Err(Error::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => {
                        return Err(Error::file(&path, format!("names {name:?}, which is missing")));
                    }
                    other => other?,
                };
            }
            return Ok(names.into_iter().map(str::to_owned).collect());
        }
        if self.has("model.safetensors")? {
            return Ok(vec!["model.safetensors".to_owned()]);
        }
        let entries = std::fs::read_dir(&self.root).map_err(|cause| Error::io(&self.root, cause))?;
        for entry in entries {
            let path = entry.map_err(|cause| Error::io(&self.root, cause))?.path();
            if is_pickle(&path) {
                return Err(Error::file(
                    &path,
                    "pickle is not read: it can run code; convert it to safetensors",
                ));
            }
        }
        Err(Error::file(&self.root, "model.safetensors is missing"))
    }
}

fn is_pickle(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| PICKLES.contains(&extension))
}

fn refuse_pickle_name(index: &Path, name: &str) -> Result<()> {
    match is_pickle(Path::new(name)) {
        true => Err(Error::file(index, format!("names {name:?}: pickle is not read"))),
        false => Ok(()),
    }
}

/// `models--org--name` → the snapshot that refs/main names, or the only one.
fn snapshot(cache: &Path) -> Result<PathBuf> {
    let missing = || Error::file(cache, "config.json is missing");
    let snapshots = cache.join("snapshots");
    if let Ok(revision) = std::fs::read_to_string(cache.join("refs").join("main")) {
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
        (Some(_), Some(_)) => Err(Error::file(cache, "holds several snapshots; name one of them")),
        (None, _) => Err(missing()),
    }
}
