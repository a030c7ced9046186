//! All ranks of a run, as one of them sees them, and what they do together: gather, share, combine.
//!
//! Every rank must ask for the same things in the same order.

use std::cell::Cell;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::time::Instant;

/// How bytes go from rank to rank.
pub trait Transport {
    /// Sends `out` to `peer` and receives exactly `into.len()` bytes from it, both at once.
    fn swap(&self, peer: usize, out: &[u8], into: &mut [u8]) -> Result<()>;

    /// Fails where `peer` is known to be gone.
    fn check(&self, _peer: usize) -> Result<()> {
        Ok(())
    }

    /// Leaves in good order; every rank does it at the end of a run that went well.
    fn end(&self) -> Result<()> {
        Ok(())
    }
}

/// What went over the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Spent in swaps, waiting for peers included.
    pub seconds: f64,
    pub sent_bytes: u64,
}

pub struct World {
    rank: usize,
    count: usize,
    transport: Option<Box<dyn Transport>>,
    traffic: Cell<Traffic>,
}

impl World {
    /// One rank, which needs no transport.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            count: 1,
            transport: None,
            traffic: Cell::default(),
        }
    }

    /// Rank `rank` of `count`, a power of two.
    pub fn new(rank: usize, count: usize, transport: Box<dyn Transport>) -> Self {
        assert!(count.is_power_of_two() && rank < count, "rank {rank} of {count}");
        Self {
            rank,
            count,
            transport: Some(transport),
            traffic: Cell::default(),
        }
    }

    /// The same ranks with another transport, which is made of theirs.
    pub(crate) fn over(self, make: impl FnOnce(Box<dyn Transport>) -> Box<dyn Transport>) -> Self {
        Self {
            transport: self.transport.map(make),
            ..self
        }
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn is_alone(&self) -> bool {
        self.count == 1
    }

    /// Whether this is the rank that writes.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    pub fn traffic(&self) -> Traffic {
        self.traffic.get()
    }

    /// Which of `len` things, dealt in neighbouring parts, are this rank's.
    pub fn own(&self, len: usize) -> Range<usize> {
        let border = |rank: usize| rank * len / self.count;
        border(self.rank)..border(self.rank + 1)
    }

    /// The levels of the tree over ranks.
    pub(crate) fn levels(&self) -> Range<u32> {
        0..self.count.ilog2()
    }

    /// The rank to meet at a level, and whether it lies to the right.
    pub(crate) fn peer(&self, level: u32) -> (usize, bool) {
        let peer = self.rank ^ (1 << level);
        (peer, peer > self.rank)
    }

    pub fn swap(&self, peer: usize, out: &[u8], into: &mut [u8]) -> Result<()> {
        let Some(transport) = &self.transport else {
            return Err(Error::new(ErrorKind::NotConnected, "a world of one has no peers"));
        };
        let start = Instant::now();
        transport.swap(peer, out, into)?;
        let before = self.traffic.get();
        self.traffic.set(Traffic {
            seconds: before.seconds + start.elapsed().as_secs_f64(),
            sent_bytes: before.sent_bytes + out.len() as u64,
        });
        Ok(())
    }

    /// Fails where a peer is known to be gone.
    pub(crate) fn check_peers(&self) -> Result<()> {
        let Some(transport) = &self.transport else {
            return Ok(());
        };
        self.levels().try_for_each(|level| transport.check(self.peer(level).0))
    }

    /// Swaps messages whose lengths the other side does not know.
    fn exchange(&self, peer: usize, out: &[u8]) -> Result<Vec<u8>> {
        let mut len = [0; 8];
        self.swap(peer, &(out.len() as u64).to_le_bytes(), &mut len)?;
        let mut into = vec![0; u64::from_le_bytes(len) as usize];
        self.swap(peer, out, &mut into)?;
        Ok(into)
    }

    /// Every rank's bytes at every rank, in order of ranks.
    pub fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut all = framed(own);
        for level in self.levels() {
            let (peer, is_right) = self.peer(level);
            let other = self.exchange(peer, &all)?;
            all = if is_right { [all, other] } else { [other, all] }.concat();
        }
        unframed(&all)
    }

    /// Every rank's bytes at the first rank, in order of ranks; the others get none.
    pub fn collect(&self, own: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        let mut all = framed(own);
        for level in self.levels() {
            let (peer, is_right) = self.peer(level);
            if !is_right {
                self.exchange(peer, &all)?;
                return Ok(None);
            }
            all.extend(self.exchange(peer, &[])?);
        }
        unframed(&all).map(Some)
    }

    /// The parts of a row that ranks own, put together in order at every rank; `start` says where this rank's lies.
    pub fn gather_row(&self, start: usize, own: &[u8]) -> Result<Vec<u8>> {
        joined(self.gather(&placed(start, own))?)
    }

    /// The same at the first rank; the others get none.
    pub fn collect_row(&self, start: usize, own: &[u8]) -> Result<Option<Vec<u8>>> {
        self.collect(&placed(start, own))?.map(joined).transpose()
    }

    /// The first rank's bytes at every rank; what the others give is left out.
    pub fn share(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        for level in self.levels().rev() {
            let (peer, is_right) = self.peer(level);
            match self.rank % (2 << level) {
                0 => drop(self.exchange(peer, &bytes)?),
                at if at == 1 << level && !is_right => bytes = self.exchange(peer, &[])?,
                _ => {}
            }
        }
        Ok(bytes)
    }

    /// The sum of every rank's value at every rank, added as a tree, nearest neighbours first. `wire` and `unwire` are its way through
    /// the transport.
    pub fn combine<T, E: From<Error>>(
        &self,
        mut sum: T,
        wire: impl Fn(&T) -> std::result::Result<Vec<u8>, E>,
        unwire: impl Fn(&[u8]) -> std::result::Result<T, E>,
        add: impl Fn(T, T) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        for level in self.levels() {
            let (peer, is_right) = self.peer(level);
            let own = wire(&sum)?;
            let other = unwire(&self.exchange(peer, &own)?)?;
            sum = match is_right {
                true => add(sum, other)?,
                false => add(other, sum)?,
            };
        }
        Ok(sum)
    }

    /// Returns once every rank has come here.
    pub fn wait(&self) -> Result<()> {
        self.gather(&[]).map(drop)
    }

    /// Leaves in good order, with all others.
    pub fn end(self) -> Result<()> {
        self.wait()?;
        self.transport.map_or(Ok(()), |transport| transport.end())
    }
}

