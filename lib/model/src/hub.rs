//! Names of the hub, `org/name[@revision]` → directories of the local cache. Nothing is ever fetched.

use std::ffi::OsString;
use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};

use crate::directory::Directory;
use crate::error::{Error, Result};

const MAIN: &str = "main";

/// The snapshot that a name stands for; none where `path` is there, or is no such name.
pub fn find(path: &Path, follow_links: bool) -> Result<Option<PathBuf>> {
    let Some((name, revision)) = parse(path) else {
        return Ok(None);
    };
    let cache = cache(|key| std::env::var_os(key).filter(|value| !value.is_empty()));
    let repository = cache.join(format!("models--{}", name.replace('/', "--")));
    let revision = revision.unwrap_or(MAIN);
    if !repository.is_dir() {
        return Err(absent(&repository, name, revision));
    }
    inside(&repository, &cache, follow_links)?;
    let snapshot = repository
        .join("snapshots")
        .join(commit(&repository, revision, follow_links)?);
    if !snapshot.is_dir() {
        return Err(absent(&snapshot, name, revision));
    }
    inside(&snapshot, &repository, follow_links)?;
    Ok(Some(snapshot))
}

/// What `refs` says of a revision, or the revision itself, which may be a commit.
fn commit(repository: &Path, revision: &str, follow_links: bool) -> Result<String> {
    let reference = format!("refs/{revision}");
    let Some(text) = Directory::any(repository, follow_links)?.read_optional(&reference)? else {
        return Ok(revision.to_owned());
    };
    let commit = String::from_utf8(text).unwrap_or_default();
    match commit.trim() {
        commit if is_plain(commit) => Ok(commit.to_owned()),
        _ => Err(Error::file(&reference, "of the hub's cache names no commit")),
    }
}

fn absent(looked_at: &Path, name: &str, revision: &str) -> Error {
    let bring = match revision {
        MAIN => format!("hf download {name}"),
        revision => format!("hf download {name} --revision {revision}"),
    };
    let cause = format!("is not there, nor is such a path here; bring the model with: {bring}");
    Error::io(&looked_at.to_string_lossy(), IoError::new(ErrorKind::NotFound, cause))
}

/// Refuses a link that leads out of `outer`.
fn inside(inner: &Path, outer: &Path, follow_links: bool) -> Result<()> {
    let place = inner.to_string_lossy();
    let real = |path: &Path| path.canonicalize().map_err(|cause| Error::io(&place, cause));
    let target = real(inner)?;
    match follow_links || target.starts_with(real(outer)?) {
        true => Ok(()),
        false => Err(Error::file(
            &place,
            format!("is a link to {}, outside the hub's cache", target.display()),
        )),
    }
}

/// `org/name` and a revision, unless such a path exists.
fn parse(path: &Path) -> Option<(&str, Option<&str>)> {
    let text = path.to_str()?;
    let (name, revision) = match text.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (text, None),
    };
    let (organisation, model) = name.split_once('/')?;
    let is_name = is_plain(organisation)
        && is_plain(model)
        && revision.is_none_or(|revision| revision.split('/').all(is_plain))
        && path.symlink_metadata().is_err();
    is_name.then_some((name, revision))
}

/// One component of a path, and neither hidden nor a way out.
fn is_plain(part: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_fine)
}

/// Where the hub's own tools keep what they brought.
fn cache(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let own = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    if let Some(cache) = own {
        return cache.into();
    }
    let home = variable("HF_HOME").map(PathBuf::from);
    let shared = || variable("XDG_CACHE_HOME").map(PathBuf::from);
    let user = || variable("HOME").map(|home| Path::new(&home).join(".cache"));
    home.or_else(|| Some(shared().or_else(user)?.join("huggingface")))
        .unwrap_or_default()
        .join("hub")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_first_variable_says() {
        let with = |set: &[(&str, &str)]| {
            cache(|key| {
                let found = set.iter().find(|(name, _)| *name == key);
                found.map(|(_, value)| value.into())
            })
        };
        let home = ("HOME", "/home/a");
        assert_eq!(with(&[home]), Path::new("/home/a/.cache/huggingface/hub"));
        assert_eq!(with(&[home, ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(with(&[home, ("HF_HOME", "/h")]), Path::new("/h/hub"));
        assert_eq!(with(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
    }

    #[test]
    fn names_are_told_from_paths() {
        let parsed = |text| parse(Path::new(text));
        assert_eq!(parsed("org/name"), Some(("org/name", None)));
        assert_eq!(parsed("org/name@refs/pr/1"), Some(("org/name", Some("refs/pr/1"))));
        for text in ["name", "a/b/c", "../b", "./b", "/b/c", "a/", "a/b@../c", "src/lib.rs"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
