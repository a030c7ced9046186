//! Opening a container, whatever it comes from, and choosing tensors and rows of it.

use crate::cli::RowBounds;
use acts::{File, OpenOptions, Role, Stream};
use process::{Error, Result, ResultExt};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;

/// BOUND: the names that a message lists.
const NAMES_SHOWN: usize = 20;

/// A container that can be addressed; `name` is what messages call it.
pub struct Source {
    pub file: File,
    pub name: String,
}

impl Source {
    pub fn open(path: &Path, options: OpenOptions) -> Result<Source> {
        if path == Path::new("-") {
            let file = spool(io::stdin().lock(), "stdin", options)?;
            return Ok(Source {
                file,
                name: "stdin".into(),
            });
        }
        let name = path.display().to_string();
        let opened = std::fs::File::open(path).at(&name)?;
        let kind = opened.metadata().at(&name)?.file_type();
        let file = if kind.is_file() || kind.is_dir() {
            File::from_file(opened, options).at(&name)?
        } else {
            spool(opened, &name, options)?
        };
        Ok(Source { file, name })
    }
}

/// Copies a pipe's container to a file without a name, verifying it on the way: what is not a container ends the copying at once.
fn spool(source: impl Read, name: &str, options: OpenOptions) -> Result<File> {
    let mut copy = tempfile::tempfile().at("temporary file")?;
    let mut stream = Stream::new(
        Tee {
            source,
            copy: &mut copy,
        },
        options.allow_partial,
    )
    .at(name)?;
    while stream.next_block().at(name)?.is_some() {
        process::signals::check()?;
    }
    drop(stream);
    File::from_file(copy, options).at(name)
}

struct Tee<'a, R> {
    source: R,
    copy: &'a mut std::fs::File,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.copy.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Tensors that match any of `patterns`; without patterns, all whose role is in `roles`.
pub fn choose(source: &Source, patterns: &[String], roles: &[Role]) -> Result<Vec<usize>> {
    let specs = source.file.header().tensors.iter().enumerate();
    if patterns.is_empty() {
        return Ok(specs
            .filter(|(_, spec)| roles.contains(&spec.role))
            .map(|(index, _)| index)
            .collect());
    }
    if let Some(pattern) = patterns.iter().find(|pattern| {
        !source
            .file
            .header()
            .tensors
            .iter()
            .any(|spec| matches(pattern, &spec.name))
    }) {
        return Err(Error::input(
            &source.name,
            format!("no tensor is named {pattern} (there are {})", names(source)),
        ));
    }
    Ok(specs
        .filter(|(_, spec)| patterns.iter().any(|pattern| matches(pattern, &spec.name)))
        .map(|(index, _)| index)
        .collect())
}

/// The names that there are, the numbered ones once.
fn names(source: &Source) -> String {
    let numbered = |name: &str| match name.rsplit_once('.') {
        Some((stem, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("{stem}.*"),
        _ => name.to_owned(),
    };
    let mut names: Vec<String> = source
        .file
        .header()
        .tensors
        .iter()
        .map(|spec| numbered(&spec.name))
        .collect();
    names.dedup();
    let shown = names.len().min(NAMES_SHOWN);
    let more = if shown < names.len() { ", …" } else { "" };
    format!("{}{more}", names[..shown].join(", "))
}

/// Shell-like match: `*` is any run of characters, `?` any one.
fn matches(pattern: &str, name: &str) -> bool {
    fn from(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=name.len()).any(|skipped| from(rest, &name[skipped..])),
            (Some((b'?', rest)), Some((_, tail))) => from(rest, tail),
            (Some((byte, rest)), Some((first, tail))) => byte == first && from(rest, tail),
            _ => false,
        }
    }
    // BOUND: names have at most 255 bytes, and each star multiplies the work: runs of stars say no more than one.
    let mut plain = pattern.as_bytes().to_vec();
    plain.dedup_by(|a, b| *a == b'*' && *b == b'*');
    from(&plain, name.as_bytes())
}

/// The rows of `tensor` that `bounds` choose; a bound past the end is refused, `head` is not.
pub fn range(source: &Source, tensor: usize, bounds: Option<RowBounds>, head: Option<u64>) -> Result<Range<u64>> {
    let rows = source.file.row_count(tensor);
    if let Some(head) = head {
        return Ok(0..head.min(rows));
    }
    let (start, end) = bounds.unwrap_or_default();
    let (start, end) = (start.unwrap_or(0), end.unwrap_or(rows));
    if start > end || end > rows {
        let tensor = &source.file.spec(tensor).at(&source.name)?.name;
        return Err(Error::input(
            &source.name,
            format!("rows {start}:{end} of {tensor}: it has {rows}"),
        ));
    }
    Ok(start..end)
}

/// Ranges of `rows` whose raw bytes stay below a bound that keeps all threads busy and memory small.
pub fn steps(rows: Range<u64>, row_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    const STEP_BYTES: u64 = 32 << 20;
    let step = (STEP_BYTES / row_bytes.max(1)).max(1);
    let end = rows.end;
    (rows.start..end)
        .step_by(usize::try_from(step).unwrap_or(usize::MAX))
        .map(move |start| start..end.min(start.saturating_add(step)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("resid_post.*", "resid_post.12", true),
            ("resid_post.?", "resid_post.12", false),
            ("*.mean", "moments.0.resid_post.3.rest.mean", true),
            ("**x**", "axb", true),
            ("a", "ab", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn steps_cover_the_rows_once() {
        let all: Vec<u64> = steps(5..70_000_000, 1)
            .flat_map(|range| [range.start, range.end])
            .collect();
        assert_eq!(all.first(), Some(&5));
        assert_eq!(all.last(), Some(&70_000_000));
        assert!(all[1..all.len() - 1].chunks(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(steps(3..3, 8).count(), 0);
    }
}