fn placed(start: usize, bytes: &[u8]) -> Vec<u8> {
    [&(start as u64).to_le_bytes(), bytes].concat()
}

fn joined(parts: Vec<Vec<u8>>) -> Result<Vec<u8>> {
    let split = |part: &Vec<u8>| {
        let (start, bytes) = part.split_first_chunk().ok_or_else(cut)?;
        Ok((u64::from_le_bytes(*start), bytes.to_vec()))
    };
    let mut parts = parts.iter().map(split).collect::<Result<Vec<_>>>()?;
    // one without anything lies before one that starts at the same place
    parts.sort_by_key(|(start, bytes)| (*start, bytes.len()));
    Ok(parts.into_iter().flat_map(|(_, bytes)| bytes).collect())
}

fn cut() -> Error {
    Error::new(ErrorKind::InvalidData, "a message between ranks is cut")
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

fn unframed(mut all: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    while let Some((len, rest)) = all.split_first_chunk() {
        let part = rest.split_at_checked(u64::from_le_bytes(*len) as usize);
        let Some((part, rest)) = part else {
            return Err(cut());
        };
        parts.push(part.to_vec());
        all = rest;
    }
    Ok(parts)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;

    use super::*;

    /// To one peer, and from it.
    struct Line {
        to: Sender<Vec<u8>>,
        from: Receiver<Vec<u8>>,
    }

    /// A rank as a thread of one process, with a line to each peer.
    #[derive(Default)]
    pub struct Threads(BTreeMap<usize, Line>);

    impl Transport for Threads {
        fn swap(&self, peer: usize, out: &[u8], into: &mut [u8]) -> Result<()> {
            let line = &self.0[&peer];
            line.to.send(out.to_vec()).expect("a peer that listens");
            into.copy_from_slice(&line.from.recv().expect("a peer that speaks"));
            Ok(())
        }
    }

    fn threads(count: usize) -> Vec<Threads> {
        let mut all: Vec<Threads> = (0..count).map(|_| Threads::default()).collect();
        for (a, b) in (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))) {
            let ((to_b, from_a), (to_a, from_b)) = (channel(), channel());
            all[a].0.insert(b, Line { to: to_b, from: from_b });
            all[b].0.insert(a, Line { to: to_a, from: from_a });
        }
        all
    }

    /// What `work` gives on each of `count` ranks.
    pub fn on_ranks<R: Send>(count: usize, work: impl Fn(World) -> R + Sync) -> Vec<R> {
        thread::scope(|scope| {
            let start = |(rank, threads)| {
                let work = &work;
                scope.spawn(move || work(World::new(rank, count, Box::new(threads))))
            };
            let running: Vec<_> = threads(count).into_iter().enumerate().map(start).collect();
            running
                .into_iter()
                .map(|thread| thread.join().expect("a rank that ends"))
                .collect()
        })
    }

    #[test]
    fn what_ranks_gather_collect_and_share_is_in_order_of_ranks() {
        for count in [1, 2, 4, 8] {
            let expected: Vec<Vec<u8>> = (0..count).map(|rank| vec![rank as u8; rank]).collect();
            let all = on_ranks(count, |world| {
                let own = vec![world.rank() as u8; world.rank()];
                let shared = world.share(vec![7 + world.rank() as u8]).unwrap();
                assert_eq!(shared, [7]);
                (world.gather(&own).unwrap(), world.collect(&own).unwrap())
            });
            for (rank, (gathered, collected)) in all.into_iter().enumerate() {
                assert_eq!(gathered, expected);
                assert_eq!(collected, (rank == 0).then(|| expected.clone()));
            }
        }
    }

    #[test]
    fn a_combination_is_the_tree_of_all_ranks() {
        let add = |left: String, right: String| Ok::<_, Error>(format!("({left}{right})"));
        let wire = |text: &String| Ok(text.clone().into_bytes());
        let unwire = |bytes: &[u8]| Ok(String::from_utf8(bytes.to_vec()).expect("text"));
        for sum in on_ranks(8, |world| {
            world.combine(world.rank().to_string(), wire, unwire, add).unwrap()
        }) {
            assert_eq!(sum, "(((01)(23))((45)(67)))");
        }
    }

    #[test]
    fn a_row_is_put_together_by_where_its_parts_lie() {
        let parts = [(4, &b"ef"[..]), (0, b""), (0, b"abcd"), (6, b"")];
        let all = on_ranks(4, |world| {
            let (start, own) = parts[world.rank()];
            let collected = world.collect_row(start, own).unwrap();
            assert_eq!(collected.is_some(), world.is_first());
            world.gather_row(start, own).unwrap()
        });
        assert!(all.iter().all(|row| row == b"abcdef"));
    }

    #[test]
    fn things_are_dealt_in_neighbouring_parts() {
        let dealt = on_ranks(4, |world| world.own(10));
        assert_eq!(dealt, [0..2, 2..5, 5..7, 7..10]);
    }
}
