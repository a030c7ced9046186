//! The allocator's manners for a process that runs a model.
//!
//! A forward pass allocates a fresh buffer per operation. glibc maps large ones anew and returns them at once, so every
//! pass would page-fault its whole working set again: up to half of the time. Kept on the heap they are reused.

/// Keeps freed buffers for reuse; call it first in `main`, before any thread starts.
pub fn keep_freed_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes plain integers and is called before other threads allocate.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_TOP_PAD, 256 << 20);
    }
}
