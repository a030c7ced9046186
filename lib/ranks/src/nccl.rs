//! Ranks with a card each: long messages go from card to card over NCCL, short ones over the connections by which the ranks met.
//!
//! A message comes from the host's memory and goes there: sums are those of every other transport, with their bits, for NCCL moves bytes and adds nothing.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::io::{Error, ErrorKind, Result};
use std::ptr::null_mut;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::libraries::{
    BYTES, Calls, Communicator, FROM_CARD, IN_PROGRESS, NON_BLOCKING, NOT_READY, SUCCESS, Stream, TO_CARD, UniqueId,
};
use crate::{Transport, World};

/// Shorter messages are sooner there over a connection than through a card.
const LONG_BYTES: usize = 64 << 10;
/// What a card holds for each direction; longer messages go in parts.
const BUFFER_BYTES: usize = 4 << 20;
/// Between two looks at a transfer, and at NCCL's own meeting.
const PAUSE: Duration = Duration::from_micros(20);
const LOOK: Duration = Duration::from_millis(20);

/// A card with room for what it sends and receives.
struct Card {
    calls: Calls,
    index: c_int,
    stream: Stream,
    out: *mut c_void,
    into: *mut c_void,
}

impl Card {
    fn new(calls: Calls, index: usize) -> Result<Self> {
        let mut card = Self {
            calls,
            index: index as c_int,
            stream: null_mut(),
            out: null_mut(),
            into: null_mut(),
        };
        let Calls { cuda, .. } = &card.calls;
        // SAFETY: every pointer is to a field that the call sets.
        unsafe {
            card.calls.cuda((cuda.cudaSetDevice)(card.index))?;
            card.calls.cuda((cuda.cudaMalloc)(&raw mut card.out, BUFFER_BYTES))?;
            card.calls.cuda((cuda.cudaMalloc)(&raw mut card.into, BUFFER_BYTES))?;
            let made = (cuda.cudaStreamCreateWithFlags)(&raw mut card.stream, NON_BLOCKING);
            card.calls.cuda(made)?;
        }
        Ok(card)
    }

    fn is_idle(&self) -> Result<bool> {
        // SAFETY: the stream is open.
        match unsafe { (self.calls.cuda.cudaStreamQuery)(self.stream) } {
            NOT_READY => Ok(false),
            code => self.calls.cuda(code).map(|()| true),
        }
    }

    /// What is read of host memory that is not pinned is read before the call returns.
    fn put(&self, bytes: &[u8]) -> Result<()> {
        let copy = self.calls.cuda.cudaMemcpyAsync;
        // SAFETY: `out` has room for a part.
        let code = unsafe { copy(self.out, bytes.as_ptr().cast(), bytes.len(), TO_CARD, self.stream) };
        self.calls.cuda(code)
    }

    fn take(&self, bytes: &mut [u8]) -> Result<()> {
        let copy = self.calls.cuda.cudaMemcpyAsync;
        let (start, len) = (bytes.as_mut_ptr().cast(), bytes.len());
        // SAFETY: `into` has as many bytes as a part.
        let code = unsafe { copy(start, self.into, len, FROM_CARD, self.stream) };
        self.calls.cuda(code)
    }

    fn end(&self) -> Result<()> {
        let Calls { cuda, .. } = &self.calls;
        // SAFETY: nothing is under way, and none of these is used again.
        unsafe {
            self.calls.cuda((cuda.cudaStreamDestroy)(self.stream))?;
            self.calls.cuda((cuda.cudaFree)(self.out))?;
            self.calls.cuda((cuda.cudaFree)(self.into))
        }
    }
}

/// A communicator of all ranks. A run that fails ends with its process, which gives everything back.
struct Cards {
    card: Card,
    communicator: Cell<Communicator>,
    short: Box<dyn Transport>,
    limit: Duration,
}

