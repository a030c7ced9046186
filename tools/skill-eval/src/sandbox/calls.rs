//! The list of system calls that a confined interpreter may make, as filters for the kernel.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// The system calls of an interpreter at work in one process. Everything else fails with EPERM: sockets, fork, mounts, tracing, keys.
#[cfg(target_arch = "x86_64")]
const LEGACY_CALLS: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_pipe,
    libc::SYS_select,
    libc::SYS_poll,
    libc::SYS_dup2,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_getdents,
    libc::SYS_time,
    libc::SYS_arch_prctl,
    libc::SYS_getpgrp,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_utime,
    libc::SYS_alarm,
    libc::SYS_pause,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY_CALLS: &[libc::c_long] = &[];

const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_ioctl,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_pipe2,
    libc::SYS_pselect6,
    libc::SYS_ppoll,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getgroups,
    libc::SYS_uname,
    libc::SYS_fcntl,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_umask,
    libc::SYS_getrlimit,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_futex,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_tgkill,
    libc::SYS_kill,
    libc::SYS_getrandom,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_execve,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_wait4,
    libc::SYS_restart_syscall,
    libc::SYS_membarrier,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    libc::SYS_utimensat,
    libc::SYS_clone3,
];

/// Two filters, because each has one answer: EPERM for what is not listed, and ENOSYS for clone3, whose flags a filter cannot see; the
/// C library then falls back to clone, of which only threads are allowed.
pub fn filters() -> std::result::Result<Vec<BpfProgram>, String> {
    let arch = || {
        std::env::consts::ARCH
            .try_into()
            .map_err(|error: seccompiler::BackendError| error.to_string())
    };
    let thread = libc::CLONE_THREAD as u64;
    let is_thread = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), thread)
        .map_err(|error| error.to_string())?;
    let is_thread = SeccompRule::new(vec![is_thread]).map_err(|error| error.to_string())?;
    let mut allowed: std::collections::BTreeMap<i64, Vec<SeccompRule>> = CALLS
        .iter()
        .chain(LEGACY_CALLS)
        .map(|call| (*call, Vec::new()))
        .collect();
    allowed.insert(libc::SYS_clone, vec![is_thread]);
    let filter = |rules, otherwise, matched| -> std::result::Result<BpfProgram, String> {
        let filter = SeccompFilter::new(rules, otherwise, matched, arch()?).map_err(|error| error.to_string())?;
        filter
            .try_into()
            .map_err(|error: seccompiler::BackendError| error.to_string())
    };
    let no_clone3 = [(libc::SYS_clone3, Vec::new())].into_iter().collect();
    Ok(vec![
        // The first must still allow what installs the second.
        filter(
            no_clone3,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
        )?,
        filter(allowed, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?,
    ])
}
