//! Rows into a container, on a thread of their own while the next unit is computed; and how a stopped run goes on.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use acts::{Header, Recovered, Stream, Summary, Writer};
use model::Tensor;
use process::{Error, Existing, Journal, Output, Result, ResultExt};
use serde::{Deserialize, Serialize};

use crate::collector::{per_sample, rounded};
use crate::layout;
use crate::plan::{Opened, Plan, Target};
use crate::prompts::Sample;
use crate::report::{Figures, Records, line};
use crate::selection::Positions;

/// Units that may wait for the writer: one being written, one computed.
const WAITING_MAX: usize = 1;

/// A unit's samples (indices into the job's) and their rows of every point.
pub struct Unit {
    pub samples: Vec<usize>,
    pub tensors: Vec<Tensor>,
}

/// In the journal: so many units lie in the container, up to these rows.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub struct Mark {
    pub units: usize,
    pub rows: u64,
    pub sample_bytes: u64,
}

/// The container being written.
pub struct Dump<'a> {
    opened: &'a Opened,
    keeps_text: bool,
    writer: Writer<Output>,
    journal: Option<Journal>,
    figures: Vec<Figures>,
    mark: Mark,
    records: Records,
}

/// What a finished container holds, before it is committed.
pub struct Written {
    pub output: Output,
    pub summary: Summary,
    /// Sizes of every tensor's rows; absent where a resumed run did not see them all.
    pub figures: Option<Vec<Figures>>,
    pub journal: Option<Journal>,
    pub records: Records,
}

