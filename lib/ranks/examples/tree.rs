//! How long ranks take to add up and gather again so many f32: tree COUNT, started as every run of several ranks is (`scripts/ranks`,
//! or `mpirun` in a build with the feature `mpi`). Prints seconds, and the bytes that each rank sent.

use std::error::Error;
use std::ops::Range;
use std::time::Instant;
use std::{env, io};

use ranks::{Layout, Shares, Values, World};

/// As long as an optimiser's chunks.
const PIECE: usize = 64 * 1024;
const REPEATS: usize = 5;

struct Plain {
    values: Vec<f32>,
    adds: bool,
}

impl Values for Plain {
    fn width(&self) -> usize {
        4
    }

    fn read(&self, range: Range<usize>, out: &mut Vec<u8>) -> io::Result<()> {
        let values = &self.values[range];
        let start = out.len();
        out.resize(start + 4 * values.len(), 0);
        for (out, value) in out[start..].as_chunks_mut().0.iter_mut().zip(values) {
            *out = value.to_ne_bytes();
        }
        Ok(())
    }

    fn take(&mut self, range: Range<usize>, bytes: &[u8]) -> io::Result<()> {
        for (own, other) in self.values[range].iter_mut().zip(bytes.as_chunks().0) {
            let other = f32::from_ne_bytes(*other);
            *own = if self.adds { *own + other } else { other };
        }
        Ok(())
    }
}

#[cfg(feature = "mpi")]
fn world() -> Result<World, Box<dyn Error>> {
    let (rank, count, mpi) = ranks::Mpi::start()?;
    Ok(mpi.world(rank, count))
}

#[cfg(not(feature = "mpi"))]
fn world() -> Result<World, Box<dyn Error>> {
    let meeting = ranks::Meeting {
        rank: env::var("RANK")?.parse()?,
        count: env::var("WORLD_SIZE")?.parse()?,
        host: env::var("MASTER_ADDR")?,
        port: env::var("MASTER_PORT")?.parse()?,
        secret: env::var("FLOWLENS_SECRET").unwrap_or_default(),
        limit: std::time::Duration::from_secs(60),
    };
    Ok(meeting.world(|doubt| eprintln!("{doubt}"))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = env::args().nth(1).ok_or("usage: tree COUNT")?.parse()?;
    let world = world()?;
    let layout = Layout::new([count]);
    let shares = Shares::new(&layout, PIECE, &world);
    let mut plain = Plain {
        values: (0..count).map(|at| (at % 1000) as f32 + world.rank() as f32).collect(),
        adds: true,
    };
    for _ in 0..REPEATS {
        world.wait()?;
        let (begun, before) = (Instant::now(), world.traffic().sent_bytes);
        plain.adds = true;
        ranks::reduce_scatter(&world, &shares, &mut plain)?;
        let added = begun.elapsed();
        plain.adds = false;
        ranks::all_gather(&world, &shares, &mut plain)?;
        if world.is_first() {
            let sent = world.traffic().sent_bytes - before;
            println!(
                "{:.3} s added up, {:.3} s in all, {sent} bytes sent",
                added.as_secs_f64(),
                begun.elapsed().as_secs_f64()
            );
        }
    }
    world.end()?;
    Ok(())
}
