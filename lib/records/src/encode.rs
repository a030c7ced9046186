//! One value to one line of JSON: numbers in their own shortest form, integers beyond 2^53 as strings, non-finite numbers refused, no key
//! twice. Our own serializer, because serde_json writes a NaN as `null` before any hook of it can object.

use std::fmt::Display;

use serde::ser::{self, Serialize};

use crate::error::Fault;

/// The largest integer up to which every integer is exact in a reader that knows only f64 (JavaScript, jq).
pub(crate) const EXACT_INTEGER_MAX: u64 = 1 << 53;

/// Appends `value` as JSON.
pub(crate) fn append(out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Fault> {
    value.serialize(&mut Encoder { out }).map_err(|Refusal(fault)| fault)
}

#[derive(Debug)]
struct Refusal(Fault);

impl Display for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}
impl std::error::Error for Refusal {}
impl ser::Error for Refusal {
    fn custom<T: Display>(reason: T) -> Refusal {
        Refusal(Fault::Unacceptable {
            reason: reason.to_string(),
        })
    }
}

struct Encoder<'o> {
    out: &'o mut Vec<u8>,
}

type Done = Result<(), Refusal>;

impl Encoder<'_> {
    /// What serde_json already writes as the contract wants it: strings, and finite numbers in their shortest form.
    fn plain(&mut self, value: &(impl Serialize + ?Sized)) -> Done {
        serde_json::to_writer(&mut *self.out, value).map_err(ser::Error::custom)
    }

    fn integer(&mut self, value: impl Serialize + Display, is_exact: bool) -> Done {
        if is_exact {
            self.plain(&value)
        } else {
            self.plain(&value.to_string())
        }
    }
}

