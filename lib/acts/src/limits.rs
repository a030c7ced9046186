//! Every limit of the format, once. A reader refuses what exceeds them before it allocates; the writer refuses to make it.
//! `man/acts.5` lists the same numbers.

/// Bytes of the header's JSON text.
pub const HEADER_JSON_BYTES: usize = 16 << 20;
/// Nesting of the header's JSON text.
pub const HEADER_DEPTH: usize = 16;
/// JSON values in a header: bounds the memory that parsing takes, which the byte count alone does not.
pub const HEADER_VALUES: usize = 1 << 20;
/// Tensors in one container.
pub const TENSORS: usize = 65_536;
/// Bytes of a tensor name.
pub const NAME_BYTES: usize = 255;
/// Axes of a tensor, the row axis included; a row has at most one fewer.
pub const RANK: usize = 8;
/// Extent of one axis.
pub const DIMENSION: u64 = 1 << 40;
/// Elements of one tensor.
pub const ELEMENTS: u64 = 1 << 45;
/// Raw bytes of one tensor.
pub const RAW_BYTES: u64 = 1 << 46;
/// Raw bytes of one block, so also of one row.
pub const BLOCK_RAW_BYTES: u32 = 64 << 20;
/// Blocks of one container: keeps the manifest and the seek table inside a skippable frame's 32-bit length.
pub const BLOCKS: u64 = 1 << 25;
/// The largest window a zstd frame may ask a reader to keep.
pub const ZSTD_WINDOW_BYTES: u64 = 1 << 24;
/// Compression levels a writer takes.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;
/// `stored` payloads begin at a multiple of this, so a mapped row table is a slice of whole pages.
pub const STORED_ALIGNMENT: u64 = 4096;

/// The default block: 256 MiB shared by all tensors, within 1 MiB and 4 MiB.
const BUFFER_BYTES: u64 = 256 << 20;
const DEFAULT_BLOCK_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(4 << 20);
/// `stored` gains nothing from large blocks and a scattered read verifies whole ones, so its blocks are small.
const DEFAULT_STORED_BLOCK_BYTES: u64 = 256 << 10;

/// Rows per block that a plan uses when the user names none: a function of the row and of the number of tensors, nothing else.
pub fn default_block_row_count(row_bytes: u64, tensor_count: usize, codec: crate::Codec) -> u64 {
    let tensors = u64::try_from(tensor_count.max(1)).unwrap_or(u64::MAX);
    let bytes = match codec {
        crate::Codec::Stored => DEFAULT_STORED_BLOCK_BYTES,
        crate::Codec::Zstd | crate::Codec::ZstdPlanes => BUFFER_BYTES
            .checked_div(tensors)
            .unwrap_or(0)
            .clamp(*DEFAULT_BLOCK_BYTES.start(), *DEFAULT_BLOCK_BYTES.end()),
    };
    bytes.checked_div(row_bytes.max(1)).unwrap_or(1).max(1)
}

/// The most bytes zstd may need for `raw` bytes in one frame (its `ZSTD_COMPRESSBOUND`, plus a frame header and checksum).
pub(crate) fn zstd_frame_bytes_max(raw: u64) -> u64 {
    const SMALL: u64 = 128 << 10;
    let margin = if raw < SMALL {
        SMALL.saturating_sub(raw) >> 11
    } else {
        0
    };
    raw.saturating_add(raw >> 8).saturating_add(margin).saturating_add(64)
}
