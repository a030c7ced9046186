//! How two ranks make sure of each other before anything else is said: both prove that they know the secret of the run.
//!
//! ```text
//! accepts -> connects   MAGIC, nonce (32)
//! connects -> accepts   MAGIC, nonce (32), rank (4), ranks (4), port where it listens itself (2), proof (32)
//! accepts -> connects   proof (32), length (4) and text of a refusal; no text is a welcome
//! ```
//! A proof is a keyed hash over both nonces and what the second line says, so none can be used again. What follows is not encrypted.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};

/// Changes with what ranks say to each other.
const MAGIC: &[u8; 16] = b"flowlens-ranks-1";
const REFUSAL_BYTES_MAX: u32 = 4096;

type Nonce = [u8; 32];
type Proof = [u8; 32];

/// What the ranks of one run have in common and nobody else.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    pub fn new(text: &str) -> Self {
        Self(blake3::derive_key("flowlens ranks of one run", text.as_bytes()))
    }

    fn proof(&self, role: &str, ours: &Nonce, theirs: &Nonce, hello: Hello) -> Proof {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in [role.as_bytes(), ours, theirs, &hello.bytes()] {
            hasher.update(part);
        }
        hasher.finalize().into()
    }
}

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hello {
    pub rank: u32,
    pub count: u32,
    /// Where it listens itself.
    pub port: u16,
}

impl Hello {
    const BYTES: usize = 10;

    fn bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.rank.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..].copy_from_slice(&self.port.to_le_bytes());
        bytes
    }

    fn read(from: &mut impl Read) -> Result<Self> {
        let (rank, count, port) = (array(from)?, array(from)?, array(from)?);
        Ok(Self {
            rank: u32::from_le_bytes(rank),
            count: u32::from_le_bytes(count),
            port: u16::from_le_bytes(port),
        })
    }
}

fn array<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn nonce() -> Result<Nonce> {
    array(&mut File::open("/dev/urandom")?)
}

fn invalid(cause: &str) -> Error {
    Error::new(ErrorKind::InvalidData, cause)
}

fn expect_magic(from: &mut impl Read) -> Result<()> {
    match array(from)? {
        magic if magic == *MAGIC => Ok(()),
        _ => Err(invalid("speaks something else")),
    }
}

/// Hashes compare in constant time in `blake3`.
fn expect_proof(found: Proof, expected: Proof) -> Result<()> {
    match blake3::Hash::from(found) == blake3::Hash::from(expected) {
        true => Ok(()),
        false => Err(invalid("knows another secret")),
    }
}

/// The side that listens; `refusal` says why this rank does not belong here. Returns who it is, and whether it was refused.
pub fn accept(
    stream: &mut (impl Read + Write),
    secret: &Secret,
    refusal: impl FnOnce(Hello) -> Option<String>,
) -> Result<(Hello, Option<String>)> {
    let own = nonce()?;
    stream.write_all(&[&MAGIC[..], &own].concat())?;
    expect_magic(stream)?;
    let theirs = array(stream)?;
    let hello = Hello::read(stream)?;
    expect_proof(array(stream)?, secret.proof("connects", &own, &theirs, hello))?;
    let proof = secret.proof("accepts", &own, &theirs, hello);
    let refused = refusal(hello);
    let text = refused.as_deref().unwrap_or_default();
    stream.write_all(&[&proof[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat())?;
    Ok((hello, refused))
}

/// The side that connects.
pub fn connect(stream: &mut (impl Read + Write), secret: &Secret, hello: Hello) -> Result<()> {
    expect_magic(stream)?;
    let theirs: Nonce = array(stream)?;
    let own = nonce()?;
    let proof = secret.proof("connects", &theirs, &own, hello);
    stream.write_all(&[&MAGIC[..], &own, &hello.bytes(), &proof].concat())?;
    let answer = array(stream).map_err(|_| invalid("hung up: does it know another secret?"))?;
    expect_proof(answer, secret.proof("accepts", &theirs, &own, hello))?;
    let len = u32::from_le_bytes(array(stream)?).min(REFUSAL_BYTES_MAX);
    let mut text = vec![0; len as usize];
    stream.read_exact(&mut text)?;
    match text.is_empty() {
        true => Ok(()),
        false => Err(invalid(&String::from_utf8_lossy(&text))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    const HELLO: Hello = Hello {
        rank: 1,
        count: 2,
        port: 99,
    };

    /// What both sides find when they know these secrets.
    fn greet(
        accepting: &str,
        connecting: &str,
        refusal: Option<&str>,
    ) -> (Result<(Hello, Option<String>)>, Result<()>) {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let (refusal, secret) = (refusal.map(String::from), Secret::new(accepting));
        let accepts = thread::spawn(move || accept(&mut a, &secret, |_| refusal));
        let connected = connect(&mut b, &Secret::new(connecting), HELLO);
        drop(b);
        (accepts.join().unwrap(), connected)
    }

    #[test]
    fn those_who_know_the_secret_meet_and_others_do_not() {
        let (accepted, connected) = greet("a", "a", None);
        assert_eq!(accepted.unwrap(), (HELLO, None));
        connected.unwrap();
        let (accepted, connected) = greet("a", "b", None);
        assert!(accepted.unwrap_err().to_string().contains("another secret"));
        assert!(connected.unwrap_err().to_string().contains("another secret"));
    }

    #[test]
    fn a_refusal_is_heard() {
        let (_, connected) = greet("a", "a", Some("rank 1 is here already"));
        assert_eq!(connected.unwrap_err().to_string(), "rank 1 is here already");
    }

    #[test]
    fn a_stranger_is_told_nothing_but_a_number_that_was_drawn_for_it() {
        for line in [&b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"[..], b"flowlens-ranks-1", b""] {
            let (mut a, mut b) = UnixStream::pair().unwrap();
            b.write_all(line).unwrap();
            b.shutdown(std::net::Shutdown::Write).unwrap();
            accept(&mut a, &Secret::new("a"), |_| None).unwrap_err();
            b.read_exact(&mut [0; MAGIC.len() + 32]).unwrap();
            drop(a);
            assert!(b.read(&mut [0; 1]).map_or(true, |count| count == 0), "and nothing more");
        }
    }
}
