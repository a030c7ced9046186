//! The header: what a container says about itself, and the checks that make every later multiplication safe.
//! Strict on purpose: unknown fields, duplicate keys and depth are refused, because a header that two readers understand
//! differently is worse than none.

use crate::{Dtype, Error, Result, limits};
use serde::{Deserialize, Serialize};
use sha2::Digest;
use std::collections::HashSet;

const JSON: json::Limits = json::Limits {
    depth: limits::HEADER_DEPTH,
    value_count: limits::HEADER_VALUES,
    ..json::Limits::DOCUMENT
};

/// How blocks of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// Raw bytes in a skippable frame, aligned to a page: rows are read through the map without a copy.
    Stored,
    /// One zstd frame of the raw bytes: `zstd -dc` gives the numbers.
    Zstd,
    /// One zstd frame per byte of the element: better ratio and speed for floats.
    ZstdPlanes,
}

impl Codec {
    pub const ALL: [Codec; 3] = [Codec::Stored, Codec::Zstd, Codec::ZstdPlanes];

    pub fn name(self) -> &'static str {
        match self {
            Codec::Stored => "stored",
            Codec::Zstd => "zstd",
            Codec::ZstdPlanes => "zstd-planes",
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Codec {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Codec::ALL
            .into_iter()
            .find(|codec| codec.name() == text)
            .ok_or_else(|| format!("unknown codec {text:?} (stored, zstd, zstd-planes)"))
    }
}

/// Where in a block a tensor was taken; `man 5 acts` defines each, and each means the same in every model family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    Embed,
    ResidPre,
    ResidMid,
    ResidPost,
    QProj,
    KProj,
    Q,
    K,
    V,
    AttnLogitMax,
    AttnIn,
    AttnProj,
    AttnOut,
    MlpIn,
    MlpProj,
    MlpOut,
    MlpGate,
    MlpAct,
    MlpUp,
    RouterLogits,
    ExpertChoice,
    FinalNorm,
    Logits,
}

impl Site {
    pub const ALL: [Site; 23] = [
        Site::Embed,
        Site::ResidPre,
        Site::ResidMid,
        Site::ResidPost,
        Site::QProj,
        Site::KProj,
        Site::Q,
        Site::K,
        Site::V,
        Site::AttnLogitMax,
        Site::AttnIn,
        Site::AttnProj,
        Site::AttnOut,
        Site::MlpIn,
        Site::MlpProj,
        Site::MlpOut,
        Site::MlpGate,
        Site::MlpAct,
        Site::MlpUp,
        Site::RouterLogits,
        Site::ExpertChoice,
        Site::FinalNorm,
        Site::Logits,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Site::Embed => "embed",
            Site::ResidPre => "resid_pre",
            Site::ResidMid => "resid_mid",
            Site::ResidPost => "resid_post",
            Site::QProj => "q_proj",
            Site::KProj => "k_proj",
            Site::Q => "q",
            Site::K => "k",
            Site::V => "v",
            Site::AttnLogitMax => "attn_logit_max",
            Site::AttnIn => "attn_in",
            Site::AttnProj => "attn_proj",
            Site::AttnOut => "attn_out",
            Site::MlpIn => "mlp_in",
            Site::MlpProj => "mlp_proj",
            Site::MlpOut => "mlp_out",
            Site::MlpGate => "mlp_gate",
            Site::MlpAct => "mlp_act",
            Site::MlpUp => "mlp_up",
            Site::RouterLogits => "router_logits",
            Site::ExpertChoice => "expert_choice",
            Site::FinalNorm => "final_norm",
            Site::Logits => "logits",
        }
    }

    /// Whether the site exists once per block, so that its tensors carry a layer index.
    pub fn is_per_layer(self) -> bool {
        !matches!(self, Site::Embed | Site::FinalNorm | Site::Logits)
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Site {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Site::ALL
            .into_iter()
            .find(|site| site.name() == text)
            .ok_or_else(|| format!("unknown site {text:?}"))
    }
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Numbers of no declared meaning, as `acts-cat --from` makes them.
    #[default]
    Data,
    /// One row per token (or per sample), aligned with every other `activations` tensor and with the row tables.
    Activations,
    /// `token_id`, `sample_index`, `position`: one u32 per row of the activations.
    RowTable,
    /// Sample records as JSON lines.
    Samples,
    /// Accumulated statistics of activations that were not kept.
    Moments,
    /// A fitted basis.
    Basis,
    /// A plan of interventions in a model, and its vectors.
    Steering,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    pub index: u32,
    pub count: u32,
}

