//! What is called of NCCL and of CUDA's runtime: both are opened when a run asks for them, so that a build needs neither.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::{Error, ErrorKind, Result};

use libloading::Library;

pub const SUCCESS: c_int = 0;
/// `ncclInProgress`
pub const IN_PROGRESS: c_int = 7;
/// `ncclUint8`
pub const BYTES: c_int = 1;
/// `cudaErrorNotReady`
pub const NOT_READY: c_int = 600;
/// `cudaStreamNonBlocking`
pub const NON_BLOCKING: c_uint = 1;
/// `cudaMemcpyHostToDevice`, `cudaMemcpyDeviceToHost`
pub const TO_CARD: c_int = 1;
pub const FROM_CARD: c_int = 2;

pub type Stream = *mut c_void;
pub type Communicator = *mut c_void;

/// `ncclUniqueId`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId(pub [u8; 128]);

/// The functions of a library that are called here, under their own names.
macro_rules! functions {
    ($library:ident { $($name:ident($($argument:ty),*) -> $result:ty;)* }) => {
        #[allow(non_snake_case, reason = "the library's names")]
        pub struct $library {
            $(pub $name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl $library {
            /// From the first library of these names that is there, which stays open.
            pub fn open(names: &[&str]) -> Result<Self> {
                let library = first(names)?;
                let found = Self {
                    // SAFETY: the types are those of the library's header.
                    $($name: *unsafe { library.get(stringify!($name)) }.map_err(|cause| missing(names[0], &cause))?,)*
                };
                std::mem::forget(library);
                Ok(found)
            }
        }
    };
}

functions!(Nccl {
    ncclGetUniqueId(*mut UniqueId) -> c_int;
    ncclCommInitRank(*mut Communicator, c_int, UniqueId, c_int) -> c_int;
    ncclCommGetAsyncError(Communicator, *mut c_int) -> c_int;
    ncclCommAbort(Communicator) -> c_int;
    ncclCommDestroy(Communicator) -> c_int;
    ncclGroupStart() -> c_int;
    ncclGroupEnd() -> c_int;
    ncclSend(*const c_void, usize, c_int, c_int, Communicator, Stream) -> c_int;
    ncclRecv(*mut c_void, usize, c_int, c_int, Communicator, Stream) -> c_int;
    ncclGetErrorString(c_int) -> *const c_char;
});

functions!(Cuda {
    cudaSetDevice(c_int) -> c_int;
    cudaMalloc(*mut *mut c_void, usize) -> c_int;
    cudaFree(*mut c_void) -> c_int;
    cudaStreamCreateWithFlags(*mut Stream, c_uint) -> c_int;
    cudaStreamDestroy(Stream) -> c_int;
    cudaStreamQuery(Stream) -> c_int;
    cudaMemcpyAsync(*mut c_void, *const c_void, usize, c_int, Stream) -> c_int;
    cudaGetErrorString(c_int) -> *const c_char;
});

pub fn first(names: &[&str]) -> Result<Library> {
    let mut causes = Vec::new();
    for name in names {
        // SAFETY: what these libraries do when they are opened is what every program that uses them relies on.
        match unsafe { Library::new(*name) } {
            Ok(library) => return Ok(library),
            Err(cause) => causes.push(cause),
        }
    }
    Err(missing(names[0], &causes.swap_remove(0)))
}

fn missing(name: &str, cause: &libloading::Error) -> Error {
    Error::new(ErrorKind::NotFound, format!("{name}: {cause}"))
}

/// The libraries.
pub struct Calls {
    pub nccl: Nccl,
    pub cuda: Cuda,
}

impl Calls {
    pub fn open() -> Result<Self> {
        Ok(Self {
            nccl: Nccl::open(&["libnccl.so.2", "libnccl.so"])?,
            cuda: Cuda::open(&["libcudart.so.13", "libcudart.so.12", "libcudart.so"])?,
        })
    }

    pub fn nccl(&self, code: c_int) -> Result<()> {
        self.check(code, "NCCL", self.nccl.ncclGetErrorString)
    }

    pub fn cuda(&self, code: c_int) -> Result<()> {
        self.check(code, "CUDA", self.cuda.cudaGetErrorString)
    }

    fn check(&self, code: c_int, who: &str, text: unsafe extern "C" fn(c_int) -> *const c_char) -> Result<()> {
        if code == SUCCESS {
            return Ok(());
        }
        // SAFETY: both libraries give a text that is never freed for every number.
        let text = unsafe { CStr::from_ptr(text(code)) }.to_string_lossy();
        Err(Error::other(format!("{who}: {text}")))
    }
}
