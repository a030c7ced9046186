//! Writing: rows in, blocks out, in the order in which blocks fill. Compression runs on the writer's own threads; the bytes are the same
//! for any number of them. The sink is any [`Write`]: a file, a pipe, a buffer.

use crate::codec::{Encoder, Payload};
use crate::dtype::{NonFinite, narrow_f32, narrow_f64};
use crate::error::reserve;
use crate::frame::{Descriptor, encode_header, frame_length, narrow, wide};
use crate::ledger::{BlockEntry, Ledger, State, TensorSummary};
use crate::{Dtype, Error, Header, Result};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

/// What a finished container holds.
#[derive(Debug, Clone)]
pub struct Summary {
    pub state: State,
    /// In header order.
    pub tensors: Vec<TensorSummary>,
    pub block_count: u64,
    pub file_bytes: u64,
}

/// A block on its way to a compressing thread.
struct Job {
    spec: (crate::Codec, i32, Dtype),
    key: [u8; 32],
    /// All but the digest and the payload's length.
    descriptor: Descriptor,
    raw: Vec<u8>,
    /// A used buffer for the payload.
    buffer: Vec<u8>,
    done: SyncSender<Result<Done>>,
}

struct Done {
    descriptor: Descriptor,
    payload: Payload,
    non_finite: NonFinite,
    /// The raw buffer, to be filled again.
    raw: Vec<u8>,
}

impl Job {
    fn run(self, encoder: &mut Encoder) {
        let Job {
            spec: (codec, level, dtype),
            key,
            mut descriptor,
            raw,
            mut buffer,
            done,
        } = self;
        let mut encode = || {
            let payload = encoder.encode(codec, level, dtype.bytes(), &raw, std::mem::take(&mut buffer))?;
            descriptor.payload_bytes = frame_length("block", payload.bytes.len())?;
            descriptor.digest = descriptor.digest_of(&key, &payload.bytes);
            Ok((payload, NonFinite::count(dtype, &raw)))
        };
        let result = encode();
        // The writer may be gone after an error of its own: then nobody wants the block.
        let _ = done.send(result.map(|(payload, non_finite)| Done {
            descriptor,
            payload,
            non_finite,
            raw,
        }));
    }
}

/// Compressing threads behind one queue; with none, blocks are compressed by the caller.
struct Pool {
    queue: Option<Sender<Job>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    inline: Encoder,
}

impl Pool {
    fn new(threads: usize) -> Pool {
        let (queue, jobs) = channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        let mut running = Vec::new();
        for _ in 0..if threads > 1 { threads } else { 0 } {
            let jobs: Arc<Mutex<Receiver<Job>>> = Arc::clone(&jobs);
            let work = move || {
                let mut encoder = Encoder::new();
                loop {
                    let next = jobs.lock().map(|jobs| jobs.recv());
                    let Ok(Ok(job)) = next else { break };
                    job.run(&mut encoder);
                }
            };
            // A process that may start no more threads still writes the same bytes, only slower.
            match std::thread::Builder::new().name("acts-encode".into()).spawn(work) {
                Ok(handle) => running.push(handle),
                Err(_) => break,
            }
        }
        Pool {
            queue: (!running.is_empty()).then_some(queue),
            threads: running,
            inline: Encoder::new(),
        }
    }

