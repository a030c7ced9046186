//! How ranks meet: at the first rank's address they learn where the others listen, and then hold one connection to each peer.
//!
//! The first rank listens at the address that the run names and nowhere else; every other rank at the address from which it reaches the first
//! one. Whoever does not prove the secret is hung up on. Every wait has a limit.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::World;
use crate::greeting::{self, Hello, Secret};
use crate::tcp::{Tcp, is_limit, lost, plain};

/// How long whoever connects may take to say who it is.
const GREETING: Duration = Duration::from_secs(5);
/// Between two looks at what has happened.
const PAUSE: Duration = Duration::from_millis(10);
/// Where and how the ranks of a run meet.
pub struct Meeting {
    pub rank: usize,
    pub count: usize,
    /// Where the first rank listens.
    pub host: String,
    pub port: u16,
    pub secret: String,
    /// How long a rank waits for another, at the meeting and later.
    pub limit: Duration,
}

impl Meeting {
    /// Meets all other ranks. `doubt` hears of strangers.
    pub fn world(&self, doubt: impl Fn(&str)) -> Result<World> {
        if self.count == 1 {
            return Ok(World::alone());
        }
        let place = Place {
            meeting: self,
            secret: Secret::new(&self.secret),
            deadline: Instant::now() + self.limit,
        };
        let peers = match self.rank {
            0 => place.first(&doubt)?,
            _ => place.other(&doubt)?,
        };
        for stream in peers.values() {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.limit))?;
            stream.set_write_timeout(Some(self.limit))?;
        }
        let limit = self.limit;
        Ok(World::new(self.rank, self.count, Box::new(Tcp::new(peers, limit))))
    }

    fn peers(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.count.ilog2()).map(move |level| rank ^ (1 << level))
    }

    fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A meeting that is going on.
struct Place<'a> {
    meeting: &'a Meeting,
    secret: Secret,
    deadline: Instant,
}

