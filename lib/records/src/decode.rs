//! One checked JSON text to one value: no duplicate keys, bounded depth, counts and digits, integers exact or refused.
//! Grammar is serde_json's; this module adds what that crate leaves open (it keeps the last of two equal keys, and rounds large integers).

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::Fault;
use crate::limits::Limits;

type Object = Map<String, Value>;

/// Decodes an object, every check on.
pub(crate) fn object(text: &str, limits: &Limits) -> Result<Object, Fault> {
    decode(text, limits, None)
}

/// Decodes the named top-level keys of an object; the others are checked for grammar alone and dropped.
pub(crate) fn object_fields(text: &str, limits: &Limits, fields: &[String]) -> Result<Object, Fault> {
    decode(text, limits, Some(fields))
}

fn decode(text: &str, limits: &Limits, fields: Option<&[String]>) -> Result<Object, Fault> {
    if text.len() > limits.number_bytes {
        check_number_lengths(text, limits)?;
    }
    let check = Check {
        limits,
        keys: Cell::new(0),
        values: Cell::new(0),
        depth: Cell::new(0),
        huge: Cell::new(false),
        fault: RefCell::new(None),
    };
    let mut input = serde_json::Deserializer::from_str(text);
    let decoded = (|| {
        let value = Checked { check: &check, fields }.deserialize(&mut input)?;
        input.end()?;
        Ok(value)
    })();
    let value = match decoded {
        Ok(value) => value,
        Err(error) => return Err(check.fault.into_inner().unwrap_or_else(|| describe(&error, text))),
    };
    if check.huge.get() {
        check_integers(text)?;
    }
    match value {
        Value::Object(object) => Ok(object),
        other => Err(Fault::NotObject { found: kind(&other) }),
    }
}

/// What a value is, in a word.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The counters of one line, and the fault met, which cannot travel inside serde's error type.
struct Check<'c> {
    limits: &'c Limits,
    keys: Cell<usize>,
    values: Cell<usize>,
    depth: Cell<usize>,
    /// A number of 2^63 or more was met, which may be an integer that lost digits.
    huge: Cell<bool>,
    fault: RefCell<Option<Fault>>,
}

impl Check<'_> {
    fn refuse<T, E: serde::de::Error>(&self, fault: Fault) -> Result<T, E> {
        *self.fault.borrow_mut() = Some(fault);
        Err(E::custom("refused"))
    }

    /// BOUND: counts a thing that the input drives.
    fn count<E: serde::de::Error>(
        &self,
        counter: &Cell<usize>,
        limit: usize,
        fault: fn(usize) -> Fault,
    ) -> Result<(), E> {
        counter.set(counter.get() + 1);
        if counter.get() > limit {
            self.refuse(fault(limit))
        } else {
            Ok(())
        }
    }

    fn enter<E: serde::de::Error>(&self) -> Result<(), E> {
        self.count(&self.depth, self.limits.depth, |limit| Fault::DepthExceeded { limit })
    }

    fn leave(&self) {
        self.depth.set(self.depth.get() - 1);
    }
}

/// Builds one value under a [`Check`]; `fields` narrows the keys of this object, not of those inside it.
#[derive(Clone, Copy)]
struct Checked<'c, 'l> {
    check: &'c Check<'l>,
    fields: Option<&'c [String]>,
}

impl<'de> DeserializeSeed<'de> for Checked<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        self.check
            .count(&self.check.values, self.check.limits.value_count, |limit| {
                Fault::ValueCountExceeded { limit }
            })?;
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked<'_, '_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if value.abs() >= 9_223_372_036_854_775_808.0 {
            self.check.huge.set(true);
        }
        match serde_json::Number::from_f64(value) {
            Some(number) => Ok(Value::Number(number)),
            None => self.check.refuse(Fault::NonFinite { key: None }),
        }
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        self.check.enter()?;
        let inner = Checked { fields: None, ..self };
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            array.push(element);
        }
        self.check.leave();
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.check.enter()?;
        let inner = Checked { fields: None, ..self };
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<Key<'de>>()? {
            self.check
                .count(&self.check.keys, self.check.limits.key_count, |limit| {
                    Fault::KeyCountExceeded { limit }
                })?;
            if self
                .fields
                .is_some_and(|fields| !fields.iter().any(|field| *field == key.0))
            {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            match object.entry(key.0) {
                serde_json::map::Entry::Vacant(slot) => {
                    slot.insert(entries.next_value_seed(inner)?);
                }
                serde_json::map::Entry::Occupied(slot) => {
                    return self.check.refuse(Fault::KeyDuplicate { key: slot.key().into() });
                }
            }
        }
        self.check.leave();
        Ok(Value::Object(object))
    }
}

/// An object key, borrowed from the text unless it holds an escape.
struct Key<'de>(std::borrow::Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Key<'de>, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(key.into()))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(key.to_owned().into()))
            }
        }
        input.deserialize_str(KeyVisitor)
    }
}

