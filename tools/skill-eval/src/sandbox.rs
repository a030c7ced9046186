//! Runs one untrusted Python program: in user, mount, network, process, IPC and host-name namespaces of its own, in a root that holds a
//! read-only interpreter and one small empty directory, under resource limits and a list of allowed system calls.
//!
//! Either all of it is in force or nothing runs: [`Sandbox::new`] proves it on this machine, or refuses (exit 4). What the program may
//! cost: one process (no fork, no second program), `memory_bytes` of address space, 16 MiB of files, 64 open files, `seconds` of time.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::{Error, Result, ResultExt};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

const FILE_BYTES_MAX: u64 = 16 << 20;
const DIRECTORY_BYTES_MAX: u64 = 32 << 20;
const OPEN_FILES_MAX: u64 = 64;
/// Threads are bounded by this (where the user is not root) and by the address space their stacks take.
const TASKS_MAX: u64 = 32;
/// What is kept of a program's output; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Reads a program from standard input, runs it, and says the token only if it ran to its end. An exit from inside says nothing.
const DRIVER: &str = "import sys\nt=sys.argv.pop()\np=sys.stdin.buffer.read().decode()\nexec(compile(p,'<program>','exec'),{'__name__':'__main__'})\nsys.__stdout__.write('\\n'+t+'\\n')\nsys.__stdout__.flush()\n";

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It ran to its end.
    Passed,
    /// It raised, exited or was killed; the last line of what it said.
    Failed(String),
    TimedOut,
}

/// What a program may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Limits {
    pub seconds: u64,
    pub memory_bytes: u64,
}

/// A sandbox that was tried and works.
pub struct Sandbox {
    python: PathBuf,
    limits: Limits,
    /// An empty directory of the host that becomes the root, seen only inside.
    root: PathBuf,
    /// Existing directories that are shown inside, read-only.
    shown: Vec<PathBuf>,
    filters: Vec<BpfProgram>,
}

impl Sandbox {
    /// Finds the interpreter, prepares the filters, and tries everything once.
    pub fn new(python: &Path, limits: Limits) -> Result<Sandbox> {
        let (python, prefixes) = interpreter(python)?;
        let mut shown: Vec<PathBuf> = Vec::new();
        let system = ["/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache"].map(PathBuf::from);
        for path in system.into_iter().chain(prefixes) {
            if path.exists() && !shown.iter().any(|known| path.starts_with(known)) {
                shown.push(path);
            }
        }
        let root = empty_directory()?;
        let filters = filters().map_err(|cause| {
            Error::environment("sandbox", format!("no system call filter for this machine: {cause}"))
        })?;
        let sandbox = Sandbox {
            python,
            limits,
            root,
            shown,
            filters,
        };
        match sandbox.run("assert 1 + 1 == 2\n")? {
            Ending::Passed => Ok(sandbox),
            Ending::Failed(said) => Err(Error::environment(
                "sandbox",
                format!("a trivial program failed in it: {said}"),
            )),
            Ending::TimedOut => Err(Error::environment("sandbox", "a trivial program timed out in it")),
        }
    }

