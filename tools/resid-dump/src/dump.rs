//! Rows into a container, on a thread of their own while the next unit is computed; and how a stopped run goes on.

use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use acts::{Dtype, Summary, Writer};
use model::Tensor;
use process::{Error, Journal, Output, Result, ResultExt};
use serde::{Deserialize, Serialize};

use crate::collector::per_sample;
use crate::plan::{Job, acts_dtype};
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
    job: &'a Job,
    writer: Writer<Output>,
    journal: Option<Journal>,
    figures: Vec<Figures>,
    mark: Mark,
    dtype: Dtype,
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
        job: &'a Job,
        mut output: Output,
        path: &Path,
        resume: bool,
        threads: usize,
        records: Records,
    ) -> Result<Dump<'a>> {
        let header = job.rows_header()?;
        let shown = path.display().to_string();
        // one thread compresses beside the computation; a second would only take its core
        let threads = threads.min(2);
        if !output.is_file() {
            let writer = Writer::new(output, header, threads).at(&shown)?;
            return Ok(Dump::with(job, writer, None, Mark::default(), records));
        }
        output.keep_partial();
        if !resume {
            let journal = Journal::create(path, &job.plan)?;
            let writer = Writer::new(output, header, threads).at(&shown)?;
            return Ok(Dump::with(job, writer, Some(journal), Mark::default(), records));
        }
        let (journal, marks) = Journal::resume::<Mark>(path, &job.plan)?;
        let Some(file) = output.partial_file() else {
            return Err(Error::bug(&shown, "a file that is none"));
        };
        file.seek(SeekFrom::Start(0)).at(&shown)?;
        let recovered = match acts::recover(std::io::BufReader::new(&mut *file), &header) {
            Ok(recovered) => recovered,
            Err(acts::Error::HeaderDiffers(what)) => {
                return Err(
                    Error::conflict(&shown, format!("the partial run differs in its {what}"))
                        .hint("run it with the same arguments, or --force to start over"),
                );
            }
            Err(error) => return Err(error).at(&shown),
        };
        let durable = recovered.as_ref().filter(|recovered| !recovered.is_finished());
        let length = durable.map_or(0, |recovered| recovered.durable_bytes());
        file.set_len(length).at(&shown)?;
        file.seek(SeekFrom::Start(length)).at(&shown)?;
        let Some(recovered) = recovered.filter(|recovered| !recovered.is_finished()) else {
            // nothing of it is sound, or only the rename was missing: written again, the bytes are the same
            let writer = Writer::new(output, header, threads).at(&shown)?;
            return Ok(Dump::with(job, writer, Some(journal), Mark::default(), records));
        };
        let mut writer = Writer::resume(output, recovered, threads).at(&shown)?;
        let samples = writer.tensor("samples").at(&shown)?;
        let rows = (0..samples).map(|tensor| writer.row_count(tensor)).min().unwrap_or(0);
        let sample_bytes = writer.row_count(samples);
        let behind = |mark: &Mark| mark.rows <= rows && mark.sample_bytes <= sample_bytes;
        let mark = marks.into_iter().rfind(behind).unwrap_or_default();
        for tensor in 0..samples {
            writer.rewind(tensor, mark.rows).at(&shown)?;
        }
        writer.rewind(samples, mark.sample_bytes).at(&shown)?;
        Ok(Dump::with(job, writer, Some(journal), mark, records))
    }

    fn with(job: &'a Job, writer: Writer<Output>, journal: Option<Journal>, mark: Mark, records: Records) -> Dump<'a> {
        let dtype = acts_dtype(&job.plan.store_dtype);
        let figures = vec![Figures::default(); job.points.len()];
        Dump {
            job,
            writer,
            journal,
            figures,
            mark,
            dtype,
            records,
        }
    }

    /// Units that need not be computed again.
    pub fn done_units(&self) -> usize {
        self.mark.units
    }

    /// Starts the writing thread; units are sent to it in order, and hanging up ends the container.
    pub fn start<'scope>(
        self,
        scope: &'scope std::thread::Scope<'scope, 'a>,
    ) -> (SyncSender<Unit>, std::thread::ScopedJoinHandle<'scope, Result<Written>>)
    where
        'a: 'scope,
    {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        (sender, scope.spawn(move || self.write(receiver)))
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
        let (output, summary) = match self.job.failures.is_empty() {
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
        let all: Vec<usize> = (0..self.job.samples.len()).collect();
        let mut row_start = 0;
        for index in self.job.units(&all).into_iter().take(self.mark.units).flatten() {
            let record = self.record(&self.job.samples[index], row_start);
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
            row_count: sample.row_count(self.job.positions) as u64,
            text: self.job.plan.keep_text.then(|| sample.text.clone()),
            ..Default::default()
        }
    }

    /// Sample by sample and, within a sample, tensor by tensor in header order: what a merge of shards writes too.
    fn push(&mut self, unit: &Unit) -> Result<()> {
        let job = self.job;
        let samples: Vec<&Sample> = unit.samples.iter().map(|&index| &job.samples[index]).collect();
        let mut rows: Vec<Vec<Vec<f32>>> = vec![Vec::new(); samples.len()];
        for (at, (tensor, point)) in unit.tensors.iter().zip(&job.points).enumerate() {
            let width = point.site.width(&job.config);
            let figures = &mut self.figures[at];
            let mut sample_at = 0;
            per_sample(tensor, &samples, job.positions, |sample, values| {
                let stored = rounded(values, self.dtype);
                for (offset, row) in stored.chunks_exact(width).enumerate() {
                    let position = match job.positions {
                        Positions::Mean => u64::from(u32::MAX),
                        _ => (sample.positions.start + offset) as u64,
                    };
                    figures.add(row, sample.index, position).map_err(|dim| {
                        Error::input(
                            point,
                            format!(
                                "is not finite at sample_index {}, position {position}, dimension {dim}",
                                sample.index
                            ),
                        )
                    })?;
                }
                rows[sample_at].push(stored);
                sample_at += 1;
                Ok(())
            })?;
        }
        for (sample, tensors) in samples.iter().zip(rows) {
            for (tensor, values) in tensors.iter().enumerate() {
                self.writer.push_f32(tensor, values).at("output")?;
            }
            let record = self.record(sample, self.mark.rows);
            let (token_ids, positions) = match job.positions {
                Positions::Mean => (vec![u32::MAX], vec![u32::MAX]),
                _ => (
                    sample.token_ids[sample.positions.clone()].to_vec(),
                    sample.positions.clone().map(|position| position as u32).collect(),
                ),
            };
            let indices = vec![u32::try_from(sample.index).unwrap_or(u32::MAX); positions.len()];
            let first = job.points.len();
            self.writer.push_exact(first, &token_ids).at("output")?;
            self.writer.push_exact(first + 1, &indices).at("output")?;
            self.writer.push_exact(first + 2, &positions).at("output")?;
            let line = line(&record)?;
            self.writer.push(first + 3, &line).at("output")?;
            self.records.row(&record)?;
            self.mark.rows += record.row_count;
            self.mark.sample_bytes += line.len() as u64;
        }
        self.mark.units += 1;
        match &mut self.journal {
            Some(journal) => journal.mark(&self.mark),
            None => Ok(()),
        }
    }
}

/// The values as they will be stored, so that figures are of what a reader finds.
fn rounded(values: &[f32], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::Bf16 => values
            .iter()
            .map(|x| model::half::bf16::from_f32(*x).to_f32())
            .collect(),
        Dtype::F16 => values.iter().map(|x| model::half::f16::from_f32(*x).to_f32()).collect(),
        _ => values.to_vec(),
    }
}

/// The sizes of all rows of a container, for a run that did not see them pass.
pub fn figures_of(job: &Job, path: &Path) -> Result<(Vec<Figures>, Summary)> {
    let shown = path.display().to_string();
    let file = acts::File::open(
        path,
        acts::OpenOptions {
            allow_partial: true,
            ..Default::default()
        },
    )
    .at(&shown)?;
    let first = job.points.len();
    let rows = file.row_count(first);
    let sample_index = file.to_vec::<u32>(first + 1, 0..rows).at(&shown)?;
    let position = file.to_vec::<u32>(first + 2, 0..rows).at(&shown)?;
    let mut all = Vec::with_capacity(first);
    for (tensor, point) in job.points.iter().enumerate() {
        let width = point.site.width(&job.config);
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
