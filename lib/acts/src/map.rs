//! Bytes of a file by offset: mapped, or with pread, or already in memory. Owns the one piece of unsafe code of this crate: a file that
//! another process truncates while it is mapped raises SIGBUS at the next touch, which would end the process without a word. Here the
//! handler puts a page of zeros under the touched address and marks the map; the read that touched it then fails with an error.

use crate::error::resize;
use crate::frame::{narrow, wide};
use crate::{Error, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub(crate) enum Source {
    Map(GuardedMap),
    Pread(File, u64),
    Memory(Vec<u8>),
}

impl Source {
    /// Maps `file` if asked and possible; otherwise reads it with pread.
    pub fn new(file: File, map: bool) -> Result<Source> {
        let bytes = file.metadata().map_err(Error::io("size"))?.len();
        if map
            && bytes > 0
            && let Some(guarded) = GuardedMap::new(&file)
        {
            return Ok(Source::Map(guarded));
        }
        Ok(Source::Pread(file, bytes))
    }

    pub fn len(&self) -> u64 {
        match self {
            Source::Map(map) => wide(map.map.len()),
            Source::Pread(_, bytes) => *bytes,
            Source::Memory(bytes) => wide(bytes.len()),
        }
    }

    /// Gives `length` bytes at `offset` to `read`; whatever it concluded is dropped if the file was truncated meanwhile.
    pub fn with<R>(&self, offset: u64, length: u64, read: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        let end = offset.checked_add(length).filter(|end| *end <= self.len());
        let end = end.ok_or(Error::Truncated {
            at: self.len(),
            expected: "more bytes",
        })?;
        let slice = |bytes: &'_ [u8]| -> Option<std::ops::Range<usize>> {
            let range = narrow(offset)..narrow(end);
            bytes.get(range.clone()).map(|_| range)
        };
        match self {
            Source::Memory(bytes) => read(slice(bytes).and_then(|range| bytes.get(range)).unwrap_or_default()),
            Source::Map(map) => {
                map.populate(narrow(offset), narrow(length));
                let result = read(slice(&map.map).and_then(|range| map.map.get(range)).unwrap_or_default());
                map.check()?;
                map.shed(length);
                result
            }
            Source::Pread(file, _) => {
                let mut buffer = Vec::new();
                resize(&mut buffer, narrow(length))?;
                file.read_exact_at(&mut buffer, offset)
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => truncated_underneath(),
                        _ => Error::io("read")(error),
                    })?;
                read(&buffer)
            }
        }
    }

    /// Tells the kernel that the file will be read front to back.
    pub fn advise_sequential(&self) {
        if let Source::Map(map) = self {
            // Advice: a kernel that refuses it reads as well, only later.
            let _ = map.map.advise(memmap2::Advice::Sequential);
        }
    }
}

fn truncated_underneath() -> Error {
    Error::Io {
        what: "the file was truncated while it was being read".into(),
        source: io::Error::from_raw_os_error(libc::EIO),
    }
}

/// Mapped pages count as this process's memory until they are given back: beyond this many bytes touched, they are.
const RESIDENT_BYTES_MAX: u64 = 128 << 20;

/// Below this a fault or two is cheaper than the call.
#[cfg(target_os = "linux")]
const POPULATE_BYTES_MIN: usize = 128 << 10;

pub(crate) struct GuardedMap {
    map: memmap2::Mmap,
    slot: &'static Slot,
    /// Bytes read since pages were last given back.
    touched: AtomicU64,
}

impl GuardedMap {
    /// None if mapping is impossible or every guard is taken: the caller falls back to pread.
    fn new(file: &File) -> Option<GuardedMap> {
        install_handler();
        let slot = SLOTS.iter().find(|slot| !slot.taken.swap(true, Ordering::AcqRel))?;
        // SAFETY: the map is only read, through `Source::with`; a writer of the file can change bytes under us, which every reader here
        // tolerates because it verifies a digest before it believes them, and a truncation is caught by the guard.
        let map = match unsafe { memmap2::Mmap::map(file) } {
            Ok(map) => map,
            Err(_) => {
                slot.taken.store(false, Ordering::Release);
                return None;
            }
        };
        slot.hit.store(false, Ordering::Release);
        slot.length.store(map.len(), Ordering::Release);
        slot.start.store(map.as_ptr().addr(), Ordering::Release);
        Some(GuardedMap {
            map,
            slot,
            touched: AtomicU64::new(0),
        })
    }

