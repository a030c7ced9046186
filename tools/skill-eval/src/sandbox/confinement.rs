//! What a process does to itself between fork and exec, so that the interpreter that it becomes can reach nothing: namespaces, a root of
//! its own, limits, the list of system calls. All memory is made ready before the fork.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use process::{Error, Result};
use seccompiler::BpfProgram;

use super::Limits;
use super::calls;
use super::child::Role;
use super::interpreter::Interpreter;

const FILE_BYTES_MAX: u64 = 16 << 20;
const DIRECTORY_BYTES_MAX: u64 = 32 << 20;
const OPEN_FILES_MAX: u64 = 64;
/// Threads are bounded by this (where the user is not root) and by the address space their stacks take.
const TASKS_MAX: u64 = 32;

/// Where the new root is mounted, in a mount namespace of its own: a directory that every Linux has and of which nothing is shown inside.
/// So no directory has to be made on the host, and none is left behind.
const ROOT: &CStr = c"/proc";

/// A path of the host that is seen inside.
struct Mount {
    source: CString,
    target: CString,
    is_directory: bool,
}

/// All that an [`Entry`] needs, where memory must not be allocated.
pub struct Confinement {
    mounts: Vec<Mount>,
    /// Directories to make below the new root, parents first.
    directories: Vec<CString>,
    files: Vec<CString>,
    work: CString,
    work_options: CString,
    uid_map: Vec<u8>,
    gid_map: Vec<u8>,
    limits: [(libc::__rlimit_resource_t, u64); 6],
    program_cpu_seconds: u64,
    filters: Vec<BpfProgram>,
}

impl Confinement {
    pub fn new(interpreter: &Interpreter, limits: Limits) -> Result<Arc<Confinement>> {
        let filters = calls::filters().map_err(|cause| {
            Error::environment("sandbox", format!("no system call filter for this machine: {cause}"))
        })?;
        // SAFETY: these calls cannot fail and touch no memory.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let work = below_root(Path::new("/work"))?;
        let mut confinement = Confinement {
            mounts: Vec::new(),
            directories: Vec::new(),
            files: Vec::new(),
            work: work.clone(),
            work_options: c_string(format!("size={DIRECTORY_BYTES_MAX},nr_inodes=4096,mode=700"))?,
            uid_map: format!("65534 {uid} 1\n").into_bytes(),
            gid_map: format!("65534 {gid} 1\n").into_bytes(),
            limits: [
                (libc::RLIMIT_AS, limits.memory_bytes),
                (libc::RLIMIT_FSIZE, FILE_BYTES_MAX),
                (libc::RLIMIT_NOFILE, OPEN_FILES_MAX),
                (libc::RLIMIT_NPROC, TASKS_MAX),
                (libc::RLIMIT_CORE, 0),
                (libc::RLIMIT_MEMLOCK, 0),
            ],
            program_cpu_seconds: limits.seconds + 1,
            filters,
        };
        for path in interpreter.shown.iter().chain([&PathBuf::from("/dev/null")]) {
            confinement.show(path)?;
        }
        confinement.directories.push(work);
        Ok(Arc::new(confinement))
    }

    /// Adds a path of the host to what is seen inside.
    fn show(&mut self, path: &Path) -> Result<()> {
        let is_directory = path.is_dir();
        let parents = path.ancestors().skip(1).filter(|parent| *parent != Path::new("/"));
        let mut directories: Vec<&Path> = is_directory.then_some(path).into_iter().chain(parents).collect();
        directories.reverse();
        for directory in directories {
            let directory = below_root(directory)?;
            if !self.directories.contains(&directory) {
                self.directories.push(directory);
            }
        }
        if !is_directory {
            self.files.push(below_root(path)?);
        }
        self.mounts.push(Mount {
            source: c_string(path.as_os_str().as_bytes())?,
            target: below_root(path)?,
            is_directory,
        });
        Ok(())
    }

    /// For one process, which writes the name of a step that fails to `step`.
    pub fn entry(self: &Arc<Self>, role: Role, step: OwnedFd) -> Entry {
        Entry {
            confinement: Arc::clone(self),
            cpu_seconds: match role {
                Role::Program => self.program_cpu_seconds,
                // It works for many programs; each of them has its deadline.
                Role::Checker => libc::RLIM_INFINITY,
            },
            step,
        }
    }
}

