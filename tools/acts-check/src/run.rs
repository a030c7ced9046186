//! Looks at every container and keeps the first refusal for the end.

use crate::cli::Args;
use crate::plan::Plan;
use crate::report::{ContainerRow, ContentRow, DamageRow};
use acts::{Depth, File, Header, Role, Stream, Summary};
use process::{Error, Outcome, Result, ResultExt, Stdout};
use records::{Begin, RecordPath, Status, Writer};
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Blocks of a table are decoded once for as many bytes.
const TABLE_STEP_BYTES: usize = 4 << 20;

pub fn run(args: Args) -> Result<Outcome> {
    let plan = Plan::new(&args)?;
    if args.common.plan {
        return process::plan::print(&plan);
    }
    let mut out = Writer::new(process::stdout());
    let begin = Begin::new(process::tool_name(), process::VERSION);
    out.begin(&begin, &()).at("stdout")?;
    let mut refused = Vec::new();
    for path in &plan.inputs {
        process::signals::check()?;
        if let Err(error) = check(&plan, path, &args.common, &mut out) {
            // What only stdout or the system refuses is no verdict on this container.
            if error.exit() != Some(process::Exit::Input) {
                return Err(error);
            }
            refused.push(error);
        }
    }
    let count = refused.len();
    match refused.into_iter().next() {
        None => {
            out.end(Status::Complete, &()).at("stdout")?.finish()?;
            Ok(Outcome::Complete)
        }
        Some(first) => {
            // No end mark: a reader of these records must not take them for a clean bill.
            out.into_output().at("stdout")?.finish()?;
            Err(match count {
                1 => first,
                _ => first.hint(format!("{count} of {} containers were refused", plan.inputs.len())),
            })
        }
    }
}

fn check(plan: &Plan, path: &Path, common: &process::Common, out: &mut Writer<Stdout>) -> Result<()> {
    if path == Path::new("-") {
        return check_stream(plan, path, std::io::stdin().lock(), out);
    }
    let opened = std::fs::File::open(path).at(path.display())?;
    let kind = opened.metadata().at(path.display())?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return check_stream(plan, path, opened, out);
    }
    let file = File::from_file(opened, plan.open_options()).at(path.display())?;
    let progress = (plan.depth() != Depth::Quick)
        .then(|| process::Progress::start(common, "verified", Some(file.block_count()), "blocks"));
    let mut damaged = Vec::new();
    let verified = file.verify(plan.depth(), |damage| damaged.push(damage));
    if let (Some(progress), Ok(blocks)) = (progress, &verified) {
        progress.advance(*blocks);
        progress.finish();
    }
    for damage in &damaged {
        let tensor = file.spec(damage.tensor).at(path.display())?;
        out.row(&DamageRow::new(RecordPath(path.into()), &tensor.name, damage))
            .at("stdout")?;
    }
    let count = damaged.len();
    if let Some(first) = damaged.into_iter().next() {
        let refused = Err::<(), _>(first.error).at(path.display());
        return if count > 1 {
            refused.map_err(|error| {
                error.hint(format!(
                    "{count} blocks are damaged; acts-cat --salvage keeps the others"
                ))
            })
        } else {
            refused
        };
    }
    if plan.depth() == Depth::Full {
        check_samples(&file, path)?;
    }
    let summary = Summary {
        state: file.state(),
        tensors: (0..file.header().tensors.len())
            .map(|tensor| file.summary(tensor).copied())
            .collect::<acts::Result<_>>()
            .at(path.display())?,
        block_count: file.block_count(),
        file_bytes: file.file_bytes(),
    };
    write_rows(path, file.header(), &summary, verified.at(path.display())?, out)
}

/// A table of samples must be the records that it claims to be.
fn check_samples(file: &File, path: &Path) -> Result<()> {
    for (tensor, spec) in file.header().tensors.iter().enumerate() {
        if spec.role == Role::Samples && file.row_count(tensor) > 0 {
            let place = format!("{}: {}", path.display(), spec.name);
            let table = Table { file, tensor, next: 0 };
            let mut reader = records::Reader::new(BufReader::with_capacity(TABLE_STEP_BYTES, table));
            while reader.next_record::<records::Sample>().at(&place)?.is_some() {
                process::signals::check()?;
            }
        }
    }
    Ok(())
}

/// The bytes of a table, in order.
struct Table<'f> {
    file: &'f File,
    tensor: usize,
    next: u64,
}

impl Read for Table<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let end = self.file.row_count(self.tensor).min(self.next + out.len() as u64);
        let length = (end - self.next) as usize;
        let read = self.file.read_raw(self.tensor, self.next..end, &mut out[..length]);
        read.map_err(io::Error::other)?;
        self.next = end;
        Ok(length)
    }
}

fn check_stream(plan: &Plan, path: &Path, source: impl Read, out: &mut Writer<Stdout>) -> Result<()> {
    let name = if path == Path::new("-") {
        "stdin".to_string()
    } else {
        path.display().to_string()
    };
    let mut stream = Stream::new(source, plan.allow_partial).at(&name)?;
    while stream.next_block().at(&name)?.is_some() {
        process::signals::check()?;
    }
    let summary = stream
        .summary()
        .cloned()
        .ok_or_else(|| Error::bug(&name, "a stream ended without a summary"))?;
    write_rows(path, stream.header(), &summary, summary.block_count, out)
}

fn write_rows(
    path: &Path,
    header: &Header,
    summary: &Summary,
    blocks_read: u64,
    out: &mut Writer<Stdout>,
) -> Result<()> {
    let container = ContainerRow {
        path: RecordPath(path.into()),
        state: summary.state.name(),
        tool: header.tool.clone(),
        tool_version: header.tool_version.clone(),
        plan_digest: header.plan_digest.clone(),
        tensor_count: header.tensors.len(),
        block_count: summary.block_count,
        blocks_read,
        raw_bytes: summary
            .tensors
            .iter()
            .map(|tensor| tensor.raw_bytes)
            .fold(0, u64::saturating_add),
        file_bytes: summary.file_bytes,
    };
    out.row(&container).at("stdout")?;
    for (spec, tensor) in header.tensors.iter().zip(&summary.tensors) {
        out.row(&ContentRow::new(spec, tensor)).at("stdout")?;
    }
    Ok(())
}
