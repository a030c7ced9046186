//! Out of memory is one clear line and exit code 4, not an abort.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::exit::Exit;

struct Exiting;

#[global_allocator]
static ALLOCATOR: Exiting = Exiting;

// SAFETY: every call is the system allocator's; only a null result is treated differently, by not returning.
unsafe impl GlobalAlloc for Exiting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is passed on.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is passed on.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is passed on.
        checked(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn checked(pointer: *mut u8, size: usize) -> *mut u8 {
    match pointer.is_null() {
        true => exhausted(size),
        false => pointer,
    }
}

/// Ends the process because there is no memory for `size` bytes; also for libraries that allocate past us.
pub fn exhausted(size: usize) -> ! {
    // No allocation from here on: the number is written into a buffer on the stack.
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = size;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for part in [
        crate::tool_name().as_bytes(),
        b": error: memory: an allocation of ",
        &digits[at..],
        b" bytes failed\n",
    ] {
        // SAFETY: write and _exit are plain system calls; stderr may be closed, which is no matter here.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: ends the process at once; a partial file stays locked-free and is found by the next run.
    unsafe { libc::_exit(Exit::Environment.code()) }
}