    /// Runs `program`. An error is the sandbox's, never the program's.
    pub fn run(&self, program: &str) -> Result<Ending> {
        let token = token()?;
        let (step_reader, step_writer) = pipe()?;
        let cage = Cage::new(self, step_writer.as_raw_fd())?;
        let mut command = Command::new(&self.python);
        command
            .args(["-I", "-S", "-B", "-c", DRIVER, &token])
            .env_clear()
            .env("PYTHONHASHSEED", "0")
            .env("HOME", "/work")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: the closure runs between fork and exec and makes system calls alone, on memory prepared before the fork.
        unsafe { command.pre_exec(move || cage.enter()) };
        let spawned = command.spawn();
        drop(step_writer);
        let mut child = match spawned {
            Ok(child) => child,
            Err(cause) => {
                let mut step = String::new();
                // What the child could say before it failed; without it the cause stands alone.
                let _ = std::fs::File::from(step_reader).read_to_string(&mut step);
                let step = if step.is_empty() { "starting it" } else { &step };
                return Err(Error::environment("sandbox", format!("{step}: {cause}")).hint(
                    "code runs only where the kernel gives user, mount, network and process namespaces to this user",
                ));
            }
        };
        let deadline = Instant::now() + Duration::from_secs(self.limits.seconds);
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::bug("sandbox", "a pipe that was asked for is missing"));
        };
        let text = program.to_owned();
        // A program that never reads must not block us: each pipe has its thread, which ends when the program is gone.
        let writer = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
        let said = std::thread::spawn(move || tail(stdout));
        let cried = std::thread::spawn(move || tail(stderr));
        let mut is_late = false;
        let status = loop {
            if let Some(status) = child.try_wait().at("sandbox")? {
                break status;
            }
            if Instant::now() >= deadline || process::signals::received().is_some() {
                is_late = true;
                child.kill().at("sandbox")?;
                break child.wait().at("sandbox")?;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        // The namespace is gone with its first process, and so is whatever held a pipe.
        let joined = |thread: std::thread::JoinHandle<Vec<u8>>| {
            thread
                .join()
                .map_err(|_| Error::bug("sandbox", "a pipe's thread panicked"))
        };
        let (said, cried) = (joined(said)?, joined(cried)?);
        writer
            .join()
            .map_err(|_| Error::bug("sandbox", "a pipe's thread panicked"))?;
        process::signals::check()?;
        if is_late {
            return Ok(Ending::TimedOut);
        }
        let told = String::from_utf8_lossy(&said);
        if status.success() && told.trim_end().rsplit('\n').next() == Some(token.as_str()) {
            return Ok(Ending::Passed);
        }
        let cried = String::from_utf8_lossy(&cried);
        let last = cried
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        let reason: String = last.chars().take(200).collect();
        Ok(Ending::Failed(match (reason.is_empty(), status.code()) {
            (false, _) => reason,
            (true, Some(0)) => "exited before its end".to_owned(),
            (true, Some(code)) if code > 128 => format!("killed by signal {}", code - 128),
            (true, _) => format!("{status}"),
        }))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Empty, and a left-over in the temporary directory does no harm.
        let _ = std::fs::remove_dir(&self.root);
    }
}

/// The interpreter itself, behind whatever shim, and where it keeps its library.
fn interpreter(python: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let ask = "import sys,os; print(os.path.realpath(sys.executable)); print(os.path.realpath(sys.base_prefix)); print(os.path.realpath(sys.base_exec_prefix))";
    let output = Command::new(python)
        .args(["-I", "-c", ask])
        .stdin(Stdio::null())
        .output()
        .at(python.display())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().map(PathBuf::from);
    match (output.status.success(), lines.next()) {
        (true, Some(executable)) => Ok((executable, lines.collect())),
        _ => Err(
            Error::environment(python.display(), "is no Python interpreter that runs").hint("name one with --python"),
        ),
    }
}

