//! Ranks over MPI: whoever started them (`mpirun`, `srun`) has set up how they reach each other.
//!
//! A binary belongs to the MPI that it was built with. A rank that dies takes the others with it: MPI sees to that, and to time limits.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::{Error, Result};

use crate::{Transport, World};

/// MPI counts in `int`.
const BYTES_MAX: usize = 1 << 30;

unsafe extern "C" {
    fn ranks_mpi_start(rank: *mut c_int, count: *mut c_int) -> c_int;
    fn ranks_mpi_swap(peer: c_int, out: *const c_void, out_len: c_int, into: *mut c_void, into_len: c_int) -> c_int;
    fn ranks_mpi_end() -> c_int;
    fn ranks_mpi_error(code: c_int, text: *mut c_char);
}

pub struct Mpi(());

impl Mpi {
    /// Begins MPI, once in a process and on its main thread: the number of this rank, of all ranks, and the transport.
    pub fn start() -> Result<(usize, usize, Self)> {
        let (mut rank, mut count) = (0, 0);
        // SAFETY: both pointers are to locals, which the call sets.
        check(unsafe { ranks_mpi_start(&raw mut rank, &raw mut count) })?;
        Ok((rank as usize, count as usize, Self(())))
    }

    /// All ranks that MPI has started, a power of two.
    pub fn world(self, rank: usize, count: usize) -> World {
        match count {
            1 => World::alone(),
            _ => World::new(rank, count, Box::new(self)),
        }
    }
}

fn check(code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let mut text = [0; 4096];
    // SAFETY: the call writes at most 4096 bytes, the last of them zero.
    unsafe { ranks_mpi_error(code, text.as_mut_ptr()) };
    let text = CStr::from_bytes_until_nul(bytes(&text)).map(CStr::to_string_lossy);
    Err(Error::other(format!("MPI: {}", text.unwrap_or_default())))
}

fn bytes(text: &[c_char; 4096]) -> &[u8] {
    // SAFETY: a `c_char` is a byte.
    unsafe { std::slice::from_raw_parts(text.as_ptr().cast(), text.len()) }
}

impl Transport for Mpi {
    fn swap(&self, peer: usize, out: &[u8], into: &mut [u8]) -> Result<()> {
        let (mut outs, mut intos) = (out.chunks(BYTES_MAX), into.chunks_mut(BYTES_MAX));
        loop {
            let (out, into) = (outs.next(), intos.next());
            if out.is_none() && into.is_none() {
                return Ok(());
            }
            let (out, into) = (out.unwrap_or_default(), into.unwrap_or_default());
            // SAFETY: both pointers are to slices of at least these lengths, which fit into an `int`.
            check(unsafe {
                ranks_mpi_swap(
                    peer as c_int,
                    out.as_ptr().cast(),
                    out.len() as c_int,
                    into.as_mut_ptr().cast(),
                    into.len() as c_int,
                )
            })?;
        }
    }

    fn end(&self) -> Result<()> {
        // SAFETY: MPI was begun, and nothing is under way.
        check(unsafe { ranks_mpi_end() })
    }
}