    /// Maps the pages of a block in one system call instead of a fault for each few of them.
    fn populate(&self, offset: usize, length: usize) {
        #[cfg(target_os = "linux")]
        if length >= POPULATE_BYTES_MIN {
            // A kernel that does not know this advice, or a file that has shrunk, is met again at the touch.
            let _ = self.map.advise_range(memmap2::Advice::PopulateRead, offset, length);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, length);
    }

    /// Gives the pages back once many have been touched: the kernel keeps them cached, and a reader beside us only faults them in again.
    fn shed(&self, length: u64) {
        if self.touched.fetch_add(length, Ordering::Relaxed).saturating_add(length) < RESIDENT_BYTES_MAX {
            return;
        }
        self.touched.store(0, Ordering::Relaxed);
        // SAFETY: the map is a read-only view of a file; DONTNEED drops page table entries, and the next touch reads the same file.
        // Advice that is refused costs nothing but memory.
        let _ = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }

    fn check(&self) -> Result<()> {
        if self.slot.hit.load(Ordering::Acquire) {
            Err(truncated_underneath())
        } else {
            Ok(())
        }
    }
}

impl Drop for GuardedMap {
    fn drop(&mut self) {
        // The handler must forget the range before the pages go and others take their place.
        self.slot.start.store(0, Ordering::Release);
        self.slot.length.store(0, Ordering::Release);
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// A mapped range the handler answers for. A fixed table, because a signal handler may not allocate or lock.
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    length: AtomicUsize,
    hit: AtomicBool,
}

impl Slot {
    const fn free() -> Slot {
        Slot {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            hit: AtomicBool::new(false),
        }
    }
}

static SLOTS: [Slot; 256] = [const { Slot::free() }; 256];
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
/// What handled SIGBUS before us, as `sigaction` stores it.
static PREVIOUS: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static PREVIOUS_TAKES_INFO: AtomicBool = AtomicBool::new(false);

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: plain libc calls with valid pointers; the handler keeps to async-signal-safe calls.
        unsafe {
            if let Ok(bytes) = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)) {
                PAGE_BYTES.store(bytes.max(1), Ordering::Release);
            }
            let mut previous: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous);
            PREVIOUS.store(previous.sa_sigaction, Ordering::Release);
            PREVIOUS_TAKES_INFO.store(previous.sa_flags & libc::SA_SIGINFO != 0, Ordering::Release);
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
            #[expect(clippy::as_conversions, reason = "a function's address has no other way out")]
            let address = (handler as *const ()).expose_provenance();
            action.sa_sigaction = address;
            // The alternative stack is Rust's own for stack overflows; NODEFER is not wanted: a fault in here is a bug and should kill.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    });
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `info` is what the kernel gave for this signal.
    let address = unsafe { (*info).si_addr() }.addr();
    for slot in &SLOTS {
        let start = slot.start.load(Ordering::Acquire);
        let length = slot.length.load(Ordering::Acquire);
        if start != 0 && address >= start && address.wrapping_sub(start) < length {
            let page_bytes = PAGE_BYTES.load(Ordering::Acquire);
            let page = address & !page_bytes.wrapping_sub(1);
            // SAFETY: the page lies inside a map of ours that is alive (its owner clears the slot before unmapping), and mmap is a bare
            // system call. The touched read then goes on over zeros, and the owner's check drops its result.
            let mapped = unsafe {
                libc::mmap(
                    std::ptr::with_exposed_provenance_mut(page),
                    page_bytes,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
            if mapped != libc::MAP_FAILED {
                slot.hit.store(true, Ordering::Release);
                return;
            }
        }
    }
    let previous = PREVIOUS.load(Ordering::Acquire);
    // SAFETY: hands a fault that is not ours to whoever handled it before, in the form in which it was installed.
    unsafe {
        if previous == libc::SIG_DFL || previous == libc::SIG_IGN {
            libc::signal(signal, libc::SIG_DFL);
        } else if PREVIOUS_TAKES_INFO.load(Ordering::Acquire) {
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(previous);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(libc::c_int) = std::mem::transmute(previous);
            handler(signal);
        }
    }
}