/// What computed the numbers. Two containers whose `compute` differ may differ in their last bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compute {
    pub dtype: Dtype,
    pub device: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// One tensor: rows of one shape, appended in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: Dtype,
    /// Shape of one row; `[]` is a scalar.
    pub row_shape: Vec<u64>,
    pub codec: Codec,
    /// zstd level; unused by `stored`.
    pub level: i32,
    /// Rows in every block but a tensor's last: the address of a row follows from it.
    pub block_row_count: u64,
    pub role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_index: Option<u32>,
    /// Total rows, where the plan knows them; the manifest must agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_count: Option<u64>,
}

impl TensorSpec {
    /// A tensor of `dtype` whose rows have `row_shape`; codec `zstd-planes`, level 1. [`Header::fix_blocks`] chooses the block size.
    pub fn new(name: impl Into<String>, dtype: Dtype, row_shape: &[u64]) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            dtype,
            row_shape: row_shape.to_vec(),
            codec: Codec::ZstdPlanes,
            level: 1,
            block_row_count: 0,
            role: Role::Data,
            site: None,
            layer_index: None,
            row_count: None,
        }
    }

    /// Activations of `site`, named as `spec/names` wants: `resid_post.3`, or the site alone where it exists once.
    pub fn activations(site: Site, layer_index: Option<u32>, dtype: Dtype, width: u64) -> TensorSpec {
        let name = match layer_index {
            Some(layer) => format!("{site}.{layer}"),
            None => site.to_string(),
        };
        TensorSpec {
            role: Role::Activations,
            site: Some(site),
            layer_index,
            ..TensorSpec::new(name, dtype, &[width])
        }
    }

    /// A row table: one u32 per row of the activations.
    pub fn row_table(name: &str) -> TensorSpec {
        TensorSpec {
            role: Role::RowTable,
            ..TensorSpec::new(name, Dtype::U32, &[])
        }
    }

    /// The table of sample records: bytes of JSON lines.
    pub fn samples() -> TensorSpec {
        TensorSpec {
            role: Role::Samples,
            codec: Codec::Zstd,
            ..TensorSpec::new("samples", Dtype::U8, &[])
        }
    }

    pub fn codec(mut self, codec: Codec) -> TensorSpec {
        self.codec = codec;
        self
    }

    pub fn role(mut self, role: Role) -> TensorSpec {
        self.role = role;
        self
    }

    pub fn rows(mut self, row_count: u64) -> TensorSpec {
        self.row_count = Some(row_count);
        self
    }

    /// Elements of one row, the product checked against the limits.
    pub fn row_elements(&self) -> Result<u64> {
        self.row_shape
            .iter()
            .try_fold(1u64, |product, extent| product.checked_mul(*extent))
            .filter(|elements| *elements <= limits::ELEMENTS)
            .ok_or_else(|| {
                Error::Header(format!(
                    "tensor {}: the product of row shape {:?} exceeds {} elements",
                    self.name,
                    self.row_shape,
                    limits::ELEMENTS
                ))
            })
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> Result<u64> {
        let bytes = u64::try_from(self.dtype.bytes()).unwrap_or(u64::MAX);
        self.row_elements()?
            .checked_mul(bytes)
            .filter(|bytes| *bytes <= u64::from(limits::BLOCK_RAW_BYTES))
            .ok_or_else(|| {
                Error::Header(format!(
                    "tensor {}: one row exceeds the block limit of {} bytes",
                    self.name,
                    limits::BLOCK_RAW_BYTES
                ))
            })
    }

    fn validate(&self) -> Result<()> {
        let refuse = |cause: String| Err(Error::Header(format!("tensor {:?}: {cause}", self.name)));
        if self.name.is_empty() || self.name.len() > limits::NAME_BYTES {
            return refuse(format!(
                "a name has 1 to {} bytes, this one {}",
                limits::NAME_BYTES,
                self.name.len()
            ));
        }
        let plain = self
            .name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte));
        if !plain || self.name.starts_with('/') || self.name.contains("..") {
            return refuse("a name holds only A-Z a-z 0-9 . _ / -, no \"..\" and no leading \"/\"".into());
        }
        // The row axis counts: a rank-8 tensor has rows of rank 7.
        if self.row_shape.len() >= limits::RANK {
            return refuse(format!(
                "rank {} exceeds {}",
                self.row_shape.len().saturating_add(1),
                limits::RANK
            ));
        }
        if let Some(extent) = self
            .row_shape
            .iter()
            .find(|extent| **extent == 0 || **extent > limits::DIMENSION)
        {
            return refuse(format!("an axis of {extent} is not within 1..={}", limits::DIMENSION));
        }
        let row_bytes = self.row_bytes()?;
        let block_bytes = self.block_row_count.checked_mul(row_bytes);
        if self.block_row_count == 0 || block_bytes.is_none_or(|bytes| bytes > u64::from(limits::BLOCK_RAW_BYTES)) {
            return refuse(format!(
                "{} rows of {row_bytes} bytes are no block of 1 row to {} bytes",
                self.block_row_count,
                limits::BLOCK_RAW_BYTES
            ));
        }
        if !limits::LEVELS.contains(&self.level) {
            return refuse(format!("level {} is not within {:?}", self.level, limits::LEVELS));
        }
        if let Some(rows) = self.row_count {
            check_rows(self, rows)?;
        }
        match (self.site, self.layer_index) {
            (Some(site), None) if site.is_per_layer() => refuse(format!("site {site} needs a layer_index")),
            (Some(site), Some(_)) if !site.is_per_layer() => refuse(format!("site {site} has no layer_index")),
            _ => Ok(()),
        }
    }
}