fn empty_directory() -> Result<PathBuf> {
    let root = std::env::temp_dir();
    for attempt in 0_u32..64 {
        let path = root.join(format!("skill-eval-sandbox-{}-{attempt}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).at(path.display()),
        }
    }
    Err(Error::environment(
        root.display(),
        "no free name for a temporary directory",
    ))
}

/// Unguessable, so that a program cannot claim to have passed.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .at("/dev/urandom")?;
    Ok(process::hex(&bytes))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors; both are ours alone afterwards.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(std::io::Error::last_os_error()).at("sandbox");
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// The last bytes of a stream that may be endless.
fn tail(mut stream: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return kept,
            Ok(read) => {
                kept.extend_from_slice(&chunk[..read]);
                // BOUND: twice the limit, whatever the program writes.
                if kept.len() > 2 * OUTPUT_BYTES_MAX {
                    kept.drain(..kept.len() - OUTPUT_BYTES_MAX);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
    }
}

/// All that the child needs between fork and exec, where memory must not be allocated.
struct Cage {
    step: i32,
    root: CString,
    /// Source on the host, target below the new root, and whether it is a directory.
    mounts: Vec<(CString, CString, bool)>,
    /// Directories to make below the new root, parents first.
    directories: Vec<CString>,
    files: Vec<CString>,
    work: CString,
    root_options: CString,
    work_options: CString,
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
    limits: [(libc::__rlimit_resource_t, u64); 7],
    filters: Vec<BpfProgram>,
}

fn c_string(bytes: impl AsRef<[u8]>) -> Result<CString> {
    CString::new(bytes.as_ref()).map_err(|_| Error::environment("sandbox", "a path holds a NUL"))
}

impl Cage {
    fn new(sandbox: &Sandbox, step: i32) -> Result<Cage> {
        let below = |path: &Path| c_string([sandbox.root.as_os_str().as_bytes(), path.as_os_str().as_bytes()].concat());
        let mut directories = Vec::new();
        let mut files = Vec::new();
        let mut mounts = Vec::new();
        let null = PathBuf::from("/dev/null");
        for path in sandbox.shown.iter().chain([&null]) {
            let is_directory = path.is_dir();
            let mut parents: Vec<&Path> = path
                .ancestors()
                .skip(1)
                .filter(|parent| *parent != Path::new("/"))
                .collect();
            parents.reverse();
            for directory in parents.into_iter().chain(is_directory.then_some(path.as_path())) {
                let directory = below(directory)?;
                if !directories.contains(&directory) {
                    directories.push(directory);
                }
            }
            if !is_directory {
                files.push(below(path)?);
            }
            mounts.push((c_string(path.as_os_str().as_bytes())?, below(path)?, is_directory));
        }
        let work = below(Path::new("/work"))?;
        directories.push(work.clone());
        // SAFETY: these calls cannot fail and touch no memory.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let seconds = sandbox.limits.seconds + 1;
        Ok(Cage {
            step,
            root: c_string(sandbox.root.as_os_str().as_bytes())?,
            mounts,
            directories,
            files,
            work,
            root_options: c_string("size=1m,mode=755")?,
            work_options: c_string(format!("size={DIRECTORY_BYTES_MAX},nr_inodes=4096,mode=700"))?,
            uid_map: format!("65534 {uid} 1\n").into_bytes(),
            gid_map: format!("65534 {gid} 1\n").into_bytes(),
            limits: [
                (libc::RLIMIT_CPU, seconds),
                (libc::RLIMIT_AS, sandbox.limits.memory_bytes),
                (libc::RLIMIT_FSIZE, FILE_BYTES_MAX),
                (libc::RLIMIT_NOFILE, OPEN_FILES_MAX),
                (libc::RLIMIT_NPROC, TASKS_MAX),
                (libc::RLIMIT_CORE, 0),
                (libc::RLIMIT_MEMLOCK, 0),
            ],
            filters: sandbox.filters.clone(),
        })
    }

    /// Runs in the child. Every step that fails ends it before the program starts.
    fn enter(&self) -> std::io::Result<()> {
        // SAFETY: plain system calls on memory that was prepared before the fork and outlives them.
        unsafe {
            self.check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), "tie to the parent")?;
            let spaces = libc::CLONE_NEWUSER
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS;
            self.check(libc::unshare(spaces), "make namespaces")?;
            self.write_file(c"/proc/self/setgroups", b"deny", "map users")?;
            self.write_file(c"/proc/self/uid_map", &self.uid_map, "map users")?;
            self.write_file(c"/proc/self/gid_map", &self.gid_map, "map users")?;
            self.build_root()?;
            self.become_first_process()?;
            for (resource, limit) in self.limits {
                let limit = libc::rlimit {
                    rlim_cur: limit,
                    rlim_max: limit,
                };
                self.check(libc::setrlimit(resource, &limit), "set limits")?;
            }
            self.check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "give up privileges")?;
            for filter in &self.filters {
                seccompiler::apply_filter(filter).map_err(|_| self.failed("filter system calls"))?;
            }
        }
        Ok(())
    }

    /// A root of its own: an empty file system, the interpreter shown read-only, and `/work`.
    unsafe fn build_root(&self) -> std::io::Result<()> {
        // SAFETY: as for `enter`, whose only callee this is.
        unsafe {
            let none = std::ptr::null::<libc::c_void>();
            let sealed = libc::MS_NOSUID | libc::MS_NODEV;
            self.check(
                libc::mount(
                    c"none".as_ptr(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    none,
                ),
                "keep mounts private",
            )?;
            self.check(
                libc::mount(
                    c"tmpfs".as_ptr(),
                    self.root.as_ptr(),
                    c"tmpfs".as_ptr(),
                    sealed,
                    self.root_options.as_ptr().cast(),
                ),
                "mount an empty root",
            )?;
            for directory in &self.directories {
                if libc::mkdir(directory.as_ptr(), 0o755) != 0 && *libc::__errno_location() != libc::EEXIST {
                    return Err(self.failed("make a directory"));
                }
            }
            for file in &self.files {
                let created = libc::open(file.as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o644);
                self.check(created, "make a file")?;
                libc::close(created);
            }
            for (source, target, is_directory) in &self.mounts {
                let flags = libc::MS_BIND | if *is_directory { libc::MS_REC } else { 0 };
                self.check(
                    libc::mount(source.as_ptr(), target.as_ptr(), std::ptr::null(), flags, none),
                    "show the interpreter",
                )?;
                let attributes = libc::mount_attr {
                    attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
                    attr_clr: 0,
                    propagation: 0,
                    userns_fd: 0,
                };
                let size = std::mem::size_of::<libc::mount_attr>();
                let sealed = libc::syscall(
                    libc::SYS_mount_setattr,
                    libc::AT_FDCWD,
                    target.as_ptr(),
                    libc::AT_RECURSIVE,
                    &attributes,
                    size,
                );
                self.check(sealed as i32, "make the interpreter read-only")?;
            }
            self.check(
                libc::mount(
                    c"tmpfs".as_ptr(),
                    self.work.as_ptr(),
                    c"tmpfs".as_ptr(),
                    sealed | libc::MS_NOEXEC,
                    self.work_options.as_ptr().cast(),
                ),
                "mount /work",
            )?;
            self.check(libc::chdir(self.root.as_ptr()), "enter the root")?;
            self.check(
                libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as i32,
                "change the root",
            )?;
            self.check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH), "leave the old root")?;
            // The root itself needs no more writing.
            let attributes = libc::mount_attr {
                attr_set: libc::MOUNT_ATTR_RDONLY,
                attr_clr: 0,
                propagation: 0,
                userns_fd: 0,
            };
            let size = std::mem::size_of::<libc::mount_attr>();
            self.check(
                libc::syscall(
                    libc::SYS_mount_setattr,
                    libc::AT_FDCWD,
                    c"/".as_ptr(),
                    0,
                    &attributes,
                    size,
                ) as i32,
                "make the root read-only",
            )?;
            self.check(libc::chdir(c"/work".as_ptr()), "enter /work")
        }
    }

    /// Only a child enters a new process namespace: fork, and let this process wait and pass the ending on. When it is killed, the
    /// child, first of its namespace, dies with it, and all that it started.
    unsafe fn become_first_process(&self) -> std::io::Result<()> {
        // SAFETY: as for `enter`, whose only callee this is; the parent of this fork makes only system calls and leaves by `_exit`.
        unsafe {
            let child = libc::fork();
            self.check(child, "fork")?;
            if child == 0 {
                return self.check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), "tie to the parent");
            }
            // Nothing may stay open here, or its reader would wait for us.
            libc::syscall(libc::SYS_close_range, 0_u32, u32::MAX, 0_u32);
            let mut status = 0;
            while libc::waitpid(child, &mut status, 0) < 0 {
                if *libc::__errno_location() != libc::EINTR {
                    libc::_exit(126);
                }
            }
            libc::_exit(if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            })
        }
    }

    unsafe fn write_file(&self, path: &std::ffi::CStr, bytes: &[u8], step: &'static str) -> std::io::Result<()> {
        // SAFETY: as for `enter`, whose only callee this is.
        unsafe {
            let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            self.check(file, step)?;
            let written = libc::write(file, bytes.as_ptr().cast(), bytes.len());
            self.check(written as i32, step)?;
            self.check(libc::close(file), step)
        }
    }

    fn check(&self, result: i32, step: &'static str) -> std::io::Result<()> {
        if result < 0 { Err(self.failed(step)) } else { Ok(()) }
    }

    /// Says which step failed, and keeps the cause.
    fn failed(&self, step: &'static str) -> std::io::Error {
        let cause = std::io::Error::last_os_error();
        // SAFETY: writes static bytes to a descriptor that is open until exec; a reader that is gone changes nothing.
        unsafe { libc::write(self.step, step.as_ptr().cast(), step.len()) };
        cause
    }
}

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
fn filters() -> std::result::Result<Vec<BpfProgram>, String> {
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