impl Place<'_> {
    /// The first rank: waits for all, and tells each where the others listen.
    fn first(&self, doubt: &impl Fn(&str)) -> Result<BTreeMap<usize, TcpStream>> {
        let Meeting { host, port, count, .. } = self.meeting;
        let listener = TcpListener::bind((host.as_str(), *port)).map_err(|cause| self.says(cause))?;
        let others = (1..*count).collect();
        let came = self.admit(&listener, others, doubt)?;
        let lines = came.values().map(|came| format!("{}\n", came.listens));
        let table: String = lines.collect();
        for (rank, came) in &came {
            let sent = (&came.stream).write_all(&[&(table.len() as u32).to_le_bytes(), table.as_bytes()].concat());
            sent.map_err(|cause| lost(*rank, &cause))?;
        }
        let peers: Vec<usize> = self.meeting.peers().collect();
        let kept = came.into_iter().filter(|(rank, _)| peers.contains(rank));
        Ok(kept.map(|(rank, came)| (rank, came.stream)).collect())
    }

    /// Any other rank: reports to the first, connects to peers before it and waits for those after it.
    fn other(&self, doubt: &impl Fn(&str)) -> Result<BTreeMap<usize, TcpStream>> {
        let mut first = self.reach_first()?;
        let listener = TcpListener::bind((first.local_addr()?.ip(), 0))?;
        let port = listener.local_addr()?.port();
        self.greet(&mut first, port).map_err(|cause| self.says(cause))?;
        let table = self.table(&mut first)?;
        let mut peers = BTreeMap::new();
        let (before, after): (Vec<usize>, Vec<usize>) =
            self.meeting.peers().partition(|&peer| peer < self.meeting.rank);
        for peer in before.into_iter().filter(|&peer| peer != 0) {
            let connect = || {
                let mut stream = TcpStream::connect_timeout(&table[peer - 1], self.left()?)?;
                self.greet(&mut stream, port)?;
                Ok(stream)
            };
            peers.insert(peer, connect().map_err(|cause| lost(peer, &cause))?);
        }
        let came = self.admit(&listener, after, doubt)?;
        peers.extend(came.into_iter().map(|(rank, came)| (rank, came.stream)));
        if self.meeting.peers().any(|peer| peer == 0) {
            peers.insert(0, first);
        }
        Ok(peers)
    }

    /// Connects to the first rank, as soon as it listens.
    fn reach_first(&self) -> Result<TcpStream> {
        let Meeting { host, port, .. } = self.meeting;
        loop {
            let attempt = (host.as_str(), *port).to_socket_addrs().and_then(|mut addresses| {
                let address = addresses.next().ok_or_else(|| Error::from(ErrorKind::NotFound))?;
                TcpStream::connect_timeout(&address, self.left()?)
            });
            match attempt {
                Ok(stream) => return Ok(stream),
                Err(cause) if self.left().is_err() => {
                    let cause = format!(
                        "the first rank was not there within {} s: {cause}",
                        self.meeting.limit.as_secs()
                    );
                    return Err(self.says(Error::new(ErrorKind::TimedOut, cause)));
                }
                Err(_) => thread::sleep(5 * PAUSE),
            }
        }
    }

    /// Says who this rank is.
    fn greet(&self, stream: &mut TcpStream, port: u16) -> Result<()> {
        stream.set_read_timeout(Some(self.left()?))?;
        let Meeting { rank, count, .. } = *self.meeting;
        let hello = Hello {
            rank: rank as u32,
            count: count as u32,
            port,
        };
        greeting::connect(stream, &self.secret, hello)
    }

    /// Where ranks 1, 2, … listen; it comes once all have met.
    fn table(&self, first: &mut TcpStream) -> Result<Vec<SocketAddr>> {
        let mut read = || -> Result<String> {
            let mut len = [0; 4];
            first.set_read_timeout(Some(self.left()?))?;
            first.read_exact(&mut len)?;
            let mut text = String::new();
            first
                .take(u64::from(u32::from_le_bytes(len)))
                .read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|cause| match is_limit(&cause) {
            true => self.missing("others"),
            false => lost(0, &cause),
        })?;
        let table: Vec<SocketAddr> = text.lines().filter_map(|line| line.parse().ok()).collect();
        match table.len() + 1 == self.meeting.count {
            true => Ok(table),
            false => Err(Error::new(
                ErrorKind::InvalidData,
                "the first rank's list of ranks is cut",
            )),
        }
    }

    /// Waits until each of `wanted` has come.
    fn admit(
        &self,
        listener: &TcpListener,
        mut wanted: Vec<usize>,
        doubt: &impl Fn(&str),
    ) -> Result<BTreeMap<usize, Came>> {
        listener.set_nonblocking(true)?;
        let (sender, receiver) = mpsc::channel();
        let mut came = BTreeMap::new();
        while !wanted.is_empty() {
            if self.left().is_err() {
                let names: Vec<String> = wanted.iter().map(usize::to_string).collect();
                return Err(self.missing(&names.join(", ")));
            }
            match listener.accept() {
                Ok((stream, from)) => self.hear(stream, from, &wanted, sender.clone()),
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(cause) => return Err(self.says(cause)),
            }
            self.sort(&receiver, &mut wanted, &mut came, doubt)?;
        }
        Ok(came)
    }

    /// Greets whoever connects, beside all others: one that says nothing keeps nobody waiting.
    fn hear(
        &self,
        mut stream: TcpStream,
        from: SocketAddr,
        wanted: &[usize],
        sender: Sender<(SocketAddr, Result<Heard>)>,
    ) {
        let (secret, count, wanted) = (self.secret.clone(), self.meeting.count, wanted.to_vec());
        thread::spawn(move || {
            let refusal = |hello: Hello| match hello {
                _ if hello.count as usize != count => Some(format!(
                    "rank {} belongs to a run of {} ranks, this one has {count}",
                    hello.rank, hello.count
                )),
                _ if !wanted.contains(&(hello.rank as usize)) => Some(format!("a second rank {} came", hello.rank)),
                _ => None,
            };
            let mut greet = || {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(GREETING))?;
                stream.set_write_timeout(Some(GREETING))?;
                greeting::accept(&mut stream, &secret, refusal)
            };
            let heard = greet().map(|(hello, refusal)| Heard {
                hello,
                refusal,
                stream,
                ip: from.ip(),
            });
            // nobody listens any more once all have come
            let _ = sender.send((from, heard));
        });
    }

    /// Looks at who was heard: a rank that is wanted, one that shows the run to be set up wrongly, or a stranger.
    fn sort(
        &self,
        receiver: &Receiver<(SocketAddr, Result<Heard>)>,
        wanted: &mut Vec<usize>,
        came: &mut BTreeMap<usize, Came>,
        doubt: &impl Fn(&str),
    ) -> Result<()> {
        for (from, heard) in receiver.try_iter() {
            let heard = match heard {
                Ok(heard) => heard,
                Err(cause) => {
                    doubt(&format!(
                        "{}: {from} is no rank of this run and was hung up on: {cause}",
                        self.meeting.name()
                    ));
                    continue;
                }
            };
            let rank = heard.hello.rank as usize;
            if let Some(refusal) = heard.refusal {
                return Err(self.says(Error::new(ErrorKind::AddrInUse, refusal)));
            }
            wanted.retain(|&other| other != rank);
            let listens = SocketAddr::new(heard.ip, heard.hello.port);
            let stream = heard.stream;
            if came.insert(rank, Came { stream, listens }).is_some() {
                let cause = format!("a second rank {rank} came");
                return Err(self.says(Error::new(ErrorKind::AddrInUse, cause)));
            }
        }
        Ok(())
    }

    /// Time until the limit.
    fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }

    fn says(&self, cause: Error) -> Error {
        Error::new(cause.kind(), format!("{}: {}", self.meeting.name(), plain(&cause)))
    }

    fn missing(&self, who: &str) -> Error {
        let seconds = self.meeting.limit.as_secs();
        let cause = format!(
            "not all {} ranks came within {seconds} s: {who} missing",
            self.meeting.count
        );
        self.says(Error::new(ErrorKind::TimedOut, cause))
    }
}