impl<'a> Dump<'a> {
    /// Begins a container, or goes on behind what is sound of a partial one.
    pub fn open(
        plan: &Plan,
        opened: &'a Opened,
        target: &Target,
        threads: usize,
        records: Records,
    ) -> Result<Dump<'a>> {
        let mut output = Output::create_binary(&target.path, target.existing, &target.inputs)?;
        let shown = target.path.display().to_string();
        let mut header = layout::header(plan, opened)?;
        let mut found = None;
        let mut journal = None;
        let mut marks = Vec::new();
        output.keep_partial();
        if let Some(file) = output.partial_file() {
            match target.existing {
                Existing::Resume => {
                    let (resumed, before) = Journal::resume::<Mark>(&target.path, plan, target.mixed)?;
                    (journal, marks) = (Some(resumed), before);
                    if target.mixed.allow_mixed_compute {
                        header = header_of_another_machine(file, header, &shown)?;
                    }
                    found = recovered(file, &header, &shown)?;
                }
                _ => journal = Some(Journal::create(&target.path, plan)?),
            }
        }
        // one thread compresses beside the computation; a second would only take its core
        let threads = threads.min(2);
        let (writer, mark) = match found {
            Some(recovered) => {
                let mut writer = Writer::resume(output, recovered, threads).at(&shown)?;
                let mark = rewound(&mut writer, marks).at(&shown)?;
                (writer, mark)
            }
            None => (Writer::new(output, header, threads).at(&shown)?, Mark::default()),
        };
        Ok(Dump {
            opened,
            keeps_text: plan.keep_text,
            writer,
            journal,
            figures: vec![Figures::default(); opened.points.len()],
            mark,
            records,
        })
    }

    /// Units that need not be computed again.
    pub fn done_units(&self) -> usize {
        self.mark.units
    }

    /// Starts the writing thread; units are sent to it in order, and hanging up ends the container.
    pub fn start<'scope>(
        self,
        scope: &'scope Scope<'scope, 'a>,
    ) -> Result<(SyncSender<Unit>, ScopedJoinHandle<'scope, Result<Written>>)>
    where
        'a: 'scope,
    {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let writing = thread::Builder::new().spawn_scoped(scope, move || self.write(receiver));
        Ok((sender, writing.at("a thread")?))
    }

    fn write(mut self, units: Receiver<Unit>) -> Result<Written> {
        let first = self.mark.units;
        self.replay_records()?;
        for unit in units {
            self.push(&unit)?;
        }
        if process::signals::received().is_some() {
            // a valid partial, and the reason why it is one
            self.writer.flush().at("output")?;
            process::signals::check()?;
        }
        let (output, summary) = match self.opened.failures.is_empty() {
            true => self.writer.finish(),
            false => self.writer.finish_partial(),
        }
        .at("output")?;
        Ok(Written {
            output,
            summary,
            figures: (first == 0).then_some(self.figures),
            journal: self.journal,
            records: self.records,
        })
    }

    /// The records of samples whose rows a resumed run finds in place.
    fn replay_records(&mut self) -> Result<()> {
        let mut row_start = 0;
        for index in self.opened.all_units().into_iter().take(self.mark.units).flatten() {
            let record = self.record(&self.opened.samples[index], row_start);
            row_start += record.row_count;
            self.records.row(&record)?;
        }
        Ok(())
    }

    fn record(&self, sample: &Sample, row_start: u64) -> records::Sample {
        records::Sample {
            id: sample.id.clone(),
            sample_index: sample.index,
            group: sample.group.clone(),
            bench: sample.bench.clone(),
            text_digest: sample.text_digest.clone(),
            token_count: sample.token_ids.len() as u64,
            row_start,
            row_count: sample.row_count(self.opened.positions) as u64,
            text: self.keeps_text.then(|| sample.text.clone()),
            ..Default::default()
        }
    }

    /// Sample by sample and, within a sample, tensor by tensor in header order: what a merge of shards writes too.
    fn push(&mut self, unit: &Unit) -> Result<()> {
        let samples = self.opened.of_unit(&unit.samples);
        // by tensor, then by sample
        let mut stored = Vec::with_capacity(unit.tensors.len());
        for (at, tensor) in unit.tensors.iter().enumerate() {
            stored.push(self.stored_rows(at, tensor, &samples)?);
        }
        for (at, sample) in samples.iter().enumerate() {
            for (tensor, rows) in stored.iter().enumerate() {
                self.push_rows(tensor, &rows[at])?;
            }
            self.push_tables(sample)?;
        }
        self.mark.units += 1;
        match &mut self.journal {
            Some(journal) => journal.mark(&self.mark),
            None => Ok(()),
        }
    }

    /// Every sample's rows of one tensor, as they will be stored; their sizes are noted.
    fn stored_rows(&mut self, at: usize, tensor: &Tensor, samples: &[&Sample]) -> Result<Vec<Vec<f32>>> {
        let (opened, point) = (self.opened, self.opened.points[at]);
        let figures = &mut self.figures[at];
        let mut all = Vec::with_capacity(samples.len());
        per_sample(tensor, samples, opened.positions, |sample, values| {
            let stored = rounded(values, opened.dtype(at));
            for (offset, row) in stored.chunks_exact(opened.width(at)).enumerate() {
                let position = match opened.positions {
                    Positions::Mean => u64::from(u32::MAX),
                    _ => (sample.positions.start + offset) as u64,
                };
                figures.add(row, sample.index, position).map_err(|dim| {
                    let index = sample.index;
                    let cause = format!("is not finite at sample_index {index}, position {position}, dimension {dim}");
                    Error::input(point, cause)
                })?;
            }
            all.push(stored);
            Ok(())
        })?;
        Ok(all)
    }

    fn push_rows(&mut self, tensor: usize, values: &[f32]) -> Result<()> {
        if self.opened.dtype(tensor) != acts::Dtype::U32 {
            return self.writer.push_f32(tensor, values).at("output");
        }
        let whole: Vec<u32> = values.iter().map(|value| *value as u32).collect();
        self.writer.push_exact(tensor, &whole).at("output")
    }

    /// A sample's rows of the row tables, and its record.
    fn push_tables(&mut self, sample: &Sample) -> Result<()> {
        let (token_ids, positions) = match self.opened.positions {
            Positions::Mean => (vec![u32::MAX], vec![u32::MAX]),
            _ => (
                sample.token_ids[sample.positions.clone()].to_vec(),
                sample.positions.clone().map(|position| position as u32).collect(),
            ),
        };
        let indices = vec![u32::try_from(sample.index).unwrap_or(u32::MAX); positions.len()];
        let first = self.opened.points.len();
        self.writer.push_exact(first, &token_ids).at("output")?;
        self.writer.push_exact(first + 1, &indices).at("output")?;
        self.writer.push_exact(first + 2, &positions).at("output")?;
        let record = self.record(sample, self.mark.rows);
        let line = line(&record)?;
        self.writer.push(first + 3, &line).at("output")?;
        self.records.row(&record)?;
        self.mark.rows += record.row_count;
        self.mark.sample_bytes += line.len() as u64;
        Ok(())
    }
}

