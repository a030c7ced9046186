//! Work on hostile data in a process of its own, within bounds that the system keeps: memory, stack and processor time.
//!
//! The process is a fork of this one that answers requests over a socket pair until its other end closes. It holds no
//! other descriptor, prints nothing and leaves signals of the terminal to this process. A bound it meets ends it and
//! nothing else.
//!
//! Why a fork: an engine that builds values cannot be bounded from within, for a failed allocation aborts; and a second
//! program to start would have to be found at run time, beside every tool and every test. What a fork in a process of many
//! threads may do is little, because a lock that another thread holds stays held for ever. So the child stays on the one
//! thread it has, which was made for it with the stack it needs; it allocates, which the C libraries allow after a fork; it
//! prints nothing; and it starts, joins and locks nothing.

use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::{ptr, thread};

/// BOUND: memory beyond what the process begins with (Linux alone keeps it).
const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// BOUND: stack, whichever thread asks.
const STACK_BYTES: usize = 8 << 20;
/// BOUND: processor time of one answer.
const SECONDS_MAX: libc::time_t = 5;
/// BOUND: bytes of one answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The last byte of an answer.
const GIVEN: u8 = b'.';
const REFUSED: u8 = b'!';

/// The exit status of a process whose program failed or panicked.
const FAILED: libc::c_int = 1;

/// A text, or why there is none.
pub type Answer = Result<String, String>;

/// The confined process, as this one sees it.
pub struct Confined {
    process: libc::pid_t,
    socket: UnixStream,
}

impl Confined {
    /// Runs `program` in a fork of this process.
    pub fn start(program: impl FnOnce(Asker) -> io::Result<()> + Send) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let forked = thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, || fork(theirs, program))?;
            thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        });
        forked.map(|process| Self { process, socket })
    }

    /// Asks for an answer; an error says that there is no process to give one any more.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        send(&mut self.socket, request)?;
        self.answer()
    }

    /// What the process says next.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut bytes = receive(&mut self.socket, ANSWER_BYTES_MAX + 1)?;
        let mark = bytes.pop();
        let text = String::from_utf8(bytes).map_err(io::Error::other)?;
        Ok(if mark == Some(GIVEN) { Ok(text) } else { Err(text) })
    }

    /// Ends the process, and says which bound it had met.
    pub fn epitaph(mut self) -> String {
        let status = self.end();
        match (
            libc::WIFEXITED(status),
            libc::WEXITSTATUS(status),
            libc::WTERMSIG(status),
        ) {
            (true, FAILED, _) => "fails in its engine".into(),
            // an allocation that fails aborts, or ends the process as the tool's allocator does it
            (true, ..) | (_, _, libc::SIGABRT) => {
                format!("takes more than {} MiB of memory", MEMORY_BYTES_MAX >> 20)
            }
            (_, _, libc::SIGPROF) => format!("takes more than {SECONDS_MAX} s of processor time"),
            (_, _, libc::SIGSEGV | libc::SIGBUS) => {
                format!("nests values beyond a stack of {} MiB", STACK_BYTES >> 20)
            }
            (_, _, signal) => format!("was ended by signal {signal}"),
        }
    }

    /// Ends and reaps the process; its status, which is that of an earlier death if there was one.
    fn end(&mut self) -> libc::c_int {
        let mut status = 0;
        if self.process == 0 {
            return status;
        }
        // SAFETY: the process is our child and not reaped before, so its id is still its own.
        unsafe {
            libc::kill(self.process, libc::SIGKILL);
            while libc::waitpid(self.process, &mut status, 0) == -1
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
        self.process = 0;
        status
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        self.end();
    }
}

/// The asking process, as the confined one sees it.
pub struct Asker(UnixStream);

impl Asker {
    /// The next request; none once the asker is gone.
    pub fn request(&mut self) -> Option<Vec<u8>> {
        let request = receive(&mut self.0, usize::MAX).ok()?;
        start_clock();
        Some(request)
    }

    pub fn answer(&mut self, answer: Answer) -> io::Result<()> {
        let (mut text, mark) = match answer {
            Ok(text) => (text, GIVEN),
            Err(text) => (text, REFUSED),
        };
        if text.len() > ANSWER_BYTES_MAX {
            return self.answer(Err(format!("gives more than {} MiB", ANSWER_BYTES_MAX >> 20)));
        }
        text.push(char::from(mark));
        send(&mut self.0, text.as_bytes())
    }
}

