//! Writes an array into a container and reads it back, all of it and scattered rows, and prints the seconds: our part of `scripts/bench/acts`.
//!
//!     throughput RAW_FILE DTYPE WIDTH CODEC LEVEL THREADS OUT write|read|rows

use acts::{Codec, Dtype, File, Header, OpenOptions, TensorSpec, Writer};
use std::io::Read;
use std::time::Instant;

/// What is pushed at once, as a tool that computes activations would.
const PUSH_BYTES: usize = 4 << 20;
const ROWS: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [raw, dtype, width, codec, level, threads, out, task] = args.as_slice() else {
        return Err("usage: throughput RAW_FILE DTYPE WIDTH CODEC LEVEL THREADS OUT write|read|rows".into());
    };
    let dtype: Dtype = dtype.parse()?;
    let width: u64 = width.parse()?;
    let threads: usize = threads.parse()?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let start = Instant::now();
    let mut bytes = 0u64;
    match task.as_str() {
        "write" => {
            let mut header = Header::new("throughput", "0", "sha256:bench", None);
            let mut spec = TensorSpec::new("data", dtype, &[width]).codec(codec.parse::<Codec>()?);
            spec.level = level.parse()?;
            header.tensors = vec![spec];
            header.fix_blocks()?;
            let row_bytes = usize::try_from(header.tensors[0].row_bytes()?)?;
            let mut source = std::fs::File::open(raw)?;
            let mut writer = Writer::new(std::fs::File::create(out)?, header, threads)?;
            let mut buffer = vec![0; PUSH_BYTES / row_bytes * row_bytes];
            loop {
                let mut filled = 0;
                while filled < buffer.len() {
                    match source.read(&mut buffer[filled..])? {
                        0 => break,
                        count => filled += count,
                    }
                }
                if filled == 0 {
                    break;
                }
                writer.push(0, &buffer[..filled])?;
                bytes += filled as u64;
            }
            writer.finish()?;
        }
        "read" => {
            let file = File::open(out.as_ref(), OpenOptions::default())?;
            let rows = file.row_count(0);
            let row_bytes = file.spec(0)?.row_bytes()?;
            // As a consumer that works through a file larger than memory: one window of rows after another, the buffer used again.
            let step = ((32 << 20) / row_bytes).max(1);
            let mut window = vec![0; usize::try_from(step.min(rows) * row_bytes)?];
            for first in (0..rows).step_by(usize::try_from(step)?) {
                let end = rows.min(first + step);
                let length = usize::try_from((end - first) * row_bytes)?;
                file.read_raw(0, first..end, &mut window[..length])?;
                bytes += length as u64;
            }
        }
        "rows" => {
            let file = File::open(out.as_ref(), OpenOptions::default())?;
            let count = file.row_count(0);
            let rows: Vec<u64> = (0..ROWS)
                .map(|row| row.wrapping_mul(0x9E37_79B9_7F4A_7C15) % count)
                .collect();
            let mut values = vec![0f32; usize::try_from(ROWS * width)?];
            file.gather(0, &rows, &mut values)?;
            bytes = ROWS * file.spec(0)?.row_bytes()?;
        }
        other => return Err(format!("{other}: write, read or rows").into()),
    }
    let seconds = start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .map_or("0", |line| line.trim_end_matches("kB").trim());
    println!("{{\"seconds\":{seconds},\"bytes\":{bytes},\"peak_kib\":{peak}}}");
    Ok(())
}
