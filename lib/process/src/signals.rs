//! Signals: a long run that is told to stop leaves the file system in order and dies of the signal it got.
//!
//! A handler may do almost nothing, so it only notes the signal and wakes a thread. The thread gives a run that
//! asked for grace (`Grace`) time to stop by itself; otherwise it removes what must not stay behind and re-raises.
//! A second signal kills at once.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::{Error, Result};

const GRACE: Duration = Duration::from_secs(20);

static RECEIVED: AtomicI32 = AtomicI32::new(0);
static WAKE: AtomicI32 = AtomicI32::new(-1);
static GRACEFUL: AtomicUsize = AtomicUsize::new(0);
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

extern "C" fn note(signal: libc::c_int) {
    if RECEIVED.swap(signal, Ordering::SeqCst) != 0 {
        die_of(signal);
    }
    let wake = WAKE.load(Ordering::SeqCst);
    if wake >= 0 {
        // SAFETY: write is async-signal-safe; the descriptor stays open for the life of the process.
        unsafe { libc::write(wake, [1u8].as_ptr().cast(), 1) };
    } else {
        die_of(signal);
    }
}

/// Ends the process as the signal's default action would, so that the caller sees 128+N.
pub(crate) fn die_of(signal: i32) -> ! {
    // SAFETY: async-signal-safe calls only; the mask is a local that sigemptyset initialises.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        libc::sigaddset(&mut mask, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &mask, std::ptr::null_mut());
        libc::raise(signal);
        libc::_exit(128 + signal)
    }
}

/// Installs the handlers. Called once, first thing in `main`.
pub(crate) fn install() {
    if let Ok((mut reader, writer)) = io::pipe() {
        let thread = thread::Builder::new().name("signals".into()).spawn(move || {
            let mut byte = [0u8];
            if reader.read_exact(&mut byte).is_ok() {
                stop(RECEIVED.load(Ordering::SeqCst));
            }
        });
        // Without a thread (a process limit, say) the default action still holds: see `note`.
        if thread.is_ok() {
            // From here on the descriptor is the handler's, for the life of the process.
            WAKE.store(writer.into_raw_fd(), Ordering::SeqCst);
        }
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: `note` is async-signal-safe. A signal that the parent ignores (nohup) stays ignored.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut previous: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut previous);
            if previous.sa_sigaction == libc::SIG_IGN {
                continue;
            }
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
    // A file-size limit is an error of write (EFBIG), not a death.
    // SAFETY: setting a signal to ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

fn stop(signal: i32) {
    let deadline = Instant::now() + GRACE;
    while GRACEFUL.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    // Held until death: no partial file is created or renamed while they are being removed.
    let unfinished = lock_unfinished();
    for path in unfinished.iter() {
        let _ = fs::remove_file(path);
    }
    let _ = writeln!(io::stderr());
    die_of(signal);
}

fn lock_unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `change` while no signal can remove files, then notes `path` as one to remove if a signal comes.
pub(crate) fn guard<T>(path: &Path, change: impl FnOnce(&mut Vec<PathBuf>, &Path) -> T) -> T {
    let mut unfinished = lock_unfinished();
    change(&mut unfinished, path)
}

/// The signal that asked this process to stop, if any. Long loops with a `Grace` poll it between units.
pub fn received() -> Option<i32> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(signal),
    }
}

/// An error once a signal has asked this process to stop.
pub fn check() -> Result<()> {
    match received() {
        None => Ok(()),
        Some(signal) => Err(Error::interrupted(signal)),
    }
}

/// While it lives, the run promises to poll `check` and stop in order by itself within seconds.
pub struct Grace(());

impl Grace {
    pub fn begin() -> Grace {
        GRACEFUL.fetch_add(1, Ordering::SeqCst);
        Grace(())
    }
}

impl Drop for Grace {
    fn drop(&mut self) {
        GRACEFUL.fetch_sub(1, Ordering::SeqCst);
    }
}