/// What is sound of a partial container, cut to it. None where that is nothing, or where only the rename was missing: written again, the
/// bytes are the same.
fn recovered(file: &mut File, header: &Header, shown: &str) -> Result<Option<Recovered>> {
    file.seek(SeekFrom::Start(0)).at(shown)?;
    let recovered = match acts::recover(BufReader::new(&mut *file), header) {
        Ok(recovered) => recovered.filter(|recovered| !recovered.is_finished()),
        Err(acts::Error::HeaderDiffers(what)) => {
            return Err(Error::conflict(shown, format!("the partial run differs in its {what}"))
                .hint("run it with the same arguments, or --force to start over"));
        }
        Err(error) => return Err(error).at(shown),
    };
    let length = recovered.as_ref().map_or(0, Recovered::durable_bytes);
    file.set_len(length).at(shown)?;
    file.seek(SeekFrom::Start(length)).at(shown)?;
    Ok(recovered)
}

/// The header that the partial container has, where it is ours but for the machine that began it.
fn header_of_another_machine(file: &mut File, ours: Header, shown: &str) -> Result<Header> {
    file.seek(SeekFrom::Start(0)).at(shown)?;
    Ok(match Stream::new(BufReader::new(&mut *file), true) {
        Ok(stream) if layout::without_machine(stream.header()) == layout::without_machine(&ours) => {
            stream.header().clone()
        }
        _ => ours,
    })
}

/// Takes a container back to the last mark that its rows bear out.
fn rewound(writer: &mut Writer<Output>, marks: Vec<Mark>) -> acts::Result<Mark> {
    let samples = writer.tensor("samples")?;
    let rows = (0..samples).map(|tensor| writer.row_count(tensor)).min().unwrap_or(0);
    let sample_bytes = writer.row_count(samples);
    let holds = |mark: &Mark| mark.rows <= rows && mark.sample_bytes <= sample_bytes;
    let mark = marks.into_iter().rfind(holds).unwrap_or_default();
    for tensor in 0..samples {
        writer.rewind(tensor, mark.rows)?;
    }
    writer.rewind(samples, mark.sample_bytes)?;
    Ok(mark)
}

/// The sizes of all rows of a container, for a run that did not see them pass.
pub fn figures_of(opened: &Opened, path: &Path) -> Result<(Vec<Figures>, Summary)> {
    let shown = path.display().to_string();
    let file = acts::File::open(
        path,
        acts::OpenOptions {
            allow_partial: true,
            ..Default::default()
        },
    )
    .at(&shown)?;
    let first = opened.points.len();
    let rows = file.row_count(first);
    let sample_index = file.to_vec::<u32>(first + 1, 0..rows).at(&shown)?;
    let position = file.to_vec::<u32>(first + 2, 0..rows).at(&shown)?;
    let mut all = Vec::with_capacity(first);
    for (tensor, point) in opened.points.iter().enumerate() {
        let width = opened.width(tensor);
        let mut figures = Figures::default();
        // BOUND: a stretch of rows at a time
        const STRETCH: u64 = 1024;
        let mut start = 0;
        while start < rows {
            let end = rows.min(start + STRETCH);
            let values = file.to_vec::<f32>(tensor, start..end).at(&shown)?;
            for (offset, row) in values.chunks_exact(width).enumerate() {
                let at = start as usize + offset;
                figures
                    .add(row, u64::from(sample_index[at]), u64::from(position[at]))
                    .map_err(|_| Error::input(&shown, format!("{point} is not finite at row {at}")))?;
            }
            start = end;
        }
        all.push(figures);
    }
    let tensors = (0..file.header().tensors.len()).map(|tensor| file.summary(tensor).cloned());
    let summary = Summary {
        state: file.state(),
        tensors: tensors.collect::<acts::Result<_>>().at(&shown)?,
        block_count: file.block_count(),
        file_bytes: file.file_bytes(),
    };
    Ok((all, summary))
}