/// The ranks of `world` as ranks with a card each, this one with card `index`. No wait for a peer takes longer than `limit`.
pub fn over_cards(world: World, index: usize, limit: Duration) -> Result<World> {
    if world.is_alone() {
        return Ok(world);
    }
    let card = Calls::open().and_then(|calls| Card::new(calls, index));
    connected(world, card, limit)
}

fn connected(world: World, card: Result<Card>, limit: Duration) -> Result<World> {
    let card = all_have_one(&world, card)?;
    let Calls { nccl, .. } = &card.calls;
    let mut id = UniqueId([0; 128]);
    if world.is_first() {
        // SAFETY: the pointer is to a local, which the call sets.
        card.calls.nccl(unsafe { (nccl.ncclGetUniqueId)(&raw mut id) })?;
    }
    let shared = world.share(id.0.to_vec())?;
    let id = UniqueId(shared.try_into().map_err(|_| Error::from(ErrorKind::InvalidData))?);
    let communicator = communicator(&world, &card, id, limit)?;
    Ok(world.over(|short| {
        Box::new(Cards {
            card,
            communicator: Cell::new(communicator),
            short,
            limit,
        })
    }))
}

/// NCCL's own meeting, which knows no limit: where a rank is gone or late, the thread that waits for it is left to the end of the process.
fn communicator(world: &World, card: &Card, id: UniqueId, limit: Duration) -> Result<Communicator> {
    let Calls { nccl, cuda } = &card.calls;
    let (choose, meet, index) = (cuda.cudaSetDevice, nccl.ncclCommInitRank, card.index);
    let (rank, count) = (world.rank() as c_int, world.count() as c_int);
    let (says, said) = mpsc::channel();
    thread::spawn(move || {
        let mut communicator: Communicator = null_mut();
        // SAFETY: the pointer is to a local, which the second call sets; a thread computes on the card that it chose.
        let codes = unsafe { (choose(index), meet(&raw mut communicator, count, id, rank)) };
        // nobody listens where the wait was given up
        let _ = says.send((codes, communicator as usize));
    });
    let start = Instant::now();
    loop {
        if let Ok(((chosen, met), communicator)) = said.recv_timeout(LOOK) {
            card.calls.cuda(chosen)?;
            card.calls.nccl(met)?;
            return Ok(communicator as Communicator);
        }
        world.check_peers()?;
        if start.elapsed() > limit {
            let cause = format!("NCCL did not bring all ranks together within {} s", limit.as_secs());
            return Err(Error::new(ErrorKind::TimedOut, cause));
        }
    }
}

/// Every rank hears of a rank that has no card, before any waits for it in NCCL.
fn all_have_one(world: &World, card: Result<Card>) -> Result<Card> {
    let says = card.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let said = world.gather(says.as_bytes())?;
    let card = card?;
    match said.iter().enumerate().find(|(_, cause)| !cause.is_empty()) {
        None => Ok(card),
        Some((rank, cause)) => Err(Error::other(format!("rank {rank}: {}", String::from_utf8_lossy(cause)))),
    }
}

impl Cards {
    /// One part of a message, of which either side may be empty.
    fn part(&self, peer: usize, out: &[u8], into: &mut [u8]) -> Result<()> {
        self.card.put(out)?;
        self.transfer(peer, out.len(), into.len())?;
        self.finish(peer)?;
        self.card.take(into)?;
        self.finish(peer)
    }

    fn transfer(&self, peer: usize, sent: usize, received: usize) -> Result<()> {
        let Card {
            calls,
            stream,
            out,
            into,
            ..
        } = &self.card;
        let (nccl, all) = (&calls.nccl, self.communicator.get());
        // SAFETY: both buffers have room for a part, and stay until the stream is idle.
        unsafe {
            calls.nccl((nccl.ncclGroupStart)())?;
            if sent > 0 {
                calls.nccl((nccl.ncclSend)(*out, sent, BYTES, peer as c_int, all, *stream))?;
            }
            if received > 0 {
                calls.nccl((nccl.ncclRecv)(*into, received, BYTES, peer as c_int, all, *stream))?;
            }
            calls.nccl((nccl.ncclGroupEnd)())
        }
    }