fn c_string(bytes: impl AsRef<[u8]>) -> Result<CString> {
    CString::new(bytes.as_ref()).map_err(|_| Error::environment("sandbox", "a path holds a NUL"))
}

fn below_root(path: &Path) -> Result<CString> {
    c_string([ROOT.to_bytes(), path.as_os_str().as_bytes()].concat())
}

/// The way into a confinement.
pub struct Entry {
    confinement: Arc<Confinement>,
    cpu_seconds: u64,
    step: OwnedFd,
}

/// The steps. Each runs in a child that has one thread, makes plain system calls, and passes pointers to memory that was made before the
/// fork and outlives the call; no step allocates.
impl Entry {
    /// Runs in the child. Every step that fails ends it before the interpreter starts.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: no pointer is passed.
        let tied = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        self.check(tied, "tie to the parent")?;
        self.leave_descriptors()?;
        self.make_namespaces()?;
        self.build_root()?;
        self.become_first_process()?;
        self.set_limits()?;
        for filter in &self.confinement.filters {
            seccompiler::apply_filter(filter).map_err(|_| self.failed("filter system calls"))?;
        }
        Ok(())
    }

    /// Whatever the user's shell left open ends with exec; only standard input, output and error go on.
    fn leave_descriptors(&self) -> io::Result<()> {
        // SAFETY: no pointer is passed.
        let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        self.check(marked as i32, "leave open files")
    }

    fn make_namespaces(&self) -> io::Result<()> {
        let spaces = libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS;
        // SAFETY: no pointer is passed.
        self.check(unsafe { libc::unshare(spaces) }, "make namespaces")?;
        self.write_file(c"/proc/self/setgroups", b"deny", "map users")?;
        self.write_file(c"/proc/self/uid_map", &self.confinement.uid_map, "map users")?;
        self.write_file(c"/proc/self/gid_map", &self.confinement.gid_map, "map users")
    }

    /// A root of its own: an empty file system, the interpreter shown read-only, and `/work`.
    fn build_root(&self) -> io::Result<()> {
        let work = &self.confinement.work;
        let sealed = libc::MS_NOSUID | libc::MS_NODEV;
        self.mount(None, c"/", libc::MS_REC | libc::MS_PRIVATE, None, "keep mounts private")?;
        self.mount(
            Some(c"tmpfs"),
            ROOT,
            sealed,
            Some(c"size=1m,mode=755"),
            "mount an empty root",
        )?;
        self.make_places()?;
        for mount in &self.confinement.mounts {
            let flags = libc::MS_BIND | if mount.is_directory { libc::MS_REC } else { 0 };
            self.mount(Some(&mount.source), &mount.target, flags, None, "show the interpreter")?;
            let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
            self.set_attributes(
                &mount.target,
                libc::AT_RECURSIVE,
                read_only,
                "make the interpreter read-only",
            )?;
        }
        let options = Some(self.confinement.work_options.as_c_str());
        self.mount(Some(c"tmpfs"), work, sealed | libc::MS_NOEXEC, options, "mount /work")?;
        self.change_root()?;
        // The root itself needs no more writing.
        self.set_attributes(c"/", 0, libc::MOUNT_ATTR_RDONLY, "make the root read-only")?;
        // SAFETY: the path is a literal.
        self.check(unsafe { libc::chdir(c"/work".as_ptr()) }, "enter /work")
    }

    /// The directories and files that something is mounted on.
    fn make_places(&self) -> io::Result<()> {
        for directory in &self.confinement.directories {
            // SAFETY: the path outlives the call, and errno is this thread's own.
            let failed =
                unsafe { libc::mkdir(directory.as_ptr(), 0o755) != 0 && *libc::__errno_location() != libc::EEXIST };
            if failed {
                return Err(self.failed("make a directory"));
            }
        }
        for file in &self.confinement.files {
            // SAFETY: the path outlives the call.
            let created = unsafe { libc::open(file.as_ptr(), libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o644) };
            self.check(created, "make a file")?;
            // SAFETY: the descriptor was opened above and nobody else has it.
            unsafe { libc::close(created) };
        }
        Ok(())
    }

    fn mount(
        &self,
        source: Option<&CStr>,
        target: &CStr,
        flags: libc::c_ulong,
        options: Option<&CStr>,
        step: &'static str,
    ) -> io::Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        let (source, options) = (pointer(source), pointer(options));
        // SAFETY: the texts outlive the call; the kernel takes a null for one that is absent. Every kind of file system mounted is tmpfs.
        let mounted = unsafe { libc::mount(source, target.as_ptr(), c"tmpfs".as_ptr(), flags, options.cast()) };
        self.check(mounted, step)
    }

    fn set_attributes(&self, target: &CStr, flags: i32, attributes: u64, step: &'static str) -> io::Result<()> {
        let attributes = libc::mount_attr {
            attr_set: attributes,
            attr_clr: 0,
            propagation: 0,
            userns_fd: 0,
        };
        let size = std::mem::size_of::<libc::mount_attr>();
        // SAFETY: the path and the structure, whose size is given, outlive the call.
        let set = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                libc::AT_FDCWD,
                target.as_ptr(),
                flags,
                &attributes,
                size,
            )
        };
        self.check(set as i32, step)
    }

    fn change_root(&self) -> io::Result<()> {
        let here = c".".as_ptr();
        // SAFETY: the paths outlive the calls.
        unsafe {
            self.check(libc::chdir(ROOT.as_ptr()), "enter the root")?;
            self.check(
                libc::syscall(libc::SYS_pivot_root, here, here) as i32,
                "change the root",
            )?;
            self.check(libc::umount2(here, libc::MNT_DETACH), "leave the old root")
        }
    }

    /// Only a child enters a new process namespace: fork, and let this process wait and pass the ending on. When it is killed, the child,
    /// first of its namespace, dies with it, and all that it started.
    ///
    /// The child has a session of its own. To the first process of a namespace its parent is process 0, and a signal to process 0 goes to
    /// the sender's whole process group, which would be the user's.
    fn become_first_process(&self) -> io::Result<()> {
        // SAFETY: the child has this thread alone, as its parent has; no pointer is passed.
        unsafe {
            let child = libc::fork();
            self.check(child, "fork")?;
            if child != 0 {
                wait_for(child);
            }
            self.check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), "tie to the parent")?;
            self.check(libc::setsid(), "leave the session")
        }
    }

    fn set_limits(&self) -> io::Result<()> {
        let cpu = (libc::RLIMIT_CPU, self.cpu_seconds);
        for (resource, limit) in self.confinement.limits.into_iter().chain([cpu]) {
            let limit = libc::rlimit {
                rlim_cur: limit,
                rlim_max: limit,
            };
            // SAFETY: the structure outlives the call.
            self.check(unsafe { libc::setrlimit(resource, &limit) }, "set limits")?;
        }
        Ok(())
    }

    fn write_file(&self, path: &CStr, bytes: &[u8], step: &'static str) -> io::Result<()> {
        // SAFETY: path and bytes outlive the calls; the descriptor is closed once.
        unsafe {
            let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            self.check(file, step)?;
            let written = libc::write(file, bytes.as_ptr().cast(), bytes.len());
            self.check(written as i32, step)?;
            self.check(libc::close(file), step)
        }
    }

    fn check(&self, result: i32, step: &'static str) -> io::Result<()> {
        if result < 0 { Err(self.failed(step)) } else { Ok(()) }
    }

    /// Says which step failed, and keeps the cause.
    fn failed(&self, step: &'static str) -> io::Error {
        let cause = io::Error::last_os_error();
        // SAFETY: writes static bytes to a descriptor that is open until exec; a reader that is gone changes nothing.
        unsafe { libc::write(self.step.as_raw_fd(), step.as_ptr().cast(), step.len()) };
        cause
    }
}

/// Waits for the first process of the namespace and ends as it ended, 128 and the signal's number where it was killed.
fn wait_for(child: libc::pid_t) -> ! {
    let mut status = 0;
    // SAFETY: this process has one thread and leaves by `_exit`, so nothing that was open is used again; `status` outlives the calls.
    unsafe {
        // Nothing may stay open here, or its reader would wait for us.
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
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
