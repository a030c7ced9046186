//! Ranks over TCP, once they have met: one connection to each peer, and a limit to every wait.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::Transport;

/// What a connection takes up without the other side reading.
const SMALL_BYTES: usize = 8 << 10;

/// A rank's connections to its peers.
pub struct Tcp {
    peers: BTreeMap<usize, TcpStream>,
    limit: Duration,
}

impl Tcp {
    /// Over connections whose own limits are those.
    pub(crate) fn new(peers: BTreeMap<usize, TcpStream>, limit: Duration) -> Tcp {
        Tcp { peers, limit }
    }

    fn peer(&self, peer: usize) -> Result<&TcpStream> {
        let stream = self.peers.get(&peer);
        stream.ok_or_else(|| Error::new(ErrorKind::NotConnected, format!("rank {peer} is no peer")))
    }
}

impl Transport for Tcp {
    fn swap(&self, peer: usize, out: &[u8], into: &mut [u8]) -> Result<()> {
        let mut stream = self.peer(peer)?;
        let swapped = match out.len() <= SMALL_BYTES {
            true => stream.write_all(out).and_then(|()| stream.read_exact(into)),
            // both sides send much: each must read while it writes
            false => thread::scope(|scope| {
                let sending = thread::Builder::new().spawn_scoped(scope, move || (&mut &*stream).write_all(out))?;
                let received = stream.read_exact(into);
                let sent = sending.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()));
                received.and(sent)
            }),
        };
        swapped.map_err(|cause| match is_limit(&cause) {
            true => {
                let cause = format!("rank {peer} said nothing for {} s", self.limit.as_secs());
                Error::new(ErrorKind::TimedOut, cause)
            }
            false => lost(peer, &cause),
        })
    }

    fn check(&self, peer: usize) -> Result<()> {
        let stream = self.peer(peer)?;
        stream.set_nonblocking(true)?;
        let found = stream.peek(&mut [0]);
        stream.set_nonblocking(false)?;
        match found {
            Ok(0) => Err(lost(peer, &ErrorKind::UnexpectedEof.into())),
            Err(cause) if !is_limit(&cause) => Err(lost(peer, &cause)),
            _ => Ok(()),
        }
    }
}

/// What a time limit of a socket is reported as.
pub(crate) fn is_limit(cause: &Error) -> bool {
    matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

pub(crate) fn lost(rank: usize, cause: &Error) -> Error {
    let cause = match cause.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => "it closed the connection".into(),
        _ => plain(cause),
    };
    Error::new(ErrorKind::ConnectionAborted, format!("rank {rank} is gone: {cause}"))
}

/// Without the number of an operating system's error.
pub(crate) fn plain(cause: &Error) -> String {
    let text = cause.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}