impl<'e, 'o> ser::Serializer for &'e mut Encoder<'o> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = Compound<'e, 'o>;
    type SerializeTuple = Compound<'e, 'o>;
    type SerializeTupleStruct = Compound<'e, 'o>;
    type SerializeTupleVariant = Compound<'e, 'o>;
    type SerializeMap = Compound<'e, 'o>;
    type SerializeStruct = Compound<'e, 'o>;
    type SerializeStructVariant = Compound<'e, 'o>;

    fn serialize_bool(self, value: bool) -> Done {
        self.plain(&value)
    }
    fn serialize_i8(self, value: i8) -> Done {
        self.plain(&value)
    }
    fn serialize_i16(self, value: i16) -> Done {
        self.plain(&value)
    }
    fn serialize_i32(self, value: i32) -> Done {
        self.plain(&value)
    }
    fn serialize_i64(self, value: i64) -> Done {
        self.integer(value, value.unsigned_abs() <= EXACT_INTEGER_MAX)
    }
    fn serialize_i128(self, value: i128) -> Done {
        self.integer(value, value.unsigned_abs() <= EXACT_INTEGER_MAX.into())
    }
    fn serialize_u8(self, value: u8) -> Done {
        self.plain(&value)
    }
    fn serialize_u16(self, value: u16) -> Done {
        self.plain(&value)
    }
    fn serialize_u32(self, value: u32) -> Done {
        self.plain(&value)
    }
    fn serialize_u64(self, value: u64) -> Done {
        self.integer(value, value <= EXACT_INTEGER_MAX)
    }
    fn serialize_u128(self, value: u128) -> Done {
        self.integer(value, value <= EXACT_INTEGER_MAX.into())
    }
    fn serialize_f32(self, value: f32) -> Done {
        if value.is_finite() {
            self.plain(&value)
        } else {
            Err(Refusal(json::Fault::NonFinite { key: None }.into()))
        }
    }
    fn serialize_f64(self, value: f64) -> Done {
        if value.is_finite() {
            self.plain(&value)
        } else {
            Err(Refusal(json::Fault::NonFinite { key: None }.into()))
        }
    }
    fn serialize_char(self, value: char) -> Done {
        self.plain(&value)
    }
    fn serialize_str(self, value: &str) -> Done {
        self.plain(value)
    }
    fn serialize_bytes(self, value: &[u8]) -> Done {
        self.plain(value)
    }
    fn serialize_none(self) -> Done {
        self.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Done {
        self.out.extend_from_slice(b"null");
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Done {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        self.plain(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Done {
        self.out.push(b'{');
        self.plain(variant)?;
        self.out.push(b':');
        value.serialize(&mut *self)?;
        self.out.push(b'}');
        Ok(())
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'e, 'o>, Refusal> {
        Ok(Compound::open(self, b"[", b"]"))
    }
    fn serialize_tuple(self, _: usize) -> Result<Compound<'e, 'o>, Refusal> {
        Ok(Compound::open(self, b"[", b"]"))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'e, 'o>, Refusal> {
        Ok(Compound::open(self, b"[", b"]"))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'e, 'o>, Refusal> {
        self.out.push(b'{');
        self.plain(variant)?;
        self.out.push(b':');
        Ok(Compound::open(self, b"[", b"]}"))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'e, 'o>, Refusal> {
        Ok(Compound::open(self, b"{", b"}"))
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'e, 'o>, Refusal> {
        Ok(Compound::open(self, b"{", b"}"))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'e, 'o>, Refusal> {
        self.out.push(b'{');
        self.plain(variant)?;
        self.out.push(b':');
        Ok(Compound::open(self, b"{", b"}}"))
    }
}

/// An array or object being written. Keys are kept as ranges of the output: a struct with a flattened rest can name one twice.
struct Compound<'e, 'o> {
    encoder: &'e mut Encoder<'o>,
    close: &'static [u8],
    is_empty: bool,
    keys: Vec<std::ops::Range<usize>>,
    /// Beyond a handful of keys a set takes over from comparing them all.
    key_set: std::collections::HashSet<Vec<u8>>,
}

const KEYS_COMPARED_MAX: usize = 32;

impl<'e, 'o> Compound<'e, 'o> {
    fn open(encoder: &'e mut Encoder<'o>, open: &'static [u8], close: &'static [u8]) -> Self {
        encoder.out.extend_from_slice(open);
        Compound {
            encoder,
            close,
            is_empty: true,
            keys: Vec::new(),
            key_set: Default::default(),
        }
    }

    fn separate(&mut self) {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.encoder.out.push(b',');
        }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.separate();
        value.serialize(&mut *self.encoder)
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        self.separate();
        let from = self.encoder.out.len();
        key.serialize(&mut *self.encoder)?;
        match self.encoder.out[from] {
            b'"' => {}
            b'-' | b'0'..=b'9' => {
                self.encoder.out.insert(from, b'"');
                self.encoder.out.push(b'"');
            }
            _ => return Err(ser::Error::custom("an object key must be a string or an integer")),
        }
        let written = from..self.encoder.out.len();
        let out: &[u8] = self.encoder.out;
        let is_new = if self.keys.len() < KEYS_COMPARED_MAX {
            self.keys.iter().all(|known| out[known.clone()] != out[written.clone()])
        } else {
            if self.key_set.is_empty() {
                self.key_set
                    .extend(self.keys.iter().map(|known| out[known.clone()].to_vec()));
            }
            self.key_set.insert(out[written.clone()].to_vec())
        };
        if !is_new {
            let key = String::from_utf8_lossy(&out[written.start + 1..written.end - 1]);
            return Err(Refusal(json::Fault::KeyDuplicate { key: key.into() }.into()));
        }
        self.keys.push(written);
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.encoder.out.push(b':');
        match (value.serialize(&mut *self.encoder), self.keys.last()) {
            (Err(Refusal(Fault::Json(json::Fault::NonFinite { key: None }))), Some(key)) => {
                let key = String::from_utf8_lossy(&self.encoder.out[key.start + 1..key.end - 1]);
                Err(Refusal(json::Fault::NonFinite { key: Some(key.into()) }.into()))
            }
            (done, _) => done,
        }
    }

    fn close(self) -> Done {
        self.encoder.out.extend_from_slice(self.close);
        Ok(())
    }
}

impl ser::SerializeSeq for Compound<'_, '_> {
    type Ok = ();
    type Error = Refusal;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.element(value)
    }
    fn end(self) -> Done {
        self.close()
    }
}
impl ser::SerializeTuple for Compound<'_, '_> {
    type Ok = ();
    type Error = Refusal;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.element(value)
    }
    fn end(self) -> Done {
        self.close()
    }
}
impl ser::SerializeTupleStruct for Compound<'_, '_> {
    type Ok = ();
    type Error = Refusal;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.element(value)
    }
    fn end(self) -> Done {
        self.close()
    }
}
impl ser::SerializeTupleVariant for Compound<'_, '_> {
    type Ok = ();
    type Error = Refusal;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.element(value)
    }
    fn end(self) -> Done {
        self.close()
    }
}
impl ser::SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = Refusal;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        self.key(key)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.value(value)
    }
    fn end(self) -> Done {
        self.close()
    }
}
impl ser::SerializeStruct for Compound<'_, '_> {
    type Ok = ();
    type Error = Refusal;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Done {
        self.key(key)?;
        self.value(value)
    }
    fn end(self) -> Done {
        self.close()
    }
}
impl ser::SerializeStructVariant for Compound<'_, '_> {
    type Ok = ();
    type Error = Refusal;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Done {
        self.key(key)?;
        self.value(value)
    }
    fn end(self) -> Done {
        self.close()
    }
}
