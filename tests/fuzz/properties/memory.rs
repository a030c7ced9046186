//! malloc with a bound, which ends the process with SIGABRT where a property asks for more. libFuzzer's own bound of one allocation needs a
//! sanitizer; this one needs none, sees memory that is never touched and what C libraries take, and holds in the ordinary tests too. Rust's
//! own hook for allocators is taken: by `process`, which would end a fuzzer with exit code 4 and without a word.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Bytes that a target may hold on top of what was there.
fn bytes_max(target: &str) -> usize {
    match target {
        // a weakness that stays: Parquet's crate takes what a page claims to hold, up to 2 GiB, before it has a byte of it
        "dataset_parquet" => 3 << 30,
        _ => 128 << 20,
    }
}

/// Runs the property of a target within its bound.
pub fn bounded(target: &str, property: impl FnOnce()) {
    MOST.store(LIVE.load(Relaxed).saturating_add(bytes_max(target)), Relaxed);
    property();
    MOST.store(usize::MAX, Relaxed);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod interposed {
    use std::backtrace::Backtrace;

    use super::{LIVE, MOST, Relaxed};
    use libc::{ENOMEM, c_int, c_void, size_t};

    unsafe extern "C" {
        fn __libc_malloc(size: size_t) -> *mut c_void;
        fn __libc_calloc(count: size_t, size: size_t) -> *mut c_void;
        fn __libc_realloc(pointer: *mut c_void, size: size_t) -> *mut c_void;
        fn __libc_memalign(alignment: size_t, size: size_t) -> *mut c_void;
        fn __libc_free(pointer: *mut c_void);
    }

    fn check(size: size_t) {
        if LIVE.load(Relaxed).saturating_add(size) > MOST.load(Relaxed) {
            // what reports the end allocates too
            MOST.store(usize::MAX, Relaxed);
            eprintln!(
                "{size} bytes are more than a reader may take: {}",
                Backtrace::force_capture()
            );
            std::process::abort();
        }
    }

    fn size_of(pointer: *mut c_void) -> usize {
        // SAFETY: a pointer of malloc that is not freed, or null, which has no bytes.
        unsafe { libc::malloc_usable_size(pointer) }
    }

    fn counted(pointer: *mut c_void) -> *mut c_void {
        LIVE.fetch_add(size_of(pointer), Relaxed);
        pointer
    }

    // SAFETY of all: glibc's own functions under their other names do the work, as its manual says of a replaced malloc.

    #[unsafe(no_mangle)]
    unsafe extern "C" fn malloc(size: size_t) -> *mut c_void {
        check(size);
        // SAFETY: see above.
        counted(unsafe { __libc_malloc(size) })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn calloc(count: size_t, size: size_t) -> *mut c_void {
        check(count.saturating_mul(size));
        // SAFETY: see above.
        counted(unsafe { __libc_calloc(count, size) })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(pointer: *mut c_void, size: size_t) -> *mut c_void {
        let before = size_of(pointer);
        check(size.saturating_sub(before));
        // SAFETY: see above.
        let moved = unsafe { __libc_realloc(pointer, size) };
        if !moved.is_null() || size == 0 {
            LIVE.fetch_sub(before, Relaxed);
        }
        counted(moved)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memalign(alignment: size_t, size: size_t) -> *mut c_void {
        check(size);
        // SAFETY: see above.
        counted(unsafe { __libc_memalign(alignment, size) })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn aligned_alloc(alignment: size_t, size: size_t) -> *mut c_void {
        // SAFETY: see above.
        unsafe { memalign(alignment, size) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn posix_memalign(into: *mut *mut c_void, alignment: size_t, size: size_t) -> c_int {
        // SAFETY: see above; `into` is the caller's.
        unsafe {
            let pointer = memalign(alignment, size);
            if pointer.is_null() {
                return ENOMEM;
            }
            *into = pointer;
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn free(pointer: *mut c_void) {
        LIVE.fetch_sub(size_of(pointer), Relaxed);
        // SAFETY: see above.
        unsafe { __libc_free(pointer) }
    }
}