    /// Waits until the card has done all; a peer that is gone or late ends that.
    fn finish(&self, peer: usize) -> Result<()> {
        let start = Instant::now();
        while !self.card.is_idle()? {
            let found = self.fault().and_then(|()| self.short.check(peer));
            if let Err(cause) = found {
                return self.abort(cause);
            }
            if start.elapsed() > self.limit {
                let cause = format!("rank {peer} said nothing for {} s", self.limit.as_secs());
                return self.abort(Error::new(ErrorKind::TimedOut, cause));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// What NCCL has found out meanwhile.
    fn fault(&self) -> Result<()> {
        let Calls { nccl, .. } = &self.card.calls;
        let mut found = SUCCESS;
        // SAFETY: the communicator is open; the pointer is to a local, which the call sets.
        let code = unsafe { (nccl.ncclCommGetAsyncError)(self.communicator.get(), &raw mut found) };
        self.card.calls.nccl(code)?;
        match found {
            IN_PROGRESS => Ok(()),
            code => self.card.calls.nccl(code),
        }
    }

    /// Without it the card would wait for ever, and the end of the process for the card.
    fn abort<T>(&self, cause: Error) -> Result<T> {
        // SAFETY: the communicator is open, and not used after this.
        unsafe { (self.card.calls.nccl.ncclCommAbort)(self.communicator.replace(null_mut())) };
        Err(cause)
    }
}

impl Transport for Cards {
    fn swap(&self, peer: usize, out: &[u8], into: &mut [u8]) -> Result<()> {
        if self.communicator.get().is_null() {
            return Err(Error::new(ErrorKind::NotConnected, "the communicator was given up"));
        }
        // each direction by its own length, which both sides know
        let (short_out, long_out) = out.split_at(if out.len() < LONG_BYTES { out.len() } else { 0 });
        let (short_into, long_into) = into.split_at_mut(if into.len() < LONG_BYTES { into.len() } else { 0 });
        self.short.swap(peer, short_out, short_into)?;
        let (mut outs, mut intos) = (long_out.chunks(BUFFER_BYTES), long_into.chunks_mut(BUFFER_BYTES));
        loop {
            let (out, into) = (outs.next(), intos.next());
            if out.is_none() && into.is_none() {
                return Ok(());
            }
            self.part(peer, out.unwrap_or_default(), into.unwrap_or_default())?;
        }
    }

    fn check(&self, peer: usize) -> Result<()> {
        self.short.check(peer)
    }

    fn end(&self) -> Result<()> {
        let Calls { nccl, .. } = &self.card.calls;
        // SAFETY: nothing is under way, and it is not used again.
        let code = unsafe { (nccl.ncclCommDestroy)(self.communicator.replace(null_mut())) };
        self.card.calls.nccl(code)?;
        self.card.end()?;
        self.short.end()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::LazyLock;

    use super::*;
    use crate::libraries::{Cuda, Nccl, first};
    use crate::meeting::tests::{meet, meetings};

    /// What stands in for the libraries of a machine with cards, compiled from `cards.c`.
    static STAND_IN: LazyLock<PathBuf> = LazyLock::new(|| {
        let made = std::env::current_exe().expect("a path").with_extension("cards.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cards.c");
        let mut compiler = Command::new("cc");
        let compiled = compiler
            .args(["-shared", "-fPIC", "-pthread", "-o"])
            .arg(&made)
            .arg(source);
        assert!(compiled.status().expect("a C compiler").success());
        made
    });

    fn card(index: usize) -> Result<Card> {
        let names = [STAND_IN.to_str().expect("a path of text")];
        let calls = Calls {
            nccl: Nccl::open(&names)?,
            cuda: Cuda::open(&names)?,
        };
        Card::new(calls, index)
    }

    fn cards(world: Result<World>, limit: Duration) -> World {
        let world = world.unwrap();
        let card = card(world.rank());
        connected(world, card, limit).unwrap()
    }

    const LIMIT: Duration = Duration::from_secs(20);

    fn message(rank: usize, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + rank * 3 + at / 251) as u8).collect()
    }

    #[test]
    fn messages_of_every_length_cross() {
        let lens = [0, 1, LONG_BYTES - 1, LONG_BYTES, BUFFER_BYTES, 2 * BUFFER_BYTES + 5];
        meet(meetings(2), |world| {
            let world = cards(world, LIMIT);
            let (own, peer) = (world.rank(), 1 - world.rank());
            for (left, right) in lens.iter().flat_map(|&left| lens.map(|right| (left, right))) {
                let (sent, received) = if own == 0 { (left, right) } else { (right, left) };
                let mut into = vec![0; received];
                world.swap(peer, &message(own, sent), &mut into).unwrap();
                assert!(into == message(peer, received), "{sent} there, {received} back");
            }
            world.end().unwrap();
        });
    }

    #[test]
    fn eight_ranks_gather_over_cards() {
        meet(meetings(8), |world| {
            let world = cards(world, LIMIT);
            let all = world.gather(&message(world.rank(), 200_000)).unwrap();
            assert!((0..8).all(|rank| all[rank] == message(rank, 200_000)));
            world.end().unwrap();
        });
    }

    #[test]
    fn a_rank_without_a_card_is_named_by_all() {
        let said = meet(meetings(2), |world| {
            let world = world.unwrap();
            let index = if world.rank() == 1 { 99 } else { 0 };
            connected(world, card(index), LIMIT).err().unwrap().to_string()
        });
        assert_eq!(
            said,
            ["rank 1: CUDA: invalid device ordinal", "CUDA: invalid device ordinal"]
        );
        let cause = first(&["libno-such-thing.so"]).err().unwrap();
        assert!(cause.to_string().contains("libno-such-thing.so"), "{cause}");
    }

    #[test]
    fn a_rank_that_does_not_come_to_the_cards_meeting_ends_the_others() {
        for (stays, expected) in [
            (true, "NCCL did not bring all ranks together"),
            (false, "rank 1 is gone"),
        ] {
            let said = meet(meetings(2), |world| {
                let world = world.unwrap();
                let card = card(0);
                if world.rank() == 0 {
                    let limit = if stays { Duration::from_millis(300) } else { LIMIT };
                    return connected(world, card, limit).err().unwrap().to_string();
                }
                all_have_one(&world, card).unwrap();
                world.share(Vec::new()).unwrap();
                thread::sleep(Duration::from_millis(if stays { 900 } else { 0 }));
                String::new()
            });
            assert!(said[0].starts_with(expected), "{said:?}");
        }
    }

    #[test]
    fn a_rank_that_is_late_or_gone_ends_the_others() {
        for (stays, expected) in [(true, "rank 1 said nothing for 0 s"), (false, "rank 1 is gone")] {
            let said = meet(meetings(2), |world| {
                let limit = if stays { Duration::from_millis(300) } else { LIMIT };
                let world = cards(world, limit);
                if world.rank() == 1 {
                    // what comes before the silence
                    thread::sleep(Duration::from_millis(if stays { 900 } else { 100 }));
                    return String::new();
                }
                let mut into = vec![0; LONG_BYTES];
                let cause = world.swap(1, &[], &mut into).unwrap_err().to_string();
                let again = world.swap(1, &[], &mut into).unwrap_err();
                assert_eq!(again.kind(), ErrorKind::NotConnected);
                cause
            });
            assert!(said[0].starts_with(expected), "{said:?}");
        }
    }
}