/// The number tokens of a JSON text: every run of number characters outside strings.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            match bytes[at] {
                b'"' => at = string_end(bytes, at),
                b'-' | b'0'..=b'9' => {
                    let from = at;
                    while at < bytes.len() && matches!(bytes[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                        at += 1;
                    }
                    return Some(&text[from..at]);
                }
                _ => at += 1,
            }
        }
        None
    })
}

/// The index after the closing quote of the string that opens at `at`, or the end of the text.
pub(crate) fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        match memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
            None => return bytes.len(),
            Some(step) if bytes[at + step] == b'"' => return at + step + 1,
            Some(step) => at += step + 2,
        }
    }
}

fn check_number_lengths(text: &str, limits: &Limits) -> Result<(), Fault> {
    match numbers(text).find(|number| number.len() > limits.number_bytes) {
        Some(_) => Err(Fault::NumberTooLong {
            limit: limits.number_bytes,
        }),
        None => Ok(()),
    }
}

fn check_integers(text: &str) -> Result<(), Fault> {
    let is_integer = |number: &&str| number.bytes().all(|byte| matches!(byte, b'-' | b'0'..=b'9'));
    // "-0" is a float to serde_json and fits; everything else must be an i64 or a u64.
    match numbers(text)
        .filter(is_integer)
        .find(|number| number.parse::<u64>().is_err() && number.parse::<i64>().is_err())
    {
        Some(_) => Err(Fault::NumberOutOfRange {
            reason: "an integer beyond 64 bits would lose digits (write it as a string)",
        }),
        None => Ok(()),
    }
}

/// Turns a serde_json error about `text` into a fault that quotes no value.
pub(crate) fn describe(error: &serde_json::Error, text: &str) -> Fault {
    let message = error.to_string();
    let reason = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(reason, _)| reason);
    if error.classify() == serde_json::error::Category::Data {
        return describe_data(reason, None);
    }
    // serde_json counts columns within its own lines; an element of a JSON array may span several.
    let line_start = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum::<usize>();
    let column = line_start + error.column();
    // The word that the parser stumbled over or in, with its sign.
    let is_word = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'-';
    let at = column.saturating_sub(1).min(text.len());
    let start = at
        - text.as_bytes()[..at]
            .iter()
            .rev()
            .take(9)
            .take_while(|byte| is_word(byte))
            .count();
    let word = &text.as_bytes()[start..];
    let word = word.strip_prefix(b"-").unwrap_or(word);
    let is_non_finite = ["nan", "inf"].iter().any(|name| {
        word.get(..3)
            .is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    });
    match reason {
        "number out of range" => Fault::NumberOutOfRange {
            reason: "beyond the range of f64",
        },
        "recursion limit exceeded" => Fault::DepthExceeded { limit: 127 },
        _ if is_non_finite => Fault::NonFinite { key: None },
        _ => Fault::NotJson {
            column,
            reason: reason.to_owned(),
        },
    }
}

/// Turns serde's words about a mistyped value into a fault. They quote strings of the data; only type names and our own field names are kept.
fn describe_data(reason: &str, key: Option<String>) -> Fault {
    let name = |prefix: &str| reason.strip_prefix(prefix).and_then(|rest| rest.split('`').next());
    if let Some(key) = name("missing field `") {
        return Fault::KeyMissing { key: key.into() };
    }
    if let Some(key) = name("duplicate field `") {
        return Fault::KeyDuplicate { key: key.into() };
    }
    let found = match reason.split_once(": ") {
        Some(("invalid type" | "invalid value", found)) => found.split([' ', ',', '`', '"']).next().unwrap_or_default(),
        _ if reason.starts_with("unknown variant") => "an unknown name",
        _ if reason.starts_with("invalid length") => "of another length",
        _ => {
            return Fault::Unacceptable {
                reason: match key {
                    Some(key) => format!("key `{}`: {reason}", crate::error::KeyName::from(key)),
                    None => reason.to_owned(),
                },
            };
        }
    };
    // The data may hold these words too, but comes first.
    let expected = reason
        .rsplit_once(", expected ")
        .map_or("another type", |(_, expected)| expected);
    Fault::KeyMismatch {
        key: key.unwrap_or_else(|| ".".into()).into(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}

/// Decodes a typed record out of an object.
pub(crate) fn typed<T: DeserializeOwned>(object: &Object) -> Result<T, Fault> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = error.path().to_string();
        describe_data(&error.inner().to_string(), (path != ".").then_some(path))
    })
}

/// Decodes a typed record out of a text, building only what it names; see [`crate::Line::parse`] for what is checked.
pub(crate) fn typed_text<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| {
        if error.classify() != serde_json::error::Category::Data {
            return describe(&error, text);
        }
        // Slow, and only for the message: which key it was.
        let mut input = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut input) {
            Err(named) => {
                let path = named.path().to_string();
                let message = named.inner().to_string();
                let reason = message
                    .rsplit_once(" at line ")
                    .map_or(message.as_str(), |(reason, _)| reason);
                describe_data(reason, (path != ".").then_some(path))
            }
            Ok(_) => describe(&error, text),
        }
    })
}
