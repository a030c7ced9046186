//! Containers put together by hand from `man/acts.5`, with every field open to a lie and every digest repaired afterwards. It shares no
//! code with `lib/acts`, so it is a second reading of the specification too.
#![allow(dead_code, reason = "each test file uses its part")]

pub const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A block as its descriptor and the manifest state it.
#[derive(Clone)]
pub struct Block {
    pub number: u64,
    pub tensor: u32,
    pub row_count: u32,
    pub first_row: u64,
    pub raw_bytes: u32,
    pub payload: Vec<u8>,
    /// (compressed, decompressed) of the payload's frames.
    pub frames: Vec<(u32, u32)>,
    /// What the manifest says instead of the truth.
    pub offset_claim: Option<u64>,
    pub digest_claim: Option<[u8; 32]>,
}

/// Totals that the manifest states of a tensor.
#[derive(Clone)]
pub struct Totals {
    pub rows: u64,
    pub raw_bytes: u64,
    pub nan_count: u64,
    pub inf_count: u64,
    pub digest: [u8; 32],
}

#[derive(Clone)]
pub struct Craft {
    pub json: String,
    pub version: u32,
    pub key: [u8; 32],
    pub blocks: Vec<Block>,
    pub totals: Vec<Totals>,
    pub state: u32,
    pub tensor_count: Option<u32>,
    pub block_count: Option<u64>,
    pub manifest_offset: Option<u64>,
    pub seek_edit: fn(&mut Vec<(u32, u32)>),
    pub seek_count: Option<u32>,
}

pub fn u8_header(block_rows: u64, extra: &str) -> String {
    format!(
        "{{\"file_id\":\"sha256:{}\",\"tool\":\"craft\",\"tool_version\":\"0\",\"tensors\":[{{\"name\":\"x\",\"dtype\":\"u8\",\"row_shape\":[],\"codec\":\"zstd\",\"level\":1,\"block_row_count\":{block_rows},\"role\":\"data\"}}]{extra}}}",
        "07".repeat(32)
    )
}

/// A zstd frame of raw blocks with content size and checksum, as the format wants it.
pub fn zstd_frame(data: &[u8]) -> Vec<u8> {
    let mut frame = [
        ZSTD_MAGIC.as_slice(),
        &[0x84, 7 << 3],
        &(data.len() as u32).to_le_bytes(),
    ]
    .concat();
    let mut chunks = data.chunks(128 << 10).peekable();
    while let Some(chunk) = chunks.next() {
        let head = (chunk.len() as u32) << 3 | u32::from(chunks.peek().is_none());
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(chunk);
    }
    frame.extend_from_slice(&checksum(data));
    frame
}

pub fn checksum(data: &[u8]) -> [u8; 4] {
    use std::hash::Hasher;
    let mut hash = twox_hash::XxHash64::with_seed(0);
    hash.write(data);
    (hash.finish() as u32).to_le_bytes()
}

impl Craft {
    /// A sound container of one u8 tensor: `raw` in blocks of `block_rows` bytes.
    pub fn new(raw: &[u8], block_rows: usize) -> Craft {
        let blocks = raw.chunks(block_rows).enumerate().map(|(number, chunk)| {
            let payload = zstd_frame(chunk);
            Block {
                number: number as u64,
                tensor: 0,
                row_count: chunk.len() as u32,
                first_row: (number * block_rows) as u64,
                raw_bytes: chunk.len() as u32,
                frames: vec![(payload.len() as u32, chunk.len() as u32)],
                payload,
                offset_claim: None,
                digest_claim: None,
            }
        });
        Craft {
            json: u8_header(block_rows as u64, ""),
            version: 1,
            key: [7; 32],
            blocks: blocks.collect(),
            totals: vec![Totals {
                rows: raw.len() as u64,
                raw_bytes: raw.len() as u64,
                nan_count: 0,
                inf_count: 0,
                digest: *blake3::hash(raw).as_bytes(),
            }],
            state: 1,
            tensor_count: None,
            block_count: None,
            manifest_offset: None,
            seek_edit: |_| {},
            seek_count: None,
        }
    }

    /// The header frame of this JSON text, and its digest.
    pub fn header(&self) -> (Vec<u8>, [u8; 32]) {
        let text = self.json.as_bytes();
        let mut frame = Vec::new();
        frame.extend_from_slice(&0x184D_2A50u32.to_le_bytes());
        frame.extend_from_slice(&(text.len() as u32 + 48).to_le_bytes());
        frame.extend_from_slice(b"flacts\r\n");
        frame.extend_from_slice(&self.version.to_le_bytes());
        frame.extend_from_slice(&(text.len() as u32).to_le_bytes());
        frame.extend_from_slice(text);
        let digest = *blake3::hash(&frame).as_bytes();
        frame.extend_from_slice(&digest);
        (frame, digest)
    }

