//! What must happen before OpenBLAS is loaded.
//!
//! OpenBLAS chooses its kernels while the program is loaded, and `OPENBLAS_CORETYPE` or `OPENBLAS_L2_SIZE`, which some machines set for
//! everyone, would make it choose slower ones with other bits. What is not in the plan must not change bits, so these variables are
//! taken out of our own environment before OpenBLAS's constructor looks. It then starts threads, which spin until they fall asleep for
//! want of work: where it lies inside the binary, it is told in time to start none.

use std::ffi::{c_char, c_int};

unsafe extern "C" {
    fn setenv(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int;
}

/// Functions of this section run before the constructors that have no number, OpenBLAS's among them.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static START_NO_THREADS: unsafe extern "C" fn() = start_no_threads;

unsafe extern "C" fn start_no_threads() {
    // SAFETY: the C library is initialised, and no other thread runs yet.
    unsafe { setenv(c"OPENBLAS_NUM_THREADS".as_ptr(), c"1".as_ptr(), 1) };
}

/// Functions of this section run before every constructor, those of shared libraries included.
#[used]
#[unsafe(link_section = ".preinit_array")]
static FORGET: unsafe extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) = forget;

/// Closes the gaps that variables named `OPENBLAS_…` leave in the environment's array. No library is initialised yet: this touches
/// nothing but the array.
unsafe extern "C" fn forget(_: c_int, _: *mut *mut c_char, environment: *mut *mut c_char) {
    const PREFIX: &[u8] = b"OPENBLAS_";
    // SAFETY: the loader passes the null-terminated array of null-terminated strings on the initial stack, which no other thread
    // can see yet; reading stops at the first byte that differs from the prefix, at the latest at a string's end.
    unsafe {
        let mut kept = environment;
        let mut next = environment;
        while !(*next).is_null() {
            let ours = (0..PREFIX.len()).all(|at| *(*next).add(at) as u8 == PREFIX[at]);
            if !ours {
                *kept = *next;
                kept = kept.add(1);
            }
            next = next.add(1);
        }
        *kept = std::ptr::null_mut();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn openblas_variables_are_replaced_before_main() {
        if let Some(expected) = std::env::var_os("FLOWLENS_PCA_TEST_CHILD") {
            assert_eq!(expected, "1");
            let left = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OPENBLAS_"));
            assert_eq!(left.collect::<Vec<_>>(), [("OPENBLAS_NUM_THREADS".into(), "1".into())]);
            return;
        }
        let name = "openblas::tests::openblas_variables_are_replaced_before_main";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env("OPENBLAS_CORETYPE", "Haswell")
            .env("OPENBLAS_NUM_THREADS", "3")
            .env("FLOWLENS_PCA_TEST_CHILD", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