/// Rows × row bytes and rows × row elements within the limits.
pub(crate) fn check_rows(spec: &TensorSpec, rows: u64) -> Result<u64> {
    let bytes = rows
        .checked_mul(spec.row_bytes()?)
        .filter(|bytes| *bytes <= limits::RAW_BYTES);
    let elements = rows
        .checked_mul(spec.row_elements()?)
        .filter(|elements| *elements <= limits::ELEMENTS);
    match (bytes, elements) {
        (Some(bytes), Some(_)) if rows <= limits::DIMENSION => Ok(bytes),
        _ => Err(Error::Header(format!(
            "tensor {}: {rows} rows exceed the limits of one tensor",
            spec.name
        ))),
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// `sha256:<hex>`; the key of every block's digest, so a block of another container never verifies here.
    pub file_id: String,
    pub tool: String,
    pub tool_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// Absent for a whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// Damaged blocks of another container were left out: rows may be missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub salvaged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// Samples of the whole run, all shards together: what a merge must cover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_count: Option<u64>,
    /// Names of the groups that `moments.<g>.…` index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    pub tensors: Vec<TensorSpec>,
    /// Anything else the producer wants to keep.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub meta: serde_json::Map<String, serde_json::Value>,
}

impl Header {
    /// A header whose file id follows from the plan and the shard: `sha256(plan_digest ‖ index u32 ‖ count u32)`, a whole run being shard 0 of 1.
    pub fn new(tool: &str, tool_version: &str, plan_digest: &str, shard: Option<Shard>) -> Header {
        Header {
            file_id: file_id(plan_digest, shard),
            tool: tool.into(),
            tool_version: tool_version.into(),
            plan_digest: Some(plan_digest.into()),
            shard,
            salvaged: false,
            input_digest: None,
            model_digest: None,
            tokenizer_digest: None,
            template_digest: None,
            compute: None,
            sample_count: None,
            groups: Vec::new(),
            tensors: Vec::new(),
            meta: serde_json::Map::new(),
        }
    }

    /// Gives every tensor without a block size its default one. Call it once all tensors are listed: the default depends on their number.
    pub fn fix_blocks(&mut self) -> Result<()> {
        let count = self.tensors.len();
        for spec in self.tensors.iter_mut().filter(|spec| spec.block_row_count == 0) {
            spec.block_row_count = limits::default_block_row_count(spec.row_bytes()?, count, spec.codec);
        }
        Ok(())
    }

    /// Position of the tensor called `name`.
    pub fn tensor_index(&self, name: &str) -> Option<usize> {
        self.tensors.iter().position(|spec| spec.name == name)
    }

    /// The 32 bytes behind `file_id`.
    pub fn key(&self) -> Result<[u8; 32]> {
        digest_bytes(&self.file_id)
            .ok_or_else(|| Error::Header("file_id is not sha256: and 64 lower-case hexadecimal digits".into()))
    }

    pub fn validate(&self) -> Result<()> {
        self.key()?;
        if self.tensors.len() > limits::TENSORS {
            return Err(Error::Header(format!(
                "{} tensors, limit {}",
                self.tensors.len(),
                limits::TENSORS
            )));
        }
        if let Some(shard) = self.shard
            && (shard.count == 0 || shard.index >= shard.count)
        {
            return Err(Error::Header(format!("shard {} of {}", shard.index, shard.count)));
        }
        let mut names = HashSet::new();
        for spec in &self.tensors {
            spec.validate()?;
            if !names.insert(spec.name.as_str()) {
                return Err(Error::Header(format!("two tensors are named {:?}", spec.name)));
            }
        }
        Ok(())
    }

    /// The JSON text, validated: what a writer puts into the header frame.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let text = serde_json::to_vec(self).map_err(|error| Error::Header(error.to_string()))?;
        // Reading back what is written keeps a writer from making what its own reader refuses (depth, size, number of values).
        Header::from_json(&text)?;
        Ok(text)
    }

    pub fn from_json(text: &[u8]) -> Result<Header> {
        if text.len() > limits::HEADER_JSON_BYTES {
            return Err(Error::Header(format!(
                "{} bytes, limit {}",
                text.len(),
                limits::HEADER_JSON_BYTES
            )));
        }
        // Serde's typed reading alone would let duplicate keys, depth and a flood of values through in `meta`.
        let text = std::str::from_utf8(text).map_err(|error| Error::Header(error.to_string()))?;
        let object = json::object(text, &JSON).map_err(|fault| Error::Header(fault.to_string()))?;
        let header: Header = serde_json::from_value(object.into()).map_err(|error| Error::Header(error.to_string()))?;
        header.validate()?;
        Ok(header)
    }
}