    fn fields(block: &Block) -> Vec<u8> {
        let mut fields = Vec::new();
        fields.extend_from_slice(&block.number.to_le_bytes());
        fields.extend_from_slice(&block.tensor.to_le_bytes());
        fields.extend_from_slice(&block.row_count.to_le_bytes());
        fields.extend_from_slice(&block.first_row.to_le_bytes());
        fields.extend_from_slice(&block.raw_bytes.to_le_bytes());
        fields.extend_from_slice(&(block.payload.len() as u32).to_le_bytes());
        fields
    }

    fn digest(&self, block: &Block) -> [u8; 32] {
        let body = [Self::fields(block), block.payload.clone()].concat();
        *blake3::keyed_hash(&self.key, &body).as_bytes()
    }

    pub fn build(&self) -> Vec<u8> {
        let (mut file, header_digest) = self.header();
        let mut seek = vec![(file.len() as u32, 0)];
        let mut entries = Vec::new();
        for block in &self.blocks {
            let offset = file.len() as u64;
            let digest = self.digest(block);
            file.extend_from_slice(&0x184D_2A51u32.to_le_bytes());
            file.extend_from_slice(&64u32.to_le_bytes());
            file.extend_from_slice(&Self::fields(block));
            file.extend_from_slice(&digest);
            file.extend_from_slice(&block.payload);
            seek.push((72, 0));
            seek.extend_from_slice(&block.frames);
            entries.extend_from_slice(&block.offset_claim.unwrap_or(offset).to_le_bytes());
            entries.extend_from_slice(&block.tensor.to_le_bytes());
            entries.extend_from_slice(&block.row_count.to_le_bytes());
            entries.extend_from_slice(&block.first_row.to_le_bytes());
            entries.extend_from_slice(&block.raw_bytes.to_le_bytes());
            entries.extend_from_slice(&(block.payload.len() as u32).to_le_bytes());
            entries.extend_from_slice(&block.digest_claim.unwrap_or(digest));
        }
        let manifest_bytes = 104 + 64 * self.totals.len() + entries.len() + 32;
        seek.push((manifest_bytes as u32, 0));
        (self.seek_edit)(&mut seek);
        let mut table = Vec::new();
        table.extend_from_slice(&0x184D_2A5Eu32.to_le_bytes());
        table.extend_from_slice(&(seek.len() as u32 * 8 + 9).to_le_bytes());
        for (stored, raw) in &seek {
            table.extend_from_slice(&stored.to_le_bytes());
            table.extend_from_slice(&raw.to_le_bytes());
        }
        table.extend_from_slice(&self.seek_count.unwrap_or(seek.len() as u32).to_le_bytes());
        table.push(0);
        table.extend_from_slice(&0x8F92_EAB1u32.to_le_bytes());

        let mut manifest = Vec::new();
        manifest.extend_from_slice(&0x184D_2A53u32.to_le_bytes());
        manifest.extend_from_slice(&(manifest_bytes as u32 - 8).to_le_bytes());
        manifest.extend_from_slice(b"actsend\n");
        manifest.extend_from_slice(&self.state.to_le_bytes());
        manifest.extend_from_slice(&self.tensor_count.unwrap_or(self.totals.len() as u32).to_le_bytes());
        manifest.extend_from_slice(&self.block_count.unwrap_or(self.blocks.len() as u64).to_le_bytes());
        manifest.extend_from_slice(&self.manifest_offset.unwrap_or(file.len() as u64).to_le_bytes());
        manifest.extend_from_slice(&header_digest);
        manifest.extend_from_slice(blake3::hash(&table).as_bytes());
        for totals in &self.totals {
            for number in [totals.rows, totals.raw_bytes, totals.nan_count, totals.inf_count] {
                manifest.extend_from_slice(&number.to_le_bytes());
            }
            manifest.extend_from_slice(&totals.digest);
        }
        manifest.extend_from_slice(&entries);
        let digest = *blake3::keyed_hash(&self.key, &manifest).as_bytes();
        manifest.extend_from_slice(&digest);
        [file, manifest, table].concat()
    }

    /// The same with another header text.
    pub fn with_json(mut self, json: impl Into<String>) -> Craft {
        self.json = json.into();
        self
    }

    /// The same after `edit`.
    pub fn edited(mut self, edit: impl FnOnce(&mut Craft)) -> Craft {
        edit(&mut self);
        self
    }
}
