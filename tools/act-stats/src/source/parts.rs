//! The containers of a dump: opened by name or from stdin, and checked to be one run.

use super::Part;
use crate::cli::MeasureArgs;
use process::{Error, Result, ResultExt};
use records::Tensor;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// Opens files, or what stdin holds: container bytes, or records that name tensors.
pub(super) fn open(args: &MeasureArgs) -> Result<(Vec<Part>, Option<BTreeSet<String>>)> {
    let options = acts::OpenOptions {
        map: !args.no_map,
        ..acts::OpenOptions::default()
    };
    let stdin_named = args.inputs.iter().any(|path| path == Path::new("-"));
    if stdin_named && args.inputs.len() > 1 {
        return Err(Error::usage("-", "stdin is one input and comes alone"));
    }
    if !stdin_named && !args.inputs.is_empty() {
        return Ok((open_files(&args.inputs, options)?, None));
    }
    let mut stdin = BufReader::with_capacity(1 << 20, std::io::stdin());
    match stdin.fill_buf().at("stdin")?.first() {
        None => Err(Error::input("stdin", "is empty").hint("name a container, or pipe one")),
        Some(byte) if *byte == b'{' || byte.is_ascii_whitespace() => {
            let (paths, names) = named_tensors(stdin)?;
            Ok((open_files(&paths, options)?, Some(names)))
        }
        Some(_) => Ok((vec![spool(stdin, options)?], None)),
    }
}

fn open_files(paths: &[PathBuf], options: acts::OpenOptions) -> Result<Vec<Part>> {
    let open = |path: &PathBuf| {
        let name = path.display().to_string();
        let file = acts::File::open(path, options).at(&name)?;
        Ok(part(name, file))
    };
    paths.iter().map(open).collect()
}

fn part(name: String, file: acts::File) -> Part {
    Part {
        name,
        file,
        runs: Vec::new(),
        first: 0,
    }
}

/// The containers that tensor records name, and the tensors.
fn named_tensors(input: impl Read) -> Result<(Vec<PathBuf>, BTreeSet<String>)> {
    let mut reader = records::Reader::new(input);
    let (mut paths, mut names) = (Vec::new(), BTreeSet::new());
    while let Some(row) = reader.next_row().at("stdin")? {
        if !row.is::<Tensor>() {
            continue;
        }
        let tensor: Tensor = row.decode().at("stdin")?;
        names.insert(tensor.name);
        if !paths.contains(&tensor.path.0) {
            paths.push(tensor.path.0);
        }
    }
    match paths.is_empty() {
        true => Err(Error::input("stdin", "names no tensor").hint("resid-dump -o FILE writes tensor records")),
        false => Ok((paths, names)),
    }
}

/// Keeps a piped container in a file without a name: which rows belong to which prompt is known at its end.
fn spool(mut input: impl Read, options: acts::OpenOptions) -> Result<Part> {
    let mut file = tempfile::tempfile().at("a temporary file for stdin")?;
    std::io::copy(&mut input, &mut file).at("stdin to a temporary file")?;
    file.rewind().at("a temporary file for stdin")?;
    let file = acts::File::from_file(file, options).at("stdin")?;
    Ok(part("stdin".to_owned(), file))
}

/// The shard that one container is.
pub(super) fn only_shard(parts: &[Part]) -> Result<acts::Shard> {
    let [part] = parts else {
        return Err(Error::usage(
            "--part",
            format!("{} containers were given, and a part is one", parts.len()),
        ));
    };
    let has_samples = part.file.tensor("samples").is_ok();
    match part.file.header().shard.filter(|_| has_samples) {
        Some(shard) => Ok(shard),
        None => Err(Error::input(&part.name, "is no shard of a run").hint("resid-dump --shard makes shards")),
    }
}

/// Containers given together must be shards of one run, or plain data.
pub(super) fn check_one_run(parts: &[Part]) -> Result<()> {
    let first = parts[0].file.header();
    for part in &parts[1..] {
        let header = part.file.header();
        let is_other_run = header.shard.is_some()
            && (first.plan_digest != header.plan_digest || first.model_digest != header.model_digest);
        if is_other_run || first.compute != header.compute {
            return Err(Error::input(
                &part.name,
                format!("is not of the run of {}", parts[0].name),
            ));
        }
    }
    let shards: BTreeSet<u32> = parts
        .iter()
        .filter_map(|part| Some(part.file.header().shard?.index))
        .collect();
    match first.shard {
        Some(shard) if shards.len() != parts.len() || shards.len() != shard.count as usize => Err(Error::input(
            &parts[0].name,
            format!(
                "{} containers were given, {} of {} shards",
                parts.len(),
                shards.len(),
                shard.count
            ),
        )
        .hint("give every shard once: a part of a run is not its activations")),
        _ => Ok(()),
    }
}