/// `sha256(plan_digest text ‖ shard index, u32 LE ‖ shard count, u32 LE)` as `sha256:<hex>`.
pub fn file_id(plan_digest: &str, shard: Option<Shard>) -> String {
    let shard = shard.unwrap_or(Shard { index: 0, count: 1 });
    let mut hash = sha2::Sha256::new();
    hash.update(plan_digest.as_bytes());
    hash.update(shard.index.to_le_bytes());
    hash.update(shard.count.to_le_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    format!("sha256:{}", hex(&digest))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest_bytes(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("sha256:")?.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != 32 {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte.checked_sub(b'0'),
        b'a'..=b'f' => byte.checked_sub(b'a')?.checked_add(10),
        _ => None,
    };
    let mut bytes = [0u8; 32];
    for (slot, [high, low]) in bytes.iter_mut().zip(pairs) {
        *slot = digit(*high)?.checked_mul(16)?.checked_add(digit(*low)?)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let mut header = Header::new("test", "0", "sha256:00", None);
        header.tensors.push(TensorSpec::new("a", Dtype::F32, &[4]));
        header.fix_blocks().unwrap();
        header
    }

    #[test]
    fn a_header_survives_its_own_text() {
        let header = header();
        assert_eq!(Header::from_json(&header.to_json().unwrap()).unwrap(), header);
    }

    #[test]
    fn a_file_id_separates_plans_and_shards() {
        let of = |plan: &str, shard| file_id(plan, shard);
        assert_eq!(of("p", None), of("p", Some(Shard { index: 0, count: 1 })));
        assert_ne!(of("p", None), of("p", Some(Shard { index: 0, count: 2 })));
        assert_ne!(of("p", None), of("q", None));
    }

    #[test]
    fn unknown_fields_and_duplicate_keys_are_refused() {
        let text = String::from_utf8(header().to_json().unwrap()).unwrap();
        for (from, to) in [
            ("\"tool\"", "\"tooling\":1,\"tool\""),
            ("\"tool\":", "\"tool\":\"x\",\"tool\":"),
            ("\"tensors\"", "\"meta\":{\"a\":1,\"a\":2},\"tensors\""),
            ("\"level\":1", "\"level\":1,\"extra\":0"),
        ] {
            assert!(
                Header::from_json(text.replacen(from, to, 1).as_bytes()).is_err(),
                "{to}"
            );
        }
        assert!(Header::from_json(text.as_bytes()).is_ok());
    }

    #[test]
    fn names_that_leave_the_alphabet_are_refused() {
        for name in ["", "/a", "a/../b", "..", "a b", "a\n", "ä", &"x".repeat(256)] {
            let mut header = header();
            header.tensors[0].name = name.into();
            assert!(header.validate().is_err(), "{name:?}");
        }
    }
}
