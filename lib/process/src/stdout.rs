//! Standard output that is never silently lost: every write and the final flush are checked.
//!
//! Rust's own `Stdout` swallows a closed descriptor and flushes at exit without a check; `println!` panics on a full
//! disk. Here a closed pipe ends the process as SIGPIPE would and a full disk is exit code 4.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd};

use crate::exit::{Result, ResultExt};

const BUFFER_BYTES: usize = 64 << 10;

/// Buffered standard output; `finish` must be called.
pub struct Stdout {
    file: ManuallyDrop<File>,
    buffer: Vec<u8>,
    terminal: bool,
    /// Once the reader is gone: keep working, write nothing more.
    tolerant: bool,
    gone: bool,
}

/// Opens standard output.
pub fn stdout() -> Stdout {
    // SAFETY: descriptor 1 is open for the life of the process (the runtime opens closed standard descriptors on
    // /dev/null at start), and ManuallyDrop keeps this File from closing it.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDOUT_FILENO) });
    let terminal = file.is_terminal();
    Stdout {
        file,
        buffer: Vec::with_capacity(BUFFER_BYTES),
        terminal,
        tolerant: false,
        gone: false,
    }
}

impl Stdout {
    /// For the records of a tool that was given `-o FILE`: losing the reader stops the records, not the work.
    pub fn tolerant(mut self) -> Self {
        self.tolerant = true;
        self
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Delivers everything and asks the kernel whether it was accepted.
    pub fn finish(mut self) -> Result<()> {
        self.flush().at("stdout")?;
        if self.gone {
            return Ok(());
        }
        // A network file system may report a failed write only at close: close a duplicate and look.
        // SAFETY: plain system calls on a descriptor that is open.
        let closed = unsafe {
            let copy = libc::dup(self.file.as_raw_fd());
            if copy < 0 { 0 } else { libc::close(copy) }
        };
        if closed != 0 {
            return Err(io::Error::last_os_error()).at("stdout");
        }
        Ok(())
    }

    fn drain(&mut self) -> io::Result<()> {
        if self.gone {
            self.buffer.clear();
            return Ok(());
        }
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        match written {
            Err(error) if self.tolerant && error.raw_os_error() == Some(libc::EPIPE) => {
                self.gone = true;
                Ok(())
            }
            other => other,
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.drain()?;
        }
        if bytes.len() >= BUFFER_BYTES && !self.gone {
            match self.file.write_all(bytes) {
                Err(error) if self.tolerant && error.raw_os_error() == Some(libc::EPIPE) => self.gone = true,
                other => other?,
            }
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        if self.terminal && bytes.contains(&b'\n') {
            self.drain()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.drain()
    }
}