    fn submit(&mut self, job: Job) {
        match &self.queue {
            Some(queue) => {
                if let Err(refused) = queue.send(job) {
                    refused.0.run(&mut self.inline);
                }
            }
            None => job.run(&mut self.inline),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Writes one container. [`Writer::finish`] must be called: a container without its end mark is refused by every reader.
///
/// Blocks are emitted in the order in which they fill, so the bytes follow from the header and the order of the pushes. A producer that
/// pushes sample by sample, and within a sample tensor by tensor in header order, writes what a merge of its shards writes.
pub struct Writer<W: Write> {
    sink: W,
    header: Header,
    row_bytes: Vec<usize>,
    ledger: Ledger,
    /// Rows of each tensor that are in no block yet.
    pending: Vec<Vec<u8>>,
    /// The next row of each tensor, pushed or skipped.
    next_row: Vec<u64>,
    /// Rows of each tensor that are cut into blocks, written or in flight.
    cut_rows: Vec<u64>,
    closed: Vec<bool>,
    cut_blocks: u64,
    pool: Pool,
    in_flight: VecDeque<Receiver<Result<Done>>>,
    in_flight_max: usize,
    /// Buffers to be filled again, of rows and of payloads.
    spare: Vec<Vec<u8>>,
    spare_payloads: Vec<Vec<u8>>,
}

impl<W: Write> Writer<W> {
    /// Writes the header. `threads` compress beside the caller; 0 or 1 compresses in the caller's thread.
    pub fn new(mut sink: W, header: Header, threads: usize) -> Result<Writer<W>> {
        let (bytes, digest) = encode_header(&header.to_json()?)?;
        sink.write_all(&bytes).map_err(Error::io("write"))?;
        let ledger = Ledger::new(&header, digest, wide(bytes.len()))?;
        Writer::with_ledger(sink, header, ledger, threads)
    }

    /// Goes on behind the last whole block of a partial container. `sink` must stand at [`Recovered::durable_bytes`], with nothing after it.
    ///
    /// [`Recovered::durable_bytes`]: crate::Recovered::durable_bytes
    pub fn resume(sink: W, recovered: crate::Recovered, threads: usize) -> Result<Writer<W>> {
        Writer::with_ledger(sink, recovered.header, recovered.ledger, threads)
    }

    fn with_ledger(sink: W, header: Header, ledger: Ledger, threads: usize) -> Result<Writer<W>> {
        let row_bytes = header
            .tensors
            .iter()
            .map(|spec| spec.row_bytes().map(narrow))
            .collect::<Result<Vec<_>>>()?;
        let rows: Vec<u64> = (0..header.tensors.len()).map(|index| ledger.row_count(index)).collect();
        let pool = Pool::new(threads);
        let in_flight_max = pool.threads.len().saturating_mul(2).max(1);
        Ok(Writer {
            sink,
            row_bytes,
            pending: header.tensors.iter().map(|_| Vec::new()).collect(),
            next_row: rows.clone(),
            closed: (0..header.tensors.len()).map(|index| ledger.is_closed(index)).collect(),
            cut_rows: rows,
            cut_blocks: ledger.block_count(),
            header,
            ledger,
            pool,
            in_flight: VecDeque::new(),
            in_flight_max,
            spare: Vec::new(),
            spare_payloads: Vec::new(),
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Position of the tensor called `name`.
    pub fn tensor(&self, name: &str) -> Result<usize> {
        self.header
            .tensor_index(name)
            .ok_or_else(|| Error::NoSuchTensor(name.into()))
    }

    /// Rows of a tensor pushed so far.
    pub fn row_count(&self, tensor: usize) -> u64 {
        self.next_row.get(tensor).copied().unwrap_or_default()
    }

    /// After a resume: the next push to `tensor` begins at `row`. Rows that are already in the file are dropped, so a producer replays from
    /// a unit of its own that begins at or before the durable rows of every tensor, and the bytes come out as if it had never stopped.
    pub fn rewind(&mut self, tensor: usize, row: u64) -> Result<()> {
        let durable = self.cut_rows.get(tensor).copied().unwrap_or_default();
        let pending = self.pending.get(tensor).map_or(0, Vec::len);
        if row > durable || pending > 0 {
            return Err(Error::Misuse(format!(
                "tensor {tensor} cannot go on at row {row}: rows up to {durable} are there"
            )));
        }
        if let Some(next) = self.next_row.get_mut(tensor) {
            *next = row;
        }
        Ok(())
    }

    /// In a salvaged container: the next block of `tensor` begins at `row`, a multiple of its block's rows; the rows between are missing.
    pub fn skip_to(&mut self, tensor: usize, row: u64) -> Result<()> {
        let here = self.row_count(tensor);
        let pending = self.pending.get(tensor).map_or(0, Vec::len);
        if !self.header.salvaged || pending > 0 || row < here {
            return Err(Error::Misuse(format!(
                "tensor {tensor} cannot skip from row {here} to row {row}"
            )));
        }
        for rows in [&mut self.next_row, &mut self.cut_rows] {
            if let Some(next) = rows.get_mut(tensor) {
                *next = row;
            }
        }
        Ok(())
    }

    /// Appends whole rows, as little-endian bytes of the tensor's dtype.
    pub fn push(&mut self, tensor: usize, rows: &[u8]) -> Result<()> {
        let (row_bytes, first) = match (self.row_bytes.get(tensor), self.next_row.get(tensor)) {
            (Some(bytes), Some(first)) => (*bytes, *first),
            _ => return Err(Error::NoSuchTensor(format!("number {tensor}"))),
        };
        if rows.len().checked_rem(row_bytes) != Some(0) {
            return Err(Error::Misuse(format!(
                "{} bytes are no whole rows of {row_bytes} bytes",
                rows.len()
            )));
        }
        let count = wide(rows.len().checked_div(row_bytes).unwrap_or(0));
        let durable = self.cut_rows.get(tensor).copied().unwrap_or_default();
        let skipped = durable.saturating_sub(first).min(count);
        let fresh = rows
            .get(narrow(skipped).saturating_mul(row_bytes)..)
            .unwrap_or_default();
        if !fresh.is_empty() && self.closed.get(tensor).copied().unwrap_or_default() {
            return Err(Error::Misuse(format!("rows after the last block of tensor {tensor}")));
        }
        if let Some(next) = self.next_row.get_mut(tensor) {
            *next = first.saturating_add(count);
        }
        self.append(tensor, fresh)
    }

    /// Appends rows of f32, rounded to nearest even where the tensor is narrower.
    pub fn push_f32(&mut self, tensor: usize, values: &[f32]) -> Result<()> {
        let dtype = self.dtype(tensor)?;
        if dtype == Dtype::F32 {
            return self.push(tensor, bytemuck::cast_slice(values));
        }
        let mut bytes = reserve(values.len().saturating_mul(dtype.bytes()))?;
        if !narrow_f32(dtype, values, &mut bytes) {
            return Err(Error::Misuse(format!("f32 values for a tensor of {dtype}")));
        }
        self.push(tensor, &bytes)
    }

    /// Appends rows of f64, rounded to nearest even where the tensor is narrower.
    pub fn push_f64(&mut self, tensor: usize, values: &[f64]) -> Result<()> {
        let dtype = self.dtype(tensor)?;
        let mut bytes = reserve(values.len().saturating_mul(dtype.bytes()))?;
        if !narrow_f64(dtype, values, &mut bytes) {
            return Err(Error::Misuse(format!("f64 values for a tensor of {dtype}")));
        }
        self.push(tensor, &bytes)
    }

    /// Appends rows of exactly the tensor's dtype.
    pub fn push_exact<T: crate::Element>(&mut self, tensor: usize, values: &[T]) -> Result<()> {
        let dtype = self.dtype(tensor)?;
        if dtype != T::DTYPE {
            return Err(Error::Misuse(format!("{} values for a tensor of {dtype}", T::DTYPE)));
        }
        self.push(tensor, bytemuck::cast_slice(values))
    }

    fn dtype(&self, tensor: usize) -> Result<Dtype> {
        self.header
            .tensors
            .get(tensor)
            .map(|spec| spec.dtype)
            .ok_or_else(|| Error::NoSuchTensor(format!("number {tensor}")))
    }

    fn append(&mut self, tensor: usize, mut rows: &[u8]) -> Result<()> {
        let Some(spec) = self.header.tensors.get(tensor) else {
            return Ok(());
        };
        let row_bytes = self.row_bytes.get(tensor).copied().unwrap_or(1);
        let block_bytes = narrow(spec.block_row_count).saturating_mul(row_bytes);
        while !rows.is_empty() {
            let Some(pending) = self.pending.get_mut(tensor) else {
                break;
            };
            let room = block_bytes.saturating_sub(pending.len());
            let (head, tail) = rows.split_at_checked(room).unwrap_or((rows, &[]));
            if pending.capacity() == 0
                && let Some(spare) = self.spare.pop()
            {
                *pending = spare;
            }
            pending
                .try_reserve(head.len())
                .map_err(|_| Error::out_of_memory(head.len()))?;
            pending.extend_from_slice(head);
            rows = tail;
            if pending.len() == block_bytes {
                self.cut(tensor)?;
            }
        }
        Ok(())
    }

    /// Sends the pending rows of a tensor to be compressed, and writes whatever has been.
    fn cut(&mut self, tensor: usize) -> Result<()> {
        let (Some(spec), Some(pending)) = (self.header.tensors.get(tensor), self.pending.get_mut(tensor)) else {
            return Ok(());
        };
        let raw = std::mem::take(pending);
        let row_bytes = self.row_bytes.get(tensor).copied().unwrap_or(1);
        let rows = raw.len().checked_div(row_bytes).unwrap_or(0);
        if rows == 0 {
            return Ok(());
        }
        let descriptor = Descriptor {
            number: self.cut_blocks,
            tensor: frame_length("tensor index", tensor)?,
            row_count: frame_length("rows of a block", rows)?,
            first_row: self.cut_rows.get(tensor).copied().unwrap_or_default(),
            raw_bytes: frame_length("block", raw.len())?,
            payload_bytes: 0,
            digest: [0; 32],
        };
        self.ledger.absorb(tensor, &raw);
        self.cut_blocks = self.cut_blocks.saturating_add(1);
        if let Some(cut) = self.cut_rows.get_mut(tensor) {
            *cut = cut.saturating_add(wide(rows));
        }
        if wide(rows) < spec.block_row_count
            && let Some(closed) = self.closed.get_mut(tensor)
        {
            *closed = true;
        }
        let (done, result) = sync_channel(1);
        let job = Job {
            spec: (spec.codec, spec.level, spec.dtype),
            key: *self.ledger.key(),
            descriptor,
            raw,
            buffer: self.spare_payloads.pop().unwrap_or_default(),
            done,
        };
        self.pool.submit(job);
        self.in_flight.push_back(result);
        while self.in_flight.len() >= self.in_flight_max {
            self.write_next()?;
        }
        Ok(())
    }

    /// Writes the oldest block in flight.
    fn write_next(&mut self) -> Result<()> {
        let Some(next) = self.in_flight.pop_front() else {
            return Ok(());
        };
        let done = next
            .recv()
            .map_err(|_| Error::Misuse("a compressing thread ended early".into()))??;
        let Done {
            descriptor,
            payload,
            non_finite,
            mut raw,
        } = done;
        let spec = crate::ledger::check(&self.header, &descriptor, self.ledger.offset())?;
        let padding = BlockEntry {
            offset: self.ledger.offset(),
            descriptor,
        }
        .padding(spec);
        self.sink
            .write_all(&descriptor.encode(padding)?)
            .map_err(Error::io("write"))?;
        self.sink.write_all(&payload.bytes).map_err(Error::io("write"))?;
        self.ledger
            .admit(&self.header, descriptor, &payload.frames, non_finite)?;
        raw.clear();
        if self.spare.len() < self.in_flight_max {
            self.spare.push(raw);
            self.spare_payloads.push(payload.bytes);
        }
        Ok(())
    }

    /// Writes every block that is full and flushes the sink: what is durable now survives a kill. Rows in no block yet stay in memory.
    pub fn flush(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.write_next()?;
        }
        self.sink.flush().map_err(Error::io("write"))
    }

    /// Ends the container: the last blocks, in header order, then the manifest and the seek table.
    pub fn finish(self) -> Result<(W, Summary)> {
        self.end(State::Complete)
    }

    /// Ends a container that holds less than was planned; readers refuse it unless asked.
    pub fn finish_partial(self) -> Result<(W, Summary)> {
        self.end(State::Partial)
    }

    fn end(mut self, state: State) -> Result<(W, Summary)> {
        for tensor in 0..self.pending.len() {
            self.cut(tensor)?;
        }
        while !self.in_flight.is_empty() {
            self.write_next()?;
        }
        let state = if self.header.salvaged { State::Salvaged } else { state };
        if state == State::Complete {
            self.ledger.check_complete(&self.header)?;
        }
        let (manifest, seek) = self.ledger.trailer(&self.header, state)?;
        self.sink.write_all(&manifest).map_err(Error::io("write"))?;
        self.sink.write_all(&seek).map_err(Error::io("write"))?;
        self.sink.flush().map_err(Error::io("write"))?;
        let summary = Summary {
            state,
            tensors: self.ledger.summaries(&self.header)?,
            block_count: self.ledger.block_count(),
            file_bytes: self
                .ledger
                .offset()
                .saturating_add(wide(manifest.len()))
                .saturating_add(wide(seek.len())),
        };
        let Writer { sink, .. } = self;
        Ok((sink, summary))
    }
}
