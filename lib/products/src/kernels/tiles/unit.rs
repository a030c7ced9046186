//! The tile unit of a processor with AMX: whether it may be used, its shape, and the loops that run on it.
//!
//! Stable Rust has no intrinsics for it, so each loop over k is one `asm!` block, which takes its sums from memory and puts them
//! back: nothing lives in a tile between two blocks, and no bit is lost on the way.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Rows of a tile, and its 32-bit units along them: of the left side 16 rows of 32 bf16, of the right side 16 pairs of rows of 16.
pub(super) const SIDE: usize = 16;
/// Numbers along k that one instruction takes.
pub(super) const STEP: usize = 32;
/// A loop multiplies 2 × 2 tiles: so many rows by so many columns.
pub(super) const BLOCK: usize = 2 * SIDE;

/// A row of a tile.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u32; SIDE]);

/// The sums of a block, (rows, columns).
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sums(pub [[f32; BLOCK]; BLOCK]);

impl Sums {
    pub const ZERO: Self = Self([[0.0; BLOCK]; BLOCK]);
}

/// Whether this process may use the unit. The kernel is asked for its registers at the first call; the permission is the
/// process's, so that threads have it that were there before.
pub fn is_permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| has_instructions() && ask_permission())
}

fn has_instructions() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    let wide = is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16");
    if !wide || __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: XGETBV is there where OSXSAVE says so.
    let states = unsafe { enabled_states() };
    __cpuid_count(7, 0).edx & BF16_AND_TILE == BF16_AND_TILE && states & TILE_STATE == TILE_STATE
}

#[target_feature(enable = "xsave")]
unsafe fn enabled_states() -> u64 {
    // SAFETY: passed on.
    unsafe { _xgetbv(0) }
}

#[cfg(target_os = "linux")]
fn ask_permission() -> bool {
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two plain integers.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

/// Elsewhere nothing is known to ask.
#[cfg(not(target_os = "linux"))]
fn ask_permission() -> bool {
    false
}

/// Two tiles of a left side, of one part, for each step along k: where the first of either begins, the bytes from one line to the
/// next, and those from one step to the next.
#[derive(Clone, Copy)]
pub(super) struct LeftTiles {
    pub halves: [*const u8; 2],
    pub stride: usize,
    pub step: usize,
}

impl LeftTiles {
    /// Of tiles that were packed, a step's two one after the other.
    pub fn packed(tiles: *const Line) -> Self {
        Self {
            halves: [tiles, tiles.wrapping_add(SIDE)].map(<*const Line>::cast),
            stride: size_of::<Line>(),
            step: 2 * SIDE * size_of::<Line>(),
        }
    }
}

/// The unit, ready on this thread: all eight tiles of 16 rows of 64 bytes. Dropped, it is empty again, so that the system need not
/// save it.
pub(super) struct Tiles(());

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Tiles {
    /// # Safety
    /// [`is_permitted`] said so.
    pub unsafe fn new() -> Self {
        // SAFETY: the unit is there and the configuration is one of palette 1.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, readonly));
        }
        Self(())
    }

    /// Adds the products of two by two tiles, one step after the other: a step of each side is two tiles. The right side streams by;
    /// its loads say so, for the sake of what stays in the cache.
    ///
    /// # Safety
    /// So many steps of both sides are there, at least one.
    pub unsafe fn multiply(&self, left: LeftTiles, right: *const Line, steps: usize, sums: &mut Sums) {
        // SAFETY: the unit is configured, as `self` shows; `sums` takes 32 rows of 128 bytes.
        unsafe {
            asm!(
                "tileloadd tmm0, [{c} + {c_stride}]",
                "tileloadd tmm1, [{c} + {c_stride} + 64]",
                "tileloadd tmm2, [{c} + {c_stride} + 2048]",
                "tileloadd tmm3, [{c} + {c_stride} + 2112]",
                "2:",
                "tileloadd tmm4, [{a} + {a_stride}]",
                "tileloaddt1 tmm6, [{b} + {stride}]",
                "tileloaddt1 tmm7, [{b} + {stride} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a2} + {a_stride}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, {a_step}",
                "add {a2}, {a_step}",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {c_stride}], tmm0",
                "tilestored [{c} + {c_stride} + 64], tmm1",
                "tilestored [{c} + {c_stride} + 2048], tmm2",
                "tilestored [{c} + {c_stride} + 2112], tmm3",
                a = inout(reg) left.halves[0] => _,
                a2 = inout(reg) left.halves[1] => _,
                a_stride = in(reg) left.stride,
                a_step = in(reg) left.step,
                b = inout(reg) right => _,
                stride = in(reg) 64_usize,
                c = in(reg) sums,
                c_stride = in(reg) 128_usize,
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// The same of numbers in two parts, a step of each side being two tiles of the high parts and two of the low ones: of the four
    /// products all but low by low, which is below what two parts can say.
    ///
    /// # Safety
    /// So many steps of both sides are there, at least one.
    pub unsafe fn multiply_parts(&self, left: *const Line, right: *const Line, steps: usize, sums: &mut Sums) {
        // SAFETY: as above.
        unsafe {
            asm!(
                "tileloadd tmm0, [{c} + {c_stride}]",
                "tileloadd tmm1, [{c} + {c_stride} + 64]",
                "tileloadd tmm2, [{c} + {c_stride} + 2048]",
                "tileloadd tmm3, [{c} + {c_stride} + 2112]",
                "2:",
                "tileloadd tmm4, [{a} + {stride}]",
                "tileloaddt1 tmm6, [{b} + {stride} + 2048]",
                "tileloaddt1 tmm7, [{b} + {stride} + 3072]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {stride} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloaddt1 tmm6, [{b} + {stride}]",
                "tileloaddt1 tmm7, [{b} + {stride} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm4, [{a} + {stride} + 2048]",
                "tileloadd tmm5, [{a} + {stride} + 3072]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 4096",
                "add {b}, 4096",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {c_stride}], tmm0",
                "tilestored [{c} + {c_stride} + 64], tmm1",
                "tilestored [{c} + {c_stride} + 2048], tmm2",
                "tilestored [{c} + {c_stride} + 2112], tmm3",
                a = inout(reg) left => _,
                b = inout(reg) right => _,
                stride = in(reg) 64_usize,
                c = in(reg) sums,
                c_stride = in(reg) 128_usize,
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the unit is there, as `self` shows.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