/// The child goes on with the thread that calls, and never returns.
fn fork(socket: UnixStream, program: impl FnOnce(Asker) -> io::Result<()>) -> io::Result<libc::pid_t> {
    hold_signals();
    let forked = foreign::guarded(|| {
        // SAFETY: the child keeps to what the top of this file allows it.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => live(socket, program),
            process => Ok(process),
        }
    });
    match forked {
        Some(process) => process,
        // SAFETY: only the child can panic, and nothing of it is worth a destructor.
        None => unsafe { libc::_exit(FAILED) },
    }
}

/// The life of the confined process.
fn live(socket: UnixStream, program: impl FnOnce(Asker) -> io::Result<()>) -> ! {
    confine();
    let socket = keep_only(socket);
    bound_memory();
    start_clock();
    let status = program(Asker(socket)).map_or(FAILED, |()| 0);
    // SAFETY: nothing of this process is worth a destructor.
    unsafe { libc::_exit(status) }
}

/// Closes every descriptor but the socket, which becomes the first after the standard ones.
fn keep_only(socket: UnixStream) -> UnixStream {
    const KEPT: libc::c_int = 3;
    // SAFETY: no other code of this process uses a descriptor; from here on KEPT is the socket's alone.
    unsafe {
        libc::dup2(socket.into_raw_fd(), KEPT);
        let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for standard in 0..KEPT {
            libc::dup2(nowhere, standard);
        }
        #[cfg(target_os = "linux")]
        let closed = libc::syscall(libc::SYS_close_range, KEPT + 1, libc::c_int::MAX, 0) == 0;
        #[cfg(not(target_os = "linux"))]
        let closed = false;
        if !closed {
            for descriptor in KEPT + 1..libc::sysconf(libc::_SC_OPEN_MAX) as libc::c_int {
                libc::close(descriptor);
            }
        }
        UnixStream::from_raw_fd(KEPT)
    }
}

/// No handler of ours may run in the child: what it would wake is the asking process.
fn hold_signals() {
    // SAFETY: plain calls that concern this thread alone, which ends after the fork.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, ptr::null_mut());
    }
}

/// Leaves the terminal's signals to the asker, dies plainly of the bounds' own, and without a core.
fn confine() {
    // SAFETY: plain calls on our own process, whose only thread this is.
    unsafe {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_IGN);
        }
        for signal in [libc::SIGPROF, libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS] {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        let no_core = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
    }
}

#[cfg(target_os = "linux")]
fn bound_memory() {
    // SAFETY: plain calls on our own process; `limit` is filled by getrlimit.
    unsafe {
        // `keep_freed_buffers` asks for far more than is needed, and would meet the bound at once
        #[cfg(target_env = "gnu")]
        {
            libc::mallopt(libc::M_MMAP_MAX, 65_536);
            libc::mallopt(libc::M_TOP_PAD, 128 << 10);
        }
        let page = libc::sysconf(libc::_SC_PAGESIZE) as u64;
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_AS, &mut limit);
        limit.rlim_cur = limit.rlim_max.min(limit.rlim_cur).min(pages * page + MEMORY_BYTES_MAX);
        libc::setrlimit(libc::RLIMIT_AS, &limit);
    }
}

/// Elsewhere the address space cannot be limited; steps and answers are.
#[cfg(not(target_os = "linux"))]
fn bound_memory() {}

/// The process ends by SIGPROF after `SECONDS_MAX` of processor time from now on.
fn start_clock() {
    let zero = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let end = libc::timeval {
        tv_sec: SECONDS_MAX,
        ..zero
    };
    let timer = libc::itimerval {
        it_interval: zero,
        it_value: end,
    };
    // SAFETY: the timer lives through the call.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, ptr::null_mut()) };
}

fn send(socket: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    // one write wakes the other process once
    socket.write_all(&[&(bytes.len() as u64).to_le_bytes(), bytes].concat())
}

fn receive(socket: &mut UnixStream, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    socket.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > bytes_max as u64 {
        return Err(io::Error::other("a message is larger than agreed"));
    }
    let mut bytes = Vec::new();
    socket.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