/// Who greeted properly.
struct Heard {
    hello: Hello,
    refusal: Option<String>,
    stream: TcpStream,
    ip: IpAddr,
}

/// A rank that came, and where it listens.
struct Came {
    stream: TcpStream,
    listens: SocketAddr,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn meeting(rank: usize, count: usize, port: u16) -> Meeting {
        Meeting {
            rank,
            count,
            host: "127.0.0.1".into(),
            port,
            secret: "of the test".into(),
            limit: Duration::from_secs(20),
        }
    }

    /// A port that is free now.
    fn port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    }

    fn quiet(_: &str) {}

    /// Of all ranks of a run.
    pub fn meetings(count: usize) -> Vec<Meeting> {
        let port = port();
        (0..count).map(|rank| meeting(rank, count, port)).collect()
    }

    /// What `work` gives on each of the meetings' ranks.
    pub fn meet<R: Send>(meetings: Vec<Meeting>, work: impl Fn(Result<World>) -> R + Sync) -> Vec<R> {
        thread::scope(|scope| {
            let work = &work;
            let start = |meeting: Meeting| scope.spawn(move || work(meeting.world(quiet)));
            let running: Vec<_> = meetings.into_iter().map(start).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn text(result: Result<World>) -> String {
        result.err().map_or("met".into(), |cause| cause.to_string())
    }

    #[test]
    fn eight_ranks_meet_and_large_messages_cross() {
        let sizes = meet(meetings(8), |world| {
            let world = world.unwrap();
            let own = vec![world.rank() as u8; 3_000_000];
            let all = world.gather(&own).unwrap();
            assert!(all.iter().enumerate().all(|(rank, part)| part[2_999_999] == rank as u8));
            world.end().unwrap();
            all.len()
        });
        assert_eq!(sizes, [8; 8]);
    }

    #[test]
    fn strangers_keep_nobody_waiting() {
        let port = port();
        let silent = thread::spawn(move || {
            let mut held = Vec::new();
            while held.len() < 3 {
                held.extend(TcpStream::connect(("127.0.0.1", port)));
                thread::sleep(PAUSE);
            }
            held[0].write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            held
        });
        let first = thread::spawn(move || meeting(0, 2, port).world(quiet).map(|world| world.count()));
        let held = silent.join().unwrap();
        let started = Instant::now();
        meeting(1, 2, port).world(quiet).unwrap();
        assert_eq!(first.join().unwrap().unwrap(), 2);
        assert!(started.elapsed() < GREETING, "{:?}", started.elapsed());
        drop(held);
    }

    #[test]
    fn ranks_of_another_world_another_secret_or_twice_the_same_are_refused() {
        let other_count = port();
        let said = meet(vec![meeting(0, 2, other_count), meeting(1, 4, other_count)], text);
        assert!(
            said.iter()
                .all(|said| said.contains("a run of 4 ranks, this one has 2")),
            "{said:?}"
        );

        let twice = port();
        let ranks = [0, 1, 1].map(|rank| meeting(rank, 4, twice));
        let said = meet(ranks.into(), text);
        assert!(said[0].contains("a second rank 1"), "{said:?}");

        let mut pair = meetings(2);
        pair[0].limit = Duration::from_secs(1);
        pair[1].secret = "another".into();
        let said = meet(pair, text);
        assert!(
            said[0].contains("not all 2 ranks came within 1 s: 1 missing"),
            "{said:?}"
        );
        assert!(said[1].contains("secret"), "{said:?}");
    }

    #[test]
    fn nobody_there_and_a_port_in_use_are_errors_of_the_operating_system() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let cause = meeting(0, 2, port).world(quiet).err().unwrap();
        assert_eq!(cause.kind(), ErrorKind::AddrInUse);
        let mut late = meeting(1, 2, self::port());
        late.limit = Duration::from_millis(300);
        let cause = late.world(quiet).err().unwrap();
        assert_eq!(cause.kind(), ErrorKind::TimedOut);
        assert!(cause.to_string().contains("the first rank was not there"), "{cause}");
    }

    #[test]
    fn a_rank_that_is_gone_or_silent_is_named() {
        let mut pair = meetings(2);
        pair[0].limit = Duration::from_secs(1);
        let said = meet(pair, |world| {
            let world = world.unwrap();
            if world.rank() == 1 {
                thread::sleep(Duration::from_millis(1500));
                return String::new();
            }
            world.wait().unwrap_err().to_string()
        });
        assert_eq!(said[0], "rank 1 said nothing for 1 s");
        let said = meet(meetings(2), |world| {
            let world = world.unwrap();
            match world.rank() {
                1 => String::new(),
                _ => world.wait().unwrap_err().to_string(),
            }
        });
        assert!(said[0].starts_with("rank 1 is gone"), "{said:?}");
    }
}
