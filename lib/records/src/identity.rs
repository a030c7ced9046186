//! Who a row is: ids, digests of texts, buckets and the key by which rows of different tools are joined.

use std::collections::{HashMap, HashSet};

use json::KeyName;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::{Fault, Result};

/// `sha256:<hex>` of the UTF-8 bytes; `printf %s "$text" | sha256sum` agrees.
///
/// ```
/// assert_eq!(records::text_digest("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// ```
pub fn text_digest(text: &str) -> String {
    let mut name = String::from("sha256:");
    for byte in Sha256::digest(text.as_bytes()) {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

/// The bucket of a text, 0..64: the first six bits of its digest. Shards own ranges of buckets.
///
/// ```
/// // ba… = 1011_1010…: the first six bits are 101110.
/// assert_eq!(records::bucket(&records::text_digest("abc")), Some(0b101110));
/// ```
pub fn bucket(text_digest: &str) -> Option<u8> {
    let hex = text_digest.strip_prefix("sha256:")?;
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(&hex[..2], 16).ok().map(|byte| byte >> 2)
}

/// The id of an input row: its `id` as given (integers in decimal), or `#<sample_index>` where it has none (or an empty one).
pub fn id_of(row: &Map<String, Value>, sample_index: u64) -> std::result::Result<String, Fault> {
    match row.get("id") {
        None | Some(Value::Null) => Ok(format!("#{sample_index}")),
        Some(Value::String(id)) if id.is_empty() => Ok(format!("#{sample_index}")),
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Number(id)) if !id.is_f64() => Ok(id.to_string()),
        Some(other) => Err(Fault::KeyMismatch {
            key: "id".into(),
            found: json::kind(other).into(),
            expected: "a string or an integer".into(),
        }),
    }
}

/// Serde form of [`id_of`] for records whose `id` is required: a string, or an integer in decimal.
pub(crate) fn id_text<'de, D: serde::Deserializer<'de>>(input: D) -> std::result::Result<String, D::Error> {
    struct Id;
    impl serde::de::Visitor<'_> for Id {
        type Value = String;
        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("a string or an integer")
        }
        fn visit_str<E>(self, id: &str) -> std::result::Result<String, E> {
            Ok(id.to_owned())
        }
        fn visit_u64<E>(self, id: u64) -> std::result::Result<String, E> {
            Ok(id.to_string())
        }
        fn visit_i64<E>(self, id: i64) -> std::result::Result<String, E> {
            Ok(id.to_string())
        }
    }
    input.deserialize_any(Id)
}

/// The key by which rows meet: (`bench`, `id`, `attempt_index`); an absent `bench` is `""`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JoinKey {
    pub bench: String,
    pub id: String,
    pub attempt_index: u64,
}

impl JoinKey {
    pub fn new(bench: Option<&str>, id: &str, attempt_index: u64) -> JoinKey {
        JoinKey {
            bench: bench.unwrap_or_default().into(),
            id: id.into(),
            attempt_index,
        }
    }
}

/// Keys that were seen, 16 bytes each, so that millions fit into memory: half of a SHA-256, which no two keys share by accident.
///
/// ```
/// let mut seen = records::Seen::default();
/// assert!(seen.insert("a judge", "xstest", "1", 0));
/// assert!(seen.insert("another", "xstest", "1", 0));
/// assert!(!seen.insert("a judge", "xstest", "1", 0));
/// ```
#[derive(Debug, Default)]
pub struct Seen {
    halves: HashSet<[u8; 16]>,
}

impl Seen {
    /// Whether the key is new among those of `whose` rows.
    pub fn insert(&mut self, whose: &str, bench: &str, id: &str, attempt_index: u64) -> bool {
        let mut hash = Sha256::new();
        for part in [whose, bench, id] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(attempt_index.to_le_bytes());
        let whole: [u8; 32] = hash.finalize().into();
        self.halves.insert(std::array::from_fn(|at| whole[at]))
    }
}

/// One side of a join: rows by key, each key once, digests compared when both sides have one.
///
/// ```
/// use records::{Index, JoinKey};
///
/// let mut answers = Index::new();
/// answers.insert(JoinKey::new(Some("xstest"), "1", 0), None, "an answer", 1)?;
/// assert_eq!(answers.get(&JoinKey::new(Some("xstest"), "1", 0), None, 1)?, Some(&"an answer"));
/// assert!(answers.insert(JoinKey::new(Some("xstest"), "1", 0), None, "another", 2).is_err());
/// # Ok::<(), records::Error>(())
/// ```
#[derive(Debug)]
pub struct Index<T> {
    rows: HashMap<JoinKey, (Option<String>, T)>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Index::new()
    }
}

impl<T> Index<T> {
    pub fn new() -> Index<T> {
        Index { rows: HashMap::new() }
    }

    /// Adds the row of `line`; a key seen before is refused.
    pub fn insert(&mut self, key: JoinKey, text_digest: Option<String>, row: T, line: u64) -> Result<()> {
        match self.rows.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => {
                let JoinKey {
                    bench,
                    id,
                    attempt_index,
                } = known.key();
                let (bench, id) = (KeyName::from(bench), KeyName::from(id));
                Err(Fault::Unacceptable {
                    reason: format!("second row for bench `{bench}`, id `{id}`, attempt {attempt_index}"),
                }
                .at_line(line))
            }
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert((text_digest, row));
                Ok(())
            }
        }
    }

    /// Finds the partner of the row of `line`; two digests that differ are refused.
    pub fn get(&self, key: &JoinKey, text_digest: Option<&str>, line: u64) -> Result<Option<&T>> {
        match self.rows.get(key) {
            Some((Some(known), _)) if text_digest.is_some_and(|digest| digest != known) => {
                let id = KeyName::from(&key.id);
                Err(Fault::Unacceptable {
                    reason: format!("id `{id}` stands for another text on the other side (text_digest differs)"),
                }
                .at_line(line))
            }
            Some((_, row)) => Ok(Some(row)),
            None => Ok(None),
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
